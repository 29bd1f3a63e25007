"""How well the anchors of a detector cover the objects of a data set, by class and size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jdet.data.batching import image_size
from jdet.data.tiles import RandomTile
from jdet.data.transforms.augment import Augment
from jdet.data.transforms.element import Element
from jdet.data.transforms.finish import locate, moved_objects
from jdet.data.transforms.resize import Resize
from jdet.ops.coverage import Coverage, Objects
from jdet.types import DataError, Source


def read_objects(
    source: Source,
    resize: Resize,
    *,
    augment: Augment | None = None,
    seed: int = 0,
    keep_ignored: bool = True,
    max_images: int = 0,
    max_boxes: int = 0,
    on_error: str = "raise",
    tile: RandomTile | None = None,
) -> Objects:
    """Reads the objects of a source; images are opened only if their size is not known otherwise.

    Args:
        source: where the examples come from.
        resize: what the network sees of images.
        augment: objects as this augmentation shows them in training, one draw per image. None: whole
            images, resized.
        seed: of the augmentation, and of the sample.
        keep_ignored: difficult and crowd objects count.
        max_images: look at a random sample of so many images at most; 0: all.
        max_boxes: stop when this many objects are there; 0: never.
        on_error: "raise", or "skip": images that cannot be read are left out.
        tile: look at a random tile of each image, as training sees it.

    Raises:
        ConfigError: the augmentation does not suit the resize.
        DataError: an image or label cannot be read.
    """
    chain = () if augment is None else augment.operations(resize).values()
    chain = (*([tile] if tile else []), *chain)
    side = tile.side if tile else 0
    order = np.random.default_rng(seed).permutation(len(source))[: max_images or None]
    found, total = [], 0
    for index in order.tolist():
        try:
            example = source[index]
            height, width = image_size(source, index, example)
        except DataError:
            if on_error == "raise":
                raise
            continue
        keep = np.flatnonzero(~np.asarray(example.ignore, bool) | keep_ignored)
        element = Element(
            index=index,
            id=example.id,
            # Its size is all that the geometric operations ask of the image.
            image=np.broadcast_to(np.uint8(0), (height, width, 3)),
            boxes=np.asarray(example.boxes, np.float32)[keep],
            labels=np.asarray(example.labels)[keep],
            ignore=np.asarray(example.ignore)[keep],
            shape=resize.shapes[
                resize.shape_of(*(min(length, side or length) for length in (height, width)))
            ],
        )
        rng = np.random.default_rng([seed, index])
        for operation in chain:
            element = operation(element, rng)
        boxes, inside = moved_objects(element, locate(element, resize))
        found.append((boxes[inside], element.labels[inside], np.full(len(inside), index)))
        total += len(inside)
        if max_boxes and total >= max_boxes:
            break
    if not found:
        return Objects(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, int))
    boxes, labels, images = (np.concatenate(column) for column in zip(*found))
    return Objects(boxes.astype(float), labels.astype(int), images)


def sampler(
    source: Source, resize: Resize, count: int = 2000, *, tile: RandomTile | None = None
) -> Callable[..., Objects]:
    """``objects(keep_ignored=…)``, a sample of the training objects for ``Detector.start_warning``.

    Args:
        source: training data.
        resize: what the network sees of images.
        count: objects, at most, of a fifth as many images.
        tile: as in ``read_objects``.
    """

    def objects(*, keep_ignored: bool) -> Objects:
        return read_objects(
            source,
            resize,
            keep_ignored=keep_ignored,
            max_images=count // 5,
            max_boxes=count,
            on_error="skip",  # training has its own way to tell
            tile=tile,
        )

    return objects


def summary(
    objects: Objects, coverage: Coverage, class_names: Sequence[str], threshold: float = 0.5
) -> list[dict[str, Any]]:
    """Numbers of every class, and of every size in it, largest last.

    Returns:
        Rows of ``class`` and ``sizes`` (text, "all" or pixels of the network input; size is the square
        root of the area), ``objects``, ``size`` (10th, 50th and 90th percentile), ``best_iou`` (mean),
        ``recall`` (share with a default box at the threshold), ``boxes`` (mean number of those) and
        ``shared`` (objects whose best box is another's best too). The last rows, of class "all", are
        over the classes.
    """
    scale = np.sqrt(np.prod(objects.boxes[:, 2:] - objects.boxes[:, :2], axis=-1))
    bins = np.floor(np.log2(np.maximum(scale, 1))).astype(int)
    rows = []
    for label, name in [*enumerate(class_names), (None, "all")]:
        own = np.ones(len(scale), bool) if label is None else objects.labels == label
        groups = [("all", own)]
        for power in np.unique(bins[own]):
            groups.append((f"{2**power} … {2 ** (power + 1)}", own & (bins == power)))
        for sizes, chosen in groups:
            if chosen.any():
                rows.append(
                    {"class": name, "sizes": sizes, **_numbers(scale, coverage, chosen, threshold)}
                )
    return rows


def _numbers(
    scale: np.ndarray, coverage: Coverage, chosen: np.ndarray, threshold: float
) -> dict[str, Any]:
    return {
        "objects": int(chosen.sum()),
        "size": np.percentile(scale[chosen], (10, 50, 90)).round(1).tolist(),
        "best_iou": float(coverage.best[chosen].mean()),
        "recall": float((coverage.best[chosen] >= threshold).mean()),
        "boxes": float(coverage.count[chosen].mean()),
        "shared": int(coverage.shared[chosen].sum()),
    }
