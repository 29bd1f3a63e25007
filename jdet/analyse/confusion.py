"""The confusion matrix with a background, at a score threshold.

hotcoco has one, but counts detections inside crowds, which COCO's protocol ignores, as false.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jdet.analyse.match import match
from jdet.analyse.scored import ScoredImage


def confusion(
    images: Sequence[ScoredImage], class_names: Sequence[str], score: float
) -> dict[str, Any]:
    """What was found in the place of each object.

    Detections take objects of any class, best first, at an IoU of 0.50 or more. Those in an ignored
    object of their class count as nothing.

    Args:
        images: of the set.
        class_names: K names.
        score: lowest score of a detection that counts.

    Returns:
        As ``Analysis.confusion``; the matrix has K + 1 rows and columns.
    """
    background = len(class_names)
    side = background + 1
    counts = np.zeros(side * side, int)
    for image in images:
        found = image.found.select(np.asarray(image.found.scores, float) >= score)
        one = match(found, image.ground_truth, any_class=True)
        labels, right, objects = np.asarray(found.labels), one.right[0], one.objects[0]
        missed = ~image.ground_truth.ignore
        missed[objects[right]] = False
        for true, predicted in (
            (image.ground_truth.labels[objects[right]], labels[right]),
            (background, labels[~right & ~one.neither[0]]),
            (image.ground_truth.labels[missed], background),
        ):
            counts += np.bincount(np.atleast_1d(true * side + predicted), minlength=side * side)
    return {
        "labels": [*class_names, "background"],
        "score": score,
        "matrix": counts.reshape(side, side).tolist(),
    }
