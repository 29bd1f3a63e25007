"""The streams of a config, as far as a contact sheet needs them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jdet import build
from jdet.browse.sheets import Sheet, write_sheets
from jdet.data.pipeline import BatchStream
from jdet.data.sources.part import Part
from jdet.data.tiles import TileRow
from jdet.evaluation import loaders
from jdet.evaluation.display import Display
from jdet.evaluation.tiling import Tiling
from jdet.types import Batch, ConfigError, ImageKind, Source, nearest

ROWS = 6
"""Images of which several draws are shown, where none are named."""


def browse(
    config: ConfigDict,
    out: Path,
    *,
    images: int = 16,
    draws: int = 5,
    only: Sequence[str] = (),
    side: int = 320,
    suffix: str = "jpg",
) -> list[str]:
    """Writes the contact sheets of a config.

    Args:
        config: a whole config; not changed.
        out: folder that gets them; made if missing.
        images: of each stream.
        draws: of each image that is drawn several times; 0: none is.
        only: names of the images that are drawn several times; empty: ``ROWS``, evenly over the set.
        side: longer side of each image on a sheet, pixels.
        suffix: "jpg" or "png".

    Returns:
        Lines for people: what was written, and what the batches hold.

    Raises:
        ConfigError: the config is invalid, or names of ``only`` do not exist.
        DataError: the data set is missing or contradicts itself, or an image cannot be read.
    """
    config = config.copy_and_resolve_references()
    build.augment(config)  # refuses a bad one before any data is read
    train, evaluation = build.sources(config)
    build.look_at_images(config, train)
    with config.unlocked():
        config.class_names = build.agreed_classes(config, train, evaluation)
    build.normalise.settle(config, train)
    detector: Any = build.class_of(build.resolve("detector", config.model.name))
    needs = detector.needs
    kind = ImageKind.of(train)
    sheet = Sheet(config.class_names, Display.of(config, kind), side)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--out={out} cannot be made ({error.strerror}); name a folder"
        ) from error

    lines = build.normalise.describe(config, kind)
    with loaders.train_batches(config, train, needs=needs) as stream:
        lines += _stream(stream, train, sheet, images, out / f"train_batches.{suffix}", config)
    if draws:
        chosen = _named(train, only) if only else _evenly(train, ROWS)
        grid = _draws(config, train, chosen, draws, needs)
        tiles = [sheet.tile(*one, train) if one else None for row in grid for one in row]
        path = out / f"train_draws.{suffix}"
        lines += write_sheets(path, tiles, columns=draws, rows=len(chosen))
    parts: Sequence[TileRow] = ()
    if (tiling := Tiling.of(config.eval.tile)) is None:
        stream = loaders.eval_batches(config, evaluation, None)
    else:
        stream, parts, _ = loaders.tile_batches(config, evaluation, None, tiling, objects=True)
    path = out / f"eval_batches.{suffix}"
    with stream:
        lines += _stream(stream, evaluation, sheet, images, path, config, parts)
    return lines


def _stream(
    stream: BatchStream,
    source: Source,
    sheet: Sheet,
    images: int,
    path: Path,
    config: ConfigDict,
    tiles: Sequence[TileRow] = (),
) -> list[str]:
    """Draws the first images of a stream, or its ``tiles``, and says what its first batch holds."""
    drawn, first, begin = [], None, 0
    for batch in stream:
        first = batch if first is None else first
        rows = [row for row in range(len(batch.real)) if batch.real[row]]
        for row in rows[: images - len(drawn)]:
            part = tiles[begin + row].tile if tiles else None
            drawn.append(sheet.tile(batch, row, source, part))
        begin += len(batch.real)
        if len(drawn) >= images:
            break
    lines = write_sheets(path, drawn)
    if first is not None:
        lines.append(f"  {_describe(first, config)}")
    report = stream.report()
    lines += [f"  left out: {reason}" for reason in report.skipped.values()]
    if report.dropped_boxes:
        lines.append(
            f"  {report.crowded} images with more than config.data.max_boxes={config.data.max_boxes} "
            f"objects lost {report.dropped_boxes}"
        )
    return lines


def _describe(batch: Batch, config: ConfigDict) -> str:
    """A batch in a line: shape, type, and the values that the network computes with."""
    detector: Any = build.class_of(build.resolve("detector", config.model.name))
    mean, std = (config.model.get(key) or getattr(detector, key) for key in ("mean", "std"))
    values = (batch.images[batch.real].astype(np.float32) - np.array(mean)) / np.array(std)
    values = values[np.isfinite(values)]
    shape = "×".join(map(str, batch.images.shape))
    figures = "no values"
    if values.size:
        figures = (
            f"values {values.min():.3g} … {values.max():.3g}, mean {values.mean():.3g}, standard "
            f"deviation {values.std():.3g} once normalised"
        )
    return (
        f"first batch {shape}, {batch.images.dtype}: {int(batch.valid.sum())} objects, "
        f"{int(batch.ignore.sum())} of them ignored; {figures}"
    )


def _evenly(source: Source, most: int) -> list[int]:
    """Places of at most so many images, of those with objects where there are some."""
    places = np.unique(np.linspace(0, len(source) - 1, 4 * most).round().astype(int)).tolist()
    some = [place for place in places if len(source[place].boxes)] or places
    return [some[i] for i in np.unique(np.linspace(0, len(some) - 1, most).round().astype(int))]


def _named(source: Source, names: Sequence[str]) -> list[int]:
    """Places of the images of these names.

    Raises:
        ConfigError: one does not exist.
    """
    ids = getattr(source, "ids", None) or [source[i].id for i in range(len(source))]
    places = {id: place for place, id in enumerate(ids)}
    for name in names:
        if name not in places:
            raise ConfigError(f"--only={name}: no training image is called so{nearest(name, ids)}")
    return [places[name] for name in dict.fromkeys(names)]


def _draws(
    config: ConfigDict, source: Source, places: Sequence[int], draws: int, needs: Sequence[str]
) -> list[list[tuple[Batch, int] | None]]:
    """Several draws of some images: a batch of one image for each of them and each draw.

    They are the epochs of a stream over these images alone, whose random operations are those of the run;
    what is mixed into them comes from all images.
    Where the augmentation put another image in place of one, there is None.
    """
    names = {source[place].id for place in places}
    part = Part(source, names.__contains__, places)
    single = config.copy_and_resolve_references()
    with single.unlocked():
        single.train.batch_size, single.data.workers = 1, 0
    found: list[list[tuple[Batch, int] | None]] = [[] for _ in places]
    with loaders.train_batches(single, part, needs=needs, others=source) as stream:
        for batch in itertools.islice(stream, len(places) * draws):
            place = int(batch.index[0])
            found[place].append((batch._replace(index=np.array([places[place]])), 0))
    return [[*row, *[None] * draws][:draws] for row in found]
