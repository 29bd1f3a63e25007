"""The real detector through the real step: convolutions and norms with gradients of their own.

``test_splits.py`` trains it, on one device and on several.
"""

import functools

import jax
import numpy as np

from jdet import build
from jdet.parallel import mesh as mesh_lib
from jdet.train import optim, schedule, state, step
from tests.train import fake

SIDE = 64


def settings(norm, **overrides):
    config = fake.config(optimizer__weight_decay=5e-4, **overrides)
    config.input_size = SIDE
    config.model = build.group(
        "detector",
        "ssd",
        backbone=build.group("backbone", "root_resnet", depth=18, width=0.0625),
        neck=build.group("neck", "ssd_extras", width=0.0625),
        norm=norm,
        head_norm=norm,
    )
    return config


def batch(k, size=8):
    rng = np.random.default_rng(k)
    corner = rng.uniform(0, SIDE / 2, (size, fake.OBJECTS, 2))
    side = rng.uniform(8, SIDE / 2, corner.shape)
    return fake.batch(k, size)._replace(
        images=rng.integers(0, 256, (size, SIDE, SIDE, 3), np.uint8),
        boxes=np.concatenate([corner, corner + side], axis=-1).astype(np.float32),
    )


def prepare(config):
    mesh = mesh_lib.make_mesh(config)
    detector = build.detector(config, ("a", "b"), axis_name="member")
    rate = schedule.learning_rate(config.optimizer, schedule.resolve(config, 100))
    params, _ = state.abstract_variables(detector, config)
    optimizer = optim.make_optimizer(config.optimizer, rate, params)
    shapes = state.abstract_state(detector, optimizer, mesh, config)
    train_step = step.make_train_step(detector, optimizer, rate, mesh, config)
    images = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=mesh_lib.batch_sharding(mesh)),
        batch(0, config.train.batch_size),
    )
    lowered = train_step.lower(shapes, images)
    return mesh, functools.partial(state.create_state, detector, optimizer, mesh, config), lowered


def test_first_pass_of_accumulation_has_no_network():
    """The weights follow from the matching alone, and the synchronised statistics go as well."""

    def count(**overrides):
        text = prepare(settings("sync_batch", parallel__devices=2, **overrides))[2].as_text()
        return text.count("stablehlo.convolution")

    assert count(train__accumulation=2) == count() > 50


def test_every_parameter_has_its_caffe_factors():
    config = settings("batch")
    params, _ = state.abstract_variables(build.detector(config, ("a", "b")), config)
    uses = {use.pattern: use for use in optim.parameter_rules(config.optimizer, params)}
    assert sum(use.parameters for use in uses.values()) == state.count_parameters(params)
    assert sum(use.tensors for use in uses.values()) == len(jax.tree.leaves(params))
    head = next(use for pattern, use in uses.items() if pattern.startswith("head/"))
    levels = len(build.detector(config, ("a", "b")).anchor_levels())
    assert (head.decay, head.tensors) == (0.0, 4 * levels)  # scale and shift, boxes and classes
