import jax
import jax.numpy as jnp
import numpy as np

from tests.detectors.test_dense_detector import SHAPES as MAPS
from tests.detectors.test_dense_detector import make


def test_the_detector_reads_its_grids_off_its_anchors():
    model = make("atss", anchor_scale=3.0)
    priors = model.priors(MAPS, (64, 64))
    boxes, valid = jnp.array([[4.0, 4.0, 28.0, 28.0]]), jnp.array([True])
    assign = jax.jit(lambda *arrays: model.assign(priors, *arrays))
    match = np.asarray(assign(boxes, valid, jnp.array([64, 64])))
    centres = np.concatenate(priors)[match == 0]
    # The anchor of the object's own size and place is among the few chosen.
    assert any((place == (16, 16, 24, 24)).all() for place in centres) and len(centres) <= 9
    decoded = model.corners(jnp.zeros((1, 4)), jnp.array([[16.0, 16.0, 24.0, 24.0]]))
    np.testing.assert_allclose(decoded, boxes)
