"""RetinaNet (Lin et al. 2017b, "Focal Loss for Dense Object Detection")."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp

from jdet.detectors.dense_detector import DenseDetector
from jdet.detectors.pyramid import Predictions, check_choice
from jdet.ops import anchors, boxes, coding, losses, matching
from jdet.types import Mean

UNIT = (1.0, 1.0, 1.0, 1.0)
"""Divisors of the offsets: none, unlike SSD's."""

BOX_LOSSES = ("l1", "smooth_l1", "giou")
NORMALIZERS = ("batch", "image")


class RetinaNet(DenseDetector):
    """One-stage detector with anchors on a feature pyramid, trained on all of them by the focal loss.

    The defaults are MMDetection's; the publication has ``box_loss="smooth_l1"``. torchvision's are
    ``torchvision_anchors=True, low_quality="anchor", normalizer="image", max_detections=300``, with
    ``extra="conv_p5", extra_relu=True`` of the neck. Unlike in MMDetection, an image without positives
    adds nothing to the number by which losses are divided (there: one), and an object that overlaps no
    anchor gets none (there: all anchors that overlap nothing).

    Attributes:
        anchor_scale: smallest anchor side, in strides of its level.
        octaves: anchor sides per level, within a factor of 2.
        aspect_ratios: heights over widths of the anchors.
        torchvision_anchors: sides, half sizes and steps in whole pixels, with steps computed from the sizes
            of image and maps, as in torchvision.
        iou_threshold: overlap from which an anchor is positive.
        negative_iou: overlap below which an anchor is negative; those in between are left out of the loss.
        low_quality: what to do with an object's highest-IoU anchors below ``iou_threshold``: "object"
            assigns them to it, "anchor" to the object they overlap most, "none" leaves them unmatched.
        min_pos_iou: smallest best IoU of an object for which ``low_quality`` applies (MMDetection).
        box_loss: "l1" or "smooth_l1" of the offsets, "giou" of the boxes.
        smooth_l1_beta: of "smooth_l1".
        normalizer: "batch" divides by the positives of all images; "image" each image's sums by
            its own (1 at least), then averages images, as torchvision does.

    All others are those of ``DenseDetector``.
    """

    anchor_scale: float = 4.0
    octaves: int = 3
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    torchvision_anchors: bool = False
    iou_threshold: float = 0.5
    negative_iou: float = 0.4
    low_quality: str = "object"
    min_pos_iou: float = 0.0
    box_loss: str = "l1"
    smooth_l1_beta: float = 0.1
    normalizer: str = "batch"

    anchor_remedy: ClassVar[str] = (
        "each through the anchors it overlaps most, but weakly. config.model.anchor_scale, octaves "
        "and aspect_ratios change the anchors, config.model.taps their levels"
    )

    @property
    def positive_iou(self) -> float:
        """IoU from which an anchor is positive."""
        return self.iou_threshold

    def __post_init__(self):
        super().__post_init__()
        check_choice(self, "box_loss", BOX_LOSSES)
        check_choice(self, "low_quality", matching.max_iou.LOW_QUALITY)
        check_choice(self, "normalizer", NORMALIZERS)
        if self.negative_iou > self.iou_threshold:
            raise ValueError(
                f"model.negative_iou={self.negative_iou} and model.iou_threshold={self.iou_threshold}; "
                "the first must not be above the second"
            )
        ratios = self.aspect_ratios
        if not ratios or not all(isinstance(r, int | float) for r in ratios):
            raise ValueError(f"model.aspect_ratios={ratios!r}; give numbers above 0, one at least")

    def anchor_levels(self) -> tuple[anchors.AnchorLevel, ...]:
        """Sides, ratios and steps of the anchors, one entry per level."""
        return anchors.retinanet_levels(
            self.level_sizes()[0],
            scale=self.anchor_scale,
            octaves=self.octaves,
            ratios=self.aspect_ratios,
            rounded=self.torchvision_anchors,
        )

    def corners(self, offsets: jax.Array, priors: jax.Array) -> jax.Array:
        """Boxes [..., 4], x1 y1 x2 y2 in pixels, that offsets [..., 4] at priors [..., 4] stand for."""
        return coding.decode(offsets, priors, UNIT)

    def loss_terms(
        self,
        found: Predictions,
        ground_truth: jax.Array,
        labels: jax.Array,
        valid: jax.Array,
        image_sizes: jax.Array,
        ignored: jax.Array | None = None,
    ) -> dict[str, Mean]:
        """Max-IoU assignment, box and focal loss (sec. 4.1); as ``DenseDetector.loss_terms``."""
        outputs, priors = found.joined()
        offsets, logits = outputs["offsets"], outputs["logits"]
        corners = boxes.cxcywh_to_xyxy(jnp.asarray(priors))

        def one_image(offsets, logits, ground_truth, labels, valid, within):
            match = matching.max_iou.assign(
                ground_truth,
                valid,
                # Anchors outside must not be the best of an object either.
                lambda rows: jnp.where(within, boxes.pairwise_iou(rows, corners), 0.0),
                positive_iou=self.iou_threshold,
                negative_iou=self.negative_iou,
                low_quality=self.low_quality,
                min_pos_iou=self.min_pos_iou,
            )
            positive = match >= 0
            of_anchor = jnp.maximum(match, 0)
            # Elsewhere an anchor predicts itself: what is masked must be finite for its gradient to be.
            target = jnp.where(positive[:, None], ground_truth[of_anchor], corners)
            predicted = jnp.where(positive[:, None], offsets, 0.0)
            loc = self._box_loss(predicted, target, jnp.asarray(priors))
            cls = self.focal_loss(logits, jnp.where(positive, labels[of_anchor], -1))
            counts = within & (match != matching.BETWEEN)
            return (
                jnp.sum(jnp.where(positive, loc, 0.0)),
                jnp.sum(jnp.where(counts, cls, 0.0)),
                positive,
                counts,
            )

        within = self.taking_part(priors, image_sizes, ground_truth, ignored)
        loc, cls, positive, counts = jax.vmap(one_image)(
            offsets, logits, ground_truth, labels, valid, within
        )
        self.count_places(positive, counts, within)
        positives = jnp.sum(positive, axis=1, dtype=jnp.float32)
        if self.normalizer == "image":
            each = jnp.maximum(positives, 1)
            loc, cls, weight = loc / each, cls / each, jnp.sum(jnp.ones_like(positives))
        else:
            weight = jnp.sum(positives)
        return {
            "loc": Mean(self.box_weight * jnp.sum(loc), weight),
            "cls": Mean(jnp.sum(cls), weight),
        }

    def _box_loss(self, offsets: jax.Array, target: jax.Array, priors: jax.Array) -> jax.Array:
        """Loss of every anchor [A] for offsets [A, 4] and the boxes [A, 4] they should stand for."""
        if self.box_loss == "giou":
            return losses.iou_loss(self.corners(offsets, priors), target, "giou")
        encoded = coding.encode(target, priors, UNIT)
        if self.box_loss == "l1":
            return jnp.sum(losses.l1(offsets, encoded), axis=-1)
        return jnp.sum(losses.smooth_l1(offsets, encoded, beta=self.smooth_l1_beta), axis=-1)
