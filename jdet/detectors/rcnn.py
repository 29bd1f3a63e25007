"""Two-stage detectors: Faster R-CNN (Ren et al. 2015), Cascade R-CNN (Cai & Vasconcelos 2018)."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jdet.detectors.pyramid import Predictions, check_choice
from jdet.detectors.roi_features import RoIDetector
from jdet.detectors.rois import RoIs, hardest_apart, match_candidates, take_rois
from jdet.detectors.semantic_head import SemanticHead, semantic_loss, semantic_targets
from jdet.detectors.stage import BOX_LOSSES, Stage, best_class, of_class, softmax_loss
from jdet.nn import padding
from jdet.nn.norm import Norm
from jdet.nn.randomness import per_image_keys
from jdet.nn.remat import Remat
from jdet.ops import anchors, boxes, matching, nms, sampling
from jdet.types import Batch, ClassLayer, Detections, HeadLayout, Mean

SAMPLERS = ("random", "ohem", "ohem_apart")


class RCNN(RoIDetector, kw_only=True):
    """Two-stage detector: an RPN proposes boxes, one head or a cascade of them classifies and refines them.

    Every stage learns from a fixed number of RoIs of each image, some of which only fill up and count
    nowhere, so that shapes do not depend on the data. Later stages start from the refined boxes of the one
    before, without gradient, and have heads of their own; at evaluation the logits of all stages are
    averaged and the boxes are those of the last (Cai & Vasconcelos 2018, sec. 4; MMDetection).

    The defaults are MMDetection's for Faster R-CNN with FPN; the row ``cascade_rcnn`` has those for Cascade
    R-CNN. torchvision's are ``box_loss="smooth_l1", smooth_l1_beta=1/9, roi_aligned=False,
    clamp_below=False, min_side=1e-2``, with those of the RPN.

    Attributes:
        rpn: proposes boxes (``jdet.detectors.rpn``).
        box_head: head of the first stage (``jdet.detectors.roi_heads``); the others have a copy each, with
            parameters of its own.
        stage_ious: of every stage, the overlap with an object from which a RoI is positive, and below
            which it is background.
        stage_weights: of every stage, the weight of its losses.
        center_stds: of every stage, what the offsets of box centres are divided by.
        size_stds: of every stage, what the offsets of the logarithms of box sides are divided by.
        low_quality: what to do with an object's highest-IoU RoIs at or above the stage's threshold, see
            ``jdet.ops.matching.max_iou``.
        samples: RoIs of every image that a stage learns from, S.
        positive_share: largest share of positives among them.
        sampler: "random"; "ohem": those with the highest classification losses instead, positives and
            negatives in the same shares (MMDetection); "ohem_apart": those of all after NMS (Shrivastava
            et al. 2016).
        box_loss: "l1" or "smooth_l1" of the offsets, "giou" of the boxes.
        smooth_l1_beta: of "smooth_l1".
        box_weight: weight of the box losses.
        pre_nms: (RoI, class) pairs of an image that enter NMS.
        clamp_below: limit the logarithms of box sides below as well as above, as in MMDetection.
        class_weights: of the K classes, by which the cross-entropy of RoIs with an object of theirs is
            multiplied in every stage; background has 1, and what losses are divided by stays. (): none.
        semantic_weight: of the loss of an auxiliary branch that learns the class of every cell of the
            second level and takes no part in evaluation (``jdet.detectors.semantic_head``; Peng et al.
            2018, MegDet, appendix): by the masks of objects where the detector needs masks, else by their
            boxes; 0.2 in Chen et al. 2019. 0: there is no such branch.
        semantic_convs: 3×3 convolutions of this branch.
        semantic_channels: of these convolutions.
        head_norm: of this branch; the other heads have theirs.
        remat: what the backward pass computes again of this branch; its part is ``semantic_head``.

    All others are those of ``RoIDetector``, ``ClassNMSDetector``, ``PyramidDetector`` and ``Detector``.
    """

    rpn: Any
    box_head: Any
    stage_ious: tuple[float, ...] = (0.5,)
    stage_weights: tuple[float, ...] = (1.0,)
    center_stds: tuple[float, ...] = (0.1,)
    size_stds: tuple[float, ...] = (0.2,)
    low_quality: str = "none"
    samples: int = 512
    positive_share: float = 0.25
    sampler: str = "random"
    box_loss: str = "l1"
    smooth_l1_beta: float = 1.0
    box_weight: float = 1.0
    pre_nms: int = 5000
    clamp_below: bool = True
    class_weights: tuple[float, ...] = ()
    semantic_weight: float = 0.0
    semantic_convs: int = 4
    semantic_channels: int = 256
    head_norm: Norm = Norm("none")
    remat: Remat = Remat()

    parts: ClassVar[dict[str, str]] = {
        "backbone": "backbone",
        "neck": "neck",
        "rpn": "rpn",
        "box_head": "box_head",
    }
    finest_stride: ClassVar[int] = 4
    anchor_remedy: ClassVar[str] = (
        "but by the box head alone: nothing is proposed for them. config.model.rpn.anchor_scale and "
        "aspect_ratios change the anchors, config.model.taps their levels"
    )

    def __post_init__(self):
        super().__post_init__()
        check_choice(self, "box_loss", BOX_LOSSES)
        check_choice(self, "sampler", SAMPLERS)
        check_choice(self, "low_quality", matching.max_iou.LOW_QUALITY)
        for name in ("stage_ious", "stage_weights", "center_stds", "size_stds"):
            values = getattr(self, name)
            if len(values) != len(self.stage_ious) or not values:
                raise ValueError(
                    f"model.{name}={values!r} and model.stage_ious={self.stage_ious!r}; give each one "
                    "number per stage"
                )

    @property
    def positive_iou(self) -> float | None:
        """IoU below which an object has no anchor at all."""
        if self.rpn.low_quality == "none":
            return self.rpn.iou_threshold
        return self.rpn.min_pos_iou or None

    @property
    def steps_from_maps(self) -> bool:
        """Steps of anchors are computed from the sizes of image and maps."""
        return self.rpn.torchvision_anchors

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages after the RPN."""
        columns = zip(self.stage_ious, self.stage_weights, self.center_stds, self.size_stds)
        return tuple(
            Stage(
                number=number,
                iou=iou,
                weight=weight,
                stds=(center, center, size, size),
                box_loss=self.box_loss,
                smooth_l1_beta=self.smooth_l1_beta,
                box_weight=self.box_weight,
                clamp_below=self.clamp_below,
                class_weights=tuple(self.class_weights),
            )
            for number, (iou, weight, center, size) in enumerate(columns, start=1)
        )

    @property
    def most_positives(self) -> int:
        """Largest number of positives among the RoIs of an image."""
        if self.sampler == "ohem_apart":
            return self.samples
        return max(1, int(self.samples * self.positive_share))

    @property
    def remat_parts(self) -> tuple[str, ...]:
        """Segments of its own."""
        return SemanticHead.remat_parts if self.semantic_weight else ()

    def setup(self):
        """Makes the heads of the later stages, and that of the auxiliary branch."""
        for stage in self.stages[1:]:
            setattr(self, f"box_head{stage.end}", self.box_head.clone(name=None))
        if self.semantic_weight:
            self.semantic_head = SemanticHead(
                num_classes=self.num_classes,
                convs=self.semantic_convs,
                channels=self.semantic_channels,
                norm=self.head_norm,
                remat=self.remat,
                dtype=self.dtype,
            )

    def anchor_levels(self) -> tuple[anchors.AnchorLevel, ...]:
        """Sides, ratios and steps of the anchors, one entry per level."""
        return self.rpn.anchor_levels(self.level_sizes()[0])

    def head_layout(self) -> HeadLayout:
        """Class layers, box layers and what boxes are relative to, for starting from another run."""
        levels = self.anchor_levels()
        references = {
            "anchor sides": tuple(level.sides for level in levels),
            "anchor ratios": tuple(level.ratios for level in levels),
            "anchor steps": tuple(level.step for level in levels),
            "anchor rounding": self.steps_from_maps,
            "box scales": (self.center_stds, self.size_stds),
        }
        classes = [ClassLayer(r"box_head\d*/cls/.*", background=1)]
        if not self.box_head.class_agnostic:
            classes.append(ClassLayer(r"box_head\d*/box/.*", width=4))
        if self.semantic_weight:
            classes.append(ClassLayer(r"semantic_head/cls/.*", background=1))
        boxes = r"(rpn|box_head\d*)/box/.*"
        return HeadLayout(tuple(classes), boxes, references, outputs=(r"rpn/cls/.*",))

    def by_level(
        self, images: jax.Array, image_sizes: jax.Array, *, train: bool
    ) -> tuple[list[jax.Array], Predictions]:
        """The pyramid and what the RPN says of its anchors.

        Args:
            images: [B, H, W, C], values as stored.
            image_sizes: int32 [B, 2], height and width of each image's content.
            train: use and update batch statistics.

        Returns:
            Levels [B, h, w, C] that RoIs are taken from, which are those of the backbone's stages, finest
            first; and of all levels predictions "offsets" [B, A, 4] and "logits" [B, A].
        """
        whole = (images.shape[1], images.shape[2])
        masked = self.mask_padding and self.padded_inputs
        x = self.normalised(images, image_sizes)
        with padding.content(image_sizes if masked else None, whole):
            levels = self.levels(x, train=train)
            outputs = self.rpn(levels)
            # RoIs end where the content does: what they read beyond is its last cell, as at a map's end.
            features = [padding.repeated(level) for level in levels[: len(self.neck.taps)]]
        return features, Predictions(outputs, self.priors([x.shape[1:3] for x in levels], whole))

    def losses(self, batch: Batch, *, train: bool = True) -> dict[str, Mean]:
        """The training forward pass.

        Args:
            batch: ``images``, ``boxes``, ``labels``, ``valid``, ``ignore`` and ``image_sizes`` are used.
            train: use and update batch statistics.

        Returns:
            "rpn_cls" and "rpn_loc" (``jdet.detectors.rpn``), and of every stage "cls", cross-entropy of its
            RoIs, and "loc", box loss of the positives among them, both divided by the number of all
            RoIs; from the second stage on "cls2", "loc2", …; and "semantic" of the auxiliary branch,
            divided by the number of cells.
        """
        levels, found = self.by_level(batch.images, batch.image_sizes, train=train)
        valid = batch.valid if self.train_ignored else batch.valid & ~batch.ignore
        # A box without area has no logarithm to learn.
        valid = valid & (boxes.area(batch.boxes) > 0)
        terms = self.rpn.losses(found, batch.boxes, valid, batch.image_sizes)
        if self.semantic_weight:
            terms["semantic"] = self._semantic(levels, batch, valid, train=train)
        proposals = self.rpn.propose(found, batch.image_sizes, train=True)
        corners, there = proposals.boxes, proposals.valid
        for stage in self.stages:
            rois = self.sample(levels, corners, there, batch, valid, stage)
            logits, offsets = self.predict(levels, rois.boxes, rois.valid, stage, train=train)
            terms |= stage.terms(rois, logits, offsets, self.most_positives)
            terms |= self.more_terms(levels, rois, batch, stage, train=train)
            classes = jnp.where(rois.positive, rois.labels - 1, best_class(logits))
            corners = stage.refine(rois.boxes, offsets, classes, batch.image_sizes)
            there = rois.valid & ~rois.is_object
        return terms

    def _semantic(self, levels, batch, learnt, *, train):
        """Loss of the auxiliary branch; ``learnt`` [B, N] says which objects are."""
        first = min(1, len(levels) - 1)
        masked = self.mask_padding and self.padded_inputs
        with padding.content(batch.image_sizes if masked else None, batch.images.shape[1:3]):
            logits = self.semantic_head(levels[first:], train=train)
        stride = self.level_sizes()[0][first]
        targets = semantic_targets(batch, learnt, logits.shape[1:3], stride)
        return semantic_loss(logits, *targets, self.semantic_weight)

    def more_terms(
        self, levels: list[jax.Array], rois: RoIs, batch: Batch, stage: Stage, *, train: bool
    ) -> dict[str, Mean]:
        """What a stage learns from its RoIs besides classes and boxes: nothing here."""
        del levels, rois, batch, stage, train
        return {}

    def finished(self, levels: list[jax.Array], found: Detections) -> Detections:
        """Detections with what is predicted in their boxes: nothing more here."""
        del levels
        return found

    def sample(
        self,
        levels: list[jax.Array],
        corners: jax.Array,
        there: jax.Array,
        batch: Batch,
        valid: jax.Array,
        stage: Stage,
    ) -> RoIs:
        """The RoIs that a stage learns from: objects and proposals, matched and sampled.

        Args:
            levels: of the pyramid.
            corners: float32 [B, P, 4], proposals, x1 y1 x2 y2 in pixels.
            there: bool [B, P], which of them exist.
            batch: with the objects.
            valid: bool [B, N], which of the objects are learnt.
            stage: with the threshold.
        """
        found = match_candidates(
            corners,
            there,
            batch.boxes,
            batch.labels,
            valid,
            iou=stage.iou,
            low_quality=self.low_quality,
        )
        if self.sampler == "random":
            keys = per_image_keys(self, "sample", len(valid))
            rank = jax.vmap(lambda key: jax.random.uniform(key, found.valid.shape[1:]))(keys)
        else:  # by classification losses; statistics of the head's norms stay as they are
            fixed = jax.lax.stop_gradient(levels)
            logits, _ = self.predict(fixed, found.boxes, found.valid, stage, train=False)
            rank = jax.lax.stop_gradient(softmax_loss(logits, found.labels))

        def one_image(corners, rank, positive, negative):
            if self.sampler == "ohem_apart":
                return hardest_apart(corners, rank, positive, negative, self.samples)
            most = self.most_positives
            return sampling.balanced_sample(rank, positive, negative, self.samples, most)

        sample = jax.vmap(one_image)(found.boxes, rank, found.positive, found.negative)
        rois = take_rois(found, sample, batch.boxes)
        if stage.number == 1:
            background = sample.valid & ~sample.positive
            counts = (rois.positive, background, found.negative, rois.is_object & rois.positive)
            self.count_samples(*(jnp.sum(x, axis=1, dtype=jnp.float32) for x in counts))
        return rois

    def predict(
        self,
        levels: list[jax.Array],
        corners: jax.Array,
        real: jax.Array,
        stage: Stage,
        *,
        train: bool,
    ) -> tuple[jax.Array, jax.Array]:
        """What a stage's head says of RoIs.

        Args:
            levels: of the pyramid.
            corners: float32 [B, R, 4], x1 y1 x2 y2, pixels.
            real: bool [B, R], False for RoIs that only fill up.
            stage: whose head.
            train: use and update batch statistics.

        Returns:
            Logits [B, R, 1 + K], background first, and offsets [B, R, K or 1, 4].
        """
        head = getattr(self, f"box_head{stage.end}")
        return head(self.box_features(levels, corners, real), real, train=train)

    def detect(self, images: jax.Array, image_sizes: jax.Array) -> Detections:
        """Detections of a batch.

        Args:
            images: [B, H, W, C], values as stored.
            image_sizes: int32 [B, 2], height and width of each image's content, which boxes are cut
                to; anchors centred outside it find nothing.

        Returns:
            Detections of D = ``max_detections`` rows.
        """
        levels, found = self.by_level(images, image_sizes, train=False)
        proposals = self.rpn.propose(found, image_sizes, train=False)
        corners, votes = proposals.boxes, []
        *earlier, last = self.stages
        for stage in earlier:
            logits, offsets = self.predict(levels, corners, proposals.valid, stage, train=False)
            corners = stage.refine(corners, offsets, best_class(logits), image_sizes)
            votes.append(logits)
        logits, offsets = self.predict(levels, corners, proposals.valid, last, train=False)
        scores = jax.nn.softmax(sum(votes, logits) / len(self.stages))[..., 1:]
        scores = jnp.where(proposals.valid[..., None], scores, 0.0)
        return self.finished(levels, self.postprocess(corners, scores, offsets, image_sizes))

    def postprocess(
        self, corners: jax.Array, scores: jax.Array, offsets: jax.Array, image_sizes: jax.Array
    ) -> Detections:
        """The best (RoI, class) pairs of every image after NMS.

        Args:
            corners: float32 [B, R, 4], RoIs of the last stage.
            scores: float32 [B, R, K], probabilities; 0 where there is no RoI.
            offsets: float32 [B, R, K or 1, 4], of the last stage.
            image_sizes: int32 [B, 2].
        """

        last = self.stages[-1]

        def one_image(corners, scores, offsets, image_size):
            best, index, labels = nms.best_pairs(scores, self.score_threshold, self.pre_nms)
            found = last.decode(corners[index], of_class(offsets[index], labels))
            return self.best_detections(boxes.clip(found, image_size), best, labels)

        return jax.vmap(one_image)(corners, scores, offsets, image_sizes)
