"""The StableHLO export: one zip with the program, its weights and what it says of itself.

    from jdet.export import artifact
    detector = artifact.load("detector.stablehlo")
    found = detector(image)  # [h, w, C] as stored → ImageDetections

Without jdet, ``manifest.json``, ``program.bin`` (``jax.export.deserialize``) and ``weights.npz`` are all it
takes: the arrays ``0``, ``1``, … are the program's first argument, before thresholds, image and size.
"""

from __future__ import annotations

import io
import json
import math
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from jdet.data.readers.numpy_file import read_header
from jdet.data.tiles import Tile
from jdet.evaluation.detect import Moved
from jdet.evaluation.tiling import Tiling
from jdet.export import manifest as manifest_lib
from jdet.export.program import Program, single
from jdet.types import ConfigError, DataError, ImageDetections

T = TypeVar("T")

PLATFORMS = ("cpu", "cuda", "tpu")
"""Of one program."""

LEAST = 256
"""Heights and widths of images are filled up to this, or to a power of two times it, since JAX compiles a
program for every size."""

MANIFEST, PROGRAM, WEIGHTS = "manifest.json", "program.bin", "weights.npz"


def make(program: Program, variables: Any, classes: int) -> bytes:
    """The program for all platforms and images of any size, serialised.

    Args:
        program: of a run.
        variables: its weights, or their shapes and types.
        classes: K.

    Raises:
        ConfigError: JAX cannot serialise here.
    """
    leaves, tree = jax.tree.flatten(variables)

    def flat(leaves: list[jax.Array], thresholds: Any, image: Any, size: Any) -> Any:
        return program(jax.tree.unflatten(tree, leaves), thresholds, image, size)

    height, width = jax.export.symbolic_shape("h, w")
    arguments = (
        [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves],
        jax.ShapeDtypeStruct((classes,), jnp.float32),
        jax.ShapeDtypeStruct((height, width, program.kind.channels), program.kind.dtype),
        jax.ShapeDtypeStruct((2,), jnp.int32),
    )
    exported = jax.export.export(jax.jit(flat), platforms=PLATFORMS)(*arguments)
    return bytes(_with_flatbuffers(exported.serialize))


def _with_flatbuffers(work: Callable[[], T]) -> T:
    """Does what JAX needs the package flatbuffers for.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return work()
    except ImportError as error:
        raise ConfigError(
            "JAX reads and writes programs with the package flatbuffers, which is not installed: "
            "pip install flatbuffers, or pip install --editable '.[export]' in the clone"
        ) from error


def pack(program: bytes, variables: Any, manifest: Mapping[str, Any]) -> bytes:
    """The file: a zip without compression of manifest, program and weights."""
    arrays: Any = {str(i): np.asarray(x) for i, x in enumerate(jax.tree.leaves(variables))}
    weights, packed = io.BytesIO(), io.BytesIO()
    np.savez(weights, **arrays)
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr(MANIFEST, json.dumps(manifest, indent=1) + "\n")
        file.writestr(PROGRAM, program)
        file.writestr(WEIGHTS, weights.getvalue())
    return packed.getvalue()


def _stored(data: bytes) -> dict[str, bytes]:
    """The members of a zip, none of which is compressed: they are no larger than the file.

    Raises:
        Exception: of many kinds, where it is broken.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        for member in file.infolist():
            if member.compress_type != zipfile.ZIP_STORED or member.file_size > len(data):
                raise ValueError(f"its member {member.filename} is compressed, which none may be")
        return {member.filename: file.read(member) for member in file.infolist()}


def _array(data: bytes) -> np.ndarray:
    """The array of a NPY file, which must be as long as its header says.

    Raises:
        Exception: of many kinds, where it is broken.
    """
    file = io.BytesIO(data)
    shape, dtype = read_header(file)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise ValueError(f"an array {dtype} {list(shape)} in {len(data)} bytes")
    return np.load(io.BytesIO(data), allow_pickle=False)


class Artifact:
    """An exported run; call it with images.

    Attributes:
        manifest: what the file says of itself (``docs/export.md``).
        class_names: K names, in label order.
    """

    def __init__(self, data: bytes, name: str = "the export"):
        """Reads a file's bytes.

        Raises:
            DataError: they are no export, or one of another version.
            ConfigError: JAX cannot read programs here.
        """
        try:
            self._read(data, name)
        except (ConfigError, DataError):
            raise
        except Exception as error:  # of many kinds, by what is broken
            what = f"{type(error).__name__}: {error}"
            raise DataError(f"{name}: no export of jdet, or a part of one ({what})") from error

    def _read(self, data: bytes, name: str) -> None:
        members = _stored(data)
        self.manifest = json.loads(members[MANIFEST])
        manifest_lib.check(self.manifest, name)
        self.class_names = tuple(map(str, self.manifest["classes"]))
        never = [np.inf if value is None else value for value in self.manifest["thresholds"]]
        self._thresholds = single(np.array(never, np.float64))
        tile, kind = self.manifest["tile"], self.manifest["image"]
        self._tiling = Tiling(**tile) if tile else None
        arrays = _stored(members[WEIGHTS])
        weights = [_array(arrays[f"{i}.npy"]) for i in range(len(arrays))]
        read = _with_flatbuffers(lambda: jax.export.deserialize(bytearray(members[PROGRAM])))
        *wanted, lowest, image, _ = read.in_avals
        same = [(x.shape, x.dtype) for x in weights] == [(x.shape, x.dtype) for x in wanted]
        same &= lowest.shape == self._thresholds.shape == (len(self.class_names),)
        if not same or (image.shape[2], image.dtype) != (kind["channels"], kind["dtype"]):
            raise ValueError("its program, weights and manifest are not of one run")
        self._weights = jax.device_put(weights)
        self._call = jax.jit(read.call)

    def __call__(self, image: np.ndarray, id: str = "") -> ImageDetections:
        """Finds objects in an image.

        Args:
            image: [h, w, C] of the run's type, values as stored.
            id: what to call it.

        Raises:
            DataError: it has other channels or another type than the training's images.
        """
        kind = self.manifest["image"]
        if image.ndim != 3 or image.shape[2] != kind["channels"] or image.dtype != kind["dtype"]:
            raise DataError(
                f"image {id!r} is {image.dtype} {list(image.shape)}; the run was trained on "
                f"{kind['dtype']} [H, W, {kind['channels']}]: give such images"
            )
        if self._tiling is None:
            return self._whole(image, id).pasted()
        size = image.shape[0], image.shape[1]
        parts: list[tuple[Tile, Moved]] = [
            (tile, self._whole(tile.cut(image), "")) for tile in self._tiling.tiles(*size)
        ]
        return self._tiling.merge(parts, size, id).pasted()

    def _whole(self, image: np.ndarray, id: str) -> Moved:
        height, width = image.shape[:2]
        canvas = np.zeros((_canvas(height), _canvas(width), image.shape[2]), image.dtype)
        canvas[:height, :width] = image
        size = np.array([height, width], np.int32)
        found = jax.device_get(self._call(self._weights, self._thresholds, canvas, size))
        rows = found["valid"]
        masks = found["masks"][rows] if "masks" in found else None
        return Moved(
            image=ImageDetections(
                id=id,
                boxes=found["boxes"][rows],
                scores=found["scores"][rows],
                labels=found["labels"][rows],
            ),
            frames=found["frames" if masks is not None else "boxes"][rows],
            masks=masks,
            size=(height, width),
        )


def _canvas(side: int) -> int:
    canvas = LEAST
    while canvas < side:
        canvas *= 2
    return canvas


def load(path: str | os.PathLike[str]) -> Artifact:
    """Reads an exported run.

    Raises:
        DataError: there is no such file, or it is no export of this version.
        ConfigError: JAX cannot read programs here.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return Artifact(data, str(path))
