"""What detectors with a second stage share: the features of their RoIs."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jdet.detectors.class_nms import ClassNMSDetector
from jdet.detectors.pyramid import check_choice
from jdet.ops import boxes
from jdet.ops.roi_align import roi_align
from jdet.ops.roi_pool import roi_pool

ROI_OPS = ("align", "pool")


class RoIDetector(ClassNMSDetector, kw_only=True):
    """A detector that resamples regions from the levels of a pyramid.

    Attributes:
        roi_op: "align" (He et al. 2017, sec. 3) or "pool" (Girshick 2015, sec. 2.1).
        roi_size: side of what a RoI is resampled to, cells.
        roi_sampling: sample points along each side of a cell, of "align"; 0: as many as cells of the map,
            rounded up (MMDetection), which takes longer.
        roi_aligned: sample points are shifted by half a cell of the map, of "align" (Detectron2); False as
            in torchvision.
        finest_scale: RoIs with a square root of their area below twice this, pixels, are taken from the
            finest level, and each level above begins at twice the scale of the one before.
        context: the box heads also see the surroundings of a RoI: what is resampled in the same way from a
            box with the same centre and so many times its sides stands behind its own features (Peng et al.
            2018, MegDet, appendix). 0: they do not.

    All others are those of ``ClassNMSDetector``, ``PyramidDetector`` and ``Detector``.
    """

    roi_op: str = "align"
    roi_size: int = 7
    roi_sampling: int = 2
    roi_aligned: bool = True
    finest_scale: float = 56.0
    context: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        check_choice(self, "roi_op", ROI_OPS)

    def box_features(
        self, levels: list[jax.Array], corners: jax.Array, real: jax.Array
    ) -> jax.Array:
        """What the box heads see of RoIs, [B, R, roi_size, roi_size, C]; with ``context`` twice as many C.

        Args:
            levels: of the pyramid.
            corners: float32 [B, R, 4], x1 y1 x2 y2, pixels.
            real: bool [B, R], False for RoIs that only fill up.
        """
        own = self.pool(levels, corners, real, self.roi_size)
        if not self.context:
            return own
        around = self.pool(levels, boxes.enlarged(corners, self.context), real, self.roi_size)
        return jnp.concatenate([own, around], axis=-1)

    def pool(
        self, levels: list[jax.Array], corners: jax.Array, real: jax.Array, size: int
    ) -> jax.Array:
        """Features [B, R, size, size, C] of RoIs [B, R, 4] that are ``real`` [B, R], zeros of others."""
        settings = {
            "strides": tuple(self.level_sizes()[0][: len(levels)]),
            "output": size,
            "finest_scale": self.finest_scale,
            "valid": real,
        }
        if self.roi_op == "pool":
            return roi_pool(levels, corners, **settings)
        return roi_align(
            levels, corners, sampling=self.roi_sampling, aligned=self.roi_aligned, **settings
        )
