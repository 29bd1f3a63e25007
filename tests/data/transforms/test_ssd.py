"""Keys of the augmentation, and its operations by name."""

import numpy as np
import pytest

from jdet import build
from jdet.config import get_defaults
from jdet.data.transforms.augment import Augment
from jdet.data.transforms.element import Element
from jdet.data.transforms.keep_ratio import KeepRatio
from jdet.data.transforms.ssd import SSDAugment
from jdet.data.transforms.warp import Warp
from jdet.types import ConfigError


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("flip", 1.5, "config.augment.flip=1.5; it must be in 0 … 1"),
        (
            "interpolation",
            "bicubic",
            "config.augment.interpolation='bicubic'.*one of random, linear",
        ),
        ("expand_ratio", 0.5, "config.augment.expand_ratio=0.5.*1 … 16"),
        ("crop_scale", 0.0, "config.augment.crop_scale=0.0"),
        ("mean", (1.0, 2.0), "config.augment.mean=.*three numbers"),
        ("zoom", 2, "config.augment.zoom is not a field.*it has"),
        ("name", "sdd", "augment 'sdd' does not exist, did you mean 'ssd'"),
    ],
)
def test_wrong_settings_are_named(key, value, words):
    c = get_defaults()
    c.augment[key] = value
    with pytest.raises(ConfigError, match=words):
        build.augment(c)


def test_defaults_of_the_config_are_those_of_the_class():
    c = get_defaults()
    assert c.augment == build.group("augment", "ssd")
    assert build.augment(c) == SSDAugment()
    assert c.resize == build.group("resize", "warp") and build.resize(c) == Warp(c.input_size)
    c.augment = build.group("augment", "none")
    assert c.augment.to_dict() == {"name": "none", "mean": (123.0, 117.0, 104.0)}
    assert build.augment(c) == Augment()


def test_operations_come_in_order_and_the_resize_draws_last():
    plain = ["photometric", "expand", "crop", "interpolation", "flip"]
    assert list(SSDAugment().operations(Warp(32))) == plain
    turned = SSDAugment(crop=False, flip_vertical=0.5, rotate=0.5).operations(Warp(32))
    assert list(turned) == [
        *("photometric", "expand", "interpolation", "flip"),
        *("flip_vertical", "rotate"),
    ]
    assert list(SSDAugment().operations(KeepRatio())) == [*plain, "scale"]
    assert Augment().operations(KeepRatio()) == {}


def test_each_operation_notes_its_decision_alone():
    element = Element(image=np.zeros((40, 60, 3), np.uint8))
    certain = SSDAugment(flip=1.0, flip_vertical=1.0, rotate=1.0, interpolation="nearest")
    fields = {
        "photometric": "distortion",
        "expand": "canvas",
        "interpolation": "interpolation",
        "flip": "orientation",
        "flip_vertical": "orientation",
        "rotate": "orientation",
    }
    chain = certain.operations(Warp(32))
    for name, field in fields.items():
        after = chain[name](element, np.random.default_rng(0))
        changed = [f for f in Element._fields if getattr(after, f) is not getattr(element, f)]
        assert changed == [field]
    turned = chain["rotate"](
        chain["flip"](element, np.random.default_rng(0)), np.random.default_rng(0)
    )
    assert turned.orientation == (True, False, True)
