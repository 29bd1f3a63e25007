"""Base of FCOS and ATSS: a centre-ness is predicted with every box, and weights losses and scores."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdet.detectors.dense_detector import DenseDetector, quality_targets
from jdet.detectors.dense_head import CENTERNESS, DenseHead
from jdet.detectors.pyramid import Predictions, check_choice
from jdet.ops import boxes, coding, losses, matching, nms
from jdet.types import Mean

BOX_LOSSES = ("log_iou", "iou", "giou", "diou", "ciou")
SCORES = ("product", "root", "class")
ASSIGNMENTS = ("own", "task_aligned", "simota")
CLS_LOSSES = ("focal", "quality", "varifocal")


class CenternessDetector(DenseDetector):
    """Dense detector with one prediction per point (or anchor) and a centre-ness with it.

    The centre-ness measures how central a point lies in its object. Boxes predicted near the edge of an
    object are worse: they have less weight in the box loss, and the score of a detection is that of its
    class times its centre-ness. A subclass defines which points belong to which objects (``assign``);
    two other assignments look at what is predicted.

    The losses of classes and centre-ness are divided by the number of positives, that of boxes by the sum
    of their target centre-ness, over all images and by at least 1, whatever the assignment and the loss of
    classes. (For ATSS, MMDetection counts an image without positives as one; the authors of TOOD divide by
    sums of qualities.)

    Attributes:
        centerness_branch: tower that predicts it: "box" (Tian et al. 2020), "cls" (Tian et al. 2019).
        centerness_weight: weight of its loss.
        weigh_boxes: the box loss is a mean weighted by the target centre-ness; False: a plain mean, as in
            torchvision.
        level_scales: every level learns a factor by which its offsets are multiplied.
        box_loss: "log_iou" (minus the logarithm of the IoU), "iou" (one minus it), "giou", "diou", "ciou".
        score: "product": class probabilities are compared with ``score_threshold`` and ranked, then
            multiplied by the centre-ness (MMDetection); "root": the square root of the product is used for
            all of it (torchvision); "class": class probabilities alone, for ``cls_loss`` that puts the
            quality of boxes into them.
        assignment: "own", the detector's; "task_aligned" (TOOD, Feng et al. 2021) and "simota" (YOLOX, Ge
            et al. 2021) choose positives by classes and boxes predicted so far.
        align_topk: of "task_aligned", candidates of an object.
        align_alpha: exponent of the class probability in the alignment.
        align_beta: exponent of the IoU in it.
        ota_topk: of "simota", overlaps that add up to the number of positives of an object.
        ota_iou_weight: weight of boxes against classes in the cost.
        ota_radius: strides around an object's centre within which points are candidates.
        cls_loss: "focal"; "quality": quality focal loss (GFL, Li et al. 2020), "varifocal": VarifocalNet's
            (Zhang et al. 2021). Both learn the IoU of the predicted box, with "task_aligned" the normalised
            alignment, in place of 1.
        quality_beta: exponent of "quality".
        varifocal_alpha: weight of background in "varifocal".
        varifocal_gamma: exponent of its probability.

    All others are those of ``DenseDetector``.
    """

    nms_iou: float = 0.6
    centerness_branch: str = "box"
    centerness_weight: float = 1.0
    weigh_boxes: bool = True
    level_scales: bool = True
    box_loss: str = "giou"
    score: str = "product"
    assignment: str = "own"
    align_topk: int = 13
    align_alpha: float = 1.0
    align_beta: float = 6.0
    ota_topk: int = 10
    ota_iou_weight: float = 3.0
    ota_radius: float = 2.5
    cls_loss: str = "focal"
    quality_beta: float = 2.0
    varifocal_alpha: float = 0.75
    varifocal_gamma: float = 2.0

    def __post_init__(self):
        super().__post_init__()
        check_choice(self, "centerness_branch", CENTERNESS[1:])
        check_choice(self, "box_loss", BOX_LOSSES)
        check_choice(self, "score", SCORES)
        check_choice(self, "assignment", ASSIGNMENTS)
        check_choice(self, "cls_loss", CLS_LOSSES)

    def make_head(self, **fields: Any) -> DenseHead:
        """Builds the head from the fields that all detectors have."""
        return DenseHead(
            **fields, centerness=self.centerness_branch, level_scales=self.level_scales
        )

    def assign(
        self, priors: list[Any], ground_truth: jax.Array, valid: jax.Array, image_size: jax.Array
    ) -> jax.Array:
        """Assigns objects to the points of one image: the detector's own rule.

        Args:
            priors: float32 [A, 4] of each level, cx cy w h, pixels.
            ground_truth: float32 [N, 4], x1 y1 x2 y2, pixels.
            valid: bool [N], which rows are objects.
            image_size: [2], height and width of the content.

        Returns:
            int32 [A], index of the object that the point lies in, or ``matching.BELOW``.
        """
        raise NotImplementedError

    def assigned(
        self,
        priors: list[Any],
        predicted: tuple[jax.Array, jax.Array],
        ground_truth: jax.Array,
        labels: jax.Array,
        valid: jax.Array,
        within: jax.Array,
        image_size: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """The assignment of one image, by ``assignment``, and what classes learn of it.

        Args:
            priors: as in ``assign``.
            predicted: logits [A, K] and offsets [A, 4].
            ground_truth: as in ``assign``.
            labels: int32 [N].
            valid: as in ``assign``.
            within: bool [A], points that take part.
            image_size: as in ``assign``.

        Returns:
            int32 [A] as of ``assign``, and the quality of positives, float32 [A], 0 … 1.
        """
        logits, offsets = jax.lax.stop_gradient(predicted)
        flat = jnp.concatenate([jnp.asarray(level) for level in priors])
        strides = np.repeat(self.level_sizes()[0], [len(level) for level in priors])
        places = matching.Places(
            logits=logits,
            boxes=self.corners(offsets, flat),
            centres=flat[:, :2],
            strides=jnp.asarray(strides, jnp.float32),
            usable=within,
        )
        if self.assignment == "simota":
            match = matching.simota.assign(
                ground_truth,
                labels,
                valid,
                places,
                count=self.ota_topk,
                iou_weight=self.ota_iou_weight,
                radius=self.ota_radius,
            )
        else:
            match = self.assign(priors, ground_truth, valid, image_size)
            match = jnp.where(within, match, matching.BELOW)
        if self.assignment == "task_aligned":
            return matching.task_aligned.assign(
                ground_truth,
                labels,
                valid,
                places,
                match,
                count=self.align_topk,
                alpha=self.align_alpha,
                beta=self.align_beta,
            )
        own = boxes.paired_iou(places.boxes, ground_truth[jnp.maximum(match, 0)])
        return match, jnp.where(match >= 0, places.finite(own), 0.0)

    def class_loss(self, logits: jax.Array, label: jax.Array, quality: jax.Array) -> jax.Array:
        """Loss of every place, float32 [A], by ``cls_loss``.

        Args:
            logits: [A, K].
            label: int32 [A], -1 for background.
            quality: float32 [A], what the label's class learns where it learns a quality.
        """
        if self.cls_loss == "focal":
            return self.focal_loss(logits, label)
        targets = quality_targets(label, quality, logits.shape[-1])
        if self.cls_loss == "quality":
            loss = losses.quality_focal_loss(logits, targets, self.quality_beta)
        else:
            loss = losses.varifocal_loss(
                logits, targets, self.varifocal_alpha, self.varifocal_gamma
            )
        return self.weighted(jnp.sum(loss, axis=-1), label)

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
            match, quality = self.assigned(
                found.priors, (logits, offsets), ground_truth, labels, valid, within, image_size
            )
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
            cls = self.class_loss(logits, jnp.where(positive, labels[of_point], -1), quality)
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
        if self.score != "root":
            best, index, labels = super().candidates(outputs, within)
            return best * (middle[index] if self.score == "product" else 1.0), index, labels
        scores = jnp.sqrt(jax.nn.sigmoid(outputs["logits"]) * middle[:, None])
        scores = jnp.where(within[:, None], scores, 0.0)
        return nms.best_pairs(scores, self.score_threshold, self.pre_nms)


def centerness_target(points: jax.Array, ground_truth: jax.Array) -> jax.Array:
    """How central points lie in boxes (Tian et al. 2019, eq. 3): 1 in the middle, 0 from the edge on.

    Args:
        points: float32 [..., 2], x y.
        ground_truth: float32 [..., 4], x1 y1 x2 y2.

    Returns:
        float32 [...].
    """
    left, top, right, bottom = (
        coding.encode_distances(points, ground_truth)[..., i] for i in range(4)
    )
    across = jnp.maximum(jnp.minimum(left, right), 0) / jnp.maximum(left, right)
    down = jnp.maximum(jnp.minimum(top, bottom), 0) / jnp.maximum(top, bottom)
    return jnp.sqrt(across * down)
