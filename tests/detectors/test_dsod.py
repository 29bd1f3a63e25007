import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet import build
from jdet.config import get_defaults
from jdet.types import ConfigError
from tests import harness
from tests.tiny_backbone import TINY

CLASSES = tuple("abcde")


DSOD = dict(name="dsod", width=0.125, blocks=(1, 2, 1), last_channels=256)


def make(size=96, body=DSOD, neck=(), **fields):
    c = get_defaults()
    c.input_size = size
    c.model = build.group(
        "detector",
        "ssd",
        backbone=build.group("backbone", **body),
        neck=build.group("neck", "dense_prediction", **(dict(width=0.125) | dict(neck))),
        l2norm_levels=-1,
        **fields,
    )
    return build.detector(c, CLASSES)


@pytest.mark.parametrize(
    "case",
    [
        dict(neck=dict(last_scale="2x2")),
        dict(
            norm="none",
            head_norm="none",
            body=dict(name=TINY, stages=("c3", "c4")),
            neck=dict(dense=False),
        ),
    ],
    ids=["dense_2x2", "plain_no_norm"],
)
def test_battery(case):
    harness.check_detector(lambda: make(**case), 96, len(CLASSES))


@functools.cache
def outputs(last_scale, size=300):
    model = make(size, neck=dict(last_scale=last_scale))
    layout = []

    def trace(images):
        offsets, logits, priors = model.init_with_output(jax.random.key(0), images, train=False)[0]
        layout.append(priors)
        return offsets, logits

    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.uint8)
    return (*jax.eval_shape(trace, images), layout[0])


def test_last_scale_changes_the_last_level_only():
    (one, _, single), (four, logits, spread) = outputs("1x1"), outputs("2x2")
    assert one.shape == (1, 8732, 4) and four.shape == (1, 8744, 4) and logits.shape == (1, 8744, 6)
    np.testing.assert_array_equal(single[:8728], spread[:8728])
    last = spread[8728:].reshape(2, 2, 4, 4)
    # The released code keeps the step of the 1×1 map: three of the four centres leave the image's middle.
    np.testing.assert_array_equal(last[..., 0], [[[150] * 4, [450] * 4]] * 2)
    np.testing.assert_array_equal(last[..., 1], [[[150] * 4] * 2, [[450] * 4] * 2])
    np.testing.assert_array_equal(last[..., 2:], np.broadcast_to(single[8728:, 2:], (2, 2, 4, 2)))


def test_2x2_map_between_others_has_its_own_step():
    model = make(512, neck=dict(last_scale="2x2"))
    assert model.level_sizes()[1] == [64, 32, 16, 8, 4, 2, 1]
    assert [x.step for x in model.anchor_levels()] == [8, 16, 32, 64, 128, 256, 512]


def test_every_level_has_a_learned_length():
    model = make(96)
    images = jnp.zeros((1, 96, 96, 3), jnp.uint8)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))["params"]
    norms = {name: leaf["scale"].shape for name, leaf in params.items() if "l2norm" in name}
    assert norms == {f"l2norm_{i}": (c,) for i, c in enumerate((34, 64, 64, 32))}


def test_wrong_values_are_config_errors():
    with pytest.raises(
        ConfigError, match=r"backbone.compression=2.0; it must be above 0 and at most 1"
    ):
        make(body=DSOD | dict(compression=2.0))
    with pytest.raises(ConfigError, match="width=0.0.*above 0"):
        make(neck=dict(width=0.0))
    with pytest.raises(ConfigError, match=r"config.model.neck: .*last_scale='2'"):
        make(neck=dict(last_scale="2"))
