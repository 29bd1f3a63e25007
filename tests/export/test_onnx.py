"""Programs of JAX as ONNX: what ONNX Runtime makes of them, where there is one."""

import os
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.export.onnx import convert, environment, proto
from jdet.export.onnx.table import OPERATIONS, Unsupported
from jdet.ops import nms
from jdet.ops.deform_conv import deform_conv
from jdet.ops.roi_align import roi_align

RNG = np.random.default_rng(0)


def floats(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def whole(most, *shape):
    return RNG.integers(0, most, shape).astype(np.int32)


def of_whole_sides(count):
    """Boxes whose IoU is often a whole ratio, some of them inverted."""
    corners = RNG.integers(0, 12, (count, 2, 2)).astype(np.float32)
    return np.concatenate([np.sort(corners[:-5], 1), corners[-5:]]).reshape(count, 4)


def boxes(count):
    corners = RNG.uniform(0, 100, (count, 2, 2)).astype(np.float32)
    return np.sort(corners, 1).reshape(count, 4)


def conv(x, kernel, **more):
    numbers = ("NHWC", "HWIO", "NHWC")
    pads = ((1, 1), (0, 1))
    return jax.lax.conv_general_dilated(x, kernel, (2, 2), pads, dimension_numbers=numbers, **more)


def pooled(x):
    pads = ((0, 0), (1, 1), (0, 1), (0, 0))
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), pads)


def counted(x, most):
    def step(state):
        return state[0] + 1, state[1] * 1.5

    return jax.lax.while_loop(lambda state: state[0] < most, step, (0, x))


def found(result):
    return tuple(part for part in result if part is not None)


CASES = {
    "whole": (lambda x: (x // 7, x % 7, jnp.sign(x), jnp.cumsum(x)), whole(99, 9) - 50),
    "numbers": (
        lambda x: (jnp.isfinite(x), jnp.round(3 * x), x[::-1], jax.nn.gelu(x, approximate=False)),
        floats(4, 5),
    ),
    "conv": (conv, floats(1, 9, 8, 4), floats(3, 3, 4, 6)),
    "grouped": (
        lambda x, k: conv(x, k, feature_group_count=4),
        floats(1, 9, 8, 4),
        floats(3, 3, 1, 4),
    ),
    "pool": (pooled, floats(1, 9, 8, 3)),
    "product": (
        lambda x, y: jnp.einsum("bhqd,bkhd->bhqk", x, y),
        floats(2, 3, 4, 5),
        floats(2, 6, 3, 5),
    ),
    "gather": (
        lambda x, i: (x[i], x[:, i, i], x.at[i].get(mode="fill", fill_value=9.0)),
        floats(4, 6, 5),
        whole(4, 7),
    ),
    "of each": (lambda x, i: jax.vmap(lambda a, b: a[b])(x, i), floats(3, 4, 6), whole(4, 3, 5)),
    "windows": (
        lambda x, i: jax.vmap(lambda s: jax.lax.dynamic_slice(x, (s, s + 1, 0), (2, 3, 4)))(i),
        floats(7, 8, 4),
        whole(9, 6),
    ),
    "update": (
        lambda x, i, u: jax.lax.dynamic_update_slice(x, u, (i, i + 1, 0)),
        floats(5, 6, 3),
        np.array(4, np.int32),
        floats(2, 3, 3),
    ),
    "scatter": (
        lambda x, i, u: (x.at[i].set(7.0, mode="drop"), x.at[i].add(u)),
        floats(5, 3),
        whole(7, 4),
        floats(4, 3),
    ),
    "order": (
        lambda x: (*jax.lax.top_k(x, 3), jnp.argsort(x), jnp.argmax(x, 1), jax.lax.cummax(x, 1)),
        floats(4, 9),
    ),
    "while": (counted, floats(3), np.array(5, np.int32)),
    "scan": (lambda x: jax.lax.scan(lambda c, a: (c + a, c * a), jnp.zeros(3), x), floats(4, 3)),
    "switch": (
        lambda x, i: jax.lax.switch(i, [lambda: x, lambda: x * 2, lambda: -x]),
        floats(3),
        np.array(2, np.int32),
    ),
    "candidates": (
        lambda b, s, n: found(nms.candidates_nms(b, s, n, iou_threshold=0.3, keep=20)),
        boxes(90),
        RNG.random(90).astype(np.float32),
        whole(3, 90),
    ),
    "nms": (
        lambda b, s: found(
            nms.class_wise_nms(b, s, score_threshold=0.1, iou_threshold=0.4, pre_nms=80, keep=30)
        ),
        boxes(90),
        RNG.random((90, 3)).astype(np.float32),
    ),
    # Many overlaps are a threshold to the bit, where quotients and products are rounded apart.
    "nms at borders": (
        lambda b, v: tuple(nms.nms(b, v, x) for x in (0.0, 0.3, 0.45, 0.6, 0.7, 1.0)),
        np.stack([of_whole_sides(200) for _ in range(3)]),
        np.arange(200) < np.array([[200], [150], [0]]),
    ),
    "limited candidates": (
        lambda b, s, n: jax.vmap(
            lambda *each: found(
                nms.candidates_nms(*each, iou_threshold=0.6, keep=70, keep_per_class=9)
            )
        )(b, s, n),
        np.stack([of_whole_sides(60) for _ in range(2)]),
        RNG.integers(-2, 8, (2, 60)).astype(np.float32),
        whole(3, 2, 60),
    ),
    "rois": (
        lambda x, y, r: roi_align([x, y], r, strides=(4, 8), output=3, sampling=0),
        floats(1, 40, 40, 4),
        floats(1, 20, 20, 4),
        1.5 * boxes(9)[None],
    ),
    "deformed": (deform_conv, floats(1, 6, 7, 4), 3 * floats(1, 6, 7, 9, 2), floats(3, 3, 4, 5)),
}


def written(function, *arguments):
    """The file of a function of arrays, whose outputs are called 0, 1, …."""

    def named(*given):
        result = function(*given)
        result = result if isinstance(result, tuple) else (result,)
        return {f"{i:02}": part for i, part in enumerate(result)}

    inputs = [
        (f"i{i}", jax.ShapeDtypeStruct(x.shape, x.dtype), x.shape) for i, x in enumerate(arguments)
    ]
    return proto.model(convert.convert(named, [], inputs), "test", {"jdet": "{}"})


@pytest.fixture(scope="module")
def python():
    given = os.environ.get("ONNX_PYTHON", "")
    if not given:
        pytest.skip("needs an interpreter that has onnxruntime, named in ONNX_PYTHON")
    return environment.python(given)


RUN = """
import sys, numpy, onnxruntime
for name in sys.argv[2:]:
    session = onnxruntime.InferenceSession(f"{sys.argv[1]}/{name}.onnx")
    with numpy.load(f"{sys.argv[1]}/{name}.in.npz") as given:
        outputs = session.run(None, dict(given))
    numpy.savez(f"{sys.argv[1]}/{name}.out.npz", *outputs)
"""


def test_onnx_runtime_finds_what_jax_finds(python, tmp_path):
    for name, (function, *arguments) in CASES.items():
        (tmp_path / f"{name}.onnx").write_bytes(written(function, *arguments))
        np.savez(tmp_path / f"{name}.in.npz", **{f"i{i}": x for i, x in enumerate(arguments)})
    subprocess.run([python, "-c", RUN, str(tmp_path), *CASES], check=True, timeout=120)
    for name, (function, *arguments) in CASES.items():
        expected = jax.device_get(jax.jit(function)(*arguments))
        expected = expected if isinstance(expected, tuple) else (expected,)
        with np.load(tmp_path / f"{name}.out.npz") as outputs:
            for i, one in enumerate(expected):
                np.testing.assert_allclose(
                    outputs[f"arr_{i}"], one, rtol=1e-4, atol=2e-5, err_msg=name
                )


@pytest.mark.parametrize("name", ["conv", "while", "gather"])
def test_a_graph_is_the_same_every_time(name):
    """And has its outputs' names and the metadata in it."""
    function, *arguments = CASES[name]
    first = written(function, *arguments)
    assert first == written(function, *arguments)
    assert b"00" in first and b"jdet" in first


@pytest.mark.parametrize("name", ["nms", "candidates"])
def test_nms_is_an_operation_of_onnx(name):
    function, *arguments = CASES[name]
    assert b"NonMaxSuppression" in written(function, *arguments)


def test_equal_constants_are_stored_once():
    table = np.arange(4096, dtype=np.float32)

    def twice(x):
        return {"0": x + table, "1": x * jnp.asarray(table)}

    spec = ("x", jax.ShapeDtypeStruct((4096,), jnp.float32), (4096,))
    assert len(convert.convert(twice, [], [spec])) < 1.5 * table.nbytes


def test_an_operation_without_a_counterpart_is_named():
    with pytest.raises(Unsupported, match="the operation digamma"):
        written(jax.lax.digamma, floats(3))
    assert "digamma" not in OPERATIONS


def test_numbers_are_written_as_the_format_has_them():
    assert proto.varint(300) == b"\xac\x02" and len(proto.varint(-1)) == 10
    assert proto.attribute("axis", 1) == b"\n\x04axis\x18\x01\xa0\x01\x02"
    tensor = proto.tensor("c", np.array([[1, 2]], np.int32))
    assert tensor.endswith(b"\x01\0\0\0\x02\0\0\0")
