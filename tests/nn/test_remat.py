"""Rematerialisation: the same numbers from less memory, and no collective more."""

import functools
import json
import math
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import print_saved_residuals
from jax.sharding import PartitionSpec as P

from jdet import config as config_lib
from jdet.backbones.dsod import DSOD
from jdet.backbones.resnet import ResNet
from jdet.backbones.vgg import VGG16
from jdet.detectors.dense_head import DenseHead
from jdet.necks.dense_prediction import DensePrediction
from jdet.necks.fpn import FPN
from jdet.necks.ssd_extras import ResidualExtras, SSDExtras
from jdet.nn.norm import Norm
from jdet.nn.remat import Remat
from jdet.types import ConfigError
from tests import harness

SIDE, IMAGES = 32, 4
BATCH = Norm("batch")


class Net(nn.Module):
    """A backbone and a neck, to one number."""

    backbone: Any
    neck: Any

    def __call__(self, x):
        levels = self.neck(self.backbone(x, train=True), train=True)
        return sum(jnp.mean(jnp.sin(level)) for level in levels)


def resnet(remat):
    settings = dict(remat=remat, width=0.05)
    return Net(ResNet(18, **settings), ResidualExtras(("c3", "c4"), **settings))


def vgg(remat, norm=BATCH):
    settings = dict(norm=norm, remat=remat, width=0.1)
    return Net(VGG16(**settings), SSDExtras(("c3", "c4"), **settings))


def dsod(remat):
    settings = dict(remat=remat, width=0.1)
    return Net(DSOD(blocks=(1, 1, 1), **settings), DensePrediction(("c3", "c4"), **settings))


class PyramidHead(nn.Module):
    """A feature pyramid and a dense head on it."""

    remat: Remat

    def setup(self):
        self.fpn = FPN(("c3", "c4", "c5"), channels=8, use_norm=True, remat=self.remat)
        self.head = DenseHead(3, 2, channels=8, norm=BATCH, centerness="box", remat=self.remat)

    def __call__(self, stages, *, train):
        found = self.head(self.fpn(stages, train=train), train=train)
        return [level for levels in found.values() for level in levels]


def dense(remat):
    return Net(ResNet(18, stem_stride=2, remat=remat, width=0.05), PyramidHead(remat))


@functools.cache
def inputs():
    x = np.random.default_rng(0).normal(size=(IMAGES, SIDE, SIDE, 3))
    return jnp.asarray(x, jnp.float32)


@functools.cache
def variables(make):
    return harness.initialise(make(Remat()), inputs())


def loss(net, params, stats, x):
    return net.apply({"params": params, "batch_stats": stats}, x, mutable=["batch_stats"])


@functools.cache
def gradient(make, remat):
    """Loss, statistics and gradient."""
    v = variables(make)
    step = jax.value_and_grad(functools.partial(loss, make(remat)), has_aux=True)
    (value, updates), found = jax.jit(step)(v["params"], v["batch_stats"], inputs())
    return jax.device_get((value, updates, found))


def length(tree):
    """By NumPy, as JAX would compile it for every shape."""
    return np.sqrt(sum(np.sum(np.square(x, dtype=np.float64)) for x in jax.tree.leaves(tree)))


@pytest.mark.parametrize(
    "make, remat",
    [
        harness.thorough(vgg, Remat("convs")),
        (vgg, Remat("full")),
        harness.thorough(resnet, Remat("stages")),
        (dsod, Remat("convs", ("stem", "c3", "neck"))),
        harness.thorough(dense, Remat("full")),
        (dense, Remat("convs", ("head",))),
    ],
    ids=lambda x: "-".join((x.policy, *x.parts)) if isinstance(x, Remat) else x.__name__,
)
def test_loss_statistics_and_gradient_stay(make, remat):
    plain, again = gradient(make, Remat()), gradient(make, remat)
    np.testing.assert_allclose(again[0], plain[0], rtol=1e-6)

    for ours, theirs in zip(again[1:], plain[1:]):
        apart = length(jax.tree.map(np.subtract, ours, theirs))
        assert apart <= 1e-6 * length(theirs)
        atol = 1e-6 * length(theirs)
        close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=atol)
        jax.tree.map(close, ours, theirs)


def kept(make, remat, capsys):
    """Bytes that wait for the backward pass, parameters and images aside; by JAX's own account."""
    v = variables(make)
    print_saved_residuals(
        lambda *args: loss(make(remat), *args)[0], v["params"], v["batch_stats"], inputs()
    )
    total = 0
    for line in capsys.readouterr().out.splitlines():
        if " from the argument " not in line:
            dtype, shape = re.match(r"(\w+)\[([\d,]*)\]", line).groups()
            total += math.prod(map(int, filter(None, shape.split(",")))) * (dtype != "bool" or 0.25)
    return 4 * total


@pytest.mark.parametrize("make", [vgg, resnet, dsod])
def test_less_waits_for_the_backward_pass(make, capsys):
    none, convs, full, stages = (
        kept(make, Remat(policy), capsys) for policy in ("none", "convs", "full", "stages")
    )
    assert convs < 0.5 * none and full < 0.25 * convs
    assert stages < 0.7 * full if make is resnet else stages == full
    first = kept(make, Remat("full", make(Remat()).backbone.remat_parts[:2]), capsys)
    assert full < first < 0.6 * none


def test_pyramid_and_head_are_parts(capsys):
    amounts = [
        kept(dense, Remat("full", parts), capsys) if parts else kept(dense, Remat(), capsys)
        for parts in ((), ("neck",), ("head",), ("neck", "head"))
    ]
    none, neck, head, both = amounts
    assert both < min(neck, head) and max(neck, head) < none
    assert none - both == pytest.approx((none - neck) + (none - head), rel=0.05)


def test_norms_sum_over_devices_once():
    """Recomputing brings no collective: what they summed is kept."""
    mesh = jax.make_mesh((2,), ("member",), axis_types=(jax.sharding.AxisType.Auto,))
    v = variables(vgg)

    def collectives(remat):
        net = vgg(remat, Norm("sync_batch", axis_name="member"))

        @functools.partial(jax.shard_map, mesh=mesh, in_specs=(P(), P("member")), out_specs=P())
        def step(params, x):
            params = jax.lax.pcast(params, "member", to="varying")
            value = lambda p: loss(net, p, v["batch_stats"], x)[0]  # noqa: E731
            return jax.lax.psum(jax.grad(value)(params), "member")

        shapes = (jax.typeof(inputs()),)
        text = jax.jit(step).lower(v["params"], *shapes).as_text()
        return text.count("stablehlo.all_reduce")

    expected = collectives(Remat())
    assert expected > 20
    for policy in ("convs", "full"):
        assert collectives(Remat(policy)) == expected, policy


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="train.remat='all' does not exist; there are none"):
        Remat("all")
    known = ("stem", "c1", "neck")
    Remat("full", ("stem", "neck")).check(known)
    with pytest.raises(ConfigError, match="names 'c5'; this network has stem, c1, neck"):
        Remat("full", ("c5",)).check(known)
    with pytest.raises(ConfigError, match="needs a policy; set train.remat to one of convs"):
        Remat("none", ("c1",)).check(known)
    with pytest.raises(ConfigError, match="neither backbone, neck nor head"):
        Remat("full").check(())


@pytest.mark.parametrize("stored, policy", [(True, "full"), (False, "none")])
def test_older_runs_said_yes_or_no(stored, policy, tmp_path):
    config = json.loads(config_lib.get_defaults().to_json())
    config["train"]["remat"] = stored
    del config["train"]["remat_parts"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = config_lib.load(tmp_path / "config.json")
    assert (loaded.train.remat, loaded.train.remat_parts) == (policy, ())
    config_lib.validate(loaded)
