import importlib.util
import io
import json
import math
from contextlib import redirect_stdout

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from jdet.evaluation import coco_ap
from jdet.evaluation.coco_ap import STATS, CocoEvaluator, to_coco_json
from tests.evaluation.records import (
    FIXTURES,
    coco_fixture,
    detections,
    example,
    needs_fixtures,
    read_json,
)

SQUARE = [10, 10, 20, 20]


@pytest.fixture(params=coco_ap.ENGINES, autouse=True)
def engine(request, monkeypatch):
    """Everything below is asked of both."""
    monkeypatch.setattr(coco_ap, "default_engine", lambda: request.param)


def test_the_fastest_engine_that_is_installed_computes(monkeypatch, engine):
    monkeypatch.undo()
    assert coco_ap.default_engine() == "hotcoco"
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "hotcoco" else name
    )
    assert coco_ap.default_engine() == "pycocotools"


def evaluate(names, found, ground_truths):
    evaluator = CocoEvaluator(names)
    for image, ground_truth in zip(found, ground_truths, strict=True):
        evaluator.add(image, ground_truth)
    return evaluator.result()


@needs_fixtures
@pytest.mark.parametrize("folder", ["coco_fakebbox100", "voc100"])
def test_has_the_twelve_reference_numbers(folder, capsys):
    result = evaluate(*coco_fixture(folder))
    expected = read_json(folder, "expected.json")["pycocotools"]
    assert len(expected) == len(STATS) == 12
    for name, value in zip(STATS, expected.values(), strict=True):  # same order, longer names
        assert result[f"coco/{name}"] == pytest.approx(value, abs=1e-6), name
    assert capsys.readouterr().out == ""


@needs_fixtures
def test_ap_per_class_is_that_of_the_class_alone():
    names, found, ground_truths = coco_fixture("voc100")
    result = evaluate(names, found, ground_truths)
    for label in (0, 7):
        own = [t._replace(**{k: getattr(t, k)[t.labels == label] for k in
               ("boxes", "labels", "ignore", "areas")}) for t in ground_truths]  # fmt: skip
        alone = evaluate(names, found, own)
        assert alone["coco/AP"] == pytest.approx(result[f"coco/AP/{names[label]}"])


@needs_fixtures
def test_result_file_gives_pycocotools_the_same_numbers(tmp_path):
    names, found, ground_truths = coco_fixture("voc100")
    ground_truth = read_json("voc100", "gt.json")
    records = to_coco_json(found, category_ids=[c["id"] for c in ground_truth["categories"]])
    (tmp_path / "results.json").write_text(json.dumps(records))
    with redirect_stdout(io.StringIO()):
        coco = COCO(str(FIXTURES / "voc100" / "gt.json"))
        check = COCOeval(coco, coco.loadRes(str(tmp_path / "results.json")), "bbox")
        check.evaluate(), check.accumulate(), check.summarize()
    assert check.stats[0] == pytest.approx(
        evaluate(names, found, ground_truths)["coco/AP"], abs=1e-9
    )


def test_no_detections_is_zero_not_a_crash():
    result = evaluate(["x", "y"], [detections("a", [], [], [])], [example("a", [SQUARE], [0])])
    assert result["coco/AP"] == result["coco/AR100"] == result["coco/AP/x"] == 0.0
    assert math.isnan(result["coco/AP/y"]) and math.isnan(result["coco/APl"])


def test_no_ground_truth_is_nan():
    for found in ([], [detections("a", [SQUARE], [0], [0.5])]):
        result = evaluate(["x"], found, [example("a", [], [])] * len(found))
        assert all(math.isnan(value) for value in result.values())
        assert set(result) == {f"coco/{name}" for name in STATS} | {"coco/AP/x"}


def test_crowds_neither_reward_nor_penalise():
    ground_truth = example("a", [SQUARE, [30, 30, 90, 90]], [0, 0], ignore=[False, True])
    alone = detections("a", [SQUARE], [0], [0.5])
    inside = detections("a", [[40, 40, 60, 60], [30, 30, 50, 50], SQUARE], [0] * 3, [0.9, 0.8, 0.5])
    assert evaluate(["x"], [alone], [ground_truth])["coco/AP"] == pytest.approx(1)
    assert evaluate(["x"], [inside], [ground_truth])["coco/AP"] == pytest.approx(1)


def test_areas_come_from_the_example():
    # The box is medium (40² pixels), the object's own area small.
    ground_truth = example("a", [[0, 0, 40, 40]], [0], areas=[500])
    result = evaluate(["x"], [detections("a", [[0, 0, 40, 40]], [0], [0.9])], [ground_truth])
    assert result["coco/APs"] == pytest.approx(1) and math.isnan(result["coco/APm"])


def test_json_records_carry_original_ids():
    image = detections("42", [[1.5, 2, 11.5, 22]], [1], [0.75])
    assert to_coco_json([image]) == [
        {"image_id": 42, "category_id": 2, "bbox": [1.5, 2.0, 10.0, 20.0], "score": 0.75}
    ]
    record = to_coco_json([image], category_ids=[1, 90], image_ids={"42": 7})[0]
    assert (record["image_id"], record["category_id"]) == (7, 90)
    assert to_coco_json([image._replace(id="2007_000027")])[0]["image_id"] == "2007_000027"


def test_images_must_correspond():
    with pytest.raises(ValueError, match="'a' against 'b'"):
        CocoEvaluator(["x"]).add(detections("a", [], [], []), example("b", [], []))
