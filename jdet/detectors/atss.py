"""ATSS (Zhang et al. 2020, "Bridging the Gap Between Anchor-based and Anchor-free Detection")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdet.detectors.centerness import CenternessDetector
from jdet.ops import anchors, coding, matching


class ATSS(CenternessDetector):
    """Detector with one square anchor per location; positives are chosen by statistics of each object.

    The defaults are those of the publication and of MMDetection, which have group norms in the towers
    (``head_norm="group"``) and ``extra="conv_p5"`` of the neck.

    Attributes:
        anchor_scale: side of the anchors, in strides of their level.
        topk: number of nearest anchors per level that are candidates of an object.

    All others are those of ``CenternessDetector`` and ``DenseDetector``.
    """

    box_weight: float = 2.0
    anchor_scale: float = 8.0
    topk: int = 9

    def anchor_levels(self) -> tuple[anchors.AnchorLevel, ...]:
        """Sides and steps of the anchors, one entry per level."""
        strides = self.level_sizes()[0]
        return tuple(anchors.AnchorLevel((self.anchor_scale * s,), (1.0,), s) for s in strides)

    def corners(self, offsets: jax.Array, priors: jax.Array) -> jax.Array:
        """Boxes [..., 4], x1 y1 x2 y2 in pixels, that offsets [..., 4] at priors [..., 4] stand for."""
        return coding.decode(offsets, priors)

    def assign(
        self,
        priors: Sequence[Any],
        ground_truth: jax.Array,
        valid: jax.Array,
        image_size: jax.Array,
    ) -> jax.Array:
        """ATSS (Algorithm 1); as ``CenternessDetector.assign``."""
        grids = [
            matching.atss.Grid(
                jnp.asarray(np.unique(level[:, 1])),
                jnp.asarray(np.unique(level[:, 0])),
                float(level[0, 2]),
            )
            for level in priors
        ]
        return matching.atss.assign(ground_truth, valid, grids, image_size, self.topk)
