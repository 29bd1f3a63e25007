"""The first layer of every backbone takes the channels that the images have."""

import functools

import jax
import numpy as np
import pytest

from jdet import build
from jdet import config as config_lib
from jdet.config import get_defaults
from jdet.describe import describe, to_json
from jdet.interop.torchvision import from_torchvision
from jdet.train.state import abstract_variables, zero_batch
from jdet.types import ConfigError, ImageKind

BANDS = ImageKind(5, "bands", "uint16", (0.0, 4095.0))


def config_of(kind, **model):
    c = get_defaults()
    c.input_size = 64
    config_lib.set_found(c, kind, 0.0, "")
    c.model = build.group(
        "detector",
        "ssd",
        backbone=build.group("backbone", "root_resnet", depth=18, width=0.125),
        neck=build.group("neck", "residual_extras", width=0.125),
        **model,
    )
    return c


def kernels(tree):
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        "/".join(str(key.key) for key in path): leaf.shape
        for path, leaf in leaves
        if len(leaf.shape) == 4
    }


@pytest.mark.parametrize(
    "name, fields",
    [
        ("vgg16", {}),
        ("resnet", {"depth": 18}),
        ("root_resnet", {"depth": 18}),
        ("dsod", {"blocks": (1, 1, 1)}),
        ("dsod", {"blocks": (1, 1, 1), "stem": False}),
        ("swin_t", {}),
    ],
)
def test_only_the_first_kernel_changes(name, fields):
    group = build.group("backbone", name, **fields)
    taps = ("c3",) if name == "swin_t" else ()
    module = build.make("backbone", group, "here", **({"taps": taps} if taps else {}))
    found = {}
    for channels in (3, 5):
        images = jax.ShapeDtypeStruct((1, 64, 64, channels), np.float32)
        rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
        shapes = jax.eval_shape(functools.partial(module.init, train=False), rngs, images)
        found[channels] = kernels(shapes["params"])
    changed = [path for path in found[3] if found[3][path] != found[5][path]]
    assert len(changed) == 1
    height, width, _, features = found[3][changed[0]]
    assert found[5][changed[0]] == (height, width, 5, features)


def test_batches_and_parameters_follow_the_images():
    c = config_of(BANDS, mean=(1000.0,), std=(1.0, 2.0, 3.0, 4.0, 5.0))
    batch = jax.eval_shape(lambda: zero_batch(c, 2))
    assert batch.images.shape == (2, 64, 64, 5) and batch.images.dtype == np.uint16
    detector = build.detector(c, ("a",))
    assert detector.image_kind == BANDS
    params, _ = abstract_variables(detector, c)
    assert 5 in {shape[2] for shape in kernels(params).values()}


def test_the_description_has_parameters_and_bytes_of_the_images():
    found = {}
    for kind in (BANDS, BANDS._replace(channels=4, dtype="float32")):
        c = config_of(kind, mean=(0.0,), std=(1.0,))
        c.train.batch_size = 8
        found[kind.channels] = to_json(describe(c, ("a",)))
    assert found[5]["images"]["dtype"] == "uint16"
    assert found[5]["batch_bytes"] == 8 * 64 * 64 * 5 * 2
    assert found[4]["batch_bytes"] == 8 * 64 * 64 * 4 * 4
    first = (
        3 * 3 * 8
    )  # weights of the first layer for each channel: 3×3 to an eighth of 64 features
    assert found[5]["parameters"] - found[4]["parameters"] == first


@pytest.mark.parametrize(
    "kind, model, words",
    [
        (BANDS, {}, "config.model.mean=.* has 3 numbers for images of 5 channels; give one, or 5"),
        (BANDS, {"mean": (1.0,)}, "config.model.std=.* has 3 numbers"),
        (ImageKind(1, "gray"), {"mean": (1.0,), "std": (1.0,) * 3}, "of 1 channel; give 1"),
    ],
)
def test_constants_for_other_channels_are_refused(kind, model, words):
    with pytest.raises(ConfigError, match=words):
        build.detector(config_of(kind, **model), ("a",))


def test_weights_for_rgb_are_refused_by_other_channels():
    kernel = jax.ShapeDtypeStruct((7, 7, 5, 64), np.float32)
    variables = {"params": {"stem": {"conv1": {"conv": {"kernel": kernel}}}}}
    weights = {"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)}
    with pytest.raises(ConfigError, match="for RGB, .* for 5 channels, .*channels='rgb'"):
        from_torchvision(variables, weights)
