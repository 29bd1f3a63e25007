"""Collects the images of an evaluation while it runs, and writes ``analysis.json`` at its end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from jdet.analyse import records
from jdet.analyse.compute import analyse
from jdet.analyse.scored import ScoredImage
from jdet.evaluation.results import IMAGES
from jdet.types import Example, ImageDetections


class Analyser:
    """Takes images as an evaluator does, and adds no metrics."""

    def __init__(self, class_names: Sequence[str]):
        """Starts empty.

        Args:
            class_names: K names, in label order.
        """
        self._classes = tuple(class_names)
        self._images: list[ScoredImage] = []

    def add(self, detections: ImageDetections, ground_truth: Example) -> None:
        """Keeps what was found in an image and its objects, but not the image."""
        self._images.append(ScoredImage.of(detections, ground_truth, ground_truth.id))

    def result(self) -> dict[str, float]:
        """Nothing: what is found goes into the file."""
        return {}

    def write(self, folder: Path, step: int) -> None:
        """Analyses all images and writes ``analysis.json``.

        Args:
            folder: of the run, which holds ``images.json`` of this evaluation already.
            step: optimiser steps the evaluated weights have taken.
        """
        index = json.loads((folder / IMAGES).read_text(encoding="utf-8"))
        ids = {image["name"]: image["id"] for image in index["images"]}
        images = [image._replace(id=ids[image.name]) for image in self._images]
        records.write(folder, analyse(images, self._classes, step=step))
