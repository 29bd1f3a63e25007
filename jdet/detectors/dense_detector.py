"""Base of the one-stage detectors on feature pyramids: RetinaNet, FCOS and ATSS."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jdet.detectors.class_nms import ClassNMSDetector
from jdet.detectors.dense_head import DenseHead
from jdet.detectors.pyramid import Predictions, check_choice, check_ignored, inside
from jdet.nn import padding
from jdet.nn.initialisers import INITIALISERS
from jdet.nn.norm import Norm
from jdet.nn.remat import Remat
from jdet.ops import boxes, matching, nms
from jdet.ops.losses import class_weight, sigmoid_focal_loss
from jdet.types import Batch, ClassLayer, Detections, HeadLayout, Mean


class DenseDetector(ClassNMSDetector, kw_only=True):
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
        pre_nms: (anchor, class) pairs of each level that enter NMS.
        ignore_iof: anchors, or cells of points, of which more than this share lies in an object that is
            not trained on (see ``train_ignored``) are left out of the loss, not background (MMDetection's
            ``ignore_iof_thr``); 0: they are background.
        class_weights: of the K classes, by which the classification losses of anchors with an object of
            theirs are multiplied, all K decisions of them (Cui et al. 2019); background has 1, and what
            losses are divided by stays. (): none.
        remat: what the backward pass computes again in the head; its part is ``head``.

    All others are those of ``ClassNMSDetector``, ``PyramidDetector`` and ``Detector``.
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
    pre_nms: int = 1000
    ignore_iof: float = 0.0
    class_weights: tuple[float, ...] = ()
    remat: Remat = Remat()

    torchvision_anchors = False

    def __post_init__(self):
        super().__post_init__()
        check_choice(self, "tower_init", tuple(INITIALISERS))
        check_ignored(self)

    @property
    def remat_parts(self) -> tuple[str, ...]:
        """As in ``Detector``."""
        return ("head",)

    @property
    def steps_from_maps(self) -> bool:
        """Steps of anchors follow from the sizes of image and maps."""
        return self.torchvision_anchors

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

    def make_head(self, **fields: Any) -> nn.Module:
        """Builds the head from the fields that all detectors have."""
        return DenseHead(**fields)

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
            images: [B, H, W, C], values as stored, whole images.
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
            images: [B, H, W, C], values as stored.
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
            images: [B, H, W, C], values as stored.
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

    def adjusted(
        self,
        corners: jax.Array,
        number: int,
        outputs: dict[str, list[jax.Array]],
        priors: list[np.ndarray],
        image_size: jax.Array,
    ) -> jax.Array:
        """Boxes of candidates before NMS, where other predictions than theirs change them.

        Args:
            corners: float32 [n, 4], x1 y1 x2 y2, pixels.
            number: of their level.
            outputs: of the head for one image, [A, …] of every level.
            priors: float32 [A, 4] of every level.
            image_size: [2], height and width of the content.
        """
        del number, outputs, priors, image_size
        return corners

    def postprocess(self, found: Predictions, image_sizes: jax.Array) -> Detections:
        """Decodes and runs NMS; ``image_sizes`` as in ``detect``."""
        within = [inside(level, image_sizes) for level in found.priors]

        def one_image(outputs, within, image_size):
            kept = []
            for i, level in enumerate(found.priors):
                own = {name: levels[i] for name, levels in outputs.items()}
                best, index, labels = self.candidates(own, within[i])
                corners = self.corners(own["offsets"][index], jnp.asarray(level)[index])
                corners = self.adjusted(corners, i, outputs, found.priors, image_size)
                corners = boxes.clip(corners, image_size)
                kept.append((corners, best, labels))
            return self.best_detections(*(jnp.concatenate(parts) for parts in zip(*kept)))

        return jax.vmap(one_image)(found.outputs, within, image_sizes)

    def focal_loss(self, logits: jax.Array, label: jax.Array) -> jax.Array:
        """Focal loss of every place, float32 [A], for logits [A, K] and labels [A], -1 for background."""
        targets = label[:, None] == jnp.arange(logits.shape[-1])
        losses = sigmoid_focal_loss(logits, targets, self.focal_alpha, self.focal_gamma)
        return self.weighted(jnp.sum(losses, axis=-1), label)

    def weighted(self, losses: jax.Array, label: jax.Array) -> jax.Array:
        """Losses [A] of places by the weights of their classes; labels [A], -1 for background."""
        return losses * class_weight(self.class_weights, label) if self.class_weights else losses


def quality_targets(label: jax.Array, quality: jax.Array, classes: int) -> jax.Array:
    """Targets [A, K] of classes that learn a quality [A]: that of the label [A], 0 of all others.

    The label of background is -1.
    """
    return jnp.where(label[:, None] == jnp.arange(classes), quality[:, None], 0.0)
