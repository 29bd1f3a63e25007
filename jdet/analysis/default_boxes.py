"""How well a config's default boxes fit its data, and which settings would fit better.

    python -m jdet.analysis.default_boxes --config=experiments/x.py [--config.data.root=…] [--augmented]

An object that no default box overlaps by the matching threshold is trained through a single box and is
found badly. The command measures how many there are, by class and size, and searches the size rule of
SSD (``jdet.ops.anchors.ssd_levels``) and the levels for settings that leave fewer; it prints them as
flags to paste. Seconds: nothing of the network is computed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from jdet import build, command, files
from jdet import config as config_lib
from jdet.analysis import box_coverage
from jdet.analysis.box_coverage import Objects
from jdet.detectors.ssd import SSD
from jdet.ops import anchors
from jdet.types import ConfigError

FIRST = (0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.10, 0.12, 0.15, 0.20, 0.25)
SECOND = (0.06, 0.08, 0.10, 0.12, 0.15, 0.20, 0.25, 0.30, 0.40)
HIGHEST = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Where the search starts: ``first_ratio``, ``min_ratio`` and ``max_ratio``."""

STEPS = ((0.02, 0.01, 0.005), (0.04, 0.02, 0.01), (0.1, 0.05, 0.05))
"""How far each of them is moved around the best of those, coarse to fine."""

ENOUGH = 0.9
"""Recall of the worst class below which larger inputs are tried too."""

LARGER = (1.5, 2.0)
SEARCHED = 3000
"""Objects a search looks at, evenly of all classes."""


class Setting(NamedTuple):
    """What decides over the default boxes; fields as in the config."""

    input_size: int
    taps: tuple[str, ...]
    first_ratio: float
    min_ratio: float
    max_ratio: float


class Proposal(NamedTuple):
    """A setting and what it reaches.

    Attributes:
        setting: found by the search.
        boxes: default boxes of a picture.
        recall: float [K], share of each class's objects with a default box at the threshold; NaN for
            classes without objects.
        best_iou: mean over the objects of a class, then over the classes, of the best IoU.
    """

    setting: Setting
    boxes: int
    recall: np.ndarray
    best_iou: float

    @property
    def rank(self) -> tuple[float, float, int]:
        """Larger is better: recall, then best IoU, then fewer boxes, in steps that matter."""
        return round(200 * np.nanmean(self.recall)), round(100 * self.best_iou), -self.boxes


class Layout(NamedTuple):
    """Nominal strides and map sides of the levels that a choice of taps makes."""

    strides: list[int]
    cells: list[int]

    def levels(self, setting: Setting) -> tuple[anchors.DefaultBoxLevel, ...]:
        """The default boxes of a setting."""
        _, _, first, low, high = setting
        return anchors.ssd_levels(
            setting.input_size,
            self.strides,
            self.cells,
            first_ratio=first,
            min_ratio=low,
            max_ratio=high,
        )


def layout(detector: Any, input_size: int, taps: tuple[str, ...]) -> Layout:
    """Levels of a detector if it had these taps and this input size."""
    neck = detector.neck.clone(taps=taps)
    return Layout(*detector.clone(input_size=input_size, neck=neck).level_sizes())


def judge(
    objects: Objects,
    setting: Setting,
    levels: Sequence[anchors.DefaultBoxLevel],
    cells: Sequence[int],
    num_classes: int,
    threshold: float,
) -> Proposal:
    """Recall and overlap of default boxes, class by class."""
    best = box_coverage.best_iou(objects, levels, cells)
    counts = np.bincount(objects.labels, minlength=num_classes)
    with np.errstate(invalid="ignore"):  # classes without objects become NaN
        recall = np.bincount(objects.labels, best >= threshold, num_classes) / counts
        overlap = np.bincount(objects.labels, best, num_classes) / counts
    boxes = sum(side * side * level.boxes_per_location for level, side in zip(levels, cells))
    return Proposal(setting, boxes, recall, float(np.nanmean(overlap)))


def search(
    objects: Objects,
    detector: Any,
    input_size: int,
    taps: tuple[str, ...],
    num_classes: int,
) -> Proposal:
    """The best ratios for given levels: a grid, then steps around its best.

    Args:
        objects: in pixels of an input of ``input_size``.
        detector: gives levels and matching threshold.
        input_size: pixels.
        taps: backbone stages that are levels.
        num_classes: K.
    """
    plan = layout(detector, input_size, taps)
    sample = _even_sample(objects, num_classes)

    def evaluate(on: Objects, ratios: tuple[float, ...]) -> Proposal:
        setting = Setting(input_size, taps, *ratios)
        levels = plan.levels(setting)
        return judge(on, setting, levels, plan.cells, num_classes, detector.iou_threshold)

    def allowed(ratios: tuple[float, ...]) -> bool:
        first, low, high = ratios
        return first * input_size >= 2 and 0.01 <= first < low < high <= 1

    grid = filter(allowed, itertools.product(FIRST, SECOND, HIGHEST))
    best = max((evaluate(sample, ratios) for ratios in grid), key=lambda found: found.rank)
    for step in zip(*STEPS):
        ratios = best.setting[2:]
        around = itertools.product(*((r - s, r, r + s) for r, s in zip(ratios, step)))
        rounded = {tuple(round(r, 3) for r in moved) for moved in around}
        near = (evaluate(sample, moved) for moved in sorted(filter(allowed, rounded)))
        best = max((best, *near), key=lambda found: found.rank)
    return evaluate(objects, best.setting[2:])


def _even_sample(objects: Objects, num_classes: int) -> Objects:
    share = -(-SEARCHED // num_classes)
    order = np.random.default_rng(0).permutation(len(objects.labels))
    rows = [order[objects.labels[order] == label][:share] for label in range(num_classes)]
    chosen = np.sort(np.concatenate(rows))
    return Objects(*(column[chosen] for column in objects))


def propose(
    objects: Objects, detector: Any, num_classes: int, *, finest_stride: int = 4
) -> list[Proposal]:
    """Searches ratios for every sensible choice of levels, and larger inputs where those are needed.

    Args:
        objects: in pixels of the detector's input.
        detector: an unbound ``SSD``.
        num_classes: K.
        finest_stride: of the first level, at least.

    Returns:
        The proposals, the recommended one first: at the detector's own input size, unless the
        classes' recall stays below ``ENOUGH`` in the mean and a larger input does better.
    """
    current = tuple(detector.neck.taps)
    names = detector.backbone.stage_names
    choices = {current} | {
        names[i:]
        for i in range(len(names))
        if finest_stride <= 2 ** int(names[i][1:]) <= max(8, 2 ** int(current[0][1:]))
    }
    size = detector.input_size

    def at(size: int) -> list[Proposal]:
        moved = objects.scaled(size / detector.input_size)
        found = [search(moved, detector, size, taps, num_classes) for taps in sorted(choices)]
        return sorted(found, key=lambda proposal: proposal.rank, reverse=True)

    found = at(size)
    best = found[0]
    if np.nanmin(best.recall) < ENOUGH:
        for factor in LARGER:
            larger = at(round(size * factor / 16) * 16)
            found += larger
            if np.nanmean(best.recall) < ENOUGH and larger[0].rank[0] > best.rank[0]:
                best = larger[0]
    return [best, *(proposal for proposal in found if proposal is not best)]


def as_flags(setting: Setting, config: ConfigDict) -> list[str]:
    """The flags that turn a config into a setting; nothing for what it has already."""
    wanted = {
        "input_size": (setting.input_size, config.input_size),
        "model.taps": (setting.taps, tuple(config.model.taps)),
        "model.first_ratio": (setting.first_ratio, config.model.first_ratio),
        "model.min_ratio": (setting.min_ratio, config.model.min_ratio),
        "model.max_ratio": (setting.max_ratio, config.model.max_ratio),
    }
    return [
        f'--config.{key}="{new}"' if key == "model.taps" else f"--config.{key}={new}"
        for key, (new, old) in wanted.items()
        if new != old
    ]


def analyse(
    config: ConfigDict,
    *,
    augmented: bool = False,
    max_pictures: int = 5000,
    finest_stride: int = 4,
) -> dict[str, Any]:
    """Measures and proposes.

    Args:
        config: a whole config whose detector has SSD's default boxes.
        augmented: measure the objects as the training augmentation shows them.
        max_pictures: size of the sample; 0: all pictures.
        finest_stride: of the first level in proposals, at least.

    Returns:
        ``input_size``, ``taps``, ``threshold``, ``pictures``, ``objects``, ``class_names``, ``rows``
        (``box_coverage.summary``), ``current`` and ``proposals`` (each with ``input_size``, ``taps``,
        the ratios, ``boxes``, ``recall`` by class, ``best_iou`` and ``flags``, recommended first).

    Raises:
        ConfigError: the config cannot be built, or its detector has no default boxes.
        DataError: the data set is missing or contradicts itself, or has no objects.
    """
    source, _ = build.sources(config)
    names = tuple(source.class_names)
    detector = build.detector(config, names)
    if not isinstance(detector, SSD):
        raise ConfigError(
            f"config.model.name={config.model.name!r} has no default boxes of SSD; this is for 'ssd'"
        )
    objects = box_coverage.read_objects(
        source,
        config.input_size,
        augment=config.augment if augmented else None,
        seed=config.seed,
        keep_ignored=detector.train_ignored,
        max_pictures=max_pictures,
        on_error=config.data.on_error,
    )
    if not len(objects.labels):
        raise ConfigError("config.data.train has no objects to measure; name data with boxes")
    levels, (_, cells) = detector.default_box_levels(), detector.level_sizes()
    threshold = detector.iou_threshold
    coverage = box_coverage.cover(objects, levels, cells, threshold)
    taps = tuple(detector.neck.taps)
    ratios = (config.model.first_ratio, config.model.min_ratio, config.model.max_ratio)
    now = Setting(config.input_size, taps, *ratios)
    current = judge(objects, now, levels, cells, len(names), threshold)
    proposals = propose(objects, detector, len(names), finest_stride=finest_stride)

    def plain(proposal: Proposal) -> dict[str, Any]:
        return {
            **proposal.setting._asdict(),
            "boxes": proposal.boxes,
            "recall": dict(zip(names, proposal.recall.tolist())),
            "best_iou": proposal.best_iou,
            "flags": as_flags(proposal.setting, config),
        }

    return {
        "input_size": config.input_size,
        "taps": taps,
        "threshold": threshold,
        "augmented": augmented,
        "pictures": len(np.unique(objects.pictures)),
        "objects": len(objects.labels),
        "class_names": names,
        "rows": box_coverage.summary(objects, coverage, names, threshold),
        "current": {**plain(current), "flags": []},
        "proposals": [plain(proposal) for proposal in proposals],
    }


def print_analysis(found: dict[str, Any]) -> None:
    """Prints the table by class and size, the proposals, and the recommended one as flags."""
    from rich.console import Console
    from rich.table import Column, Table

    console = Console(width=None if Console().is_terminal else 120)
    threshold = found["threshold"]
    seen = "as the training augmentation shows them" if found["augmented"] else "whole pictures"
    console.print(
        f"{found['objects']:,} objects of {found['pictures']:,} pictures, {seen}, in pixels of the "
        f"{found['input_size']}×{found['input_size']} input; levels {', '.join(found['taps'])} and "
        f"above, {found['current']['boxes']:,} default boxes\n"
    )
    heads = (
        "size",
        "objects",
        "10/50/90 %",
        "best IoU",
        f"recall@{threshold:g}",
        "boxes",
        "shared",
    )
    table = Table("class", *(Column(head, justify="right") for head in heads), box=None)
    for row in found["rows"]:
        table.add_row(
            row["class"] if row["sizes"] == "all" else "",
            row["sizes"],
            f"{row['objects']:,}",
            "/".join(f"{side:.0f}" for side in row["size"]),
            f"{row['best_iou']:.2f}",
            f"{row['recall']:.3f}",
            f"{row['boxes']:.1f}",
            str(row["shared"]),
        )
    console.print(table)
    console.print(
        f"\nboxes: default boxes with IoU ≥ {threshold:g}, mean of the objects; shared: objects whose "
        "best default box is another's best too\n"
    )
    table = Table(
        "",
        *(Column(head, justify="right") for head in ("input", "taps", "first/min/max", "boxes")),
        *(Column(head, justify="right") for head in ("recall", "worst class", "best IoU")),
        box=None,
    )
    for name, row in [("now", found["current"]), *(("", row) for row in found["proposals"])]:
        recall = np.array(list(row["recall"].values()))
        worst = int(np.nanargmin(recall))
        table.add_row(
            "proposed" if row is found["proposals"][0] else name,
            str(row["input_size"]),
            " ".join(row["taps"]),
            f"{row['first_ratio']:g} {row['min_ratio']:g} {row['max_ratio']:g}",
            f"{row['boxes']:,}",
            f"{np.nanmean(recall):.3f}",
            f"{found['class_names'][worst]} {recall[worst]:.3f}",
            f"{row['best_iou']:.3f}",
        )
    console.print(table)
    best = found["proposals"][0]
    console.print(
        "\nrecall and best IoU here are means over the classes; the proposal, to paste:\n"
    )
    print("  " + " ".join(best["flags"]) if best["flags"] else "  nothing to change")
    for name, recall in best["recall"].items():
        before = found["current"]["recall"][name]
        if not np.isnan(before):
            print(f"  {name}: recall@{threshold:g} {before:.3f} → {recall:.3f}")


def main() -> None:
    """Runs what the flags ask for."""
    values = flags.FLAGS
    config_lib.validate(values.config)
    found = analyse(
        values.config,
        augmented=values.augmented,
        max_pictures=values.pictures,
        finest_stride=values.finest_stride,
    )
    if values.out:
        files.write_json(values.out, found)
    print_analysis(found)


if __name__ == "__main__":
    flags.DEFINE_string("out", "", "JSON file that gets the same numbers for programs.")
    flags.DEFINE_boolean("augmented", False, "Objects as the training augmentation shows them.")
    flags.DEFINE_integer("pictures", 5000, "Random sample of the training pictures; 0: all.", 0)
    flags.DEFINE_integer("finest_stride", 4, "Smallest stride of a level to propose.", 1)
    command.start(main)
