"""SSD (Liu et al. 2016) and, with norms in backbone and head, ScratchDet (Zhu et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jdet.detectors.multibox import multibox_loss
from jdet.detectors.pyramid import PyramidDetector, check_ignored
from jdet.nn.conv import Conv
from jdet.nn.initialisers import caffe_xavier, gaussian
from jdet.nn.norm import L2Norm, Norm
from jdet.ops import anchors, boxes, coding, nms
from jdet.types import Batch, ClassLayer, ConfigError, Detections, HeadLayout, Mean


class SSD(PyramidDetector, kw_only=True):
    """Single-shot detector over the levels of a neck.

    Background exists only here: class logits have K + 1 channels and channel 0 is background.

    Images are normalised by the RGB means of the Caffe release; the published learning rates are for a
    ``std`` of 1. Default boxes are laid out for ``input_size``; inputs of other sizes are possible and keep
    steps and sizes of the default boxes.

    Attributes:
        head_norm: normalisation after the prediction convolutions, on offsets and logits alike
            (ScratchDet, "BN in head").
        l2norm_levels: number of levels, finest first, with an L2 normalisation with learned scale
            (classic SSD: 1; ScratchDet: 0; DSOD: all, -1).
        first_ratio: default-box size of the first level, fraction of the side (see ``ssd_levels``).
        min_ratio: of the second level.
        max_ratio: upper end of the size rule.
        size_rule: "mmdetection" truncates these sizes to whole pixels, "caffe" does not, as the release: at
            300 pixels both give the published table, at 512 they differ.
        min_sizes: side of the small square box of each level, pixels. This and each of the next four fields
            replace a column of the table of default boxes; empty: by the rule.
        max_sizes: of each level; the second square box has side sqrt(min · max), 0: there is none.
        aspect_ratios: of each level, a tuple of ratios above 1; each gives a wide and a tall box.
        steps: distance between box centres on each level, pixels.
        first_centres: centre of the first box on each level, pixels; the rule: half a step.
        clip_boxes: clip default boxes to the image.
        clamp_sizes: no default box is wider or taller than the network input, as in torchvision, whose
            released weights need it; their centres stay.
        head_kernels: side of the head's kernels on each level, the last value for all further ones.
        iou_threshold: overlap from which a default box is positive in addition to the bipartite matches.
        negative_ratio: hard negatives per positive.
        min_negatives: hard negatives of each image at the least, also of one without objects.
        ignore_iof: default boxes of which more than this share lies in an object that is not trained on
            (see ``train_ignored``) are left out of the loss, not background (MMDetection's
            ``ignore_iof_thr``); 0: they are background.
        loc_weight: weight of the box loss.
        class_weights: of the K classes, by which the classification losses of their positives are
            multiplied; background has 1, and what losses are divided by stays. (): none.
        score_threshold: lowest score of a detection.
        nms_iou: overlap above which the worse box of a class is dropped.
        pre_nms: candidates per class.
        max_detections: detections per image, D.
        max_per_class: detections of a class per image; 0: no limit of its own.
        min_side: shortest side of a detection, pixels of the network input; 0: any.

    All others are those of ``PyramidDetector`` and ``Detector``.
    """

    head_norm: Norm = Norm("batch")
    l2norm_levels: int = 0
    first_ratio: float = 0.10
    min_ratio: float = 0.20
    max_ratio: float = 0.90
    size_rule: str = "mmdetection"
    min_sizes: tuple[float, ...] = ()
    max_sizes: tuple[float, ...] = ()
    aspect_ratios: tuple[tuple[float, ...], ...] = ()
    steps: tuple[float, ...] = ()
    first_centres: tuple[float, ...] = ()
    clip_boxes: bool = False
    clamp_sizes: bool = False
    head_kernels: tuple[int, ...] = (3,)
    iou_threshold: float = 0.5
    negative_ratio: float = 3.0
    min_negatives: int = 0
    ignore_iof: float = 0.0
    loc_weight: float = 1.0
    class_weights: tuple[float, ...] = ()
    train_ignored: bool = True
    score_threshold: float = 0.01
    nms_iou: float = 0.45
    pre_nms: int = 400
    max_detections: int = 200
    max_per_class: int = 0
    min_side: float = 0.0
    mean: tuple[float, ...] = (123.0, 117.0, 104.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    test_fields: ClassVar[tuple[str, ...]] = (
        "score_threshold",
        "nms_iou",
        "pre_nms",
        "max_detections",
        "max_per_class",
        "min_side",
    )
    anchor_remedy: ClassVar[str] = (
        "each through the one default box it overlaps most (bipartite matching), but weakly. "
        "`python -m jdet.analysis.default_boxes --config=…` with the same config measures this and "
        "proposes settings"
    )

    def __post_init__(self):
        super().__post_init__()
        if not self.head_kernels or any(side < 1 or side % 2 == 0 for side in self.head_kernels):
            raise ValueError(
                f"model.head_kernels={tuple(self.head_kernels)}; give odd sides, one per level or fewer: "
                "the last serves all further levels"
            )
        check_ignored(self)

    def setup(self):
        """Lays out the levels; the head needs their number of boxes."""
        self.box_levels = self.anchor_levels()
        self.head = SSDHead(
            self.num_classes + 1,
            tuple(level.boxes_per_location for level in self.box_levels),
            self.head_norm,
            self.head_kernels,
            self.dtype,
        )
        l2norm_levels = len(self.box_levels) if self.l2norm_levels < 0 else self.l2norm_levels
        self.l2norm = [L2Norm() for _ in range(l2norm_levels)]

    @property
    def any_input_size(self) -> bool:
        """``detect`` takes images of other sizes than ``input_size``: the neck keeps its layers."""
        return getattr(self.neck, "design_cells", 0) > 0

    @property
    def positive_iou(self) -> float:
        """IoU from which a default box is positive."""
        return self.iou_threshold

    def anchor_levels(self) -> tuple[anchors.DefaultBoxLevel, ...]:
        """Sizes, ratios and steps of the default boxes, one entry per level.

        Raises:
            ValueError: a column of the config does not have one value per level, or an invalid one.
        """
        levels = anchors.ssd_levels(
            self.input_size,
            *self.level_sizes(),
            first_ratio=self.first_ratio,
            min_ratio=self.min_ratio,
            max_ratio=self.max_ratio,
            rule=self.size_rule,
        )
        if self.clamp_sizes:
            levels = [level._replace(longest=float(self.input_size)) for level in levels]
        levels = anchors.replace_columns(
            levels,
            min_sizes=self.min_sizes,
            max_sizes=self.max_sizes,
            aspect_ratios=self.aspect_ratios,
            steps=self.steps,
            first_centres=self.first_centres,
        )
        anchors.check_levels(levels)
        return levels

    def head_layout(self) -> HeadLayout:
        """Class layers, box layers and default boxes (pixels), for starting from another run."""
        levels = self.anchor_levels()
        classes = tuple(
            ClassLayer(rf"head/cls{i}(_norm)?/.*", level.boxes_per_location, background=1)
            for i, level in enumerate(levels)
        )
        references = {
            "default-box sizes": tuple((level.size, level.next_size) for level in levels),
            "default-box ratios": tuple(level.ratios for level in levels),
            "default-box steps": tuple((level.step, level.start) for level in levels),
            "default-box clipping": self.clip_boxes,
            "default-box clamping": self.clamp_sizes,
        }
        return HeadLayout(classes, r"head/loc\d+(_norm)?/.*", references)

    def __call__(
        self, images: jax.Array, *, train: bool
    ) -> tuple[jax.Array, jax.Array, np.ndarray]:
        """The network.

        Args:
            images: [B, H, W, C], values as stored.
            train: use and update batch statistics.

        Returns:
            Offsets float32 [B, A, 4], logits float32 [B, A, K + 1] (channel 0 is background) and the
            default boxes float32 [A, 4], cx cy w h in pixels.

        Raises:
            ConfigError: the images are smaller than a cell of the finest level.
        """
        strides, _ = self.level_sizes()
        if min(images.shape[1:3]) < strides[0]:
            raise ConfigError(
                f"images of {images.shape[1]}×{images.shape[2]} pixels leave no level: a cell of the "
                f"finest has {strides[0]} pixels; take larger ones"
            )
        levels = self.levels(self.normalised(images), train=train)
        # A smaller image than the design: the coarsest levels vanish, the others stay put.
        specs = self.box_levels[: len(levels)]
        priors = anchors.default_boxes(
            specs,
            [(level.shape[1], level.shape[2]) for level in levels],
            (images.shape[1], images.shape[2]) if self.clip_boxes else None,
        )
        for i, norm in enumerate(self.l2norm[: len(levels)]):
            levels[i] = norm(levels[i])
        offsets, logits = self.head(levels, train=train)
        assert offsets.shape[1] == len(priors), (offsets.shape, priors.shape)
        return offsets, logits, priors

    def losses(self, batch: Batch, *, train: bool = True) -> dict[str, Mean]:
        """The training forward pass (SSD, sec. 2.2; Caffe ``MultiBoxLoss``).

        Both losses are sums over the batch, weighted by the number of matched default boxes. Images
        without objects add exactly nothing, unless ``min_negatives`` says so.

        Args:
            batch: ``images``, ``boxes``, ``labels``, ``valid`` and ``ignore`` are used.
            train: use and update batch statistics.

        Returns:
            "loc" (smooth L1 of positives) and "cls" (cross-entropy of positives and hard negatives). The
            collection "samples", where it is mutable, gets the numbers of both (``Samples``).
        """
        offsets, logits, priors = self(batch.images, train=train)
        valid = batch.valid if self.train_ignored else batch.valid & ~batch.ignore
        # A box without area has no logarithm to learn.
        valid = valid & (boxes.area(batch.boxes) > 0)
        loc, cls, samples = multibox_loss(
            offsets,
            logits,
            priors,
            batch.boxes,
            batch.labels,
            valid,
            iou_threshold=self.iou_threshold,
            negative_ratio=self.negative_ratio,
            min_negatives=self.min_negatives,
            ignored=batch.valid & batch.ignore if self.ignore_iof else None,
            ignore_iof=self.ignore_iof,
            class_weights=self.class_weights,
        )
        self.count_samples(samples.positives, samples.negatives, samples.background)
        weight = jnp.sum(samples.positives)
        return {
            "loc": Mean(self.loc_weight * jnp.sum(loc), weight),
            "cls": Mean(jnp.sum(cls), weight),
        }

    def detect(self, images: jax.Array, image_sizes: jax.Array) -> Detections:
        """Detections of a batch (Caffe ``DetectionOutput``).

        Args:
            images: [B, H, W, C], values as stored.
            image_sizes: int32 [B, 2], height and width of each image's content. SSD warps images to
                the full input, so nothing is cut here; mapping back to the original image clips.

        Returns:
            Detections of D = ``max_detections`` rows, boxes not clipped.
        """
        del image_sizes
        offsets, logits, priors = self(images, train=False)
        return self.postprocess(offsets, logits, priors)

    def postprocess(self, offsets: jax.Array, logits: jax.Array, priors: np.ndarray) -> Detections:
        """Decodes and runs NMS; arguments as returned by ``__call__``."""
        scores = jax.nn.softmax(logits, axis=-1)[..., 1:]
        corners = coding.decode(offsets, jnp.asarray(priors))

        def one_image(corners, scores):
            return nms.class_wise_nms(
                corners,
                nms.at_least(corners, scores, self.min_side),
                score_threshold=self.score_threshold,
                iou_threshold=self.nms_iou,
                pre_nms=self.pre_nms,
                keep=self.max_detections,
                keep_per_class=self.max_per_class,
            )

        return jax.vmap(one_image)(corners, scores)


class SSDHead(nn.Module):
    """Per level one convolution for offsets and one for logits, nothing shared between levels.

    With a norm the convolutions lose their bias, start from a Gaussian of deviation 0.01, and the
    normalised outputs are the predictions: no activation follows (ScratchDet's released heads).

    Attributes:
        num_logits: K + 1.
        boxes_per_location: of each level.
        norm: after both convolutions.
        kernels: side of the kernels of each level, the last value for all further ones.
        dtype: of the computation.
    """

    num_logits: int
    boxes_per_location: tuple[int, ...]
    norm: Norm
    kernels: tuple[int, ...] = (3,)
    dtype: Any = jnp.float32

    @property
    def folds(self) -> tuple[tuple[str, str], ...]:
        """Norms that are the only reader of a convolution (``jdet.nn.fold``)."""
        levels = range(len(self.boxes_per_location))
        return tuple((f"{kind}{i}", f"{kind}{i}_norm") for kind in ("loc", "cls") for i in levels)

    @nn.compact
    def __call__(self, levels: Sequence[jax.Array], *, train: bool) -> tuple[jax.Array, jax.Array]:
        """Levels [B, h, w, C] to offsets [B, A, 4] and logits [B, A, K + 1], float32."""
        plain = self.norm.needs_bias
        offsets, logits = [], []
        for i, (x, count) in enumerate(zip(levels, self.boxes_per_location)):
            for outputs, kind, width in ((offsets, "loc", 4), (logits, "cls", self.num_logits)):
                y = Conv(
                    count * width,
                    self.kernels[min(i, len(self.kernels) - 1)],
                    use_bias=plain,
                    kernel_init=caffe_xavier if plain else gaussian,
                    dtype=self.dtype,
                    name=f"{kind}{i}",
                )(x)
                # Predictions are float32 from here on: eight bits of bfloat16 would round logits.
                y = self.norm(train=train, name=f"{kind}{i}_norm")(y.astype(jnp.float32))
                outputs.append(y.reshape(y.shape[0], -1, width))
        return jnp.concatenate(offsets, axis=1), jnp.concatenate(logits, axis=1)
