"""Trainings one after the other: one config each, exact resume within and between them, refusals."""

import contextlib
import functools
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jdet import build, phases
from jdet import config as config_lib
from jdet.config import flatten, of_phase, split_phases
from jdet.train import loop
from jdet.train.checkpoints.checkpoint import load_for_inference
from jdet.train.folders import discard, run_folder
from jdet.train.progress import Outlook, Progress
from jdet.train.workdir import Workdir, open_run
from jdet.types import ConfigError, DataError
from tests.train import fake

STEPS = 6


def config(names=("low", "high"), groups=(), **common):
    """Two phases of 6 steps; the second has another rate, seed and length of its warm-up."""
    c = fake.config(train__steps=STEPS, train__save_every=2, **common)
    c.phases = names
    c.phase.low = dict(optimizer=dict(lr=0.05))
    c.phase.high = dict(seed=1, optimizer=dict(warmup=2), train=dict(log_every=1))
    for name, group in dict(groups).items():
        c.phase[name] = group
    return c


class Killed(BaseException):
    """Ends a run as kill -9 does: nothing is written afterwards."""


def train(workdir, kill=None, detector=None, **settings):
    """Trains with the smallest detector.

    Args:
        workdir: of all phases.
        kill: name of a phase and the batch of it at which the process dies; -1: before it begins.
        detector: None: the usual one.
        **settings: of ``config``, and ``overwrite``.
    """
    given = settings.pop("config", None)
    overwrite = settings.pop("overwrite", False)

    def stream(start, name, seed):
        for k, batch in enumerate(fake.stream(start, seed=seed), start):
            if (name, k) == kill:
                raise Killed
            yield batch

    def one(ready, folder, outlook):
        if (folder.name, -1) == kill:
            raise Killed
        return loop.train(
            ready.config,
            folder,
            detector=detector or fake.FakeDetector(),
            train_stream=functools.partial(stream, name=folder.name, seed=ready.config.seed),
            num_examples=ready.num_examples,
            outlook=outlook,
        )

    return phases.train(
        given or config(**settings),
        workdir,
        prepare=lambda c, folder: SimpleNamespace(config=c, num_examples=20),
        train_phase=one,
        overwrite=overwrite,
    )


def weights(workdir, phase=""):
    saved = load_for_inference(run_folder(workdir, phase))
    return saved.step, saved.params, saved.stats


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("phases") / "whole"
    return train(workdir), workdir


def test_each_phase_is_a_run_and_starts_from_the_one_before(whole):
    result, workdir = whole
    assert (result.status, result.step) == ("completed", STEPS)
    origin = json.loads((workdir / "high" / "run.json").read_text())["init_transforms"][0]
    assert origin["run"] == str(workdir / "low") and origin["step"] == STEPS
    taken, of = origin["parameters"]
    assert taken == of > 0
    assert not np.array_equal(
        *(weights(workdir, name)[1]["head"]["bias"] for name in ("low", "high"))
    )
    record = json.loads((workdir / "phases.json").read_text())["phases"]
    assert [(one["name"], one["status"], one["step"]) for one in record] == [
        ("low", "completed", STEPS),
        ("high", "completed", STEPS),
    ]
    assert (workdir / "curves.png").exists()
    assert not open_run(workdir).config.phases and open_run(workdir).path.name == "high"
    assert open_run(workdir, "low").config.optimizer.lr == 0.05


@pytest.mark.parametrize("kill", [("low", 3), ("high", -1), ("high", 4)], ids=str)
def test_killed_anywhere_it_ends_with_the_same_weights(kill, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as dying:
        finish = Workdir.finish
        silent = lambda self, status, **facts: status != "failed" and finish(self, status, **facts)  # noqa: E731
        dying.setattr(Workdir, "finish", silent)
        with pytest.raises(Killed):
            train(tmp_path, kill)
    finished = [
        one["status"] for one in json.loads((tmp_path / "phases.json").read_text())["phases"]
    ]
    assert finished[0] == ("not begun" if kill[0] == "low" else "completed")
    assert train(tmp_path).status == "completed"
    expected, found = (weights(path) for path in (whole[1], tmp_path))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    logs = [(path / "high" / "metrics.jsonl").read_text() for path in (whole[1], tmp_path)]
    logs = [[json.loads(line)["loss"] for line in text.splitlines()] for text in logs]
    assert logs[0] == logs[1]


def test_progress_is_of_all_phases(whole, tmp_path, capsys):
    train(tmp_path, groups={"high": dict(train=dict(steps=3 * STEPS, log_every=1))})
    lines = capsys.readouterr().out.splitlines()
    progress = Progress(10, outlook=Outlook("", 0.0, 30.0))
    watch = SimpleNamespace(seconds_per_step=lambda: 2.0)
    assert progress._pace(5, 1.0, 0.0, watch).endswith("  12% of all phases  ETA 0:01:10")
    last_low = next(x for x in lines if x.startswith(f"phase 1/2 low  step {STEPS}/{STEPS}"))
    assert "25% of all phases" in last_low
    assert any(x.startswith("phase 2/2 high  step 18/18") and "100% of" in x for x in lines)


def test_a_finished_phase_may_not_change_and_a_later_one_may(whole, tmp_path):
    with pytest.raises(Killed):
        train(tmp_path, ("high", -1))
    with pytest.raises(ConfigError, match=r"phase low is finished .*\n  optimizer.lr: 0.05 → 0.1"):
        train(tmp_path, groups={"low": dict(optimizer=dict(lr=0.1))})
    with pytest.raises(ConfigError, match="holds the phases low, in this order.*has high, low"):
        train(tmp_path, names=("high", "low"))
    train(
        tmp_path, groups={"high": dict(train=dict(steps=2)), "low": dict(optimizer=dict(lr=0.05))}
    )
    with pytest.raises(ConfigError, match="differs in\n(.*\n)*  train.steps: 2 → 6"):
        train(tmp_path)


def test_plain_runs_and_phases_do_not_take_each_others_folders(tmp_path, whole):
    plain = fake.config(train__steps=2)
    options = dict(detector=fake.FakeDetector(), train_stream=fake.stream, num_examples=20)
    with pytest.raises(ConfigError, match="holds a run with phases, and this config has none"):
        loop.train(plain, whole[1], **options)
    loop.train(plain, tmp_path, **options)
    with pytest.raises(ConfigError, match="holds a run without phases, and this config has some"):
        train(tmp_path)
    with pytest.raises(Killed):  # discards the plain run first
        train(tmp_path, ("low", -1), overwrite=True)
    assert not (tmp_path / "config.json").exists() and (tmp_path / "phases.json").exists()
    loop.train(plain, tmp_path, overwrite=True, **options)
    assert not (tmp_path / "phases.json").exists() and (tmp_path / "config.json").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="something else than a run .thesis.txt"):
        train(tmp_path / "other")


def test_a_phase_that_fails_is_recorded(tmp_path):
    """In a folder where a process was killed while it wrote for the first time."""
    (tmp_path / "phases.json.tmp").write_text("{")

    def fail(ready, folder, outlook):
        folder.mkdir()
        (folder / "run.json").write_text('{"status": "failed", "step": 3}')
        raise DataError("the stream ends")

    prepare = functools.partial(SimpleNamespace, num_examples=20)
    with pytest.raises(DataError, match="the stream ends"):
        phases.train(
            config(), tmp_path, prepare=lambda c, folder: prepare(config=c), train_phase=fail
        )
    low, high = json.loads((tmp_path / "phases.json").read_text())["phases"]
    assert (low["status"], low["step"], high["status"]) == ("failed", 3, "not begun")


@pytest.mark.parametrize("text", ["{", "[]", '{"phases": [{}]}'])
def test_a_damaged_list_of_phases_can_be_discarded(text, tmp_path):
    (tmp_path / "phases.json").write_text(text)
    for name, files in {"low": ("config.json", "run.json", "defects.txt"), "mine": ("x",)}.items():
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text("{}")
    with pytest.raises(ConfigError, match="phases.json .*discard the run with --overwrite"):
        run_folder(tmp_path)
    discard(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert (tmp_path / "mine" / "x").exists()


def test_configs_of_phases():
    c = config(
        groups={"high": dict(resize=dict(name="keep_ratio", short=(8,)), eval=dict(images=1))}
    )
    c.init_from.path, c.init_from.strict = "elsewhere", False
    low, high = split_phases(c)
    assert (low.config.init_from.path, high.config.init_from.path) == ("elsewhere", "phase:low")
    assert high.config.init_from.strict  # the common group is for the first phase
    assert low.config.resize.name == "warp" and high.config.resize.to_dict() == {
        "name": "keep_ratio",
        "short": (8,),
    }
    assert not low.config.phases and not low.config.phase and len(c.phases) == 2
    assert high.sets == {"resize.name": "keep_ratio", "resize.short": (8,), "eval.images": 1}
    assert of_phase(c) == high.config and of_phase(c, "low") == low.config
    assert of_phase(low.config) is low.config


def test_a_phase_sets_the_optimizer_and_is_not_calibrated_twice():
    c = config(groups={"high": dict(optimizer=dict(name="adamw"))}, calibration__iterations=1)
    low, high = (each.config for each in split_phases(c))
    assert (low.optimizer.name, high.optimizer.name) == ("sgd", "adamw")
    assert high.optimizer.momentum == low.optimizer.momentum == c.optimizer.momentum
    assert (low.calibration.iterations, high.calibration.iterations) == (1, 0)
    c.phase.high.calibration = dict(iterations=2)
    assert split_phases(c)[1].config.calibration.iterations == 2


@pytest.mark.parametrize(
    "key, value",
    [
        ("phase.low.train.batch_size", 8),
        ("phase.low.seed", 0),
        ("phase.low.optimizer.name", "sgd"),
        ("phase.high.parallel.bn_group_size", 0),
        ("phase.low.nothing.at_all", None),
        ("phase.other.seed", None),
        ("phase.high.resize.name", None),  # the keys of that class would be missing
        ("phase.low.resize.short", None),  # a class of its own
    ],
)
def test_what_a_phase_does_not_set_can_be_set(key, value):
    c = config(groups={"low": dict(resize=dict(name="warp"))})
    config_lib.complete_phase(c, key)
    found = flatten(c.to_dict())
    assert found.get(key) == value and (key in found) == (value is not None)
    split_phases(c)


@pytest.mark.parametrize(
    "key, refused",
    [
        ("optimizer.lr", ""),  # of low alone
        ("seed", ""),
        ("train.log_every", "--config.phase.low.train.log_every, --config.phase.high.train.log"),
        ("augment.mean", "--config.phase.low.augment.mean, --config.phase.high.augment.mean"),
        ("augment.expand", "none of them has this key: leave it out"),
        ("augment.name", "--config.phase.low.augment.name, "),
        ("init_from.path", "and here low does; set --config.phase.low.init_from.path$"),
        ("phase.low.train.log_every", ""),
    ],
)
def test_a_common_key_that_no_phase_would_have_is_refused(key, refused):
    none = dict(augment=build.group("augment", "none").to_dict())
    start = dict(init_from=dict(path="elsewhere"))
    low = dict(optimizer=dict(lr=0.1), train=dict(log_every=2), **none, **start)
    c = config(groups={"low": low, "high": dict(train=dict(log_every=3), **none)})
    with pytest.raises(ConfigError, match=refused) if refused else contextlib.nullcontext():
        config_lib.check_common(c, key)
    config_lib.check_common(fake.config(), key)  # without phases


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(names=("low", "hihg")), "names 'hihg', but config.phase.hihg does not.*mean 'high'"),
        (dict(names=("low",)), "config.phase.high belongs to no phase"),
        (dict(names=("low", "low")), "names 'low' twice"),
        (dict(names=("low", "No/")), "names 'No/', which is to be a folder"),
        (dict(groups={"low": dict(sede=1)}), "phase.low.sede is no key.*mean 'seed'"),
        (dict(groups={"low": dict(train=dict(steps="x"))}), "phase.low.train.steps='x'.*like"),
        (dict(groups={"low": dict(seed=dict(a=1))}), "phase.low.seed is no group"),
        (dict(groups={"low": dict(init_from=dict(path="phase:high"))}), "no phase before low"),
        (dict(groups={"low": dict(parallel=dict(cpu_devices=2))}), "devices once"),
    ],
)
def test_bad_phases_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        split_phases(config(**change))


def test_the_name_of_a_phase_must_be_one(whole):
    with pytest.raises(ConfigError, match="--phase=hihg does not exist, did you mean 'high'"):
        open_run(whole[1], "hihg")
    with pytest.raises(ConfigError, match="has no phases; leave it out"):
        open_run(whole[1] / "low", "low")
    with pytest.raises(ConfigError, match="has no phases; leave it out"):
        of_phase(config_lib.get_defaults(), "low")
    plain = fake.config(init_from__path="phase:low")
    with pytest.raises(ConfigError, match="names a phase, and there is none"):
        loop.train(
            plain,
            whole[1].parent / "plain",
            detector=fake.FakeDetector(),
            train_stream=fake.stream,
            num_examples=20,
        )
