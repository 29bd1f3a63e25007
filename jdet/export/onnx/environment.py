"""ONNX Runtime in a Python of its own, which jdet itself need not have, and detectors run by it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from jdet.types import ConfigError, ImageDetections

RUNTIME = Path(__file__).resolve().parents[1] / "jdet_runtime.py"
"""What users copy, which this runs too."""

PACKAGES = ("onnxruntime>=1.17", "numpy")


def python(given: str, notify: Callable[[str], None] = print) -> str:
    """An interpreter that has onnxruntime: the one given, this one, or one that is made and kept.

    Args:
        given: path of an interpreter; "": none.
        notify: is told what takes long.

    Raises:
        ConfigError: it has no onnxruntime, or that cannot be installed.
    """
    if given:
        if _has_it(given):
            return given
        raise ConfigError(
            f"--onnx_python={given} cannot import onnxruntime and numpy; install them there "
            f"({given} -m pip install onnxruntime numpy), or leave it out"
        )
    if importlib.util.find_spec("onnxruntime"):
        return sys.executable
    folder = cache() / f"onnxruntime-{sys.version_info.major}.{sys.version_info.minor}"
    own = str(folder / ("Scripts" if os.name == "nt" else "bin") / "python")
    if not _has_it(own):
        notify(f"installing {' and '.join(PACKAGES)} in {folder}, once")
        _install(folder, own)
    return own


def cache() -> Path:
    """The folder of what can be made again, of this user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jdet"


def _has_it(interpreter: str) -> bool:
    try:
        command = [interpreter, "-c", "import numpy, onnxruntime"]
        return subprocess.run(command, capture_output=True, timeout=120).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _install(folder: Path, interpreter: str) -> None:
    try:
        venv.create(folder, clear=True, with_pip=True)
        command = [interpreter, "-m", "pip", "install", "--quiet", *PACKAGES]
        done = subprocess.run(command, capture_output=True, text=True)
        problem = "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["?"])[-1]
    except (OSError, subprocess.CalledProcessError) as error:
        problem = str(error)
    if problem:
        raise ConfigError(
            f"onnxruntime could not be installed in {folder} ({problem}); connect to the network, or give "
            "an interpreter that has it: --onnx_python=PATH"
        )


_LOOP = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy, jdet_runtime
detector = jdet_runtime.Detector(sys.argv[2])
for line in sys.stdin:
    found = detector(numpy.load(sys.argv[3]))
    kept = {k: v for k, v in found.items() if k != "names" and v is not None}
    numpy.savez(sys.argv[4], **kept)
    print("done", flush=True)
"""


_OBSERVE = """
import sys
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
names = [output.name for output in session.get_outputs() if not output.shape]
for path in sys.argv[2:]:
    image = numpy.load(path)
    size = numpy.array(image.shape[:2], numpy.int32)
    values = session.run(names, {"image": image, "size": size})
    numpy.savez(path + ".npz", **dict(zip(names, values)))
"""


def observe(
    interpreter: str, data: bytes, images: Iterable[np.ndarray]
) -> Iterator[Mapping[str, float]]:
    """The single numbers that a model gives for images [h, w, C], by name.

    Raises:
        ConfigError: ONNX Runtime cannot run it.
    """
    with tempfile.TemporaryDirectory(prefix="jdet-export-") as folder:
        model = Path(folder) / "observed.onnx"
        model.write_bytes(data)
        paths = []
        for number, image in enumerate(images):
            paths.append(str(Path(folder) / f"{number}.npy"))
            np.save(paths[-1], image)
        command = [interpreter, "-c", _OBSERVE, str(model), *paths]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ConfigError(f"ONNX Runtime cannot run the detector: {last}")
        for path in paths:
            with np.load(path + ".npz") as found:
                yield {name: float(found[name]) for name in found.files}


class Runner:
    """A detector in an ONNX file, run by ``jdet_runtime.py`` in another interpreter."""

    def __init__(self, interpreter: str, data: bytes):
        """Starts the interpreter; ``close`` ends it.

        Args:
            interpreter: path, from ``python``.
            data: bytes of the file.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="jdet-export-")
        place = Path(self._folder.name)
        self._in, self._out = place / "image.npy", place / "found.npz"
        model = place / "detector.onnx"
        model.write_bytes(data)
        self._errors = (place / "errors.txt").open("w+")
        self._process = subprocess.Popen(
            [
                interpreter,
                "-c",
                _LOOP,
                str(RUNTIME.parent),
                str(model),
                str(self._in),
                str(self._out),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def __call__(self, image: np.ndarray, id: str = "") -> ImageDetections:
        """Finds objects in an image [h, w, C].

        Raises:
            ConfigError: ONNX Runtime cannot run the file.
        """
        np.save(self._in, image)
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self._errors.seek(0)
            last = (self._errors.read().strip().splitlines() or ["no message"])[-1]
            raise ConfigError(f"ONNX Runtime cannot run the detector: {last}")
        with np.load(self._out) as found:
            masks = found["masks"] if "masks" in found.files else None
            return ImageDetections(
                id=id,
                boxes=found["boxes"],
                scores=found["scores"],
                labels=found["labels"],
                masks=None if masks is None else tuple(map(_encoded, masks)),
            )

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the interpreter and removes its files."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()
        self._folder.cleanup()


def _encoded(mask: np.ndarray) -> Any:
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
