"""Base of FCOS and ATSS: a centre-ness is predicted with every box, and weights losses and scores."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jdet.detectors.dense_detector import DenseDetector
from jdet.detectors.dense_head import CENTERNESS, DenseHead
from jdet.detectors.pyramid import Predictions, check_choice
from jdet.ops import boxes, coding, losses, nms
from jdet.types import Mean

BOX_LOSSES = ("log_iou", "iou", "giou", "diou", "ciou")
SCORES = ("product", "root")


class CenternessDetector(DenseDetector):
    """Dense detector with one prediction per point (or anchor) and a centre-ness with it.

    The centre-ness measures how central a point lies in its object. Boxes predicted near the edge of an
    object are worse: they have less weight in the box loss, and the score of a detection is that of its
    class times its centre-ness. A subclass defines which points belong to which objects (``assign``).

    The losses of classes and centre-ness are divided by the number of positives, that of boxes by the sum
    of their target centre-ness, over all images and by at least 1. (For ATSS, MMDetection counts an image
    without positives as one.)

    Attributes:
        centerness_branch: tower that predicts it: "box" (Tian et al. 2020), "cls" (Tian et al. 2019).
        centerness_weight: weight of its loss.
        weigh_boxes: the box loss is a mean weighted by the target centre-ness; False: a plain mean, as in
            torchvision.
        level_scales: every level learns a factor by which its offsets are multiplied.
        box_loss: "log_iou" (minus the logarithm of the IoU), "iou" (one minus it), "giou", "diou", "ciou".
        score: "product": class probabilities are compared with ``score_threshold`` and ranked, then
            multiplied by the centre-ness (MMDetection); "root": the square root of the product is used for
            all of it (torchvision).

    All others are those of ``DenseDetector``.
    """

    nms_iou: float = 0.6
    centerness_branch: str = "box"
    centerness_weight: float = 1.0
    weigh_boxes: bool = True
    level_scales: bool = True
    box_loss: str = "giou"
    score: str = "product"

    def __post_init__(self):
        super().__post_init__()
        check_choice(self, "centerness_branch", CENTERNESS[1:])
        check_choice(self, "box_loss", BOX_LOSSES)
        check_choice(self, "score", SCORES)

    def make_head(self, **fields: Any) -> DenseHead:
        """Builds the head from the fields that all detectors have."""
        return DenseHead(
            **fields, centerness=self.centerness_branch, level_scales=self.level_scales
        )

    def assign(
        self, priors: list[Any], ground_truth: jax.Array, valid: jax.Array, image_size: jax.Array
    ) -> jax.Array:
        """Assigns objects to the points of one image.

        Args:
            priors: float32 [A, 4] of each level, cx cy w h, pixels.
            ground_truth: float32 [N, 4], x1 y1 x2 y2, pixels.
            valid: bool [N], which rows are objects.
            image_size: [2], height and width of the content.

        Returns:
            int32 [A], index of the object that the point lies in, or ``matching.BELOW``.
        """
        raise NotImplementedError

    def loss_terms(
        self,
        found: Predictions,
        ground_truth: jax.Array,
        labels: jax.Array,
        valid: jax.Array,
        image_sizes: jax.Array,
        ignored: jax.Array | None = None,
    ) -> dict[str, Mean]:
        """Assignment and losses (Tian et al. 2019, sec. 3); as ``DenseDetector.loss_terms``.

        Returns:
            "loc", "cls" and "centerness" (cross-entropy of positives).
        """
        outputs, flat = found.joined()
        flat = jnp.asarray(flat)
        within = self.taking_part(flat, image_sizes, ground_truth, ignored)

        def one_image(offsets, logits, centerness, ground_truth, labels, valid, within, image_size):
            match = self.assign(found.priors, ground_truth, valid, image_size)
            match = jnp.where(within, match, -1)
            positive = match >= 0
            of_point = jnp.maximum(match, 0)
            # A point without an object predicts about its own anchor, so that no gradient can be NaN.
            predicted = jnp.where(positive[:, None], offsets, 0.0)
            target = jnp.where(
                positive[:, None], ground_truth[of_point], boxes.cxcywh_to_xyxy(flat)
            )
            central = centerness_target(flat[:, :2], target)
            weight = jnp.where(positive, central if self.weigh_boxes else 1.0, 0.0)
            loc = losses.iou_loss(self.corners(predicted, flat), target, self.box_loss)
            cls = self.focal_loss(logits, jnp.where(positive, labels[of_point], -1))
            middle = losses.sigmoid_cross_entropy(centerness, central)
            return (
                jnp.sum(loc * weight),
                jnp.sum(weight),
                jnp.sum(jnp.where(within, cls, 0.0)),
                jnp.sum(jnp.where(positive, middle, 0.0)),
                positive,
            )

        predicted = (outputs[name] for name in ("offsets", "logits", "centerness"))
        arrays = (*predicted, ground_truth, labels, valid, within, image_sizes)
        *sums, positive = jax.vmap(one_image)(*arrays)
        self.count_places(positive, within, within)
        loc, weight, cls, middle, count = map(jnp.sum, (*sums, positive.astype(jnp.float32)))
        return {
            "loc": Mean(self.box_weight * loc, weight),
            "cls": Mean(cls, count),
            "centerness": Mean(self.centerness_weight * middle, count),
        }

    def candidates(
        self, outputs: dict[str, jax.Array], within: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The best (anchor, class) pairs of one image on one level; as ``DenseDetector.candidates``."""
        middle = jax.nn.sigmoid(outputs["centerness"])
        if self.score == "product":
            best, index, labels = super().candidates(outputs, within)
            return best * middle[index], index, labels
        scores = jnp.sqrt(jax.nn.sigmoid(outputs["logits"]) * middle[:, None])
        scores = jnp.where(within[:, None], scores, 0.0)
        return nms.best_pairs(scores, self.score_threshold, self.pre_nms)


def centerness_target(points: jax.Array, ground_truth: jax.Array) -> jax.Array:
    """How central points lie in boxes (Tian et al. 2019, eq. 3): 1 in the middle, 0 on the edge.

    Args:
        points: float32 [..., 2], x y, inside the boxes.
        ground_truth: float32 [..., 4], x1 y1 x2 y2.

    Returns:
        float32 [...].
    """
    left, top, right, bottom = (
        coding.encode_distances(points, ground_truth)[..., i] for i in range(4)
    )
    across = jnp.minimum(left, right) / jnp.maximum(left, right)
    down = jnp.minimum(top, bottom) / jnp.maximum(top, bottom)
    return jnp.sqrt(across * down)
