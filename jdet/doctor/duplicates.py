"""The same image twice, or nearly: found by hashes, decided on the pixels."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from jdet.data.reader import Reader
from jdet.doctor import hashes
from jdet.doctor.findings import Case, Finding, plural
from jdet.doctor.scan import Pixels, grey_of
from jdet.doctor.splits import Split

NEAR = 0.8
"""Correlation of the detail of two images from which on they are nearly the same, where two images of the
set have none on average. Of different fields under one microscope it is below 0.6; of one field in another
focus, or a board printed again, above 0.9."""

_USUAL = 30
"""Pairs of images by which is found out how alike the images of the set are anyway, such as by the rim of a
dish or a camera that does not move. Nearly the same have in common ``NEAR`` of what is left."""

_WORTH = 0.4
"""The same of their small copies, from which on the images themselves are read."""
_SIDE = 128
_HELD = 512
"""Images whose detail is in memory."""


class Twins(NamedTuple):
    """Two images that show nearly the same.

    Attributes:
        first: place of one among all images of all splits.
        second: of the other.
        orientation: index in ``hashes.ORIENTATIONS``.
        likeness: correlation of their detail, up to 1.
    """

    first: int
    second: int
    orientation: int
    likeness: float


class Everything:
    """The images of all splits under one count, split after split."""

    def __init__(self, splits: Sequence[Split], pixels: Sequence[Pixels], invalid: float | None):
        """Takes the splits and what was seen of them."""
        self.splits, self.pixels = splits, pixels
        self.offsets = np.cumsum([0, *(len(split.ids) for split in splits)])
        self.digests = [digest for one in pixels for digest in one.digests]
        self.patches = np.concatenate([one.patches for one in pixels])
        self.constant = np.concatenate([one.constant | one.empty for one in pixels])
        self._readers = [Reader(split.source, len(split.ids), "skip") for split in splits]
        self._invalid = invalid
        self.detail = functools.lru_cache(maxsize=_HELD)(self._detail)

    def where(self, place: int) -> tuple[int, int]:
        """Number of the split of an image, and its index there."""
        split = int(np.searchsorted(self.offsets, place, side="right")) - 1
        return split, int(place - self.offsets[split])

    def size(self, place: int) -> np.ndarray:
        """Height and width of an image."""
        split, index = self.where(place)
        return self.splits[split].objects.sizes[index]

    def case(self, places: Sequence[int], note: str = "") -> Case:
        """A case of whole images."""
        found = [self.where(place) for place in places]
        return Case(tuple(self.splits[split].place(index) for split, index in found), note)

    def _detail(self, place: int) -> np.ndarray | None:
        split, index = self.where(place)
        image = self._readers[split][index].image
        return None if image is None else _detail(grey_of(image, _SIDE, self._invalid))


def same(everything: Everything) -> list[list[int]]:
    """Groups of images whose values are all equal, blank ones left out."""
    groups = defaultdict(list)
    for place, digest in enumerate(everything.digests):
        if digest and not everything.constant[place]:
            groups[digest].append(place)
    return [group for group in groups.values() if len(group) > 1]


def nearly_same(everything: Everything) -> tuple[list[Twins], list[int]]:
    """Pairs of different images that show nearly the same, also mirrored or turned.

    Of images that are all alike not all pairs are there, but they are connected by some.

    Returns:
        The pairs, and places of the images that were not compared with all that may look like them.
    """
    first_of: dict[bytes, int] = {}
    for place, digest in enumerate(everything.digests):
        if digest and not everything.constant[place]:
            first_of.setdefault(digest, place)
    places = np.array(sorted(first_of.values()), int)
    if len(places) < 2:
        return [], []
    patches = everything.patches[places]
    close = hashes.close_pairs(hashes.hashes(patches))
    small = [_detail(patch.astype(np.float32)) for patch in patches]
    root = list(range(len(places)))

    def group(i: int) -> int:
        while root[i] != i:
            root[i] = i = root[root[i]]
        return i

    split_of = [everything.where(place)[0] for place in places.tolist()]
    found: dict[tuple[int, int], Twins] = {}
    least = None
    order = np.lexsort((close.orientation, close.second, close.first, close.bits > 4))
    for row in order.tolist():
        i, j, turn = (int(field[row]) for field in (close.first, close.second, close.orientation))
        joined = group(i) == group(j)
        if (i, j) in found or (joined and split_of[i] == split_of[j]):
            continue
        if _likeness(small[i], small[j], turn) < _WORTH:
            continue
        a, b = int(places[i]), int(places[j])
        size = everything.size(a)[:: -1 if hashes.ORIENTATIONS[turn][2] else 1]
        ratio = (size[0] / size[1]) / np.divide(*everything.size(b))
        if not 0.95 < ratio < 1 / 0.95:
            continue
        ours, theirs = everything.detail(a), everything.detail(b)
        if ours is None or theirs is None:
            continue
        likeness = _likeness(ours, theirs, turn)
        if likeness < NEAR:
            continue
        if least is None:
            usual = max(_usual(everything, places), 0.0)
            least = 1 - (1 - NEAR) * (1 - usual)
        if likeness >= least:
            found[i, j] = Twins(a, b, turn, likeness)
            root[group(i)] = group(j)
    return list(found.values()), places[close.cut].tolist()


def _usual(everything: Everything, places: np.ndarray) -> float:
    """Median correlation of the detail of two images; 0 where there are too few to tell."""
    if len(places) < _USUAL // 3:
        return 0.0
    rng = np.random.default_rng(0)
    found = []
    for _ in range(_USUAL):
        first, second = (everything.detail(int(p)) for p in rng.choice(places, 2, replace=False))
        if first is not None and second is not None:
            found.append(_likeness(first, second, 0))
    return float(np.median(found)) if found else 0.0


def _detail(grey: np.ndarray) -> np.ndarray:
    """A grey image without its slow changes, such as light that falls off to the corners.

    Roots are taken of what is left, so that a few bright spots on black do not decide alone.
    """
    detail = grey - cv2.GaussianBlur(grey, (0, 0), grey.shape[0] / 16)
    return np.sign(detail) * np.sqrt(np.abs(detail))


def _likeness(first: np.ndarray, second: np.ndarray, orientation: int) -> float:
    """Correlation of two details [s, s], the first oriented, where they agree best within s / 16."""
    margin = first.shape[0] // 16
    inner = hashes.oriented(first, orientation)[margin:-margin, margin:-margin]
    if inner.std() < 1e-6 or second.std() < 1e-6:
        return 0.0
    return float(cv2.matchTemplate(second, inner, cv2.TM_CCOEFF_NORMED).max())


def findings(everything: Everything) -> Iterator[Finding]:
    """Images that are there twice, or nearly, within splits and across them."""
    inside, across = [], []
    for places in same(everything):
        splits = {everything.where(place)[0] for place in places}
        (across if len(splits) > 1 else inside).append(
            everything.case(places, "equal in all values")
        )
    near_inside, near_across = [], []
    pairs, cut = nearly_same(everything)
    for twins in _varied(pairs):
        turned = hashes.NAMED[twins.orientation]
        note = f"alike by {twins.likeness:.2f}" + (f", {turned}" if turned else "")
        case = everything.case((twins.first, twins.second), note)
        apart = everything.where(twins.first)[0] != everything.where(twins.second)[0]
        (near_across if apart else near_inside).append(case)
    if across:
        yield Finding.of(
            "same_image_across_splits",
            "error",
            f"{_groups(across)} of several splits are equal to the last pixel",
            across,
            consequence="What is evaluated was trained on, so the numbers flatter the detector.",
            remedy="Take each of these images out of all splits but one.",
        )
    if near_across:
        yield Finding.of(
            "near_duplicates_across_splits",
            "warning",
            f"{plural(len(near_across), 'pair')} of images of two splits look nearly the same",
            near_across,
            consequence="What is evaluated was nearly trained on, so the numbers flatter the detector.",
            remedy="Put images of one scene, film or sheet into the same split.",
        )
    if inside:
        yield Finding.of(
            "same_image_twice",
            "warning",
            f"{_groups(inside)} of one split are equal to the last pixel",
            inside,
            consequence="The image counts twice in training or in the numbers, and if the copies carry "
            "different labels, one contradicts the other.",
            remedy="Keep the copy with the better labels.",
        )
    if near_inside:
        yield Finding.of(
            "near_duplicates",
            "note",
            f"{plural(len(near_inside), 'pair')} of images of one split look nearly the same",
            near_inside,
            consequence="The set is worth fewer different images than it has files.",
            remedy="Keep them together when you split the set; thin out films to one frame in many.",
        )
    if cut:
        yield Finding.of(
            "look_alikes_not_compared",
            "note",
            f"{plural(len(cut), 'image')} may look like more others than the {hashes.NEIGHBOURS} closest "
            "ones that they were compared with",
            [everything.case([place]) for place in cut],
            consequence="The set has more pairs of images that look nearly the same than are listed, also "
            "across splits: a camera that does not move makes all of its frames alike.",
            remedy="Thin out films to one frame in many, and examine what is left.",
        )


def _varied(twins: Sequence[Twins]) -> list[Twins]:
    """The most alike first, but those of images that no pair has shown yet before all others."""
    fresh, rest, shown = [], [], set()
    for one in sorted(twins, key=lambda one: -one.likeness):
        known = shown & {one.first, one.second}
        (rest if known else fresh).append(one)
        shown |= {one.first, one.second}
    return fresh + rest


def _groups(cases: Sequence[Case]) -> str:
    images = sum(len(case.places) for case in cases)
    return f"{plural(images, 'image')} in {plural(len(cases), 'group')}"
