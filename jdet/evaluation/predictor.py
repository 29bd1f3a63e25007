"""A trained run, loaded to find objects in images.

predictor = Predictor("RUN")
for found in predictor(images):  # uint8 [H, W, 3] RGB, or what the run was trained on; of any sizes
print(found.boxes, found.scores, found.labels)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from jdet import build
from jdet import config as config_lib
from jdet.data.invalid import filled
from jdet.data.tiles import Tile
from jdet.data.transforms.multi_scale import prepare_views
from jdet.evaluation import loaders, tta, weights
from jdet.evaluation import results as results_lib
from jdet.evaluation.detect import DetectFn, Moved, moved, one_ahead, to_images
from jdet.evaluation.display import Display
from jdet.evaluation.image_kind import ImageCheck
from jdet.evaluation.multi_scale import MultiScale
from jdet.evaluation.tiling import Tiling
from jdet.parallel import mesh as mesh_lib
from jdet.train import state
from jdet.train.workdir import open_run
from jdet.types import Batch, ConfigError, DataError, ImageDetections

T = TypeVar("T")

LOOK_AHEAD = 32
"""Batches that may be done before an image whose shape is rare; its batch is then padded. At most one
padded batch per shape in so many keeps the network's work within a few percent of what is needed."""


class Prepared(NamedTuple):
    """An image in every size in which the network will see it, or all of its tiles.

    Attributes:
        id: what to call it.
        original_size: height and width of the original.
        images: [H, W, C] for each network input; of tiles, in the order of ``Tiling.tiles``.
        sizes: of its content, int32 [2] for each network input, zeros where it is not in one.
    """

    id: str
    original_size: tuple[int, int]
    images: tuple[np.ndarray, ...]
    sizes: tuple[np.ndarray, ...]

    def shown(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the inputs that show the image; those of a batch must agree to waste nothing."""
        return tuple(
            image.shape if size.any() else ()
            for image, size in zip(self.images, self.sizes, strict=True)
        )


class Predictor:
    """The detector of a run with its weights, compiled for one batch size.

    Attributes:
        class_names: K names, in label order.
        category_ids: the training data's own id of each label; label + 1 where it has none.
        folder: of the run (of the phase, where it has phases).
        resize: what the network sees of images.
        images: reads them, and refuses others than were trained on.
        display: makes images for people of them.
        config: of the run.
        values: what the values of images mean.
        tiling: how images are cut into tiles; None: they are shown whole.
        detector: the module.
        variables: its weights and statistics.
        step: optimiser steps the weights have taken.
        batch_size: images per call of the network.
        precise_bn: training batches over which the statistics of batch norms were measured; 0: they are
            the running ones.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        *,
        step: int | str = "latest",
        batch_size: int = 8,
        tta: str | Mapping[str, Any] = "none",
        precise_bn: bool | None = None,
        phase: str = "",
        tile: int | None = None,
        tile_overlap: int | None = None,
    ):
        """Loads a run.

        Args:
            workdir: folder of the run.
            step: of the checkpoint; "latest", as for evaluations, or "best" by the run's metric.
            batch_size: images per call; a smaller batch is padded, not recompiled.
            tta: multi-scale testing: a preset, "run" for what the run's config says, or values for
                the group ``config.eval.tta``.
            precise_bn: measure the statistics of batch norms over the run's training data, as its
                evaluations do by ``config.eval.precise_bn``. None: where the run does so and its data can
                be read, with a warning where it cannot; False: never.
            phase: of a run with phases; "": the last that is finished, or, where none is, that has begun.
            tile: side of the tiles in which images are shown, pixels; 0: whole images, None: as the run's
                config says (``config.eval.tile``).
            tile_overlap: of tiles, pixels; None: as the run's config says.

        Raises:
            ConfigError: there is no such run, phase or step, multi-scale testing is invalid or needs more
                memory than there is, or ``precise_bn`` is asked of a run that has none.
            CheckpointError: there is no such checkpoint, or it cannot be read.
            DataError: ``precise_bn`` is asked for, and the training data cannot be read.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size}: at least 1")
        run = open_run(workdir, phase)
        config, saved = run.config, run.weights(step)
        self.config, self.folder = config, run.path
        self.class_names = tuple(config.class_names)
        self.category_ids = results_lib.category_ids(self.class_names, config.category_ids)
        self.resize = build.resize(config)
        self.images = ImageCheck(config)
        kind = self.images.decoder.kind
        self.display = Display.of(config, kind)
        self.values = build.normalise.image_values(config, kind)
        self.step = saved.step
        self.batch_size = batch_size
        settings = _tta_settings(config, tta, tile, tile_overlap)
        self.tiling = Tiling.of(config.eval.tile)
        variables = None if precise_bn is False else _measured(config, saved, bool(precise_bn))
        self.precise_bn = 0 if variables is None else config.eval.precise_bn
        if variables is None:
            variables = state.eval_variables(saved, config.eval.use_ema)
        self.detector = build.detector(config, self.class_names)
        self._detect = DetectFn(self.detector)
        self.variables = self._detect.fold(jax.device_put(variables))
        self._multi_scale = None
        if settings is not None:
            self._multi_scale = MultiScale(self._detect, settings, self.resize)
            self._multi_scale.prepare(self.variables, batch_size)

    def __call__(
        self, images: Iterable[np.ndarray], ids: Sequence[str] | None = None
    ) -> list[ImageDetections]:
        """Detects in images in memory.

        Args:
            images: [H, W, C] as the run was trained on (``images.decoder.kind``), of any sizes.
            ids: what to call them; None: by their places, from "0" on.

        Returns:
            One record per image, in order; every detection that the run's own threshold lets through,
            in pixels of the image.

        Raises:
            DataError: an image has other channels, another type or range than those of training.
            ValueError: there are not as many ids.
        """
        images = list(images)
        names = [str(i) for i in range(len(images))] if ids is None else list(ids)
        prepared = (self.prepare(image, name) for image, name in zip(images, names, strict=True))
        return list(in_order(self.detect(prepared)))

    def prepare(self, image: np.ndarray, id: str = "") -> Prepared:
        """An image [H, W, C] in every size the network will see it in, for ``detect``.

        Raises:
            DataError: it has other channels, another type or range than those of training.
        """
        self.images.check(image, id)
        image = filled(image, self.values.invalid, self.values.neutral)
        height, width = image.shape[:2]
        if self.tiling:
            tiles = self.tiling.tiles(height, width)
            shown = [self.resize.prepare(tile.cut(image)) for tile in tiles]
            images, sizes = zip(*shown, strict=True)
        elif self._multi_scale:
            images, sizes = prepare_views(image, self._multi_scale.views, self.images.decoder.kind)
        else:
            pixels, size = self.resize.prepare(image)
            images, sizes = (pixels,), (size,)
        return Prepared(id, (height, width), images, sizes)

    def detect(self, images: Iterable[Prepared]) -> Iterator[tuple[int, ImageDetections]]:
        """Detects in a stream of images, in batches of one shape each.

        Batches are filled across the stream, so an image of a rare shape waits for others of its shape,
        but not for more than ``LOOK_AHEAD`` batches. The device works on one batch while the results of
        the one before are used.

        Args:
            images: from ``prepare``, read as they are needed.

        Yields:
            Place of an image in the stream and its detections, as soon as they are there; ``in_order``
            sorts them.
        """
        if self.tiling is not None:
            yield from self._detect_tiles(self.tiling, images)
            return
        for rows, found in one_ahead(self._batches(images), self._start):
            move = self._multi_scale.to_images if self._multi_scale else to_images
            yield from zip(
                [number for number, _ in rows], self._finish(rows, found, move), strict=True
            )

    def _detect_tiles(
        self, tiling: Tiling, images: Iterable[Prepared]
    ) -> Iterator[tuple[int, ImageDetections]]:
        """As ``detect``, tile by tile."""
        places: dict[int, tuple[int, Tile]] = {}  # of tiles in the stream, of those on their way
        waiting: dict[int, tuple[Prepared, list[tuple[Tile, Moved]]]] = {}

        def tiles() -> Iterator[Prepared]:
            count = 0
            for number, image in enumerate(images):
                waiting[number] = image, []
                cuts = tiling.tiles(*image.original_size)
                for tile, pixels, size in zip(cuts, image.images, image.sizes, strict=True):
                    places[count] = number, tile
                    count += 1
                    yield Prepared("", (tile.height, tile.width), (pixels,), (size,))

        for rows, found in one_ahead(self._batches(tiles()), self._start):
            for (place, _), part in zip(rows, self._finish(rows, found, moved), strict=True):
                number, tile = places.pop(place)
                image, parts = waiting[number]
                parts.append((tile, part))
                if len(parts) == len(image.images):
                    del waiting[number]
                    yield number, tiling.merge(parts, image.original_size, image.id).pasted()

    def _batches(self, images: Iterable[Prepared]) -> Iterator[list[tuple[int, Prepared]]]:
        """Images with their places in the stream, up to ``batch_size`` of one shape at a time."""
        waiting: dict[Any, list[tuple[int, Prepared]]] = {}  # in the order of their first images
        for number, image in enumerate(images):
            shape = image.shown()
            waiting.setdefault(shape, []).append((number, image))
            if len(waiting[shape]) == self.batch_size:
                yield waiting.pop(shape)
            if waiting:
                oldest = next(iter(waiting))
                if waiting[oldest][0][0] <= number - LOOK_AHEAD * self.batch_size:
                    yield waiting.pop(oldest)
        yield from waiting.values()

    def _start(self, rows: Sequence[tuple[int, Prepared]]) -> Any:
        images, sizes = (
            tuple(self._pad(column) for column in zip(*field, strict=True))
            for field in ([p.images for _, p in rows], [p.sizes for _, p in rows])
        )
        if self._multi_scale:
            return sizes, self._multi_scale.detect(self.variables, images, sizes)
        return sizes[0], self._detect(self.variables, images[0], sizes[0])

    def _pad(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        batch = np.zeros((self.batch_size, *rows[0].shape), rows[0].dtype)
        batch[: len(rows)] = rows
        return batch

    def _finish(
        self,
        rows: Sequence[tuple[int, Prepared]],
        started: Any,
        move: Callable[[Any, Batch, Sequence[str]], list[T]],
    ) -> list[T]:
        sizes, found = started
        spare = self.batch_size - len(rows)
        original = np.array([*(p.original_size for _, p in rows), *[(1, 1)] * spare], np.int32)
        real = np.arange(self.batch_size) < len(rows)
        batch = Batch.of_images(None, sizes, original_sizes=original, real=real)
        return move(found, batch, [*(p.id for _, p in rows), *[""] * spare])


def in_order(found: Iterable[tuple[int, T]]) -> Iterator[T]:
    """Values by their numbers 0, 1, 2, …; what comes early is kept until its turn."""
    early: dict[int, T] = {}
    turn = 0
    for number, value in found:
        early[number] = value
        while turn in early:
            yield early.pop(turn)
            turn += 1


def _measured(config: ConfigDict, saved: Any, required: bool) -> dict[str, Any] | None:
    """Variables whose statistics are measured as the run's evaluations measure them.

    Args:
        config: of the run.
        saved: its weights.
        required: fail where it cannot be done.

    Returns:
        The variables; None where the run measures none, or, after a warning, where its training data
        cannot be read or its batches do not fit the devices here.
    """
    wanted = config.eval.precise_bn
    if not wanted:
        if required:
            raise ConfigError(
                "precise_bn is asked for, but the run has config.eval.precise_bn=0 and is evaluated with "
                "its running statistics; leave it out"
            )
        return None
    try:
        source, _ = build.sources(config)
        mesh = mesh_lib.make_mesh(config)
        detector = build.detector(config, config.class_names, axis_name="member")
        measure = weights.make_weights(
            config,
            detector,
            mesh,
            lambda: loaders.train_batches(config, source, needs=detector.needs),
        )
        return jax.device_get(measure(saved))
    except (ConfigError, DataError) as error:
        if required:
            raise
        logging.warning(
            "The run's evaluations measure the statistics of batch norms over %d training batches "
            "(config.eval.precise_bn). That cannot be done here (%s): the running statistics of the "
            "training are used, and detections differ from those that were evaluated. precise_bn=False "
            "(--no-precise_bn) takes them without this warning.",
            wanted,
            error,
        )
        return None


def _tta_settings(
    config: ConfigDict, given: str | Mapping[str, Any], tile: int | None, overlap: int | None
) -> tta.Settings | None:
    """The passes of what was asked for; checked like those of a config, which gets the tiles asked for.

    Raises:
        ConfigError: a key or value that is invalid.
    """
    if given != "run":
        values = {"preset": given} if isinstance(given, str) else dict(given)
        config.eval.tta = ConfigDict({**config_lib.get_defaults().eval.tta.to_dict(), **values})
    for key, value in (("side", tile), ("overlap", overlap)):
        if value is not None:
            config.eval.tile[key] = value
    config_lib.validate(config)
    return tta.settings(config.eval.tta.to_dict())
