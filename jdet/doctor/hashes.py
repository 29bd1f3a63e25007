"""Perceptual hashes of small copies of images, and pairs of images whose hashes are close.

A hash has a bit for each of the 63 lowest frequencies of a 32 x 32 copy (its cosine transform but for the
mean): whether the frequency is there with positive sign. Brightness, contrast, another format and size
leave it nearly as it is, and a mirrored or turned image has the same frequencies with other signs or in
other places, so that the hashes of all eight orientations follow from one transform. Frequencies that are
hardly there count as absent: of a pattern of stripes half of them would otherwise be noise.

Close hashes are found by multi-index hashing (Norouzi, Punjani & Fleet, CVPR 2012): of two hashes that
differ in at most 11 bits, one of four bands of 16 bits differs in at most 2. Each band is a table, in which
137 places are looked up for each image, so that nothing is compared all with all. Of images that are all
alike only some of those that come next are compared, or these places would hold the whole set.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np

ORIENTATIONS = tuple(itertools.product((False, True), repeat=3))
"""Mirrored left to right, then top to bottom, then rows and columns exchanged; the first is upright."""

NAMED = (
    *("", "mirrored along a diagonal", "mirrored top to bottom", "turned clockwise"),
    *("mirrored", "turned counter-clockwise", "upside down", "mirrored along a diagonal"),
)
"""Of each orientation."""

DIFFERENT = 11
"""Bits in which close hashes differ at most."""

NEIGHBOURS = 20
"""Close images of one that are looked at, the closest first: of a film of a scene that hardly moves all
frames are close to all."""

_SIDE = 8
_FAINT = 0.05
"""Share of the root of all squared frequencies below which one is absent."""
_BANDS, _BITS = 4, 16
_CROWD = 10 * NEIGHBOURS
"""Images that are compared with one at most for each band, or so many hundredths of the set."""
_MOST_AT_ONCE = 4_000_000
"""Comparisons whose results are in memory together."""


class Close(NamedTuple):
    """Pairs of images with close hashes.

    Attributes:
        first: int [p], place of one image.
        second: int [p], of the other, which comes later.
        orientation: int [p], index in ``ORIENTATIONS`` in which the first looks like the second.
        bits: int [p], in how many bits they differ.
        cut: bool [n], images that are or may be close to more of the later ones than there are pairs.
    """

    first: np.ndarray
    second: np.ndarray
    orientation: np.ndarray
    bits: np.ndarray
    cut: np.ndarray


def hashes(patches: np.ndarray) -> np.ndarray:
    """The hashes of small copies, uint8 [n, 32, 32], in all orientations: uint64 [8, n]."""
    found = np.zeros((len(patches), _SIDE, _SIDE), np.float32)
    for row, patch in enumerate(patches):
        found[row] = cv2.dct(patch.astype(np.float32))[:_SIDE, :_SIDE]
    found[:, 0, 0] = 0
    faint = _FAINT * np.sqrt((found**2).sum((1, 2), keepdims=True))
    odd = np.where(np.arange(_SIDE) % 2, -1, 1).astype(np.float32)
    made = []
    for mirrored, upside_down, exchanged in ORIENTATIONS:
        turned = found * odd if mirrored else found
        turned = turned * odd[:, None] if upside_down else turned
        turned = turned.transpose(0, 2, 1) if exchanged else turned
        bits = (turned > faint).reshape(len(patches), -1)
        made.append(np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64))
    return np.array(made).reshape(len(ORIENTATIONS), len(patches))


def oriented(image: np.ndarray, orientation: int) -> np.ndarray:
    """An image [H, W] in one of ``ORIENTATIONS``."""
    mirrored, upside_down, exchanged = ORIENTATIONS[orientation]
    image = image[:, ::-1] if mirrored else image
    image = image[::-1] if upside_down else image
    return np.ascontiguousarray(image.T if exchanged else image)


def close_pairs(made: np.ndarray) -> Close:
    """The pairs of images whose hashes differ in at most ``DIFFERENT`` bits.

    Args:
        made: uint64 [8, n], from ``hashes``.

    Returns:
        Each pair once for each orientation, at most ``NEIGHBOURS`` for an image and orientation.
    """
    upright = made[0]
    tables = [_Table(_band(upright, number)) for number in range(_BANDS)]
    cut = np.zeros(len(upright), bool)
    found = [
        np.stack([first, second, np.full(len(first), orientation), bits])
        for orientation, queries in enumerate(made)
        for first, second, bits in _of_queries(queries, upright, tables, cut)
    ]
    columns = np.concatenate(found, axis=1) if found else np.zeros((4, 0), int)
    return Close(*columns, cut=cut)


def _band(values: np.ndarray, number: int) -> np.ndarray:
    """Every fourth bit of hashes, from ``number`` on: neighbouring bits, which go together, are apart."""
    bits = np.zeros(len(values), np.int64)
    for place in range(_BITS):
        bit = (values >> np.uint64(number + _BANDS * place)) & np.uint64(1)
        bits |= bit.astype(np.int64) << place
    return bits


class _Table:
    """Images by the bits of one band, those with the same bits in their order."""

    def __init__(self, keys: np.ndarray):
        self.order = np.argsort(keys, kind="stable")
        self.starts = np.searchsorted(keys[self.order], np.arange((1 << _BITS) + 1))
        self._places = keys[self.order] * len(keys) + self.order

    def later(
        self, keys: np.ndarray, queries: np.ndarray, most: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which images with some keys are looked at.

        Args:
            keys: int [q, k], those of each query, the nearest first.
            queries: int [q], places of the queries among the images.
            most: images of a query. Where its keys have more, those before it do not count, and then the
                first of each key are looked at until there are so many.

        Returns:
            Where they begin in ``order`` and how many they are, int [q, k], and whether some that come
            after the query are left out, bool [q].
        """
        begin, end = self.starts[keys], self.starts[keys + 1]
        crowded = np.flatnonzero((end - begin).sum(1) > most)
        after = keys[crowded] * len(self.order) + queries[crowded, None]
        begin[crowded] = np.searchsorted(self._places, after, side="right")
        reached = np.cumsum(end - begin, axis=1)
        cut = np.zeros(len(queries), bool)
        cut[crowded] = reached[crowded, -1] > most
        reached[crowded] = np.minimum(reached[crowded], most)
        return begin, np.diff(reached, prepend=0, axis=1), cut


def _masks() -> np.ndarray:
    """Whole numbers with at most two bits of a band: which keys are looked up beside a key."""
    single = 1 << np.arange(_BITS)
    double = [a | b for a, b in itertools.combinations(single.tolist(), 2)]
    return np.array([0, *single.tolist(), *double])


def _of_queries(
    queries: np.ndarray, upright: np.ndarray, tables: Sequence[_Table], cut: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Close pairs of some images in one orientation with those that come later: first, second, bits.

    Images of which there may be more are marked in ``cut``, bool [n].
    """
    masks = _masks()
    keys = [_band(queries, number) for number in range(len(tables))]
    most = max(_CROWD, len(upright) // 100)
    step = max(1, _MOST_AT_ONCE // (len(tables) * max(most, len(masks))))
    for begin in range(0, len(queries), step):
        rows = np.arange(begin, min(begin + step, len(queries)))
        firsts, seconds = [], []
        for table, key in zip(tables, keys):
            start, number, left = table.later(key[rows, None] ^ masks, rows, most)
            cut[rows] |= left
            first = np.repeat(rows, number.sum(1))
            number, start = number.ravel(), start.ravel()
            within = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
            second = table.order[np.repeat(start, number) + within]
            later = second > first
            firsts.append(first[later])
            seconds.append(second[later])
        pairs = np.unique(np.concatenate(firsts) * len(upright) + np.concatenate(seconds))
        first, second = np.divmod(pairs, len(upright))
        bits = np.bitwise_count(queries[first] ^ upright[second]).astype(int)
        near = np.flatnonzero(bits <= DIFFERENT)
        near = near[np.lexsort((second[near], bits[near], first[near]))]
        rank = np.arange(len(near)) - np.searchsorted(first[near], first[near])
        cut[first[near[rank >= NEIGHBOURS]]] = True
        near = near[rank < NEIGHBOURS]
        yield first[near], second[near], bits[near]
