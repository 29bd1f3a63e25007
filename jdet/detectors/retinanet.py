"""RetinaNet (Lin et al. 2017b, "Focal Loss for Dense Object Detection")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jdet.detectors.dense_head import DenseHead
from jdet.detectors.ssd import tap_geometry
from jdet.nn.norm import Norm
from jdet.ops import anchors, boxes, coding, losses, matching, nms
from jdet.types import Batch, ClassLayer, Detections, HeadLayout, Mean

UNIT = (1.0, 1.0, 1.0, 1.0)
"""Divisors of the offsets: none, unlike SSD's."""

BOX_LOSSES = ("l1", "smooth_l1", "giou")
NORMALIZERS = ("batch", "picture")


class RetinaNet(nn.Module):
    """One-stage detector with anchors on a feature pyramid, trained on all of them by the focal loss.

    Class logits have K channels, one independent decision each; there is no background channel.

    The defaults are those of the publication and of MMDetection. torchvision's are
    ``torchvision_anchors=True, normalizer="picture", max_detections=300``, with
    ``extra="conv_p5", extra_relu=True`` of the neck.

    Attributes:
        num_classes: K.
        input_size: side of the square input, pixels. Other sizes can be fed.
        backbone: module from pictures to named stages.
        neck: module from stages to levels of equal channels, finest first; its ``taps`` are the stages
            it starts from.
        head_norm: after every convolution of the towers; with statistics of their own for every level.
        head_depth: convolutions of each tower.
        head_channels: of the towers.
        prior: probability every anchor starts with for each class.
        anchor_scale: smallest anchor side, in strides of its level.
        octaves: anchor sides per level, within a factor of 2.
        aspect_ratios: heights over widths of the anchors.
        torchvision_anchors: sides and half sizes in whole pixels, and steps of whole pixels that follow
            from the sizes of picture and maps, as torchvision lays them out.
        iou_threshold: overlap from which an anchor is positive; an object's best anchors always are.
        negative_iou: overlap below which an anchor is negative; those between are left out.
        focal_alpha: weight of positives in the focal loss.
        focal_gamma: its exponent.
        box_loss: "l1" or "smooth_l1" of the offsets, "giou" of the boxes.
        smooth_l1_beta: of "smooth_l1".
        box_weight: weight of the box loss.
        normalizer: "batch" divides by the positives of all pictures; "picture" each picture's sums by
            its own (1 at least), then averages pictures, as torchvision does.
        train_ignored: crowds and difficult objects are trained on; False: dropped.
        score_threshold: lowest score of a detection.
        pre_nms: (anchor, class) pairs of each level that enter the suppression.
        nms_iou: overlap above which the worse box of a class is dropped.
        max_detections: detections per picture, D.
        mean: RGB mean subtracted from 0 … 255 pictures.
        std: divisor after that.
        dtype: of activations; losses and boxes are float32.
    """

    num_classes: int
    input_size: int
    backbone: nn.Module
    neck: nn.Module
    head_norm: Norm = Norm("none")
    head_depth: int = 4
    head_channels: int = 256
    prior: float = 0.01
    anchor_scale: float = 4.0
    octaves: int = 3
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    torchvision_anchors: bool = False
    iou_threshold: float = 0.5
    negative_iou: float = 0.4
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    box_loss: str = "l1"
    smooth_l1_beta: float = 0.1
    box_weight: float = 1.0
    normalizer: str = "batch"
    train_ignored: bool = False
    score_threshold: float = 0.05
    pre_nms: int = 1000
    nms_iou: float = 0.5
    max_detections: int = 100
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    dtype: Any = jnp.float32

    any_input_size = True  # ``detect`` takes pictures of other sizes than ``input_size``
    knows_padding = True  # what lies beside a picture's content is not learnt from
    clip_boxes = False  # anchors are not cut to the picture

    def __post_init__(self):
        super().__post_init__()
        for name, allowed in (("box_loss", BOX_LOSSES), ("normalizer", NORMALIZERS)):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"model.{name}={getattr(self, name)!r}; it can be one of {', '.join(allowed)}"
                )
        if not 0 <= self.negative_iou <= self.iou_threshold <= 1:
            raise ValueError(
                f"model.negative_iou={self.negative_iou} and model.iou_threshold={self.iou_threshold}; "
                "they must rise within 0 … 1"
            )
        ratios = self.aspect_ratios
        if not ratios or any(not isinstance(r, int | float) or r <= 0 for r in ratios):
            raise ValueError(f"model.aspect_ratios={ratios!r}; give numbers above 0, one at least")
        for name, low in (("anchor_scale", 0), ("smooth_l1_beta", 0), ("octaves", 0)):
            if getattr(self, name) <= low:
                raise ValueError(f"model.{name}={getattr(self, name)}; it must be above {low}")
        if not 0 < self.prior < 1:
            raise ValueError(f"model.prior={self.prior}; it must lie between 0 and 1")

    def setup(self):
        """The head needs the number of anchors."""
        self.head = DenseHead(
            self.num_classes,
            self.octaves * len(self.aspect_ratios),
            self.head_depth,
            self.head_channels,
            self.head_norm,
            self.prior,
            self.dtype,
        )

    def level_sizes(self) -> tuple[list[int], list[int]]:
        """Nominal stride and map size (cells a side) of each level at ``input_size``."""
        strides, cells = tap_geometry(self.backbone, self.neck.taps, self.input_size)
        for size in self.neck.extra_sizes(cells[-1]):
            strides.append(2 * strides[-1])
            cells.append(size)
        return strides, cells

    def default_box_levels(self) -> tuple[anchors.AnchorLevel, ...]:
        """Sides, ratios and steps of the anchors, one entry a level."""
        return anchors.retinanet_levels(
            self.level_sizes()[0],
            scale=self.anchor_scale,
            octaves=self.octaves,
            ratios=self.aspect_ratios,
            rounded=self.torchvision_anchors,
        )

    def head_layout(self) -> HeadLayout:
        """Class layer, box layer and anchors (pixels), for starting from another run."""
        levels = self.default_box_levels()
        references = {
            "anchor sides": tuple(level.sides for level in levels),
            "anchor ratios": tuple(level.ratios for level in levels),
            "anchor steps": tuple(level.step for level in levels),
            "anchor rounding": self.torchvision_anchors,
        }
        classes = (ClassLayer(r"head/cls/.*", levels[0].boxes_per_location),)
        return HeadLayout(classes, r"head/box/.*", references)

    def __call__(
        self, images: jax.Array, *, train: bool
    ) -> tuple[jax.Array, jax.Array, np.ndarray]:
        """The network.

        Args:
            images: uint8 [B, H, W, 3], RGB.
            train: use and update batch statistics.

        Returns:
            Offsets float32 [B, A, 4], logits float32 [B, A, K] and the anchors float32 [A, 4],
            cx cy w h in pixels.
        """
        offsets, logits, priors = self.by_level(images, train=train)
        return (
            jnp.concatenate(offsets, axis=1),
            jnp.concatenate(logits, axis=1),
            np.concatenate(priors),
        )

    def by_level(
        self, images: jax.Array, *, train: bool
    ) -> tuple[list[jax.Array], list[jax.Array], list[np.ndarray]]:
        """As ``__call__``, one entry a level."""
        x = (images.astype(jnp.float32) - jnp.asarray(self.mean)) / jnp.asarray(self.std)
        stages = self.backbone(x.astype(self.dtype), train=train)
        levels = self.neck(stages, train=train)
        offsets, logits = self.head(levels, train=train)
        priors = self.priors([x.shape[1:3] for x in levels], images.shape[1:3])
        return offsets, logits, priors

    def priors(self, shapes: Sequence[tuple[int, ...]], image: tuple[int, ...]) -> list[np.ndarray]:
        """Anchors float32 [h·w·A, 4] of each level, cx cy w h in pixels.

        Args:
            shapes: height and width of each level's map, cells.
            image: height and width of the network input, pixels.
        """
        found = []
        for level, (height, width) in zip(self.default_box_levels(), shapes, strict=True):
            if self.torchvision_anchors:
                level = level._replace(step=(image[0] // height, image[1] // width))
            found.append(anchors.default_boxes([level], [(height, width)]))
        return found

    def losses(self, batch: Batch, *, train: bool = True) -> dict[str, Mean]:
        """The training forward pass (sec. 4.1).

        Pictures without objects teach the background. Anchors centred beside a picture's content,
        in its padding, take no part.

        Args:
            batch: ``images``, ``boxes``, ``labels``, ``valid``, ``ignore`` and ``image_sizes`` are used.
            train: use and update batch statistics.

        Returns:
            "loc" (boxes of positives) and "cls" (focal loss of all anchors that are not left out).
        """
        offsets, logits, priors = self(batch.images, train=train)
        valid = batch.valid if self.train_ignored else batch.valid & ~batch.ignore
        # A box without area has no logarithm to learn.
        valid = valid & (boxes.area(batch.boxes) > 0)
        loc, cls, positives = retinanet_loss(
            offsets,
            logits,
            priors,
            batch.boxes,
            batch.labels,
            valid,
            _inside(priors, batch.image_sizes),
            iou_threshold=self.iou_threshold,
            negative_iou=self.negative_iou,
            alpha=self.focal_alpha,
            gamma=self.focal_gamma,
            box_loss=self.box_loss,
            beta=self.smooth_l1_beta,
        )
        if self.normalizer == "picture":
            each = jnp.maximum(positives, 1)
            loc, cls, weight = loc / each, cls / each, jnp.sum(jnp.ones_like(positives))
        else:
            weight = jnp.sum(positives)
        return {
            "loc": Mean(self.box_weight * jnp.sum(loc), weight),
            "cls": Mean(jnp.sum(cls), weight),
        }

    def detect(self, images: jax.Array, image_sizes: jax.Array) -> Detections:
        """Detections of a batch (sec. 4).

        Args:
            images: uint8 [B, H, W, 3], RGB.
            image_sizes: int32 [B, 2], height and width of each picture's content, which boxes are cut
                to; anchors centred outside it find nothing.

        Returns:
            Detections of D = ``max_detections`` rows.
        """
        return self.postprocess(*self.by_level(images, train=False), image_sizes)

    def postprocess(
        self,
        offsets: list[jax.Array],
        logits: list[jax.Array],
        priors: list[np.ndarray],
        image_sizes: jax.Array,
    ) -> Detections:
        """Decodes and suppresses; first arguments as returned by ``by_level``."""
        inside = [_inside(level, image_sizes) for level in priors]

        def one_picture(offsets, logits, inside, image_size):
            found = []
            for o, x, within, level in zip(offsets, logits, inside, priors):
                scores = jnp.where(within[:, None], jax.nn.sigmoid(x), 0.0)
                best, index, labels = nms.best_pairs(scores, self.score_threshold, self.pre_nms)
                corners = coding.decode(o[index], jnp.asarray(level)[index], UNIT)
                found.append((boxes.clip(corners, image_size), best, labels))
            return nms.candidates_nms(
                *(jnp.concatenate(parts) for parts in zip(*found)),
                iou_threshold=self.nms_iou,
                keep=self.max_detections,
            )

        return Detections(*jax.vmap(one_picture)(offsets, logits, inside, image_sizes))


def _inside(priors: np.ndarray, image_sizes: jax.Array) -> jax.Array:
    """Which anchors [A, 4] are centred on each picture's content [B, 2]; bool [B, A]."""
    y, x = jnp.asarray(priors[:, 1]), jnp.asarray(priors[:, 0])
    return (y < image_sizes[:, :1]) & (x < image_sizes[:, 1:])


def retinanet_loss(
    offsets: jax.Array,
    logits: jax.Array,
    priors: jax.Array | np.ndarray,
    truth: jax.Array,
    labels: jax.Array,
    valid: jax.Array,
    inside: jax.Array,
    *,
    iou_threshold: float = 0.5,
    negative_iou: float = 0.4,
    alpha: float = 0.25,
    gamma: float = 2.0,
    box_loss: str = "l1",
    beta: float = 0.1,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Assignment and both losses of RetinaNet, picture by picture.

    Args:
        offsets: float32 [B, A, 4].
        logits: float32 [B, A, K].
        priors: float32 [A, 4], cx cy w h, pixels.
        truth: float32 [B, N, 4], x1 y1 x2 y2, pixels.
        labels: int32 [B, N], 0 … K-1.
        valid: bool [B, N], which rows are objects to learn.
        inside: bool [B, A], which anchors take part.
        iou_threshold: overlap from which an anchor is positive.
        negative_iou: overlap below which it is negative.
        alpha: of the focal loss.
        gamma: of the focal loss.
        box_loss: one of ``BOX_LOSSES``.
        beta: of the smooth L1 loss.

    Returns:
        Sums of the box loss and of the classification loss and number of positives, float32 [B] each.
    """
    priors = jnp.asarray(priors)
    corners = boxes.cxcywh_to_xyxy(priors)

    def one_picture(offsets, logits, truth, labels, valid, inside):
        match = matching.by_thresholds(
            truth,
            valid,
            # Anchors outside must not be the best of an object either.
            lambda rows: jnp.where(inside, boxes.pairwise_iou(rows, corners), 0.0),
            iou_threshold,
            negative_iou,
            low_quality=True,
        )
        positive = match >= 0
        of_anchor = jnp.maximum(match, 0)
        target = truth[of_anchor]
        if box_loss == "giou":
            loc = losses.iou_loss(coding.decode(offsets, priors, UNIT), target, "giou")
        else:
            difference = losses.l1 if box_loss == "l1" else losses.smooth_l1
            settings = {} if box_loss == "l1" else dict(beta=beta)
            encoded = coding.encode(target, priors, UNIT)
            loc = jnp.sum(difference(offsets, encoded, **settings), axis=-1)
        label = jnp.where(positive, labels[of_anchor], -1)
        targets = label[:, None] == jnp.arange(logits.shape[-1])
        cls = jnp.sum(losses.sigmoid_focal_loss(logits, targets, alpha, gamma), axis=-1)
        counts = inside & (match != matching.BETWEEN)
        return (
            jnp.sum(jnp.where(positive, loc, 0.0)),
            jnp.sum(jnp.where(counts, cls, 0.0)),
            jnp.sum(positive.astype(jnp.float32)),
        )

    return jax.vmap(one_picture)(offsets, logits, truth, labels, valid, inside)
