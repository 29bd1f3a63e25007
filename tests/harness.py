"""One battery of checks per kind of part; adding a model costs a line in a test table."""

from __future__ import annotations

import functools
import inspect
import os
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.nn import randomness
from jdet.nn.remat import Remat
from jdet.train.gradient import call_losses
from jdet.types import Batch

ROOT = Path(__file__).resolve().parents[1]


def thorough(*values):
    """A row of a test table that repeats on another network what a row beside it shows.

    ``make test`` leaves it out, ``make test-thorough`` runs it.
    """
    return pytest.param(*values, marks=pytest.mark.thorough)


def mostly(names, *repeats):
    """The rows of a table by name, of which ``repeats`` are ``thorough``."""
    assert set(repeats) < set(names)
    return [thorough(name) if name in repeats else name for name in names]


def compiled(function, *static):
    """A function as one program; otherwise each of its operations is compiled by itself.

    Its arguments of these names are static, and all that can only be given by name.
    """
    named = inspect.signature(function).parameters.values()
    static += tuple(each.name for each in named if each.kind is each.KEYWORD_ONLY)
    return jax.jit(function, static_argnames=static)


def child_environment(**more):
    """Variables of a program that a test starts: this project first, then what the tests themselves see."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, **more}


def make_batch(size, count=4, boxes=3, classes=5, max_boxes=6, seed=0):
    """Random images; the second has no objects."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, size * 0.6, (count, max_boxes, 2))
    corners = np.concatenate([low, low + rng.uniform(size * 0.1, size * 0.4, low.shape)], -1)
    valid = np.broadcast_to(np.arange(max_boxes) < boxes, (count, max_boxes)).copy()
    valid[1] = False
    whole = np.full((count, 2), size, np.int32)
    return Batch(
        images=jnp.asarray(rng.integers(0, 256, (count, size, size, 3)).astype(np.uint8)),
        boxes=jnp.asarray(np.where(valid[..., None], corners, 0), jnp.float32),
        labels=jnp.asarray(np.where(valid, rng.integers(0, classes, valid.shape), 0), jnp.int32),
        valid=jnp.asarray(valid),
        ignore=jnp.zeros(valid.shape, bool),
        image_sizes=jnp.asarray(whole),
        original_sizes=jnp.asarray(whole),
        index=jnp.arange(count, dtype=jnp.int32),
        real=jnp.ones(count, bool),
    )


def initialise(module, *args, **kwargs):
    """Variables of a module, made under jit (with the generator that compiles fastest)."""
    return jax.jit(lambda key: module.init(key, *args, **kwargs))(jax.random.key(0, impl="rbg"))


def total_loss(module, variables, batch, params=None):
    """The scalar a training step minimises, and updated statistics."""
    variables = variables if params is None else {**variables, "params": params}
    means, updates = call_losses(module, variables, batch, jax.random.key(0))
    loss = sum(mean.total / jnp.maximum(mean.weight, 1) for mean in means.values())
    return loss, updates


def check_backbone(make, size=32):
    """Battery of a backbone: named stages halve, bfloat16 is close, remat changes nothing.

    What comes out is looked at by NumPy: JAX would compile every such look for every shape.
    """
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, size, size, 3)), jnp.float32)
    model = make()
    variables = initialise(model, x, train=False)
    run = jax.jit(lambda m, v, x: m.apply(v, x, train=False), static_argnums=0)
    stages = run(model, variables, x)
    _check_stages(model, stages, size, jnp.float32)
    stages = jax.device_get(stages)
    assert all(np.isfinite(stage).all() for stage in stages.values())

    low = run(make(dtype=jnp.bfloat16), variables, x.astype(jnp.bfloat16))
    _check_stages(model, low, size, jnp.bfloat16)
    for name, stage in stages.items():
        apart = np.abs(np.asarray(low[name], np.float32) - stage)
        assert apart.mean() < 0.05 * (stage.std() + 1e-6)

    rngs = randomness.streams(jax.random.key(0))

    def gradient(model, params):
        def loss(params):
            out, _ = model.apply(
                {**variables, "params": params}, x, train=True, mutable=["batch_stats"], rngs=rngs
            )
            return sum(jnp.mean(stage**2) for stage in out.values())

        return jax.grad(loss)(params)

    gradient = jax.jit(gradient, static_argnums=0)
    plain, remat = jax.device_get(
        [gradient(net, variables["params"]) for net in (model, make(remat=Remat("full")))]
    )

    # A bias before a norm has no gradient but rounding, which is of the others' size.
    most = max(np.abs(leaf).max() for leaf in jax.tree.leaves(plain))

    def close(a, b):
        atol = 2e-5 * (1e-2 * most + np.abs(a).max())
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=atol)
        assert (a != 0).any()

    jax.tree.map(close, plain, remat)


def trace_backbone(make, size=32):
    """What of the battery needs no numbers, for relatives of a backbone that passes the whole of it."""
    x = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: make().init(jax.random.key(0), x, train=False), x)
    none, full = Remat(), Remat("full")
    rngs = randomness.streams(jax.random.key(0))
    for dtype, remat in ((jnp.float32, none), (jnp.bfloat16, none), (jnp.float32, full)):
        model = make(dtype=dtype, remat=remat)

        def loss(params, variables, x, model=model):
            stages, updates = model.apply(
                {**variables, "params": params}, x, train=True, mutable=["batch_stats"], rngs=rngs
            )
            return sum(jnp.mean(stage**2) for stage in stages.values()), (stages, updates)

        gradient, (stages, updates) = jax.eval_shape(
            jax.grad(loss, has_aux=True), variables["params"], variables, x.update(dtype=dtype)
        )
        _check_stages(model, stages, size, dtype)
        assert gradient == variables["params"]
        assert updates.get("batch_stats") == variables.get("batch_stats")


def _check_stages(model, stages, size, dtype):
    """Names, sizes and type of stages, or of their shapes."""
    assert tuple(stages) == model.stage_names
    for name, stage in stages.items():
        assert stage.shape[1:3] == (-(-size // 2 ** int(name[1:])),) * 2, name
        assert stage.dtype == dtype


def check_detector(make, size, classes, frozen=False, background=False, boxes=None):
    """Battery of a detector: shapes, gradients, empty images, jit, static detections.

    ``background``: images without objects teach it the background, and no boxes; ``boxes`` matches the
    parameters that they leave alone, those of boxes if it is None.
    What comes out is looked at by NumPy: JAX would compile every such look for every shape.
    """
    batch = make_batch(size, classes=classes)
    model = make()
    variables = initialise(model, batch, method="losses", train=True)

    @jax.jit
    def value_and_gradient(params, batch):
        return jax.value_and_grad(lambda p: total_loss(model, variables, batch, p), has_aux=True)(
            params
        )

    (loss, updates), gradient = jax.device_get(value_and_gradient(variables["params"], batch))
    assert np.isfinite(loss) and loss > 0
    for path, leaf in jax.tree_util.tree_flatten_with_path(gradient)[0]:
        assert np.isfinite(leaf).all(), path
    stats = jax.device_get(variables.get("batch_stats", {}))
    for path, before in jax.tree_util.tree_flatten_with_path(stats)[0]:
        after = functools.reduce(lambda tree, key: tree[key.key], path, updates["batch_stats"])
        assert (before != after).any() != frozen, path

    empty = batch._replace(valid=np.zeros(batch.valid.shape, bool))
    (loss, _), gradient = jax.device_get(value_and_gradient(variables["params"], empty))
    assert np.isfinite(loss) and (loss > 0) == background
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    for path, leaf in jax.tree_util.tree_flatten_with_path(gradient)[0]:
        name = "/".join(key.key for key in path)
        if not background or re.fullmatch(boxes or model.head_layout().boxes, name):
            assert (leaf == 0).all(), name

    @jax.jit
    def detect(images):
        return model.apply(variables, images, batch.image_sizes, method="detect")

    found = jax.device_get(detect(batch.images))
    count = found.boxes.shape[1]
    assert found.boxes.shape == (4, count, 4) and found.boxes.dtype == np.float32
    assert found.scores.shape == found.labels.shape == found.valid.shape == (4, count)
    assert (np.diff(found.scores, axis=1) <= 0).all()
    assert ((found.labels >= 0) & (found.labels < classes)).all()
    assert np.where(found.valid, found.scores > 0, found.scores == 0).all()
    # An image's detections do not depend on its neighbours.
    images = np.asarray(batch.images) * (np.arange(4) == 0).astype(np.uint8)[:, None, None, None]
    others = jax.device_get(detect(images))
    np.testing.assert_array_equal(others.scores[0], found.scores[0])
    np.testing.assert_array_equal(others.boxes[0], found.boxes[0])
