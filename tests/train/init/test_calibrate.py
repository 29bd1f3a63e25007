"""Calibration of initial weights by their gradients: its law, its statistics, its limits."""

import contextlib
import functools
import json
import re
import signal
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet import build
from jdet.analysis.calibrate import table
from jdet.detectors.base import Detector
from jdet.nn.conv_norm import ConvNorm
from jdet.nn.initialisers import he_fan_in
from jdet.nn.norm import Norm
from jdet.parallel import mesh as mesh_lib
from jdet.train import loop, state
from jdet.train.init.calibrate import Calibration, by_kind, multipliers, spread
from jdet.train.init.layer_gradients import make_statistic
from jdet.types import ConfigError, DataError, Mean
from tests import harness
from tests.train import fake


def chain(rng, widths):
    """Kernels of a chain of dense layers without biases, of uneven scale, and its input and cotangent."""
    kernels = [
        rng.normal(size=(a, b)) * np.sqrt(2 / a) * rng.uniform(0.5, 2)
        for a, b in zip(widths, widths[1:])
    ]
    return kernels, rng.normal(size=widths[0]), rng.normal(size=widths[-1])


def sizes_of(kernels, x, cotangent):
    """Mean square of the gradient in every kernel, and the output; ReLU between layers, float64."""
    inputs, outputs = [x], []
    for i, kernel in enumerate(kernels):
        outputs.append(inputs[-1] @ kernel)
        inputs.append(np.maximum(outputs[-1], 0) if i + 1 < len(kernels) else outputs[-1])
    found, back = [], cotangent
    for i in reversed(range(len(kernels))):
        found.append(np.mean(np.outer(inputs[i], back) ** 2))
        back = kernels[i] @ back * (inputs[i] > 0)
    return np.array(found[::-1]), outputs[-1]


def test_law_of_chains():
    """One pass halves the deviation of log C, alpha 0.5 removes it, alpha 0 changes nothing."""
    kernels, x, cotangent = chain(np.random.default_rng(0), (40, 60, 20, 80, 30, 10))
    sizes, _ = sizes_of(kernels, x, cotangent)
    for alpha, rest in ((0.25, 0.5), (0.5, 0.0), (0.1, 0.8), (0.0, 1.0)):
        factors = multipliers(sizes, alpha)
        assert np.log(factors).sum() == pytest.approx(0, abs=1e-12)
        after, _ = sizes_of([k * f for k, f in zip(kernels, factors)], x, cotangent)
        assert spread(after) == pytest.approx(rest * spread(sizes), abs=1e-6 * spread(sizes))
    np.testing.assert_array_equal(multipliers(sizes, 0.0), 1.0)


def test_relative_sizes_are_equal_after_one_pass():
    """C divided by the kernel's mean square, alpha 0.25; and the network computes what it did."""
    kernels, x, cotangent = chain(np.random.default_rng(1), (40, 60, 20, 80, 30, 10))
    squares = np.array([np.mean(k**2) for k in kernels])
    sizes, output = sizes_of(kernels, x, cotangent)
    factors = multipliers(sizes / squares, 0.25)
    after, same = sizes_of([k * f for k, f in zip(kernels, factors)], x, cotangent)
    assert spread(sizes / squares) > 0.1
    assert spread(after / (squares * factors**2)) == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(same, output)


def test_layers_without_gradient_are_left_out():
    factors = multipliers(np.array([1.0, 16.0, 0.0]), 0.25)
    np.testing.assert_allclose(factors, [2**-0.5, 2**0.5, 1.0])
    assert spread(np.array([1.0, 100.0, 0.0])) == 1.0
    for bad in (np.nan, np.inf):
        assert np.isnan(spread(np.array([1.0, 100.0, bad])))


def test_pairs_in_residual_branches_diverge():
    """Documents why one pass is the default: the factor of both layers of a branch has the wrong sign."""
    rng = np.random.default_rng(0)
    width, blocks = 24, 8
    x, cotangent = rng.normal(size=(16, width)), rng.normal(size=(16, width))
    scales = np.exp(rng.normal(size=(blocks, 2)) / 2)
    pairs = [[rng.normal(size=(width, width)) / 24 * s for s in pair] for pair in scales]

    @jax.jit
    def gradient(pairs):
        def loss(pairs):
            y = jnp.asarray(x)
            for a, b in pairs:
                centred = y - y.mean(-1, keepdims=True)
                normed = centred / jnp.sqrt(jnp.mean(centred**2, -1, keepdims=True))
                y = y + jax.nn.relu(normed @ a) @ b
            return jnp.sum(y * cotangent)

        return [jnp.mean(g**2) for pair in jax.grad(loss)(pairs) for g in pair]

    deviations = []
    for _ in range(4):
        sizes = np.array(gradient(pairs), np.float64)
        log = np.log10(sizes).reshape(blocks, 2)
        deviations.append((log.mean(1).std(), (log[:, 0] - log[:, 1]).std()))
        factors = multipliers(sizes, 0.25).reshape(blocks, 2)
        pairs = [[w * f for w, f in zip(*pair)] for pair in zip(pairs, factors)]
    common, difference = np.array(deviations).T
    assert (np.diff(common) > 0).all() and common[-1] > 2 * common[0]
    np.testing.assert_allclose(difference[1:] / difference[:-1], 0.5, rtol=0.2)


class Body(nn.Module):
    """Three convolutions with strides, whose kernels are of uneven scale."""

    norm: Norm

    @nn.compact
    def __call__(self, x, *, train):
        for i, width in enumerate((8, 4, 6)):
            init = nn.initializers.variance_scaling(4.0**i, "fan_in", "normal")
            x = ConvNorm(
                width, self.norm, train, strides=2, padding=1, kernel_init=init, name=f"conv{i}"
            )(x)
        return x


class Tiny(Detector, kw_only=True):
    """Classifies images; the weight of the loss is their number."""

    backbone: Any
    parts = {"backbone": "backbone"}

    def setup(self):
        self.head = nn.Dense(self.num_classes, use_bias=False, kernel_init=he_fan_in)

    def __call__(self, images, *, train):
        x = self.backbone(self.normalised(images), train=train)
        return self.head(x.mean((1, 2)))

    def losses(self, batch, *, train=True):
        logits = self(batch.images, train=train)
        wanted = jnp.where(batch.valid[:, 0], batch.labels[:, 0], 0)
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), wanted[:, None], axis=1)
        return {"cls": Mean(-picked.sum(), jnp.float32(len(logits)))}


def tiny(norm):
    return Tiny(num_classes=2, input_size=fake.SIDE, backbone=Body(Norm(norm)))


@functools.cache
def initial(detector, devices=1):
    """Variables before the first step, compiled once."""
    config = fake.config(parallel__devices=devices)
    placed = mesh_lib.replicated(mesh_lib.make_mesh(config))
    create = jax.jit(lambda: state.init_variables(detector, config), out_shardings=placed)
    return create()


def opening(batch):
    """Opens a stream that begins with a batch."""
    return lambda: contextlib.nullcontext([batch])


def calibrate(detector, devices=1, batch=None, **settings):
    """The calibration after it was applied to initial weights, and parameters before and after."""
    settings = {f"calibration__{key}": value for key, value in settings.items()}
    config = fake.config(**{"calibration__iterations": 1, "parallel__devices": devices, **settings})
    mesh = mesh_lib.make_mesh(config)
    params, stats = initial(detector, devices)
    given = fake.batch(0) if batch is None else batch
    transform = Calibration(detector, mesh, config, opening(given))
    after, _ = transform(params, stats)
    return transform, params, after, stats


def test_normalised_layers_need_half_the_spread_and_compute_the_same():
    """Every layer of the backbone is followed by a norm; alike on two devices, and in all passes."""
    detector = tiny("group")
    transform, before, after, stats = calibrate(detector, scope="scale_invariant", iterations=3)
    report = transform.report
    assert report.layers == tuple(f"backbone/conv{i}/conv/kernel" for i in range(3))
    ratios = np.divide(report.spreads[1:], report.spreads[:-1])
    np.testing.assert_allclose(ratios, 0.5, rtol=0.03)
    images = fake.batch(1).images

    @jax.jit
    def run(params):
        return detector.apply(state.variables(params, stats), images, train=False)

    np.testing.assert_allclose(run(after), run(before), atol=1e-3)
    assert not np.allclose(
        before["backbone"]["conv0"]["conv"]["kernel"], after["backbone"]["conv0"]["conv"]["kernel"]
    )
    record = json.loads(json.dumps(transform.record()))
    assert record["kept"] == 3 and list(record["multipliers"]) == list(report.layers)
    assert np.log(list(record["multipliers"].values())).sum() == pytest.approx(0, abs=1e-5)
    assert "3 layers (scale_invariant)" in transform.describe()
    two, *_ = calibrate(detector, devices=2, scope="scale_invariant", iterations=1)
    np.testing.assert_allclose(two.report.spreads, report.spreads[:2], rtol=1e-4)


@pytest.mark.parametrize("reference", ["loss", "gaussian"])
def test_statistics_agree_where_a_layer_is_used_once_an_image(reference):
    """The mean over images of a squared gradient is that of input times signal, both squared."""
    detector = tiny("none")
    found = {}
    for name in ("batch_grad", "per_example", "positionwise"):
        config = fake.config(calibration__statistic=name, calibration__reference_signal=reference)
        mesh = mesh_lib.make_mesh(config)
        params, stats = initial(detector)
        batch = mesh_lib.to_global(fake.batch(0), mesh)
        found[name] = jax.device_get(make_statistic(detector, mesh, config)(params, stats, batch))
    assert all(set(each) == set(found["batch_grad"]) for each in found.values())
    images = 8 if reference == "loss" else 1  # the loss of a batch is divided by their number
    head = found["positionwise"]["head/kernel"] * images**2
    assert head == pytest.approx(found["per_example"]["head/kernel"], rel=1e-4)
    assert (
        0
        < found["batch_grad"]["head/kernel"]
        < found["per_example"]["head/kernel"] * 64 / images**2
    )
    assert all(x > 0 for each in found.values() for x in each.values())


def test_guard_says_what_did_not_help_and_undoes_later_passes(monkeypatch):
    """A rule with the wrong sign widens the spread: one pass is kept with a warning, of two none."""
    module = "jdet.train.init.calibrate.multipliers"
    monkeypatch.setattr(module, lambda sizes, alpha: 1 / multipliers(sizes, alpha))
    detector = tiny("group")
    transform, before, after, _ = calibrate(detector, iterations=1)
    assert "WARNING: that did not narrow them" in transform.describe()
    assert transform.report.kept == 1
    transform, before, after, _ = calibrate(detector, iterations=2)
    assert "pass 1 did not narrow them and is undone; 0 kept" in transform.describe()
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(before), jax.device_get(after))


def test_what_cannot_be_is_refused():
    empty = fake.batch(0)._replace(valid=np.zeros((8, fake.OBJECTS), bool))
    with pytest.raises(DataError, match="no image has an object; take another config.seed"):
        calibrate(tiny("group"), batch=empty)
    mute = type("Mute", (Detector,), {"__module__": __name__})(num_classes=2, input_size=16)
    gaussian = fake.config(calibration__reference_signal="gaussian")
    with pytest.raises(ConfigError, match="has no __call__.* take 'loss'"):
        make_statistic(mute, mesh_lib.make_mesh(gaussian), gaussian)
    with pytest.raises(ConfigError, match="scope='scale_invariant' names no layer"):
        calibrate(tiny("none"), scope="scale_invariant")


def test_spread_of_a_hybrid_falls_in_one_pass():
    """FCOS on convolutional and transformer stages by He's rule, the loss on a batch of images."""
    config = fake.config(input_size=32, calibration__iterations=1)
    config.model = build.group(
        "detector",
        "fcos",
        backbone=build.group(
            "backbone", "hybrid", spec="C1-C1-T1-T1", channels=16, head_channels=16
        ),
        neck=build.group("neck", "fpn", extra="none", channels=16),
        norm="batch",
        head_norm="group",
        head_channels=16,
        head_depth=1,
    )
    config.model.backbone.window = 2
    detector = build.detector(config, ("a", "b"))
    mesh = mesh_lib.make_mesh(config)
    transform = Calibration(detector, mesh, config, opening(harness.make_batch(32, 8, classes=2)))
    transform(*initial(detector))
    before, after = transform.report.spreads
    assert before > 0.3 and after < 0.9 * before
    kinds = by_kind(transform.report, initial(detector)[0])
    assert {"convolution", "qkv", "proj", "fc1", "fc2", "reduction"} == set(kinds)
    assert len(kinds["convolution"]) == 1 + 2 * 4  # the stem and two bottlenecks with projections
    text = "\n".join(table(transform.report, initial(detector)[0]))
    assert re.search(r"convolution +9 ", text)
    assert text.count("backbone/") == len(transform.report.layers)


def test_run_begins_with_it_and_goes_on_exactly(tmp_path):
    """Multipliers stand in run.json; a run that was stopped and resumed has the same weights."""

    def train(folder, stop=False):
        config = fake.config(train__steps=4, train__save_every=1, calibration__iterations=1)
        mesh = mesh_lib.make_mesh(config)
        transform = Calibration(tiny("group"), mesh, config, opening(fake.batch(0)))

        def stream(start):
            for k, batch in enumerate(fake.stream(start), start):
                if stop and k == 2:
                    signal.raise_signal(signal.SIGTERM)
                yield batch

        result = loop.train(
            config,
            folder,
            detector=tiny("group"),
            train_stream=stream,
            num_examples=20,
            init_transforms=[transform],
        )
        return result, transform.report

    whole, report = train(tmp_path / "whole")
    (record,) = json.loads((tmp_path / "whole" / "run.json").read_text())["init_transforms"]
    assert record["name"] == "calibration" and record["alpha"] == 0.25
    assert list(record["multipliers"].values()) == report.multipliers.tolist()
    train(tmp_path / "cut", stop=True)
    resumed, none = train(tmp_path / "cut")
    assert none is None  # applied by the first part alone
    jax.tree.map(
        np.testing.assert_array_equal,
        jax.device_get(resumed.state.params),
        jax.device_get(whole.state.params),
    )
