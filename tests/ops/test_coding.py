import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdet.ops import coding
from tests.golden import centred, load


@pytest.mark.parametrize(
    "name, variances", [("w10_10_5_5", coding.SSD_VARIANCES), ("w1_1_1_1", (1.0, 1.0, 1.0, 1.0))]
)
def test_equal_torchvision(name, variances):
    golden = load("box_coder")
    anchors = jnp.asarray(centred(golden["proposals"]))
    codes = coding.encode(jnp.asarray(golden["gt"]), anchors, variances)
    np.testing.assert_allclose(codes, golden[f"enc_{name}"], rtol=1e-5, atol=1e-5)
    decoded = coding.decode(jnp.asarray(golden["codes"]), anchors, variances)
    np.testing.assert_allclose(decoded, golden[f"dec_{name}"], rtol=1e-5, atol=1e-3)
    triple = coding.decode(
        jnp.asarray(golden["codes3"]).reshape(-1, 3, 4), anchors[:, None], variances
    )
    np.testing.assert_allclose(triple.reshape(-1, 12), golden[f"dec3_{name}"], rtol=1e-5, atol=1e-3)


def test_distances_equal_torchvision():
    golden = load("box_coder")
    anchors = jnp.asarray(centred(golden["proposals"]))
    points, size = anchors[:, :2], jnp.tile(anchors[:, 2:], 2)
    plain = coding.encode_distances(points, jnp.asarray(golden["gt"]))
    np.testing.assert_allclose(plain, golden["lin_enc_nonorm"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(plain / size, golden["lin_enc"], rtol=1e-5, atol=1e-5)
    decoded = coding.decode_distances(points, jnp.abs(jnp.asarray(golden["codes"])) * size)
    np.testing.assert_allclose(decoded, golden["lin_dec"], rtol=1e-5, atol=1e-4)


side = st.floats(4, 256, width=32)


@given(*[st.floats(0, 300, width=32)] * 4, side, side, side, side)
def test_round_trip(bx, by, ax, ay, bw, bh, aw, ah):
    box = jnp.array([bx, by, bx + bw, by + bh], jnp.float32)
    anchor = jnp.array([ax, ay, aw, ah], jnp.float32)
    np.testing.assert_allclose(coding.decode(coding.encode(box, anchor), anchor), box, atol=5e-3)


def test_empty_boxes_and_wild_offsets_stay_finite():
    anchor = jnp.array([5.0, 5.0, 10.0, 10.0])
    assert np.isfinite(coding.encode(jnp.zeros(4), anchor)).all()
    assert np.isfinite(coding.decode(jnp.full(4, 1e6), anchor)).all()
    flat = jnp.array([5.0, 5.0, 0.0, 10.0])  # cut to nothing at the border
    assert np.isfinite(coding.encode(jnp.array([1.0, 1.0, 9.0, 9.0]), flat)).all()


def test_whole_numbers_are_coded_as_their_float_values():
    box, anchor = jnp.array([10, 20, 40, 60]), jnp.array([20, 30, 40, 50])
    codes = coding.encode(box, anchor)
    np.testing.assert_array_equal(codes, coding.encode(box.astype(float), anchor.astype(float)))
    ones = jnp.ones(4, jnp.int32)
    np.testing.assert_array_equal(
        coding.decode(ones, anchor), coding.decode(ones.astype(float), anchor.astype(float))
    )


def test_logarithms_of_sizes_can_be_limited_below_too():
    """MMDetection's decoder, at the value that its specification gives."""
    low = -coding.MAX_LOG_SCALE
    anchor, offsets = jnp.array([0.0, 0.0, 16.0, 16.0]), jnp.full(4, -9.0)
    free, limited = (
        coding.decode(offsets * jnp.array([0, 0, 1, 1]), anchor, (1.0,) * 4, min_log_scale=limit)
        for limit in (-np.inf, low)
    )
    np.testing.assert_allclose(free[2:] - free[:2], 16 * np.exp(-9), rtol=1e-5)
    np.testing.assert_allclose(limited[2:] - limited[:2], 16 * 16 / 1000, rtol=1e-5)
    unit = coding.decode(jnp.ones(4), jnp.array([0.5, 0.5, 1, 1]), (1.0,) * 4, min_log_scale=low)
    np.testing.assert_allclose(unit, [0.1409, 0.1409, 2.8591, 2.8591], atol=1e-4)
