"""What messages about the folder of a run tell to do, done."""

import json
import re

import jax
import pytest

from jdet.train.workdir import Workdir
from jdet.types import ConfigError
from tests.train import fake


def typed_in(message, config):
    """The config with every ``--config.key=number`` of a message."""
    for key, value in re.findall(r"--config\.([\w.]+)=(\d+)", message):
        *groups, leaf = key.split(".")
        node = config
        for group in groups:
            node = node[group]
        node[leaf] = int(value)
    return config


@pytest.mark.parametrize("here, devices", [(1, 0), (1, 1), (4, 1), (4, 0)])
def test_going_on_with_as_many_devices(tmp_path, monkeypatch, here, devices):
    """A run of two processes with a CPU device each, on one machine with one or four devices."""
    config = fake.config(train__loss_norm="per_device", parallel__devices=devices)
    folder = Workdir(tmp_path, config, 20)
    folder.update(devices=2, micro_batch=4)
    monkeypatch.setattr(jax, "device_count", lambda: here)
    used = devices or here
    with pytest.raises(ConfigError) as error:
        folder.check_split(config, used, 8 // used)
    typed = typed_in(str(error.value).replace("--config.train.loss_norm", ""), config).parallel
    there = typed.cpu_devices if typed.cpu_devices > 1 else here  # what JAX would count then
    assert (typed.devices or there) == 2 <= there
    assert folder.check_split(config, 2, 4) == ""
    folder.close()


def test_devices_that_no_setting_brings_are_not_promised(tmp_path, monkeypatch):
    config = fake.config(train__loss_norm="per_device")
    folder = Workdir(tmp_path, config, 20)
    folder.update(devices=8, micro_batch=1)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(ConfigError, match="Go on with 8 devices, of which there are 4 here"):
        folder.check_split(config, 4, 2)
    folder.close()


def another_seed(folder):
    (folder / "config.json").write_text(fake.config(seed=9).to_json())


def damaged(name):
    return lambda folder: (folder / name).write_text("{")


@pytest.mark.parametrize("spoil", [another_seed, damaged("config.json"), damaged("run.json")])
def test_overwrite_discards_whatever_is_wrong_with_a_run(tmp_path, spoil):
    config = fake.config()
    Workdir(tmp_path / "run", config, 20).close()
    spoil(tmp_path / "run")
    with pytest.raises(ConfigError, match="discard (it|the run) with --overwrite"):
        Workdir(tmp_path / "run", config, 20)
    said = []
    Workdir(tmp_path / "run", config, 20, overwrite=True, notify=said.append).close()
    Workdir(tmp_path / "run", config, 20).close()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["num_examples"] == 20


def test_a_copy_that_is_put_back_is_read(tmp_path):
    config = fake.config()
    Workdir(tmp_path, config, 20).close()
    copy = (tmp_path / "config.json").read_bytes()
    (tmp_path / "config.json").write_text("")
    with pytest.raises(ConfigError, match="put back a copy"):
        Workdir(tmp_path, config, 20)
    (tmp_path / "config.json").write_bytes(copy)
    Workdir(tmp_path, config, 20).close()
