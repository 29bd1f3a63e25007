"""Remedies of the examination of a data set; what it advises on the data is for people to judge."""

import contextlib
import json
import re
import shlex
from types import SimpleNamespace
from unittest import mock

from absl import flags

from jdet.analyse import records
from jdet.doctor import __main__ as command
from jdet.doctor import suspects
from jdet.types import ConfigError
from tests.analyse.test_records import EMPTY
from tests.remedies.rows import row

MAIN, SUSPECTS = "jdet/doctor/__main__.py", "jdet/doctor/suspects.py"
MISSED = dict(image="a", box=[0, 0, 9, 9], score=0.9, other="", kind="unlabelled")
MISSED["class"] = "worm"


class Reached(Exception):
    """The next stage is reached."""


class Values(SimpleNamespace):
    """Flags of the command."""

    def __getitem__(self, name):
        return SimpleNamespace(value=getattr(self, name))


def examined(folder, path="", config=None, out=""):
    (folder / "file").write_text("mine")
    out = str(folder / out) if out else ""
    values = Values(path=path, config=config, run="", phase="", out=out, processes=0)
    with (
        mock.patch.object(flags, "FLAGS", values),
        mock.patch.object(command.config_lib, "validate"),
        mock.patch.object(command.config_lib, "of_phase", lambda config, phase: config),
        mock.patch.object(command, "config_name", lambda config: "x"),
        mock.patch.object(command.splits, "of_folder", lambda path: (None, ())),
        mock.patch.object(command.splits, "of_config", lambda config: (None, ())),
        mock.patch.object(command.examine_lib, "examine", side_effect=Reached),
        contextlib.suppress(Reached),
    ):
        command.main()


def suspected(folder, typed, analysed=False):
    """Suspects of a run in a folder with blanks and quotes in its name, which a shell must read."""
    run = folder / "the dog's run"
    run.mkdir()
    (run / "images.json").write_text(json.dumps({"images": [{"id": "a", "name": "a"}]}))
    if analysed:
        records.write(run, EMPTY._replace(label_suspects=[MISSED]))
    split = mock.Mock(trained=False, ids=["b"], source=mock.Mock(class_names=("worm",)))
    split.source.image_ids = ()
    try:
        return [*suspects.findings([split], run)] and None
    except ConfigError as error:
        if not typed:
            raise
        arguments = shlex.split(re.search(r"python -m ([^`]*)", str(error))[1])
    if analysed:  # the images of the run itself
        assert arguments[:2] == ["jdet.doctor", f"--run={run}"]
        split.ids, split.files, split.name = ["a"], ["a.png"], "val"
    else:
        assert arguments == ["jdet.analyse", str(run)]
        split.ids = ["a"]
        records.write(run, EMPTY)
    return [*suspects.findings([split], run)] and None


ROWS = [
    row(
        MAIN,
        "name two data sets; give one of them",
        examined,
        {"path": "set", "config": "x"},
        {"path": ""},
        {"config": None},
    ),
    row(
        MAIN,
        "name a folder of labelled images, --config=experiments/… or --run=WORKDIR",
        examined,
        {},
        {"path": "set"},
        {"config": "x"},
    ),
    row(
        MAIN,
        "cannot be made ({}); name a folder",
        examined,
        {"path": "set", "out": "file"},
        {"out": "new"},
    ),
    row(SUSPECTS, "makes it", suspected, {"typed": False}, {"typed": True}),
    row(
        SUSPECTS,
        "examine its own data: python -m jdet.doctor --run={}",
        suspected,
        {"typed": False, "analysed": True},
        {"typed": True},
    ),
]
