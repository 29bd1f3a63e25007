"""How well default boxes cover the objects of a data set; numpy alone, without the boxes themselves.

Default boxes of one shape stand on a grid. Along an axis, the part that two intervals share never
grows with the distance of their centres, and IoU grows with the shared parts; so of all boxes of one
shape the one at the nearest grid point overlaps an object most. That leaves one IoU for each object
and shape, whatever the size of the map.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jdet.data.batching import image_size
from jdet.data.transforms.augment import Augment
from jdet.data.transforms.element import Element
from jdet.data.transforms.finish import locate, moved_objects
from jdet.data.transforms.resize import Resize
from jdet.ops.anchors import DefaultBoxLevel, default_boxes
from jdet.types import DataError, Source

SHARE = 0.15
"""Share of a class's objects without a default box at the threshold that is worth a warning."""

FEWEST = 10
"""Objects of a class below which such a share says little."""


class Objects(NamedTuple):
    """Objects as the network meets them.

    Attributes:
        boxes: float64 [n, 4], x1 y1 x2 y2 in pixels of the network input.
        labels: int [n], 0 … K-1.
        images: int [n], which objects lie in one image.
    """

    boxes: np.ndarray
    labels: np.ndarray
    images: np.ndarray

    def scaled(self, factor: float) -> Objects:
        """The same objects at ``factor`` times the input size."""
        return self._replace(boxes=self.boxes * factor)


class Coverage(NamedTuple):
    """What the default boxes are to each object.

    Attributes:
        best: float64 [n], IoU with the best default box.
        count: int [n], default boxes that overlap it by the threshold or more.
        shared: bool [n], its best default box is that of another object of the image too.
    """

    best: np.ndarray
    count: np.ndarray
    shared: np.ndarray


def read_objects(
    source: Source,
    resize: Resize,
    *,
    augment: Augment | None = None,
    seed: int = 0,
    keep_ignored: bool = True,
    max_images: int = 0,
    max_boxes: int = 0,
    on_error: str = "raise",
) -> Objects:
    """Reads the objects of a source; images are opened only where their size is not known otherwise.

    Args:
        source: where the examples come from.
        resize: what the network sees of images.
        augment: objects as this augmentation shows them in training, one draw per image. None: whole
            images, resized.
        seed: of the augmentation, and of the sample.
        keep_ignored: difficult and crowd objects count.
        max_images: look at a random sample of so many images at most; 0: all.
        max_boxes: stop when this many objects are there; 0: never.
        on_error: "raise", or "skip": images that cannot be read are left out.

    Raises:
        ConfigError: the augmentation does not suit the resize.
        DataError: an image or label cannot be read.
    """
    chain = () if augment is None else augment.operations(resize).values()
    order = np.random.default_rng(seed).permutation(len(source))[: max_images or None]
    found, total = [], 0
    for index in order.tolist():
        try:
            example = source[index]
            height, width = image_size(source, index, example)
        except DataError:
            if on_error == "raise":
                raise
            continue
        keep = np.flatnonzero(~np.asarray(example.ignore, bool) | keep_ignored)
        element = Element(
            index=index,
            id=example.id,
            # Its size is all that the geometric operations ask of the image.
            image=np.broadcast_to(np.uint8(0), (height, width, 3)),
            boxes=np.asarray(example.boxes, np.float32)[keep],
            labels=np.asarray(example.labels)[keep],
            ignore=np.asarray(example.ignore)[keep],
            shape=resize.shapes[resize.shape_of(height, width)],
        )
        rng = np.random.default_rng([seed, index])
        for operation in chain:
            element = operation(element, rng)
        boxes, inside = moved_objects(element, locate(element, resize))
        found.append((boxes[inside], element.labels[inside], np.full(len(inside), index)))
        total += len(inside)
        if max_boxes and total >= max_boxes:
            break
    if not found:
        return Objects(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, int))
    boxes, labels, images = (np.concatenate(column) for column in zip(*found))
    return Objects(boxes.astype(float), labels.astype(int), images)


def cover(
    objects: Objects,
    levels: Sequence[DefaultBoxLevel],
    cells: Sequence[int],
    threshold: float = 0.5,
    clip: int = 0,
) -> Coverage:
    """Compares objects with all default boxes of a layout.

    Args:
        objects: n objects in pixels of the network input.
        levels: the default boxes of each level.
        cells: side of each level's map.
        threshold: IoU from which a default box is positive.
        clip: side of the image that the boxes are cut to, pixels; 0: they are not cut.
    """
    if clip:
        return _cover_clipped(objects, levels, cells, threshold, clip)
    n = len(objects.boxes)
    best, count, box = np.zeros(n), np.zeros(n, int), np.zeros((n, 4), int)
    low, high = objects.boxes[:, :2], objects.boxes[:, 2:]
    sides, centres = high - low, (low + high) / 2
    for number, (level, side) in enumerate(zip(levels, cells, strict=True)):
        grid = _nearest(centres, level, side).astype(int)  # [n, 2]
        away = np.abs(grid * level.step + level.start - centres)
        for shape, size in enumerate(level.cell()):
            common = _shared(sides, size, away).prod(-1)
            iou = common / np.maximum(sides.prod(-1) + size.prod() - common, 1e-12)
            better = iou > best
            best[better] = iou[better]
            box[better] = np.column_stack([np.full(n, number), grid, np.full(n, shape)])[better]
            rows = np.flatnonzero(iou >= threshold)
            if len(rows):
                count[rows] += _count(
                    sides[rows], centres[rows], grid[rows], size, level, side, threshold
                )
    return Coverage(best, count, _shared_best(objects, box, best))


def _nearest(centres: np.ndarray, level: DefaultBoxLevel, side: int) -> np.ndarray:
    """Index of the grid point nearest to each coordinate."""
    return np.clip(np.rint((centres - level.start) / level.step), 0, side - 1)


def _shared_best(objects: Objects, box: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Which objects have their best box in common; ``box`` [n, m] names it."""
    key = np.column_stack([objects.images, box])
    _, which, times = np.unique(key, axis=0, return_inverse=True, return_counts=True)
    return (times[which.reshape(-1)] > 1) & (best > 0)


def _cover_clipped(
    objects: Objects,
    levels: Sequence[DefaultBoxLevel],
    cells: Sequence[int],
    threshold: float,
    clip: int,
) -> Coverage:
    """Every object with every box: boxes cut at the border are no longer of one shape."""
    priors = default_boxes(levels, [(side, side) for side in cells], (clip, clip)).astype(float)
    low, high = priors[:, :2] - priors[:, 2:] / 2, priors[:, :2] + priors[:, 2:] / 2
    area = priors[:, 2:].prod(-1)
    n = len(objects.boxes)
    best, count, box = np.zeros(n), np.zeros(n, int), np.zeros((n, 1), int)
    for begin in range(0, n, 64):
        rows = slice(begin, begin + 64)
        a, b = objects.boxes[rows, None, :2], objects.boxes[rows, None, 2:]
        common = np.maximum(np.minimum(b, high) - np.maximum(a, low), 0).prod(-1)
        iou = common / np.maximum((b - a).prod(-1) + area - common, 1e-12)
        best[rows], box[rows, 0] = iou.max(1), iou.argmax(1)
        count[rows] = np.count_nonzero(iou >= threshold, axis=1)
    return Coverage(best, count, _shared_best(objects, box, best))


def best_iou(
    objects: Objects,
    levels: Sequence[DefaultBoxLevel],
    cells: Sequence[int],
    clip: int = 0,
) -> np.ndarray:
    """``cover(…).best`` alone, several times faster: for searches."""
    if clip:
        return _cover_clipped(objects, levels, cells, 0.5, clip).best
    low, high = objects.boxes[:, :2].T[..., None], objects.boxes[:, 2:].T[..., None]
    (w, h), centres = high - low, (low + high) / 2  # [n, 1], [2, n, 1]
    best = np.zeros(len(objects.boxes))
    for level, side in zip(levels, cells, strict=True):
        grid = _nearest(centres, level, side)
        dx, dy = np.abs(grid * level.step + level.start - centres)
        width, height = level.cell().T  # [A]
        x = np.minimum(np.minimum(w, width), (w + width) / 2 - dx)
        y = np.minimum(np.minimum(h, height), (h + height) / 2 - dy)
        common = np.maximum(x, 0) * np.maximum(y, 0)
        iou = common / np.maximum(w * h + width * height - common, 1e-12)
        np.maximum(best, iou.max(axis=1), out=best)
    return best


def _shared(sides: np.ndarray, size: np.ndarray, away: np.ndarray) -> np.ndarray:
    """Length that intervals of two lengths with centres ``away`` from each other have in common."""
    return np.maximum(np.minimum(np.minimum(sides, size), (sides + size) / 2 - away), 0)


def _count(
    sides: np.ndarray,
    centres: np.ndarray,
    grid: np.ndarray,
    size: np.ndarray,
    level: DefaultBoxLevel,
    cells: int,
    threshold: float,
) -> np.ndarray:
    """How many boxes of one shape and level overlap each of n objects by the threshold -> int [n]."""
    # IoU ≥ t where the intersection is at least this:
    needed = threshold / (1 + threshold) * (sides.prod(-1) + size.prod())
    other = np.minimum(sides, size)[:, ::-1]
    reach = ((sides + size) / 2 - needed[:, None] / other).max()
    farthest = int(max(reach, 0) / level.step) + 1
    around = np.arange(-farthest, farthest + 1)
    place = grid[..., None] + around  # [n, 2, m]
    away = np.abs(place * level.step + level.start - centres[..., None])
    common = _shared(sides[..., None], size[:, None], away) * ((place >= 0) & (place < cells))
    x, y = common[:, 0, :, None], common[:, 1, None, :]
    return np.count_nonzero(x * y >= needed[:, None, None] * (1 - 1e-12), axis=(1, 2))


def summary(
    objects: Objects, coverage: Coverage, class_names: Sequence[str], threshold: float = 0.5
) -> list[dict[str, Any]]:
    """Numbers of every class, and of every size in it, largest last.

    Returns:
        Rows of ``class`` and ``sizes`` (text, "all" or pixels of the network input; size is the square
        root of the area), ``objects``, ``size`` (10th, 50th and 90th percentile), ``best_iou`` (mean),
        ``recall`` (share with a default box at the threshold), ``boxes`` (mean number of those) and
        ``shared`` (objects whose best box is another's best too). The last rows, of class "all", are
        over the classes.
    """
    scale = np.sqrt(np.prod(objects.boxes[:, 2:] - objects.boxes[:, :2], axis=-1))
    bins = np.floor(np.log2(np.maximum(scale, 1))).astype(int)
    rows = []
    for label, name in [*enumerate(class_names), (None, "all")]:
        own = np.ones(len(scale), bool) if label is None else objects.labels == label
        groups = [("all", own)]
        for power in np.unique(bins[own]):
            groups.append((f"{2**power} … {2 ** (power + 1)}", own & (bins == power)))
        for sizes, chosen in groups:
            if chosen.any():
                rows.append(
                    {"class": name, "sizes": sizes, **_numbers(scale, coverage, chosen, threshold)}
                )
    return rows


def _numbers(
    scale: np.ndarray, coverage: Coverage, chosen: np.ndarray, threshold: float
) -> dict[str, Any]:
    return {
        "objects": int(chosen.sum()),
        "size": np.percentile(scale[chosen], (10, 50, 90)).round(1).tolist(),
        "best_iou": float(coverage.best[chosen].mean()),
        "recall": float((coverage.best[chosen] >= threshold).mean()),
        "boxes": float(coverage.count[chosen].mean()),
        "shared": int(coverage.shared[chosen].sum()),
    }


def warning(
    source: Source,
    detector: Any,
    class_names: Sequence[str],
    resize: Resize,
    *,
    sample: int = 2000,
) -> str:
    """What to say at the start of a training whose default boxes miss many objects; "" if they do not.

    Args:
        source: training data; a sample of at most ``sample`` objects and a fifth as many images is
            looked at.
        detector: with ``input_size``, ``iou_threshold``, ``train_ignored``, ``clip_boxes``,
            ``default_box_levels()`` and ``level_sizes()`` (SSD, RetinaNet).
        class_names: in label order.
        resize: what the network sees of images.
        sample: objects.
    """
    # A square that every input lies in: anchors beside the image are not the best of any object.
    side = max(itertools.chain(*resize.shapes))
    detector = detector.clone(input_size=side)
    objects = read_objects(
        source,
        resize,
        keep_ignored=detector.train_ignored,
        max_images=sample // 5,
        max_boxes=sample,
        on_error="skip",  # training has its own way to tell
    )
    _, cells = detector.level_sizes()
    clip = detector.input_size if detector.clip_boxes else 0
    best = best_iou(objects, detector.default_box_levels(), cells, clip)
    missed = best < detector.iou_threshold
    scale = np.sqrt(np.prod(objects.boxes[:, 2:] - objects.boxes[:, :2], axis=-1))
    parts = []
    for label, name in enumerate(class_names):
        own = objects.labels == label
        if own.sum() >= FEWEST and missed[own].mean() > SHARE:
            parts.append(
                f"{name} {missed[own].mean():.0%} ({missed[own].sum()} of {own.sum()} looked at, "
                f"median size of those {np.median(scale[own & missed]):.0f} pixels)"
            )
    if not parts:
        return ""
    if hasattr(detector, "anchor_scale"):
        remedy = (
            "each through the anchors it overlaps best, but weakly. config.model.anchor_scale, octaves "
            "and aspect_ratios change the anchors, config.model.taps their levels"
        )
    else:
        remedy = (
            "each through the one box it overlaps best (bipartite matching), but weakly. "
            "`python -m jdet.analysis.default_boxes --config=…` with the same config measures this and "
            "proposes settings"
        )
    return (
        f"no default box reaches an IoU of {detector.iou_threshold:g} with many objects at "
        f"{resize.test_setting()}: {'; '.join(parts)}. They are trained all the same, "
        f"{remedy}"
    )
