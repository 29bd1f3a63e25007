import io
import math
from contextlib import redirect_stdout

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from jdet.evaluation import coco_ap
from jdet.evaluation.coco_ap import STATS, CocoEvaluator, CocoInstancesEvaluator
from jdet.types import DataError
from tests.evaluation.records import (
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
    monkeypatch.setitem(coco_ap.CocoEvaluator.__init__.__kwdefaults__, "engine", request.param)


def evaluate(names, found, ground_truths):
    return evaluator_of(names, found, ground_truths).result()


def evaluator_of(names, found, ground_truths, **options):
    evaluator = CocoEvaluator(names, **options)
    for image, ground_truth in zip(found, ground_truths, strict=True):
        evaluator.add(image, ground_truth)
    return evaluator


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


@needs_fixtures
def test_curves_are_those_whose_mean_is_the_ap():
    names, found, ground_truths = coco_fixture("voc100")
    evaluator = evaluator_of([*names, "absent"], found, ground_truths)
    curves, result = evaluator.curves(), evaluator.result()
    assert set(curves) == {f"coco/precision_recall/{name}" for name in names}
    for name in names:
        curve = curves[f"coco/precision_recall/{name}"]
        np.testing.assert_allclose(curve["x"], np.linspace(0, 1, 101))
        assert np.mean(curve["mean"]) == pytest.approx(result[f"coco/AP/{name}"])
        assert (np.diff(curve["y"]) <= 0).all() and (np.diff(curve["score"]) <= 0).all()
    at_half = np.mean([curves[f"coco/precision_recall/{name}"]["y"] for name in names])
    assert at_half == pytest.approx(result["coco/AP50"])


def test_outcomes_are_those_the_ap_is_made_of():
    """A hit, a miss, one in a crowd; AP and recall follow from the flags."""
    near, far = [10, 10, 19, 20], [50, 50, 60, 60]
    ground_truth = example("1", [SQUARE, far, [80, 80, 99, 99]], [0, 0, 0], ignore=[0, 0, 1])
    found = detections("1", [near, [0, 0, 5, 5], [82, 82, 90, 90]], [0, 0, 0], [0.5, 0.75, 0.9])
    evaluator = evaluator_of(("x", "y"), [found], [ground_truth])
    outcomes = evaluator.outcomes()
    assert outcomes["coco/outcomes/x"] == {"score": [0.75, 0.5], "right": [0, 1], "objects": [2]}
    assert outcomes["coco/outcomes/y"] == {"score": [], "right": [], "objects": [0]}
    assert evaluator.outcomes(0.95)["coco/outcomes/x"]["right"] == [0, 0]  # near has an IoU of 0.9
    with pytest.raises(ValueError, match="iou=0.52; the protocol measures at"):
        evaluator.outcomes(0.52)
    both = CocoInstancesEvaluator(("x",))
    assert [*both.outcomes()] == ["coco/outcomes/x", "coco_segm/outcomes/x"]


@needs_fixtures
def test_average_precision_by_the_outcomes():
    evaluator = evaluator_of(*coco_fixture("coco_fakebbox100"))
    result = evaluator.result()
    for iou, metric in ((0.5, "AP50"), (0.75, "AP75")):
        aps = []
        for outcome in evaluator.outcomes(iou).values():
            right, (objects,) = np.array(outcome["right"]), outcome["objects"]
            if not objects:
                continue
            recall = np.cumsum(right) / objects
            precision = np.cumsum(right) / np.arange(1, len(right) + 1)
            precision = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)
            rows = np.searchsorted(recall, np.linspace(0, 1, 101))
            aps.append(precision[rows].mean())
        assert np.mean(aps) == pytest.approx(result[f"coco/{metric}"], abs=1e-9)


def shape_masks(rng, count, side=64):
    """Ellipses and what a network might find for them: masks [n, side, side], and others nearby."""
    y, x = np.mgrid[:side, :side] + 0.5
    ground_truth, found = [], []
    for _ in range(count):
        centre, radii = rng.uniform(15, side - 15, 2), rng.uniform(4, 20, 2)
        move, grow = rng.normal(0, 2.5, 2), rng.uniform(0.8, 1.2)
        for masks, c, r in (
            (ground_truth, centre, radii),
            (found, centre + move, radii * grow),
        ):
            masks.append(((x - c[0]) / r[0]) ** 2 + ((y - c[1]) / r[1]) ** 2 <= 1)
    return np.array(ground_truth), np.array(found)


def encoded(mask):
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def uncompressed(mask):
    column = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(column)) + 1
    edges = [0, *changes.tolist(), len(column)]
    counts = np.diff(edges).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if column[0] else counts}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_masks_have_pycocotools_own_numbers():
    """Polygons, both kinds of run-length encoding and a crowd, against files read by pycocotools."""
    rng = np.random.default_rng(0)
    images, annotations, records, pairs = [], [], [], []
    for i in range(1, 7):
        ground_truth, found = shape_masks(rng, 4)
        labels, scores = rng.integers(0, 2, 4), np.sort(rng.random(4))[::-1]
        x, y = rng.uniform(5, 30, 2)
        segmentations = [
            [[x, y, x + 25, y, x + 25, y + 25, x, y + 25], [40, 50, 60, 50, 60, 60]],
            uncompressed(ground_truth[1]),
            encoded(ground_truth[2]),
            encoded(ground_truth[3]),
        ]
        found[0] = np.roll(ground_truth[0], 1)
        found[0] |= coco_mask.decode(
            coco_mask.merge(coco_mask.frPyObjects(segmentations[0], 64, 64))
        ).astype(bool)
        ignore = [False, False, False, True]
        areas = [664, *ground_truth[1:].sum((1, 2)).tolist()]
        boxes = [np.array([0, 0, 64, 64])] * 4  # nothing of these numbers is a box's
        masks = tuple(encoded(mask) for mask in found)
        images.append({"id": i, "height": 64, "width": 64})
        for k in range(4):
            one = {"image_id": i, "category_id": int(labels[k]) + 1}
            annotations.append(
                {
                    **one,
                    "id": 4 * i + k,
                    "segmentation": segmentations[k],
                    "area": areas[k],
                    "bbox": [0, 0, 64, 64],
                    "iscrowd": int(ignore[k]),
                }
            )
            score = float(np.float32(scores[k]))
            records.append({**one, "segmentation": masks[k], "score": score})
        ground_truth = example(str(i), boxes, labels, ignore=ignore, areas=areas)
        pairs.append(
            (
                detections(str(i), boxes, labels, scores)._replace(masks=masks),
                ground_truth._replace(masks=tuple(segmentations)),
            )
        )
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    coco = COCO()
    coco.dataset = {"images": images, "annotations": annotations, "categories": categories}
    with redirect_stdout(io.StringIO()):
        coco.createIndex()
        check = COCOeval(coco, coco.loadRes(records), "segm")
        check.evaluate(), check.accumulate(), check.summarize()
    evaluator = evaluator_of(["a", "b"], *zip(*pairs), iou_type="segm")
    result = evaluator.result()
    assert 0.2 < check.stats[0] < 0.9
    for name, value in zip(STATS, check.stats, strict=True):
        expected = math.nan if value < 0 else value
        assert result[f"coco_segm/{name}"] == pytest.approx(expected, abs=1e-9, nan_ok=True), name
    assert evaluator.needs == ("masks",) and evaluator.per_class == {"coco_segm": "AP"}


def test_masks_that_are_missing_are_named():
    mask = encoded(np.ones((4, 4), bool))
    with_mask = detections("a", [SQUARE], [0], [0.5])._replace(masks=(mask,))
    bare = example("a", [SQUARE], [0])
    evaluator = CocoEvaluator(["x"], iou_type="segm")
    with pytest.raises(DataError, match="image a: .*objects without a mask"):
        evaluator.add(with_mask, bare)
    with pytest.raises(DataError, match="image a: .*detections without a mask"):
        evaluator.add(with_mask._replace(masks=None), bare._replace(masks=([[1, 1, 9, 1, 9, 9]],)))
    with pytest.raises(DataError, match="image a: a segmentation is polygons"):
        evaluator.add(with_mask, bare._replace(masks=("circle",)))
    # Where there is nothing, there need be no masks.
    evaluator.add(detections("a", [], [], []), example("a", [], []))
    with pytest.raises(ValueError, match="iou_type='mask'"):
        CocoEvaluator(["x"], iou_type="mask")


def test_images_must_correspond():
    with pytest.raises(ValueError, match="'a' against 'b'"):
        CocoEvaluator(["x"]).add(detections("a", [], [], []), example("b", [], []))
