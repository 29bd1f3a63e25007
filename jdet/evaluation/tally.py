"""Every picture of an evaluation counted once and scored in one place, whoever looked at it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import jax
import numpy as np
from absl import logging

from jdet.hosts import exchange
from jdet.types import Example, PictureDetections, Source


class Evaluator(Protocol):
    """Takes pictures one by one, answers with numbers under slash names."""

    def add(self, detections: PictureDetections, truth: Example) -> None: ...  # noqa: D102

    def result(self) -> dict[str, float]: ...  # noqa: D102


class KeepPictures:
    """Keeps evenly spread pictures of the stream, for drawing; adds no numbers.

    Attributes:
        pairs: ``(detections, truth)`` of the pictures kept, in stream order.
    """

    def __init__(self, count: int, total: int):
        """Starts empty.

        Args:
            count: how many pictures to keep (fewer if there are fewer).
            total: how many pictures will come.
        """
        count = min(count, total)
        self._wanted = {i * total // count for i in range(count)}
        self._seen = 0
        self.pairs: list[tuple[PictureDetections, Example]] = []

    def wants_next(self) -> bool:
        """Whether the picture to be added next is to be kept."""
        return self._seen in self._wanted

    def add(self, detections: PictureDetections, truth: Example) -> None:
        """Counts one picture and keeps it if its turn has come."""
        if self.wants_next():
            self.pairs.append((detections, truth))
        self._seen += 1

    def result(self) -> dict[str, float]:
        """Nothing: pictures are not numbers."""
        return {}


Scored = tuple[int, PictureDetections, Example]
"""A picture's index in the source, what was found in it, and the truth."""


class Tally:
    """Hands the pictures of all processes to the evaluators of process 0, and counts each."""

    GATHER_EVERY = 8  # batches; each time the processes wait for one another

    def __init__(self, source: Source, evaluators: Sequence[Evaluator], expected: int):
        """Starts empty.

        Args:
            source: of the pictures.
            evaluators: of process 0; those of the others are not used.
            expected: number of pictures over all processes.
        """
        self._source, self._evaluators, self.expected = source, evaluators, expected
        self._seen = np.zeros(expected, int)
        self._alone = jax.process_count() == 1
        self._held: list[tuple[int, Scored]] = []
        self._batches = 0

    def check(self, index: np.ndarray) -> None:
        """Refuses pictures that were not to come."""
        if np.any(index >= self.expected) or np.any(index < 0):
            raise RuntimeError(
                f"the evaluation stream holds picture {index.max()} of {self.expected} expected"
            )

    def add(self, pictures: Sequence[Scored]) -> None:
        """Takes what this process found in a batch."""
        classes = len(self._source.class_names)
        for _, found, _ in pictures:
            if len(found.labels) and found.labels.max() >= classes:
                raise ValueError(
                    f"the detector found label {found.labels.max()}, but the evaluation set has "
                    f"{classes} classes; it was trained on other classes"
                )
        self._batches += 1
        if self._alone:
            self._score(pictures)
            return
        for index, found, truth in pictures:
            # Decoded pictures stay where they are; a path is worth as much on process 0.
            image = truth.image if isinstance(truth.image, str) else b""
            scored = index, found, truth._replace(image=image, masks=None)
            self._held.append((self._batches, scored))
        if self._batches % self.GATHER_EVERY == 0:
            self._flush()

    def _flush(self) -> None:
        parts = exchange.gather(self._held)
        self._held = []
        if jax.process_index() == 0:  # in the order in which one process has them
            held = sorted((x for part in parts for x in part), key=lambda one: one[0])
            self._score([scored for _, scored in held])

    def _score(self, pictures: Sequence[Scored]) -> None:
        for index, found, truth in pictures:
            self._seen[index] += 1
            for evaluator in self._evaluators:
                whole = truth
                if not self._alone and isinstance(evaluator, KeepPictures):
                    whole = self._source[index] if evaluator.wants_next() else truth
                evaluator.add(found, whole)

    def result(self, unreadable: int) -> dict[str, float]:
        """The numbers, once every picture was counted.

        Args:
            unreadable: pictures that this process's stream left out.
        """
        if not self._alone:
            self._flush()
        unreadable = sum(exchange.gather(unreadable))
        return exchange.from_main(lambda: self._result(unreadable))

    def _result(self, unreadable: int) -> dict[str, float]:
        missing, repeated = np.flatnonzero(self._seen == 0), np.flatnonzero(self._seen > 1)
        if len(repeated) or len(missing) != unreadable:
            raise RuntimeError(
                f"of {self.expected} pictures to evaluate, {len(missing)} were missing (index "
                f"{missing[:5].tolist()} …; {unreadable} could not be read) and {len(repeated)} came "
                f"more than once (index {repeated[:5].tolist()} …)"
            )
        if unreadable:
            logging.warning(
                "%d of %d pictures could not be read: not evaluated", unreadable, self.expected
            )
        metrics: dict[str, float] = {}
        for evaluator in self._evaluators:
            metrics.update(evaluator.result())
        return metrics
