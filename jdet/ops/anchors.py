"""Default boxes of SSD (Liu et al. 2016, sec. 2.2; the Caffe release) and anchors of feature pyramids."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

SIZE_RULES = ("mmdetection", "caffe")
"""Sizes of default boxes in whole pixels, truncated, or as they are."""


class DefaultBoxLevel(NamedTuple):
    """The default boxes of one level.

    Attributes:
        size: side of the small square box, pixels.
        next_size: size of the next level; the second square box has side sqrt(size · next_size). 0:
            there is no second square box.
        ratios: aspect ratios above 1; each gives a wide and a tall box.
        step: distance between neighbouring box centres, pixels.
        first: centre of the first box, pixels; None: half a step.
        longest: longest side of a box, pixels; longer ones are cut to it.
    """

    size: float
    next_size: float
    ratios: tuple[float, ...]
    step: float
    first: float | None = None
    longest: float = math.inf

    @property
    def sides(self) -> tuple[float, float]:
        """The size of this level and that of the next."""
        return (self.size, self.next_size)

    @property
    def boxes_per_location(self) -> int:
        """Number of default boxes at each location."""
        return 1 + (self.next_size > 0) + 2 * len(self.ratios)

    @property
    def start(self) -> float:
        """Centre of the first box, pixels."""
        return self.step / 2 if self.first is None else self.first

    def cell(self) -> np.ndarray:
        """Widths and heights of the boxes of one location, float64 [A, 2], pixels."""
        sizes = [(self.size, self.size)]
        if self.next_size > 0:
            sizes += [(math.sqrt(self.size * self.next_size),) * 2]
        for ratio in self.ratios:
            root = math.sqrt(ratio)
            sizes += [(self.size * root, self.size / root), (self.size / root, self.size * root)]
        return np.minimum(sizes, self.longest)


class AnchorLevel(NamedTuple):
    """The anchors of one level of a feature pyramid (RPN, RetinaNet, ATSS), or its points (FCOS).

    Attributes:
        sides: square roots of the areas, pixels.
        ratios: heights over widths.
        step: distance between neighbouring anchor centres, pixels; or a pair, vertical and horizontal.
        rounded: round half widths and half heights to whole pixels, as torchvision does.
        start: centre of the first anchor, pixels; 0, the corner of the image, is what all reference
            implementations of anchors have. The points of FCOS start at half a step.
    """

    sides: tuple[float, ...]
    ratios: tuple[float, ...]
    step: float | tuple[float, float]
    rounded: bool = False
    start: float = 0.0

    @property
    def boxes_per_location(self) -> int:
        """Number of anchors at each location."""
        return len(self.sides) * len(self.ratios)

    def cell(self) -> np.ndarray:
        """Widths and heights, ratio by ratio and side by side, float64 [A, 2], pixels."""
        sizes = np.array(
            [(side / math.sqrt(r), side * math.sqrt(r)) for r in self.ratios for side in self.sides]
        )
        return 2 * np.round(sizes / 2) if self.rounded else sizes


class LevelAnchors(NamedTuple):
    """The anchors of one level on a map of a known size.

    Attributes:
        level: their sides, ratios and step.
        cells: height and width of the map.
    """

    level: DefaultBoxLevel | AnchorLevel
    cells: tuple[int, int]

    @property
    def boxes(self) -> int:
        """Number of anchors."""
        return math.prod(self.cells) * self.level.boxes_per_location


def retinanet_levels(
    strides: Sequence[int],
    *,
    scale: float = 4.0,
    octaves: int = 3,
    ratios: Sequence[float] = (0.5, 1.0, 2.0),
    rounded: bool = False,
) -> tuple[AnchorLevel, ...]:
    """Anchors of RetinaNet (Lin et al. 2017b, sec. 4): sides ``scale · stride · 2^(i / octaves)``.

    Args:
        strides: of each level, the step of its anchors.
        scale: smallest side in strides; 4 is 32 pixels on a level of stride 8.
        octaves: sides per level.
        ratios: heights over widths.
        rounded: truncate sides and round half sizes to whole pixels, as in torchvision.
    """
    levels = []
    for stride in strides:
        sides = tuple(scale * stride * 2 ** (i / octaves) for i in range(octaves))
        if rounded:
            sides = tuple(float(int(side)) for side in sides)
        levels.append(AnchorLevel(sides, tuple(ratios), stride, rounded))
    return tuple(levels)


def ssd_levels(
    input_size: int,
    strides: Sequence[int],
    cells: Sequence[int],
    *,
    first_ratio: float = 0.10,
    min_ratio: float = 0.20,
    max_ratio: float = 0.90,
    rule: str = "mmdetection",
) -> tuple[DefaultBoxLevel, ...]:
    """Sizes, aspect ratios and steps of every level for an input size.

    The first level's size is ``first_ratio`` of the input side, those of the others rise from ``min_ratio``
    in whole per cents with step ``floor((max - min) / (L - 2))``. VOC uses 10/20/90 %, COCO 7/15/90 %. The
    first and the last two levels have aspect ratio 2, the levels between them 2 and 3. At 300 pixels this
    is the published table (steps 8, 16, 32, 64, 100, 300; 8732 boxes) by either rule; at 512 and 7/15/90 %
    the sizes of Caffe's release are 35.84, 76.8, 153.6, …, those of MMDetection 35, 76, 153, ….

    Args:
        input_size: side of the square input, pixels.
        strides: nominal stride of each level (8, 16, …), the step of its default boxes.
        cells: side of each level's map. The boxes of maps of 3 and fewer cells are spread evenly over the
            image instead (steps 100 and 300 of SSD300). A 2×2 map above a 3×3 one, the last level of the
            released DSOD, keeps the step of a single cell.
        first_ratio: size of the first level, fraction of the side.
        min_ratio: size of the second level.
        max_ratio: upper end of the size rule.
        rule: one of ``SIZE_RULES``.

    Raises:
        ValueError: fewer than two levels, or no such rule.
    """
    if rule not in SIZE_RULES:
        raise ValueError(f"size_rule={rule!r}; it can be one of {', '.join(SIZE_RULES)}")
    count = len(strides)
    if count < 2:
        raise ValueError(
            f"input_size={input_size} leaves {count} pyramid level(s); SSD needs at least 2, "
            "use a larger input_size"
        )
    low, high = round(min_ratio * 100), round(max_ratio * 100)
    increment = (high - low) // max(count - 2, 1)
    percent = [first_ratio * 100] + [low + increment * i for i in range(count)]
    sizes = [input_size * p / 100 for p in percent]
    if rule == "mmdetection":
        sizes = [int(size + 1e-6) for size in sizes]
    levels = []
    for i, (stride, side) in enumerate(zip(strides, cells, strict=True)):
        spread = 1 if i and (cells[i - 1], side) == (3, 2) else side
        levels.append(
            DefaultBoxLevel(
                size=sizes[i],
                next_size=sizes[i + 1],
                ratios=(2.0,) if i == 0 or i >= count - 2 else (2.0, 3.0),
                step=stride if side > 3 else input_size / spread,
            )
        )
    return tuple(levels)


def replace_columns(
    levels: Sequence[DefaultBoxLevel],
    *,
    min_sizes: Sequence[float] = (),
    max_sizes: Sequence[float] = (),
    aspect_ratios: Sequence[tuple[float, ...]] = (),
    steps: Sequence[float] = (),
    first_centres: Sequence[float] = (),
) -> tuple[DefaultBoxLevel, ...]:
    """Replaces whole columns of the table of levels that the rule gives.

    Args:
        levels: one entry per level.
        min_sizes: ``size`` of every level. Of this and all other columns: empty leaves it as it is.
        max_sizes: ``next_size`` of every level.
        aspect_ratios: ``ratios`` of every level.
        steps: ``step`` of every level.
        first_centres: ``first`` of every level.

    Raises:
        ValueError: a column does not have one value per level.
    """
    columns: dict[str, tuple[str, Sequence[Any]]] = {
        "size": ("min_sizes", min_sizes),
        "next_size": ("max_sizes", max_sizes),
        "ratios": ("aspect_ratios", aspect_ratios),
        "step": ("steps", steps),
        "first": ("first_centres", first_centres),
    }
    for field, (key, values) in columns.items():
        if not values:
            continue
        if len(values) != len(levels):
            raise ValueError(
                f"{key}={tuple(values)} has {len(values)} values for {len(levels)} levels; give one "
                "per level, or none to have them by the rule"
            )
        levels = [level._replace(**{field: value}) for level, value in zip(levels, values)]
    return tuple(levels)


def check_levels(levels: Sequence[DefaultBoxLevel]) -> None:
    """Refuses boxes without area, against which no offset can be coded, and a step of 0.

    Args:
        levels: one entry per level, sizes in pixels.

    Raises:
        ValueError: names the column, the level and the value.
    """
    for i, level in enumerate(levels):
        for key, value, fine, expected in (
            ("min_sizes", level.size, 0 < level.size < math.inf, "above 0"),
            ("max_sizes", level.next_size, 0 <= level.next_size < math.inf, "at least 0"),
            (
                "aspect_ratios",
                level.ratios,
                _all_positive(level.ratios),
                "a tuple of numbers above 0",
            ),
            ("steps", level.step, 0 < level.step < math.inf, "above 0"),
        ):
            if not fine:
                raise ValueError(
                    f"level {i} of the default boxes has {key} {value!r}; it must be {expected}. Without "
                    "a column of your own, sizes come from input_size, first_ratio, min_ratio and "
                    "max_ratio"
                )


def _all_positive(ratios: Any) -> bool:
    return isinstance(ratios, tuple | list) and all(0 < ratio < math.inf for ratio in ratios)


def default_boxes(
    levels: Sequence[DefaultBoxLevel | AnchorLevel],
    shapes: Sequence[tuple[int, int]],
    clip: tuple[int, int] | None = None,
) -> np.ndarray:
    """All default boxes or anchors, in the order level, row, column, box.

    Args:
        levels: one entry per level.
        shapes: height and width of each level's map, cells.
        clip: height and width of the image to which boxes are clipped, pixels; None: not clipped.

    Returns:
        float32 [A, 4], ``cx cy w h`` in pixels of the network input.
    """
    boxes = []
    for level, (height, width) in zip(levels, shapes, strict=True):
        cell = level.cell()
        y, x = np.mgrid[:height, :width] * np.reshape(level.step, (-1, 1, 1)) + level.start
        grid = np.empty((height, width, len(cell), 4))
        grid[..., 0] = x[..., None]
        grid[..., 1] = y[..., None]
        grid[..., 2:] = cell
        boxes.append(grid.reshape(-1, 4))
    found = np.concatenate(boxes)
    if clip is not None:
        limit = np.array([clip[1], clip[0]])
        low = np.clip(found[:, :2] - found[:, 2:] / 2, 0, limit)
        high = np.clip(found[:, :2] + found[:, 2:] / 2, 0, limit)
        found = np.concatenate([(low + high) / 2, high - low], axis=1)
    return found.astype(np.float32)
