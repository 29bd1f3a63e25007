"""The splits of a data set that is examined, and their objects in flat arrays."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jdet import build
from jdet.config import get_defaults, image_settings
from jdet.data.batching import image_size
from jdet.data.discover import all_splits
from jdet.doctor.findings import Place, corners
from jdet.types import DataError, Source


class Objects(NamedTuple):
    """The objects of a split, m in n images, as training takes them.

    Attributes:
        image: int [m], index of each object's image.
        boxes: float64 [m, 4], x1 y1 x2 y2 in pixels of the original images.
        labels: int [m], 0 … K-1.
        ignore: bool [m], difficult or crowd.
        sizes: float64 [n, 2], heights and widths of the images; nan where they cannot be read.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    sizes: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """Objects of each image, int [n]."""
        return np.bincount(self.image, minlength=len(self.sizes))

    @property
    def sides(self) -> np.ndarray:
        """Width and height of each box, float64 [m, 2]."""
        return self.boxes[:, 2:] - self.boxes[:, :2]


class Split(NamedTuple):
    """Some images of a set.

    Attributes:
        name: what it is called.
        source: its images.
        trained: a training would see them.
        objects: of all images.
        ids: names of the images.
        files: their paths; "" where an image is no file.
    """

    name: str
    source: Source
    trained: bool
    objects: Objects
    ids: tuple[str, ...]
    files: tuple[str, ...]

    def place(self, index: int, rows: Iterable[int] | None = ()) -> Place:
        """An image of it, with some of its objects.

        Args:
            index: of the image.
            rows: of ``objects``; None: all objects of the image.
        """
        index = int(index)
        boxes, labels = None, ()
        if rows is not None:
            chosen = np.asarray(list(rows), int)
            boxes = corners(self.objects.boxes[chosen])
            labels = tuple(self.objects.labels[chosen].tolist())
        return Place(self.name, index, self.ids[index], self.files[index], boxes, labels)


def of_source(name: str, source: Source, trained: bool) -> Split:
    """Reads the labels of a split; images are opened only where their sizes are not known otherwise."""
    columns: list[list[np.ndarray]] = [[], [], []]
    counts, ids, files = [], [], []
    sizes = np.full((len(source), 2), np.nan)
    for index in range(len(source)):
        example = source[index]
        try:
            sizes[index] = image_size(source, index, example)
        except DataError:  # told where the image is read
            pass
        for column, field in zip(columns, (example.boxes, example.labels, example.ignore)):
            column.append(np.asarray(field))
        counts.append(len(example.boxes))
        ids.append(example.id)
        image = example.image
        first = image[0] if isinstance(image, tuple) else image
        files.append(os.fspath(first) if isinstance(first, (str, os.PathLike)) else "")
    boxes, labels, ignore = (
        np.concatenate(column) if column else np.zeros(0) for column in columns
    )
    objects = Objects(
        image=np.repeat(np.arange(len(counts)), counts),
        boxes=boxes.reshape(-1, 4).astype(np.float64),
        labels=labels.astype(int),
        ignore=ignore.astype(bool),
        sizes=sizes,
    )
    return Split(name, source, trained, objects, tuple(ids), tuple(files))


def of_config(config: ConfigDict) -> tuple[ConfigDict, list[Split]]:
    """The training and the evaluation data of a config.

    Args:
        config: a whole config, not changed. Images and labels that cannot be used are left out and listed
            whatever its ``data.on_error`` says.

    Returns:
        The config with what was found of the images, and its two splits.

    Raises:
        ConfigError: it is invalid.
        DataError: a data set is missing or contradicts itself.
    """
    config = config.copy_and_resolve_references()
    config.data.on_error = "skip"
    train, evaluation = build.sources(config)
    build.look_at_images(config, train)
    with config.unlocked():
        config.class_names = build.agreed_classes(config, train, evaluation)
    return config, [of_source("train", train, True), of_source("eval", evaluation, False)]


def of_folder(path: str) -> tuple[ConfigDict, list[Split]]:
    """All splits of a folder of labelled images.

    Returns:
        The default config with the first split as its training data and images as the files have them, and
        the splits.

    Raises:
        DataError: it holds no labelled images, or they contradict themselves.
    """
    config = get_defaults()
    config.data.on_error = "skip"
    config.data.image.channels = "auto"
    layout, sides = all_splits(path)
    for name in [name for name in sides if name.startswith("trainval")]:
        rest = name.removeprefix("trainval")
        if f"train{rest}" in sides and f"val{rest}" in sides:  # which it is made of
            del sides[name]
    order = sorted(sides, key=lambda name: ("train" not in name, name))
    groups: dict[str, Any] = {name: build.folder_group(layout, path, sides[name]) for name in order}
    classes = _classes(config, groups)
    image = image_settings(config)
    splits = []
    for number, (name, group) in enumerate(groups.items()):
        if classes and "classes" in group:
            group.classes = classes
        source = build.source(group, path, "skip", image)
        if not number:
            config.data.train = config.data.eval = group
            build.look_at_images(config, source)
        splits.append(of_source(name or "all", source, not number or name.startswith("train")))
    with config.unlocked():
        config.class_names = tuple(splits[0].source.class_names)
    return config, splits


def _classes(config: ConfigDict, groups: dict[str, Any]) -> tuple[str, ...]:
    """The class names of all splits together, where they differ; else ()."""
    image = image_settings(config)
    named: Sequence[tuple[str, ...]] = [
        tuple(build.source(group, "PATH", "skip", image).class_names) for group in groups.values()
    ]
    if len(set(named)) == 1:
        return ()
    return tuple(dict.fromkeys(name for names in named for name in names))
