"""What stands between a set of one's own and a detector, told before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jdet.analysis.scales import Scales
from jdet.data.objects import SetObjects, overlapping

INVISIBLE = 4.0
"""Size, pixels of the network's input, under which an object can hardly be learnt."""

WHOLE = 0.9
"""Relative size from which on an object is its image."""

NAMED = 5
"""Classes that a line names."""


def problems(
    train: SetObjects, evaluation: SetObjects, class_names: Sequence[str], scales: Scales
) -> list[str]:
    """Everything that the labels alone show.

    Args:
        train: objects that are trained on.
        evaluation: those that are evaluated on.
        class_names: K.
        scales: how large the network sees them.

    Returns:
        Lines, the worst first; empty where all is well.
    """
    return [
        *_sizes(train, scales),
        *_classes(train, evaluation, class_names),
        *_contradictions(train, class_names),
    ]


def _sizes(objects: SetObjects, scales: Scales) -> list[str]:
    if not len(objects.labels):
        return []
    lines = []
    shown = objects.relative * scales.side
    if scales.tile:
        shown = objects.sides * scales.side / scales.tile
    if (largest := float(shown.max())) < INVISIBLE:
        own = float(objects.sides.max())
        remedy = (
            "take images with more pixels: enlarged ones show no more"
            if own < INVISIBLE
            else "give a larger input (size= of the experiment) or tiles (tile=)"
        )
        lines.append(
            f"all {len(shown):,} objects are smaller than {INVISIBLE:g} pixels as the network sees them, "
            f"the largest {largest:.1f} (in its image {own:.1f}): hardly anything can be learnt; {remedy}"
        )
    if scales.tile and float(objects.sides.min()) > scales.tile:
        lines.append(
            f"all {len(shown):,} objects are larger than a tile of {scales.tile} pixels, the smallest "
            f"{objects.sides.min():.0f}: no tile shows one whole. Leave tile= out"
        )
    if float(objects.relative.min()) > WHOLE:
        lines.append(
            f"all {len(shown):,} objects fill their images (the smallest {objects.relative.min():.0%}): "
            "this teaches what images show, not where. Take images with something around the objects"
        )
    return lines


def _classes(train: SetObjects, evaluation: SetObjects, class_names: Sequence[str]) -> list[str]:
    ours, theirs = (
        np.bincount(objects.labels, minlength=len(class_names)) for objects in (train, evaluation)
    )
    lines = []
    if unseen := _named(class_names, (ours == 0) & (theirs > 0)):
        lines.append(
            f"no training image shows {unseen}, which evaluation images do: it cannot be learnt, and its "
            "AP is 0. Move some of its images into the training split"
        )
    if missing := _named(class_names, (theirs == 0) & (ours > 0)):
        lines.append(
            f"none of the {len(evaluation.counts):,} images for evaluation shows {missing}: how well it is "
            "found is not measured. Move some of its images there, or hold out more images: "
            "--config.data.holdout=3 for a third"
        )
    if absent := _named(class_names, (ours == 0) & (theirs == 0)):
        lines.append(f"no image shows {absent}")
    return lines


def _named(class_names: Sequence[str], chosen: np.ndarray) -> str:
    names = [class_names[label] for label in np.flatnonzero(chosen).tolist()]
    more = f" and {len(names) - NAMED} more" * (len(names) > NAMED)
    return ", ".join(names[:NAMED]) + more


def _contradictions(objects: SetObjects, class_names: Sequence[str]) -> list[str]:
    counts = np.bincount(objects.image, minlength=len(objects.counts))
    pairs, _ = overlapping(objects.boxes, counts)
    labels = np.sort(objects.labels[pairs], axis=1)
    labels = labels[labels[:, 0] != labels[:, 1]]
    if not len(labels):
        return []
    kinds, times = np.unique(labels, axis=0, return_counts=True)
    first, second = (class_names[label] for label in kinds[times.argmax()].tolist())
    share = 2 * len(labels) / len(objects.labels)
    return [
        f"{len(labels):,} pairs of boxes are around one object and say different classes, {share:.0%} of "
        f"the objects, most often {first} and {second} ({times.max():,}): what one teaches, the other "
        "takes back. Keep the right one of each pair; python -m jdet.doctor shows them"
    ]
