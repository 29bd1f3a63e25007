"""Sparse R-CNN (Sun et al. 2021): learnt proposals, refined in stages, without anchors and without NMS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jdet.detectors.dynamic_head import DynamicHead
from jdet.detectors.pyramid import PyramidDetector, check_choice
from jdet.detectors.set_loss import SetLoss
from jdet.nn import padding
from jdet.nn.remat import Remat
from jdet.ops import boxes, coding, matching, nms
from jdet.ops.anchors import LevelAnchors
from jdet.ops.roi_align import roi_align
from jdet.types import Batch, ClassLayer, ConfigError, Detections, HeadLayout, Mean


class Sets(NamedTuple):
    """What every stage predicts; S stages.

    Attributes:
        logits: float32 [S, B, R, K].
        boxes: float32 [S, B, R, 4], x1 y1 x2 y2, pixels; not cut to the image.
    """

    logits: Any
    boxes: Any


class SparseRCNN(PyramidDetector, kw_only=True):
    """Learnt boxes and features that six heads turn into detections, one after the other.

    A proposal is a box relative to the image, which starts as all of it, and a vector of features. In every
    stage RoIAlign reads what the boxes hold, a head (``jdet.detectors.dynamic_head``) with parameters of
    its own classifies the proposals and moves their boxes, and boxes without gradient and features with it
    go on to the next. All stages learn, each from an assignment of its own of one proposal to every object
    (``jdet.detectors.set_loss``). Detections are the best (proposal, class) pairs of the last stage:
    that no object is found twice is learnt.

    The defaults are MMDetection's.

    Attributes:
        proposals: R; 100 or 300 as published.
        stages: heads that follow on one another.
        attention_heads: of a head's self-attention; must divide the channels of the neck.
        dynamic_channels: between the two dynamic convolutions.
        hidden: channels of the hidden layer of a head's perceptron.
        cls_layers: of each head, before the class logits.
        box_layers: of each head, before the box offsets.
        prior: initial probability of each class.
        center_std: what offsets of box centres are divided by.
        size_std: what offsets of the logarithms of box sides are divided by.
        roi_size: side of what a box is resampled to, cells.
        roi_sampling: sample points along each side of a cell; 0: as many as cells of the map, rounded up.
        roi_aligned: sample points are shifted by half a cell of the map.
        finest_scale: boxes with a square root of their area below twice this, pixels, are taken from the
            finest level, and each level above begins at twice the scale of the one before.
        cls_weight: of the focal term, in costs and losses.
        l1_weight: of the L1 distance of corners relative to the image, in costs and losses.
        giou_weight: of the generalised IoU, in costs and losses.
        focal_alpha: weight of positives in the focal term.
        focal_gamma: its exponent.
        matcher: where matching runs, "device" or "host" (``jdet.ops.matching.hungarian``).
        score_threshold: lowest score of a detection.
        max_detections: detections per image, D; no more than R · K.
        mask_padding: keep padding out of the network, see ``jdet.nn.padding``.
        padded_inputs: images may be smaller than the network input.
        class_weights: of the K classes, by which the focal losses of predictions with an object of theirs
            are multiplied; all others have 1, and neither costs nor what losses are divided by change. ():
            none.
        remat: what the backward pass computes again in the heads; their part is ``head``.

    All others are those of ``PyramidDetector`` and ``Detector``.
    """

    proposals: int = 100
    stages: int = 6
    attention_heads: int = 8
    dynamic_channels: int = 64
    hidden: int = 2048
    cls_layers: int = 1
    box_layers: int = 3
    prior: float = 0.01
    center_std: float = 0.5
    size_std: float = 1.0
    roi_size: int = 7
    roi_sampling: int = 2
    roi_aligned: bool = True
    finest_scale: float = 56.0
    cls_weight: float = 2.0
    l1_weight: float = 5.0
    giou_weight: float = 2.0
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    matcher: str = "device"
    score_threshold: float = 0.0
    max_detections: int = 100
    mask_padding: bool = True
    padded_inputs: bool = True
    class_weights: tuple[float, ...] = ()
    remat: Remat = Remat()
    mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    std: tuple[float, ...] = (58.395, 57.12, 57.375)

    finest_stride: ClassVar[int] = 4
    test_fields: ClassVar[tuple[str, ...]] = ("score_threshold", "max_detections")

    def __post_init__(self):
        super().__post_init__()
        check_choice(self, "matcher", matching.hungarian.BACKENDS)

    @property
    def remat_parts(self) -> tuple[str, ...]:
        """As in ``Detector``."""
        return DynamicHead.remat_parts

    @property
    def any_input_size(self) -> bool:
        """Boxes are relative to the image, and read in regions of one size."""
        return True

    @property
    def knows_padding(self) -> bool:
        """Boxes are relative to the content, and cut to it at the end."""
        return True

    @property
    def set_loss(self) -> SetLoss:
        """Costs and losses of every stage."""
        return SetLoss(
            cls_weight=self.cls_weight,
            l1_weight=self.l1_weight,
            giou_weight=self.giou_weight,
            focal_alpha=self.focal_alpha,
            focal_gamma=self.focal_gamma,
            matcher=self.matcher,
            class_weights=tuple(self.class_weights),
        )

    def anchors(self, shape: tuple[int, int]) -> tuple[LevelAnchors, ...]:
        """There are none."""
        del shape
        return ()

    def check_design(self) -> None:
        """Holds the number of attention heads against the channels that the neck really makes."""
        channels = self.map_shapes((self.input_size, self.input_size))[0][-1]
        if channels % self.attention_heads:
            raise ConfigError(
                f"config.model.attention_heads={self.attention_heads} does not divide the {channels} "
                "channels that config.model.neck makes; set it to a divisor of them"
            )

    def start_warning(
        self, objects: Callable[..., Any], class_names: Sequence[str], resize: Any
    ) -> str:
        """Says how many images hold more objects than there are proposals."""
        del class_names, resize
        images = objects(keep_ignored=self.train_ignored).images
        counts = np.unique(images, return_counts=True)[1]
        full = counts > self.proposals
        if not full.any():
            return ""
        return (
            f"{full.sum()} of {len(counts)} sampled images hold more than config.model.proposals="
            f"{self.proposals} objects, up to {counts.max()}; an object without a proposal is not "
            f"learnt, --config.model.proposals={2 * counts.max()} has room"
        )

    def head_layout(self) -> HeadLayout:
        """Class and box layers, and what offsets are divided by, for starting from another run."""
        return HeadLayout(
            classes=(ClassLayer(r"head\d+/cls/.*"),),
            boxes=r"head\d+/box/.*|proposal_boxes",
            references={"box scales": (self.center_std, self.size_std)},
        )

    @nn.compact
    def by_stage(self, images: jax.Array, image_sizes: jax.Array, *, train: bool) -> Sets:
        """The network.

        Args:
            images: [B, H, W, C], values as stored.
            image_sizes: int32 [B, 2], height and width of each image's content.
            train: use and update batch statistics.
        """
        whole = (images.shape[1], images.shape[2])
        masked = self.mask_padding and self.padded_inputs
        x = self.normalised(images, image_sizes)
        with padding.content(image_sizes if masked else None, whole):
            # Boxes may leave the content, beyond which is nothing, as beyond the input.
            levels = [padding.repeated(level) for level in self.levels(x, train=train)]
        start = nn.initializers.constant(jnp.array([0.5, 0.5, 1.0, 1.0]))
        learnt = self.param("proposal_boxes", start, (self.proposals, 4), jnp.float32)
        corners = boxes_on_images(learnt, image_sizes)
        features = self.param(
            "proposal_features",
            nn.initializers.normal(1.0),
            (self.proposals, levels[0].shape[-1]),
            jnp.float32,
        )
        features = jnp.broadcast_to(features, (len(images), *features.shape))
        found = []
        for number in range(1, self.stages + 1):
            regions = roi_align(
                levels,
                corners,
                strides=self.level_sizes()[0],
                output=self.roi_size,
                sampling=self.roi_sampling,
                aligned=self.roi_aligned,
                finest_scale=self.finest_scale,
            )
            head = DynamicHead(
                num_classes=self.num_classes,
                attention_heads=self.attention_heads,
                dynamic_channels=self.dynamic_channels,
                hidden=self.hidden,
                cls_layers=self.cls_layers,
                box_layers=self.box_layers,
                prior=self.prior,
                remat=self.remat,
                dtype=self.dtype,
                name=f"head{number}",
            )
            logits, offsets, features = head(features, regions)
            moved = self.moved(corners, offsets)
            found.append(Sets(logits=logits, boxes=moved))
            corners = jax.lax.stop_gradient(moved)
        return jax.tree.map(lambda *stages: jnp.stack(stages), *found)

    def moved(self, corners: jax.Array, offsets: jax.Array) -> jax.Array:
        """Boxes float32 [B, R, 4], x1 y1 x2 y2, pixels, moved by a stage's offsets [B, R, 4]."""
        return coding.decode(
            offsets,
            boxes.xyxy_to_cxcywh(corners),
            (self.center_std, self.center_std, self.size_std, self.size_std),
            min_log_scale=-coding.MAX_LOG_SCALE,
        )

    def losses(self, batch: Batch, *, train: bool = True) -> dict[str, Mean]:
        """The training forward pass. Images without objects teach the background.

        Args:
            batch: ``images``, ``boxes``, ``labels``, ``valid``, ``ignore`` and ``image_sizes`` are used.
            train: use and update batch statistics.

        Returns:
            "cls", "loc" and "giou" of the first stage (``SetLoss.terms``), "cls2", … of the others.
        """
        found = self.by_stage(batch.images, batch.image_sizes, train=train)
        valid = batch.valid if self.train_ignored else batch.valid & ~batch.ignore
        # A box without area is no object; nor is one whose coordinates are no numbers.
        valid = valid & (boxes.area(batch.boxes) > 0)
        return self.loss_terms(found, batch.boxes, batch.labels, valid, batch.image_sizes)

    def loss_terms(
        self,
        found: Sets,
        ground_truth: jax.Array,
        labels: jax.Array,
        valid: jax.Array,
        image_sizes: jax.Array,
    ) -> dict[str, Mean]:
        """Assignment of all stages in one call, and losses.

        Args:
            found: of the network.
            ground_truth: float32 [B, N, 4], x1 y1 x2 y2, pixels.
            labels: int32 [B, N], 0 … K-1.
            valid: bool [B, N], which rows are objects to learn.
            image_sizes: int32 [B, 2], height and width of each image's content.
        """
        own, terms = self.set_loss, {}
        match = own.match(found.logits, found.boxes, ground_truth, labels, valid, image_sizes)
        for stage in range(self.stages):
            end = str(stage + 1) if stage else ""
            means = own.terms(
                found.logits[stage],
                found.boxes[stage],
                match[stage],
                ground_truth,
                labels,
                image_sizes,
            )
            terms |= {f"{name}{end}": mean for name, mean in means.items()}
        positive = jnp.sum(match[-1] >= 0, axis=-1, dtype=jnp.float32)
        rest = self.proposals - positive
        self.count_samples(positive, rest, rest)
        return terms

    def detect(self, images: jax.Array, image_sizes: jax.Array) -> Detections:
        """Detections of a batch, the best pairs of the last stage.

        Args:
            images: [B, H, W, C], values as stored.
            image_sizes: int32 [B, 2], height and width of each image's content, which boxes are cut to.

        Returns:
            Detections of D = ``max_detections`` rows, or of R · K where there are no more pairs.
        """
        found = self.by_stage(images, image_sizes, train=False)
        return self.postprocess(found.logits[-1], found.boxes[-1], image_sizes)

    def postprocess(
        self, logits: jax.Array, corners: jax.Array, image_sizes: jax.Array
    ) -> Detections:
        """The best pairs of predictions [B, R, K] and [B, R, 4]; ``image_sizes`` as in ``detect``."""

        def one_image(logits, corners, image_size):
            # An image without content has nothing to find.
            scores = jnp.where(jnp.all(image_size > 0), jax.nn.sigmoid(logits), 0.0)
            best, row, label = nms.best_pairs(scores, self.score_threshold, self.max_detections)
            valid = best > 0
            return Detections(
                boxes=boxes.clip(corners[row], image_size),
                scores=best,
                labels=jnp.where(valid, label, 0),
                valid=valid,
            )

        return jax.vmap(one_image)(logits, corners, image_sizes)


def boxes_on_images(relative: jax.Array, image_sizes: jax.Array) -> jax.Array:
    """Boxes [R, 4], cx cy w h relative to an image, on images of these sizes.

    Args:
        relative: float32 [R, 4]; sides are taken without their sign.
        image_sizes: int32 [B, 2], height and width of each image's content.

    Returns:
        float32 [B, R, 4], x1 y1 x2 y2 in pixels.
    """
    height, width = image_sizes.astype(jnp.float32).T
    scale = jnp.stack([width, height, width, height], axis=-1)
    relative = jnp.concatenate([relative[:, :2], jnp.abs(relative[:, 2:])], axis=-1)
    return boxes.cxcywh_to_xyxy(relative) * scale[:, None]
