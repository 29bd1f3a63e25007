"""The command: which data, exit codes, files; limits of a config, its anchors, and what a run suspects."""

import base64
import json
import types

import cv2
import numpy as np
import pytest
from absl import flags

from jdet import build, cli
from jdet.analyse import records
from jdet.config import get_defaults
from jdet.doctor import __main__ as command
from jdet.doctor import input_checks, page, splits, suspects
from jdet.doctor.examine import Examination, as_json, examine
from jdet.doctor.findings import Case, Finding, Place
from jdet.doctor.thumbnails import Thumbnails
from jdet.types import ConfigError, DataError
from tests.doctor.sets import DataSet, texture


@pytest.fixture
def called(monkeypatch, capsys):
    """Calls the command with flags; the exit code and what it printed."""

    def call(**given):
        values = flags.FlagValues()
        known = {"path": "", "run": "", "phase": "", "out": "", "config": None}
        for name, default in known.items():
            flags.DEFINE_string(name, default, "", flag_values=values)
        flags.DEFINE_bool("strict", False, "", flag_values=values)
        flags.DEFINE_integer("processes", 1, "", flag_values=values)
        values.mark_as_parsed()
        for name, value in given.items():
            values[name].value = value
        monkeypatch.setattr(command, "flags", type("Flags", (), {"FLAGS": values}))
        return cli.run(command.main), capsys.readouterr()

    return call


def test_exit_codes(tmp_path, called):
    code, _ = called(path=str(DataSet().write(tmp_path / "clean")), strict=True)
    assert code == 0
    warned = DataSet()
    warned.train[0].objects.append(("cell", (50, 50, 0, 10)))
    root = str(warned.write(tmp_path / "warned"))
    assert called(path=root)[0] == 0
    assert called(path=root, strict=True)[0] == 1
    wrong = DataSet()
    wrong.val[0].pixels = wrong.train[0].pixels
    code, said = called(path=str(wrong.write(tmp_path / "wrong")))
    assert code == 3 and "1 error" in said.out
    lines = [line for line in said.out.splitlines() if line.startswith("error")]
    assert (
        len(lines) == 1
        and "train: ash.png and val: keg.png" in lines[0]
        and "all splits but one" in lines[0]
    )


def test_mistakes_end_in_a_line(tmp_path, called):
    code, said = called(path=str(tmp_path / "nowhere"))
    assert code == 2 and "nowhere" in said.err and said.err.count("\n") == 1
    code, said = called()
    assert code == 2 and "name a folder of labelled images" in said.err
    code, said = called(path="a", config=get_defaults())
    assert code == 2 and "give one of them" in said.err
    (tmp_path / "file").write_text("")
    root = str(DataSet().write(tmp_path / "set"))
    code, said = called(path=root, out=str(tmp_path / "file"))
    assert code == 2 and "--out=" in said.err


def test_an_argument_without_dashes_is_the_folder():
    flags.DEFINE_string("doctored", "", "")
    try:
        assert cli._parse(["program", "some/where"], "doctored") == ["program"]
        assert flags.FLAGS.doctored == "some/where" and flags.FLAGS.config is None
        del flags.FLAGS.config
        with pytest.raises(SystemExit):
            cli._parse(["program", "some/where", "else"], "doctored")
    finally:
        for name in ("doctored", "config"):
            if name in flags.FLAGS:
                delattr(flags.FLAGS, name)


def test_files_for_programs_and_for_people(tmp_path, called):
    data = DataSet()
    data.train[3].objects.append(("cell", (50, 50, 0, 10)))
    data.train[3].name = 'a"<b>.png'
    out = tmp_path / "out"
    assert called(path=str(data.write(tmp_path / "set")), out=str(out))[0] == 0
    found = json.loads((out / "doctor.json").read_text())
    assert found["counts"] == {"error": 0, "warning": 1, "note": 0}
    assert [(s["name"], s["images"], s["trained"]) for s in found["splits"]] == [
        ("train", 10, True),
        ("val", 5, False),
    ]
    assert found["splits"][0]["classes"] == {"cell": 20, "seed": 20}
    (finding,) = found["findings"]
    assert finding["name"] == "empty_labels" and finding["remedy"] and finding["consequence"]
    assert finding["cases"][0]["places"][0]["file"].endswith('a"<b>.png')
    html = (out / "doctor.html").read_text()
    assert html.count("data:image/jpeg;base64,") == 1 and "<script" not in html
    assert "http" not in html and "<b>.png" not in html
    assert 'id="empty_labels"' in html and "prefers-color-scheme: dark" in html


def config_of(root, **model):
    c = get_defaults()
    for role, split in (("train", "train"), ("eval", "val")):
        file = f"{root}/instances_{split}.json"
        c.data[role] = build.group("source", "coco", annotation_file=file, keep_masks=False)
    c.model = build.group("detector", "ssd", max_detections=3, **model)
    c.data.max_boxes = 2
    return c


def test_limits_of_a_config_count(tmp_path, monkeypatch):
    config, found = splits.of_config(config_of(DataSet().write(tmp_path / "set")))
    monkeypatch.setattr(input_checks.build, "detector", lambda *_: Unreached())
    found = list(input_checks.findings(found, config, True))
    assert [f.name for f in found] == [
        "more_than_max_boxes",
        "more_than_max_detections",
        "objects_without_anchor",
    ]
    boxes, detections, anchors = found
    assert boxes.count == 10 and "20 objects too many, up to 4" in boxes.title
    assert boxes.remedy == "--config.data.max_boxes=4"
    assert detections.count == 15 and "--config.model.max_detections=4" in detections.remedy
    assert anchors.title == "no anchor reaches cell 30 %" and anchors.consequence.startswith("They")


def test_sizes_in_tiles_are_those_of_the_tiles(tmp_path):
    config, found = splits.of_config(config_of(DataSet().write(tmp_path / "set")))
    whole = [input_checks.seen(split, config).size for split in found]
    config.data.tile.side, config.eval.tile.side = 60, 30
    train, evaluation = (input_checks.seen(split, config) for split in found)
    sides = [split.objects.sides for split in found]  # at 300 pixels, warped
    assert np.allclose(whole[0], np.sqrt(np.prod(sides[0] * [300 / 160, 300 / 120], axis=1)))
    assert np.allclose(train.size, np.sqrt(np.prod(sides[0], axis=1)) * 5)
    assert np.allclose(evaluation.size, np.sqrt(np.prod(np.minimum(sides[1], 30), axis=1)) * 10)
    assert input_checks.setting(config).endswith(
        "config.data.tile.side=60, config.eval.tile.side=30"
    )


def test_anchors_are_held_against_tiles(tmp_path, monkeypatch):
    config, found = splits.of_config(config_of(DataSet().write(tmp_path / "set")))
    config.data.tile.side, widths = 60, []

    class Asked:
        def start_warning(self, objects, class_names, resize):
            boxes = objects(keep_ignored=False).boxes
            widths.append(float((boxes[:, 2] - boxes[:, 0]).max()))

    monkeypatch.setattr(input_checks.build, "detector", lambda *_: Asked())
    list(input_checks.findings(found, config, True))
    assert widths[0] > 140  # 30 of 60 pixels at 300; of 160 it would be 68 at most


def test_thumbnails_show_the_bands_of_the_config(tmp_path):
    config, found = splits.of_config(config_of(DataSet().write(tmp_path / "set")))
    config.eval.drawn_bands = (2, 1, 0)
    shown = Thumbnails(config, {split.name: split for split in found})(found[0].place(0))
    data = base64.b64decode(shown[0].partition(",")[2])
    drawn = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)  # BGR: as RGB is stored
    pixels = texture(0).astype(float).mean((0, 1))
    assert np.abs(drawn.mean((0, 1)) - pixels).max() < 2 < np.abs(np.diff(pixels)).max()


def test_names_of_files_that_are_no_text_do_not_end_the_page(tmp_path):
    found = [split_of("train", (), trained=True)]
    case = Case((Place("train", -1, "a\udcff"),))
    finding = Finding.of("x", "note", "one", [case], consequence="", remedy="")
    html = page.render(Examination("set", get_defaults(), found, [finding], [], 0.0))
    assert "train: a?" in html and html.encode("utf-8")


class Unreached:
    """A detector that says so."""

    def start_warning(self, objects, class_names, resize):
        seen = objects(keep_ignored=False)
        assert len(seen.labels) and class_names == ("cell", "seed")
        return "no anchor reaches cell 30 %. They are trained all the same, so much for that"


def analysed(folder, suspicions, images=((1, "1"), (2, "2"), (3, "3"))):
    analysis = dict.fromkeys(records.Analysis._fields, [])
    analysis |= {"iou": 0.5, "images": 5, "version": records.VERSION, "label_suspects": suspicions}
    folder.mkdir()
    listed = [{"id": id, "name": name} for id, name in images]
    (folder / "images.json").write_text(json.dumps({"images": listed}))
    records.write(folder, records.Analysis(**analysis))
    return folder


def suspect(kind, image, other=None):
    box = [10.0, 10.0, 40.0, 38.0]
    keys = {"kind": kind, "image": image, "file": "x.png", "box": box}
    return {**keys, "class": "cell", "other": other, "score": 0.93}


def test_what_a_run_contradicts_is_told(tmp_path):
    root = DataSet().write(tmp_path / "set")
    config, found = splits.of_config(config_of(root))
    run = analysed(tmp_path / "run", [suspect("unlabelled", 3), suspect("wrong_class", 2, "seed")])
    result = examine("set", config, found, network=False, run=run, processes=1)
    told = {f.name: f for f in result.findings}
    assert set(told) == {"suspected_unlabelled", "suspected_wrong_class"}
    (case,) = told["suspected_wrong_class"].cases
    assert case.places[0][:3] == ("eval", 1, "2") and case.places[0].labels == (0,)
    assert case.note == "cell, found seed, score 0.93"
    assert as_json(result)["counts"]["warning"] == 2
    assert page.render(result).count("data:image/jpeg;base64,") == 2


def split_of(name, ids, trained=False):
    objects = splits.Objects(
        image=np.zeros(0, int),
        boxes=np.zeros((0, 4)),
        labels=np.zeros(0, int),
        ignore=np.zeros(0, bool),
        sizes=np.full((len(ids), 2), 64.0),
    )
    source = types.SimpleNamespace(class_names=("cell", "seed"))
    return splits.Split(name, source, trained, objects, tuple(ids), ("",) * len(ids))


@pytest.mark.parametrize(
    "names, ids",
    [
        (("2008_000045", "2008_000051", "2007_000032"), (1, 2, 3)),  # VOC: places, from 1
        (("000012", "000007", "000145"), (12, 7, 145)),  # names as numbers
        (("3", "x1", "1"), (1, 2, 3)),  # names that are also ids of others
    ],
)
def test_a_suspect_is_the_image_of_its_name(tmp_path, names, ids):
    run = analysed(tmp_path / "run", [suspect("unlabelled", ids[2])], zip(ids, names))
    seen = [split_of("train", names, trained=True), split_of("eval", names)]
    (finding,) = suspects.findings(seen, run)
    assert finding.cases[0].places[0][:3] == ("eval", 2, names[2])


def test_the_split_a_run_was_evaluated_on_is_told_by_all_names(tmp_path):
    run = analysed(tmp_path / "run", [suspect("unlabelled", 2)])
    seen = [split_of("train", "abc", trained=True), split_of("test", "24"), split_of("val", "321")]
    (finding,) = suspects.findings(seen, run)
    assert finding.cases[0].places[0][:3] == ("val", 1, "2")
    with pytest.raises(ConfigError, match="any of val, test, whose images have the same names"):
        list(suspects.findings([*seen[::2], split_of("test", "123")], run))
    (run / "images.json").write_text("[]")
    with pytest.raises(DataError, match=r"images.json cannot be read.*evaluate the run again"):
        list(suspects.findings(seen, run))


def test_a_run_is_held_against_the_images_of_its_report(tmp_path, called):
    root = DataSet().write(tmp_path / "set")
    run = analysed(tmp_path / "run", [suspect("unlabelled", 8)], [(8, "8")])
    config = config_of(root)
    parts = build.group("backbone", "resnet", depth=18), build.group("neck", "fpn")
    config.model = build.group("detector", "fcos", backbone=parts[0], neck=parts[1])
    (run / "config.json").write_text(config.to_json_best_effort())
    data = {**config.data.eval, "annotation_file": f"{root}/instances_train.json"}
    (run / "report.json").write_text(json.dumps({"settings": {"data": data}}))
    (run / "detections.json").write_text("[]")
    code, said = called(run=str(run))
    assert code == 3, said.err  # the same images in both splits
    assert "detections of the run: 1 (such as eval: hay.png (cell, score 0.93))" in said.out


def test_runs_of_other_data_or_without_analysis_are_refused(tmp_path):
    root = DataSet().write(tmp_path / "set")
    _, found = splits.of_config(config_of(root))
    other = analysed(tmp_path / "other", [suspect("unlabelled", 1)], [(1, "elsewhere")])
    with pytest.raises(ConfigError, match="other images than these"):
        list(suspects.findings(found, other))
    (tmp_path / "none").mkdir()
    with pytest.raises(ConfigError, match=r"python -m jdet.analyse .*none"):
        list(suspects.findings(found, tmp_path / "none"))
    (tmp_path / "none" / "analysis.json").write_text("{}")
    with pytest.raises(DataError, match="analysis.json"):
        list(suspects.findings(found, tmp_path / "none"))


def test_splits_with_different_classes_are_examined_together(tmp_path):
    data = DataSet()
    root = data.write(tmp_path / "set")
    file = root / "instances_val.json"
    labels = json.loads(file.read_text())
    labels["categories"].append({"id": 3, "name": "stone"})
    file.write_text(json.dumps(labels))
    config, found = splits.of_folder(str(root))
    assert config.class_names == ("cell", "seed", "stone")
    assert all(tuple(split.source.class_names) == config.class_names for split in found)
    assert np.array_equal(found[1].objects.counts, [4] * 5)
