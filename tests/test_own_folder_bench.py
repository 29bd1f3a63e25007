"""The bench of one's own folders: what it runs and goes on with, and what its tables say."""

import importlib
import json
import math
import sys

import cv2
import numpy as np
import pytest

from experiments.studies import own_folder, own_folder_table, shape_sets
from jdet.config import validate
from jdet.data.discover import discover
from jdet.data.objects import read_set
from jdet.data.sources.coco import CocoSource
from jdet.data.sources.shapes import ShapesSource


@pytest.fixture
def small(monkeypatch):
    """Sets of few images."""
    kinds = {"shapes_few": dict(size=64, num_classes=2, max_objects=2, splits=(3, 2))}
    monkeypatch.setattr(shape_sets, "SETS", kinds)
    monkeypatch.setattr(shape_sets, "CARD_IMAGES", (40, 2))


def test_drawn_sets_are_folders_that_are_recognised(small, tmp_path):
    folder = shape_sets.make("shapes_few", tmp_path / "few")
    assert discover(folder)[:2] == ("coco", "annotations/instances_train.json")
    source = CocoSource(folder / "annotations" / "instances_train.json")
    drawn = ShapesSource(size=64, num_classes=2, max_objects=2, count=3, split="train")
    assert source.class_names == drawn.class_names and not source.defects
    for index in range(3):
        np.testing.assert_allclose(source[index].boxes, drawn[index].boxes)
        image = cv2.imread(source[index].image)[..., ::-1]
        np.testing.assert_array_equal(image, drawn[index].image)
    before = (folder / "train" / "00000.png").stat().st_mtime_ns
    shape_sets.make("shapes_few", folder)  # once
    assert (folder / "train" / "00000.png").stat().st_mtime_ns == before


def test_cards_differ_in_small_marks_alone(small, tmp_path):
    folder = shape_sets.make(shape_sets.CARDS, tmp_path / "cards")
    objects = read_set(CocoSource(folder / "annotations" / "instances_train.json"))
    assert set(objects.labels.tolist()) == set(range(6)) and objects.most <= 3
    assert objects.sides.min() >= 90 and objects.sides.max() < 110
    assert 2 * shape_sets.MARK < 0.1 * objects.sides.min()


def finish(run, value, status="completed", steps=100):
    run.folder.mkdir(parents=True, exist_ok=True)
    run.log.write_text("")
    metrics = {own_folder_table.AP50: value, own_folder_table.AP: value / 2}
    facts = dict(status=status, step=steps, steps=steps, metrics=metrics, images_per_second=5.0)
    (run.folder / "run.json").write_text(json.dumps(facts | dict(micro_batch=8, devices=1)))


def planned(tmp_path, names="abc", arms=("today", "new", "wide"), minutes=(15.0,), seeds=(0,)):
    sets = {name: tmp_path / name for name in names}
    return own_folder.plan(sets, list(arms), list(minutes), list(seeds), tmp_path / "runs")


def test_short_budgets_come_first_and_commands_say_nothing_of_the_set(tmp_path):
    runs = planned(tmp_path, "ab", minutes=(60.0, 15.0))
    assert [run.arm for run in runs[:4]] == ["today@15", "today@15", "new@15", "new@15"]
    words = own_folder.command(runs[2], tmp_path / "a")
    assert words[3] == (
        f"--config=experiments/own_folder.py:cpu,root={tmp_path / 'a'},minutes=15,seed=0"
    )
    assert words[4] == f"--workdir={tmp_path}/runs/a/new-m15-s0"
    other = own_folder.command(runs[3], tmp_path / "b")
    alike = [word.replace("/b/", "/a/").replace("/b,", "/a,") for word in other]
    assert alike[3:] == words[3:]
    full = own_folder.command(runs[0], tmp_path / "a", full=True)[3]
    assert ":size=300," in full and "cpu" not in full
    assert "own_folder.py:root=" in own_folder.command(runs[2], tmp_path / "a", full=True)[3]


@pytest.mark.parametrize("name", own_folder.ARMS)
def test_every_arm_is_a_config(name, small, tmp_path, monkeypatch):
    """With its settings, on a set of few images; nothing is fitted, which takes a while."""
    folder = shape_sets.make("shapes_few", tmp_path / "few")
    run = planned(tmp_path, "a", arms=(name,), minutes=(2.0,))[0]
    words = own_folder.command(run, folder)
    file, _, arguments = words[3].removeprefix("--config=experiments/").partition(".py:")
    arguments += "" if "fit=" in arguments else ",fit=false"
    config = importlib.import_module(f"experiments.{file}").get_config(arguments)
    for word in words[5:]:
        key, _, text = word.removeprefix("--config.").partition("=")
        assert key in config.eval or "." in key
        *groups, leaf = key.split(".")
        node = config
        for group in groups:
            node = node[group]
        assert leaf in node
        node[leaf] = eval(text, {})
    validate(config)
    assert config.train.budget.minutes == 2 and config.eval.metrics == ("coco", "voc")


def test_tables(tmp_path):
    """Seeds are averaged, what diverged or failed counts as 0, and others choose."""
    runs = planned(tmp_path, seeds=(0, 1))
    values = {"today": (0.2, 0.2, 0.2), "new": (0.9, 0.5, 0.5), "wide": (0.1, 0.6, 0.7)}
    for run in runs:
        name = run.arm.partition("@")[0]
        finish(run, values[name]["abc".index(run.study)] + 0.02 * run.seed)
    found = own_folder_table.cells(own_folder_table.begun(tmp_path / "runs"))
    cell = found["15"]["new"]["a"]
    assert cell.ap50 == pytest.approx(0.91) and cell.ap == pytest.approx(0.455)
    assert (cell.runs, cell.failures, cell.minutes) == (2, 0, pytest.approx(800 / 5 / 60))
    chosen = own_folder_table.chosen(found["15"])
    assert [chosen[name]["arm"] for name in "abc"] == ["wide", "new", "new"]
    assert [chosen[name]["best"] for name in "abc"] == ["new", "wide", "wide"]
    text = own_folder_table.write(tmp_path / "runs")
    assert "| a | new | 45.5 | 91.0 | +70.0 | 2.7 | 100 | 2 | 0 |" in text
    assert "| a | wide | 11.0 | new | 91.0 |" in text
    assert json.loads((tmp_path / "runs" / "table.json").read_text())["15"]["chosen"] == chosen
    finish(runs[0], 0.5, "diverged")
    own_folder.Bench({}, False, 1, tmp_path).failed(runs[1], 2)
    assert own_folder_table.status(runs[1]) == "completed"  # later than its failure
    (runs[1].folder / "run.json").unlink()
    found = own_folder_table.cells(own_folder_table.begun(tmp_path / "runs"))["15"]["today"]
    assert found["a"].failures == found["b"].failures == 1
    assert found["b"].ap50 == pytest.approx(0.11)


def test_runs_that_have_not_ended_do_not_count(tmp_path):
    (run,) = planned(tmp_path, "a", arms=("new",))
    finish(run, 0.5, "running")
    assert own_folder_table.cells([run]) == {} and math.isnan(own_folder_table.score(run, "x"))
    assert own_folder_table.write(tmp_path / "runs") == ""
    assert own_folder_table.chosen({"new": {}}) == {}


def test_curves(tmp_path):
    (run,) = planned(tmp_path, "a", arms=("new",))
    finish(run, 0.5)
    (run.folder / "config.json").write_text(
        json.dumps({"train": {"budget": {"step_seconds": 0.6}}})
    )
    lines = [{"step": 50, own_folder_table.AP50: 0.25}, {"step": 100, own_folder_table.AP50: 0.5}]
    (run.folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert own_folder_table.curves([run]) == {"a": {"new@15, seed 0": [(0.5, 0.25), (1.0, 0.5)]}}
    own_folder_table.write(tmp_path / "runs")
    assert cv2.imread(str(tmp_path / "runs" / "curves.png")) is not None


def test_a_failure_is_a_result_and_finished_runs_are_not_repeated(
    small, tmp_path, monkeypatch, capsys
):
    """A folder that is no set is left out; what is done stays, what failed is told and tried again."""
    (tmp_path / "sets" / "empty").mkdir(parents=True)
    shape_sets.make("shapes_few", tmp_path / "sets" / "mine")
    calls = []

    def command(run, folder, full=False):
        calls.append((run.study, run.arm, folder.name))
        return [sys.executable, "-c", "raise SystemExit(2)"]

    monkeypatch.setattr(own_folder, "command", command)
    monkeypatch.setattr(own_folder.signal, "signal", lambda *_: None)
    options = [f"--root={tmp_path / 'sets'}", f"--runs={tmp_path / 'runs'}", "--sets=mine"]
    done = planned(tmp_path, ["mine"], arms=("new",), minutes=(1.0,))[0]
    finish(done, 0.7)
    assert own_folder.main([*options, "--minutes=1"]) == 1
    assert calls == [("mine", "today@1", "mine")]
    out = capsys.readouterr().out
    assert (
        "failed with code 2" in out and "| mine | today | 0.0 | 0.0 | +0.0 | – | – | 1 | 1 |" in out
    )
    assert "| mine | new | 35.0 | 70.0 | +70.0 |" in out


@pytest.mark.parametrize(
    "wrong, text",
    [
        (["--arms=nothing"], "--arms=nothing matches none of today, new"),
        (["--sets=nothing"], "--sets=nothing finds no labelled folder"),
        (["--jobs=0"], "must be at least 1"),
        (["--minutes=0"], "minutes above 0, such as 15,60"),
        (["--root=nowhere"], "a folder"),
    ],
)
def test_options_that_make_no_sense(wrong, text, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        own_folder.main([f"--root={tmp_path}", f"--runs={tmp_path / 'runs'}", *wrong])
    assert text in capsys.readouterr().err
