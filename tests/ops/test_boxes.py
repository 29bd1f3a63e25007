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
