"""What a fixed set of predictions learns: each object by the one prediction that fits it best.

DETR (Carion et al. 2020, sec. 3.1) with the costs and losses of Sparse R-CNN (Sun et al. 2021, sec. 3.4).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from jdet.ops import boxes, losses, matching
from jdet.types import Mean


@dataclasses.dataclass(frozen=True)
class SetLoss:
    """Settings of costs and losses, which have the same weights.

    Attributes:
        cls_weight: of the focal term.
        l1_weight: of the difference of corners relative to the image, summed over the four numbers.
        giou_weight: of the generalised IoU (Rezatofighi et al. 2019).
        focal_alpha: weight of positives in the focal loss.
        focal_gamma: its exponent.
        matcher: where matching runs (``jdet.ops.matching.hungarian``).
        class_weights: of the K classes, factors of the focal loss of predictions that have an object of
            theirs; costs are without them. (): none.
    """

    cls_weight: float
    l1_weight: float
    giou_weight: float
    focal_alpha: float
    focal_gamma: float
    matcher: str
    class_weights: tuple[float, ...] = ()

    def costs(
        self,
        logits: jax.Array,
        corners: jax.Array,
        ground_truth: jax.Array,
        labels: jax.Array,
        image_sizes: jax.Array,
    ) -> jax.Array:
        """What it costs to take a prediction for an object.

        The focal term is the loss of the object's class as a positive minus that as a negative.

        Args:
            logits: float32 [..., B, R, K].
            corners: float32 [..., B, R, 4], x1 y1 x2 y2, pixels.
            ground_truth: float32 [B, N, 4].
            labels: int32 [B, N], 0 … K-1.
            image_sizes: int32 [B, 2], height and width of each image's content.

        Returns:
            float32 [..., B, N, R].
        """

        def own(logits, labels):
            """Logits [..., N, R] of the objects' classes, of one image."""
            return jnp.swapaxes(logits, -1, -2)[..., labels, :]

        logits = jax.vmap(own, (-3, 0), -3)(logits, labels)
        positive, negative = (
            losses.sigmoid_focal_loss(logits, jnp.bool_(one), self.focal_alpha, self.focal_gamma)
            for one in (True, False)
        )
        unit = _unit(image_sizes)[:, None]
        away = losses.l1((corners / unit)[..., None, :, :], (ground_truth / unit)[..., None, :])
        overlap = boxes.pairwise_iou(ground_truth, corners, "giou")
        return (
            self.cls_weight * (positive - negative)
            + self.l1_weight * jnp.sum(away, axis=-1)
            - self.giou_weight * overlap
        )

    def match(
        self,
        logits: jax.Array,
        corners: jax.Array,
        ground_truth: jax.Array,
        labels: jax.Array,
        valid: jax.Array,
        image_sizes: jax.Array,
    ) -> jax.Array:
        """The object of every prediction, or ``matching.BELOW``, int32 [..., B, R]; one problem per image.

        Args: those of ``costs``, and ``valid``, bool [B, N], which rows are objects to learn.
        """
        if not ground_truth.shape[1]:
            return jnp.full(logits.shape[:-1], matching.BELOW, jnp.int32)
        given = jax.lax.stop_gradient((logits, corners))
        costs = self.costs(*given, ground_truth, labels, image_sizes)
        return matching.hungarian.assign(costs, valid, self.matcher)

    def terms(
        self,
        logits: jax.Array,
        corners: jax.Array,
        match: jax.Array,
        ground_truth: jax.Array,
        labels: jax.Array,
        image_sizes: jax.Array,
    ) -> dict[str, Mean]:
        """Losses of one set of predictions for every image.

        Args:
            logits: float32 [B, R, K].
            corners: float32 [B, R, 4], x1 y1 x2 y2, pixels.
            match: int32 [B, R], of ``match``.
            ground_truth: float32 [B, N, 4].
            labels: int32 [B, N].
            image_sizes: int32 [B, 2].

        Returns:
            "cls", focal loss of all predictions, "loc" (L1) and "giou" of those that have an object, all
            divided by the number of these.
        """
        positive, row = match >= 0, jnp.maximum(match, 0)
        target, label = corners, jnp.full_like(match, -1)
        if ground_truth.shape[1]:
            target = jnp.take_along_axis(ground_truth, row[..., None], axis=1)
            label = jnp.where(positive, jnp.take_along_axis(labels, row, axis=1), -1)
        one_hot = label[..., None] == jnp.arange(logits.shape[-1])
        cls = losses.sigmoid_focal_loss(logits, one_hot, self.focal_alpha, self.focal_gamma)
        if self.class_weights:
            cls = cls * losses.class_weight(self.class_weights, label)[..., None]
        # Elsewhere a prediction is its own target: what is masked must be finite for its gradient to be.
        corners = jnp.where(positive[..., None], corners, 0.0)
        target = jnp.where(positive[..., None], target, 0.0)
        unit = _unit(image_sizes)[:, None]
        l1 = jnp.sum(losses.l1(corners / unit, target / unit), axis=-1)
        giou = losses.iou_loss(corners, target, "giou")
        count = jnp.sum(positive, dtype=jnp.float32)

        def mean(weight, values):
            return Mean(weight * jnp.sum(values), count)

        return {
            "cls": mean(self.cls_weight, cls),
            "loc": mean(self.l1_weight, l1),
            "giou": mean(self.giou_weight, jnp.where(positive, giou, 0.0)),
        }


def _unit(image_sizes: jax.Array) -> jax.Array:
    """Width, height, width and height of each image's content, at least 1; float32 [B, 4]."""
    size = jnp.maximum(image_sizes, 1).astype(jnp.float32)
    return size[:, jnp.array([1, 0, 1, 0])]
