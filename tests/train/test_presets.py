"""Settings of a family of backbones, and what a run is warned of at its start."""

import re

import pytest

from jdet import build
from jdet.config import get_defaults, validate
from jdet.train import presets, schedule


def config(backbone="c2c2t6t2", **values):
    c = get_defaults()
    c.input_size = 64
    c.model = build.group(
        "detector",
        "fcos",
        backbone=build.group("backbone", backbone, **values),
        neck=build.group("neck", "fpn", extra="conv_p5"),
    )
    c.train.batch_size, c.train.steps = 16, 10_000
    return c


def warnings(c):
    validate(c)
    peak = schedule.resolve(c, 100, devices=1).peak_lr
    return presets.warnings(c, build.detector(c, ("a",)), peak)


def test_a_transformer_by_its_preset_needs_no_warning():
    c = config()
    presets.apply(c.optimizer, "transformer")
    assert (c.optimizer.name, c.optimizer.weight_decay) == ("adamw", 0.05)
    assert schedule.resolve(c, 100, devices=1).peak_lr == 1e-4
    assert warnings(c) == []
    c.optimizer.lr = 1e-3  # as small networks take it
    assert warnings(c) == []
    c.optimizer.lr = 2e-3
    assert "reaches 0.002, 20 times what" in "".join(warnings(c))
    with pytest.raises(ValueError, match="'transformers'.*did you mean 'transformer'"):
        presets.apply(c.optimizer, "transformers")


def test_sgd_on_a_transformer_is_warned_of_and_the_remedy_is_the_preset():
    c = config()
    (text,) = warnings(c)
    assert "config.model.backbone has transformer stages" in text
    for key, value in re.findall(r"--config\.optimizer\.(\w+)=(\S+)", text):
        c.optimizer[key] = type(c.optimizer[key])(value)
    assert warnings(c) == []
    assert c.optimizer.lr == presets.PRESETS["transformer"]["lr"]


def test_convolutions_may_have_sgd():
    assert warnings(config("hybrid", spec="C1-C1-C1-C1")) == []
    assert warnings(config("resnet", depth=18)) == []


def test_blocks_that_start_as_shortcuts_are_for_fine_tuning():
    c = config("resnet", depth=18, zero_init=True)
    (text,) = warnings(c)
    assert "--config.model.backbone.zero_init=False" in text
    c.init_from.path = "runs/other"
    assert warnings(c) == []
