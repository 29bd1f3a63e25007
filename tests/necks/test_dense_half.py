"""The neck of which half is reused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet import build
from jdet.config import get_defaults
from jdet.necks.dense_half import DenseHalf
from jdet.necks.fpn import FPN
from tests import harness

TAPS = ("c3", "c4", "c5")
WIDTHS = (6, 8, 10)


def stages(size=40):
    rng = np.random.default_rng(0)
    return {
        tap: jnp.asarray(
            rng.normal(size=(1, -(-size // 2**i), -(-size // 2**i), width)), jnp.float32
        )
        for tap, width, i in zip(TAPS, WIDTHS, (3, 4, 5))
    }


def test_half_of_a_level_is_the_level_below():
    """The finest level is that of a pyramid; reused halves are pooled from it on, learned ones not."""
    neck = DenseHalf(TAPS, channels=8, extra=2)
    maps = stages()
    variables = harness.initialise(neck, maps, train=False)
    run = jax.jit(lambda params: neck.apply({"params": params}, maps, train=False))
    levels = run(variables["params"])
    assert [level.shape[1:] for level in levels] == [(n, n, 8) for n in (5, 3, 2, 1, 1)]
    assert [level.shape[1] for level in levels[3:]] == neck.extra_sizes(2)

    pyramid = FPN(TAPS, channels=8, extra="none")
    params = variables["params"]
    shared = {f"lateral_{tap}": params[f"lateral_{tap}"] for tap in TAPS}
    shared |= {f"output_{tap}": params["output_c3"] for tap in TAPS}
    finest = pyramid.apply({"params": shared}, maps, train=False)[0]
    np.testing.assert_allclose(levels[0], finest, atol=1e-6)

    for i, below in enumerate(levels[:-1], start=2):
        kernel = params[f"level{i}_reused"]["conv"]["kernel"][0, 0]
        pooled = jnp.max(below[:, :2, :2], axis=(1, 2)) @ kernel
        np.testing.assert_allclose(levels[i - 1][:, 0, 0, 4:], pooled, atol=1e-5)
    # The tap of a level enters its learned half.
    params = {**params, "level3_c5": jax.tree.map(jnp.zeros_like, params["level3_c5"])}
    without = run(params)
    assert jnp.any(without[2][..., :4] != levels[2][..., :4])
    np.testing.assert_array_equal(without[2][..., 4:], levels[2][..., 4:])


def test_taps_must_halve():
    with pytest.raises(ValueError, match=r"model.taps=\('c3', 'c5'\).*twice its stride"):
        DenseHalf(("c3", "c5"))


def test_a_detector_of_the_parts_has_the_shapes_of_swin():
    """Strides and widths are those of FCOS on Swin-T; building holds every level against them."""
    c = get_defaults()
    c.input_size = 64
    found = []
    for backbone, neck in (("swin_t_dsod", "dense_half"), ("swin_t", "fpn")):
        extra = {} if neck == "dense_half" else dict(extra="conv_p5")
        c.model = build.group(
            "detector",
            "fcos",
            backbone=build.group("backbone", backbone, spec="T1-T1-T1-T1"),
            neck=build.group("neck", neck, **extra),
            norm="group",
        )
        detector = build.detector(c, ("a",))
        images = jax.ShapeDtypeStruct((1, 70, 90, 3), jnp.float32)
        found.append(
            jax.eval_shape(
                lambda x, d=detector: d.init_with_output(
                    jax.random.key(0), x, train=False, method="levels"
                )[0],
                images,
            )
        )
    assert found[0] == found[1] and len(found[0]) == 5
