"""The input streams of a config, as far as this process reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from jdet import build
from jdet.data import pipeline
from jdet.data.batching import image_sizes
from jdet.data.tiles import TileRow, tile_rows
from jdet.data.transforms.multi_scale import View
from jdet.evaluation.tiling import TileMerger, Tiling
from jdet.types import DataError, ImageKind, Source


def train_batches(
    config: ConfigDict,
    source: Source,
    start: int = 0,
    *,
    needs: Sequence[str] = (),
    others: Source | None = None,
) -> pipeline.BatchStream:
    """The training batches from batch ``start`` on, with the optional fields that a detector ``needs``.

    Images that are mixed into those of ``source`` come from ``others``, where it is there.
    """
    return pipeline.train_batches(
        source,
        resize=build.resize(config),
        augment=build.augment(config),
        batch_size=config.train.batch_size,
        seed=config.seed,
        start=start,
        min_usable=config.data.min_usable,
        mask_size=config.data.mask_size if "masks" in needs else 0,
        values=build.normalise.image_values(config, ImageKind.of(source)),
        tile=build.train_tile(config),
        mix=build.train_mix(config),
        others=others,
        **_options(config),
    )


def check_masks(config: ConfigDict, source: Source, role: str, who: str) -> None:
    """Refuses data in which no object has a mask.

    Args:
        config: complete config.
        source: the data.
        role: "train" or "eval", its group in ``config.data``.
        who: what needs masks, such as "config.model.name='mask_rcnn'".

    Raises:
        DataError: says how to come by masks.
    """
    known = getattr(source, "has_masks", None)
    if known is None:  # a source from outside that does not say
        examples = (source[i].masks or () for i in range(len(source)))
        known = any(mask is not None for masks in examples for mask in masks)
    if known:
        return
    group = config.data[role] if not config.data.holdout else config.data.train
    name = "train" if config.data.holdout else role
    remedy = (
        "take annotations with `segmentation` (COCO), a VOC folder with SegmentationObject, or a detector "
        "and metrics of boxes alone"
    )
    if not group.get("keep_masks", True):
        remedy = (
            f"set --config.data.{name}.keep_masks=True, or, where the labels have none, {remedy}"
        )
    raise DataError(
        f"{who} needs the objects' masks, and no object of config.data.{name} ({group.name}) has one; "
        f"{remedy}"
    )


def eval_batches(
    config: ConfigDict, source: Source, mesh: Any, views: Sequence[View] = ()
) -> pipeline.BatchStream:
    """The evaluation set once.

    Args:
        config: complete config.
        source: of the images.
        mesh: the devices that a batch is split over; None: on the host alone.
        views: the network inputs of multi-scale testing; empty: one, by ``config.resize``.
    """
    return pipeline.eval_batches(
        source,
        resize=None if views else build.resize(config),
        views=views,
        batch_size=eval_batch_size(config, mesh),
        limit=config.eval.max_images,
        values=build.normalise.image_values(config, ImageKind.of(source)),
        **_options(config),
    )


def tile_stream(
    config: ConfigDict, source: Source, mesh: Any, tiling: Tiling
) -> tuple[pipeline.BatchStream, TileMerger, float]:
    """The evaluation set once in tiles, with what puts their detections together.

    Args:
        config: complete config.
        source: of the images.
        mesh: the devices that a batch is split over.
        tiling: how images are cut.

    Returns:
        The batches of this process, their merger, and rows per image on average.
    """
    stream, rows, sizes = tile_batches(config, source, mesh, tiling)
    per_image = len(rows) * jax.process_count() / eval_images(config, source)
    return stream, TileMerger(tiling, rows, sizes), per_image


def tile_batches(
    config: ConfigDict, source: Source, mesh: Any, tiling: Tiling, *, objects: bool = False
) -> tuple[pipeline.BatchStream, list[TileRow], list[tuple[int, int]]]:
    """The evaluation set once in tiles.

    Args:
        config: complete config.
        source: of the images.
        mesh: the devices that a batch is split over; None: on the host alone.
        tiling: how images are cut.
        objects: tiles come with their objects, each as an image of its own (``TileReader``).

    Returns:
        The batches of this process, their rows in order, and the sizes of all images.
    """
    count, batch_size = eval_images(config, source), eval_batch_size(config, mesh)
    options = _options(config)
    sizes = image_sizes(source, count, config.data.on_error)
    process, processes = (options.pop(f"process_{what}") for what in ("index", "count"))
    resize = build.resize(config)
    dealt = tile_rows(
        sizes,
        resize,
        side=tiling.side,
        overlap=tiling.overlap,
        local=batch_size // processes,
        processes=processes,
    )
    if not objects:
        options["max_boxes"] = 0
    stream = pipeline.tile_batches(
        source,
        dealt[process],
        resize=resize,
        batch_size=batch_size,
        process_count=processes,
        count=count,
        values=build.normalise.image_values(config, ImageKind.of(source)),
        **options,
    )
    return stream, dealt[process], sizes


def eval_images(config: ConfigDict, source: Source) -> int:
    """How many images an evaluation has."""
    return min(len(source), config.eval.max_images) or len(source)


def eval_batch_size(config: ConfigDict, mesh: Any) -> int:
    """Images of a batch: ``eval.batch_size``, brought up to a multiple of the devices, if there are any."""
    devices = 1 if mesh is None else mesh.size
    return -(-config.eval.batch_size // devices) * devices


def _options(config: ConfigDict) -> dict[str, Any]:
    """What all streams share."""
    keys = ("max_boxes", "workers", "threads", "prefetch", "on_error")
    return {
        **{key: config.data[key] for key in keys},
        "process_index": jax.process_index(),
        "process_count": jax.process_count(),
    }
