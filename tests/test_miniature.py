"""Studies of many arms: what is run, what is left out, and what the table says."""

import json
import sys

import pytest

from experiments.studies import miniature, questions, summary
from experiments.studies import runs as runs_lib
from jdet.config import validate

SCORES = {"none": {0.001: 0.3}, "head": {0.001: 0.4, 0.01: 0.5}}
SCORES |= {"backbone": {0.001: 0.5, 0.01: 0.6, 0.05: 0.65}}
SCORES |= {"both": {0.001: 0.5, 0.01: 0.6, 0.05: 0.7}}


def record(run, status="completed", value=0.5, steps=600, **further):
    run.folder.mkdir(parents=True)
    metrics = {questions.MAIN: value, "voc07/AP/cell": value} if value else {}
    metrics |= further
    facts = dict(status=status, step=600, steps=steps, metrics=metrics, images_per_second=20.0)
    (run.folder / "run.json").write_text(json.dumps(facts | dict(micro_batch=8, devices=2)))


DIRECT = [study for study in questions.STUDIES if study.startswith("direct")]


def finish_table1(tmp_path, seeds):
    runs = runs_lib.plan("table1", tmp_path, seeds)
    for run in runs:
        norm, _, rate = run.arm.partition("@")
        value = SCORES[norm].get(float(rate))
        if value:
            record(run, value=value + 0.01 * run.seed)
        else:
            record(run, "diverged", 0)
    return runs


@pytest.mark.parametrize("study", questions.STUDIES)
def test_every_arm_is_a_config(study, tmp_path):
    from importlib import import_module

    for run in runs_lib.plan(study, tmp_path, [3]):
        words = runs_lib.command(run, "some/set", 40)
        name, _, arguments = words[3].removeprefix("--config=experiments/").partition(".py:")
        config = import_module(f"experiments.{name}").get_config(arguments)
        validate(config)
        assert config.input_size <= 256 and config.train.steps == 40 and config.seed == 3
        assert config.data.root == "some/set" and words[4] == f"--workdir={run.folder}"


def test_a_folder_of_sets_serves_every_study(tmp_path):
    (tmp_path / "bccd").mkdir()
    for study, name in (("table1", "bccd"), ("root_block", "")):
        run = runs_lib.plan(study, tmp_path / "runs", [0])[0]
        assert f"root={tmp_path / name}," in runs_lib.experiment(run, str(tmp_path), 0)


def test_claims_and_means(tmp_path):
    runs = finish_table1(tmp_path, [0, 1])
    found = summary.summary("table1", runs)
    assert all(holds is True for holds in found["claims"].values()), found["claims"]
    arm = found["arms"]["both@0.05"]
    assert arm["mean"] == pytest.approx(0.705) and arm["low"] == 0.7 and arm["high"] == 0.71
    assert arm["seconds"] == 600 * 16 / 20
    assert found["arms"]["none@0.05"]["diverged"] == 2
    text = summary.markdown("table1", found)
    assert "| both@0.05 | 70.5 | 70.0 … 71.0 | 2 | 600 | 8.0 | 70.5 |" in text
    assert "| none@0.05 | 0.0 (2 diverged) |" in text and "holds" in text


def test_a_claim_can_fail(tmp_path, monkeypatch):
    monkeypatch.setitem(SCORES, "head", {0.001: 0.9})
    found = summary.summary("table1", finish_table1(tmp_path, [0]))
    assert found["claims"]["backbone norms beat head norms"] is False
    assert found["claims"]["head norms beat none"] is True


def test_no_verdict_on_half_a_study(tmp_path):
    runs = runs_lib.plan("table1", tmp_path, [0], only="both")
    assert [run.arm for run in runs] == ["both@0.001", "both@0.01", "both@0.05"]
    record(runs[0])
    found = summary.summary("table1", runs)
    assert list(found["arms"]) == ["both@0.001"]
    assert set(found["claims"].values()) == {None}


def test_done_runs_are_left_alone_and_others_started(tmp_path, monkeypatch, capfd):
    runs = runs_lib.plan("dsod", tmp_path, [0], only="dense|plain")
    record(runs[0])
    record(runs[1], "interrupted")
    program = (
        "import json, pathlib; path = pathlib.Path({!r}); facts = json.loads(path.read_text());"
        "path.write_text(json.dumps(facts | {{'status': 'completed'}})); print('went on')"
    )
    monkeypatch.setattr(
        miniature,
        "command",
        lambda run, *_: [sys.executable, "-c", program.format(str(run.folder / "run.json"))],
    )
    tables = []
    miniature.Runner("root", 0, 2, tmp_path / "programs").all(
        runs, lambda: tables.append(len(tables))
    )
    assert len(tables) == 1 and not runs[0].log.exists()
    assert runs[1].log.read_text() == "went on\n"
    assert runs[1].record()["status"] == "completed"
    assert "dsod plain seed 0: completed 0.500" in capfd.readouterr().out


def test_nothing_starts_after_a_stop(tmp_path):
    runner = miniature.Runner("root", 0, 1, tmp_path / "programs")
    runner.stop()
    runner.all(runs_lib.plan("dsod", tmp_path, [0]), lambda: None)
    assert not list(tmp_path.iterdir())


def test_table_has_all_runs_of_the_folder(tmp_path):
    """Also those that this command did not ask for, and none twice."""
    finish_table1(tmp_path, [0, 11])
    assert len(runs_lib.begun("table1", tmp_path)) == 24
    (tmp_path / "table1" / "both@0.05-s1.log").touch()
    text = summary.write("table1", tmp_path)
    assert (tmp_path / "table1" / "table.md").read_text() == text
    found = json.loads((tmp_path / "table1" / "table.json").read_text())
    assert found["arms"]["both@0.05"]["scores"] == pytest.approx([0.7, 0.81])
    assert len(found["arms"]) == 12


def test_an_arm_of_several_studies_is_run_once(tmp_path):
    """What one study trained is in the table of the others, which have none of it in their own folders."""
    for run in runs_lib.plan("direct", tmp_path, [0, 1], only="direct"):
        record(run, value=0.6 + 0.1 * run.seed, steps=684)
    for study, arm in (("direct_norms", "fixed"), ("direct_fraction", "direct@1")):
        (planned,) = runs_lib.plan(study, tmp_path, [0], only=f"^{arm}$")
        assert (planned.study, planned.record()["status"]) == (study, "completed")
        assert "| 65.0 | 60.0 … 70.0 | 2 |" in summary.write(study, tmp_path)
        assert [path.name for path in (tmp_path / study).glob("*")] == ["table.json", "table.md"]
    planned = [run for study in DIRECT for run in runs_lib.plan(study, tmp_path, [0])]
    trained = {runs_lib.experiment(run, "", 0) for run in planned}
    assert len({run.folder for run in planned}) == len(trained) == 21 < len(planned)


def test_claims_about_masks_are_about_their_average_precision(tmp_path):
    for run in runs_lib.plan("direct_nuclei", tmp_path, [0]):
        good = {"direct": 0.3, "scratch": 0.2, "backbone": 0.1}[run.arm]
        record(run, value=0, **{"coco_segm/AP": good, "coco/AP": 0.5})
    found = summary.summary("direct_nuclei", runs_lib.begun("direct_nuclei", tmp_path))
    assert found["arms"]["direct"]["mean"] == 0.3 and set(found["claims"].values()) == {True}
    text = summary.markdown("direct_nuclei", found)
    assert "| arm | coco_segm/AP, % |" in text and "| 50.0 |" in text
    assert [pair["mean"] for pair in found["pairs"]] == pytest.approx([0.1, 0.2])


def test_a_metric_without_objects_is_left_out(tmp_path):
    first, second = runs_lib.plan("root_block", tmp_path, [0, 1], only="s1_root3")
    record(first, **{"coco/APs": None, "coco/APm": None})
    record(second, **{"coco/APs": None, "coco/APm": 0.25})
    found = summary.summary("root_block", [first, second])
    metrics = found["arms"]["s1_root3"]["metrics"]
    assert metrics["coco/APm"] == 0.25 and "coco/APs" not in metrics
    assert "coco/APm" in summary.markdown("root_block", found)


def test_runs_of_another_length_are_not_counted(tmp_path, monkeypatch, capsys):
    (run,) = runs_lib.plan("dsod", tmp_path, [0], only="dense")
    record(run, steps=40)
    assert runs_lib.other_length([run], "root", 40) == ""
    assert "holds a run of 40 steps, and 50 are" in runs_lib.other_length([run], "root", 50)
    monkeypatch.setattr(sys, "argv", ["miniature", "dsod", f"--runs={tmp_path}", "--only=dense"])
    with pytest.raises(SystemExit):
        miniature.main()
    assert "40 steps" in capsys.readouterr().err and not (tmp_path / "dsod" / "table.md").exists()


def test_lengths_in_epochs_are_compared_as_steps(tmp_path):
    """32 images of 292 are 9.125 steps per epoch, and the normal policy has 66 of them."""
    (run,) = runs_lib.plan("megdet", tmp_path, [0], only="^b32-bn8$")
    record(run, steps=603)
    path = run.folder / "run.json"
    path.write_text(json.dumps(run.record() | dict(num_examples=292)))
    assert runs_lib.other_length([run], "root", 0) == ""
    assert "holds a run of 603 steps, and 40 are" in runs_lib.other_length([run], "root", 40)


def test_claims_about_large_batches():
    scores = {arm: [0.6] for arm in questions.STUDIES["megdet"].arms}
    scores |= {arm: [0.5] for arm in scores if "bn2" in arm or "bn8" in arm}
    scores |= {arm: [0.3] for arm in scores if "cold" in arm}
    scores |= {arm: [0.7] for arm in scores if "long" in arm}
    scores |= {"b128-none": [0.0], "b128-none-half": [0.1], "b32-none": [0.4]}
    claims = dict(questions.STUDIES["megdet"].claims)
    assert all(holds(scores) for holds in claims.values())
    for arm, value, text in (
        ("b128-none", 0.5, "without norms the largest batch fails at the linear rate"),
        ("b128-bn2", 0.2, "with norms and warm-up no batch fails, whatever the group"),
        ("b32-bn8", 0.65, "norms over 8 images are worse than over 32"),
        ("b128-bn32", 0.55, "norms over 32 images: batch 128 is as good as 32, within 0.01"),
        ("b128-bn8-cold", 0.9, "batch 128 needs the warm-up"),
    ):
        assert not claims[text](scores | {arm: [value]}), text


def test_a_failure_is_not_hidden_by_an_older_record(tmp_path, monkeypatch, capfd):
    (run,) = runs_lib.plan("dsod", tmp_path, [0], only="dense")
    record(run, "interrupted")
    monkeypatch.setattr(
        miniature, "command", lambda *_: [sys.executable, "-c", "raise SystemExit(3)"]
    )
    miniature.Runner("root", 0, 1, tmp_path / "programs").all([run], lambda: None)
    assert "dsod dense seed 0: failed with code 3, see " in capfd.readouterr().out


def test_phases_count_as_one_run(tmp_path):
    (run,) = runs_lib.plan("direct", tmp_path, [0], only="direct")
    assert run.record() == {}
    run.folder.mkdir(parents=True)
    phases = [dict(name="pretrain", steps=22), dict(name="finetune", steps=20)]
    (run.folder / "phases.json").write_text(json.dumps({"phases": phases}))
    facts = dict(num_examples=20, images_per_second=20.0, micro_batch=4, devices=1)
    for phase, step, status in (("pretrain", 22, "completed"), ("finetune", 20, "running")):
        (run.folder / phase).mkdir()
        more = dict(step=step, status=status, steps=step, metrics={questions.MAIN: 0.01 * step})
        (run.folder / phase / "run.json").write_text(json.dumps(facts | more))
    record = run.record()
    assert (record["status"], record["step"], record["steps"]) == ("running", 42, 42)
    path = run.folder / "finetune" / "run.json"
    path.write_text(path.read_text().replace("running", "completed"))
    found = summary.summary("direct", [run])["arms"]["direct"]
    assert found["seconds"] == 42 * 4 / 20 and found["mean"] == pytest.approx(0.2)
    assert runs_lib.other_length([run], "set", 40) == ""
    assert "holds a run of 42 steps, and 85 are asked for" in runs_lib.other_length(
        [run], "set", 80
    )


def test_paired_differences():
    found = summary.paired({0: 0.5, 1: 0.6, 2: 0.7}, {0: 0.4, 1: 0.5, 2: 0.5})
    assert found["seeds"] == 3 and found["mean"] == pytest.approx(0.4 / 3)
    assert found["high"] - found["mean"] == pytest.approx(4.303 * 0.057735 / 3**0.5, rel=1e-4)
    unknown = float("nan")
    missing = summary.paired({0: 0.5, 1: 0.6, 2: unknown}, {3: 0.1, 2: 0.3, 1: 0.4})
    assert missing == {"seeds": 1, "mean": pytest.approx(0.2), "low": None, "high": None}
    assert summary.paired({0: 0.5}, {1: 0.4}) is None
