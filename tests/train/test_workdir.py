"""The folder of a run: what it says of going on with other images per device, and how it is read."""

import pickle

import pytest

from jdet import run
from jdet.train import folders
from jdet.train.checkpoints.checkpoint import CheckpointError
from jdet.train.workdir import Workdir
from jdet.types import ConfigError
from tests.train import fake


@pytest.mark.parametrize(
    "accumulation, group, before, now, says",
    [
        (1, 0, 2, 4, False),  # all images of the step, however they are split
        (2, 0, 2, 4, True),
        (2, 0, 4, 4, False),
        (2, 2, 2, 4, False),  # groups inside a device
        (2, 4, 2, 4, True),
        (2, 4, 4, 2, True),
    ],
)
def test_groups_over_devices_change_where_micro_batches_do(
    tmp_path, accumulation, group, before, now, says
):
    config = fake.config(train__accumulation=accumulation, parallel__bn_group_size=group)
    with config.unlocked():
        config.model.norm = "sync_batch"
    folder = Workdir(tmp_path, config, 20)
    folder.update(micro_batch=before, devices=2)
    note = folder.check_split(config, 4, now)
    folder.close()
    assert ("train.accumulation=2, BatchNorm groups" in note) == says
    assert (f"{before} each before and {now} now" in note) == says


def test_a_run_is_opened_while_another_process_writes_to_it(tmp_path):
    folder = Workdir(tmp_path / "run", fake.config(train__steps=7), 20)
    opened = run.open_run(f"{tmp_path}/./run")
    assert opened.config.train.steps == 7 and opened.record["num_examples"] == 20
    assert opened.path.samefile(folder.path) and opened.checkpoints.parent == opened.path
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        opened.weights()
    folder.close()
    (tmp_path / "run" / "run.json").write_text("{")
    with pytest.raises(ConfigError, match="run.json cannot be read .*; put back a copy"):
        run.open_run(tmp_path / "run")
    with pytest.raises(ConfigError, match="holds no run"):
        run.open_run(tmp_path)


def test_the_config_of_a_run_is_there_or_not(tmp_path):
    """A damaged one is for the check of the workdir to refuse."""
    assert folders.stored_config(tmp_path / "nothing") is None
    for damaged in ("{", "[]", '{"train": {"steps": "abc"}}'):
        (tmp_path / "config.json").write_text(damaged)
        assert folders.stored_config(tmp_path) is None
    (tmp_path / "config.json").write_text(fake.config(seed=7).to_json())
    found = folders.stored_config(tmp_path)
    assert found.seed == 7 and pickle.loads(pickle.dumps(found)).to_json() == found.to_json()
