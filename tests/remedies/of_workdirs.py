"""Remedies of workdirs, phases in them, checkpoints and claims."""

import json
from types import SimpleNamespace
from unittest import mock

from jdet import phases
from jdet.config.phased import split_phases
from jdet.train import folders
from jdet.train.checkpoints import checkpoint, manifest
from jdet.train.claim import Claim, check_name
from jdet.train.workdir import Workdir
from tests.remedies.rows import Elsewhere, Untyped, row
from tests.test_phases import config as phased
from tests.train import fake

WORKDIR, PHASES, CHECKPOINT = (
    "jdet/train/workdir.py",
    "jdet/phases.py",
    "jdet/train/checkpoints/checkpoint.py",
)

CLAIM, FOLDERS, INIT = (
    "jdet/train/claim.py",
    "jdet/train/folders.py",
    "jdet/train/init/init_from.py",
)

TYPED, RUNS = "tests/remedies/test_of_workdirs.py", "tests/test_phases.py"


def workdir(folder, held="run", place="run", overwrite=False, **given):
    """Opens a workdir in which a file, a run, a run with phases or something else is."""
    path = folder / "run"
    if held == "file":
        path.write_text("mine")
    elif held == "phases":
        path.mkdir()
        (path / "phases.json").write_text('{"phases": []}')
    elif held == "other":
        path.mkdir()
        (path / "thesis.txt").write_text("mine")
    else:
        Workdir(path, fake.config(), 20).close()
    config = fake.config(**given)
    Workdir(folder / place, config, 20, overwrite=overwrite, notify=lambda text: None).close()


def with_phases(folder, held, place="run", overwrite=False):
    path = folder / "run"
    if held == "file":
        path.write_text("mine")
    else:
        path.mkdir()
        (path / ("thesis.txt" if held == "other" else "config.json")).write_text("{}")
    with phases._held(folder / place, overwrite, lambda text: None):
        pass


def planned(folder, names=("low", "high"), lr=0.05, place="run", overwrite=False):
    """A run of which the first phase is finished, gone on with."""
    for name, status in (("low", "completed"), ("high", "failed")):
        Workdir(folder / "run" / name, _phase(name), 20).close()
        record = folder / "run" / name / "run.json"
        record.write_text(json.dumps({**json.loads(record.read_text()), "status": status}))
    plan = [_planned(name, lr) for name in names]
    if overwrite:
        folders.discard(folder / "run")
    (folder / place).mkdir(parents=True, exist_ok=True)
    if not (folder / place / "phases.json").exists():
        names = ("low", "high") if place == "run" and not overwrite else ()
        listed = {"phases": [{"name": name} for name in names]}
        (folder / place / "phases.json").write_text(json.dumps(listed))
    phases._finished(folder / place, plan)


def _phase(name, lr=0.05):
    found = split_phases(phased(groups={"low": {"optimizer": {"lr": lr}}}))
    return {phase.name: phase for phase in found}[name].config


def _planned(name, lr):
    config = _phase(name, lr if name == "low" else 0.05)
    phase = {p.name: p for p in split_phases(phased())}[name]
    ready = SimpleNamespace(config=config, num_examples=20)
    return phases.Planned(phase, ready, 6, 1.0)


def phase_of(folder, phase):
    folders.run_folder(folder, phase)


def listed(folder, text, discarded=False):
    (folder / "phases.json").write_text(text)
    if discarded:
        folders.discard(folder)
    folders.phase_names(folder)


def record_of(folder, text):
    (folder / "run.json").write_text(text)
    folders.record_of(folder)


def inference(folder, place):
    steps = folder / "run" / "checkpoints" / "3"
    steps.mkdir(parents=True)
    with mock.patch.object(checkpoint, "_load", lambda *_: ({"model": MODEL}, None)):
        with mock.patch.object(checkpoint, "steps_in", lambda path: [3] * path.is_dir()):
            checkpoint.load_for_inference(folder / place)


MODEL = {"params": {}, "stats": {}, "ema": None}


def fitting(params):
    """A checkpoint of one array, and a model that has another or the same."""
    about = {"shapes": {"model": {"params/a": [[3], "float32"]}}}
    with mock.patch.object(manifest, "verify", lambda path: about):
        with mock.patch.object(manifest, "differences", lambda *_: params):
            manifest.verify_fit("3", {"model": {}})


def locked(folder, free):
    first = Claim(folder)
    if free:
        first.release()
    try:
        Claim(folder).release()
    finally:
        if not free:
            first.release()


def named(folder, name):
    check_name(str(folder / name) if ":" not in name else name)


ROWS = [
    row(WORKDIR, "is a file; name a folder", workdir, {"held": "file"}, {"place": "new"}),
    row(
        WORKDIR,
        "give the config the run was begun with, take another workdir, or discard it",
        workdir,
        {"held": "phases"},
        {"place": "new"},
        {"overwrite": True},
    ),
    row(WORKDIR, "name an empty or new folder", workdir, {"held": "other"}, {"place": "new"}),
    row(
        WORKDIR,
        "Set this back to go on with it, take another workdir, or discard it with",
        workdir,
        {"seed": 9},
        {"seed": 0},
        {"place": "new"},
        {"overwrite": True},
    ),
    Elsewhere(
        WORKDIR,
        "put back a copy, or discard the run with --overwrite",
        f"{TYPED}::test_overwrite_discards_whatever_is_wrong_with_a_run",
        "discard (it|the run) with --overwrite",
    ),
    Elsewhere(
        WORKDIR,
        "or begin a run in another workdir that does not",
        f"{TYPED}::test_going_on_with_as_many_devices",
        "check_split",
    ),
    Elsewhere(
        WORKDIR,
        "--config.parallel.devices=0",
        f"{TYPED}::test_going_on_with_as_many_devices",
        "check_split",
    ),
    Untyped(WORKDIR, "name a folder that all hosts share", "needs two hosts"),
    row(PHASES, "is a file; name a folder", with_phases, {"held": "file"}, {"place": "new"}),
    row(PHASES, "name an empty or", with_phases, {"held": "other"}, {"place": "new"}),
    row(
        PHASES,
        "run was begun with, take another workdir, or discard it with --overwrite",
        with_phases,
        {"held": "run"},
        {"place": "new"},
        {"overwrite": True},
    ),
    row(
        PHASES,
        "Those that have begun must come first; set this back, take another",
        planned,
        {"names": ("high", "low")},
        {"names": ("low", "high")},
        {"place": "new"},
        {"overwrite": True},
    ),
    row(
        PHASES,
        "Set this back to go on after it, take another workdir, or discard all phases with",
        planned,
        {"lr": 0.2},
        {"lr": 0.05},
        {"place": "new"},
        {"overwrite": True},
    ),
    Elsewhere(PHASES, "put back a copy", f"{TYPED}::test_a_copy_that_is_put_back_is_read"),
    Elsewhere(
        FOLDERS,
        "put back a copy, or discard",
        f"{RUNS}::test_a_damaged_list_of_phases_can_be_discarded",
        "discard(tmp_path)",
    ),
    row(
        FOLDERS,
        "lists no phases; put back a copy, or discard the run with --overwrite",
        listed,
        {"text": '{"phases": [{}]}'},
        {"text": '{"phases": [{"name": "low"}]}'},
        {"discarded": True},
    ),
    row(FOLDERS, "has no phases; leave it out", phase_of, {"phase": "low"}, {"phase": ""}),
    row(FOLDERS, "put back a copy", record_of, {"text": "{"}, {"text": "{}"}),
    row(
        CHECKPOINT,
        "--workdir must name the folder of a training run",
        inference,
        {"place": "elsewhere"},
        {"place": "run"},
    ),
    Elsewhere(
        CHECKPOINT,
        "is never overwritten; train in another workdir",
        "tests/train/test_loop.py::test_overwrite_discards_the_run_and_nothing_else",
        "overwrite=True",
    ),
    Elsewhere(
        CHECKPOINT,
        "can be read; put back a copy of one, or discard the run with --overwrite",
        "tests/train/test_loop.py::test_overwrite_discards_the_run_and_nothing_else",
        "overwrite=True",
    ),
    Elsewhere(
        CHECKPOINT,
        "Make room on that disk or allow writing there, then start again",
        "tests/train/checkpoints/test_checkpoint.py::test_full_disk_is_a_clear_error_and_nothing_is_lost",
        "Make room",
    ),
    Untyped(CHECKPOINT, "take a workdir on another one", "needs a file system that loses files"),
    Elsewhere(
        CHECKPOINT,
        "folder with a plain name, or read it with the versions",
        "tests/train/test_claim.py::test_a_name_that_checkpoints_do_not_survive_comes_with_one_that_does",
        "r[1]",
    ),
    row(
        "jdet/train/checkpoints/manifest.py",
        "Use the config it was trained with, or another workdir",
        fitting,
        {"params": ["params/a: absent in the checkpoint"]},
        {"params": []},
    ),
    row(
        CLAIM,
        "mount the bucket (gcsfuse, mount-s3) and name a folder there",
        named,
        {"name": "gs://bucket/run"},
        {"name": "mnt/bucket/run"},
    ),
    Elsewhere(
        CLAIM,
        "take a folder without, such as --workdir=",
        "tests/train/test_claim.py::test_a_name_that_checkpoints_do_not_survive_comes_with_one_that_does",
        "--workdir=",
    ),
    row(
        CLAIM,
        "wait for it, stop it, or take another workdir",
        locked,
        {"free": False},
        {"free": True},
    ),
    Elsewhere(
        CLAIM,
        "if that process is gone, wait {} s or remove",
        "tests/train/test_claim.py::test_a_claim_without_lock_lapses",
        "lock.unlink()",
    ),
    Elsewhere(
        "jdet/train/loop.py",
        "then start again",
        "tests/train/checkpoints/test_checkpoint.py::test_full_disk_is_a_clear_error_and_nothing_is_lost",
        "Make room",
    ),
]
