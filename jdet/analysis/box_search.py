"""Search for default boxes that fit given objects: the ratios of SSD's size rule, and the levels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jdet.detectors.pyramid import FEWEST_OBJECTS, MISSED_SHARE
from jdet.nn.stages import stage_geometry
from jdet.ops import anchors, coverage
from jdet.ops.coverage import Objects

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
    """The settings that determine the default boxes; fields as in the config, ratios None if unused."""

    input_size: int
    taps: tuple[str, ...]
    first_ratio: Any
    min_ratio: Any
    max_ratio: Any


class Proposal(NamedTuple):
    """A setting and the coverage it achieves.

    Attributes:
        setting: found by the search: a ``Setting``, or that of another search.
        boxes: default boxes of an image.
        recall: float [K], share of each class's objects with a default box at the threshold; NaN for
            classes without objects.
        best_iou: mean over the objects of a class, then over the classes, of the best IoU.
    """

    setting: Any
    boxes: int
    recall: np.ndarray
    best_iou: float

    @property
    def rank(self) -> tuple[float, float, int]:
        """Sort key, larger is better: recall, then best IoU, then fewer boxes, all rounded."""
        return round(200 * np.nanmean(self.recall)), round(100 * self.best_iou), -self.boxes


class Layout(NamedTuple):
    """Nominal strides and map sides of the levels for a choice of taps."""

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
    setting: Any,
    levels: Sequence[Any],
    cells: Sequence[int],
    num_classes: int,
    threshold: float,
    clip: int = 0,
) -> Proposal:
    """Recall and overlap of default boxes, class by class; arguments as in ``coverage.cover``."""
    best = coverage.best_iou(objects, levels, cells, clip)
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
    objects: Objects,
    detector: Any,
    num_classes: int,
    *,
    finest_stride: int = 4,
    same_size: bool = False,
) -> list[Proposal]:
    """Searches ratios for every sensible choice of levels, and for larger inputs if they are needed.

    Args:
        objects: in pixels of the detector's input.
        detector: an unbound ``SSD``.
        num_classes: K.
        finest_stride: of the first level, at least.
        same_size: look at no larger inputs.

    Returns:
        The proposals, the recommended one first: at the detector's own input size, unless the
        classes' recall stays below ``ENOUGH`` in the mean and a larger input does better.
    """
    current = tuple(detector.neck.taps)
    geometry = stage_geometry(detector.backbone, detector.input_size)
    names, coarsest = tuple(geometry), max(8, geometry[current[0]][0])
    choices = {current} | {
        names[i:] for i in range(len(names)) if finest_stride <= geometry[names[i]][0] <= coarsest
    }
    size = detector.input_size

    def at(size: int) -> list[Proposal]:
        moved = objects.scaled(size / detector.input_size)
        found = [search(moved, detector, size, taps, num_classes) for taps in sorted(choices)]
        return sorted(found, key=lambda proposal: proposal.rank, reverse=True)

    found = at(size)
    best = found[0]
    if np.nanmin(best.recall) < ENOUGH and not same_size:
        for factor in LARGER:
            larger = at(round(size * factor / 16) * 16)
            found += larger
            if np.nanmean(best.recall) < ENOUGH and larger[0].rank[0] > best.rank[0]:
                best = larger[0]
    return [best, *(proposal for proposal in found if proposal is not best)]


def fit(
    objects: Objects, detector: Any, num_classes: int, *, same_size: bool = False
) -> Proposal | None:
    """The proposal for a detector whose default boxes leave many objects of a class unmatched.

    Args:
        objects: in pixels of the detector's input; classes with fewer than ten decide nothing.
        detector: an unbound ``SSD``.
        num_classes: K.
        same_size: keep the detector's input size.

    Returns:
        The best proposal; None where no class needs one, or none is better than what there is.
    """
    objects = objects.of_classes_with(FEWEST_OBJECTS)
    if not len(objects.labels):
        return None
    ratios = detector.first_ratio, detector.min_ratio, detector.max_ratio
    setting = Setting(detector.input_size, tuple(detector.neck.taps), *ratios)
    levels, (_, cells) = detector.anchor_levels(), detector.level_sizes()
    current = judge(objects, setting, levels, cells, num_classes, detector.iou_threshold)
    if np.nanmin(current.recall) >= 1 - MISSED_SHARE:
        return None
    best = propose(objects, detector, num_classes, same_size=same_size)[0]
    return best if best.rank[:2] > current.rank[:2] else None
