"""One stage of the second stage: what its RoIs are relative to their objects, and its losses."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import optax

from jdet.detectors.rois import RoIs
from jdet.ops import boxes, coding, losses
from jdet.types import Mean

BOX_LOSSES = ("l1", "smooth_l1", "giou")


@dataclasses.dataclass(frozen=True)
class Stage:
    """Settings of one of the heads that follow on one another, and what depends on them alone.

    Attributes:
        number: of the stage, from 1.
        iou: overlap with an object from which a RoI is positive, and below which it is background.
        weight: of the losses.
        stds: divisors of the offsets dx, dy, dw and dh.
        box_loss: "l1" or "smooth_l1" of the offsets, "giou" of the boxes.
        smooth_l1_beta: of "smooth_l1".
        box_weight: weight of the box loss.
        clamp_below: limit the logarithms of box sides below as well as above.
        class_weights: of the K classes, factors of the cross-entropy of their RoIs; (): none.
    """

    number: int
    iou: float
    weight: float
    stds: tuple[float, ...]
    box_loss: str
    smooth_l1_beta: float
    box_weight: float
    clamp_below: bool
    class_weights: tuple[float, ...] = ()

    @property
    def end(self) -> str:
        """What the names of its losses and of its head end in: nothing, "2", "3", …"""
        return str(self.number) if self.number > 1 else ""

    def decode(self, corners: jax.Array, offsets: jax.Array) -> jax.Array:
        """Boxes [..., 4], x1 y1 x2 y2, that offsets [..., 4] at RoIs [..., 4] stand for; pixels."""
        low = -coding.MAX_LOG_SCALE if self.clamp_below else -math.inf
        rois = boxes.xyxy_to_cxcywh(corners)
        return coding.decode(offsets, rois, self.stds, min_log_scale=low)

    def refine(
        self, corners: jax.Array, offsets: jax.Array, classes: jax.Array, image_sizes: jax.Array
    ) -> jax.Array:
        """RoIs moved by the offsets for their classes, without gradient.

        Args:
            corners: float32 [B, R, 4], x1 y1 x2 y2, pixels.
            offsets: float32 [B, R, K or 1, 4].
            classes: int32 [B, R], 0 … K-1.
            image_sizes: int32 [B, 2], height and width of each image's content, which boxes are cut
                to.
        """
        moved = self.decode(corners, of_class(offsets, classes))
        return jax.lax.stop_gradient(boxes.clip(moved, image_sizes[:, None]))

    def terms(
        self, rois: RoIs, logits: jax.Array, offsets: jax.Array, most_positives: int
    ) -> dict[str, Mean]:
        """Losses of the stage (Girshick 2015, sec. 2.3).

        Args:
            rois: S of every image.
            logits: float32 [B, S, 1 + K], background first.
            offsets: float32 [B, S, K or 1, 4].
            most_positives: of an image; they come first.

        Returns:
            "cls", cross-entropy, and "loc", box loss of the positives, both divided by the number of RoIs;
            from the second stage on their names end in its number.
        """
        count = jnp.sum(rois.valid, dtype=jnp.float32)
        cls = jnp.where(rois.valid, softmax_loss(logits, rois.labels), 0.0)
        if self.class_weights:
            cls = cls * losses.class_weight(self.class_weights, rois.labels - 1)
        positive, corners, target, labels, offsets = (
            x[:, :most_positives]
            for x in (rois.positive, rois.boxes, rois.target, rois.labels, offsets)
        )
        # Elsewhere a RoI predicts itself: what is masked must be finite for its gradient to be.
        own = jnp.where(positive[..., None], of_class(offsets, jnp.maximum(labels - 1, 0)), 0.0)
        if self.box_loss == "giou":
            loc = losses.iou_loss(self.decode(corners, own), target, "giou")
        else:
            encoded = coding.encode(target, boxes.xyxy_to_cxcywh(corners), self.stds)
            beta = self.smooth_l1_beta if self.box_loss == "smooth_l1" else 0.0
            loc = jnp.sum(losses.smooth_l1(own, encoded, beta=beta), axis=-1)
        loc = jnp.sum(jnp.where(positive, loc, 0.0))
        return {
            f"cls{self.end}": Mean(self.weight * jnp.sum(cls), count),
            f"loc{self.end}": Mean(self.weight * self.box_weight * loc, count),
        }


def softmax_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross-entropy, float32 [...], of logits [..., 1 + K] and labels [...], 0 for background."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)


def best_class(logits: jax.Array) -> jax.Array:
    """The most probable class, 0 … K-1, of logits [..., 1 + K] with the background first; int32 [...]."""
    return jnp.argmax(logits[..., 1:], axis=-1).astype(jnp.int32)


def of_class(offsets: jax.Array, classes: jax.Array) -> jax.Array:
    """Offsets [..., 4] of a class [...], 0 … K-1, among those of all [..., K, 4], or the only ones."""
    if offsets.shape[-2] == 1:
        return offsets[..., 0, :]
    return jnp.take_along_axis(offsets, classes[..., None, None], axis=-2)[..., 0, :]
