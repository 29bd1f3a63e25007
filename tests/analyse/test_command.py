"""The command on a run's files: a set in COCO's form, and what an evaluation left beside it."""

import json
import shlex

import cv2
import numpy as np
import pytest

from jdet.analyse import __main__ as command
from jdet.analyse import records
from jdet.config import get_defaults
from jdet.evaluation import results
from tests.analyse.random_set import NAMES, random_set


def save(folder, images, *, data=None):
    """A run whose last evaluation found what ``images`` say, and its data set."""
    data = data or folder.parent / "set"
    (data / "images").mkdir(parents=True, exist_ok=True)
    annotations = []
    for image in images:
        cv2.imwrite(str(data / "images" / image.file), np.zeros((8, 8, 3), np.uint8))
        for box, label, ignore in zip(
            image.ground_truth.xywh,
            image.ground_truth.labels,
            image.ground_truth.ignore,
            strict=True,
        ):
            one = {"id": len(annotations) + 1, "image_id": image.id, "category_id": int(label) + 1}
            one |= {"bbox": box.tolist(), "area": box[2] * box[3], "iscrowd": int(ignore)}
            annotations.append(one)
    categories = [{"id": i, "name": name} for i, name in enumerate(NAMES, 1)]
    listed = [
        {"id": i.id, "file_name": i.file, "height": 700, "width": 700, "day": i.id % 3}
        for i in images
    ]
    held = {"images": listed, "annotations": annotations, "categories": categories}
    (data / "set.json").write_text(json.dumps(held))

    config = get_defaults()
    group = {"name": "coco", "annotation_file": str(data / "set.json")}
    with config.unlocked():
        config.data.train, config.data.eval, config.class_names = group, group, NAMES
    folder.mkdir()
    (folder / "config.json").write_text(config.to_json())
    ids = range(1, len(NAMES) + 1)
    found = (results.to_coco_json(image.found, image.id, ids) for image in images)
    results.write_detections(folder / "detections.json", found)
    results.write_index(folder, [{"id": i.id, "name": i.name} for i in images], ids, NAMES)
    (folder / "report.json").write_text(json.dumps({"step": 30, "settings": {"data": group}}))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save(tmp_path_factory.mktemp("analyse") / "run", random_set(0, images=8))


def test_the_command_analyses_the_last_evaluation(run, tmp_path, capsys):
    slices = tmp_path / "slices.json"
    slices.write_text(json.dumps({"two": [1, "2"]}))
    assert command.main([str(run), f"--slices={slices}", "--precision=0.5"]) == 0
    found = records.read(run)
    assert found.step == 30 and found.images == 8 and found.classes == list(NAMES)
    assert [(one["name"], one["images"]) for one in found.slices] == [("two", 2)]
    assert found.per_class[0]["threshold"]["at_precision"]["wanted"] == 0.5
    assert found.image_list[0]["file"].endswith(".png")
    said = capsys.readouterr().out
    assert (
        "analysis.json" in said
        and str(run / "report.html") in said
        and "two" in said
        and f"{100 * found.tide['missed']:.1f}" in said
    )


def test_an_attribute_of_the_images_makes_slices(run):
    assert command.main([str(run), "--slices=day"]) == 0
    found = {one["name"]: one["images"] for one in records.read(run).slices}
    assert found == {"day=0": 2, "day=1": 3, "day=2": 3}


@pytest.mark.parametrize(
    "asked, said",
    [
        ("--slices=dya", "did you mean 'day'"),
        ("--slices=none.json", "there is no such file"),
        ("--precision=0", "must be above 0"),
        ("--slices={}", "expected names with lists"),
        ('--slices={"a": [77]}', "were not evaluated (77)"),
    ],
)
def test_a_mistake_is_answered_in_a_line(run, tmp_path, capsys, asked, said):
    if asked.startswith("--slices={"):
        (tmp_path / "some.json").write_text(asked[9:].replace("{}", "[]"))
        asked = f"--slices={tmp_path / 'some.json'}"
    assert command.main([str(run), asked]) == 2
    assert said in capsys.readouterr().err


def test_a_run_without_evaluation_is_refused_with_the_way_to_one(run, tmp_path, capsys):
    (tmp_path / "config.json").write_text((run / "config.json").read_text())
    assert command.main([str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "not evaluated yet" in said and f"run.evaluate('{tmp_path}')" in shlex.split(said)[-1]


def test_images_that_the_set_lacks_are_named(run, tmp_path, capsys):
    images = random_set(0, images=3)
    lacking = save(tmp_path / "run", images)
    more = random_set(0, images=5)
    results.write_index(
        lacking, [{"id": i.id, "name": i.name} for i in more], range(1, len(NAMES) + 1), NAMES
    )
    assert command.main([str(lacking)]) == 2
    assert "2 of 5 evaluated images are not in the evaluation set" in capsys.readouterr().err


def test_other_classes_are_refused(run, tmp_path, capsys):
    other = save(tmp_path / "run", random_set(0, images=2))
    index = json.loads((other / "images.json").read_text())
    index["categories"][0]["name"] = "axe"
    (other / "images.json").write_text(json.dumps(index))
    assert command.main([str(other)]) == 2
    assert "has the classes axe" in capsys.readouterr().err
