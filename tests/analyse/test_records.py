import json
import math

import numpy as np
import pytest

from jdet.analyse import records
from jdet.types import DataError

EMPTY = records.Analysis(
    iou=0.5,
    images=0,
    classes=["worm"],
    per_class=[],
    by_size={},
    pr_curves={},
    tide=None,
    confusion=None,
    calibration=None,
    slices=[],
    image_list=[],
    label_suspects=[],
)


def test_what_is_written_is_read_again(tmp_path):
    assert records.read(tmp_path) is None
    whole = EMPTY._replace(tide={"missed": np.float32(0.5)}, confusion={"score": math.nan}, step=7)
    records.write(tmp_path, whole)
    found = records.read(tmp_path)
    assert found == whole._replace(tide={"missed": 0.5}, confusion={"score": None})
    assert json.loads((tmp_path / "analysis.json").read_text())["version"] == 1


@pytest.mark.parametrize(
    "text, said",
    [("{", "cannot be used"), ("[]", "cannot be used"), ('{"version": 1}', "classes")]
    + [('{"version": 9}', "has version 9, not 1")],
)
def test_a_spoiled_file_names_its_remedy(tmp_path, text, said):
    (tmp_path / "analysis.json").write_text(text)
    with pytest.raises(DataError, match=said) as error:
        records.read(tmp_path)
    assert f"python -m jdet.analyse {tmp_path}" in str(error.value)


@pytest.mark.parametrize("value, held", [(0.25, 0.25), (math.nan, None), (-1, None), (0.0, 0.0)])
def test_undefined_numbers_are_none(value, held):
    assert records.number(value) == held
