"""What is wrong, or odd, with the boxes of a set, by its label files alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jdet.data.objects import SAME, overlapping
from jdet.doctor.findings import Case, Finding, Place, plural, share
from jdet.doctor.splits import Split

BORDER = 0.5
"""Pixels within which a box ends at the border of its image."""

_MANY_AT_BORDER, _WHOLE, _WHOLE_SHARE = 0.2, 0.98, 0.02
_FEW, _USUAL = 0.25, 8
_THIN = 2.0
"""Side, pixels of the original image, under which a box is hardly an object."""


class _Kind(NamedTuple):
    severity: str
    what: str
    consequence: str
    remedy: str


DEFECTS = {
    "skipped": _Kind(
        "error",
        "images left out, as they or their label files cannot be used",
        "They are neither trained on nor evaluated.",
        "Mend or remove these files; --config.data.on_error=skip goes on without them.",
    ),
    "empty": _Kind(
        "warning",
        "boxes without area",
        "They are dropped: their objects count as background in training, and as missed in official "
        "numbers.",
        "Draw these boxes anew, or delete them.",
    ),
    "inverted": _Kind(
        "warning",
        "boxes that end before they begin",
        "They are dropped: their objects count as background in training.",
        "Exchange their corners in the label file; where there are many, the format was misread: VOC has "
        "xmin ymin xmax ymax, COCO x y width height.",
    ),
    "outside": _Kind(
        "warning",
        "boxes outside their image",
        "They are dropped: their objects count as background in training.",
        "Label the images that are there: these labels are of another size, or of an image turned by its "
        "EXIF tag.",
    ),
    "clipped": _Kind(
        "note",
        "boxes that reach beyond their image and are cut at its border",
        "Nothing is lost where they reach out a little; by much they are labels of another image or size.",
        "Look at the ones that reach out furthest.",
    ),
    "no mask": _Kind(
        "warning",
        "objects without a mask among others that have one",
        "Their boxes are trained on, their masks are not.",
        "Draw these masks.",
    ),
    "mask cut": _Kind(
        "note",
        "masks that leave their box and are cut at it",
        "The part outside is not learnt.",
        "Compute the boxes from the masks.",
    ),
}
"""What the sources list as they read labels (``Defect.what``)."""


def findings(splits: Sequence[Split]) -> Iterator[Finding]:
    """Everything about boxes."""
    yield from _defects(splits)
    yield from _doubles(splits)
    yield from _thin(splits)
    yield from _border(splits)
    yield from _whole_images(splits)
    yield from _few_labels(splits)
    yield from _no_objects(splits)


def _defects(splits: Sequence[Split]) -> Iterator[Finding]:
    found = defaultdict(list)
    for split in splits:
        places = {id: index for index, id in enumerate(split.ids)}
        for defect in getattr(split.source, "defects", ()):
            known = defect.id in places
            place = split.place(places[defect.id]) if known else Place(split.name, -1, defect.id)
            found[defect.what].append(Case((place,), defect.detail))
    for what, kind in DEFECTS.items():
        if cases := found[what]:
            yield Finding.of(
                f"{what.replace(' ', '_')}_{'images' if what == 'skipped' else 'labels'}",
                kind.severity,
                f"{kind.what}: {len(cases):,}",
                cases,
                consequence=kind.consequence,
                remedy=kind.remedy,
            )


def _doubles(splits: Sequence[Split]) -> Iterator[Finding]:
    same, different, objects = [], [], 0
    for split in splits:
        objects += len(split.objects.labels)
        names = split.source.class_names
        pairs, overlaps = overlapping(split.objects.boxes, split.objects.counts)
        for row in np.argsort(-overlaps, kind="stable"):
            pair = np.sort(pairs[row])
            if split.objects.ignore[pair].any():  # a group beside its members
                continue
            first, second = (names[label] for label in split.objects.labels[pair])
            place = split.place(split.objects.image[pair[0]], pair)
            if first == second:
                same.append(Case((place,), f"{first} twice, IoU {overlaps[row]:.2f}"))
            else:
                note = f"{first} and {second}, IoU {overlaps[row]:.2f}"
                different.append(Case((place,), note))
    if same:
        yield Finding.of(
            "double_boxes",
            "warning",
            f"objects with two boxes of their class: {len(same):,} (IoU {SAME:g} or more; "
            f"{share(len(same), objects)} of the objects)",
            same,
            consequence="Of each pair one box can never be found: it counts as missed, and a right "
            "detection of it as a duplicate.",
            remedy="Delete the worse box of each pair.",
        )
    if different:
        yield Finding.of(
            "two_classes",
            "warning",
            f"objects with boxes of two classes: {len(different):,} (IoU {SAME:g} or more)",
            different,
            consequence="The two labels contradict each other: whichever is learnt, the other counts as "
            "wrong.",
            remedy="Keep the right one. Where objects really have several classes, make these one class.",
        )


def _thin(splits: Sequence[Split]) -> Iterator[Finding]:
    cases, objects = [], 0
    for split in splits:
        least = split.objects.sides.min(1, initial=np.inf)
        least[split.objects.ignore] = np.inf
        objects += len(least)
        for row in np.flatnonzero(least < _THIN)[np.argsort(least[least < _THIN], kind="stable")]:
            width, height = split.objects.sides[row]
            name = split.source.class_names[split.objects.labels[row]]
            place = split.place(split.objects.image[row], [row])
            cases.append(Case((place,), f"{name}, {width:.3g}×{height:.3g} pixels"))
    if cases:
        yield Finding.of(
            "thin_boxes",
            "warning",
            f"boxes with a side under {_THIN:g} pixels of the original image: {len(cases):,} "
            f"({share(len(cases), objects)} of the objects)",
            cases,
            consequence="There is hardly anything to see in them; most are slips of the mouse or slivers "
            "that a crop has left.",
            remedy="Delete them, or mark them as difficult or crowd, so that they do not count.",
        )


def _border(splits: Sequence[Split]) -> Iterator[Finding]:
    cases, objects = [], 0
    for split in splits:
        height, width = split.objects.sizes[split.objects.image].T
        x1, y1, x2, y2 = split.objects.boxes.T
        touches = (x1 <= BORDER) | (y1 <= BORDER) | (x2 >= width - BORDER) | (y2 >= height - BORDER)
        objects += len(touches)
        for row in np.flatnonzero(touches).tolist():
            cases.append(Case((split.place(split.objects.image[row], [row]),)))
    if cases and len(cases) > _MANY_AT_BORDER * objects:
        yield Finding.of(
            "boxes_at_border",
            "note",
            f"boxes that end at the border of their image: {len(cases):,} "
            f"({share(len(cases), objects)} of the objects)",
            cases,
            consequence="Of objects that are cut off a part is seen, and labels rarely agree on how "
            "small a part still counts.",
            remedy="Label cut objects by one rule; those of which hardly anything is seen as difficult.",
        )


def _whole_images(splits: Sequence[Split]) -> Iterator[Finding]:
    cases, objects = [], 0
    for split in splits:
        area = split.objects.sizes[split.objects.image].prod(1)
        whole = split.objects.sides.prod(1) >= _WHOLE * area
        objects += len(whole)
        for row in np.flatnonzero(whole).tolist():
            cases.append(Case((split.place(split.objects.image[row], [row]),)))
    if cases and len(cases) > _WHOLE_SHARE * objects:
        yield Finding.of(
            "whole_image_boxes",
            "warning",
            f"boxes as large as their image: {len(cases):,} ({share(len(cases), objects)} of the objects)",
            cases,
            consequence="Labels of classification that were turned into boxes teach a detector that "
            "objects fill images.",
            remedy="Draw the boxes, or leave these images out.",
        )


def _few_labels(splits: Sequence[Split]) -> Iterator[Finding]:
    """Images with hardly any objects in a set in which images usually have many."""
    cases, usual = [], 0.0
    for split in splits:
        counts = split.objects.counts
        median = float(np.median(counts)) if len(counts) else 0.0
        if median < _USUAL:
            continue
        usual = max(usual, median)
        few = np.flatnonzero((counts <= _FEW * median) & (counts > 0))
        for index in few[np.argsort(counts[few], kind="stable")].tolist():
            cases.append(Case((split.place(index, None),), plural(counts[index], "object")))
    if cases:
        yield Finding.of(
            "few_labels",
            "note",
            f"images with at most a quarter of the objects that images usually have: {len(cases):,} "
            f"(median {usual:g})",
            cases,
            consequence="Where objects are there and carry no box, they are trained as background, and "
            "right detections count as wrong.",
            remedy="Look at them, and label the rest.",
        )


def _no_objects(splits: Sequence[Split]) -> Iterator[Finding]:
    cases, images, objects = [], 0, 0
    for split in splits:
        counts = split.objects.counts
        images, objects = images + len(counts), objects + int(counts.sum())
        cases += [Case((split.place(index),)) for index in np.flatnonzero(counts == 0).tolist()]
    if not objects:
        yield Finding.of(
            "no_objects",
            "error",
            f"none of the {images:,} images has an object",
            cases,
            consequence="There is nothing to learn.",
            remedy="Label them, or name the label files that belong to them.",
        )
    elif cases:
        most = len(cases) * 2 > images
        yield Finding.of(
            "images_without_objects",
            "warning" if most else "note",
            f"images without objects: {len(cases):,} of {images:,} ({share(len(cases), images)})",
            cases,
            consequence="They are trained on as pure background, and count in evaluation: right where "
            "nothing is there, harmful where labels are missing.",
            remedy="Look whether they are empty; leave out those that were never labelled.",
        )
