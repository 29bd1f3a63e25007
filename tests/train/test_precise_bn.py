"""Statistics measured again: those of the population, with the weights that are evaluated."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.evaluation.weights import make_weights
from jdet.nn.norm import FrozenBatchNorm, Norm
from jdet.parallel import mesh as mesh_lib
from jdet.train.precise_bn import make_precise_bn
from jdet.types import ConfigError, DataError, Mean, TrainState
from tests.train import fake

BATCHES = 3


class Detector(nn.Module):
    """Two norms after one another, the second one called twice, and a frozen one aside."""

    norm: Norm
    remat: bool = False

    @nn.compact
    def __call__(self, images):
        x = images.astype(jnp.float32) / 64
        layer = nn.remat(_Block) if self.remat else _Block
        x, y = layer(self.norm, name="block")(x)
        return FrozenBatchNorm(name="frozen")(x), y

    def losses(self, batch, *, train):
        assert train
        x, y = self(batch.images)
        return {"cls": Mean(jnp.sum(x**2) + jnp.sum(y**2), jnp.float32(1))}


class _Block(nn.Module):
    norm: Norm

    @nn.compact
    def __call__(self, x):
        x = jax.nn.relu(self.norm(train=True, name="first")(x))
        second = self.norm(train=True, name="second")
        return second(x), second(2 * x[:, :4])


def images(k):
    """Batches that differ: each is brighter than the one before."""
    batch = fake.batch(k)
    return batch._replace(images=(batch.images // 4 + 40 * k).astype(np.uint8))


def stream():
    return (images(k) for k in itertools.count())


def groups(rows, devices, accumulation, group):
    """Images that are normalised together, for teams of whole devices or parts of one."""
    at_a_time = rows.reshape(devices, accumulation, -1, *rows.shape[1:]).swapaxes(0, 1)
    return at_a_time.reshape(-1, group, *rows.shape[1:])


def population(devices, accumulation, group, scale):
    """Mean and variance of everything that enters each norm, in float64."""
    entered = {"first": [], "second": []}
    for k in range(BATCHES):
        x = groups(images(k).images / 64.0, devices, accumulation, group)
        entered["first"].append(x.reshape(-1, 3))
        axes = (1, 2, 3)
        x = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)
        x = np.maximum(scale * x, 0)
        entered["second"] += [x.reshape(-1, 3), 2 * x[:, :, :4].reshape(-1, 3)]
    every = {name: np.concatenate(parts) for name, parts in entered.items()}
    return {name: dict(mean=x.mean(0), var=x.var(0, ddof=1)) for name, x in every.items()}


def build(config, norm, **fields):
    """Mesh, detector and variables whose statistics are anything."""
    mesh = mesh_lib.make_mesh(config)
    detector = Detector(norm, **fields)
    variables = fake.variables(detector, fake.batch(0))
    stats = jax.tree.map(lambda x: x + 7, variables["batch_stats"])
    return mesh, detector, {"params": variables["params"], "batch_stats": stats}


def check(measured, before, expected):
    stats = jax.device_get(measured["batch_stats"])
    for name, moments in expected.items():
        for key, value in moments.items():
            np.testing.assert_allclose(stats["block"][name][key], value, rtol=1e-5, err_msg=name)
    jax.tree.map(np.testing.assert_array_equal, stats["frozen"], before["batch_stats"]["frozen"])


@pytest.mark.parametrize(
    "kind, devices, accumulation, group_size, group",
    [
        ("batch", 1, 1, 0, 8),
        ("batch", 2, 1, 0, 4),
        ("sync_batch", 4, 1, 0, 8),
        ("sync_batch", 4, 1, 4, 4),
        ("sync_batch", 2, 1, 2, 2),
        ("sync_batch", 1, 4, 2, 2),
        ("sync_batch", 2, 2, 4, 4),
    ],
)
def test_statistics_are_the_populations(kind, devices, accumulation, group_size, group):
    config = fake.config(
        eval__precise_bn=BATCHES,
        parallel__devices=devices,
        parallel__bn_group_size=group_size,
        train__accumulation=accumulation,
    )
    norm = Norm(kind, group_size=group_size, axis_name="member")
    mesh, detector, variables = build(config, norm)
    on_mesh = jax.device_put(variables, mesh_lib.replicated(mesh))
    measure = make_precise_bn(detector, mesh, config)
    measured = measure(on_mesh, stream())
    check(measured, variables, population(devices, accumulation, group, 1.0))
    # The same batches, the same statistics.
    jax.tree.map(np.testing.assert_array_equal, measured, measure(on_mesh, stream()))


def test_larger_batches_weigh_more():
    """Batches of other shapes, as of images that keep their proportions."""
    config = fake.config(eval__precise_bn=BATCHES)
    mesh, detector, variables = build(config, Norm("batch"))
    batches = [images(k) for k in range(BATCHES)]
    batches = [b._replace(images=b.images[:, : 1 + 2 * k]) for k, b in enumerate(batches)]
    on_mesh = jax.device_put(variables, mesh_lib.replicated(mesh))
    measured = make_precise_bn(detector, mesh, config)(on_mesh, batches)
    entered = np.concatenate([b.images.reshape(-1, 3) / 64.0 for b in batches])
    first = dict(mean=entered.mean(0), var=entered.var(0, ddof=1))
    check(measured, variables, {"first": first})


def test_weights_are_those_of_the_moving_average():
    """And rematerialised blocks are measured as others."""
    config = fake.config(eval__precise_bn=BATCHES, train__ema=0.9)
    config.model = {"norm": "batch", "head_norm": "none"}
    mesh, detector, variables = build(config, Norm("batch"), remat=True)
    average = jax.tree.map(lambda x: x, variables["params"])
    average["block"]["first"]["scale"] = average["block"]["first"]["scale"] * 3
    stats = variables["batch_stats"]
    trained = TrainState(
        step=5,
        params=variables["params"],
        stats=stats,
        opt_state=(),
        ema={"params": average, "stats": jax.tree.map(lambda x: x + 1, stats)},
    )

    class Stream:
        def __init__(self):
            self.batches, self.closed = stream(), False

        def __enter__(self):
            return self.batches

        def __exit__(self, *_):
            self.closed = True

    opened = []

    def train_batches():
        opened.append(Stream())
        return opened[-1]

    for use_ema, params, scale, more in ((True, average, 3.0, 1), (False, trained.params, 1.0, 0)):
        config.eval.use_ema = use_ema
        measured = make_weights(config, detector, mesh, train_batches)(trained)
        kept = {"batch_stats": jax.tree.map(lambda x, more=more: x + more, stats)}
        check(measured, kept, population(1, 1, 8, scale))
        jax.tree.map(np.testing.assert_array_equal, measured["params"], params)
    assert len(opened) == 2 and all(each.closed for each in opened)

    config.eval.precise_bn = 0
    plain = make_weights(config, detector, mesh, train_batches)(trained)
    jax.tree.map(np.testing.assert_array_equal, plain["batch_stats"], stats)
    assert len(opened) == 2


def test_what_cannot_be_measured():
    config = fake.config(eval__precise_bn=BATCHES)
    mesh, detector, variables = build(config, Norm("batch"))
    measure = make_precise_bn(detector, mesh, config)
    with pytest.raises(DataError, match="ended after 2 of eval.precise_bn=3 batches"):
        measure(variables, itertools.islice(stream(), 2))
    _, detector, variables = build(config, Norm("group"))
    with pytest.raises(ConfigError, match="eval.precise_bn=3 .* has none; set it to 0"):
        make_precise_bn(detector, mesh, config)(variables, stream())
    config.model = {"norm": "group", "head_norm": "none"}
    with pytest.raises(
        ConfigError, match="eval.precise_bn=3.*norm is group, config.model.head_norm is none"
    ):
        make_weights(config, detector, mesh, stream)
