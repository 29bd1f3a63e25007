"""FCOS (Tian et al. 2019, "Fully Convolutional One-Stage Object Detection"; Tian et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jdet.detectors.centerness import CenternessDetector
from jdet.detectors.pyramid import check_choice
from jdet.ops import anchors, coding, matching

ACTIVATIONS = ("relu", "exp")

REACH = 8
"""Longest side distance a level predicts, in its strides: 64 pixels on the level of stride 8 (sec. 3.2)."""

MAX_LOG_DISTANCE = 10.0
"""Largest exponent of a distance, 22,026 pixels or strides, so that a large prediction stays finite."""


class FCOS(CenternessDetector):
    """Detector without anchors: every point inside an object predicts the distances to its four sides.

    The defaults are the improvements that the authors published later (Tian et al. 2020) and MMDetection
    collects. The first publication is ``center_radius=0, norm_on_bbox=False, box_activation="exp",
    box_loss="log_iou", centerness_branch="cls", head_bias=False``. torchvision's model is
    ``torchvision_anchors=True, level_scales=False, weigh_boxes=False, score="root",
    score_threshold=0.2``. All three have group norms in the towers (``head_norm="group"``) and
    ``extra="conv_p5", extra_relu=True`` of the neck.

    Attributes:
        regress_bounds: longest side distance in pixels of each level but the last, rising; the range of the
            next level starts there, and the last has no limit. Empty: eight strides.
        center_radius: strides around an object's centre within which points are positive, along both
            axes (centre sampling); 0: all points of the object are.
        norm_on_bbox: distances are predicted in strides of the level; False: in pixels.
        box_activation: "relu" or "exp", the function from predicted numbers to distances.
        torchvision_anchors: points on the corners of cells, in steps of whole pixels that follow from
            the sizes of image and maps; False: in the centres of cells.

    All others are those of ``CenternessDetector`` and ``DenseDetector``.
    """

    head_bias: bool = True
    regress_bounds: tuple[float, ...] = ()
    center_radius: float = 1.5
    norm_on_bbox: bool = True
    box_activation: str = "relu"
    torchvision_anchors: bool = False

    def __post_init__(self):
        super().__post_init__()
        check_choice(self, "box_activation", ACTIVATIONS)
        bounds = tuple(self.regress_bounds)
        if any(not low < high for low, high in zip((0.0, *bounds), bounds)):
            raise ValueError(f"model.regress_bounds={bounds}; they must rise from above 0")
        if bounds and self.assignment == "simota":
            raise ValueError(
                f"model.regress_bounds={bounds} limits which level finds an object, and "
                "model.assignment='simota' chooses by costs alone; leave model.regress_bounds=(), or set "
                "model.assignment='own' or 'task_aligned'"
            )

    def anchor_levels(self) -> tuple[anchors.AnchorLevel, ...]:
        """The points, as centres of squares of one cell; one entry per level."""
        strides = self.level_sizes()[0]
        if self.regress_bounds and len(self.regress_bounds) != len(strides) - 1:
            raise ValueError(
                f"model.regress_bounds={tuple(self.regress_bounds)} for {len(strides)} levels; give one "
                f"bound fewer than levels, {len(strides) - 1}"
            )
        return tuple(
            anchors.AnchorLevel(
                (float(stride),),
                (1.0,),
                stride,
                start=0.0 if self.torchvision_anchors else stride / 2,
            )
            for stride in strides
        )

    def references(self) -> dict[str, Any]:
        """What distances refer to, beside the points."""
        return {
            "distances in strides": self.norm_on_bbox,
            "activation of distances": self.box_activation,
        }

    def corners(self, offsets: jax.Array, priors: jax.Array) -> jax.Array:
        """Boxes [..., 4], x1 y1 x2 y2 in pixels, that offsets [..., 4] at points [..., 4] stand for."""
        if self.box_activation == "exp":
            distances = jnp.exp(jnp.minimum(offsets, MAX_LOG_DISTANCE))
        else:
            distances = jax.nn.relu(offsets)
        if self.norm_on_bbox:
            distances = distances * priors[..., 2:3]
        return coding.decode_distances(priors[..., :2], distances)

    def assign(
        self,
        priors: Sequence[Any],
        ground_truth: jax.Array,
        valid: jax.Array,
        image_size: jax.Array,
    ) -> jax.Array:
        """FCOS (sec. 3.1, 3.2); as ``CenternessDetector.assign``."""
        del image_size
        bounds = tuple(self.regress_bounds) or tuple(
            REACH * stride for stride in self.level_sizes()[0][:-1]
        )
        limits = zip((0.0, *bounds), (*bounds, math.inf))
        reach = [jnp.broadcast_to(jnp.array(r), (len(p), 2)) for r, p in zip(limits, priors)]
        points = jnp.concatenate([jnp.asarray(level) for level in priors])
        return matching.fcos.assign(
            ground_truth,
            valid,
            points[:, :2],
            jnp.concatenate(reach),
            self.center_radius * points[:, 2] if self.center_radius else None,
        )
