"""What a config says of images: sources, resize and augmentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jdet.build.groups import make
from jdet.data.sources.holdout import Holdout
from jdet.data.transforms.augment import Augment
from jdet.data.transforms.resize import Resize
from jdet.types import ConfigError, Source


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


def source(config: Mapping[str, Any], where: str, on_error: str = "raise") -> Source:
    """The data source of a config group such as ``config.data.train``.

    Args:
        config: the group.
        where: its key in the whole config, for messages.
        on_error: ``config.data.on_error``; a group may carry its own.

    Raises:
        ConfigError: unknown name or key.
        DataError: the data set is missing or contradicts itself.
    """
    extra = {} if "on_error" in config else {"on_error": on_error}
    return make("source", config, where, **extra)


def sources(config: ConfigDict) -> tuple[Source, Source]:
    """The sources of training and of evaluation.

    Raises:
        ConfigError: unknown name or key.
        DataError: a data set is missing or contradicts itself.
    """
    train = source(config.data.train, "config.data.train", config.data.on_error)
    if config.data.holdout:
        every = config.data.holdout
        return Holdout(train, every, False), Holdout(train, every, True)
    return train, source(config.data.eval, "config.data.eval", config.data.on_error)
