"""An export beside the run it was made of, on images: every detection of one must be the other's."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from pycocotools import mask as coco_mask

from jdet import build
from jdet.data.find_images import find_images, together
from jdet.evaluation.predictor import Predictor
from jdet.export.cuts import Cuts, Sides, unexplained
from jdet.types import ConfigError, DataError, ImageDetections

PIXELS = 1e-3
"""Largest difference of a box's coordinate, pixels of the image, unless another one is asked for."""

SCORE = 1e-4
"""Largest difference of a score."""

MASK = 2e-3
"""Largest share of a mask's pixels that may lie on the other side of its edge, where a probability is 0.5
but for rounding; one pixel always may."""

SIZES = ((480, 640), (375, 500), (640, 427), (1024, 1024), (90, 60))
"""Heights and widths of random images."""


FEW, ROUNDED = 4, 0.02
"""Detections of either side that rounding may explain: so many, or this share of the run's."""


class Difference(NamedTuple):
    """The largest differences over images.

    Attributes:
        images: how many were looked at.
        objects: detections of the run.
        pixels: of a box's coordinate.
        score: of a score.
        mask: share of a mask's pixels; 0 without masks.
        missing: detections that the other has none for, of the same label, or no mask for.
        rounded: such detections that rounding explains, which are not among those missing.
    """

    images: int = 0
    objects: int = 0
    pixels: float = 0.0
    score: float = 0.0
    mask: float = 0.0
    missing: int = 0
    rounded: int = 0

    def and_(self, other: Difference) -> Difference:
        """Over the images of both."""
        return Difference(
            images=self.images + other.images,
            objects=self.objects + other.objects,
            pixels=max(self.pixels, other.pixels),
            score=max(self.score, other.score),
            mask=max(self.mask, other.mask),
            missing=self.missing + other.missing,
            rounded=self.rounded + other.rounded,
        )

    def within(self, pixels: float = PIXELS) -> bool:
        """Whether the limits hold, of which that of boxes is ``pixels``."""
        close = self.pixels <= pixels and self.score <= SCORE and self.mask <= MASK
        # Boxes in wrong places drop one another like equal ones do, but they are many.
        return close and not self.missing and self.rounded <= max(FEW, ROUNDED * self.objects)

    def __str__(self) -> str:
        masks = f", {self.mask:.2g} of a mask's pixels" if self.mask else ""
        rounded = f" and {self.rounded} where rounding decides" if self.rounded else ""
        return (
            f"{self.objects} objects in {self.images} images: boxes within {self.pixels:.2g} px, scores "
            f"within {self.score:.2g}{masks}, {self.missing} found by one alone{rounded}"
        )


def difference(
    ours: ImageDetections,
    theirs: ImageDetections,
    cuts: Cuts,
    *,
    ends: np.ndarray | None = None,
    pixels: float = PIXELS,
) -> Difference:
    """How two sets of detections of one image differ.

    Detections are matched by label and place, since equal scores have no order. One that one side alone
    finds counts, unless rounding decides about it (``cuts.unexplained``): its score is within ``SCORE`` of
    a cut-off (its class's threshold, or the last score of an image or class that has as many detections as
    it may have), or its overlap with a box that competes with it is within the limit of boxes of NMS's
    threshold.

    Args:
        ours: of the run.
        theirs: of the export.
        cuts: of the detector.
        ends: cut-offs of the image; None: those of ``ours``.
        pixels: the limit of boxes.
    """
    left, most = list(range(len(theirs.scores))), max(pixels, PIXELS)
    found = Difference(images=1, objects=len(ours.scores))
    alone: list[int] = []
    for i in range(len(ours.scores)):
        near = [j for j in left if theirs.labels[j] == ours.labels[i]]
        apart = [_apart(theirs.boxes[j], ours.boxes[i]) for j in near]
        scores = [_apart(theirs.scores[j], ours.scores[i]) for j in near]
        # Two boxes in one place are told apart by their scores.
        order = sorted(range(len(near)), key=lambda k: (apart[k] > most, scores[k], apart[k]))
        if not order or apart[order[0]] > 1.0:
            alone.append(i)
            continue
        k, j = order[0], near[order[0]]
        left.remove(j)
        mask = 0.0
        if ours.masks is not None and theirs.masks is not None:
            mask = _other_pixels(ours.masks[i], theirs.masks[j])
        found = found.and_(Difference(pixels=apart[k], score=scores[k], mask=mask))
    sides = Sides(found=(ours, theirs), alone=(alone, left))
    ends = cuts.ends(ours) if ends is None else ends
    missing = unexplained(sides, cuts, ends, most, SCORE)
    if (ours.masks is None) != (theirs.masks is None):
        missing += len(ours.scores)
    return found._replace(missing=missing, rounded=len(alone) + len(left) - missing)


def _apart(one: Any, other: Any) -> float:
    """The largest difference of numbers; infinity where one is not finite, which no limit lets through."""
    largest = float(np.abs(np.subtract(one, other, dtype=np.float64)).max())
    return largest if np.isfinite(largest) else np.inf


def _other_pixels(one: Any, other: Any) -> float:
    both, either = (
        float(coco_mask.area(coco_mask.merge([one, other], intersect)))
        for intersect in (True, False)
    )
    return max(either - both - 1, 0) / either if either else 0.0


Images = Iterator[tuple[str, np.ndarray]]


def images_of(predictor: Predictor, paths: Sequence[str], count: int) -> tuple[Images, str]:
    """Images for a comparison, with their names, and in words which they are.

    Those of ``paths``; else of the run's evaluation split; else random ones, where its files are not here.

    Raises:
        ConfigError: there is no image in ``paths``.
    """
    if paths:
        files = find_images(paths)
        if predictor.images.files:
            files = together(files, predictor.images.files)
        if not files:
            raise ConfigError(
                f"there is no image in {', '.join(map(str, paths))}; name files or folders that have some "
                "with --images="
            )
        chosen = spread(len(files), count)
        read = (
            (files[i].name, predictor.images.read(files[i].parts or files[i].path)) for i in chosen
        )
        return read, f"{len(chosen)} of the {len(files)} images given"
    try:
        _, source = build.sources(predictor.config)
        chosen = spread(len(source), count)
        examples = (source[i] for i in chosen)
        read = ((each.id, predictor.images.read(each.image, each.id)) for each in examples)
        first = next(read)
        read = itertools.chain([first], read)
        return read, f"{len(chosen)} of the {len(source)} images of the run's evaluation split"
    except (ConfigError, DataError, StopIteration) as error:
        logging.info("the run's evaluation split cannot be read: %s", error)
        return _random(predictor, count), f"{count} random images, the run's own are not here"


def spread(total: int, count: int) -> list[int]:
    """Places of ``count`` of ``total``, evenly spread."""
    return sorted({i * total // count for i in range(count)}) if total else []


def _random(predictor: Predictor, count: int) -> Images:
    kind = predictor.images.decoder.kind
    rng = np.random.default_rng(0)
    low, high = kind.value_range
    for i in range(count):
        height, width = SIZES[i % len(SIZES)]
        # Noise at two scales: white noise alone looks the same everywhere once it is resized.
        coarse = rng.random((height // 30 + 1, width // 30 + 1, kind.channels))
        coarse = np.repeat(np.repeat(coarse, 30, 0), 30, 1)[:height, :width]
        values = 0.7 * coarse + 0.3 * rng.random((height, width, kind.channels))
        yield f"random {i}", (low + values * (high - low)).astype(kind.dtype)


def of_run(
    predictor: Predictor, image: np.ndarray, name: str, thresholds: np.ndarray
) -> tuple[ImageDetections, ImageDetections]:
    """What a run finds in an image, and what it reports of it.

    Boxes with an area are reported, whose scores reach float64 [K] thresholds.
    """
    (found,) = predictor([image], [name])
    reached = found.scores >= thresholds[found.labels]
    return found, found.select(reached & (found.boxes[:, :2] < found.boxes[:, 2:]).all(1))


def compare(
    predictor: Predictor,
    thresholds: np.ndarray,
    detect: Callable[[np.ndarray, str], ImageDetections],
    images: Images,
    notify: Callable[[str], None],
    pixels: float = PIXELS,
) -> Difference:
    """Runs both on images and says how each differs.

    Args:
        predictor: the run.
        thresholds: float64 [K].
        detect: the export.
        images: names and values.
        notify: is told of every image above a limit.
        pixels: the limit of boxes.
    """
    total = Difference()
    cuts = Cuts.of(predictor.detector, thresholds, predictor.tiling is not None)
    for name, image in images:
        every, ours = of_run(predictor, image, name, thresholds)
        theirs = detect(image, name)
        apart = difference(ours, theirs, cuts, ends=cuts.ends(every), pixels=pixels)
        if not apart.within(pixels):
            notify(f"{name} ({image.shape[1]}x{image.shape[0]}): {apart}")
        total = total.and_(apart)
    return total
