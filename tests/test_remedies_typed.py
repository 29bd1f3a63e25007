"""What a message tells to do, done: the same call then goes through."""

import json
import re

import jax
import pytest

from jdet import config as config_lib
from jdet.evaluation import tta
from jdet.nn.remat import Remat
from jdet.parallel import cluster, mesh
from jdet.train import saturation, schedule
from jdet.train.checkpoints.select import check_metric, parse_step
from jdet.train.workdir import Workdir
from jdet.types import ConfigError
from tests.train import fake


def resolve(config):
    return schedule.resolve(config, 20)


def split(devices):
    return lambda config: mesh.split_batch(config, devices)


def layout(config):
    return mesh.bn_layout(4, 2, config.parallel.bn_group_size)


def passes(config):
    return tta.settings(config.eval.tta.to_dict())


def remat(known):
    return lambda config: Remat(config.train.remat, config.train.remat_parts).check(known)


def metric(config):
    return check_metric(config.train.best_metric, ["voc07/mAP"])


ONE_PASS = ((1.0, 1.0, True, 0, 0),)


@pytest.mark.parametrize(
    "check, wrong, remedy, typed",
    [
        (
            config_lib.validate,
            {"landscape__probe_every": 20},
            "set that as well, to 20",
            {"landscape__every": 20},
        ),
        (
            config_lib.validate,
            {"landscape__probe_steps": (2, 1)},
            "such as (0.5, 1.0, 2.0, 4.0)",
            {"landscape__probe_steps": (0.5, 1.0, 2.0, 4.0)},
        ),
        (
            config_lib.validate,
            {"train__remat": "ful"},
            "did you mean 'full'",
            {"train__remat": "full"},
        ),
        (config_lib.validate, {"data__workers": -1}, "must be in 0", {"data__workers": 0}),
        (
            resolve,
            {"optimizer__warmup_lr": 0.001},
            "set optimizer.warmup",
            {"optimizer__warmup": 1},
        ),
        (resolve, {"optimizer__warmup": 9}, "shorten it or train longer", {"optimizer__warmup": 2}),
        (resolve, {"optimizer__warmup": 9}, "shorten it or train longer", {"train__steps": 99}),
        (resolve, {"train__steps": 0}, "set one of them", {"train__epochs": 3}),
        (resolve, {"train__epochs": 3}, "leave the other 0", {"train__steps": 0}),
        (
            resolve,
            {"optimizer__boundaries": ("a",)},
            "such as (0.5, 0.8)",
            {"optimizer__boundaries": (0.5, 0.8)},
        ),
        (
            resolve,
            {"optimizer__boundaries": (5, 2)},
            "others fractions of the run",
            {"optimizer__boundaries": (0.5, 4)},
        ),
        (
            saturation.from_config,
            {"train__saturation__patience": 2, "train__eval_every": 0},
            "set it to some steps",
            {"train__eval_every": 2},
        ),
        (split(4), {"train__batch_size": 6}, "take a multiple of 4", {"train__batch_size": 8}),
        (
            split(1),
            {"train__accumulation": 16},
            "a smaller train.accumulation",
            {"train__accumulation": 2},
        ),
        (split(1), {"train__accumulation": 16}, "take a multiple of 16", {"train__batch_size": 32}),
        (
            mesh.pick_devices,
            {"parallel__devices": 9},
            "use 0 for all of them",
            {"parallel__devices": 0},
        ),
        (
            layout,
            {"parallel__bn_group_size": 3},
            "1, 2, 4, 8 do (0: all 8)",
            {"parallel__bn_group_size": 2},
        ),
        (layout, {"parallel__bn_group_size": 3}, "(0: all 8)", {"parallel__bn_group_size": 0}),
        (
            passes,
            {"eval__tta__passes": ONE_PASS},
            "set the preset to 'custom'",
            {"eval__tta__preset": "custom"},
        ),
        (
            passes,
            {"eval__tta__passes": ONE_PASS},
            "or leave the passes out",
            {"eval__tta__passes": ()},
        ),
        (
            passes,
            {"eval__tta__preset": "custom"},
            "such as ((1.0, 1.0, True, 0, 0),)",
            {"eval__tta__passes": ONE_PASS},
        ),
        (
            remat(["c2"]),
            {"train__remat_parts": ("c2",)},
            "set train.remat to one of convs",
            {"train__remat": "convs"},
        ),
        (
            remat(["c2"]),
            {"train__remat": "full", "train__remat_parts": ("c9",)},
            "has c2",
            {"train__remat_parts": ("c2",)},
        ),
        (remat([]), {"train__remat": "full"}, "take train.remat=none", {"train__remat": "none"}),
        (
            metric,
            {"train__best_metric": "voc/mAP"},
            "did you mean 'voc07/mAP'",
            {"train__best_metric": "voc07/mAP"},
        ),
    ],
)
def test_a_setting(check, wrong, remedy, typed):
    with pytest.raises(ConfigError) as error:
        check(fake.config(**wrong))
    assert remedy in str(error.value)
    check(fake.config(**{**wrong, **typed}))


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


def test_hosts_and_steps():
    with pytest.raises(ConfigError, match="--coordinator=HOST:PORT .*--process_id of this one"):
        cluster.find(num_processes=2)
    assert cluster.find("", "a:8476", 2, 1) is not None
    with pytest.raises(ConfigError, match="say which one it is with --process_id"):
        cluster.find("nowhere-1,nowhere-2")
    assert cluster.find("nowhere-1,nowhere-2", process_id=1) is not None
    with pytest.raises(ConfigError, match="such as 10.0.0.2:8476"):
        cluster.find("", "a:b", 2, 1)
    assert cluster.find("", "10.0.0.2:8476", 2, 1) is not None
    with pytest.raises(ConfigError, match="give a number, 'best' or 'latest'"):
        parse_step("last")
    assert parse_step("best") == "best" and parse_step("latest") is None and parse_step("3") == 3
