"""Average precision of sets drawn again from the evaluated images, for all classes and overlaps at once.

A bootstrap draws as many images as there are, with replacement; here an image drawn twice weighs two. Two
runs are compared on the same draws (paired), so that what is hard for both cancels out. Precision is needed
only where an object is found, and all detections up to there enter by one sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jdet.analyse.match import match
from jdet.analyse.scored import ScoredImage

IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
AT_ONCE = 50
"""Draws that are computed together; bounds the memory."""


class Ranked(NamedTuple):
    """The detections of a class, best first.

    Attributes:
        images: int [d], index of the image of each.
        hits: for each overlap, int indices of the detections that are right.
        passed: for each overlap, int indices of those that count neither way.
        objects: int [n], objects of every image.
    """

    images: np.ndarray
    hits: tuple[np.ndarray, ...]
    passed: tuple[np.ndarray, ...]
    objects: np.ndarray


def rank(images: Sequence[ScoredImage], classes: int) -> list[Ranked]:
    """Matches the images and ranks the detections of each class.

    Args:
        images: in official order.
        classes: K.
    """
    matches = [match(image.found, image.ground_truth, IOUS.tolist()) for image in images]
    owner = np.repeat(np.arange(len(images)), [len(image.found.scores) for image in images])
    scores = np.concatenate([np.zeros(0), *(np.asarray(i.found.scores, float) for i in images)])
    labels = np.concatenate([np.zeros(0, int), *(np.asarray(i.found.labels) for i in images)])
    nothing = np.zeros((len(IOUS), 0), bool)
    right = np.concatenate([nothing, *(one.right for one in matches)], axis=1)
    neither = np.concatenate([nothing, *(one.neither for one in matches)], axis=1)
    objects = np.zeros((len(images), classes), int)
    for row, image in enumerate(images):
        counted = image.ground_truth.labels[~image.ground_truth.ignore]
        objects[row] = np.bincount(counted, minlength=classes)
    ranked = []
    for label in range(classes):
        rows = np.flatnonzero(labels == label)
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        found = np.flatnonzero(right[:, rows].any(0))
        rows = rows[: found[-1] + 1] if len(found) else rows[:0]  # nothing counts after the last
        ranked.append(
            Ranked(
                images=owner[rows],
                hits=tuple(np.flatnonzero(one) for one in right[:, rows]),
                passed=tuple(np.flatnonzero(one) for one in neither[:, rows]),
                objects=objects[:, label],
            )
        )
    return ranked


def average_precisions(ranked: Sequence[Ranked], weights: np.ndarray) -> np.ndarray:
    """AP of every class at every overlap, of sets in which images have weights.

    Args:
        ranked: of K classes.
        weights: int [S, n], how often each image is in each of S sets.

    Returns:
        float64 [S, K, 10]; nan where a set has no object of a class.
    """
    found = np.full((len(weights), len(ranked), len(IOUS)), np.nan)
    for start in range(0, len(weights), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        for label, one in enumerate(ranked):
            found[part, label] = _of_class(one, weights[part].astype(float))
    return found


def mean_curve(ranked: Sequence[Ranked]) -> list[float]:
    """Precision at ``RECALLS`` and IoU 0.50, mean of the classes that have objects; empty without any."""
    once = [
        _at_recalls(one, np.ones((1, len(one.objects))), 0)[0]
        for one in ranked
        if one.objects.any()
    ]
    return np.mean(once, axis=0).tolist() if once else []


def _of_class(one: Ranked, weights: np.ndarray) -> np.ndarray:
    """AP of a class at every overlap, float64 [S, 10]."""
    each = weights[:, one.images]  # [S, d]
    before = np.cumsum(each, axis=1)
    found = np.stack(
        [_at_recalls(one, weights, at, each, before).mean(1) for at in range(len(IOUS))], axis=1
    )
    found[weights @ one.objects == 0] = np.nan
    return found


def _at_recalls(
    one: Ranked,
    weights: np.ndarray,
    at: int,
    each: np.ndarray | None = None,
    before: np.ndarray | None = None,
) -> np.ndarray:
    """The best precision at each of ``RECALLS`` or above, float64 [S, 101].

    Args:
        one: detections of a class.
        weights: float64 [S, n], of the images in each of S sets.
        at: index of the overlap.
        each: float64 [S, d], weight of each detection; None: made here.
        before: float64 [S, d], their sums up to each detection.
    """
    hits, passed = one.hits[at], one.passed[at]
    sets = len(weights)
    if not len(hits):
        return np.zeros((sets, len(RECALLS)))
    each = weights[:, one.images] if each is None else each
    before = np.cumsum(each, axis=1) if before is None else before
    right, counted = np.cumsum(each[:, hits], axis=1), before[:, hits]
    if len(passed):
        aside = np.cumsum(each[:, passed], axis=1)
        place = np.searchsorted(passed, hits)  # how many of those come before each hit
        counted = counted - np.pad(aside, ((0, 0), (1, 0)))[:, place]
    precision = np.divide(right, counted, out=np.zeros_like(right), where=counted > 0)
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = right / np.maximum(weights @ one.objects, 1)[:, None]
    # The sets one after the other make one sorted list, for one search.
    offset = 2.0 * np.arange(sets)[:, None]
    reached = np.searchsorted((recall + offset).ravel(), (RECALLS + offset).ravel())
    column = reached.reshape(sets, -1) - len(hits) * np.arange(sets)[:, None]
    return np.take_along_axis(np.pad(precision, ((0, 0), (0, 1))), column, axis=1)


def draws(images: int, samples: int, seed: int) -> np.ndarray:
    """How often each image is drawn in each sample, int32 [samples, images]."""
    rng = np.random.default_rng(seed)
    weights = np.zeros((samples, images), np.int32)
    for row in weights:
        row += np.bincount(rng.integers(0, images, images), minlength=images).astype(np.int32)
    return weights
