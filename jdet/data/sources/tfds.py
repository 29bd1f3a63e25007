"""TFDS: any prepared detection data set with an ``objects`` feature, read without TensorFlow."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jdet.data.find_images import expanded
from jdet.data.readers.settings import USUAL, ImageSettings
from jdet.data.sources.annotations import (
    LabelBuilder,
    Object,
    check_classes,
    read_image_size,
    unknown_class,
)
from jdet.data.sources.labelled import LabelledSource
from jdet.types import DataError

# Per-object flags that mean "neither reward nor penalise", as VOC and COCO name them in TFDS.
_IGNORE_KEYS = ("is_difficult", "is_crowd")

# Features that may name an image, best first.
_ID_KEYS = ("image/id", "image_id", "image/filename", "filename")

_READ_AHEAD = 64  # records per read while the labels are collected


def yxyx_to_xyxy(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """TFDS's relative ymin xmin ymax xmax → x1 y1 x2 y2 in pixels, both [..., 4].

    Args:
        boxes: coordinates in 0 … 1.
        size: height and width of the image in pixels.
    """
    scale = np.array([size[1], size[0]] * 2, np.asarray(boxes).dtype)
    return np.asarray(boxes)[..., [1, 0, 3, 2]] * scale


class TfdsSource(LabelledSource):
    """Images and boxes of a data set that TFDS has prepared in the array_record format.

    The features must hold ``image`` and a sequence ``objects`` with ``bbox`` (relative ymin xmin
    ymax xmax) and ``label``; ``is_difficult`` and ``is_crowd`` mean ``ignore``, ``area`` is taken
    over. Only the prepared files are read, never the code that made them, so that data sets whose
    builders need TensorFlow (VOC and COCO do) can be prepared elsewhere. Records hold images and
    labels together: the constructor reads all of them once, at the speed of the disk.

    Args:
        dataset: name as for ``tfds.load``: ``"voc/2007"``, ``"my_set:1.0.0"``.
        split: ``"train"``, ``"train[:80%]"`` or another split that TFDS understands.
        data_dir: folder of the prepared data sets; TFDS's own default if None.
        classes: class names in the order of the labels; those of the label feature if None.
        image_settings: what the config says of images.

    Raises:
        DataError: tensorflow_datasets is not installed, the data set or split is not there or is
            stored in another format, features are missing, or a class is not in ``classes``.
    """

    def __init__(
        self,
        dataset: str,
        split: str,
        data_dir: str | os.PathLike | None = None,
        classes: Sequence[str] | None = None,
        image_settings: ImageSettings = USUAL,
    ):
        self.image_settings = image_settings
        self.name = f"TFDS {dataset}:{split}"
        self._where = (dataset, split, None if data_dir is None else str(expanded(data_dir)))
        self._reader: _Reader | None = _Reader(*self._where)
        names = self._reader.class_names
        self.class_names = names if classes is None else check_classes(classes, "TfdsSource")
        label_of = {name: label for label, name in enumerate(self.class_names)}
        labels = [label_of.get(name) for name in names]  # TFDS's label → ours

        ids, sizes, objects = [], [], []
        for index, (id, image, found) in enumerate(self._reader):
            for label in found["label"]:
                where = f"{self.name}, record {index}"
                if not 0 <= label < len(names):  # -1 is TFDS's "no label"
                    raise DataError(f"{where}: an object has the label {label} of {len(names)}")
                if labels[label] is None:
                    raise unknown_class(names[label], self.class_names, where)
            size = read_image_size(image) if isinstance(image, bytes) else image.shape[:2]
            ids.append(id)
            sizes.append(size)
            objects.append(_objects(found, size, labels))
        if not ids:
            raise DataError(f"{self.name}: the split holds no images")
        if len(set(ids)) < len(ids):  # names of files need not be unique in TFDS
            ids = [str(index) for index in range(len(ids))]
        builder = LabelBuilder(self.name)
        for id, size, rows in zip(ids, sizes, objects, strict=True):
            builder.add(id, size, rows)
        self._table = builder.build(self.class_names)

    def _image(self, index: int) -> bytes | np.ndarray:
        if self._reader is None:
            self._reader = _Reader(*self._where)
        return self._reader.image(index)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None}


def _objects(found: dict[str, Any], size: tuple[int, int], labels: list) -> list[Object]:
    relative = np.array(found["bbox"], np.float64).reshape(-1, 4)
    boxes = yxyx_to_xyxy(relative, size)
    ignore = np.zeros(len(boxes), bool)
    for key in _IGNORE_KEYS:
        ignore |= np.array(found.get(key, ignore), bool)
    areas = found.get("area", [None] * len(boxes))
    return [
        Object(tuple(box), (box[2] - box[0], box[3] - box[1]), written, labels[label], flag, area)
        for box, written, label, flag, area in zip(
            boxes.tolist(), relative.tolist(), found["label"], ignore.tolist(), areas, strict=True
        )
    ]


class _Reader:
    """Open record files of one split. Opened again in every process; never pickled."""

    def __init__(self, name: str, split: str, data_dir: str | None):
        try:
            import tensorflow_datasets as tfds
        except ImportError as error:
            raise DataError(
                f"{name!r} is of tensorflow_datasets, which is missing ({error}); to read it, pip install "
                "--editable '.[tfds]' in the clone"
            ) from error
        from tensorflow_datasets.core import read_only_builder

        where = f"TFDS data set {name!r}"
        there = f" --data_dir={shlex.quote(data_dir)}" if data_dir else ""
        prepare = (
            f"Prepare it once with `tfds build {name} --file_format=array_record{there}`; the builders of "
            "VOC and COCO need TensorFlow for that, reading does not"
        )
        try:
            builder = read_only_builder.builder_from_files(name, data_dir=data_dir)
        except (tfds.core.DatasetNotFoundError, OSError, ValueError) as error:
            looked = data_dir or tfds.core.constants.DATA_DIR
            raise DataError(f"{where} is not in {looked}. {prepare}.") from error
        splits = ", ".join(builder.info.splits)
        try:
            self._records: Any = builder.as_data_source(
                split=split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
            )
        except (KeyError, ValueError) as error:
            raise DataError(f"{where} has no split {split!r}; there are {splits}") from error
        except NotImplementedError as error:
            raise DataError(
                f"{where} in {builder.data_path} is stored as {builder.info.file_format.value}, "
                f"which has no random access. {prepare}."
            ) from error

        features = builder.info.features
        inner: Any = getattr(features["objects"], "feature", {}) if "objects" in features else {}
        readable = "image" in features and isinstance(inner, tfds.features.FeaturesDict)
        if not readable or "bbox" not in inner or "label" not in inner:
            raise DataError(
                f"{where} is not a detection data set that can be read: it needs the features "
                "`image` and `objects` (a sequence with `bbox` and `label`), and has "
                f"{', '.join(sorted(features))}"
            )
        bbox_format = getattr(inner["bbox"], "bbox_format", None) or "REL_YXYX"
        if getattr(bbox_format, "name", bbox_format) != "REL_YXYX":
            raise DataError(
                f"{where}: `objects/bbox` has the format {bbox_format}; expected REL_YXYX"
            )
        self.class_names = _label_names(inner["label"], where)

        # Parse only what is needed: other features may not decode without TensorFlow.
        keys = [k for k in ("bbox", "label", "area", *_IGNORE_KEYS) if k in inner]
        self._id_key = next((key for key in _ID_KEYS if key in features), None)
        named = {self._id_key: features[self._id_key]} if self._id_key else {}
        sequence = tfds.features.Sequence({key: inner[key] for key in keys})
        encoded = isinstance(features["image"], tfds.features.Image)
        self._decoders = {"image": tfds.decode.SkipDecoding()} if encoded else None
        image = {"image": features["image"]}
        self._image_features = tfds.features.FeaturesDict(image)
        self._features = tfds.features.FeaturesDict({**image, **named, "objects": sequence})

    def image(self, index: int) -> bytes | np.ndarray:
        """The encoded bytes, or uint8 [H, W, C] where the pixels are stored as a tensor."""
        record = self._records[index]
        return self._parse(self._image_features, record)["image"]

    def _parse(self, features: Any, record: bytes) -> dict[str, Any]:
        return features.deserialize_example_np(record, decoders=self._decoders)

    def __iter__(self) -> Iterator[tuple[str, bytes | np.ndarray, dict[str, Any]]]:
        """Yields name, image and objects of each record."""
        n = len(self._records)
        for first in range(0, n, _READ_AHEAD):
            indices = range(first, min(first + _READ_AHEAD, n))
            for index, record in zip(indices, self._records.__getitems__(indices), strict=True):
                example = self._parse(self._features, record)
                id = example[self._id_key] if self._id_key else index
                if isinstance(id, bytes):
                    id = os.path.splitext(os.path.basename(id.decode()))[0]
                yield str(id), example["image"], example["objects"]


def _label_names(feature: Any, where: str) -> tuple[str, ...]:
    if not getattr(feature, "num_classes", None):
        raise DataError(f"{where}: `objects/label` is not a class label with a known list")
    return tuple(feature.int2str(label) for label in range(feature.num_classes))
