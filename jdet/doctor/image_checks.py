"""What is wrong, or odd, with the pixels of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from jdet.data.statistics import ImageStatistics
from jdet.doctor.findings import Case, Finding, share
from jdet.doctor.scan import Pixels
from jdet.doctor.splits import Split

UNUSED_BITS = "16-bit images"
"""How a note of the survey of images begins that says that bits are not used."""

SHIFTED = 1.0
"""Difference of the means of two splits, in standard deviations of the first, that is worth a word."""


def findings(splits: Sequence[Split], pixels: Sequence[Pixels]) -> Iterator[Finding]:
    """Everything about the values of images."""
    pairs = list(zip(splits, pixels))
    images = sum(len(split.ids) for split in splits)

    def cases(flags: str) -> list[Case]:
        return [
            Case((split.place(index),))
            for split, seen in pairs
            for index in np.flatnonzero(getattr(seen, flags)).tolist()
        ]

    unusable = [
        Case((split.place(index),), problem)
        for split, seen in pairs
        for index, problem in enumerate(seen.problems)
        if problem
    ]
    if unusable:
        yield Finding.of(
            "unusable_images",
            "error",
            f"images that cannot be used: {len(unusable):,} of {images:,}",
            unusable,
            consequence="A training stops at the first of them, or goes on without their objects.",
            remedy="Each says what to do; --config.data.on_error=skip trains without them.",
        )
    if constant := cases("constant"):
        yield Finding.of(
            "constant_images",
            "warning",
            f"images of a single value: {len(constant):,} of {images:,}",
            constant,
            consequence="There is nothing to see in them; labels on them teach nonsense.",
            remedy="Leave them out; where there should be something, export them again.",
        )
    if empty := cases("empty"):
        yield Finding.of(
            "empty_images",
            "warning",
            f"images without a value that was measured: {len(empty):,} of {images:,}",
            empty,
            consequence="All is NaN, infinite or config.data.image.invalid: the network sees them blank.",
            remedy="Leave them out.",
        )
    yield from _values(pairs)
    if turned := cases("turned"):
        yield Finding.of(
            "turned_images",
            "note",
            f"images turned upright by their EXIF tag: {len(turned):,} of {images:,}",
            turned,
            consequence="Boxes must refer to the upright image; tools that ignore the tag draw them "
            "elsewhere.",
            remedy="Look whether the boxes fit (docs/input_sizes.md); where they do not, save the images "
            "without the tag.",
        )
    yield from _kinds(splits)
    yield from _shift(pairs)


def _values(pairs: Sequence[tuple[Split, Pixels]]) -> Iterator[Finding]:
    """Values that were not measured, and channels that say nothing."""
    known = [(split.name, seen.statistics) for split, seen in pairs if seen.statistics is not None]
    lost = [(name, sum(s.invalid), sum(s.invalid) + sum(s.valid)) for name, s in known]
    if any(count for _, count, _ in lost):
        notes = [
            f"{name}: {share(count, total)} of the values" for name, count, total in lost if count
        ]
        yield Finding(
            "invalid_values",
            "note",
            sum(count for _, count, _ in lost),
            f"{sum(count for _, count, _ in lost):,} values were not measured",
            "They become the mean of their channel.",
            "Nothing, where that is meant (docs/normalisation.md).",
            tuple(Case((), note) for note in notes),
        )
    silent = {
        channel
        for _, s in known
        for channel, std in enumerate(s.std)
        if s.valid[channel] and not std > 0
    }
    silent -= {channel for _, s in known for channel, std in enumerate(s.std) if std > 0}
    if silent and not all(len(s.std) == len(silent) for _, s in known):
        yield Finding(
            "constant_channels",
            "warning",
            len(silent),
            f"channel {', '.join(map(str, sorted(silent)))} has one value in all images",
            "It tells the network nothing, and costs memory.",
            "Take the others: --config.data.image.bands.",
        )


def _kinds(splits: Sequence[Split]) -> Iterator[Finding]:
    """What becomes of files whose kind is not that of the set."""
    unused, converted = [], []
    for split in splits:
        survey = getattr(split.source, "image_survey", None)
        for note in survey.notes if survey is not None else ():
            case = Case(
                (split.place(0),) if note.startswith(UNUSED_BITS) else (), f"{split.name}: {note}"
            )
            (unused if note.startswith(UNUSED_BITS) else converted).append(case)
    if unused:
        yield Finding.of(
            "unused_bits",
            "warning",
            "16-bit images carry 8 bits or fewer",
            unused,
            consequence="They take twice the memory and the time to read, and the values are small where "
            "constants are those of 16 bits.",
            remedy="Each says which key takes them as 8-bit images.",
        )
    if converted:
        yield Finding.of(
            "converted_images",
            "note",
            "some images are of another kind than the rest, or are converted",
            converted,
            consequence="The network sees what they become, not what is in the file.",
            remedy="Nothing, where that is meant (docs/images.md).",
        )


def _shift(pairs: Sequence[tuple[Split, Pixels]]) -> Iterator[Finding]:
    """Splits whose images are much brighter or darker than those of training."""
    known = [(split, seen.statistics) for split, seen in pairs if seen.statistics is not None]
    if len(known) < 2:
        return
    (first, ours), cases = known[0], []
    for split, theirs in known[1:]:
        apart = _apart(ours, theirs)
        if apart >= SHIFTED:
            places = (first.place(len(first.ids) // 2), split.place(len(split.ids) // 2))
            note = f"{first.name} mean {_numbers(ours.mean)}; {split.name} mean {_numbers(theirs.mean)}"
            cases.append(Case(places, note))
    if cases:
        yield Finding.of(
            "other_brightness",
            "warning",
            "the images of one split are much brighter or darker than those of training",
            cases,
            consequence="The network is evaluated on images unlike those it was trained on.",
            remedy="Mix what both splits show, unless the difference is what you want to measure; train "
            "with stronger photometric changes (docs/normalisation.md).",
        )


def _apart(ours: ImageStatistics, theirs: ImageStatistics) -> float:
    """Largest difference of two means, in standard deviations of the first."""
    if len(ours.mean) != len(theirs.mean):
        return 0.0
    differences = np.abs(np.subtract(ours.mean, theirs.mean)) / np.array(ours.scales)
    return float(np.nanmax(differences, initial=0.0))


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
