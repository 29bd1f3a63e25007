"""Region proposal network: where objects may be, whatever their class (Ren et al. 2015)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jdet.detectors.pyramid import Predictions, check_choice, inside
from jdet.nn.checked import Checked
from jdet.nn.conv import Conv
from jdet.nn.initialisers import gaussian
from jdet.nn.randomness import per_image_keys
from jdet.nn.remat import Remat
from jdet.ops import anchors, boxes, coding, losses, matching, nms, sampling
from jdet.types import Mean

UNIT = (1.0, 1.0, 1.0, 1.0)
BOX_LOSSES = ("l1", "smooth_l1")


class Proposals(NamedTuple):
    """Boxes that may hold an object, a fixed number for every image, best first.

    Attributes:
        boxes: float32 [B, P, 4], x1 y1 x2 y2 in pixels of the network input; zeros where not valid.
        scores: float32 [B, P], probability of an object.
        valid: bool [B, P].
    """

    boxes: Any
    scores: Any
    valid: Any


class RPN(Checked):
    """Objectness and box offsets of anchors on all levels of a pyramid, and the proposals made of them.

    The defaults are MMDetection's for Faster R-CNN. Those of torchvision are ``torchvision_anchors=True,
    padding_anchors=True, low_quality="anchor", min_pos_iou=0.0, box_loss="smooth_l1",
    proposals_train=2000, clamp_below=False, min_side=1e-3``; MMDetection's of Cascade R-CNN
    ``border=0.0, box_loss="smooth_l1", proposals_train=2000``; Detectron2's ``low_quality="anchor",
    min_pos_iou=0.0, clamp_below=False``. Unlike there, an object that overlaps no anchor gets none.

    Attributes:
        channels: of the convolutions that all levels share.
        depth: number of those convolutions.
        anchor_scale: side of the anchors, in strides of their level.
        anchor_sides: side of the anchors of each level in its place, pixels, for levels whose strides do
            not double, as with a dilated last stage: (32, 64, 128, 256, 512). (): by ``anchor_scale``.
        aspect_ratios: heights over widths of the anchors.
        torchvision_anchors: half sizes and steps in whole pixels, with steps computed from the sizes of
            image and maps, as in torchvision.
        padding_anchors: anchors centred beside an image's content take part too (torchvision).
        border: anchors that leave the image by more than this, pixels, take no part in the loss
            (MMDetection's ``allowed_border``); below 0: all do.
        iou_threshold: overlap from which an anchor is positive.
        negative_iou: overlap below which an anchor is negative.
        low_quality: what to do with an object's highest-IoU anchors below ``iou_threshold``, see
            ``jdet.ops.matching.max_iou``.
        min_pos_iou: smallest best IoU of an object for which ``low_quality`` applies.
        samples: anchors of every image that the loss counts.
        positive_share: largest share of positives among them.
        box_loss: "l1" or "smooth_l1" of the offsets.
        smooth_l1_beta: of "smooth_l1".
        box_weight: weight of the box loss.
        pre_nms_train: anchors of each level that enter NMS in training.
        pre_nms: the same at evaluation.
        proposals_train: proposals of an image in training.
        proposals: proposals of an image at evaluation, P.
        nms_iou: overlap above which the worse box of a level is dropped.
        min_side: shortest side of a proposal, pixels of the network input; those without area are dropped
            in any case.
        clamp_below: limit the logarithms of sizes below as well as above, as in MMDetection.
        remat: what the backward pass computes again; its part is ``rpn``.
        dtype: of the computation; predictions are float32.
    """

    channels: int = 256
    depth: int = 1
    anchor_scale: float = 8.0
    anchor_sides: tuple[float, ...] = ()
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    torchvision_anchors: bool = False
    padding_anchors: bool = False
    border: float = -1.0
    iou_threshold: float = 0.7
    negative_iou: float = 0.3
    low_quality: str = "object"
    min_pos_iou: float = 0.3
    samples: int = 256
    positive_share: float = 0.5
    box_loss: str = "l1"
    smooth_l1_beta: float = 1 / 9
    box_weight: float = 1.0
    pre_nms_train: int = 2000
    pre_nms: int = 1000
    proposals_train: int = 1000
    proposals: int = 1000
    nms_iou: float = 0.7
    min_side: float = 0.0
    clamp_below: bool = True
    remat: Remat = Remat()
    dtype: Any = jnp.float32

    remat_parts: ClassVar[tuple[str, ...]] = ("rpn",)
    test_fields: ClassVar[tuple[str, ...]] = ("pre_nms", "proposals")

    def __post_init__(self):
        super().__post_init__()
        check_choice(self, "box_loss", BOX_LOSSES, "rpn")
        check_choice(self, "low_quality", matching.max_iou.LOW_QUALITY, "rpn")
        if self.negative_iou > self.iou_threshold:
            raise ValueError(
                f"rpn.negative_iou={self.negative_iou} and rpn.iou_threshold={self.iou_threshold}; the "
                "first must not be above the second"
            )

    def anchor_levels(self, strides: Sequence[int]) -> tuple[anchors.AnchorLevel, ...]:
        """Sides, ratios and steps of the anchors of levels with these strides, pixels.

        Raises:
            ValueError: ``anchor_sides`` is of another number of levels.
        """
        levels = anchors.retinanet_levels(
            strides,
            scale=self.anchor_scale,
            octaves=1,
            ratios=self.aspect_ratios,
            rounded=self.torchvision_anchors,
        )
        if not self.anchor_sides:
            return levels
        if len(self.anchor_sides) != len(levels):
            raise ValueError(
                f"rpn.anchor_sides={self.anchor_sides} for levels of strides {tuple(strides)}; give one "
                "side for each"
            )
        sides = map(float, self.anchor_sides)
        return tuple(level._replace(sides=(side,)) for level, side in zip(levels, sides))

    @nn.compact
    def __call__(self, levels: Sequence[jax.Array]) -> dict[str, list[jax.Array]]:
        """Predictions of all levels, float32.

        Args:
            levels: [B, h, w, C] each.

        Returns:
            "offsets" [B, h·w·A, 4] and "logits" [B, h·w·A]; lists with one entry per level.
        """

        def hidden(module, levels):
            return module._hidden(levels)

        levels = self.remat.segment(hidden, "rpn")(self, list(levels))
        ratios = len(self.aspect_ratios)
        logits, offsets = (
            Conv(n, 1, use_bias=True, kernel_init=gaussian, dtype=self.dtype, name=name)
            for n, name in ((ratios, "cls"), (4 * ratios, "box"))
        )
        return {
            "logits": [logits(x).astype(jnp.float32).reshape(len(x), -1) for x in levels],
            "offsets": [offsets(x).astype(jnp.float32).reshape(len(x), -1, 4) for x in levels],
        }

    def _hidden(self, levels):
        for i in range(1, self.depth + 1):
            conv = Conv(
                self.channels,
                use_bias=True,
                kernel_init=gaussian,
                dtype=self.dtype,
                name=f"conv{i}",
            )
            levels = [jax.nn.relu(conv(x)) for x in levels]
        return levels

    def losses(
        self,
        found: Predictions,
        ground_truth: jax.Array,
        valid: jax.Array,
        image_sizes: jax.Array,
    ) -> dict[str, Mean]:
        """Assignment, sampling and losses (Ren et al. 2015, sec. 3.1.2 and 3.1.3).

        Args:
            found: of the network.
            ground_truth: float32 [B, N, 4], x1 y1 x2 y2, pixels.
            valid: bool [B, N], which rows are objects to learn.
            image_sizes: int32 [B, 2], height and width of each image's content.

        Returns:
            "rpn_cls", cross-entropy of the sampled anchors, and "rpn_loc", box loss of the positives among
            them; both are divided by the number of all sampled anchors.
        """
        outputs, priors = found.joined()
        corners = boxes.cxcywh_to_xyxy(jnp.asarray(priors))
        ids = sampling.anchor_ids(priors)
        most = max(1, int(self.samples * self.positive_share))

        def one_image(logits, offsets, ground_truth, valid, within, key):
            match = matching.max_iou.assign(
                ground_truth,
                valid,
                # Anchors that take no part must not be the best of an object either.
                lambda rows: jnp.where(within, boxes.pairwise_iou(rows, corners), 0.0),
                positive_iou=self.iou_threshold,
                negative_iou=self.negative_iou,
                low_quality=self.low_quality,
                min_pos_iou=self.min_pos_iou,
            )
            negative = within & (match == matching.BELOW)
            sample = sampling.balanced_sample(
                sampling.noise(key, ids), match >= 0, negative, self.samples, most
            )
            wrong = losses.sigmoid_cross_entropy(logits[sample.index], sample.positive)
            first = sample.index[:most]  # positives come first
            positive = sample.positive[:most]
            prior = jnp.asarray(priors)[first]
            # Elsewhere an anchor predicts itself: what is masked must be finite for its gradient to be.
            target = jnp.where(
                positive[:, None], ground_truth[jnp.maximum(match[first], 0)], corners[first]
            )
            predicted = jnp.where(positive[:, None], offsets[first], 0.0)
            loc = self._box_loss(predicted, coding.encode(target, prior, UNIT))
            return (
                jnp.sum(jnp.where(sample.valid, wrong, 0.0)),
                jnp.sum(jnp.where(positive, loc, 0.0)),
                jnp.sum(sample.valid, dtype=jnp.float32),
            )

        cls, loc, count = jax.vmap(one_image)(
            outputs["logits"],
            outputs["offsets"],
            ground_truth,
            valid,
            self._taking_part(priors, image_sizes),
            per_image_keys(self, "sample", len(image_sizes)),
        )
        weight = jnp.sum(count)
        return {
            "rpn_cls": Mean(jnp.sum(cls), weight),
            "rpn_loc": Mean(self.box_weight * jnp.sum(loc), weight),
        }

    def _box_loss(self, offsets: jax.Array, target: jax.Array) -> jax.Array:
        beta = self.smooth_l1_beta if self.box_loss == "smooth_l1" else 0.0
        return jnp.sum(losses.smooth_l1(offsets, target, beta=beta), axis=-1)

    def _on_image(self, priors: np.ndarray, image_sizes: jax.Array) -> jax.Array:
        """Anchors [A, 4] of which something may be made; bool [B, A]."""
        if self.padding_anchors:
            return jnp.ones((len(image_sizes), len(priors)), bool)
        return inside(priors, image_sizes)

    def _taking_part(self, priors: np.ndarray, image_sizes: jax.Array) -> jax.Array:
        """Anchors [A, 4] that the loss may count; bool [B, A]."""
        within = self._on_image(priors, image_sizes)
        if self.border < 0:
            return within
        x1, y1, x2, y2 = boxes.cxcywh_to_xyxy(jnp.asarray(priors)).T
        height, width = image_sizes[:, :1], image_sizes[:, 1:]
        fits = (x2 < width + self.border) & (y2 < height + self.border)
        return within & fits & (x1 >= -self.border) & (y1 >= -self.border)

    def propose(self, found: Predictions, image_sizes: jax.Array, *, train: bool) -> Proposals:
        """The best boxes of every level after NMS, of which the best are kept; without gradient.

        Args:
            found: of the network.
            image_sizes: int32 [B, 2], height and width of each image's content, which boxes are cut
                to.
            train: the numbers of training.

        Returns:
            Proposals of P = ``proposals_train`` or ``proposals`` rows.
        """
        before = self.pre_nms_train if train else self.pre_nms
        keep = self.proposals_train if train else self.proposals
        longest = min(before, max(len(prior) for prior in found.priors))
        candidates, ranks = [], []
        found = found._replace(outputs=jax.lax.stop_gradient(found.outputs))
        for logits, offsets, prior in zip(
            *(found.outputs[k] for k in ("logits", "offsets")), found.priors
        ):
            count = min(before, len(prior))
            if not count:
                continue
            logits = jnp.where(self._on_image(prior, image_sizes), logits, -jnp.inf)
            best, index = jax.lax.top_k(logits, count)
            offsets = jnp.take_along_axis(offsets, index[..., None], axis=1)
            corners = self.decode(offsets, jnp.asarray(prior)[index])
            corners = boxes.clip(corners, image_sizes[:, None])
            side = jnp.min(corners[..., 2:] - corners[..., :2], axis=-1)
            corners = jnp.where(((side > 0) & (side >= self.min_side))[..., None], corners, 0.0)
            spare = longest - count
            candidates.append(jnp.pad(corners, ((0, 0), (0, spare), (0, 0))))
            ranks.append(jnp.pad(best, ((0, 0), (0, spare)), constant_values=-jnp.inf))
        corners, rank = jnp.stack(candidates, axis=1), jnp.stack(ranks, axis=1)  # [B, L, n]
        # Boxes without area overlap nothing, and come out of NMS as they went in.
        kept = nms.nms(corners, rank > -jnp.inf, self.nms_iou) & (boxes.area(corners) > 0)
        rank = jnp.where(kept, rank, -jnp.inf).reshape(len(rank), -1)
        best, index = jax.lax.top_k(rank, min(keep, rank.shape[1]))
        corners = corners.reshape(len(rank), -1, 4)
        corners = jnp.take_along_axis(corners, index[..., None], axis=1)
        spare = keep - best.shape[1]
        best = jnp.pad(best, ((0, 0), (0, spare)), constant_values=-jnp.inf)
        corners = jnp.pad(corners, ((0, 0), (0, spare), (0, 0)))
        valid = best > -jnp.inf
        return Proposals(
            boxes=jnp.where(valid[..., None], corners, 0.0),
            scores=jnp.where(valid, jax.nn.sigmoid(best), 0.0),
            valid=valid,
        )

    def decode(self, offsets: jax.Array, priors: jax.Array) -> jax.Array:
        """Boxes [..., 4], x1 y1 x2 y2 in pixels, that offsets [..., 4] at priors [..., 4] stand for."""
        low = -coding.MAX_LOG_SCALE if self.clamp_below else -math.inf
        return coding.decode(offsets, priors, UNIT, min_log_scale=low)
