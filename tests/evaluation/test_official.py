"""The official numbers of a label file as it is, in any order of delivery."""

import functools
import itertools

import numpy as np
import pytest

from jdet.config import get_defaults
from jdet.evaluation import gather
from jdet.evaluation.coco_ap import ENGINES, CocoEvaluator
from jdet.evaluation.evaluate import make_evaluators
from jdet.evaluation.official import altered, official_order
from jdet.evaluation.voc_ap import VocEvaluator
from jdet.types import ConfigError, DataError, OfficialObjects
from tests.evaluation import coco_files
from tests.evaluation.records import detections, example

BOX = [10, 10, 20, 20]
METRICS = [
    *(functools.partial(CocoEvaluator, engine=engine) for engine in ENGINES),
    VocEvaluator,
]
IDS = [*ENGINES, "voc"]


def main_number(metric, pairs):
    evaluator = metric(("x",))
    for found, ground_truth in pairs:
        evaluator.add(found, ground_truth)
    return next(iter(evaluator.result().values()))


@pytest.mark.parametrize("engine", ENGINES)
def test_random_files_have_pycocotools_own_numbers(engine, tmp_path):
    found = [coco_files.differences(seed, tmp_path, engine) for seed in range(12)]
    assert max(found) <= 1e-12, found


@pytest.mark.parametrize("metric", METRICS, ids=IDS)
def test_of_equal_scores_the_image_with_the_lower_id_counts_first(metric):
    """Both images have a detection of score 0.5; that of "2" is right. COCO ranks it after that of "1"."""
    right = detections("2", [BOX], [0], [0.5]), example("2", [BOX], [0])
    wrong = detections("1", [BOX], [0], [0.5]), example("1", [], [])
    late = detections("10", [BOX], [0], [0.5]), example("10", [], [])
    several = [main_number(metric, order) for order in itertools.permutations([right, wrong, late])]
    assert several == pytest.approx([0.5] * 6, abs=0.01)
    alone = [main_number(metric, order) for order in ([right, late], [late, right])]
    assert alone == pytest.approx([1, 1])  # 2 before 10


def labelled(id, xywh, rank=0, **fields):
    """An example of which training uses nothing, and what the label file says."""
    xywh = np.asarray(xywh, float).reshape(-1, 4)
    official = OfficialObjects(
        xywh=xywh,
        labels=np.zeros(len(xywh), int),
        ignore=np.zeros(len(xywh), bool),
        areas=fields.pop("areas", xywh[:, 2] * xywh[:, 3]),
        rank=rank,
    )
    return example(id, [], [])._replace(official=official)


@pytest.mark.parametrize("metric", METRICS, ids=IDS)
def test_the_rank_of_the_data_set_decides_where_there_is_one(metric):
    right = detections("1", [BOX], [0], [0.5]), labelled("1", [[10, 10, 10, 10]], rank=7)
    wrong = detections("2", [BOX], [0], [0.5]), labelled("2", [], rank=3)
    for order in ([right, wrong], [wrong, right]):
        assert main_number(metric, order) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("metric", METRICS, ids=IDS)
def test_objects_count_as_they_are_labelled(metric):
    """One reaches over the border and is found as labelled; one without extent is missed."""
    ground_truth = labelled("1", [[-10, 0, 20, 20], [5, 5, 0, 9]])
    found = detections("1", [[-10, 0, 10, 20]], [0], [0.5])
    assert main_number(metric, [(found, ground_truth)]) == pytest.approx(0.5, abs=0.05)


def test_areas_are_not_rounded():
    ground_truth = labelled("1", [[0, 0, 32, 32]], areas=np.array([1024.00003]))
    evaluator = CocoEvaluator(("x",))
    evaluator.add(detections("1", [[0, 0, 32, 32]], [0], [0.5]), ground_truth)
    result = evaluator.result()
    assert np.isnan(result["coco/APs"]) and result["coco/APm"] == pytest.approx(1)


@pytest.mark.parametrize("metric", METRICS, ids=IDS)
def test_what_is_not_finite_is_left_out(metric):
    found = detections("1", [BOX, [10, 10, np.nan, 20], BOX], [0] * 3, [0.5, 0.9, np.nan])
    assert main_number(metric, [(found, example("1", [BOX], [0]))]) == pytest.approx(1)
    with pytest.raises(DataError, match="image 1: .* is not finite; correct the labels"):
        main_number(metric, [(found, example("1", [[0, 0, np.inf, 5]], [0]))])


def test_order_of_names():
    assert official_order([(None, "b"), (None, "10"), (None, "9")]) == [1, 2, 0]
    assert official_order([(None, "10"), (None, "9")]) == [1, 0]
    assert official_order([(5, "1"), (2, "2")]) == [1, 0]


def test_it_is_said_where_training_uses_other_objects(monkeypatch):
    cut = example("1", [[0, 0, 10, 20], BOX], [0, 0])
    official = labelled("1", [[-10, 0, 20, 20], [5, 5, 0, 9], [10, 10, 10, 10]]).official
    assert altered(cut) == 0 and altered(cut._replace(official=official)) == 2

    class Source:
        class_names = ("x",)

    whole = gather.Gather(Source(), [CocoEvaluator(("x",))], 1)
    whole.add([(0, detections("1", [BOX], [0], [0.5]), cut._replace(official=official))])
    said = []
    monkeypatch.setattr(gather.logging, "log_first_n", lambda *args: said.append(args[1:]))
    whole.result(0)
    [(message, times, *numbers)] = said
    assert times == 1 and "2 of 3 are not used so in training" in message % tuple(numbers)


@pytest.mark.parametrize("engine", ENGINES)
def test_other_numbers_of_detections_and_recalls(engine):
    """Ten objects, of which the first and third detection find one each: at two detections one counts."""
    boxes = [[20 * i, 0, 20 * i + 10, 10] for i in range(10)]
    found = detections("1", [boxes[0], [0, 50, 9, 59], boxes[1]], [0] * 3, [0.9, 0.8, 0.7])
    evaluator = CocoEvaluator(("x",), engine=engine, max_detections=(1, 2, 3), recall_levels=11)
    evaluator.add(found, example("1", boxes, [0] * 10))
    result = evaluator.result()
    for number, recall in ((1, 0.1), (2, 0.1), (3, 0.2)):
        assert result[f"coco/AR{number}"] == pytest.approx(recall)
    # Recalls 0, 0.1 and 0.2 of eleven, at precisions 1, 1 and 2/3.
    assert result["coco/AP"] == pytest.approx((2 + 2 / 3) / 11)
    assert "3 detections per image and class; crowd ignored; 11 recalls" in evaluator.protocol
    assert len(evaluator.curves()["coco/precision_recall/x"]["x"]) == 11
    assert "coco/AR100" not in result


def test_a_config_sets_them():
    c = get_defaults()
    c.eval.coco.max_detections = (1, 10, 300)
    for name in ("coco", "coco_segm"):
        (made,) = make_evaluators((name,), ("x",), c.eval)
        assert "300 detections" in made.protocol and f"{name}/AR300" in made.result()
    c.eval.coco.max_detections = (10, 1, 300)
    with pytest.raises(ConfigError, match="eval.coco.max_detections=.*three rising numbers"):
        make_evaluators(("voc", "coco"), ("x",), c.eval)


def test_voc_says_which_detections_are_right():
    evaluator = VocEvaluator(("x", "y"))
    ground_truth = example("1", [BOX, [50, 50, 60, 60]], [0, 0], ignore=[False, True])
    found = detections("1", [BOX, BOX, [50, 50, 60, 60]], [0] * 3, [0.5, 0.4, 0.9])
    evaluator.add(found, ground_truth)
    outcomes = evaluator.outcomes()
    assert outcomes["voc/outcomes/x"]["right"] == [1, 0] and outcomes["voc/outcomes/x"][
        "objects"
    ] == [1]
    np.testing.assert_allclose(outcomes["voc/outcomes/x"]["score"], [0.5, 0.4])
    assert outcomes["voc/outcomes/y"] == {"score": [], "right": [], "objects": [0]}
