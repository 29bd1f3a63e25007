"""The proposal improves on what it is given, keeps to its limits, and its flags do what they say."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jdet import build, run
from jdet.analysis import box_search
from jdet.analysis.default_boxes import analyse, as_flags, print_analysis
from jdet.config import get_defaults
from jdet.types import ConfigError
from tests.data.sources.test_voc import annotation_xml, make_folder, object_xml
from tests.test_run_data import from_command_line, tiny

ROOT = Path(__file__).resolve().parents[2]


def small_objects(root, side=4, images=8):
    """Cats of 4 pixels, or another ``side``, and dogs of 20 in images of 64 × 50."""
    rng = np.random.default_rng(0)
    texts = {}
    for i in range(images):
        x, y = rng.integers(2, 48 - side, 2).tolist()
        cat = object_xml("cat", (x, y, x + side - 1, y + side - 1))
        texts[f"p{i}"] = annotation_xml(cat, object_xml("dog", (x, 20, x + 19, 39)))
    make_folder(root, {"train": list(texts), "test": ["p0"]}, texts, labels=("cat", "dog"))
    return voc_config(root)


def voc_config(root):
    c = get_defaults()
    c.data.root = str(root)
    for role, split in (("train", "train"), ("eval", "test")):
        c.data[role] = build.group("source", "voc", root=c.data.get_ref("root"), splits=split)
    return tiny(c)


def test_proposal_improves_and_its_flags_reach_what_it_says(tmp_path, monkeypatch):
    config = small_objects(tmp_path)
    found = analyse(config)
    now, best = found["current"], found["proposals"][0]
    assert now["recall"]["cat"] < 0.2
    assert best["recall"]["cat"] > 0.8 and best["recall"]["dog"] >= now["recall"]["dog"]
    assert best["best_iou"] > now["best_iou"]
    assert best["taps"][0] == "c2"  # four pixels need the finest level

    coarse = analyse(config, finest_stride=8)["proposals"]
    assert {proposal["taps"][0] for proposal in coarse} == {"c3"}

    arguments = [flag.replace('"', "") for flag in best["flags"]]  # as a shell passes them on
    again = analyse(from_command_line(monkeypatch, config, *arguments))
    for key in ("input_size", "taps", "first_ratio", "min_ratio", "max_ratio", "boxes"):
        assert again["current"][key] == best[key]
    assert again["current"]["recall"] == pytest.approx(best["recall"])
    assert again["proposals"][0]["recall"]["cat"] >= best["recall"]["cat"]


def test_flags_put_the_rule_in_place_of_tables(tmp_path, monkeypatch):
    config = small_objects(tmp_path)
    config.model.min_sizes, config.model.clip_boxes = (20.0, 30.0, 40.0, 50.0), True
    found = analyse(config, finest_stride=8)
    flags = found["proposals"][0]["flags"]
    assert '--config.model.min_sizes="()"' in flags and "--config.model.clip_boxes=False" in flags
    arguments = [flag.replace('"', "") for flag in flags]
    again = analyse(from_command_line(monkeypatch, config, *arguments), finest_stride=8)
    assert again["current"]["recall"] == pytest.approx(found["proposals"][0]["recall"])
    # Without tables, with the levels that are the default: nothing is left to say.
    config, now = voc_config(tmp_path), found["current"]
    assert config.model.taps == ()
    setting = box_search.Setting(*(now[field] for field in box_search.Setting._fields))
    assert as_flags(setting, config, found["taps"]) == []


def test_larger_inputs_are_proposed_only_where_needed(tmp_path):
    config = small_objects(tmp_path)
    sizes = {p["input_size"] for p in analyse(config, finest_stride=8)["proposals"]}
    assert sizes == {64, 96, 128}
    texts = {"p": annotation_xml(object_xml("cat", (9, 9, 40, 40)))}
    folder = make_folder(tmp_path / "big", {"train": ["p"], "test": ["p"]}, texts, ("cat", "dog"))
    found = analyse(voc_config(folder))
    assert {p["input_size"] for p in found["proposals"]} == {64}
    assert np.isnan(found["current"]["recall"]["dog"])  # there is none
    assert found["proposals"][0]["recall"]["cat"] == 1


def test_among_equals_the_fewer_boxes_win():
    setting = box_search.Setting(64, ("c3",), 0.1, 0.2, 0.9)
    few = box_search.Proposal(setting, 100, np.array([0.9, np.nan]), 0.601)
    assert few.rank > few._replace(boxes=200, best_iou=0.604).rank
    assert few.rank < few._replace(boxes=200, best_iou=0.62).rank
    assert few.rank < few._replace(boxes=900, best_iou=0.3, recall=np.array([0.95, np.nan])).rank


def test_analysis_is_printed_with_what_to_paste(tmp_path, capsys):
    found = analyse(small_objects(tmp_path), augmented=True)
    print_analysis(found)
    said = capsys.readouterr().out
    assert "as the training augmentation shows them" in said
    for flag in found["proposals"][0]["flags"]:
        assert flag in said
    assert "recall@0.5" in said and "cat" in said and "shared" in said


def test_there_must_be_objects_and_default_boxes(tmp_path):
    texts = {"p": annotation_xml()}
    folder = make_folder(tmp_path / "x", {"train": ["p"], "test": ["p"]}, texts, ("cat", "dog"))
    with pytest.raises(ConfigError, match="no objects"):
        analyse(voc_config(folder))


def test_training_warns_of_boxes_it_cannot_match(tmp_path, caplog):
    config = small_objects(tmp_path / "small", images=12)
    config.class_names = ("cat", "dog")
    detector = build.detector(config, config.class_names)
    with caplog.at_level(logging.WARNING):
        run._announce(config, detector, *build.sources(config))
    assert "cat 100%" in caplog.text and "jdet.analysis.default_boxes" in caplog.text
    caplog.clear()
    config.data.root = str(tmp_path / "large")
    small_objects(tmp_path / "large", side=20, images=12)
    with caplog.at_level(logging.WARNING):
        run._announce(config, detector, *build.sources(config))
    assert "default_boxes" not in caplog.text


def test_command(tmp_path):
    out = tmp_path / "found.json"
    command = [sys.executable, "-m", "jdet.analysis.default_boxes", f"--out={out}", "--images=20"]
    command += ["--config=experiments/quickstart.py", "--config.data.train.count=50"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["images"] <= 20 and set(found["current"]["recall"]) == set(found["class_names"])
    assert "--config." in done.stdout
