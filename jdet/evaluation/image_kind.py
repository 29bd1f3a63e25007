"""Images of evaluation and prediction must be what a run was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jdet import build
from jdet import config as config_lib
from jdet.data.readers import range_check
from jdet.data.readers.decoder import Decoder, described
from jdet.data.readers.survey import describe as describe_survey
from jdet.data.readers.survey import usual_bounds
from jdet.types import ConfigError, DataError, ImageKind, Source

SETTINGS = ("channels", "dtype", "bands", "palette", "alpha", "invalid")
"""Keys of ``config.data.image`` that say what becomes of the files."""


def of_run(config: ConfigDict, trained: ConfigDict, workdir: str | Path) -> ConfigDict:
    """A config under which a run is evaluated, with the images and the normalisation of the training.

    Args:
        config: not changed.
        trained: the run's own.
        workdir: of the run, for messages.

    Raises:
        ConfigError: it makes something else of images.
    """
    ours, theirs = config.data.image, trained.data.image
    different = [
        f"config.data.image.{key}={ours[key]!r} (trained with {theirs[key]!r})"
        for key in SETTINGS
        if ours[key] != theirs[key]
    ]
    for key in ("by", "range"):
        own, was = config.data.normalise[key], trained.data.normalise[key]
        if own != was:
            different.append(f"config.data.normalise.{key}={own!r} (trained with {was!r})")
    if different:
        raise ConfigError(
            f"the config makes other images than the run in {workdir} was trained on: "
            f"{', '.join(different)}; set these as the run has them"
        )
    config = config.copy_and_resolve_references()
    config.data.image.found = theirs.found.copy_and_resolve_references()
    build.normalise.adopt(config, trained)
    return config


def check(config: ConfigDict, source: Source, what: str) -> None:
    """Refuses a set whose images are of another kind, or in another unit, than those of training.

    Images one by one are held against the kind where they are read.

    Args:
        config: with ``data.image.found``.
        source: the set.
        what: to call it.

    Raises:
        DataError: names what differs.
    """
    trained, here = config_lib.image_kind(config), ImageKind.of(source)
    if here[:3] != trained[:3]:
        raise DataError(
            f"{what}: its images are {described(here)}, those of training {described(trained)}; evaluate "
            "on images as were trained on, or train again on such as these"
        )
    found = getattr(source, "image_survey", None)
    if found is None or found.measured is None:
        return
    least_span = config.data.image.found.least_span
    usual = config_lib.trained_range(config)
    if wrong := range_check.wrong_values(found.measured, usual, least_span):
        raise DataError(f"{what}: its images have {wrong}")


def describe(source: Source) -> list[str]:
    """What the images of a source are and what becomes of them, a line each."""
    found = getattr(source, "image_survey", None)
    if found is None:
        return [str(ImageKind.of(source))]
    return [describe_survey(found, len(source)), *found.notes]


class ImageCheck:
    """Reads images for a trained run, and refuses others than it was trained on.

    Attributes:
        decoder: of the run's images.
        files: pattern of the files of an image; "" where each is one.
    """

    def __init__(self, config: ConfigDict) -> None:
        """Takes what a run has found of its images.

        Args:
            config: of the run.
        """
        settings = config_lib.image_settings(config)
        self.decoder = Decoder(config_lib.image_kind(config), settings)
        self.files = config.data.image.files or config.data.image.found.files
        self._least_span = config.data.image.found.least_span
        self._trained = config_lib.trained_range(config)

    def read(self, image: Any, name: str = "") -> np.ndarray:
        """An image of any files as the network takes it, [H, W, C].

        Raises:
            DataError: it cannot be read, or is of another kind than the training's.
        """
        return self.decoder(image, name)

    def check(self, image: np.ndarray, name: str) -> None:
        """Holds values against those of training.

        Raises:
            DataError: channels, type or range are others.
        """
        kind = self.decoder.kind
        shape = image.ndim == 3 and image.shape[2] == kind.channels and image.size
        if not shape or image.dtype != kind.dtype:
            raise DataError(
                f"image {name!r} is {image.dtype} {list(image.shape)}; the run was trained on "
                f"{described(kind)}: give such images, or train again on images like this one"
            )
        if kind.dtype == "uint8":
            return
        bounds = usual_bounds(image, self.decoder.settings.invalid)
        wrong = bounds and range_check.wrong_values(bounds, self._trained, self._least_span)
        if wrong:
            raise DataError(f"image {name!r} has {wrong}")
