import hotcoco
import numpy as np
import pytest

from jdet.analyse.compute import analyse
from jdet.analyse.confusion import confusion
from jdet.analyse.records import SIZES
from jdet.data.segmentation import encode_part
from jdet.data.sources.coco import xywh_to_xyxy
from jdet.evaluation.coco_ap import CocoEvaluator
from tests.analyse.random_set import NAMES, evaluated, iou, random_set, xywh


def close(value, other):
    return value is None if np.isnan(other) else value == pytest.approx(other, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_ap_and_curves_are_those_of_pycocotools(seed):
    images = random_set(seed)
    theirs = evaluated(images, CocoEvaluator(NAMES, engine="pycocotools"))
    metrics, curves = theirs.result(), theirs.curves()
    rng = np.random.default_rng(seed)
    found = analyse([images[i] for i in rng.permutation(len(images))], NAMES)
    for one in found.per_class:
        assert close(one["ap"], metrics[f"coco/AP/{one['class']}"])
    for size in SIZES:
        assert close(found.by_size[size]["ap"], metrics[f"coco/AP{size[0]}"])
    for name, key in (("ap50", "AP50"), ("ap75", "AP75")):
        mean = np.mean([one[name] for one in found.per_class if one[name] is not None])
        assert mean == pytest.approx(metrics[f"coco/{key}"], abs=1e-12)
    assert [f"coco/precision_recall/{name}" for name in found.pr_curves] == list(curves)
    for name, ours in found.pr_curves.items():
        held = curves[f"coco/precision_recall/{name}"]
        reached = np.array(held["y"]) > 0
        for key, field in (("x", "recall"), ("y", "precision"), ("score", "score")):
            np.testing.assert_allclose(ours[field], np.array(held[key])[reached], atol=1e-12)


def test_classes_sizes_and_images_are_counted_as_a_loop_counts():
    images = random_set(5, images=12)
    found = analyse(images, NAMES)
    for label, one in enumerate(found.per_class):
        own = [((i.ground_truth.labels == label) & ~i.ground_truth.ignore).sum() for i in images]
        assert (one["objects"], one["images"]) == (sum(own), np.count_nonzero(own))
    areas = np.concatenate([i.ground_truth.areas[~i.ground_truth.ignore] for i in images])
    assert found.by_size["small"]["objects"] == (areas <= 32**2).sum()
    assert found.by_size["large"]["objects"] == (areas >= 96**2).sum()
    listed = {one["id"]: one for one in found.image_list}
    assert len(listed) == len(images) == found.images
    f1 = [one["f1"] for one in found.image_list]
    assert f1 == sorted(f1)
    best = {one["class"]: one["threshold"]["best_f1"] for one in found.per_class}
    assert best["dog"] is None  # no object: detections count from the threshold of all classes on
    scores = [best[name]["score"] if best[name] else found.confusion["score"] for name in NAMES]
    for image in images:
        evaluator = evaluated([image], CocoEvaluator(NAMES, engine="pycocotools"))
        right = wrong = 0
        for name, score in zip(NAMES, scores, strict=True):
            held = evaluator.outcomes()[f"coco/outcomes/{name}"]
            kept = np.array(held["right"])[np.array(held["score"]) >= score]
            right, wrong = right + int(kept.sum()), wrong + int((kept == 0).sum())
        one = listed[image.id]
        assert (one["true_positives"], one["false_positives"]) == (right, wrong)
        assert one["missed"] == one["objects"] - right == (~image.ground_truth.ignore).sum() - right
        total = 2 * right + wrong + one["missed"]
        assert one["f1"] == pytest.approx(2 * right / total if total else 1.0)


def test_calibration_is_that_of_a_loop():
    images = random_set(6, crowds=0.2)
    theirs = evaluated(images, CocoEvaluator(NAMES, engine="pycocotools")).outcomes()
    scores, right = (
        np.concatenate([one[k] for one in theirs.values()]) for k in ("score", "right")
    )
    found = analyse(images, NAMES).calibration
    gaps = 0.0
    for one in found["bins"]:
        rows = (scores >= one["low"]) & (scores < one["high"])  # no score is 1
        assert one["count"] == rows.sum()
        if not rows.any():
            assert one["score"] is None and one["precision"] is None
            continue
        assert one["score"] == pytest.approx(scores[rows].mean(), abs=1e-9)
        assert one["precision"] == pytest.approx(right[rows].mean(), abs=1e-9)
        gaps += rows.sum() * abs(scores[rows].mean() - right[rows].mean())
    assert found["ece"] == pytest.approx(gaps / len(scores), abs=1e-9)


def test_a_slice_is_scored_as_if_it_were_the_set():
    images = random_set(7)
    parts = {"odd": [i.id for i in images if i.id % 2], "_overall": [3, 4], "none": []}
    slices = analyse(images, NAMES, slices=parts).slices
    assert [one["name"] for one in slices] == list(parts)
    for one in slices:
        own = [i for i in images if i.id in parts[one["name"]]]
        assert one["images"] == len(own)
        assert one["objects"] == sum((~i.ground_truth.ignore).sum() for i in own)
        metrics = evaluated(own, CocoEvaluator(NAMES, engine="pycocotools")).result() if own else {}
        assert close(one["ap"], metrics.get("coco/AP", np.nan))
        assert close(one["ap50"], metrics.get("coco/AP50", np.nan))


def loop_confusion(images, score):
    matrix = np.zeros((len(NAMES) + 1,) * 2, int)
    for image in images:
        ground_truth, left = image.ground_truth, list(np.flatnonzero(~image.ground_truth.ignore))
        for box, label, one in zip(
            xywh(image.found.boxes), image.found.labels, image.found.scores, strict=True
        ):
            if one < score:
                continue
            best = max(left, key=lambda i: iou(box, ground_truth.xywh[i]), default=None)
            crowds = np.flatnonzero(ground_truth.ignore & (ground_truth.labels == label))
            if best is not None and iou(box, ground_truth.xywh[best]) >= 0.5:
                left.remove(best)
                matrix[ground_truth.labels[best], label] += 1
            elif not any(iou(box, ground_truth.xywh[i], True) >= 0.5 for i in crowds):
                matrix[-1, label] += 1
        for i in left:
            matrix[ground_truth.labels[i], -1] += 1
    return matrix


def test_confusion_is_that_of_a_loop_with_crowds_and_of_hotcoco_without():
    for crowds in (0.3, 0.0):
        images = random_set(8, crowds=crowds)
        for score in (0.0, 0.4):
            found = confusion(images, NAMES, score)
            assert found["labels"] == [*NAMES, "background"]
            assert np.array(found["matrix"]).tolist() == loop_confusion(images, score).tolist()
    theirs = evaluated(images, CocoEvaluator(NAMES, engine="hotcoco"))._evaluation()
    assert isinstance(theirs, hotcoco.COCOeval)
    matrix = theirs.confusion_matrix(iou_thr=0.5, max_det=100, min_score=0.4)["matrix"]
    assert np.array(found["matrix"]).tolist() == matrix.astype(int).tolist()


def test_masks_are_scored_where_that_is_asked_for():
    (image,) = random_set(13, images=1, crowds=0)
    rows = range(len(image.ground_truth.labels))
    masks = tuple(encode_part(np.ones((9, 9), bool), 20 * i, 20 * i, 400, 400) for i in rows)
    found = image.found.select(np.zeros(14, bool))._replace(
        boxes=xywh_to_xyxy(image.ground_truth.xywh).astype(np.float32),
        labels=image.ground_truth.labels,
        scores=np.full(len(masks), 0.9, np.float32),
        masks=masks,
    )
    images = [image._replace(found=found, ground_truth=image.ground_truth._replace(masks=masks))]
    assert analyse(images, NAMES).masks is None
    assert analyse(images, NAMES, masks=True).masks["ap"] == pytest.approx(1)


def test_without_ground_truth_nothing_is_made_up():
    images = [
        one._replace(
            ground_truth=one.ground_truth._replace(
                xywh=np.zeros((0, 4)), labels=np.zeros(0, np.int32), ignore=np.zeros(0, bool)
            )._replace(areas=np.zeros(0))
        )
        for one in random_set(9)
    ]
    found = analyse(images, NAMES, slices={"all": [1, 2]})
    assert found.tide is found.confusion is found.calibration is found.masks is None
    assert not found.pr_curves and not found.label_suspects
    for one in found.per_class:
        assert one["ap"] is one["ap50"] is one["ap75"] is None
        assert one["threshold"] == {"best_f1": None, "at_precision": None}
    assert {one["ap"] for one in [*found.by_size.values(), *found.slices]} == {None}
    assert {one["false_positives"] for one in found.image_list} == {0}


def test_without_detections_everything_is_missed():
    images = [i._replace(found=i.found.select(np.zeros(14, bool))) for i in random_set(10)]
    found = analyse(images, NAMES)
    assert [one["ap"] for one in found.per_class] == [0.0, 0.0, 0.0, None]
    assert {one["threshold"]["best_f1"] for one in found.per_class} == {None}
    assert sum(one["missed"] for one in found.image_list) == sum(
        one["objects"] for one in found.per_class
    )
    counts = [one["objects"] for one in found.per_class]
    assert [row[-1] for row in found.confusion["matrix"]] == [*counts, 0]
    assert found.calibration["ece"] == 0


def test_where_nothing_is_right_what_is_wrong_is_counted_from_the_usual_score_on():
    images = random_set(11)
    away = [i._replace(found=i.found._replace(boxes=i.found.boxes + 5000)) for i in images]
    found = analyse(away, NAMES)
    wrong = sum(int((i.found.scores >= 0.3).sum()) for i in images)
    assert found.confusion["score"] == 0.3 and sum(found.confusion["matrix"][-1]) == wrong > 0
    assert sum(one["false_positives"] for one in found.image_list) == wrong


@pytest.mark.parametrize("factor", [1.5, -1.0])
def test_scores_that_are_no_probabilities_have_no_calibration(factor):
    images = [
        i._replace(found=i.found._replace(scores=i.found.scores * np.float32(factor)))
        for i in random_set(12, images=5)
    ]
    found = analyse(images, NAMES)
    assert found.calibration is None and found.per_class[0]["ap"] is not None
