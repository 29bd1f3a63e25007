"""SimOTA (YOLOX): every object takes as many of the cheapest places as its overlaps add up to."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jdet.ops.matching.best_objects import BELOW, OBJECTS_AT_A_TIME, best_objects
from jdet.ops.matching.places import Places, inside

BESIDE = 1e5
"""Cost of a place that does not lie both in the object and near its centre."""

LEAST_OVERLAP = 1e-8
"""Added to overlaps in logarithms (YOLOX)."""


def assign(
    boxes: jax.Array,
    labels: jax.Array,
    valid: jax.Array,
    places: Places,
    *,
    count: int = 10,
    iou_weight: float = 3.0,
    radius: float = 2.5,
) -> jax.Array:
    """The assignment of YOLOX (Ge et al. 2021, sec. 2.1; the authors' code and MMDetection).

    Candidates are the places that lie in any object, or nearer to the centre of one than ``radius`` strides
    along both axes. A candidate costs an object the binary cross-entropy of the classes it predicts against
    the object's, plus ``iou_weight`` times minus the logarithm of the IoU of the box it predicts, plus
    100,000 unless it lies both in this object and near its centre. An object takes as many places as the
    ``count`` largest IoUs of the candidates with it add up to, rounded down, and at least one: those that
    cost least. A place that several objects take is that of the object, of all, which it costs least.

    One object and five places that lie in it; three predict it, and all but the last the right class. The
    overlaps add up to 3.5:

    >>> boxes, labels, valid = jnp.array([[0.0, 0, 40, 40]]), jnp.array([0]), jnp.array([True])
    >>> found = jnp.array([[0.0, 0, 40, 40]] * 3 + [[0, 0, 20, 40], [50, 0, 90, 40]])
    >>> logits = jnp.array([[2.0, -2.0]] * 4 + [[-2.0, 2.0]])
    >>> centres = jnp.full((5, 2), 20.0)
    >>> places = Places(logits, found, centres, jnp.full(5, 8.0), jnp.full(5, True))
    >>> assign(boxes, labels, valid, places).tolist()
    [0, 0, 0, -1, -1]

    Args:
        boxes: float32 [N, 4], x1 y1 x2 y2, pixels.
        labels: int32 [N], 0 … K-1.
        valid: bool [N], which rows are objects.
        places: what is predicted where; ``usable`` ones can be candidates. No gradient flows to it.
        count: overlaps of an object that are added up.
        iou_weight: of the cost of boxes.
        radius: strides.

    Returns:
        int32 [A]: index of the object, or ``BELOW``.
    """
    total = len(places.centres)
    if not len(boxes) or not total:
        return jnp.full(total, BELOW, jnp.int32)
    places = jax.lax.stop_gradient(places)
    background = jnp.sum(jax.nn.softplus(places.logits), axis=-1)  # cross-entropy without an object

    def where(box):
        """Whether places lie in a box, and near its centre, bool [A] each."""
        middle = (box[:2] + box[2:]) / 2
        away = jnp.max(jnp.abs(places.centres - middle), axis=-1)
        return inside(places.centres, box), away < radius * places.strides

    def reached(row):
        within, near = where(row[0])
        return (within | near).astype(jnp.float32)

    def cost_and_overlap(row):
        box, label = row
        overlap = places.overlap(box)
        within, near = where(box)
        classes = background - jnp.take(places.logits, label, axis=1)
        cost = classes - iou_weight * jnp.log(overlap + LEAST_OVERLAP)
        cost = cost + jnp.where(within & near, 0.0, BESIDE)
        return jnp.where(candidate, cost, jnp.inf), jnp.where(candidate, overlap, 0.0)

    def of_object(row):
        cost, overlap = cost_and_overlap(row)
        most = min(count, total)
        wanted = jnp.sum(jax.lax.top_k(overlap, most)[0]).astype(jnp.int32)
        minus, chosen = jax.lax.top_k(-cost, most)
        takes = (jnp.arange(most) < jnp.maximum(wanted, 1)) & (minus > -jnp.inf)
        return chosen, takes

    rows = (boxes, labels)
    several = jax.vmap(lambda *row: reached(row))
    best, _, _ = best_objects(rows, valid, lambda some: several(*some), 0.0)
    candidate = places.usable & (best > 0)
    index, takes = jax.lax.map(of_object, rows, batch_size=OBJECTS_AT_A_TIME)
    takes = takes & valid[:, None]
    target = jnp.where(takes, index, total)
    takers = jnp.zeros(total, jnp.int32).at[target].add(1, mode="drop")
    number = jnp.arange(len(boxes), dtype=jnp.int32)[:, None]
    owner = jnp.broadcast_to(number, target.shape)
    owner = jnp.zeros(total, jnp.int32).at[target].max(owner, mode="drop")
    minus_cost = jax.vmap(lambda *row: -cost_and_overlap(row)[0])
    _, cheapest, _ = best_objects(rows, valid, lambda some: minus_cost(*some), -jnp.inf)
    return jnp.where(takers == 0, BELOW, jnp.where(takers == 1, owner, cheapest))
