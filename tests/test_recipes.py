"""Schedules of the experiments that follow a paper: steps, epochs, drops and rates as printed there."""

import jax.numpy as jnp
import pytest

from experiments import (
    atss_coco,
    cascade_rcnn_coco,
    dsod_coco,
    dsod_voc,
    fcos_coco,
    mask_rcnn_coco,
    retinanet_coco,
    scratchdet512_coco,
    scratchdet_table1,
    scratchdet_voc,
    ssd300s_resnet101_voc,
    ssd300s_vgg_dense,
)
from jdet import build
from jdet.train import optim
from jdet.train.schedule import learning_rate, resolve
from jdet.types import ConfigError


def test_voc_recipe_is_the_papers():
    config = scratchdet_voc.get_config("")
    assert (config.train.batch_size, config.train.steps) == (128, 100_000)
    assert (config.optimizer.lr, config.optimizer.reference_batch) == (0.05, 128)
    assert (config.optimizer.momentum, config.optimizer.weight_decay) == (0.9, 5e-4)
    assert config.optimizer.warmup == 0 and config.optimizer.clip_norm == 0


@pytest.mark.parametrize(
    "lr, steps, drops",
    [
        (0.001, 120_000, (80_000, 100_000)),
        (0.01, 120_000, (50_000, 80_000, 100_000)),
        (0.05, 100_000, (45_000, 75_000, 95_000)),
    ],
)
def test_table1_recipes(lr, steps, drops):
    resolved = resolve(scratchdet_table1.get_config(f"norm=head,lr={lr}"), 16_551, devices=8)
    assert (resolved.steps, resolved.boundaries, resolved.peak_lr) == (steps, drops, lr)
    assert resolved.batch_size == 128
    mini = scratchdet_table1.get_config(f"norm=head,lr={lr},mini,steps=1200,batch=8")
    assert resolve(mini, 292, devices=1).peak_lr == lr / 2
    mini = scratchdet_table1.get_config(f"norm=head,lr={lr},mini,steps=1200")
    resolved = resolve(mini, 292, devices=1)
    assert resolved.boundaries == tuple(1200 * drop // steps for drop in drops)
    assert resolved.peak_lr == lr


def test_recipes_of_the_larger_models():
    resolved = resolve(scratchdet512_coco.get_config(""), 118_287, devices=4)
    assert (resolved.batch_per_device, resolved.peak_lr, resolved.warmup) == (20, 0.03, 500)
    assert resolved.epochs == pytest.approx(420, abs=0.01)
    drops = [drop / resolved.steps_per_epoch for drop in resolved.boundaries]
    assert drops == pytest.approx([190, 350, 400], abs=0.01)
    for arg, batch, steps, drops in (("", 64, 120, (80, 100)), ("ssd321", 32, 80, (40, 60))):
        resolved = resolve(ssd300s_resnet101_voc.get_config(arg), 16_551, devices=8)
        assert (resolved.batch_size, resolved.steps) == (batch, steps * 1000)
        assert resolved.boundaries == tuple(drop * 1000 for drop in drops)
        assert resolved.peak_lr == 0.001


def test_dsod_recipes_are_the_papers():
    for arg, images, steps, drops in (
        ("", 16_551, 100_000, (20_000, 40_000, 60_000, 80_000)),
        ("train=07++12", 21_503, 110_000, (30_000, 50_000, 70_000, 90_000)),
    ):
        config = dsod_voc.get_config(arg)
        resolved = resolve(config, images, devices=8)
        assert (resolved.steps, resolved.boundaries) == (steps, drops)
        assert (resolved.batch_size, resolved.bn_group) == (128, 4)
        rate = learning_rate(config.optimizer, resolved)
        rates = [float(rate(step)) for step in (0, *drops)]
        assert rates == pytest.approx([0.1, 1e-2, 1e-3, 1e-4, 1e-5])
        assert config.optimizer.momentum == 0.9 and config.optimizer.weight_decay == 5e-4
    config = dsod_coco.get_config("")
    resolved = resolve(config, 118_287, devices=8)
    assert (resolved.steps, resolved.peak_lr) == (320_000, 0.1)
    files = [config.data[role].annotation_file for role in ("train", "eval")]
    names = ("train2017", "val2017")
    assert files == [f"data/coco/annotations/instances_{name}.json" for name in names]
    assert not config.model.train_ignored and config.eval.metrics == ("coco",)
    assert resolved.boundaries == (80_000, 140_000, 200_000, 260_000)
    config = ssd300s_vgg_dense.get_config("")
    resolved = resolve(config, 16_551, devices=8)
    assert (resolved.steps, resolved.batch_size, resolved.peak_lr) == (120_000, 64, 0.001)
    assert resolved.boundaries == (80_000, 100_000)


def test_dense_recipes():
    for module, arg, epochs, drops, start in (
        (retinanet_coco, "", 73, (65, 71), 0.1),
        (retinanet_coco, "schedule=1x,batch=64", 12, (8, 11), 0.001),
        (fcos_coco, "schedule=2x", 24, (16, 22), 0.001),
        (atss_coco, "schedule=3x", 36, (28, 34), 0.001),
        (cascade_rcnn_coco, "schedule=20e,lr=0.01", 20, (16, 19), 0.001),
    ):
        config = module.get_config(arg)
        resolved = resolve(config, 118_287, devices=8)
        assert resolved.epochs == pytest.approx(epochs, abs=0.01)
        found = [drop / resolved.steps_per_epoch for drop in resolved.boundaries]
        assert found == pytest.approx(list(drops), abs=0.01)
        assert resolved.peak_lr == pytest.approx(0.01 * resolved.batch_size / 16)
        assert (resolved.warmup, config.optimizer.warmup_start) == (500, start)
    config = mask_rcnn_coco.get_config("schedule=lsj400,norm=sync_batch")
    resolved = resolve(config, 118_287, devices=64)
    assert [drop / resolved.steps_per_epoch for drop in resolved.boundaries] == pytest.approx(
        [352, 384], abs=0.01
    )
    assert (resolved.peak_lr, resolved.batch_size, resolved.bn_group) == (
        pytest.approx(0.1),
        64,
        64,
    )
    assert build.resize(config).shapes == ((1024, 1024),) and config.augment.name == "lsj"
    with pytest.raises(ConfigError, match="schedule=lsj100 .*drop multiscale"):
        mask_rcnn_coco.get_config("schedule=lsj100,warp")
    params = {"cls_norm1": {"scale": jnp.ones(1)}, "cls": {"bias": jnp.ones(1)}}
    uses = optim.parameter_rules(config.optimizer, params)
    assert [(use.lr, use.decay) for use in uses] == [(1, 0), (1, 1)]
