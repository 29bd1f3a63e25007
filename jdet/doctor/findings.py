"""What an examination finds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np

SEVERITIES = ("error", "warning", "note")
"""Errors make a training or its numbers wrong; warnings cost accuracy; notes are worth knowing."""

KEPT = 200
"""Cases of a finding that are kept; its count is of all."""


class Place(NamedTuple):
    """An image, and what is meant in it.

    Attributes:
        split: name of the split.
        index: of the image in its source.
        image: its name, as ``Example.id``.
        file: its path; "" where it is none.
        boxes: x1 y1 x2 y2 in pixels of the original image, those that are meant; None: all of its objects.
        labels: of the boxes, 0 … K-1.
    """

    split: str
    index: int
    image: str
    file: str = ""
    boxes: tuple[tuple[float, ...], ...] | None = ()
    labels: tuple[int, ...] = ()

    @property
    def called(self) -> str:
        """What people call the image: its name, or that of its file where that is another."""
        file = PurePath(self.file)
        return self.image if file.stem in ("", self.image) else file.name


class Case(NamedTuple):
    """One instance of a finding: an image, or several that belong together, and what to say of it."""

    places: tuple[Place, ...]
    note: str = ""


class Finding(NamedTuple):
    """Something that is to be known of a data set.

    Attributes:
        name: what it is called in ``doctor.json``, such as "double_boxes".
        severity: one of ``SEVERITIES``.
        count: how many cases there are.
        title: what was found, in a sentence with its numbers.
        consequence: what follows for a training, in a plain sentence.
        remedy: what to do.
        cases: the first ``KEPT``, the worst first.
    """

    name: str
    severity: str
    count: int
    title: str
    consequence: str
    remedy: str
    cases: tuple[Case, ...] = ()

    @classmethod
    def of(
        cls, name: str, severity: str, title: str, cases: Sequence[Case], **texts: Any
    ) -> Finding:
        """A finding that counts its cases."""
        return cls(name, severity, len(cases), title, cases=tuple(cases[:KEPT]), **texts)


def ordered(findings: Sequence[Finding]) -> list[Finding]:
    """The worst first; those of one severity as they come."""
    return sorted(findings, key=lambda one: SEVERITIES.index(one.severity))


def to_json(finding: Finding) -> dict[str, Any]:
    """A finding for programs."""
    cases = [
        {"note": case.note, "places": [place._asdict() for place in case.places]}
        for case in finding.cases
    ]
    return {**finding._asdict(), "cases": cases}


def share(part: float, whole: float) -> str:
    """A part of a whole in per cent, "" of nothing."""
    if not whole:
        return ""
    percent = 100 * part / whole
    return f"{percent:.0f} %" if percent >= 10 else f"{percent:.2g} %"


def plural(count: int, word: str) -> str:
    """``1 object``, ``1,200 objects``."""
    return f"{int(count):,} {word}{'' if count == 1 else 's'}"


def corners(boxes: np.ndarray) -> tuple[tuple[float, ...], ...]:
    """Boxes [n, 4] as a ``Place`` has them."""
    return tuple(tuple(round(float(x), 2) for x in box) for box in boxes)
