"""How often classes occur in a training set, and what follows from it: repeat factors and class weights.

Objects with ``ignore`` (difficult, crowd) do not count.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from jdet.types import DataError, Source

WEIGHTINGS = ("none", "given", "inverse_frequency", "effective_number")
"""Values of ``train.class_weights.by``."""


class Occurrence(NamedTuple):
    """Classes of a set.

    Attributes:
        objects: int64 [K], objects of each class.
        images: int64 [K], images that show the class.
        shown: for every image the classes that it shows, each once, int.
    """

    objects: np.ndarray
    images: np.ndarray
    shown: tuple[np.ndarray, ...]


def occurrence(source: Source) -> Occurrence:
    """Counts objects and images by class; images whose labels cannot be read show none.

    A source that has an attribute ``occurrence`` is not read.
    """
    if (known := getattr(source, "occurrence", None)) is not None:
        return known
    count = len(source.class_names)
    objects, images = np.zeros(count, np.int64), np.zeros(count, np.int64)
    shown = []
    for index in range(len(source)):
        try:
            example = source[index]
        except DataError:  # told, or refused, by whoever reads images
            shown.append(np.zeros(0, np.int64))
            continue
        labels = example.labels[~np.asarray(example.ignore, bool)]
        objects += np.bincount(labels, minlength=count)
        shown.append(np.unique(labels))
        images[shown[-1]] += 1
    return Occurrence(objects, images, tuple(shown))


def class_factors(found: Occurrence, threshold: float) -> np.ndarray:
    """Repeat factors of the classes (Gupta et al. 2019, LVIS, sec. 5.1): ``max(1, sqrt(t / f))``.

    With t = 0.1, a class in 1 of 1,000 images has the factor 10, one in 25 of 1,000 has 2, and all in 100
    images or more have 1.

    Args:
        found: of the training set.
        threshold: t, the share of images from which on a class is not repeated.

    Returns:
        float64 [K]; 1 for classes that no image shows.
    """
    share = found.images / max(len(found.shown), 1)
    return np.maximum(1.0, np.sqrt(threshold / np.where(share > 0, share, threshold)))


def image_factors(found: Occurrence, threshold: float) -> np.ndarray:
    """Repeat factors of the images, float64 [n]: the largest of the classes shown, 1 without objects."""
    of_class = class_factors(found, threshold)
    return np.array([max(of_class[shown], default=1.0) for shown in found.shown])


def repeats_of(source: Source) -> np.ndarray | None:
    """How often each image comes in an epoch on average, float64 [n]; None: once."""
    return getattr(source, "repeat_factors", None)


def epoch_length(source: Source) -> int:
    """Images that an epoch of training has."""
    repeats = repeats_of(source)
    return len(source) if repeats is None else whole(float(np.sum(repeats)))


def whole(total: float) -> int:
    """The number of images that factors with this sum become, the next whole number."""
    return math.ceil(total - 1e-6)


def whole_parts(totals: np.ndarray) -> list[int]:
    """Sums of factors by group, each rounded down or up, so that all together are ``whole`` of their sum.

    Those with the largest fractions are rounded up.
    """
    parts = np.floor(totals + 1e-6).astype(int)
    fractions = np.round(totals - parts, 6)
    short = whole(float(np.sum(totals))) - int(parts.sum())
    parts[np.argsort(-fractions, kind="stable")[:short]] += 1
    return parts.tolist()


def draw_copies(rng: np.random.Generator, factors: np.ndarray, count: int) -> np.ndarray:
    """How often each image comes in one epoch: its factor rounded down or up, up by its fraction.

    Systematic sampling over the images in random order: the expectation of an image is its factor, within
    the rounding of the sum.

    Args:
        rng: of the epoch.
        factors: float64 [n], above 0.
        count: sum of the copies, in every epoch: the sum of the factors rounded down or up.

    Returns:
        int64 [n].
    """
    order = rng.permutation(len(factors))
    mixed = factors[order]
    total = float(factors.sum())
    # Where the sum is rounded down, fractions alone give way: no image with a factor of 1 is left out.
    sure = np.floor(mixed) if count < total else np.zeros(len(mixed))
    stretch = (count - sure.sum()) / (total - sure.sum())
    ends = np.cumsum(sure + (mixed - sure) * stretch)
    ends[-1] = count
    marks = np.floor(np.concatenate([[0.0], ends]) + rng.random()).astype(np.int64)
    copies = np.zeros(len(factors), np.int64)
    copies[order] = np.diff(marks)
    return copies


def class_weights(objects: Any, by: str, beta: float = 0.999) -> tuple[float, ...]:
    """Weights of classes in the loss, whose mean over the objects of the set is 1.

    So positives as a whole weigh as much against the background as without weights. (Cui et al. divide
    by the mean over classes instead: with one frequent class that would all but remove its positives.)

    Args:
        objects: [K], objects of each class in the training set.
        by: "inverse_frequency": 1 / n of a class with n objects; "effective_number":
            (1 - beta) / (1 - beta^n) (Cui et al. 2019, eq. 2).
        beta: of "effective_number"; 0: no weights, towards 1: inverse frequency.

    Returns:
        K floats; 1 for classes without objects.
    """
    count = np.asarray(objects, float)
    there = np.maximum(count, 1)
    if by == "inverse_frequency":
        raw = 1 / there
    else:
        raw = (1 - beta) / -np.expm1(there * np.log(beta)) if beta else np.ones_like(there)
    mean = np.sum(raw * count) / max(count.sum(), 1)
    weights = np.where(count > 0, raw / mean if mean else 1.0, 1.0)
    return tuple(float(f"{weight:.6g}") for weight in weights)
