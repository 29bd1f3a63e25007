"""The images of an evaluation as the analysis takes them: what was found in each, and what is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jdet.analyse.match import Matches, match
from jdet.evaluation.official import finite, official_of
from jdet.types import Example, ImageDetections, OfficialObjects


class ScoredImage(NamedTuple):
    """One image of an evaluation.

    Attributes:
        id: its id in ``images.json``.
        name: its name in the source (``Example.id``).
        file: path of the image, several joined by " + ", or the name where there is no file.
        place: as ``jdet.evaluation.official.official_order`` takes it.
        found: finite detections, in original pixels.
        ground_truth: the objects as labelled.
    """

    id: int | str
    name: str
    file: str
    place: tuple[int | None, str]
    found: ImageDetections
    ground_truth: OfficialObjects

    @classmethod
    def of(cls, found: ImageDetections, example: Example, id: int | str) -> ScoredImage:
        """From what an evaluator gets."""
        ground_truth, image = official_of(example), example.image
        file = image if isinstance(image, str) else example.id
        return cls(
            id=id,
            name=example.id,
            file=" + ".join(image) if isinstance(image, tuple) else file,
            place=(None if example.official is None else ground_truth.rank, example.id),
            found=finite(found),
            ground_truth=ground_truth,
        )


class Outcomes(NamedTuple):
    """All detections of a set, best first, with what became of each at one overlap.

    Of equal scores, those of the image that comes first stand first. Detections that count neither way are
    not among them.

    Attributes:
        scores: float64 [D].
        labels: int [D].
        images: int [D], index of the image.
        right: bool [D].
        objects: int [n, K], countable objects of every image by class.
    """

    scores: np.ndarray
    labels: np.ndarray
    images: np.ndarray
    right: np.ndarray
    objects: np.ndarray

    def of_class(self, label: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Scores and ``right`` of a class, and how many objects there were to find."""
        rows = self.labels == label
        return self.scores[rows], self.right[rows], int(self.objects[:, label].sum())


def outcomes(
    images: Sequence[ScoredImage],
    classes: int,
    matches: Sequence[Matches] | None = None,
    at: int = 0,
) -> Outcomes:
    """Flattens a set.

    Args:
        images: in official order.
        classes: K.
        matches: of each image; None: at IoU 0.50.
        at: index of the overlap.
    """
    if matches is None:
        matches = [match(image.found, image.ground_truth) for image in images]
    objects = np.zeros((len(images), classes), int)
    for row, image in enumerate(images):
        np.add.at(objects[row], image.ground_truth.labels[~image.ground_truth.ignore], 1)
    kept = [~one.neither[at] for one in matches]
    pairs = list(zip(images, kept, strict=True))
    scores = _joined([np.asarray(one.found.scores, float)[keep] for one, keep in pairs], float)
    order = np.argsort(-scores, kind="stable")
    labels = _joined([np.asarray(one.found.labels)[keep] for one, keep in pairs], int)
    right = _joined([one.right[at][keep] for one, keep in zip(matches, kept, strict=True)], bool)
    owner = np.repeat(np.arange(len(images)), [int(keep.sum()) for keep in kept])
    return Outcomes(
        scores=scores[order],
        labels=labels[order],
        images=owner[order],
        right=right[order],
        objects=objects,
    )


def _joined(parts: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *parts])
