"""Whole models with the same numbers in both libraries."""

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet import build
from jdet.backbones.resnet import ResNet
from jdet.config import get_defaults
from jdet.interop.torchvision import from_torchvision, load
from jdet.ops.boxes import cxcywh_to_xyxy
from jdet.types import ConfigError
from tests import golden


def weight(name, shape):
    """The numbers that were given to torchvision's model under this name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) > 1 and "position" not in name:
        return rng.standard_normal(shape, np.float32) / np.float32(np.sqrt(np.prod(shape[1:])))
    if name.endswith(("weight", "running_var")):
        return rng.random(shape, np.float32) + np.float32(0.5)
    return rng.standard_normal(shape, np.float32) * np.float32(0.2)


def detector(name, head_norm, **fields):
    c = get_defaults()
    c.input_size = 128
    c.model = build.group(
        "detector",
        name,
        backbone=build.group("backbone", "resnet", depth=50),
        neck=build.group("neck", "fpn", extra="conv_p5", extra_relu=True),
        head_norm=head_norm,
        torchvision_anchors=True,
        **fields,
    )
    return build.detector(c, tuple("abcde"))


FCOS = dict(level_scales=False, weigh_boxes=False, score="root", score_threshold=0.2)


@pytest.mark.parametrize(
    "name, head_norm, fields",
    [("retinanet", "none", {}), ("fcos", "group", FCOS)],
    ids=["retinanet", "fcos"],
)
def test_whole_detector_equals_torchvision(name, head_norm, fields):
    """Features, predictions, anchors and detections of ResNet-50-FPN on an image of 96×128."""
    model = detector(name, head_norm, **fields)
    given = golden.load(f"{name}_r50")
    weights = {
        str(key): weight(str(key), tuple(n for n in shape if n))
        for key, shape in zip(given["names"], given["shapes"].tolist())
    }
    images = jnp.asarray(given["image"])[None]
    variables = jax.eval_shape(
        lambda x: model.init(jax.random.key(0), x, train=False),
        jnp.zeros((1, 128, 128, 3), "uint8"),
    )
    variables = from_torchvision(variables, weights)
    sizes = jnp.array([[96, 128]])

    @jax.jit
    def run(variables, images):
        outputs, captured = model.apply(
            variables,
            images,
            train=False,
            method="by_level",
            capture_intermediates=lambda module, _: module.name == "neck",
            mutable=["intermediates"],
        )
        features = captured["intermediates"]["neck"]["__call__"][0]
        return outputs, features, model.postprocess(outputs, sizes)

    outputs, features, found = run(variables, images)
    for i, level in enumerate(features, start=3):
        expected = np.moveaxis(given[f"p{i}"], 0, -1)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(level[0, ..., ::8], expected, rtol=1e-3, atol=1e-4 * scale)
    assert [level.shape[1:3] for level in features] == [(12, 16), (6, 8), (3, 4), (2, 2), (1, 1)]
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
    joined, priors = outputs.joined()
    close(joined["logits"][0], given["logits"])
    if "centerness" in given:
        close(joined["centerness"][0], given["centerness"][:, 0])
        close(jax.nn.relu(joined["offsets"][0]), given["offsets"])
    else:
        close(joined["offsets"][0], given["offsets"])
    np.testing.assert_allclose(cxcywh_to_xyxy(priors), given["anchors"], atol=1e-4)

    assert found.valid.all()
    np.testing.assert_allclose(found.scores[0], given["scores"], atol=1e-4)
    # Neighbours in the order may differ by less than the rounding of their scores.
    for box, score, label in zip(found.boxes[0], found.scores[0], found.labels[0]):
        same = (given["labels"] == label) & (np.abs(given["scores"] - score) < 1e-4)
        assert np.abs(given["boxes"][same] - box).max(1).min() < 0.05


def test_whole_swin_equals_torchvision():
    """Every stage of Swin-T; maps of the second size are filled up in windows and mergings."""
    given = golden.load("swin_t")
    weights = {
        str(key): weight(str(key), tuple(n for n in shape if n))
        for key, shape in zip(given["names"], given["shapes"].tolist())
    }
    model = build.resolve("backbone", "swin_t")(taps=("c5",))
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), x)
    variables = from_torchvision(variables, weights)
    run = jax.jit(lambda variables, x: model.apply(variables, x, train=False))
    for case, (height, width) in {"a": (224, 224), "b": (230, 310)}.items():
        rng = np.random.default_rng(height * 1000 + width)
        images = rng.standard_normal((1, 3, height, width), np.float32).transpose(0, 2, 3, 1)
        # torchvision leaves out pixels beyond the last whole patch; jdet fills it with zeros.
        stages = run(variables, jnp.asarray(images[:, : height // 4 * 4, : width // 4 * 4]))
        for i, stage in enumerate(stages.values(), start=1):
            np.testing.assert_allclose(stage[0, ..., ::24], given[f"stage{i}_{case}"], atol=1e-4)


def small(**fields):
    model = ResNet(depth=18, root=0, stem_stride=2, pool=3, width=0.125, **fields)
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), x)


def torch_names():
    """A plain ResNet-18 of an eighth of the width, the classifier included."""
    shapes = {"conv1.weight": (8, 3, 7, 7), "bn1": 8, "fc.weight": (10, 64), "fc.bias": (10,)}
    before = 8
    for stage in range(1, 5):
        width = 4 << stage
        for block in range(2):
            name, inputs = f"layer{stage}.{block}.", before if block == 0 else width
            shapes |= {name + "conv1.weight": (width, inputs, 3, 3), name + "bn1": width}
            shapes |= {name + "conv2.weight": (width, width, 3, 3), name + "bn2": width}
            if inputs != width:
                shapes[name + "downsample.0.weight"] = (width, inputs, 1, 1)
                shapes[name + "downsample.1"] = width
        before = width
    found = {"bn1.num_batches_tracked": np.zeros((), np.int64)}
    for name, shape in shapes.items():
        if isinstance(shape, int):
            for part in ("weight", "bias", "running_mean", "running_var"):
                found[f"{name}.{part}"] = weight(f"{name}.{part}", (shape,))
        else:
            found[name] = weight(name, shape)
    return found


def test_plain_backbone_finds_every_number(tmp_path):
    weights = torch_names()
    np.savez(tmp_path / "resnet18.npz", **weights)
    found = from_torchvision(small(), load(tmp_path / "resnet18.npz"))
    kernel = found["params"]["stage2_block1"]["projection"]["conv"]["kernel"]
    np.testing.assert_array_equal(
        kernel, weights["layer2.0.downsample.0.weight"].transpose(2, 3, 1, 0)
    )
    var = found["batch_stats"]["stage4_block2"]["conv2"]["norm"]["var"]
    np.testing.assert_array_equal(var, weights["layer4.1.bn2.running_var"])


def test_another_model_is_refused(tmp_path):
    weights = torch_names()
    with pytest.raises(ConfigError, match=r"no 'backbone.body.layer3.0.bn1.bias'.* stage3_block1"):
        from_torchvision(small(), {k: v for k, v in weights.items() if k != "layer3.0.bn1.bias"})
    with pytest.raises(ConfigError, match=r"no place for 1 arrays .*'layer5.weight'"):
        from_torchvision(small(), weights | {"layer5.weight": np.zeros(3)})
    with pytest.raises(ConfigError, match=r"conv1.weight .*\(7, 7, 3, 4\).*\(7, 7, 3, 8\)"):
        from_torchvision(small(), weights | {"conv1.weight": np.zeros((4, 3, 7, 7))})
    root = ResNet(depth=18, width=0.125)
    variables = jax.eval_shape(
        lambda x: root.init(jax.random.key(0), x, train=False), jnp.zeros((1, 32, 32, 3))
    )
    with pytest.raises(ConfigError, match="no counterpart of stem/conv2"):
        from_torchvision(variables, weights)
    with pytest.raises(ConfigError, match=r"nothing.npz does not exist"):
        load(tmp_path / "nothing.npz")
    (tmp_path / "text.npz").write_text("torch")
    with pytest.raises(ConfigError, match=r"text.npz is no .npz"):
        load(tmp_path / "text.npz")
