"""Objects and predictions near them, and plain overlaps: for the assignments that look at predictions."""

import jax.numpy as jnp
import numpy as np

from jdet.ops.matching import Places

STRIDES = ((8, 8), (16, 4), (32, 2))
"""Strides of levels and cells a side, of an image of 64 pixels."""

CLASSES = 3


def centres_of():
    """Centres float32 [A, 2] and strides float32 [A] of all levels."""
    found = []
    for stride, cells in STRIDES:
        y, x = (np.mgrid[:cells, :cells].reshape(2, -1) + 0.5) * stride
        found.append(np.stack([x, y, np.full(len(x), stride)], 1))
    whole = np.concatenate(found).astype(np.float32)
    return whole[:, :2], whole[:, 2]


def draw(seed, objects):
    """Boxes, labels and places; predictions resemble objects more or less."""
    rng = np.random.default_rng(seed)
    centres, strides = centres_of()
    low = rng.uniform(0, 48, (objects, 2))
    boxes = np.concatenate([low, low + rng.uniform(2, 40, (objects, 2)) ** 0.9], 1)
    labels = rng.integers(0, CLASSES, objects)
    near = boxes[rng.integers(0, objects, len(centres))]
    predicted = near + rng.normal(size=near.shape) * rng.choice([0.5, 4, 20], (len(near), 1))
    logits = rng.normal(size=(len(centres), CLASSES)) * 2 - 1
    usable = rng.random(len(centres)) < 0.9
    places = Places(
        logits=jnp.asarray(logits, jnp.float32),
        boxes=jnp.asarray(predicted, jnp.float32),
        centres=jnp.asarray(centres),
        strides=jnp.asarray(strides),
        usable=jnp.asarray(usable),
    )
    return boxes.astype(np.float32), labels.astype(np.int32), places


def overlaps(boxes, predicted):
    """IoU of every box [n, 4] with every other [m, 4], float64; those without an area touch nothing."""
    a, b = (np.asarray(x, np.float64) for x in (boxes, predicted))
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(-1)
    areas = [np.maximum(x[:, 2:] - x[:, :2], 0).prod(-1) for x in (a, b)]
    return shared / np.maximum(areas[0][:, None] + areas[1] - shared, 1e-12)


def depths(boxes, centres):
    """How far each centre lies within each box, float64 [n, m]; below 0 outside."""
    b, c = np.asarray(boxes, np.float64)[:, None], np.asarray(centres, np.float64)[None]
    return np.concatenate([c - b[..., :2], b[..., 2:] - c], -1).min(-1)
