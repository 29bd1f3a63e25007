"""Base of the one-stage detectors on feature pyramids: RetinaNet, FCOS and ATSS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jdet.detectors.dense_head import DenseHead
from jdet.detectors.pyramid import PyramidDetector, check_ignored
from jdet.nn import padding
from jdet.nn.initialisers import INITIALISERS
from jdet.nn.norm import Norm
from jdet.nn.remat import Remat
from jdet.ops import anchors, boxes, matching, nms
from jdet.ops.losses import sigmoid_focal_loss
from jdet.types import Batch, ClassLayer, Detections, HeadLayout, Mean


class Predictions(NamedTuple):
    """Predictions of a dense detector, level by level, finest first.

    Attributes:
        outputs: arrays [B, A, …] of every level by the name that the head gives them, such as "offsets"
            [B, A, 4], "logits" [B, A, K] and "centerness" [B, A]. What they mean is the detector's.
        priors: float32 [A, 4] of every level, cx cy w h in pixels of the network input.
    """

    outputs: dict[str, list[Any]]
    priors: list[np.ndarray]

    def joined(self) -> tuple[dict[str, jax.Array], np.ndarray]:
        """The arrays of all levels one after the other, [B, A, …], and the priors [A, 4]."""
        whole = {name: jnp.concatenate(levels, axis=1) for name, levels in self.outputs.items()}
        return whole, np.concatenate(self.priors)


class DenseDetector(PyramidDetector, kw_only=True):
    """One-stage detector that predicts at every anchor or point of a feature pyramid.

    Class logits have K channels, one independent decision each; there is no background channel. A
    subclass defines its anchors (``anchor_levels``), how offsets are decoded (``corners``) and its losses
    (``loss_terms``).

    Attributes:
        head_norm: norm after every convolution of the towers; kinds with statistics have them per level.
        head_depth: convolutions of each tower.
        head_channels: of the towers.
        head_bias: convolutions of the towers have biases before a norm too.
        tower_init: initialiser of the towers, one of ``jdet.nn.initialisers``: "gaussian" as published,
            or "he", which keeps the scale of activations.
        prior: initial probability of each class at every anchor.
        focal_alpha: weight of positives in the focal loss.
        focal_gamma: its exponent.
        box_weight: weight of the box loss.
        score_threshold: lowest score of a detection.
        pre_nms: (anchor, class) pairs of each level that enter NMS.
        nms_iou: overlap above which the worse box of a class is dropped.
        soft_nms: "none"; "linear" or "gaussian": overlapping boxes lose score instead (``jdet.ops.nms``).
        soft_sigma: of "gaussian".
        max_detections: detections per image, D.
        max_per_class: detections of a class per image; 0: no limit of its own.
        min_side: shortest side of a detection, pixels of the network input; 0: any.
        ignore_iof: anchors, or cells of points, of which more than this share lies in an object that is
            not trained on (see ``train_ignored``) are left out of the loss, not background (MMDetection's
            ``ignore_iof_thr``); 0: they are background.
        mask_padding: keep padding out of the network, see ``jdet.nn.padding``; False: the network sees the
            padding, in the mean colour, as in the reference implementations (anchors centred there are
            excluded nevertheless).
        padded_inputs: images may be smaller than the network input; False if they are warped to it, so that
            there is no padding to mask.
        remat: what the backward pass computes again in the head; its part is ``head``.

    All others are those of ``PyramidDetector`` and ``Detector``.
    """

    head_norm: Norm = Norm("none")
    head_depth: int = 4
    head_channels: int = 256
    head_bias: bool = False
    tower_init: str = "gaussian"
    prior: float = 0.01
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    box_weight: float = 1.0
    score_threshold: float = 0.05
    pre_nms: int = 1000
    nms_iou: float = 0.5
    soft_nms: str = "none"
    soft_sigma: float = 0.5
    max_detections: int = 100
    max_per_class: int = 0
    min_side: float = 0.0
    ignore_iof: float = 0.0
    mask_padding: bool = True
    mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    std: tuple[float, ...] = (58.395, 57.12, 57.375)
    padded_inputs: bool = True
    remat: Remat = Remat()

    remat_parts: ClassVar[tuple[str, ...]] = ("head",)
    test_fields: ClassVar[tuple[str, ...]] = (
        "score_threshold",
        "nms_iou",
        "soft_nms",
        "soft_sigma",
        "pre_nms",
        "max_detections",
        "max_per_class",
        "min_side",
    )
    torchvision_anchors = False

    def __post_init__(self):
        super().__post_init__()
        check_choice(self, "soft_nms", nms.SOFT)
        check_choice(self, "tower_init", tuple(INITIALISERS))
        check_ignored(self)

    @property
    def any_input_size(self) -> bool:
        """All layers slide over the image."""
        return True

    @property
    def knows_padding(self) -> bool:
        """Anchors in the padding are excluded."""
        return True

    def setup(self):
        """Builds the head, which needs the number of anchors."""
        self.head = self.make_head(
            num_classes=self.num_classes,
            boxes_per_location=self.anchor_levels()[0].boxes_per_location,
            depth=self.head_depth,
            channels=self.head_channels,
            norm=self.head_norm,
            prior=self.prior,
            conv_bias=self.head_bias,
            tower_init=self.tower_init,
            remat=self.remat,
            dtype=self.dtype,
        )

    def make_head(self, **fields: Any) -> DenseHead:
        """Builds the head from the fields that all detectors have."""
        return DenseHead(**fields)

    def extra_stride(self, size: int, below: int) -> int:
        """Every level that the neck adds halves the one below, down to maps of one cell."""
        return 2

    def references(self) -> dict[str, Any]:
        """What offsets refer to, beside the anchors: two detectors with equal ones mean the same."""
        return {}

    def head_layout(self) -> HeadLayout:
        """Class layer, box layers and anchors (pixels), for starting from another run."""
        levels = self.anchor_levels()
        references = {
            "anchor sides": tuple(level.sides for level in levels),
            "anchor ratios": tuple(level.ratios for level in levels),
            "anchor steps": tuple(level.step for level in levels),
            "anchor rounding": self.torchvision_anchors,
            **self.references(),
        }
        classes = (ClassLayer(r"head/cls/.*", levels[0].boxes_per_location),)
        return HeadLayout(classes, r"head/(box|centerness)/.*|head/box_scale", references)

    def __call__(
        self, images: jax.Array, *, train: bool
    ) -> tuple[dict[str, jax.Array], np.ndarray]:
        """The network.

        Args:
            images: uint8 [B, H, W, 3], RGB, whole images.
            train: use and update batch statistics.

        Returns:
            ``Predictions.joined`` of all levels: arrays by name and the anchors.
        """
        return self.by_level(images, train=train).joined()

    def by_level(
        self, images: jax.Array, image_sizes: jax.Array | None = None, *, train: bool
    ) -> Predictions:
        """The network, level by level.

        Args:
            images: uint8 [B, H, W, 3], RGB.
            image_sizes: int32 [B, 2], height and width of each image's content; None: all of it.
            train: use and update batch statistics.
        """
        whole = (images.shape[1], images.shape[2])
        masked = self.mask_padding and self.padded_inputs
        x = self.normalised(images, image_sizes)
        with padding.content(image_sizes if masked else None, whole):
            levels = self.levels(x, train=train)
            outputs = self.head(levels, train=train)
        return Predictions(outputs, self.priors([x.shape[1:3] for x in levels], whole))

    def priors(self, shapes: Sequence[tuple[int, ...]], image: tuple[int, ...]) -> list[np.ndarray]:
        """Anchors float32 [h·w·A, 4] of each level, cx cy w h in pixels.

        Args:
            shapes: height and width of each level's map, cells.
            image: height and width of the network input, pixels.
        """
        found = []
        for level, (height, width) in zip(self.anchor_levels(), shapes, strict=True):
            if self.torchvision_anchors:
                level = level._replace(step=(image[0] // height, image[1] // width))
            found.append(anchors.default_boxes([level], [(height, width)]))
        return found

    def corners(self, offsets: jax.Array, priors: jax.Array) -> jax.Array:
        """Boxes [..., 4], x1 y1 x2 y2 in pixels, that offsets [..., 4] at priors [..., 4] stand for."""
        raise NotImplementedError

    def losses(self, batch: Batch, *, train: bool = True) -> dict[str, Mean]:
        """The training forward pass.

        Images without objects teach the background. Anchors centred beside an image's content,
        in its padding, take no part.

        Args:
            batch: ``images``, ``boxes``, ``labels``, ``valid``, ``ignore`` and ``image_sizes`` are used.
            train: use and update batch statistics.

        Returns:
            As of ``loss_terms``.
        """
        found = self.by_level(batch.images, batch.image_sizes, train=train)
        valid = batch.valid if self.train_ignored else batch.valid & ~batch.ignore
        # A box without area has no logarithm to learn.
        valid = valid & (boxes.area(batch.boxes) > 0)
        more = {"ignored": batch.valid & batch.ignore} if self.ignore_iof else {}
        return self.loss_terms(found, batch.boxes, batch.labels, valid, batch.image_sizes, **more)

    def loss_terms(
        self,
        found: Predictions,
        ground_truth: jax.Array,
        labels: jax.Array,
        valid: jax.Array,
        image_sizes: jax.Array,
        ignored: jax.Array | None = None,
    ) -> dict[str, Mean]:
        """Assignment and losses.

        Args:
            found: of the network.
            ground_truth: float32 [B, N, 4], x1 y1 x2 y2, pixels.
            labels: int32 [B, N], 0 … K-1.
            valid: bool [B, N], which rows are objects to learn.
            image_sizes: int32 [B, 2], height and width of each image's content.
            ignored: bool [B, N], which rows are regions where nothing is background (``ignore_iof``);
                None: there are none.

        Returns:
            "loc" (boxes of positives), "cls" (focal loss of all places that are not left out) and what
            else the detector learns.
        """
        raise NotImplementedError

    def taking_part(
        self,
        priors: np.ndarray | jax.Array,
        image_sizes: jax.Array,
        ground_truth: jax.Array,
        ignored: jax.Array | None,
    ) -> jax.Array:
        """Which anchors take part in the losses, bool [B, A]; arguments as in ``loss_terms``."""
        within = inside(priors, image_sizes)
        if ignored is None:
            return within
        corners = boxes.cxcywh_to_xyxy(jnp.asarray(priors))
        left_out = jax.vmap(matching.inside_ignored, (None, 0, 0, None))(
            corners, ground_truth, ignored, self.ignore_iof
        )
        return within & ~left_out

    def count_places(self, positive: jax.Array, counts: jax.Array, within: jax.Array) -> None:
        """Counts samples for ``train.sample_stats``.

        Args:
            positive: bool [B, A].
            counts: bool [B, A], places whose classes are learnt.
            within: bool [B, A], places on the images.
        """
        groups = (positive, counts & ~positive, within & ~positive)
        self.count_samples(*(jnp.sum(places, axis=1, dtype=jnp.float32) for places in groups))

    def detect(self, images: jax.Array, image_sizes: jax.Array) -> Detections:
        """Detections of a batch (Lin et al. 2017b, sec. 4).

        Args:
            images: uint8 [B, H, W, 3], RGB.
            image_sizes: int32 [B, 2], height and width of each image's content, which boxes are cut
                to; anchors centred outside it find nothing.

        Returns:
            Detections of D = ``max_detections`` rows.
        """
        return self.postprocess(self.by_level(images, image_sizes, train=False), image_sizes)

    def candidates(
        self, outputs: dict[str, jax.Array], within: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The best (anchor, class) pairs of one image on one level.

        Args:
            outputs: of the head, [A, …] each.
            within: bool [A], anchors that may find something.

        Returns:
            Scores float32 [n] (0: there is none), anchors and classes int32 [n].
        """
        scores = jnp.where(within[:, None], jax.nn.sigmoid(outputs["logits"]), 0.0)
        return nms.best_pairs(scores, self.score_threshold, self.pre_nms)

    def postprocess(self, found: Predictions, image_sizes: jax.Array) -> Detections:
        """Decodes and runs NMS; ``image_sizes`` as in ``detect``."""
        within = [inside(level, image_sizes) for level in found.priors]

        def one_image(outputs, within, image_size):
            kept = []
            for i, level in enumerate(found.priors):
                own = {name: levels[i] for name, levels in outputs.items()}
                best, index, labels = self.candidates(own, within[i])
                corners = self.corners(own["offsets"][index], jnp.asarray(level)[index])
                corners = boxes.clip(corners, image_size)
                kept.append((corners, nms.at_least(corners, best, self.min_side), labels))
            return nms.candidates_nms(
                *(jnp.concatenate(parts) for parts in zip(*kept)),
                iou_threshold=self.nms_iou,
                keep=self.max_detections,
                soft=self.soft_nms,
                sigma=self.soft_sigma,
                min_score=self.score_threshold,
                keep_per_class=self.max_per_class,
            )

        return jax.vmap(one_image)(found.outputs, within, image_sizes)

    def focal_loss(self, logits: jax.Array, label: jax.Array) -> jax.Array:
        """Focal loss of every place, float32 [A], for logits [A, K] and labels [A], -1 for background."""
        targets = label[:, None] == jnp.arange(logits.shape[-1])
        losses = sigmoid_focal_loss(logits, targets, self.focal_alpha, self.focal_gamma)
        return jnp.sum(losses, axis=-1)


def inside(priors: np.ndarray | jax.Array, image_sizes: jax.Array) -> jax.Array:
    """Which anchors [A, 4] are centred on each image's content [B, 2]; bool [B, A]."""
    y, x = jnp.asarray(priors[:, 1]), jnp.asarray(priors[:, 0])
    return (y < image_sizes[:, :1]) & (x < image_sizes[:, 1:])


def check_choice(module: nn.Module, name: str, allowed: Sequence[str]) -> None:
    """Raises ValueError where a field of a detector is none of the allowed names."""
    if getattr(module, name) not in allowed:
        raise ValueError(
            f"model.{name}={getattr(module, name)!r}; it can be one of {', '.join(allowed)}"
        )
