"""A trained run, loaded to find objects in images."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from jdet import build
from jdet import config as config_lib
from jdet.data.transforms.multi_scale import prepare_views
from jdet.evaluation import tta as tta_lib
from jdet.evaluation.detect import DetectFn, to_images
from jdet.evaluation.multi_scale import MultiScale
from jdet.train import state
from jdet.train.workdir import open_run
from jdet.types import Batch, ConfigError, ImageDetections

Views = tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]  # of ``prepare_views``


class Started(NamedTuple):
    """A batch on the device.

    Attributes:
        found: of the network, or of all passes.
        sizes: of the image's content, int32 [B, 2], or one for every view.
        rows: which of the images handed in these are.
    """

    found: Any
    sizes: Any
    rows: list[int]


class Predictor:
    """The detector of a run with its weights, compiled for one batch size.

    Attributes:
        class_names: K names, in label order.
        category_ids: the training data's own id of each label; label + 1 where it has none.
        resize: what the network sees of images.
        step: optimiser steps the weights have taken.
        batch_size: images per call of the network.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        *,
        step: int | str = "latest",
        batch_size: int = 8,
        tta: str | Mapping[str, Any] = "none",
    ):
        """Loads a run.

        Args:
            workdir: folder of the run.
            step: of the checkpoint; "latest", as for evaluations, or "best" by the run's metric.
            batch_size: images per call; a last, smaller batch is padded, not recompiled.
            tta: multi-scale testing: a preset, "run" for what the run's config says, or values for
                the group ``config.eval.tta``.

        Raises:
            ConfigError: there is no run, no such step can be meant, or multi-scale testing cannot be
                or needs more memory than there is.
            CheckpointError: there is no such checkpoint, or it cannot be read.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size}: at least 1")
        run = open_run(workdir)
        config, weights = run.config, run.weights(step)
        self.class_names = tuple(config.class_names)
        # Ids of the training data, which may have holes, such as COCO's.
        ids = config.get("category_ids") or range(1, len(self.class_names) + 1)
        self.category_ids = tuple(ids)
        self.resize = build.resize(config)
        self.step = weights.step
        self.batch_size = batch_size
        self._detect = DetectFn(build.detector(config, self.class_names))
        self._variables = jax.device_put(state.eval_variables(weights, config.eval.use_ema))
        settings = tta_lib.settings(_tta_group(config, tta))
        self._looking = None
        if settings is not None:
            self._looking = MultiScale(self._detect, settings, self.resize)
            self._looking.prepare(self._variables, batch_size)

    def prepare(self, image: np.ndarray) -> Views:
        """An image uint8 [H, W, 3] in every size the network will see it in, for ``start``."""
        if self._looking:
            return prepare_views(image, self._looking.views)
        image, size = self.resize.prepare(image)
        return (image,), (size,)

    def start(self, prepared: Sequence[Views]) -> list[Started]:
        """Detects in up to ``batch_size`` prepared images; returns before the device is done.

        Args:
            prepared: from ``prepare``.

        Returns:
            A batch for every shape that the images have.
        """
        shapes: dict[tuple[int, ...], list[int]] = {}
        for row, (images, _) in enumerate(prepared):
            shapes.setdefault(images[0].shape, []).append(row)
        return [self._start(prepared, rows) for rows in shapes.values()]

    def _start(self, prepared: Sequence[Views], rows: list[int]) -> Started:
        images, sizes = (
            tuple(self._pad(column) for column in zip(*field, strict=True))
            for field in zip(*(prepared[row] for row in rows), strict=True)
        )
        if self._looking:
            return Started(self._looking.detect(self._variables, images, sizes), sizes, rows)
        return Started(self._detect(self._variables, images[0], sizes[0]), sizes[0], rows)

    def _pad(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        batch = np.zeros((self.batch_size, *rows[0].shape), rows[0].dtype)
        batch[: len(rows)] = rows
        return batch

    def finish(
        self, started: Sequence[Started], names: Sequence[str], sizes: Sequence[tuple[int, int]]
    ) -> list[ImageDetections]:
        """Waits for detections and maps them to the original images.

        Args:
            started: from ``start``.
            names: what to call the images.
            sizes: height and width of each original.
        """
        found: dict[int, ImageDetections] = {}
        for batch in started:
            own = [names[row] for row in batch.rows], [sizes[row] for row in batch.rows]
            found.update(zip(batch.rows, self._finish(batch, *own), strict=True))
        return [found[row] for row in range(len(names))]

    def _finish(
        self, started: Started, names: Sequence[str], sizes: Sequence[tuple[int, int]]
    ) -> list[ImageDetections]:
        rows, spare = len(names), self.batch_size - len(names)
        original = np.array([*sizes, *[(1, 1)] * spare], np.int32)
        real = np.arange(self.batch_size) < rows
        batch = Batch.of_images(None, started.sizes, original_sizes=original, real=real)
        move = self._looking.to_images if self._looking else to_images
        return move(started.found, batch, [*names, *[""] * spare])


def _tta_group(config: ConfigDict, tta: str | Mapping[str, Any]) -> dict[str, Any]:
    """The group ``eval.tta`` for what was asked; validated like a config's.

    Raises:
        ConfigError: a key or value that cannot be.
    """
    if tta != "run":
        given = {"preset": tta} if isinstance(tta, str) else dict(tta)
        config.eval.tta = ConfigDict({**config_lib.get_defaults().eval.tta.to_dict(), **given})
    config_lib.validate(config)
    return config.eval.tta.to_dict()
