"""The analysis that a training ends with, from the files of its last evaluation."""

import json

import pytest

from jdet import build
from jdet.analyse import records
from jdet.analyse.last import write_last
from jdet.config import load
from tests.analyse.random_set import random_set
from tests.analyse.test_command import save


@pytest.fixture
def ended(tmp_path):
    folder = save(tmp_path / "run", random_set(0, images=4))
    config = load(folder / "config.json")
    return folder, config, build.sources(config)[1]


def test_it_is_of_the_last_evaluation_and_made_once(ended):
    write_last(*ended)
    found = records.read(ended[0])
    assert found.step == 30 and found.images == 4 and found.masks is None
    records.write(ended[0], found._replace(slices=[{"name": "asked for"}]))
    write_last(*ended)  # a training that is complete is started again
    assert records.read(ended[0]).slices == [{"name": "asked for"}]


def test_it_is_left_out_where_it_is_not_wanted_or_nothing_was_evaluated(ended):
    folder, config, source = ended
    config.eval.analyse = False
    write_last(folder, config, source)
    config.eval.analyse = True
    (folder / "report.json").unlink()
    write_last(folder, config, source)
    assert records.read(folder) is None


@pytest.mark.parametrize("name", ["detections.json", "report.json"])
def test_a_run_does_not_end_for_want_of_it(ended, caplog, name):
    (ended[0] / name).write_text(json.dumps([{"image_id": "nowhere"}]))
    write_last(*ended)
    assert records.read(ended[0]) is None
    (warning,) = [one for one in caplog.records if one.levelname == "WARNING"]
    assert "analysis.json was not written" in warning.getMessage()
