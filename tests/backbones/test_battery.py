import functools

import jax
import jax.numpy as jnp
import pytest

from jdet.backbones.dsod import DSOD
from jdet.backbones.hybrid import Hybrid
from jdet.backbones.resnet import ResNet
from jdet.backbones.vgg import VGG16
from jdet.nn.norm import Norm
from tests import harness

TINY = dict(channels=8, head_channels=8, window=2)

BACKBONES = {
    "root_resnet18": functools.partial(ResNet, depth=18, width=0.125),
    "root_resnet18_group": functools.partial(ResNet, depth=18, width=0.125, norm=Norm("group")),
    "vgg16": functools.partial(VGG16, width=0.125, norm=Norm("batch")),
    "dsod": functools.partial(DSOD, width=0.125, blocks=(2, 1, 1, 1), last_channels=256),
    "hybrid": functools.partial(Hybrid, spec="C1-T2-T1-T1", drop_path=0.2, **TINY),
}
RELATIVES = {  # made of the same parts; only traced, as a compiled battery takes half a minute
    "resnet18": functools.partial(ResNet, depth=18, root=0, stem_stride=2, pool=3, width=0.125),
    "root_resnet18_preact": functools.partial(ResNet, depth=18, width=0.125, block="preact"),
    "resnet50": functools.partial(ResNet, depth=50, root=0, stem_stride=2, pool=3, width=0.125),
    "vgg16_pool_norm": functools.partial(
        VGG16, width=0.125, norm=Norm("batch"), norm_after_pool=True
    ),
    "dsod_no_stem_group": functools.partial(
        DSOD, width=0.125, blocks=(1, 1, 1), compression=0.5, stem=False, norm=Norm("group")
    ),
    "swin": functools.partial(Hybrid, spec="T1-T2-T1-T1", kernel_init="swin", **TINY),
    "swin_dsod": functools.partial(
        Hybrid, spec="T1-T1-T2-T1", stem="dsod128", dense_links=True, **TINY
    ),
    "hybrid_group": functools.partial(Hybrid, spec="C1-C1-C1-T2", norm=Norm("group"), **TINY),
    "dsod_no_norm": functools.partial(DSOD, width=0.125, blocks=(1, 2, 1), norm=Norm("none")),
}


@pytest.mark.parametrize("name", harness.mostly(BACKBONES, "root_resnet18_group", "vgg16"))
def test_battery(name):
    harness.check_backbone(BACKBONES[name])


@pytest.mark.parametrize(
    "name",
    harness.mostly(RELATIVES, "resnet50", "vgg16_pool_norm", "swin", "swin_dsod", "hybrid_group"),
)
def test_relatives(name):
    harness.trace_backbone(RELATIVES[name])


def test_vgg_stages_at_300():
    stages = jax.eval_shape(
        lambda x: VGG16().init_with_output(jax.random.key(0), x, train=False)[0],
        jax.ShapeDtypeStruct((1, 300, 300, 3), jnp.float32),
    )
    assert {k: v.shape[1:] for k, v in stages.items()} == {
        "c2": (75, 75, 256),
        "c3": (38, 38, 512),
        "c4": (19, 19, 1024),
    }
