"""What hotcoco computes of an evaluation: AP by class, size and part, curves, TIDE, calibration.

It agrees with pycocotools (AP) and with tidecv (TIDE) to the last digits, and the tests hold it to that
(tidecv takes equal scores in another order and rounds its recalls otherwise: a tenth of a point at most on
30 images).
Not taken from it: its confusion matrix counts detections inside crowds as false
(``jdet.analyse.confusion``), its diagnostics of images count detections of any score, and its bootstrap
has no intervals per class and takes half a second per sample of 1,000 images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import hotcoco
import numpy as np

from jdet.analyse.records import ERRORS, SIZES, number
from jdet.analyse.scored import ScoredImage
from jdet.evaluation.official import exact_xywh

BINS = 10
"""Of the calibration."""

_TIDE = dict(zip(ERRORS, ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss"), strict=True))


class CocoEvaluation:
    """One evaluation of boxes by COCO's protocol, done.

    Attributes:
        precision: float64 [10 IoUs, 101 recalls, K, 4 sizes], -1 where there is no ground truth.
        scores: the same, the score at which each recall is reached.
        recalls: float64 [101].
    """

    def __init__(self, images: Sequence[ScoredImage], class_names: Sequence[str]):
        """Evaluates.

        Args:
            images: in official order.
            class_names: K names.
        """
        self._classes = tuple(class_names)
        self._objects = sum(int((~image.ground_truth.ignore).sum()) for image in images)
        scores = [np.asarray(image.found.scores, float) for image in images]
        self._probabilities = all(((one >= 0) & (one <= 1)).all() for one in scores)
        objects, found = _ground_truth(images, class_names), _detections(images)
        ground_truth = hotcoco.COCO(objects)
        kind = (
            ground_truth.load_res(found)
            if len(found)
            else hotcoco.COCO({**objects, "annotations": []})
        )
        self._eval = hotcoco.COCOeval(ground_truth, kind, "bbox")
        self._eval.evaluate()
        self._eval.accumulate()
        held: Any = self._eval.eval
        self.precision, self.scores = (
            np.asarray(held[name])[..., -1] for name in ("precision", "scores")
        )
        self.recalls = np.asarray(self._eval.params.recThrs, float)

    def ap(self, label: int | None = None, size: int = 0, iou: int | None = None) -> float | None:
        """AP of a class (None: mean of all) and size (0: all, then ``SIZES``), at one of the ten IoUs."""
        part = self.precision[..., size]
        part = part if label is None else part[:, :, label]
        part = part if iou is None else part[iou]
        defined = part[part > -1]
        return number(defined.mean()) if defined.size else None

    def by_size(self, images: Sequence[ScoredImage]) -> dict[str, dict[str, Any]]:
        """Objects, AP and AP50 of small, medium and large objects."""
        areas = np.concatenate(
            [np.zeros(0), *(one.ground_truth.areas[~one.ground_truth.ignore] for one in images)]
        )
        ranges = list(self._eval.params.areaRng)[1:]
        return {
            name: {
                "objects": int(((areas >= low) & (areas <= high)).sum()),
                "ap": self.ap(size=size),
                "ap50": self.ap(size=size, iou=0),
            }
            for size, (name, (low, high)) in enumerate(zip(SIZES, ranges, strict=True), 1)
        }

    def curves(self) -> dict[str, dict[str, list[float]]]:
        """Precision over recall at IoU 0.50 of every class with objects, as far as it is recalled."""
        found = {}
        for label, name in enumerate(self._classes):
            precision, scores = self.precision[0, :, label, 0], self.scores[0, :, label, 0]
            if precision[0] < 0:
                continue
            reached = precision > 0
            found[name] = {
                "recall": self.recalls[reached].tolist(),
                "precision": precision[reached].tolist(),
                "score": scores[reached].tolist(),
            }
        return found

    def tide(self) -> dict[str, float] | None:
        """By error type, how much AP50 would rise without it; None without objects."""
        if not self._objects:
            return None
        rise = self._eval.tide_errors(pos_thr=0.5, bg_thr=0.1)["delta_ap"]
        return {name: float(rise[key]) for name, key in _TIDE.items()}

    def calibration(self) -> dict[str, Any] | None:
        """Reliability bins of equal width and the expected calibration error.

        None without objects, and where a score is outside of 0 … 1: such scores are no probabilities.
        """
        if not self._objects or not self._probabilities:
            return None
        held = self._eval.calibration(n_bins=BINS, iou_threshold=0.5)
        return {
            "bins": [
                {
                    "low": one["bin_lower"],
                    "high": one["bin_upper"],
                    "score": one["avg_confidence"] if one["count"] else None,
                    "precision": one["avg_accuracy"] if one["count"] else None,
                    "count": one["count"],
                }
                for one in held["bins"]
            ],
            "ece": held["ece"],
        }

    def slices(
        self, images: Sequence[ScoredImage], parts: Mapping[str, Sequence[int]]
    ) -> list[dict[str, Any]]:
        """AP and AP50 of parts of the set.

        Args:
            images: as they were given.
            parts: by name, indices of images.
        """
        if not parts:
            return []
        # By numbers, for hotcoco keeps some names to itself.
        numbered = {str(n): [i + 1 for i in rows] for n, rows in enumerate(parts.values())}
        held = self._eval.slice_by(numbered)
        return [
            {
                "name": name,
                "images": len(rows),
                "objects": sum(int((~images[i].ground_truth.ignore).sum()) for i in rows),
                "ap": number(held[str(n)]["AP"]),
                "ap50": number(held[str(n)]["AP50"]),
            }
            for n, (name, rows) in enumerate(parts.items())
        ]


def _ground_truth(images: Sequence[ScoredImage], class_names: Sequence[str]) -> dict[str, Any]:
    """The objects as COCO's annotation files have them, images and annotations numbered from 1."""
    rows = (
        (i, one.ground_truth, row)
        for i, one in enumerate(images, 1)
        for row in range(len(one.ground_truth.labels))
    )
    return {
        "images": [{"id": i} for i in range(1, len(images) + 1)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(class_names, 1)],
        "annotations": [
            {
                "id": number,
                "image_id": i,
                "category_id": int(ground_truth.labels[row]) + 1,
                "bbox": ground_truth.xywh[row].tolist(),
                "area": float(ground_truth.areas[row]),
                "iscrowd": int(ground_truth.ignore[row]),
            }
            for number, (i, ground_truth, row) in enumerate(rows, 1)
        ],
    }


def _detections(images: Sequence[ScoredImage]) -> np.ndarray:
    """Rows of image, x, y, width, height, score and class, as ``COCO.load_res`` takes them."""
    return np.concatenate(
        [
            np.zeros((0, 7)),
            *(
                np.column_stack(
                    [
                        np.full(len(one.found.scores), i),
                        exact_xywh(one.found.boxes).reshape(-1, 4),
                        np.asarray(one.found.scores, float),
                        np.asarray(one.found.labels) + 1,
                    ]
                )
                for i, one in enumerate(images, 1)
            ),
        ]
    )
