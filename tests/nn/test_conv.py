import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jdet.nn import conv_forms
from jdet.nn.conv import Conv, conv2d
from jdet.nn.initialisers import caffe_xavier


def arrays(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def reference(x, kernel, strides, padding, dilation):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (strides, strides),
        [(padding, padding)] * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def pulled_back(function, x, kernel, cotangent):
    """Value and gradients, in one program that is traced anew."""

    @jax.jit
    def run(*arrays):
        value, pull = jax.vjp(function, *arrays)
        return value, *pull(cotangent)

    return run(x, kernel)


@functools.cache
def case(size, strides, padding, dilation):
    """Image, kernel and cotangent, and what XLA makes of them."""
    x, kernel = arrays((3, 14, 11, 5), (size, size, 5, 7))
    function = functools.partial(reference, strides=strides, padding=padding, dilation=dilation)
    (cotangent,) = arrays(jax.eval_shape(function, x, kernel).shape, seed=1)
    return (x, kernel, cotangent), pulled_back(function, x, kernel, cotangent)


PATHS = {
    "xla": dict(LARGE_IMAGE=10**9),
    "many images": dict(MANY_ELEMENTS=0, MANY_CHANNELS=1, FEW_CHANNELS=4),
    "patches": dict(LARGE_IMAGE=0, LARGE_STEM=0, FEW_CHANNELS=5),
    "one block": dict(LARGE_IMAGE=0, FEW_CHANNELS=4),
    "blocks": dict(LARGE_IMAGE=0, FEW_CHANNELS=4, BLOCK=4 * 3 * 11 * 12),
}
"""Ways to the weight gradient: the limits are moved instead of the images made large."""


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "size, strides, padding, dilation",
    [
        (3, 1, 1, 1),
        (3, 1, 0, 1),
        (3, 2, 1, 1),
        (1, 1, 0, 1),
        (1, 2, 0, 1),
        (7, 2, 3, 1),
        (3, 1, 6, 6),
    ],
)
def test_value_and_gradients_equal_xla(size, strides, padding, dilation, path, monkeypatch):
    for name, value in PATHS[path].items():
        monkeypatch.setattr(conv_forms, name, value)
    settings = dict(strides=strides, padding=padding, dilation=dilation)
    given, (expected, *theirs) = case(size, **settings)
    actual, *ours = pulled_back(functools.partial(conv2d, **settings), *given)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("path", ["xla", "patches", "blocks"])
@pytest.mark.parametrize("check", [True, False], ids=["checked", "unchecked"])
def test_gradient_of_replicated_kernel_sums_over_devices(path, check, monkeypatch):
    for name, value in PATHS[path].items():
        monkeypatch.setattr(conv_forms, name, value)
    if path == "blocks":
        monkeypatch.setattr(conv_forms, "FEW_CHANNELS", 2)
    x, kernel, target = arrays((4, 8, 8, 3), (3, 3, 3, 4), (4, 8, 8, 4))
    mesh = jax.make_mesh((2, 2), ("group", "member"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    rows = P(("group", "member"))

    def loss(kernel, x, target):
        return jnp.sum((conv2d(x, kernel, padding=1) - target) ** 2)

    @functools.partial(
        jax.shard_map, mesh=mesh, in_specs=(P(), rows, rows), out_specs=P(), check_vma=check
    )
    def on_devices(kernel, x, target):
        if check:
            total = lambda k: jax.lax.psum(loss(k, x, target), ("group", "member"))  # noqa: E731
            return jax.grad(total)(kernel)
        return jax.lax.psum(jax.grad(loss)(kernel, x, target), ("group", "member"))

    expected = jax.jit(jax.grad(loss))(kernel, x, target)
    np.testing.assert_allclose(
        jax.jit(on_devices)(kernel, x, target), expected, rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("size, form, other", [(3, "while", ""), (1, "dot_general", "convolution")])
def test_other_platforms_take_plain_convolutions(size, form, other):
    """The choice falls when the program is lowered, so a CPU can compile for an accelerator."""
    x = jax.ShapeDtypeStruct((1, 80, 80, 64), jnp.float32)
    kernel = jax.ShapeDtypeStruct((size, size, 64, 8), jnp.float32)

    def value_and_gradients(x, kernel):
        def loss(*arrays):
            return jnp.square(conv2d(*arrays, padding=size // 2)).sum()

        return jax.value_and_grad(loss, argnums=(0, 1))(x, kernel)

    def operations(platform):
        exported = jax.export.export(jax.jit(value_and_gradients), platforms=[platform])(x, kernel)
        return set(re.findall(r"stablehlo\.(\w+)", exported.mlir_module()))

    cpu, tpu = operations("cpu"), operations("tpu")
    assert {form, "dot_general"} <= cpu and other not in cpu
    assert "convolution" in tpu and not {form, "dot_general"} & tpu


def test_remat_changes_nothing():
    x, kernel = arrays((2, 9, 9, 4), (3, 3, 4, 4))
    loss = lambda k: jnp.sum(jnp.sin(conv2d(x, k, padding=1)))  # noqa: E731
    np.testing.assert_allclose(
        jax.grad(jax.checkpoint(loss))(kernel), jax.grad(loss)(kernel), rtol=1e-5
    )


def test_module_names_padding_and_precision():
    x = jnp.ones((1, 9, 9, 2))
    layer = Conv(6, kernel_size=3, dilation=2, use_bias=True, dtype=jnp.bfloat16)
    variables = layer.init(jax.random.key(0), x)
    shapes = jax.tree.map(jnp.shape, variables["params"])
    assert shapes == {"kernel": (3, 3, 2, 6), "bias": (6,)}
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    y = layer.apply(variables, x)
    assert y.shape == (1, 9, 9, 6) and y.dtype == jnp.bfloat16


def test_initialiser_is_caffes_xavier():
    kernel = caffe_xavier(jax.random.key(0), (3, 3, 16, 64), jnp.float32)
    limit = np.sqrt(3 / (3 * 3 * 16))
    assert np.abs(kernel).max() <= limit
    np.testing.assert_allclose(kernel.std(), limit / np.sqrt(3), rtol=0.05)
