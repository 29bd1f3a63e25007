"""How well a config's default boxes fit its data, and which settings would fit better.

    python -m jdet.analysis.default_boxes --config=experiments/x.py [--config.data.root=…] [--augmented]

An object that no default box overlaps by the matching threshold is trained through a single box and is
found badly. The command measures how many there are, by class and size, and searches the size rule of
SSD (``jdet.ops.anchors.ssd_levels``) and the levels for settings that leave fewer; it prints them as
flags to paste. Seconds: nothing of the network is computed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from jdet import atomic_files, build, cli
from jdet import config as config_lib
from jdet.analysis import box_coverage
from jdet.analysis.box_search import Proposal, Setting, judge, propose
from jdet.data.transforms.warp import Warp
from jdet.detectors.pyramid import PyramidDetector
from jdet.detectors.ssd import SSD
from jdet.ops import coverage
from jdet.types import ConfigError

RATIOS = ("first_ratio", "min_ratio", "max_ratio")
"""The rule of SSD's default-box sizes."""

COLUMNS = ("min_sizes", "max_sizes", "aspect_ratios", "steps", "first_centres")
"""Columns of the table of default boxes that a config can replace; proposals go by the rule."""


def as_flags(setting: Setting, config: ConfigDict, taps: tuple[str, ...]) -> list[str]:
    """The flags that change a config into a setting; values that it has already are left out.

    Args:
        setting: what is wanted.
        config: a whole config.
        taps: the stages that are levels in it; ``config.model.taps`` may be empty.
    """
    model = config.model
    wanted: dict[str, tuple[Any, Any]] = {
        "input_size": (setting.input_size, config.input_size),
        "model.taps": (setting.taps, taps),
        "model.first_ratio": (setting.first_ratio, model.first_ratio),
        "model.min_ratio": (setting.min_ratio, model.min_ratio),
        "model.max_ratio": (setting.max_ratio, model.max_ratio),
        **{f"model.{column}": ((), tuple(model[column])) for column in COLUMNS},
        "model.clip_boxes": (False, model.clip_boxes),
    }
    return [
        f'--config.{key}="{new}"' if isinstance(new, tuple) else f"--config.{key}={new}"
        for key, (new, old) in wanted.items()
        if new != old
    ]


def analyse(
    config: ConfigDict,
    *,
    augmented: bool = False,
    max_images: int = 5000,
    finest_stride: int = 4,
) -> dict[str, Any]:
    """Measures the coverage of a config's anchors and proposes settings.

    Args:
        config: a whole config whose detector has anchors that become positive by their IoU. Settings are
            proposed for SSD's default boxes, which follow a rule of three ratios.
        augmented: measure the objects as the training augmentation shows them.
        max_images: size of the sample; 0: all images.
        finest_stride: of the first level in proposals, at least.

    Returns:
        ``input_size``, ``taps``, ``threshold``, ``images``, ``objects``, ``class_names``, ``rows``
        (``box_coverage.summary``), ``current`` and ``proposals`` (each with ``input_size``, ``taps``,
        the ratios, ``boxes``, ``recall`` by class, ``best_iou`` and ``flags``, recommended first).

    Raises:
        ConfigError: the config is invalid, its detector has no such anchors, or its data no objects.
        DataError: the data set is missing or contradicts itself.
    """
    source, _ = build.sources(config)
    names = tuple(source.class_names)
    config = config.copy_and_resolve_references()
    build.look_at_images(config, source)
    detector = build.detector(config, names)
    threshold = detector.positive_iou
    if threshold is None or not isinstance(detector, PyramidDetector):
        raise ConfigError(
            f"config.model.name={config.model.name!r} has no anchors that become positive by their IoU; "
            "there is nothing to measure"
        )
    objects = box_coverage.read_objects(
        source,
        Warp(config.input_size),
        augment=build.augment(config) if augmented else None,
        seed=config.seed,
        keep_ignored=detector.train_ignored,
        max_images=max_images,
        on_error=config.data.on_error,
        tile=build.train_tile(config),
    )
    if not len(objects.labels):
        raise ConfigError("config.data.train has no objects to measure; name data with boxes")
    levels, (_, cells) = detector.anchor_levels(), detector.level_sizes()
    clip = config.input_size if getattr(detector, "clip_boxes", False) else 0
    found = coverage.cover(objects, levels, cells, threshold, clip)
    taps = tuple(detector.neck.taps)
    by_rule = isinstance(detector, SSD)
    ratios = (config.model[name] if by_rule else None for name in RATIOS)
    now = Setting(config.input_size, taps, *ratios)
    current = judge(objects, now, levels, cells, len(names), threshold, clip)
    proposals = []
    if by_rule:
        proposals = propose(objects, detector, len(names), finest_stride=finest_stride)

    def plain(proposal: Proposal) -> dict[str, Any]:
        return {
            **proposal.setting._asdict(),
            "boxes": proposal.boxes,
            "recall": dict(zip(names, proposal.recall.tolist())),
            "best_iou": proposal.best_iou,
            "flags": as_flags(proposal.setting, config, taps) if by_rule else [],
        }

    return {
        "input_size": config.input_size,
        "taps": taps,
        "threshold": threshold,
        "augmented": augmented,
        "images": len(np.unique(objects.images)),
        "objects": len(objects.labels),
        "class_names": names,
        "rows": box_coverage.summary(objects, found, names, threshold),
        "current": {**plain(current), "flags": []},
        "proposals": [plain(proposal) for proposal in proposals],
    }


def print_analysis(found: dict[str, Any]) -> None:
    """Prints the table by class and size, the proposals, and the recommended one as flags."""
    from rich.console import Console
    from rich.table import Column, Table

    console = Console(width=None if Console().is_terminal else 120)
    threshold = found["threshold"]
    seen = "as the training augmentation shows them" if found["augmented"] else "whole images"
    console.print(
        f"{found['objects']:,} objects of {found['images']:,} images, {seen}, in pixels of the "
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
            "proposed" if found["proposals"] and row is found["proposals"][0] else name,
            str(row["input_size"]),
            " ".join(row["taps"]),
            "–" if row["first_ratio"] is None else " ".join(f"{row[r]:g}" for r in RATIOS),
            f"{row['boxes']:,}",
            f"{np.nanmean(recall):.3f}",
            f"{found['class_names'][worst]} {recall[worst]:.3f}",
            f"{row['best_iou']:.3f}",
        )
    console.print(table)
    if not found["proposals"]:
        return
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
    """The command."""
    values = flags.FLAGS
    config_lib.validate(values.config)
    found = analyse(
        values.config,
        augmented=values.augmented,
        max_images=values.images,
        finest_stride=values.finest_stride,
    )
    if values.out:
        atomic_files.write_json(values.out, found)
    print_analysis(found)


if __name__ == "__main__":
    flags.DEFINE_string("out", "", "JSON file that gets the same numbers for programs.")
    flags.DEFINE_boolean("augmented", False, "Objects as the training augmentation shows them.")
    flags.DEFINE_integer("images", 5000, "Random sample of the training images; 0: all.", 0)
    flags.DEFINE_integer("finest_stride", 4, "Smallest stride of a level to propose.", 1)
    cli.start(main)
