"""Gathers detections on process 0 and passes every image to the evaluators exactly once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import jax
import numpy as np
from absl import logging

from jdet.evaluation.official import altered
from jdet.evaluation.results import Results
from jdet.parallel import broadcast
from jdet.types import Example, ImageDetections, Source


class Evaluator(Protocol):
    """Takes images one by one and returns metrics; made from the class names alone.

    Those that ``config.eval.metrics`` names (build kind ``evaluator``) may also have

    * ``settings``: name of a group of ``config.eval`` whose keys its constructor takes;
    * ``protocol``: what the metrics are, in one line, for ``report.json``;
    * ``per_class``: prefix → name of the mean, for metrics ``<prefix>/AP/<class>`` and ``<prefix>/<mean>``;
    * ``needs``: optional fields of ``Example`` that are compared, such as "masks"; others may be None;
    * ``curves()``: once all images are in, lists of numbers by slash names, ``{name: {"x": …, "y": …}}``.
    """

    def add(self, detections: ImageDetections, ground_truth: Example) -> None:
        """Takes what was found in one image, unthresholded, and its objects."""

    def result(self) -> dict[str, float]:
        """Metrics under slash names, the main one first; nan where nothing defines a number.

        With ``config.train.best_metric`` it is also called before training, on an evaluator that no image
        was added to, and must then return the same names.
        """


class SampleImages:
    """Keeps evenly spread images of the stream, for drawing; adds no numbers.

    Attributes:
        pairs: ``(detections, ground truth)`` of the images kept, in stream order.
    """

    def __init__(self, count: int, total: int):
        """Starts empty.

        Args:
            count: how many images to keep (fewer if there are fewer).
            total: how many images will come.
        """
        count = min(count, total)
        self._wanted = {i * total // count for i in range(count)}
        self._seen = 0
        self.pairs: list[tuple[ImageDetections, Example]] = []

    def wants_next(self) -> bool:
        """Whether the image to be added next is to be kept."""
        return self._seen in self._wanted

    def add(self, detections: ImageDetections, ground_truth: Example) -> None:
        """Counts one image and keeps it if its turn has come."""
        if self.wants_next():
            self.pairs.append((detections, ground_truth))
        self._seen += 1

    def result(self) -> dict[str, float]:
        """Nothing: images are not numbers."""
        return {}


Scored = tuple[int, ImageDetections, Example]
"""An image's index in the source, what was found in it, and the ground truth."""


class Gather:
    """Passes the images of all processes to the evaluators of process 0, and counts each."""

    GATHER_EVERY = 8  # batches; each time the processes wait for one another

    def __init__(
        self,
        source: Source,
        evaluators: Sequence[Evaluator],
        expected: int,
        results: Results | None = None,
    ):
        """Starts empty.

        Args:
            source: of the images.
            evaluators: of process 0; those of the others are not used, but for what they need.
            expected: number of images over all processes.
            results: given all detections on process 0.
        """
        self._source, self._evaluators, self.expected = source, evaluators, expected
        self._results = results
        self._masks = any("masks" in getattr(each, "needs", ()) for each in evaluators)
        self._seen = np.zeros(expected, int)
        self._objects = self._altered = 0
        self._alone = jax.process_count() == 1
        self._held: list[tuple[int, Scored]] = []
        self._batches = 0

    def check(self, index: np.ndarray) -> None:
        """Refuses images that were not to come."""
        if np.any(index >= self.expected) or np.any(index < 0):
            raise RuntimeError(
                f"the evaluation stream holds image {index.max()} of {self.expected} expected"
            )

    def add(self, images: Sequence[Scored]) -> None:
        """Takes what this process found in a batch."""
        classes = len(self._source.class_names)
        for _, found, _ in images:
            if len(found.labels) and found.labels.max() >= classes:
                raise ValueError(
                    f"the detector found label {found.labels.max()}, but the evaluation set has "
                    f"{classes} classes; it was trained on other classes"
                )
        self._batches += 1
        if self._alone:
            self._score(images)
            return
        for index, found, ground_truth in images:
            # Decoded images stay where they are; a path is worth as much on process 0.
            image = ground_truth.image if isinstance(ground_truth.image, str) else b""
            ground_truth = ground_truth._replace(image=image)
            if not self._masks:
                ground_truth = ground_truth.without_masks()
            self._held.append((self._batches, (index, found, ground_truth)))
        if self._batches % self.GATHER_EVERY == 0:
            self._flush()

    def _flush(self) -> None:
        parts = broadcast.gather(self._held)
        self._held = []
        if jax.process_index() == 0:  # in the order in which one process has them
            held = sorted((x for part in parts for x in part), key=lambda one: one[0])
            self._score([scored for _, scored in held])

    def _score(self, images: Sequence[Scored]) -> None:
        for index, found, ground_truth in images:
            self._seen[index] += 1
            self._altered += altered(ground_truth)
            self._objects += len((ground_truth.official or ground_truth).labels)
            if self._results is not None:
                self._results.add(index, found)
            for evaluator in self._evaluators:
                whole = ground_truth
                if not self._alone and isinstance(evaluator, SampleImages):
                    whole = self._source[index] if evaluator.wants_next() else ground_truth
                evaluator.add(found, whole)

    def result(self, unreadable: int) -> dict[str, float]:
        """The numbers, once every image was counted.

        Args:
            unreadable: images that this process's stream left out.
        """
        if not self._alone:
            self._flush()
        unreadable = sum(broadcast.gather(unreadable))
        return broadcast.from_main(lambda: self._result(unreadable))

    def _result(self, unreadable: int) -> dict[str, float]:
        missing, repeated = np.flatnonzero(self._seen == 0), np.flatnonzero(self._seen > 1)
        if len(repeated) or len(missing) != unreadable:
            raise RuntimeError(
                f"of {self.expected} images to evaluate, {len(missing)} were missing (index "
                f"{missing[:5].tolist()} …; {unreadable} could not be read) and {len(repeated)} came "
                f"more than once (index {repeated[:5].tolist()} …)"
            )
        if unreadable:
            logging.warning(
                "%d of %d images could not be read: not evaluated", unreadable, self.expected
            )
        if self._altered:
            logging.log_first_n(
                logging.WARNING,
                "the metrics are of the objects as labelled; %d of %d are not used so in training, which "
                "cuts boxes at the border and leaves out those without extent",
                1,
                self._altered,
                self._objects,
            )
        metrics: dict[str, float] = {}
        for evaluator in self._evaluators:
            metrics.update(evaluator.result())
        return metrics
