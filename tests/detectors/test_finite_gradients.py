"""No prediction and no ground truth leaves a gradient that is not finite (all cases: ``wild``)."""

import pytest

from tests.detectors import wild


@pytest.mark.parametrize("name", wild.VARIANTS)
def test_wild_predictions_have_finite_gradients(name):
    variants = wild.VARIANTS[name][-1:]
    bad = wild.checker(name, variants)(0, 200)
    assert not bad.any(), dict(zip(map(str, variants), bad.tolist(), strict=True))
