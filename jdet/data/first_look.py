"""A look at some images before anything is compiled: can they be used, and are they turned?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from absl import logging

from jdet.data.image_io import orientation
from jdet.data.reader import Reader
from jdet.data.readers.decoder import described
from jdet.types import DataError, Source

LOOKS = 48
"""Images that are read, evenly over the source."""

LISTED = 20
"""Files of another kind that a message lists."""

REASONS = 3
"""Reasons that a message lists."""


class Look(NamedTuple):
    """What was found.

    Attributes:
        images: how many were read.
        problems: reason by name of each of them that cannot be used.
        turned: how many have an EXIF tag by which they are turned.
        skipped: images of the whole source that its labels left out already.
    """

    images: int
    problems: dict[str, str]
    turned: int
    skipped: int

    def describe(self) -> list[str]:
        """Warnings, a line each; empty where all is well."""
        lines = []
        if self.problems:
            lines.append(
                f"{len(self.problems)} of {self.images} images looked at cannot be used and are left "
                f"out: {reasons(self.problems)}"
            )
        if self.turned:
            lines.append(
                f"{self.turned} of {self.images} images looked at have an EXIF orientation and are "
                "turned upright by it, as in evaluation and prediction; boxes must refer to upright "
                "images (docs/input_sizes.md)"
            )
        return lines


def first_look(source: Source, what: str, *, on_error: str, min_usable: float) -> Look:
    """Reads some dozens of images as training does.

    Args:
        source: where the examples come from.
        what: to call it in messages.
        on_error: "raise", or "skip" to count images that cannot be used.
        min_usable: least share of images that can be used, those that the labels left out included.

    Raises:
        DataError: none of the images can be used, or fewer than ``min_usable``, with the first reasons. Or,
            with ``on_error="raise"``, one cannot, or they are of different kinds.
    """
    check_kinds(source, what, on_error)
    reader = Reader(source, len(source), on_error)
    chosen = np.unique(np.linspace(0, len(source) - 1, LOOKS).round().astype(int)).tolist()
    problems: dict[str, str] = {}
    turned = 0
    for index in chosen:
        element = reader[index]
        if element.problem:
            problems[element.id] = element.problem
        else:
            turned += orientation(source[index].image) != 1
    defects = [d for d in getattr(source, "defects", ()) if d.what == "skipped"]
    share = (1 - len(problems) / len(chosen)) * len(source) / (len(source) + len(defects))
    found = Look(len(chosen), problems, turned, len(defects))
    check_share(share, min_usable, {**problems, **{d.id: d.detail for d in defects}}, what)
    return found


def check_kinds(source: Source, what: str, on_error: str) -> None:
    """Refuses, or tells, images whose headers say that they are of another kind than the rest.

    Raises:
        DataError: with ``on_error="raise"``, with the files.
    """
    found = getattr(source, "image_survey", None)
    if found is None or not found.strays:
        return
    first = next(iter(found.strays.values()))
    files = [text.partition(": ")[0] for text in found.strays.values()]
    listed = ", ".join(files[:LISTED]) + (f", … {len(files) - LISTED} more" * (len(files) > LISTED))
    how = ", as the rest is" if len(files) < found.known else ""
    text = (
        f"{what}: {len(files)} of {found.known} images are not {described(found.kind)}{how} ({listed}). "
        f"{first}"
    )
    if on_error == "raise":
        raise DataError(text)
    logging.warning("%s. They are left out.", text)


def enough(share: float, least: float) -> bool:
    """Whether a share of images that can be used is above 0 and not below ``config.data.min_usable``."""
    return share > 0 and share >= least


def check_share(share: float, least: float, problems: Mapping[str, str], what: str) -> None:
    """Refuses a set of which too little can be used.

    Args:
        share: of the images that can be used, 0 … 1.
        least: as ``config.data.min_usable``.
        problems: reason by name of images that cannot.
        what: is looked at, for the message.

    Raises:
        DataError: the share is 0 or below ``least``.
    """
    if enough(share, least):
        return
    how = f"only {share:.0%}" if share > 0 else "none"
    remedy = ""
    if share > 0:
        remedy = f". Mend them, or go on with fewer: --config.data.min_usable={share * 0.9:.2g}"
    raise DataError(f"{what}: {how} of its images can be used: {reasons(problems)}{remedy}")


def reasons(problems: Mapping[str, str]) -> str:
    """The first reasons, and how many more there are; they name their files."""
    shown = "; ".join(list(problems.values())[:REASONS])
    return shown + (f"; and {len(problems) - REASONS} more" if len(problems) > REASONS else "")
