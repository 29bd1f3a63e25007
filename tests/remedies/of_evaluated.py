"""Remedies of the analysis of an evaluation: its detections, slices and thresholds."""

import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from jdet.analyse import __main__ as command
from jdet.analyse import evaluated, records, slices, thresholds
from jdet.html_report import write
from jdet.types import ConfigError, DataError
from tests.analyse.test_records import EMPTY
from tests.analyse.test_thresholds import of_class
from tests.remedies.rows import Elsewhere, row

WRITE = "jdet/html_report/write.py"
EVALUATED, SLICES = "jdet/analyse/evaluated.py", "jdet/analyse/slices.py"
THRESHOLDS, RECORDS = "jdet/analyse/thresholds.py", "jdet/analyse/records.py"
NIGHT = '{"night": [17, 23]}'


def renewed(folder, again, call):
    """A call that is refused by the file of a run, and after the command of the message is not."""
    try:
        return call(folder)
    except (ConfigError, DataError) as error:
        if not again:
            raise
        command = shlex.split(re.search("python -m (.*)", str(error))[1])
    assert command == ["jdet.analyse", str(folder)]
    records.write(folder, EMPTY._replace(classes=["worm"], per_class=[of_class("worm", 0.4, 0.6)]))
    return call(folder)


def spoilt(folder, again):
    run = folder / "the dog's run"
    run.mkdir()
    (run / records.FILE).write_text("{")
    renewed(run, again, lambda run: records.read(run) and None)


def scored(folder, classes, again):
    run = folder / "the dog's run"
    run.mkdir()
    if classes:
        records.write(run, EMPTY._replace(classes=list(classes)))
    renewed(run, again, lambda run: thresholds.of_run(run, ("worm",), "precision") and None)


def evaluate_again(folder, again):
    """``report.json`` of a run whose name a shell would read otherwise; the message's program is run."""
    run = folder / 'a "dog\'s" $run'
    run.mkdir()
    for name in ("report.json", "detections.json", "images.json"):
        (run / name).write_text("{")
    try:
        return evaluated.report_of(SimpleNamespace(path=run))
    except DataError as error:
        if not again:
            raise
        typed = shlex.split(str(error).rpartition("evaluate again: ")[2])
    assert typed[:2] == ["python", "-c"]
    write = lambda path: (Path(path) / "report.json").write_text("{}")  # noqa: E731
    with mock.patch("jdet.run.evaluate", write):
        exec(typed[2])
    return evaluated.report_of(SimpleNamespace(path=run))


def images_of(classes=("worm",), found=("a",)):
    """An evaluated run, held against the set of one image that it was evaluated on."""
    run = SimpleNamespace(path=Path("run"), config=mock.MagicMock())
    index = {"categories": [{"name": name} for name in classes]}
    detections = {i: SimpleNamespace(id=name) for i, name in enumerate(found)}
    source = mock.MagicMock(class_names=("worm",), ids=["a"])
    source.__len__.return_value = 1
    source.__getitem__.return_value = SimpleNamespace(id="a")
    with (
        mock.patch.object(evaluated, "open_run", lambda *_: run),
        mock.patch.object(evaluated, "report_of", lambda run: {}),
        mock.patch.object(evaluated.results, "read", lambda path: (detections, index)),
        mock.patch.object(evaluated.build, "sources", lambda config: (None, source)),
        mock.patch.object(evaluated, "ScoredImage"),
    ):
        evaluated.read_run("run")


def sliced(folder, asked, text="", coco=True, values=2):
    """Slices of a run of 200 images whose records have a field ``day``."""
    records = [{"id": i, "file_name": str(i), "day": i % values} for i in range(200)]
    held = {"images": records, "annotations": [], "categories": []}
    (folder / "set.json").write_text(json.dumps(held))
    (folder / "night.json").write_text(text or NIGHT)
    run = SimpleNamespace(
        images=[SimpleNamespace(id=i, name=str(i)) for i in range(200)],
        annotation_file=str(folder / "set.json") if coco else None,
    )
    slices.read_slices(str(folder / asked) if asked.endswith(".json") else asked, run)


def precise(precision):
    def work(work, *_):
        return work()

    with (
        mock.patch.object(command.cli, "run", work),
        mock.patch.object(command, "read_run", side_effect=KeyboardInterrupt),
    ):
        try:
            command.main(["run", f"--precision={precision}"])
        except KeyboardInterrupt:  # the next stage is reached
            pass


def reported(ids):
    """Looking for the evaluated images in the set."""
    write._places(SimpleNamespace(ids=ids), {"a": 1, "b": 2})


COMMAND = (
    "tests/analyse/test_command.py::test_the_command_analyses_the_last_evaluation",
    "command.main([str(run)",
)

ROWS = [
    Elsewhere(WRITE, "python -m jdet.analyse {} finds them", *COMMAND),
    Elsewhere(WRITE, "python -m jdet.analyse {} renews them", *COMMAND),
    row(
        WRITE,
        "by the command of the training with --mode=evaluate",
        reported,
        {"ids": ["a"]},
        {"ids": ["a", "b"]},
    ),
    Elsewhere(
        "jdet/html_report/curves.py",
        "put back a copy",
        "tests/remedies/test_of_workdirs.py::test_a_copy_that_is_put_back_is_read",
    ),
    row(RECORDS, "renew it: python -m jdet.analyse", spoilt, {"again": False}, {"again": True}),
    row(
        THRESHOLDS,
        "python -m jdet.analyse {}",
        scored,
        {"classes": ("ant",), "again": False},
        {"again": True},
    ),
    row(THRESHOLDS, "renew it: {}", scored, {"classes": ("ant",), "again": False}, {"again": True}),
    row(
        THRESHOLDS,
        "make it: {}",
        scored,
        {"classes": (), "again": False},
        {"again": True},
    ),
    row(EVALUATED, "evaluate again: ", evaluate_again, {"again": False}, {"again": True}),
    row(
        EVALUATED,
        "run.evaluate({})",
        evaluate_again,
        {"again": False},
        {"again": True},
    ),
    row(
        EVALUATED,
        "evaluate the run again",
        images_of,
        {"classes": ("ant",)},
        {"classes": ("worm",)},
    ),
    row(
        EVALUATED,
        "give the set back, or evaluate again",
        images_of,
        {"found": ("a", "b")},
        {"found": ("a",)},
    ),
    row(
        SLICES,
        "--slices={}: there is no such file",
        sliced,
        {"asked": "none.json"},
        {"asked": "night.json"},
    ),
    row(
        SLICES,
        "expected names with lists of image ids, such as",
        sliced,
        {"asked": "night.json", "text": "[]"},
        {"text": NIGHT},
    ),
    row(
        SLICES,
        "name a JSON file such as",
        sliced,
        {"asked": "day", "coco": False},
        {"asked": "night.json"},
    ),
    row(
        SLICES,
        "is neither a file nor a field of the images",
        sliced,
        {"asked": "dya"},
        {"asked": "day"},
    ),
    row(
        SLICES,
        "group the images in a JSON file such as",
        sliced,
        {"asked": "day", "values": 150},
        {"asked": "night.json"},
    ),
    row(
        "jdet/analyse/__main__.py",
        "must be above 0 and at most 1, such as 0.9",
        precise,
        {"precision": 0.0},
        {"precision": 0.9},
    ),
]
