import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jdet.ops import boxes
from tests.golden import load

corners = arrays(np.float32, (5, 4), elements=st.floats(-300, 300, width=16))


@pytest.fixture(scope="module")
def golden():
    return load("iou")


@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
def test_overlaps_equal_torchvision(golden, kind):
    ours = boxes.pairwise_iou(jnp.asarray(golden["boxes1"]), jnp.asarray(golden["boxes2"]), kind)
    np.testing.assert_allclose(ours, golden[kind], atol=1e-5)


def test_area_and_clip_equal_torchvision(golden):
    np.testing.assert_allclose(
        boxes.area(jnp.asarray(golden["boxes1"])), golden["area1"], rtol=1e-6
    )
    clipped = boxes.clip(jnp.asarray(golden["boxes2"]), jnp.array([90, 80]))
    np.testing.assert_array_equal(clipped, golden["clipped"])


def test_unknown_overlap_is_an_error():
    with pytest.raises(ValueError, match="kind='piou'"):
        boxes.pairwise_iou(jnp.zeros([1, 4]), jnp.zeros([1, 4]), "piou")


def test_centre_form_to_corners():
    found = boxes.cxcywh_to_xyxy(jnp.array([[[10.0, 20.0, 4.0, 6.0]], [[0.0, 0.0, 1.0, 3.0]]]))
    np.testing.assert_array_equal(found, [[[8, 17, 12, 23]], [[-0.5, -1.5, 0.5, 1.5]]])


@given(corners, corners)
def test_iou_is_symmetric_bounded_and_never_nan(a, b):
    forward = np.asarray(boxes.pairwise_iou(jnp.asarray(a), jnp.asarray(b)))
    backward = np.asarray(boxes.pairwise_iou(jnp.asarray(b), jnp.asarray(a)))
    np.testing.assert_allclose(forward, backward.T, atol=1e-6)
    assert ((forward >= 0) & (forward <= 1 + 1e-6)).all()


@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
def test_gradients_are_finite_whatever_the_boxes(kind):
    """Flat, empty, inverted, equal, far apart, huge."""
    some = jnp.array(
        [[0, 0, 0, 0], [2, 2, 9, 2], [2, 2, 2, 9], [9, 9, 2, 2], [0, 0, 10, 10], [0, 0, 1e-9, 1e-9]]
        + [[-1e12, 3, 1e12, 4], [5, 5, 5 + 1e-4, 5 + 1e-4], [1e6, 1e6, 1e6 + 1, 1e6 + 1]]
    )
    value, gradient = jax.value_and_grad(lambda pair: boxes.pairwise_iou(*pair, kind).sum())(
        (some, some)
    )
    assert np.isfinite(value) and all(np.isfinite(x).all() for x in gradient)


def test_whole_number_boxes_overlap_as_others_do():
    whole = jnp.array([[0, 0, 10, 10], [5, 0, 15, 10]])
    np.testing.assert_allclose(
        boxes.pairwise_iou(whole, whole), [[1, 1 / 3], [1 / 3, 1]], rtol=1e-6
    )
