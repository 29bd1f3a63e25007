"""Task-aligned assignment (TOOD): an object takes the places that classify and locate it best by now."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jdet.ops.boxes import paired_iou
from jdet.ops.matching.best_objects import BELOW, OBJECTS_AT_A_TIME, most_overlapped
from jdet.ops.matching.places import Places, inside


class Aligned(NamedTuple):
    """An assignment with what the classes should learn.

    Attributes:
        match: int32 [A], index of the object, or ``BELOW``.
        quality: float32 [A], 0 … 1, how well a place stands for its object; 0 where it has none.
    """

    match: jax.Array
    quality: jax.Array


def assign(
    boxes: jax.Array,
    labels: jax.Array,
    valid: jax.Array,
    places: Places,
    otherwise: jax.Array,
    *,
    count: int = 13,
    alpha: float = 1.0,
    beta: float = 6.0,
) -> Aligned:
    """The assignment of TOOD (Feng et al. 2021, sec. 3.2; the authors' code and MMDetection).

    A place is aligned with an object by ``t = s^alpha · u^beta``, where s is the probability that it
    predicts for the object's class and u the IoU of the box that it predicts. The ``count`` places with the
    largest t are the object's candidates; those of them with t above 0 whose centres lie in the object are
    positive. A place that is positive for several objects is that of the one it overlaps most. Qualities
    are t times a factor, by which the largest of an object becomes the largest IoU of its positives.

    One object, and four places that predict one class with probability 0.5. The first predicts the object
    itself, the second a box of half its width, the third one beside it; the fourth predicts the object
    too, but lies outside:

    >>> boxes, labels, valid = jnp.array([[0.0, 0, 40, 40]]), jnp.array([0]), jnp.array([True])
    >>> found = jnp.array([[0.0, 0, 40, 40], [0, 0, 20, 40], [50, 0, 90, 40], [0, 0, 40, 40]])
    >>> centres = jnp.array([[20.0, 20], [10, 20], [30, 20], [60, 20]])
    >>> places = Places(jnp.zeros((4, 1)), found, centres, jnp.full(4, 8.0), jnp.full(4, True))
    >>> nobody = jnp.full(4, BELOW)
    >>> result = assign(boxes, labels, valid, places, nobody, beta=2.0)
    >>> result.match.tolist(), result.quality.round(2).tolist()
    ([0, 0, -1, -1], [1.0, 0.25, 0.0, 0.0])

    With ``count=1`` one of the two places with the largest t is the candidate, here the first:

    >>> assign(boxes, labels, valid, places, nobody, count=1).match.tolist()
    [0, -1, -1, -1]

    An object without any positive takes those that ``otherwise`` gives it, in so far as they are free, and
    their qualities are their IoUs. (The authors instead train the first epochs with ATSS: from random
    weights no box may overlap its object yet, and what gets no positives would never learn.)

    Ranks are computed from logarithms, so that no power of a small overlap becomes zero.

    Args:
        boxes: float32 [N, 4], x1 y1 x2 y2, pixels.
        labels: int32 [N], 0 … K-1.
        valid: bool [N], which rows are objects.
        places: what is predicted where. No gradient flows to it.
        otherwise: int32 [A], another assignment.
        count: candidates per object; all, where there are fewer.
        alpha: exponent of the probability.
        beta: exponent of the IoU.
    """
    total = len(places.centres)
    if not len(boxes) or not total:
        return Aligned(jnp.full(total, BELOW, jnp.int32), jnp.zeros(total))
    places = jax.lax.stop_gradient(places)
    log_scores = jax.nn.log_sigmoid(places.logits)

    def of_object(row):
        box, label = row
        overlap = places.overlap(box)
        there = places.usable & (overlap > 0)
        log_overlap = jnp.log(jnp.where(there, overlap, 1.0))
        rank = alpha * jnp.take(log_scores, label, axis=1) + beta * log_overlap
        best, chosen = jax.lax.top_k(jnp.where(there, rank, -jnp.inf), min(count, total))
        fits = (best > -jnp.inf) & inside(places.centres[chosen], box)
        return chosen, best, overlap[chosen], fits

    rows = (boxes, labels)
    index, rank, overlap, fits = jax.lax.map(of_object, rows, batch_size=OBJECTS_AT_A_TIME)
    match = most_overlapped(index, fits & valid[:, None], overlap, total)

    # What each object has after conflicts.
    number = jnp.arange(len(boxes), dtype=jnp.int32)
    own = fits & valid[:, None] & (match[index] == number[:, None])
    top = jnp.max(jnp.where(own, rank, -jnp.inf), axis=1, keepdims=True)
    share = jnp.exp(jnp.where(own, rank - jnp.where(jnp.isfinite(top), top, 0.0), -jnp.inf))
    highest = jnp.max(jnp.where(own, overlap, 0.0), axis=1, keepdims=True)
    target = jnp.where(own, index, total)
    quality = jnp.zeros(total).at[target].max(share * highest, mode="drop")

    missed = ~jnp.any(own, axis=1)
    other = jnp.maximum(otherwise, 0)
    taken = (match == BELOW) & (otherwise >= 0) & missed[other] & valid[other] & places.usable
    reached = places.finite(paired_iou(boxes[other], places.boxes))
    return Aligned(jnp.where(taken, otherwise, match), jnp.where(taken, reached, quality))
