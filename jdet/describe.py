"""What a config builds, in numbers.

    python -m jdet.describe --config=experiments/x.py [--shape=800x1280] [--memory] [--out=FILE]

Per module the output shape, parameters and multiply-accumulates, then totals and, where the detector has
any, the anchors of each level, at the largest input shape of the config or at any other.
Everything comes from abstract
evaluation: nothing is computed, no weights are made. With ``--memory`` the training step is compiled
for the devices of this machine, and the compiler says what memory it takes.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from absl import flags
from ml_collections import ConfigDict

from jdet import atomic_files, build, cli
from jdet import config as config_lib
from jdet.data.sources.voc_files import VOC_CLASSES
from jdet.parallel import mesh as mesh_lib
from jdet.preflight import compile as compile_lib
from jdet.preflight import topology as topology_lib
from jdet.preflight.flops import count_macs
from jdet.preflight.report import in_bytes
from jdet.train import state
from jdet.types import ConfigError, DataError, ImageKind


class Row(NamedTuple):
    """One module.

    Attributes:
        path: names of the modules above and its own, joined by "/".
        output: shape of its output for one image; empty for a container without one.
        parameters: frozen ones too, everything below included.
        statistics: running statistics and other fixed numbers, everything below included.
        macs: multiply-accumulates of convolutions and products of matrices, for one image.
    """

    path: str
    output: tuple[int, ...]
    parameters: int
    statistics: int
    macs: int


class Description(NamedTuple):
    """A model in numbers.

    Attributes:
        rows: every module, parents before children.
        levels: per level of anchors: map (height, width), step, box sizes, boxes per location, number
            of boxes; empty where the detector has no anchors.
        parameters: frozen ones too, whole model.
        statistics: running statistics, whole model.
        macs: of one image, whole model.
        shape: height and width of the network input, pixels.
        classes: number of classes, without background.
        image_kind: what the images are.
        batch_bytes: of the images of a training batch, as they travel to the devices.
    """

    rows: list[Row]
    levels: list[dict[str, Any]]
    parameters: int
    statistics: int
    macs: int
    shape: tuple[int, int]
    classes: int
    image_kind: ImageKind
    batch_bytes: int


def describe(
    config: ConfigDict, class_names: tuple[str, ...], shape: tuple[int, int] | None = None
) -> Description:
    """Describes the detector of a config.

    Args:
        config: a whole config.
        class_names: without background.
        shape: height and width of the network input, pixels; None: the config's largest.

    Raises:
        ConfigError: the config cannot be built, or its detector takes no input of that shape.
    """
    detector = build.detector(config, class_names)
    shapes = build.resize(config).shapes
    shape = shape or max(shapes, key=math.prod)
    if shape not in shapes and not detector.any_input_size:
        raise ConfigError(
            f"--shape={shape[0]}x{shape[1]}: {config.model.name} takes inputs of config.input_size="
            f"{config.input_size} only; set that instead"
        )
    kind = detector.image_kind
    image = (
        jax.ShapeDtypeStruct((1, *shape, kind.channels), kind.dtype),
        jax.ShapeDtypeStruct((1, 2), jnp.int32),
    )
    params, stats = state.abstract_variables(detector, config)
    variables = state.variables(params, stats)

    def detect(variables, images, sizes):
        return detector.apply(
            variables, images, sizes, method="detect", capture_intermediates=True
        )[1]

    closed, outputs = jax.make_jaxpr(detect, return_shape=True)(variables, *image)
    macs = count_macs(closed.jaxpr)

    counts = {kind: _sizes(variables.get(kind, {})) for kind in ("params", "batch_stats")}
    made = dict(_outputs(outputs["intermediates"], ""))
    tops = list(dict.fromkeys(path.split("/")[0] for path in [*detector.parts, *made]))
    paths = sorted(
        {path for leaf in [*counts["params"], *macs] for path in _ancestors(leaf)},
        key=lambda path: _order(path, tops),
    )
    rows = [
        Row(
            path,
            made.get(path, ()),
            _below(counts["params"], path),
            _below(counts["batch_stats"], path),
            _below(macs, path),
        )
        for path in paths
    ]
    levels = [
        {
            "map": list(found.cells),
            "step": found.level.step,
            "sizes": list(found.level.sides),
            "boxes_per_location": found.level.boxes_per_location,
            "boxes": found.boxes,
        }
        for found in detector.anchors(shape) or ()
    ]
    return Description(
        rows,
        levels,
        sum(counts["params"].values()),
        sum(counts["batch_stats"].values()),
        sum(macs.values()),
        shape,
        len(class_names),
        kind,
        config.train.batch_size * math.prod(image[0].shape) * image[0].dtype.itemsize,
    )


def _sizes(tree: Any) -> dict[str, int]:
    """Number of elements by path of the owning module."""
    sizes: dict[str, int] = defaultdict(int)
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        sizes["/".join(str(key.key) for key in path[:-1])] += leaf.size
    return sizes


def _outputs(tree: Any, path: str):
    """Module path and output shape of everything captured, in the order of the calls."""
    for name, value in tree.items():
        if name == "__call__":
            arrays = [x for x in jax.tree.leaves(value) if hasattr(x, "shape")]
            if path and arrays:
                yield path, arrays[-1].shape[1:]
        else:
            yield from _outputs(value, f"{path}/{name}" if path else name)


def _ancestors(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def _below(values: dict[str, int], path: str) -> int:
    return sum(n for key, n in values.items() if key == path or key.startswith(path + "/"))


def _order(path: str, tops: list[str]) -> tuple[Any, ...]:
    """Modules of the top in the order of the network, then natural order of the names."""
    first = path.split("/")[0]
    pieces = tuple(
        tuple((0, int(c), "") if c.isdigit() else (1, 0, c) for c in _split_digits(part))
        for part in path.split("/")
    )
    return (tops.index(first) if first in tops else len(tops), pieces)


def _split_digits(text: str) -> list[str]:
    parts, digits = [""], False
    for char in text:
        if char.isdigit() != digits:
            parts.append("")
            digits = not digits
        parts[-1] += char
    return parts


def to_json(description: Description) -> dict[str, Any]:
    """The description for programs."""
    return {
        "shape": list(description.shape),
        "classes": description.classes,
        "images": description.image_kind._asdict(),
        "batch_bytes": description.batch_bytes,
        "parameters": description.parameters,
        "statistics": description.statistics,
        "gmacs": description.macs / 1e9,
        "anchors": sum(level["boxes"] for level in description.levels),
        "levels": description.levels,
        "modules": [row._asdict() for row in description.rows],
    }


def print_description(description: Description, depth: int) -> None:
    """Prints modules down to ``depth`` names, anchors per level, and totals."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 110)
    table = Table("module", *[_right(x) for x in ("output", "parameters", "MMAC")], box=None)
    for row in description.rows:
        level = row.path.count("/")
        if level < depth:
            shape = "×".join(map(str, row.output))
            name = "  " * level + row.path.rsplit("/", 1)[-1]
            table.add_row(name, shape, f"{row.parameters:,}", f"{row.macs / 1e6:,.1f}")
    console.print(table)
    anchors = f"{sum(level['boxes'] for level in description.levels):,} anchors, "
    anchors = anchors if description.levels else ""
    if description.levels:
        table = Table(*[_right(x) for x in ("map", "step", "sizes", "per cell", "boxes")], box=None)
        for level in description.levels:
            table.add_row(
                "×".join(map(str, level["map"])),
                f"{level['step']:g}",
                " ".join(f"{size:g}" for size in level["sizes"]),
                str(level["boxes_per_location"]),
                f"{level['boxes']:,}",
            )
        console.print("\nanchors (pixels of the network input)")
        console.print(table)
    console.print(
        f"\n{description.parameters:,} parameters, {description.statistics:,} running "
        f"statistics, {description.macs / 1e9:.2f} GMAC per image, {anchors}input "
        f"{'×'.join(map(str, description.shape))}, {description.classes} classes"
    )
    size = "×".join(map(str, (*description.shape, description.image_kind.channels)))
    console.print(
        f"images: {description.image_kind}; {size} in a batch, whose images are "
        f"{in_bytes(description.batch_bytes)}"
    )


def _right(title: str):
    from rich.table import Column

    return Column(title, justify="right")


def class_names_of(config: ConfigDict) -> tuple[str, ...]:
    """Class names for a description: the config's, the data's, or VOC's where there is no data.

    What the images are is written into the config, where there are data.
    """
    names = tuple(config.class_names)
    if names and config.data.image.found.channels:
        return names
    try:
        image = config_lib.image_settings(config)
        source = build.source(config.data.train, "config.data.train", "skip", image)
        build.look_at_images(config, source)
        return names or tuple(source.class_names)
    except DataError:
        if names or config.data.train.get("classes"):
            return names or tuple(config.data.train.classes)
        if config.data.train.name == "coco":
            return tuple(f"class {i}" for i in range(80))
        return VOC_CLASSES


def training_memory(config: ConfigDict, class_names: tuple[str, ...]) -> dict[str, Any]:
    """Memory of one device while it trains, predicted by compiling the step for the devices here.

    Args:
        config: a whole config; not changed.
        class_names: without background.

    Returns:
        ``device_kind``, ``devices``, ``images`` of each; bytes: ``arguments``, ``outputs``, ``aliased``
        (outputs in place of arguments), ``temporaries``, ``code``, ``peak`` and ``available``; ``fits``.
        Where the compiler itself runs out of the device's memory only ``peak`` is known, or 0.

    Raises:
        ConfigError: the config cannot be built, or the devices do not divide its batch.
    """
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.class_names = class_names
    mesh_lib.split_cpu(config)
    devices = mesh_lib.pick_devices(config)
    figures = compile_lib.measure(config, "train", devices)
    available = topology_lib.memory(devices[0])
    parts = figures.memory._asdict() if figures.memory else {}
    return {
        "device_kind": devices[0].device_kind,
        "devices": figures.devices,
        "images": figures.images,
        **parts,
        "peak": figures.needed,
        "available": available,
        "fits": figures.fits and not (available and figures.needed > available),
    }


def print_memory(memory: dict[str, Any]) -> None:
    """Prints the result of ``training_memory`` in two lines."""
    parts = ", ".join(
        f"{name} {in_bytes(memory[name]) or '0'}"
        for name in ("arguments", "outputs", "aliased", "temporaries", "code")
        if name in memory
    )
    verdict = "" if memory["fits"] else ": DOES NOT FIT"
    print(
        f"\ntraining memory of each of {memory['devices']} {memory['device_kind']} device(s), "
        f"{memory['images']} image(s) on each: {in_bytes(memory['peak']) or 'more'} of "
        f"{in_bytes(memory['available']) or 'an unknown size'}{verdict}"
    )
    if parts:
        print(f"  {parts} (aliased: outputs in place of arguments)")


def parse_shape(text: str) -> tuple[int, int] | None:
    """Height and width from "800x1280", None from nothing."""
    if not text:
        return None
    found = re.fullmatch(r"([1-9]\d*)[x×]([1-9]\d*)", text)
    if not found:
        raise ConfigError(f"--shape={text}; give height and width in pixels, such as 800x1280")
    return int(found[1]), int(found[2])


def main() -> None:
    """The command."""
    config = flags.FLAGS.config
    config_lib.validate(config)
    config = config_lib.of_phase(config, flags.FLAGS.phase)
    config_lib.validate(config)
    class_names = class_names_of(config)
    if flags.FLAGS.memory and flags.FLAGS.shape:
        raise ConfigError(
            "--memory is that of a training with the config's shapes; drop --shape, and set "
            "--config.input_size or --config.resize.shapes instead"
        )
    description = describe(config, class_names, parse_shape(flags.FLAGS.shape))
    memory = training_memory(config, class_names) if flags.FLAGS.memory else None
    if flags.FLAGS.out:
        values = to_json(description) | ({"memory": memory} if memory else {})
        atomic_files.write_json(flags.FLAGS.out, values)
    print_description(description, flags.FLAGS.depth)
    detector = build.detector(config, class_names)
    for line in build.normalise.describe(config, detector.image_kind):
        print(line)
    print(build.limits.describe(config, detector))
    if memory:
        print_memory(memory)


if __name__ == "__main__":
    flags.DEFINE_string("out", "", "JSON file that gets the same numbers for programs.")
    flags.DEFINE_alias("json", "out")
    flags.DEFINE_string(
        "shape", "", "Height and width of the input, as 800x1280; else the config's."
    )
    flags.DEFINE_string("phase", "", "Phase of a config that has some; else its last.")
    flags.DEFINE_bool("memory", False, "Also predict the memory of training on the devices here.")
    flags.DEFINE_integer("depth", 2, "How many module levels the table shows.")
    cli.start(main)
