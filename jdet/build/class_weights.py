"""Weights of classes in the loss: ``config.train.class_weights``, and what it becomes for some data.

The result stands in the config, so that a stored config says all of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from jdet.data import balance
from jdet.types import ConfigError, Source


def settle_class_weights(config: ConfigDict, train: Source) -> None:
    """Fills in weights that follow from the training data.

    Args:
        config: whole; changed.
        train: the training data.
    """
    group = config.train.class_weights
    if group.by in ("none", "given"):
        return
    objects = balance.occurrence(train).objects
    with config.unlocked():
        group.factors = balance.class_weights(objects, group.by, group.beta)


def class_weights(config: ConfigDict, count: int) -> tuple[float, ...]:
    """The weights of the classes; () where there are none.

    Weights that are yet to be found count as 1.

    Args:
        config: whole.
        count: K.

    Raises:
        ConfigError: there are not as many weights as classes.
    """
    group = config.train.class_weights
    given = tuple(map(float, group.factors))
    if group.by == "none":
        return ()
    if given and len(given) != count:
        raise ConfigError(
            f"config.train.class_weights.factors={given} has {len(given)} numbers for {count} classes; "
            "give one for each"
        )
    return given or (1.0,) * count


def describe_class_weights(config: ConfigDict, class_names: Sequence[str]) -> str:
    """One line, the largest weights first; "" where there are none."""
    weights = class_weights(config, len(class_names))
    if not weights:
        return ""
    order = np.argsort(-np.array(weights), kind="stable")
    named = (f"{class_names[k]} {weights[k]:.4g}" for k in order)
    return f"class weights in the loss ({config.train.class_weights.by}): {', '.join(named)}"
