"""Mask R-CNN (He et al. 2017) and its cascade: a mask of every detection beside its box."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jdet.detectors.mask_head import mask_loss, mask_targets, own_masks
from jdet.detectors.rcnn import RCNN
from jdet.detectors.rois import RoIs
from jdet.detectors.stage import Stage
from jdet.types import Batch, ClassLayer, Detections, HeadLayout, Mean


class MaskRCNN(RCNN, kw_only=True):
    """Two-stage detector whose stages have a mask head each beside their box heads.

    A stage's mask head learns from the positives of the stage. At evaluation the masks of a detection are
    those that all mask heads predict in its final box, averaged as probabilities (MMDetection).

    The defaults are MMDetection's with those of ``RCNN``; torchvision has ``binary_masks=False`` and masks
    with ``roi_aligned=False`` too.

    Attributes:
        mask_head: head of the first stage (``jdet.detectors.mask_head``); the others have a copy each.
        mask_size: side of what a RoI is resampled to for the mask head, cells; masks have twice as many.
        mask_weight: weight of the mask losses, besides that of the stage.
        binary_masks: cut the resampled ground truth at a half; False: learn the shares as they are.

    All others are those of ``RCNN``.
    """

    mask_head: Any
    mask_size: int = 14
    mask_weight: float = 1.0
    binary_masks: bool = True

    parts: ClassVar[dict[str, str]] = {**RCNN.parts, "mask_head": "mask_head"}
    needs: ClassVar[tuple[str, ...]] = ("masks",)

    def setup(self):
        """Makes the heads of the later stages."""
        super().setup()
        for stage in self.stages[1:]:
            setattr(self, f"mask_head{stage.end}", self.mask_head.clone(name=None))

    def head_layout(self) -> HeadLayout:
        """That of ``RCNN``, with the masks of the classes."""
        layout, masks = super().head_layout(), r"mask_head\d*/mask/.*"
        if self.mask_head.class_agnostic:
            return layout._replace(outputs=(*layout.outputs, masks))
        return layout._replace(classes=(*layout.classes, ClassLayer(masks)))

    def more_terms(
        self, levels: list[jax.Array], rois: RoIs, batch: Batch, stage: Stage, *, train: bool
    ) -> dict[str, Mean]:
        """The mask loss of a stage; of objects whose mask is not known nothing is learnt.

        Returns:
            "mask", cross-entropy of the cells, divided by the number of positives; from the second stage on
            its name ends in the number of the stage.
        """
        most = self.most_positives
        corners, frames, match, positive, labels = (
            x[:, :most] for x in (rois.boxes, rois.target, rois.match, rois.positive, rois.labels)
        )
        masks = jnp.take_along_axis(batch.masks, match[..., None, None], axis=1)
        learnt = positive & jnp.any(masks > 0, axis=(-2, -1))
        logits = self._mask_logits(levels, corners, learnt, stage, train=train)
        targets = mask_targets(
            masks,
            frames,
            corners,
            2 * self.mask_size,
            aligned=self.roi_aligned,
            binary=self.binary_masks,
        )
        mean = mask_loss(logits, labels - 1, targets, learnt)
        weight = self.mask_weight * stage.weight
        return {f"mask{stage.end}": Mean(weight * mean.total, mean.weight)}

    def _mask_logits(self, levels, corners, real, stage, *, train):
        """Logits [B, R, m, m, K or 1] of a stage's mask head for RoIs [B, R, 4]."""
        head = getattr(self, f"mask_head{stage.end}")
        return head(self.pool(levels, corners, real, self.mask_size), real, train=train)

    def finished(self, levels: list[jax.Array], found: Detections) -> Detections:
        """Detections with their masks, float32 [B, D, m, m]: means of what all stages predict."""
        masks = [
            jax.nn.sigmoid(
                own_masks(
                    self._mask_logits(levels, found.boxes, found.valid, stage, train=False),
                    found.labels,
                )
            )
            for stage in self.stages
        ]
        return found._replace(masks=sum(masks[1:], masks[0]) / len(masks))
