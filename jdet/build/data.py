"""What a config says of images: sources, resize and augmentation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jdet.build.groups import group, make
from jdet.config import image_settings, set_found
from jdet.data.mix import Mix
from jdet.data.readers.settings import USUAL, ImageSettings
from jdet.data.sources.holdout import Holdout
from jdet.data.sources.part import share_of
from jdet.data.sources.rebalanced import Rebalanced
from jdet.data.tiles import RandomTile
from jdet.data.transforms.augment import Augment
from jdet.data.transforms.resize import Resize
from jdet.types import ConfigError, ImageKind, Source


def resize(config: ConfigDict) -> Resize:
    """What the network sees of images: the group ``resize`` of a whole config.

    Raises:
        ConfigError: unknown name or key, or a value out of range.
    """
    made = make("resize", config.resize, "config.resize", input_size=config.input_size)
    if not isinstance(made, Resize):
        raise ConfigError(
            f"config.resize.name={config.resize.name!r} is not a resize; derive the class from "
            "jdet.data.transforms.resize.Resize"
        )
    return made


def augment(config: ConfigDict) -> Augment:
    """Random changes to images in training: the group ``augment`` of a whole config.

    Raises:
        ConfigError: unknown name or key, a value out of range, or an operation that does not suit the
            config's resize.
    """
    made = make("augment", config.augment, "config.augment")
    if not isinstance(made, Augment):
        raise ConfigError(
            f"config.augment.name={config.augment.name!r} is not an augmentation; derive the class from "
            "jdet.data.transforms.augment.Augment"
        )
    made.operations(resize(config))  # refuses here, before anything is compiled
    return made


def train_tile(config: ConfigDict) -> RandomTile | None:
    """The tile that training cuts out of every image: the group ``data.tile``; None where it is off."""
    group = config.data.tile
    return RandomTile(group.side, group.share, group.objects) if group.side else None


def train_mix(config: ConfigDict) -> Mix:
    """What of other images comes into an image in training: the group ``data.mix``."""
    return Mix(**config.data.mix.to_dict())


def folder_group(layout: str, root: Any, side: str, **values: Any) -> ConfigDict:
    """The config group of the source of a side of a folder, as ``jdet.data.discover`` found it.

    Args:
        layout: ``Found.shape``.
        root: the folder, or a reference to the key that has it, which the group then follows.
        side: ``Found.train`` or ``Found.evaluation``.
        **values: further fields of the source.

    Raises:
        ConfigError: the source has no such field.
    """
    if layout == "voc":
        return group("source", "voc", root=root, splits=side, **values)
    if layout == "coco":
        values = {"annotation_file": root + f"/{side}", "keep_masks": False, **values}
        return group("source", "coco", **values)
    return group("source", layout, root=root, split=side, **values)


def source(
    config: Mapping[str, Any],
    where: str,
    on_error: str = "raise",
    image: ImageSettings = USUAL,
) -> Source:
    """The data source of a config group such as ``config.data.train``.

    Args:
        config: the group.
        where: its key in the whole config, for messages.
        on_error: ``config.data.on_error``; a group may carry its own.
        image: ``config.data.image``.

    Raises:
        ConfigError: unknown name or key, or a class of one's own that takes no ``image_settings``.
        DataError: the data set is missing or contradicts itself.
    """
    extra = {} if "on_error" in config else {"on_error": on_error}
    made = make("source", config, where, image_settings=image, **extra)
    asked = dataclasses.replace(image, kind=None, invalid=None)  # which the pipeline sees to
    if not hasattr(made, "image_settings") and asked != USUAL:
        changed = ", ".join(
            f"{field.name}={getattr(asked, field.name)!r}"
            for field in dataclasses.fields(asked)
            if getattr(asked, field.name) != field.default
        )
        raise ConfigError(
            f"config.data.image asks for {changed}, which {where}.name={config['name']!r} does not take; "
            "leave it out, and let the class say what its images are (`image_kind`), or give the class a "
            "field `image_settings`"
        )
    return made


def look_at_images(config: ConfigDict, train: Source) -> None:
    """Writes down what the images of the training data are, for detector, evaluation and prediction.

    Args:
        config: with ``data.image.found``, which is filled in.
        train: the training data.
    """
    found = getattr(train, "image_survey", None)
    least_span = found.least_span if found is not None else 0.0
    pattern = getattr(train, "file_pattern", "")
    usual = found.measured if found is not None else None
    set_found(config, ImageKind.of(train), least_span, pattern, usual)


def sources(config: ConfigDict) -> tuple[Source, Source]:
    """The sources of training and of evaluation, whose images are of the same kind.

    Raises:
        ConfigError: unknown name or key.
        DataError: a data set is missing or contradicts itself.
    """
    on_error, image = config.data.on_error, image_settings(config)
    train = source(config.data.train, "config.data.train", on_error, image)
    if config.data.holdout:
        every = config.data.holdout
        train, evaluation = Holdout(train, every, False), Holdout(train, every, True)
    else:
        image = image.for_kind(ImageKind.of(train))
        evaluation = source(config.data.eval, "config.data.eval", on_error, image)
    share, threshold, side = config.data.share, config.data.repeat_threshold, config.data.tile.side
    train = train if share == 1 else share_of(train, share)
    repeats = threshold or side
    return (Rebalanced(train, threshold, side) if repeats else train), evaluation


def agreed_classes(config: ConfigDict, train: Source, evaluation: Source) -> tuple[str, ...]:
    """The class names that config, training and evaluation data share.

    Raises:
        ConfigError: one of them has others, or another order.
    """
    names = tuple(train.class_names)
    if tuple(evaluation.class_names) != names:
        raise ConfigError(
            f"config.data.train has the classes {', '.join(names)}, config.data.eval "
            f"{', '.join(evaluation.class_names)}; both must have the same, in the same order"
        )
    if config.class_names and tuple(config.class_names) != names:
        raise ConfigError(
            f"config.class_names is {', '.join(config.class_names)}, the data has {', '.join(names)}"
        )
    return names


def category_ids(config: ConfigDict, train: Source) -> tuple[int | str, ...]:
    """The id under which each class is written into COCO files: the data's own, else 1 … K.

    Raises:
        ConfigError: the config has other ids than the data, or not one for each class.
    """
    given, own = tuple(config.category_ids), tuple(getattr(train, "category_ids", ()))
    if given and (len(given) != len(config.class_names) or (own and own != given)):
        raise ConfigError(
            f"config.category_ids={given} does not fit the data, which has {own or 'no ids'} for "
            f"{', '.join(config.class_names)}; leave it empty to take what the data has"
        )
    return given or own or tuple(range(1, len(config.class_names) + 1))
