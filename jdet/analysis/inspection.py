"""What a detector sees: its levels, their receptive fields, the default boxes that match, activations.

For notebooks: everything runs under plain ``jit`` on one device and returns arrays.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from jdet.detectors.ssd import SSD
from jdet.ops import anchors, boxes, matching
from jdet.types import Example, ImageDetections

INSIDE = 0.0455
"""Share of the strongest gradient above which a pixel belongs to the effective receptive field."""


class ReceptiveField(NamedTuple):
    """The part of the image that the centre cell of a level depends on.

    Attributes:
        cells: side of the level's map.
        extent: height and width of the part of the image it depends on at all, pixels.
        effective: side of a square as large as the part it depends on noticeably, pixels.
        strength: float32 [S, S], dependence on each pixel; 1 where it is strongest.
    """

    cells: int
    extent: tuple[int, int]
    effective: float
    strength: np.ndarray


class Matched(NamedTuple):
    """Default boxes and the objects they are trained for.

    Attributes:
        boxes: float32 [A, 4], x1 y1 x2 y2 in pixels of the network input.
        level: int32 [A].
        matched: bool [A].
        index: int32 [A], object of each matched box.
        overlap: float32 [A], IoU with that object; of the others the best IoU.
        only: bool [n], objects that no box reaches by the threshold: they have one box, the one of the
            bipartite matching.
    """

    boxes: np.ndarray
    level: np.ndarray
    matched: np.ndarray
    index: np.ndarray
    overlap: np.ndarray
    only: np.ndarray


def initialise(detector: Any, size: int, seed: int = 0) -> Any:
    """Randomly initialised variables of a detector, as at the start of a training.

    Args:
        detector: an unbound detector.
        size: side of the network input, pixels.
        seed: of the weights.
    """
    kind = detector.image_kind
    images = jnp.zeros((1, size, size, kind.channels), kind.dtype)
    sizes = jnp.full((1, 2), size)
    key = jax.random.key(seed, impl="rbg")  # compiles in a fraction of the time
    return jax.jit(lambda key: detector.init(key, images, sizes, method="detect"))(key)


@functools.partial(jax.jit, static_argnums=0)
def level_outputs(detector: Any, variables: Any, images: jax.Array) -> list[jax.Array]:
    """The maps of the neck, [B, h, w, C] each, finest first.

    The head predicts from them, from some after an L2 normalisation where the detector has one.

    Args:
        detector: a ``PyramidDetector``.
        variables: of the detector.
        images: [B, H, W, C], values as stored; float32 to differentiate by them.
    """

    def levels(module: Any, images: jax.Array) -> list[jax.Array]:
        return module.levels(module.normalised(images), train=False)

    return detector.apply(variables, images, method=levels)


def receptive_fields(
    detector: Any, variables: Any, size: int, *, samples: int = 4, seed: int = 0
) -> list[ReceptiveField]:
    """Receptive field of the centre cell of every level, from gradients with respect to the image.

    A random combination of the cell's channels is differentiated at images of noise, and the
    squares of the gradients are averaged: what is zero in all lies outside the theoretical receptive
    field. The effective one is that of Luo et al. 2016: the square root of the number of pixels
    whose strength is above 1 - 95.45 % of the strongest.

    Args:
        detector: a ``PyramidDetector``.
        variables: of the detector.
        size: side of the images, pixels; the extent cannot become larger.
        samples: images.
        seed: of the images and combinations.
    """

    shape = 1, size, size, detector.image_kind.channels
    low, high = detector.image_kind.value_range

    @jax.jit
    def squares(key):
        noise, seeds = jax.random.split(key)
        image = jax.random.uniform(noise, shape, minval=low, maxval=high)
        levels, pullback = jax.vjp(lambda x: level_outputs(detector, variables, x), image)
        count = len(levels)
        cotangents = []
        for i, level in enumerate(levels):
            _, height, width, channels = level.shape
            weights = jax.random.normal(jax.random.fold_in(seeds, i), (channels,), level.dtype)
            one_hot = jnp.zeros((count, *level.shape), level.dtype)
            cotangents.append(one_hot.at[i, 0, height // 2, width // 2].set(weights))
        (gradients,) = jax.vmap(pullback)(cotangents)
        # Scaled first: far from the centre of a deep network they are tiny, and their squares nothing.
        gradients /= jnp.maximum(
            jnp.max(jnp.abs(gradients), axis=(1, 2, 3, 4), keepdims=True), 1e-30
        )
        gradients = jnp.abs(gradients[:, 0])
        return jnp.sum(gradients**2, -1), jnp.any(gradients > 0, -1)

    keys = jax.random.split(jax.random.key(seed), samples)
    drawn = [squares(key) for key in keys]
    power = np.sum([np.asarray(square, float) for square, _ in drawn], axis=0)
    touched = np.any([np.asarray(reached) for _, reached in drawn], axis=0)
    shapes = jax.eval_shape(
        lambda x: level_outputs(detector, variables, x),
        jax.ShapeDtypeStruct(shape, jnp.float32),
    )
    fields = []
    for i, shape in enumerate(shapes):
        strength = np.sqrt(power[i] / np.max(power[i]))
        extent = _span(touched[i].any(1)), _span(touched[i].any(0))
        effective = float(np.sqrt(np.count_nonzero(strength > INSIDE)))
        fields.append(
            ReceptiveField(shape.shape[1], extent, effective, strength.astype(np.float32))
        )
    return fields


def _span(line: np.ndarray) -> int:
    places = np.flatnonzero(line)
    return int(places[-1] - places[0] + 1) if len(places) else 0


def match_default_boxes(detector: Any, objects: np.ndarray) -> Matched | None:
    """The default boxes that are trained for the objects of an image.

    Args:
        detector: unbound.
        objects: float32 [n, 4], x1 y1 x2 y2 in pixels of the network input.

    Returns:
        None for a detector that does not match the default boxes of SSD.
    """
    if not isinstance(detector, SSD):
        return None
    levels, (_, cells) = detector.anchor_levels(), detector.level_sizes()
    clip = (detector.input_size,) * 2 if detector.clip_boxes else None
    priors = anchors.default_boxes(levels, [(side, side) for side in cells], clip)
    corners = boxes.cxcywh_to_xyxy(jnp.asarray(priors))
    ground_truth = jnp.asarray(objects, jnp.float32).reshape(-1, 4)
    if not len(ground_truth):  # a row that is no object, as in a padded batch
        ground_truth = jnp.zeros((1, 4))
    overlap = boxes.pairwise_iou(ground_truth, corners)
    found = matching.ssd.match(
        overlap, jnp.arange(len(ground_truth)) < len(objects), detector.iou_threshold
    )
    own = jnp.where(found.matched, overlap[found.index, jnp.arange(len(priors))], found.overlap)
    counts = [side * side * level.boxes_per_location for side, level in zip(cells, levels)]
    return Matched(
        np.asarray(corners),
        np.repeat(np.arange(len(levels), dtype=np.int32), counts),
        np.asarray(found.matched),
        np.asarray(found.index),
        np.asarray(own),
        np.asarray(jnp.max(overlap, axis=1) < detector.iou_threshold)[: len(objects)],
    )


def objects_as_detections(ground_truth: Example) -> ImageDetections:
    """The objects of an image with score 1, for ``drawing.draw_detections`` without a header.

    Masks stay in the form in which they are labelled, which drawings take as well.
    """
    return ImageDetections(
        id=ground_truth.id,
        boxes=ground_truth.boxes,
        scores=np.ones(len(ground_truth.boxes)),
        labels=ground_truth.labels,
        masks=ground_truth.masks,
    )


def matches_as_detections(found: Matched, levels: Sequence[int] | None = None) -> ImageDetections:
    """The matched boxes with IoU as score and level as label, for ``drawing.draw_detections``.

    Args:
        found: of ``match_default_boxes``.
        levels: only these; None: all.
    """
    chosen = found.matched & (np.isin(found.level, levels) if levels is not None else True)
    rows = np.flatnonzero(chosen)
    rows = rows[np.argsort(-found.overlap[rows], kind="stable")]
    return ImageDetections(
        id="", boxes=found.boxes[rows], scores=found.overlap[rows], labels=found.level[rows]
    )


def mosaic(maps: np.ndarray, count: int = 16, columns: int = 8, side: int = 96) -> np.ndarray:
    """The channels of a level with the largest variance as grey tiles, each scaled to its own range.

    Args:
        maps: [h, w, C].
        count: channels shown, those of the largest standard deviation.
        columns: tiles in a row.
        side: of a tile, pixels.

    Returns:
        uint8 [rows · (side + 2) - 2, columns · (side + 2) - 2, 3].
    """
    maps = np.asarray(maps, np.float32)
    liveliest = np.argsort(-maps.std(axis=(0, 1)), kind="stable")[:count]
    rows = -(-len(liveliest) // columns)
    canvas = np.full((rows * (side + 2) - 2, columns * (side + 2) - 2, 3), 24, np.uint8)
    for tile, channel in enumerate(liveliest):
        values = maps[..., channel]
        low, high = values.min(), values.max()
        grey = ((values - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
        grey = cv2.resize(grey, (side, side), interpolation=cv2.INTER_NEAREST)
        y, x = (part * (side + 2) for part in divmod(tile, columns))
        canvas[y : y + side, x : x + side] = grey[..., None]
    return canvas
