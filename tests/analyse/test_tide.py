import json
from pathlib import Path

import numpy as np
import pytest

from jdet.analyse.coco import CocoEvaluation
from tests.analyse.random_set import NAMES, random_set
from tests.golden.make_tide import SETS

GOLDEN = Path(__file__).parents[1] / "golden" / "tide.json"


@pytest.mark.parametrize("number", range(len(SETS)))
def test_errors_are_those_of_tidecv(number):
    expected = json.loads(GOLDEN.read_text())[number]
    found = CocoEvaluation(random_set(**SETS[number]), NAMES)
    assert found.ap(iou=0) == pytest.approx(expected.pop("ap") / 100, abs=1e-12)
    np.testing.assert_allclose(
        list(found.tide().values()), np.array(list(expected.values())) / 100, atol=1e-12
    )
