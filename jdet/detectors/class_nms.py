"""What detectors on pyramids share whose candidates are (box, class) pairs: padding, limits and NMS."""

from __future__ import annotations

from typing import ClassVar

import jax

from jdet.detectors.pyramid import PyramidDetector, check_choice
from jdet.ops import nms
from jdet.types import Detections


class ClassNMSDetector(PyramidDetector, kw_only=True):
    """A detector on a pyramid whose detections are what class-wise NMS leaves of its candidates.

    Attributes:
        score_threshold: lowest score of a detection.
        pre_nms: candidates that enter NMS.
        nms_iou: overlap above which the worse box of a class is dropped.
        soft_nms: "none"; "linear" or "gaussian": overlapping boxes lose score instead (``jdet.ops.nms``).
        soft_sigma: of "gaussian".
        max_detections: detections per image, D.
        max_per_class: detections of a class per image; 0: no limit of its own.
        min_side: shortest side of a detection, pixels of the network input; 0: any.
        mask_padding: keep padding out of the network, see ``jdet.nn.padding``; False: the network sees the
            padding, in the mean colour, as in the reference implementations (anchors centred there are
            excluded nevertheless).
        padded_inputs: images may be smaller than the network input; False if they are warped to it, so that
            there is no padding to mask.

    All others are those of ``PyramidDetector`` and ``Detector``.
    """

    score_threshold: float = 0.05
    pre_nms: int = 1000
    nms_iou: float = 0.5
    soft_nms: str = "none"
    soft_sigma: float = 0.5
    max_detections: int = 100
    max_per_class: int = 0
    min_side: float = 0.0
    mask_padding: bool = True
    mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    std: tuple[float, ...] = (58.395, 57.12, 57.375)
    padded_inputs: bool = True

    test_fields: ClassVar[tuple[str, ...]] = (
        "score_threshold",
        "nms_iou",
        "soft_nms",
        "soft_sigma",
        "pre_nms",
        "max_detections",
        "max_per_class",
        "min_side",
    )

    def __post_init__(self):
        super().__post_init__()
        check_choice(self, "soft_nms", nms.SOFT)

    @property
    def any_input_size(self) -> bool:
        """All layers slide over the image, or see RoIs of one size."""
        return True

    @property
    def knows_padding(self) -> bool:
        """Anchors in the padding are excluded, and boxes cut to the content."""
        return True

    def extra_stride(self, size: int, below: int) -> int:
        """Every level that the neck adds halves the one below, down to maps of one cell."""
        return 2

    def best_detections(
        self, corners: jax.Array, scores: jax.Array, labels: jax.Array
    ) -> Detections:
        """What NMS leaves of the candidates of one image.

        Args:
            corners: float32 [n, 4], x1 y1 x2 y2, pixels.
            scores: float32 [n]; 0: no candidate.
            labels: int32 [n], 0 … K-1.
        """
        return nms.candidates_nms(
            corners,
            nms.at_least(corners, scores, self.min_side),
            labels,
            iou_threshold=self.nms_iou,
            keep=self.max_detections,
            soft=self.soft_nms,
            sigma=self.soft_sigma,
            min_score=self.score_threshold,
            keep_per_class=self.max_per_class,
        )
