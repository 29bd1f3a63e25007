"""Modes of batch norm, frozen stages, and the refusal to freeze what is random."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet import build
from jdet import config as config_lib
from jdet.nn.conv_norm import ConvNorm
from jdet.nn.norm import Norm
from jdet.train import loop, optim, schedule, state
from jdet.train.init import from_scratch
from jdet.train.init.calibrate import Calibration
from jdet.types import ConfigError
from tests.train import fake
from tests.train.init.test_init_from import detector_of, settings


class Tiny(fake.FakeDetector):
    """The smallest detector, with a norm of jdet in its body."""

    kind: str = "batch"

    def setup(self):
        self.backbone = Body(Norm(self.kind, axis_name="member"))
        self.head = fake.nn.Dense(4 + fake.CLASSES)
        self.drop = fake.Dropout(0.0)


class Body(fake.nn.Module):
    norm: Norm

    @fake.nn.compact
    def __call__(self, x, *, train):
        return ConvNorm(4, kernel_size=3, strides=2, norm=self.norm, train=train, name="conv")(x)


class Measured:
    """Stands for weights of another run: statistics and affine maps that are not the initial ones."""

    name = "measured"

    def __call__(self, params, stats):
        return jax.tree.map(lambda x: jnp.asarray(x) + 0.25, (params, stats))

    def describe(self):
        return ""

    def record(self):
        return {}


@pytest.mark.parametrize(
    "kind, statistics, affine",
    [
        ("batch", True, True),
        ("sync_batch", True, True),
        ("affine_batch", False, True),
        ("frozen_batch", False, False),
    ],
)
def test_what_moves_in_each_mode(kind, statistics, affine, tmp_path):
    config = fake.config(train__steps=3)
    detector = Tiny(kind=kind)
    result = loop.train(
        config,
        tmp_path,
        detector=detector,
        train_stream=fake.stream,
        num_examples=20,
        init_transforms=[Measured()],
    )
    begin = Measured()(*jax.jit(lambda: state.init_variables(detector, config, 8))())
    moved = {}
    for before, after in zip(begin, (result.state.params, result.state.stats)):
        for path, x in jax.tree_util.tree_leaves_with_path(after):
            old = dict(jax.tree_util.tree_leaves_with_path(before))[path]
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            moved[name] = not np.array_equal(x, old)
    norm = {name.rpartition("/")[2]: on for name, on in moved.items() if "/norm/" in name}
    assert norm == {"mean": statistics, "var": statistics, "scale": affine, "bias": affine}
    assert moved["backbone/conv/conv/kernel"] and moved["head/kernel"]


@pytest.mark.parametrize(
    "norm, freeze_at, trainable",
    [  # of RetinaNet with 80 classes: MMDetection's counts
        ("batch", 0, 37_968_692),
        ("affine", 2, 37_743_348),
        ("fixed", 2, 37_743_348 - 50_176),
    ],
)
def test_trainable_parameters_are_those_of_the_reference(norm, freeze_at, trainable):
    config = config_lib.get_defaults()
    config.model = build.group(
        "detector",
        "retinanet",
        backbone=build.group("backbone", "resnet", depth=50, freeze_at=freeze_at),
        neck=build.group("neck", "fpn"),
        norm=norm,
        head_norm="none",
    )
    config.input_size = 128
    config = build.with_frozen_stages(config)
    assert build.with_frozen_stages(config) is config  # nothing is added twice
    config.class_names = tuple(map(str, range(80)))
    params, stats = state.abstract_variables(detector_of(config), config)
    trains = optim.trainable(config.optimizer, params)
    sizes = jax.tree.map(lambda x, on: x.size * on, params, trains)
    assert sum(jax.tree.leaves(sizes)) == trainable
    lines = "\n".join(build.describe_norms(config))
    assert f"config.model.norm {config_lib.norms(config)['norm']}: normalises by" in lines
    assert ("freeze_at=2: backbone/stem/.*, backbone/stage1_block.*" in lines) == bool(freeze_at)
    if not freeze_at:
        from_scratch.check(config, params, stats, None)
        return
    with pytest.raises(ConfigError, match="rules freeze 11 parameters, .*; config.model.norm="):
        from_scratch.check(config, params, stats, None)


@pytest.mark.parametrize(
    "model, rules, message",
    [
        ("frozen_batch", (), "config.model.norm='frozen_batch' keep .* backbone/.*random_frozen"),
        ("affine_batch", (), "config.model.norm='affine_batch' keep"),
        ("batch", (("neck/.*kernel", 0.0, 0.0),), "rules freeze .* neck/.*: at their initial"),
    ],
)
def test_frozen_random_weights_are_refused(model, rules, message, tmp_path):
    config = settings(("a",), norm=model, optimizer__rules=rules)
    params, stats = state.abstract_variables(detector_of(config), config)
    with pytest.raises(ConfigError, match=message):
        from_scratch.check(config, params, stats, None)
    config.init_from.random_frozen = "allow"
    from_scratch.check(config, params, stats, None)


@pytest.mark.parametrize("calibrated", [False, True])
def test_a_run_refuses_before_its_folder_is_touched(calibrated, tmp_path):
    """Also where a transform changes the initial weights that loads none."""
    transform = Calibration(fake.FakeDetector(), None, fake.config(), fake.stream)
    config = fake.config(optimizer__rules=(("backbone/.*", 0.0, 0.0),))
    with pytest.raises(ConfigError, match="rules freeze"):
        loop.train(
            config,
            tmp_path / "run",
            detector=fake.FakeDetector(),
            train_stream=fake.stream,
            num_examples=20,
            init_transforms=[transform] if calibrated else [],
        )
    assert not (tmp_path / "run").exists()


def test_lengths_in_iterations_and_in_samples():
    config = fake.config(train__steps=88_000, train__batch_size=64, optimizer__reference_batch=16)
    images = 117_266
    whole = schedule.resolve(config, images, devices=1)
    assert (whole.steps, round(whole.epochs)) == (88_000, 48)
    assert "(48.0 epochs" in schedule.describe(whole)
    config.train.length = "fixed_samples"
    same = schedule.resolve(config, images, devices=1)
    assert (same.steps, round(same.epochs)) == (22_000, 12)
    config.optimizer.reference_batch = 0
    with pytest.raises(ConfigError, match="fixed_samples.*reference_batch=0"):
        schedule.resolve(config, images, devices=1)
