"""RepPointsV2 (Chen et al. 2020, "RepPoints V2: Verification Meets Regression for Object Detection")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jdet.detectors.dense_detector import DenseDetector, quality_targets
from jdet.detectors.pyramid import Predictions, check_choice
from jdet.detectors.reppoints_head import RepPointsHead
from jdet.ops import anchors, boxes, losses, matching
from jdet.ops.corner_targets import class_maps, corner_targets, heat_radius
from jdet.ops.matching.points import PointGrid
from jdet.types import ClassLayer, HeadLayout, Mean

CLS_LOSSES, BOX_LOSSES = ("focal", "quality"), ("smooth_l1", "giou")

SCALE = 4
"""Strides of the level by which boxes are divided before they are compared."""

CORNER_BETA = 1 / 9
"""Where the smooth L1 loss of a corner's offset turns linear, strides."""


class RepPointsV2(DenseDetector):
    """Detector with nine points per object, found twice, and with the corners of objects beside them.

    The first two of the points are the top left and the bottom right corner of the box; the others are
    where classes and refined points are read. First points are learned at the one place nearest to an
    object's centre (``matching.points``), refined points and classes where ATSS assigns the boxes of the
    first points to objects. In addition, every level learns heat maps and offsets of all corners, and which
    classes each cell shows. Losses are divided by the number of positives of their own assignment, over all
    images and by at least 1. (The authors' code counts an image without positives as one, and of objects
    that share a peak takes any one's offset.)

    The defaults are those of the publication with ResNet-50, which has ``extra="conv_c5"`` and norms in the
    neck and ``head_norm="group"``. ``swin_reppoints_v2`` of the table of names is the flavour of the Swin
    Transformer's authors, which has ``bifpn`` as its neck: classes learn the IoU of the refined box, and
    boxes by GIoU.

    At testing, a box of any level but the finest moves each of its corners to the cell with the best heat
    of the four around it, on the finest level or, from the fourth level on, the second one.

    Attributes:
        corner_channels: of the maps that corner pooling sees.
        points_gradient: share of the gradient from classes and refinement that reaches the first points.
        cls_loss: "focal"; "quality": the quality focal loss, with the IoU of the refined box as target.
        quality_beta: its exponent.
        box_loss: "smooth_l1" of the corners or "giou", both of boxes over four strides of their level.
        smooth_l1_beta: of "smooth_l1".
        giou_extent: added to widths and heights for "giou": 1 in the Swin Transformer's code, which keeps
            the old convention for pixels though boxes are in units of four strides; 0: none.
        initial_weight: of the box loss of the first points; ``box_weight`` is that of the refined ones.
        heat_weight: of the heat maps.
        corner_weight: of the offsets of corners.
        semantic_weight: of the maps of classes.
        topk: number of nearest boxes per level that are candidates of an object; all, if there are fewer.
        refine_corners: boxes are moved to corners at testing.

    All others are those of ``DenseDetector``.
    """

    head_depth: int = 3
    nms_iou: float = 0.6
    corner_channels: int = 64
    points_gradient: float = 0.1
    cls_loss: str = "focal"
    quality_beta: float = 2.0
    box_loss: str = "smooth_l1"
    smooth_l1_beta: float = 0.11
    giou_extent: float = 0.0
    initial_weight: float = 0.5
    heat_weight: float = 0.25
    corner_weight: float = 1.0
    semantic_weight: float = 0.1
    topk: int = 9
    refine_corners: bool = True

    test_fields: ClassVar[tuple[str, ...]] = (*DenseDetector.test_fields, "refine_corners")

    def __post_init__(self):
        super().__post_init__()
        check_choice(self, "cls_loss", CLS_LOSSES)
        check_choice(self, "box_loss", BOX_LOSSES)

    def make_head(self, **fields: Any) -> RepPointsHead:
        """Builds the head from the fields that all detectors have."""
        del fields["boxes_per_location"]
        return RepPointsHead(
            **fields, corner_channels=self.corner_channels, points_gradient=self.points_gradient
        )

    def head_layout(self) -> HeadLayout:
        """Class layers and box layers, for starting from another run."""
        references = {"steps of points": tuple(level.step for level in self.anchor_levels())}
        classes = (ClassLayer(r"head/cls/.*"), ClassLayer(r"head/semantic/.*"))
        points = r"head/(initial|refined)/.*|head/(tl|br)_offset/.*"
        return HeadLayout(classes, points, references, (r"head/(tl|br)_heat/.*",))

    def anchor_levels(self) -> tuple[anchors.AnchorLevel, ...]:
        """The points, as centres of squares of one cell; one entry per level."""
        strides = self.level_sizes()[0]
        return tuple(anchors.AnchorLevel((float(stride),), (1.0,), stride) for stride in strides)

    def corners(self, offsets: jax.Array, priors: jax.Array) -> jax.Array:
        """Boxes [..., 4], x1 y1 x2 y2 in pixels, of points [..., 18] from the grid at priors [..., 4]."""
        places = jnp.stack([offsets[..., i] for i in (1, 0, 3, 2)], axis=-1)
        centres = jnp.concatenate([priors[..., :2], priors[..., :2]], axis=-1)
        return places * priors[..., 2:3] + centres

    def loss_terms(
        self,
        found: Predictions,
        ground_truth: jax.Array,
        labels: jax.Array,
        valid: jax.Array,
        image_sizes: jax.Array,
        ignored: jax.Array | None = None,
    ) -> dict[str, Mean]:
        """All assignments and losses; as ``DenseDetector.loss_terms``.

        Returns:
            "initial" and "loc" (boxes of first and refined points), "cls", "tl_heat", "br_heat",
            "tl_offset", "br_offset" (corners), "semantic" (cells of the classes shown) and
            "semantic_background" (others).
        """
        outputs, priors = found.joined()
        flat = jnp.asarray(priors)
        within = self.taking_part(flat, image_sizes, ground_truth, ignored)
        grids = point_grids(found.priors)
        ends = np.cumsum([len(level) for level in found.priors])[:-1]

        def one_image(outputs, ground_truth, labels, valid, within, image_size):
            initial = self.corners(outputs["initial"], flat)
            refined = self.corners(outputs["offsets"], flat)
            first = matching.points.assign(ground_truth, valid, grids, image_size)
            first = jnp.where(within, first, matching.BELOW)
            second = matching.atss.assign_boxes(
                ground_truth, valid, jnp.split(initial, ends), jnp.split(within, ends), self.topk
            )
            cls = self._classes(outputs["logits"], refined, second, ground_truth, labels)
            shown = class_maps(ground_truth, labels, valid, grids, self.num_classes).T
            loc, count = self._boxes(refined, second, ground_truth, flat)
            sums = {
                "initial": self._boxes(initial, first, ground_truth, flat),
                "loc": (loc, count),
                "cls": (jnp.sum(jnp.where(within, cls, 0.0)), count),
                **self._corners(outputs, ground_truth, valid, within, grids, image_size),
                **self._semantic(outputs["semantic"], shown, within),
            }
            return sums, second >= 0

        arrays = (outputs, ground_truth, labels, valid, within, image_sizes)
        sums, positive = jax.vmap(one_image)(*arrays)
        self.count_places(positive, within, within)
        weights = {
            "initial": self.initial_weight,
            "loc": self.box_weight,
            "cls": 1.0,
            **dict.fromkeys(("tl_heat", "br_heat"), self.heat_weight / 2),
            **dict.fromkeys(("tl_offset", "br_offset"), self.corner_weight / 2),
            **dict.fromkeys(("semantic", "semantic_background"), self.semantic_weight),
        }
        return {
            name: Mean(weights[name] * jnp.sum(total), jnp.sum(weight))
            for name, (total, weight) in sums.items()
        }

    def _boxes(self, predicted, match, ground_truth, priors):
        """Sum of the box loss of the positives among boxes [A, 4], and their number."""
        positive = (match >= 0)[:, None]
        # Elsewhere a cell predicts itself: what is masked must be finite for its gradient to be.
        cells = boxes.cxcywh_to_xyxy(priors)
        target = jnp.where(positive, ground_truth[jnp.maximum(match, 0)], cells)
        predicted = jnp.where(positive, predicted, cells)
        unit = SCALE * priors[:, 2:3]
        if self.box_loss == "giou":
            loss = losses.iou_loss(predicted / unit, target / unit, extent=self.giou_extent)
        else:
            loss = losses.smooth_l1(predicted / unit, target / unit, self.smooth_l1_beta)
            loss = jnp.sum(loss, axis=-1)
        loss = jnp.where(positive[:, 0], loss, 0.0)
        return jnp.sum(loss), jnp.sum(positive, dtype=jnp.float32)

    def _classes(self, logits, refined, match, ground_truth, labels):
        """Classification loss of every place, float32 [A], for logits [A, K] and boxes [A, 4]."""
        positive, of_place = match >= 0, jnp.maximum(match, 0)
        label = jnp.where(positive, labels[of_place], -1)
        if self.cls_loss == "focal":
            return self.focal_loss(logits, label)
        refined = jax.lax.stop_gradient(jnp.where(positive[:, None], refined, 0.0))
        quality = boxes.paired_iou(refined, ground_truth[of_place])
        targets = quality_targets(label, quality, logits.shape[-1])
        loss = losses.quality_focal_loss(logits, targets, self.quality_beta)
        return self.weighted(jnp.sum(loss, axis=-1), label)

    def _corners(self, outputs, ground_truth, valid, within, grids, image_size):
        """Sums of the losses of heat maps and offsets, each with the number of peaks."""
        radius, found = heat_radius(ground_truth[:, 2:] - ground_truth[:, :2]), {}
        for i, corner in enumerate(("tl", "br")):
            pair = slice(2 * i, 2 * i + 2)
            targets = corner_targets(ground_truth[:, pair], radius, valid, grids, image_size)
            peaks = targets.peaks & within
            heat = losses.gaussian_focal_loss(outputs["heat"][:, i], targets.heat)
            offset = losses.smooth_l1(outputs["corners"][:, pair], targets.offsets, CORNER_BETA)
            count = jnp.sum(peaks, dtype=jnp.float32)
            found[f"{corner}_heat"] = (jnp.sum(jnp.where(within, heat, 0.0)), count)
            found[f"{corner}_offset"] = (jnp.sum(jnp.where(peaks[:, None], offset, 0.0)), count)
        return found

    def _semantic(self, logits, shown, within):
        """Sums of the focal loss of cells [A, K] that show a class, by its weight, and of all others."""
        shown = jnp.where(within[:, None], shown, 0.0)
        loss = losses.sigmoid_focal_loss(logits, shown > 0, self.focal_alpha, self.focal_gamma)
        other = jnp.where(within[:, None] & (shown == 0), loss, 0.0)
        return {
            "semantic": (jnp.sum(loss * shown), jnp.sum(shown)),
            "semantic_background": (jnp.sum(other), jnp.sum(shown > 0, dtype=jnp.float32)),
        }

    def adjusted(
        self,
        corners: jax.Array,
        number: int,
        outputs: dict[str, list[jax.Array]],
        priors: list[np.ndarray],
        image_size: jax.Array,
    ) -> jax.Array:
        """Boxes whose corners have moved to those that the heat maps show (sec. 3.4)."""
        if self.refine_corners and number:
            level = 0 if number < 3 else 1
            heat, offsets = outputs["heat"][level], outputs["corners"][level]
            corners = snapped(corners, heat, offsets, point_grids(priors)[level], image_size)
        # Points can have changed sides.
        low, high = corners[:, :2], corners[:, 2:]
        return jnp.concatenate([jnp.minimum(low, high), jnp.maximum(low, high)], axis=1)


def point_grids(priors: Sequence[np.ndarray]) -> list[PointGrid]:
    """The grids of points of all levels, of priors [A, 4] in rows."""
    return [
        PointGrid(len(np.unique(level[:, 1])), len(np.unique(level[:, 0])), float(level[0, 2]))
        for level in priors
        if len(level)
    ]


def snapped(
    corners: jax.Array,
    heat: jax.Array,
    offsets: jax.Array,
    grid: PointGrid,
    image_size: jax.Array,
) -> jax.Array:
    """Moves both corners of boxes to the best of the 2 × 2 points of a level around each.

    Args:
        corners: float32 [n, 4], x1 y1 x2 y2, pixels; those outside count as on the edge.
        heat: [A, 2], logits of top left and bottom right corners.
        offsets: [A, 4], from the points to such corners, x y of either in strides.
        grid: of the level.
        image_size: [2], height and width of the content; points beside it are not taken.

    Returns:
        float32 [n, 4].
    """
    size = jnp.array([grid.columns, grid.rows])
    last = jnp.minimum(jnp.ceil(image_size[::-1] / grid.stride), size).astype(jnp.int32) - 1
    moved = []
    for i in range(2):
        pair = slice(2 * i, 2 * i + 2)
        first = jnp.clip(jnp.floor(corners[:, pair] / grid.stride), 0, jnp.maximum(last - 1, 0))
        steps = jnp.array([[0, 0], [1, 0], [0, 1], [1, 1]])
        around = first.astype(jnp.int32)[:, None] + steps  # [n, 4, 2], x y, row by row
        there = jnp.all(around <= last, axis=-1)
        around = jnp.minimum(around, size - 1)
        index = around[..., 1] * grid.columns + around[..., 0]
        best = jnp.argmax(jnp.where(there, heat[index, i], -jnp.inf), axis=1)[:, None]
        cell = jnp.take_along_axis(around, best[..., None], axis=1)[:, 0]
        index = jnp.take_along_axis(index, best, axis=1)[:, 0]
        moved.append((cell + offsets[index, pair]) * grid.stride)
    return jnp.concatenate(moved, axis=1)
