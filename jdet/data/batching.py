"""Order of the images in a stream whose batches hold images of one shape each.

An order is a function of sizes and seed: any position of the stream can be looked up, whatever came before.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from absl import logging

from jdet.data import balance
from jdet.data.sources.annotations import read_image_size
from jdet.data.transforms.resize import Resize
from jdet.types import DataError, Example, Source

TABLES = 64
"""Epochs whose order is cached; a batch of a rare shape holds images of many epochs."""


class Slot(NamedTuple):
    """Image and shape bucket at one stream position.

    Attributes:
        image: index in the source; -1 for a row that fills up a batch.
        shape: index of the shape that the batch has.
    """

    image: int
    shape: int


def image_size(source: Source, index: int, example: Example | None = None) -> tuple[int, int]:
    """Height and width of an image; it is opened only where the source does not know.

    Args:
        source: where it is.
        index: of the image.
        example: the image's example, where it has been read already.

    Raises:
        DataError: it cannot be read.
    """
    known = source.image_size(index) if hasattr(source, "image_size") else None
    if known:
        return known
    image = (example or source[index]).image
    if isinstance(image, np.ndarray):
        return image.shape[:2]
    return read_image_size(image)


def image_sizes(source: Source, count: int, on_error: str) -> list[tuple[int, int]]:
    """Height and width of each of the first ``count`` images.

    With ``on_error="skip"`` images without a readable size have one pixel.

    Raises:
        DataError: a size is needed and cannot be read.
    """
    if not hasattr(source, "image_size"):
        logging.info("reading the sizes of %d images", count)
    found = []
    for index in range(count):
        try:
            found.append(image_size(source, index))
        except DataError:
            if on_error == "raise":
                raise
            found.append((1, 1))
    return found


def shapes_of(
    source: Source, resize: Resize, count: int, on_error: str, side: int = 0
) -> np.ndarray:
    """The shape of each of the first ``count`` images, int32 [count], by its index in ``resize.shapes``.

    With ``on_error="skip"`` images without a readable size get the first shape. ``side`` is that of the
    tiles that are cut out of them; 0: they are shown whole.

    Raises:
        DataError: a size is needed and cannot be read.
    """
    if not hasattr(source, "image_size"):
        logging.info("reading the sizes of %d images", count)
    found = np.zeros(count, np.int32)
    choose = functools.lru_cache(maxsize=1 << 16)(resize.shape_of)
    for index in range(count):
        try:
            size = image_size(source, index)
            found[index] = choose(*(min(length, side or length) for length in size))
        except DataError:
            if on_error == "raise":
                raise
    return found


class TrainOrder:
    """Endless order of training: each epoch is shuffled again, and every batch has one shape.

    The order is that of images which arrive one by one in shuffled order and join the batch of their shape,
    which is sent when it is full. So every image comes once per epoch, and batches of all shapes are mixed
    as the images are. Images left in unfinished batches at the end of an epoch go on into the next.

    With repeat factors, an image comes in every epoch as often as is drawn for it
    (``balance.draw_copies``, shape by shape; each shape has the same number of images in every epoch, and
    all together ``balance.epoch_length``).
    """

    def __init__(
        self, shapes: np.ndarray, batch_size: int, seed: int, repeats: np.ndarray | None = None
    ):
        """Computes nothing yet.

        Args:
            shapes: int [n], index of the shape of every image.
            batch_size: images of a batch.
            seed: of the shuffling.
            repeats: float64 [n], 1 or more, how often each image comes in an epoch on average; None: once.
        """
        self._arguments = shapes, batch_size, seed, repeats
        self._shapes, self._batch, self._seed = np.asarray(shapes), batch_size, seed
        self._repeats = repeats
        self._counts = balance.whole_parts(np.bincount(self._shapes, weights=repeats))
        self._table = functools.lru_cache(maxsize=TABLES)(self._make_table)
        self._batches = functools.lru_cache(maxsize=2)(self._make_batches)

    def __reduce__(self):
        return TrainOrder, self._arguments

    def __getitem__(self, place: int) -> Slot:
        """The slot of row ``place % batch_size`` of batch ``place // batch_size``."""
        batch, row = divmod(int(place), self._batch)
        epoch = batch * self._batch // sum(self._counts)
        while self._done(epoch + 1) <= batch:
            epoch += 1
        shape, number = self._batches(epoch)[batch - self._done(epoch)]
        epoch, rank = divmod(number * self._batch + row, self._counts[shape])
        return Slot(int(self._table(epoch)[shape][0][rank]), shape)

    def _done(self, epoch: int) -> int:
        """Batches that are complete before an epoch begins."""
        return sum(epoch * count // self._batch for count in self._counts)

    def _make_table(self, epoch: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each shape its images in the order of an epoch, and their places in the whole epoch."""
        rng = np.random.default_rng([self._seed, epoch])
        if self._repeats is None:
            order = rng.permutation(len(self._shapes))
        else:
            copies = np.zeros(len(self._shapes), np.int64)
            for shape in np.unique(self._shapes):
                own = self._shapes == shape
                count = self._counts[shape]
                copies[own] = balance.draw_copies(rng, self._repeats[own], count)
            order = rng.permutation(np.repeat(np.arange(len(copies)), copies))
        places = (np.flatnonzero(self._shapes[order] == s) for s in range(len(self._counts)))
        return [(order[place].astype(np.int32), place.astype(np.int32)) for place in places]

    def _make_batches(self, epoch: int) -> list[tuple[int, int]]:
        """Shape and number among those of its shape of each batch that an epoch completes."""
        found = []
        for shape, (count, (_, places)) in enumerate(zip(self._counts, self._table(epoch))):
            for number in range(epoch * count // self._batch, (epoch + 1) * count // self._batch):
                last = (number + 1) * self._batch - 1 - epoch * count
                found.append((places[last], shape, number))
        return [(shape, number) for _, shape, number in sorted(found)]


class EvalOrder:
    """Order of evaluation: every image once, shape by shape, each padded to whole batches.

    Within a shape, images keep the order of the source.
    """

    def __init__(self, shapes: np.ndarray, batch_size: int):
        """Lays out the order.

        Args:
            shapes: int [n], index of the shape of every image.
            batch_size: images of a batch.
        """
        rows: list[Slot] = []
        for shape in range(int(np.max(shapes)) + 1):
            rows += [Slot(int(image), shape) for image in np.flatnonzero(shapes == shape)]
            rows += [Slot(-1, shape)] * (-len(rows) % batch_size)
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int) -> Slot:
        return self._rows[place]
