"""Images of one film, sheet or original that lie in several splits, by their names and by their looks.

Names that say so, `slide_x0_y512` or the mark of a labelling tool's copies, are believed. Numbers say
little, as `cat_1` and `cat_2` may be two cats: of them a leak is told where images of one group resemble
each other clearly more than others do.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import cv2
import numpy as np

from jdet.doctor.duplicates import Everything
from jdet.doctor.findings import Case, Finding, plural

LOOKED_AT = 200
"""Images of each suspicion that are compared."""

CLEARLY = 0.15
"""By how much more images of a group must be alike, in correlation, than others are."""

_SUFFIX = re.compile(r"([._](jpe?g|png|tiff?|bmp|webp|npy|dcm))+$", re.IGNORECASE)
_COPY = re.compile(
    r"(\.rf\.[0-9a-f]{8,}$|[ _-]*\(\d+\)$|[ _-]+copy\d*$|[ _-]+aug\d*$|^copy of )", re.IGNORECASE
)
_TILE = re.compile(
    r"[ _-]*((x\d+[ _-]*y\d+)|(r(ow)?\d+[ _-]*c(ol)?\d+)|((tile|patch|crop)[ _-]*\d+([ _-]+\d+)*))$",
    re.IGNORECASE,
)
_NUMBERS = re.compile(r"(([_ .-]\d+){1,2}|\d+)$")
_OTHERS = 8


def stem_of(name: str, file: str) -> str:
    """What an image is called, without folder and suffix."""
    return _SUFFIX.sub("", PurePosixPath(file.replace("\\", "/") or name).name)


def group_of(stem: str) -> tuple[str, bool]:
    """What images of one original have in common in their names, and whether the names say so.

    `a_x0_y512` and `a_tile3` are sure to be of `a`, and so are the copies `a.rf.0123456789` and `a (2)`;
    `a_0003` may be of `a`. Numbers alone have no group.
    """
    if _COPY.search(stem):
        return _SUFFIX.sub("", _COPY.sub("", stem)), True
    if _TILE.search(stem):
        return _TILE.sub("", stem), True
    return _NUMBERS.sub("", stem).rstrip("_- ."), False


def number_of(stem: str) -> int | None:
    """The last number in a name, by which frames are counted."""
    found = re.findall(r"\d+", stem)
    return int(found[-1]) if found else None


def findings(everything: Everything) -> Iterator[Finding]:
    """Groups by name across splits that look alike, and films that were split frame by frame."""
    stems, split_of = [], []
    for number, split in enumerate(everything.splits):
        stems += [stem_of(id, file) for id, file in zip(split.ids, split.files)]
        split_of += [number] * len(split.ids)
    splits = np.array(split_of, int)
    seen = np.array([bool(digest) for digest in everything.digests]) & ~everything.constant
    looks = _Looks(everything.patches)
    by_group = defaultdict(list)
    for place, stem in enumerate(stems):
        if seen[place]:
            by_group[group_of(stem)].append(place)
    whole = int(seen.sum())
    sure, suspected, films = [], [], []
    for (name, says_so), places in by_group.items():
        members = np.array(places)
        if len(set(splits[members])) < 2 or not name:
            continue
        if says_so:
            sure.append((name, members))
        elif len(members) * 2 > whole:
            films += _film(everything, looks, stems, splits, members)
        else:
            suspected.append((name, members))
    if not _look_alike(looks, splits, np.flatnonzero(seen), suspected):
        suspected = []
    leaks = [_case(everything, splits, name, members) for name, members in sure + suspected]
    if leaks:
        yield Finding.of(
            "groups_across_splits",
            "warning",
            f"{plural(len(leaks), 'group')} of images that seem to be of one original lie in several "
            "splits",
            leaks,
            consequence="Parts of one original, or frames of one film, are trained on and evaluated, so "
            "the numbers flatter the detector.",
            remedy="Split by group, not by image.",
        )
    if films:
        yield Finding.of(
            "film_across_splits",
            "warning",
            f"{plural(len(films), 'image')} look like the next by number, which lies in another split",
            films,
            consequence="Frames of one film are trained on and evaluated, so the numbers flatter the "
            "detector.",
            remedy="Split the film into stretches, with a gap between them, not frame by frame.",
        )


class _Looks:
    """Small copies, compared wherever they overlap best: a film moves on, and tiles overlap."""

    def __init__(self, patches: np.ndarray):
        self._patches = patches

    def alike(self, place: int, others: np.ndarray) -> float:
        """Of the most alike of some others, the correlation with the middle of an image."""
        middle = self._detail(place)[8:-8, 8:-8]
        if middle.std() < 1e-6:
            return 0.0
        found = (
            cv2.matchTemplate(self._detail(other), middle, cv2.TM_CCOEFF_NORMED).max()
            for other in others.tolist()
        )
        return float(max(found))

    def _detail(self, place: int) -> np.ndarray:
        patch = self._patches[place].astype(np.float32)
        return patch - cv2.GaussianBlur(patch, (0, 0), 6)


def _look_alike(
    looks: _Looks,
    splits: np.ndarray,
    every: np.ndarray,
    groups: Sequence[tuple[str, np.ndarray]],
) -> bool:
    """Whether images look more like those of their own group in another split than like others there."""
    rng = np.random.default_rng(0)
    own, others = [], []
    for place, members in _some(splits, groups, rng):
        kin = members[splits[members] != splits[place]]
        kin = kin[rng.permutation(len(kin))[:_OTHERS]]
        strangers = every[(splits[every] != splits[place]) & ~np.isin(every, members)]
        if len(strangers) < len(kin) or not len(kin):
            continue
        own.append(looks.alike(place, kin))
        others.append(looks.alike(place, rng.choice(strangers, len(kin), replace=False)))
    return len(own) >= 2 and bool(np.mean(own) >= np.mean(others) + CLEARLY)


def _case(everything: Everything, splits: np.ndarray, name: str, members: np.ndarray) -> Case:
    """A group, with an image of each split."""
    some = sorted(set(splits[members].tolist()))
    counts = (
        f"{int((splits[members] == split).sum())} in {everything.splits[split].name}"
        for split in some
    )
    first = [int(members[splits[members] == split][0]) for split in some]
    return everything.case(first, f"{name}…: {', '.join(counts)}")


def _some(
    splits: np.ndarray, groups: Sequence[tuple[str, np.ndarray]], rng: np.random.Generator
) -> Iterator[tuple[int, np.ndarray]]:
    """Some images of groups that are not in the first split, each with its group."""
    pairs = [
        (int(place), members) for _, members in groups for place in members[splits[members] > 0]
    ]
    for row in rng.permutation(len(pairs))[:LOOKED_AT].tolist():
        yield pairs[row]


def _film(
    everything: Everything,
    looks: _Looks,
    stems: Sequence[str],
    splits: np.ndarray,
    members: np.ndarray,
) -> list[Case]:
    """Images of a numbered series whose nearest number in another split looks alike."""
    numbers = np.array([number_of(stems[place]) or 0 for place in members.tolist()])
    rng = np.random.default_rng(0)
    near, far, cases = [], [], []
    rows = np.flatnonzero(splits[members] > 0)
    for row in rng.permutation(rows)[:LOOKED_AT].tolist():
        apart = np.flatnonzero(splits[members] != splits[members[row]])
        order = apart[np.argsort(np.abs(numbers[apart] - numbers[row]), kind="stable")]
        strangers = order[len(order) // 2 :]
        if len(order) < 8:
            continue
        place = int(members[row])
        closest = looks.alike(place, members[order[:1]])
        near.append(closest)
        far.append(looks.alike(place, members[rng.choice(strangers, 1)]))
        cases.append((closest, everything.case((place, int(members[order[0]])), "next by number")))
    if len(near) < 4 or np.mean(near) < np.mean(far) + CLEARLY:
        return []
    bound = np.mean(far) + CLEARLY
    return [case for closest, case in sorted(cases, key=lambda one: -one[0]) if closest > bound]
