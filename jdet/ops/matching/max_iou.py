"""Max-IoU assignment: two IoU thresholds, as in Faster R-CNN and RetinaNet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jdet.ops.matching.best_objects import BELOW, BETWEEN, best_objects

LOW_QUALITY = ("object", "anchor", "none")
"""What to do with the highest-IoU anchors of an object below the upper threshold."""


def assign(
    objects: Any,
    valid: jax.Array,
    overlap_of: Callable[[Any], jax.Array],
    *,
    positive_iou: float,
    negative_iou: float,
    low_quality: str,
    min_pos_iou: float = 0.0,
) -> jax.Array:
    """Max-IoU assignment of Faster R-CNN and RetinaNet (Ren et al. 2015, sec. 3.1.2).

    An anchor takes the object that it overlaps most where that IoU reaches ``positive_iou``, is
    background where it lies below ``negative_iou``, and is left out of the loss in between. So that every
    object has an anchor, its highest-IoU anchors are positive at any IoU from ``min_pos_iou`` on.

    Two objects and five anchors:

    >>> overlap = jnp.array([[0.9, 0.6, 0.45, 0.1, 0.0], [0.0, 0.2, 0.43, 0.3, 0.0]])
    >>> def run(low_quality, min_pos_iou=0.0):
    ...     return assign(
    ...         overlap,
    ...         jnp.array([True, True]),
    ...         lambda rows: rows,
    ...         positive_iou=0.5,
    ...         negative_iou=0.4,
    ...         low_quality=low_quality,
    ...         min_pos_iou=min_pos_iou,
    ...     ).tolist()

    Anchors 0 and 1 take object 0. The best IoU of anchor 2 lies between the thresholds (-2), those of
    anchors 3 and 4 below both (-1). Object 1 has no anchor:

    >>> run("none")
    [0, 0, -2, -1, -1]

    Anchor 2 is the best one of object 1, and is assigned to it:

    >>> run("object")
    [0, 0, 1, -1, -1]

    or to the object that it overlaps most itself, which is object 0:

    >>> run("anchor")
    [0, 0, 0, -1, -1]

    An object whose best IoU is below ``min_pos_iou`` gets no anchor that way:

    >>> run("object", min_pos_iou=0.44)
    [0, 0, -2, -1, -1]

    Args:
        objects: [N, …] array, what ``overlap_of`` takes rows of; usually the boxes.
        valid: bool [N], which rows are objects.
        overlap_of: maps some rows of ``objects`` [n, …] to their overlaps with all anchors,
            float32 [n, A], 0 … 1.
        positive_iou: anchors are positive from this overlap on; of equal overlaps the first object counts.
        negative_iou: anchors below this overlap are background.
        low_quality: what to do with an object's highest-IoU anchors (ties included) below
            ``positive_iou``. "object" assigns them to it, the last one if they are the best of several
            (MMDetection); "anchor" assigns them to the object they overlap most (torchvision,
            Detectron2), so that an object may get none; "none" leaves them as they are. With "object"
            and "anchor" this also overrides the assignment of anchors at or above ``positive_iou``.
        min_pos_iou: smallest best IoU of an object for which ``low_quality`` applies (MMDetection). An
            object that overlaps no anchor at all never gets one.

    Returns:
        int32 [A]: index of the object, ``BELOW`` or ``BETWEEN``.

    Raises:
        ValueError: ``low_quality`` is none of ``LOW_QUALITY``.
    """
    if low_quality not in LOW_QUALITY:
        raise ValueError(f"low_quality={low_quality!r}; known are {', '.join(LOW_QUALITY)}")
    best, index, chosen = best_objects(objects, valid, overlap_of, -1.0, min_pos_iou)
    result = jnp.where(best < negative_iou, BELOW, jnp.where(best < positive_iou, BETWEEN, index))
    if low_quality == "none":
        return result
    return jnp.where(chosen >= 0, chosen if low_quality == "object" else index, result)
