import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdet.evaluation.voc_ap import VocEvaluator, area_ap, eleven_point_ap
from tests.evaluation.records import (
    coco_fixture,
    detections,
    example,
    from_xywh,
    needs_fixtures,
    read_json,
)

SQUARE = [10, 10, 20, 20]


def evaluator_of(found, ground_truths, class_names, **options):
    evaluator = VocEvaluator(class_names, **options)
    for image, ground_truth in zip(found, ground_truths, strict=True):
        evaluator.add(image, ground_truth)
    return evaluator


def voc_ap(*arguments, **options):
    return evaluator_of(*arguments, **options).result()


@needs_fixtures
@pytest.mark.parametrize("iou", ["0.1", "0.3", "0.5", "0.75"])
def test_toy_case_has_the_published_ap(iou):
    toy = read_json("voc_toy7", "toy7.json")
    ground_truths, found = [], []
    for id, boxes in toy["ground_truth_xywh"].items():
        rows = np.array(toy["detections_score_xywh"][id])
        ground_truths.append(example(id, from_xywh(boxes), [0] * len(boxes)))
        found.append(detections(id, from_xywh(rows[:, 1:]), [0] * len(rows), rows[:, 0]))
    # The reference adds one pixel to sides that are already x2 - x1.
    result = voc_ap(found, ground_truths, ["a"], iou_threshold=float(iou), pixel_offset=1.0)
    expected = toy["expected_ap"]
    assert result["voc07/mAP"] == pytest.approx(expected["11point"][iou], abs=1e-9)
    assert result["voc12/mAP"] == pytest.approx(expected["all_points"][iou], abs=1e-9)


@needs_fixtures
@pytest.mark.parametrize("offset, kind", [(0.0, "continuous"), (1.0, "inclusive_plus1")])
def test_voc100_has_the_reference_ap_of_every_class(offset, kind):
    names, found, ground_truths = coco_fixture("voc100")
    result = voc_ap(found, ground_truths, names, pixel_offset=offset)
    reference = read_json("voc100", "expected.json")["voc_devkit_definition_computed_here"]
    for variant, points in (("voc07", "11point"), ("voc12", "all_points")):
        expected = reference[f"voc_ap50_{points}_{kind}"]
        assert result[f"{variant}/mAP"] == pytest.approx(expected["mAP"], abs=1e-6)
        assert len(expected["per_class"]) == 20
        for name, ap in expected["per_class"].items():
            assert result[f"{variant}/AP/{name}"] == pytest.approx(ap, abs=1e-6), name


def plain_devkit(found, ground_truths, label, threshold):
    """The protocol in the kit's own order of loops: (tp, fp) flags best first, and npos."""
    rows = [
        (score, i, box)
        for i, image in enumerate(found)
        for score, box, own in zip(image.scores, image.boxes, image.labels, strict=True)
        if own == label
    ]
    rows.sort(key=lambda row: -row[0])
    taken, tp, fp = set(), [], []
    for _, i, box in rows:
        best, match = -math.inf, None
        for j in np.flatnonzero(ground_truths[i].labels == label):
            a, b = box.astype(float), ground_truths[i].boxes[j].astype(float)
            w = min(a[2], b[2]) - max(a[0], b[0])
            h = min(a[3], b[3]) - max(a[1], b[1])
            if w > 0 and h > 0:
                areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
                overlap = w * h / (sum(areas) - w * h)
                if overlap > best:
                    best, match = overlap, j
        hit = best >= threshold
        ignored = hit and ground_truths[i].ignore[match]
        first = hit and not ignored and (i, match) not in taken
        if first:
            taken.add((i, match))
        tp.append(first)
        fp.append(not hit or (not ignored and not first))
    npos = sum(int(np.sum((t.labels == label) & ~t.ignore)) for t in ground_truths)
    return np.array(tp, int), np.array(fp, int), npos


def plain_ap(tp, fp, npos):
    tp, fp = np.cumsum(tp), np.cumsum(fp)
    recall, precision = tp / npos, tp / np.maximum(tp + fp, 1e-12)
    eleven = sum(
        precision[recall >= t].max() if (recall >= t).any() else 0.0 for t in np.arange(0, 1.1, 0.1)
    )
    recall = np.concatenate([[0], recall, [1]])
    precision = np.concatenate([[0], precision, [0]])
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    steps = np.flatnonzero(recall[1:] != recall[:-1])
    return eleven / 11, np.sum((recall[steps + 1] - recall[steps]) * precision[steps + 1])


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.3, 0.5]))
def test_equals_a_plain_transcription_of_the_protocol(seed, threshold):
    rng = np.random.default_rng(seed)

    def boxes(n):  # on a coarse grid, so that exact thresholds and equal overlaps occur
        corner = rng.integers(0, 5, (n, 2)) * 4
        return np.concatenate([corner, corner + rng.integers(1, 4, (n, 2)) * 4], axis=1)

    ground_truths, found = [], []
    for i in range(4):
        n, d = rng.integers(0, 5), rng.integers(0, 9)
        ground_truths.append(
            example(str(i), boxes(n), rng.integers(0, 2, n), ignore=rng.random(n) < 0.2)
        )
        scores = rng.integers(1, 6, d) / 5  # ties
        found.append(detections(str(i), boxes(d), rng.integers(0, 2, d), scores))
    result = voc_ap(found, ground_truths, ["a", "b"], iou_threshold=threshold)
    for label, name in enumerate("ab"):
        tp, fp, npos = plain_devkit(found, ground_truths, label, threshold)
        if npos == 0:
            assert math.isnan(result[f"voc07/AP/{name}"])
            continue
        eleven, area = plain_ap(tp, fp, npos)
        assert result[f"voc07/AP/{name}"] == pytest.approx(eleven, abs=1e-9)
        assert result[f"voc12/AP/{name}"] == pytest.approx(area, abs=1e-9)


def test_inclusive_pixels_with_offset_are_continuous_boxes_without():
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 80, (40, 2))
    boxes = np.concatenate([corners, corners + rng.integers(1, 20, (40, 2))], axis=1)
    noisy = boxes + rng.normal(0, 2, boxes.shape)
    noisy[:, 2:] = np.maximum(noisy[:, 2:], noisy[:, :2] + 1)
    scores = rng.random(40)

    def result(to_pixels, offset):
        found = detections("a", noisy + to_pixels, [0] * 40, scores)
        ground_truth = example("a", boxes + to_pixels, [0] * 40)
        return voc_ap([found], [ground_truth], ["x"], pixel_offset=offset)

    assert result([0, 0, 0, 0], 0.0) == pytest.approx(result([1, 1, 0, 0], 1.0))


def test_an_overlap_of_exactly_the_threshold_is_found():
    found = detections("a", [[10, 10, 20, 15]], [0], [0.9])  # half of the object
    assert voc_ap([found], [example("a", [SQUARE], [0])], ["x"])["voc07/mAP"] == 1.0
    assert (
        voc_ap([found], [example("a", [SQUARE], [0])], ["x"], iou_threshold=0.51)["voc07/mAP"] == 0
    )


def test_a_second_detection_of_an_object_is_wrong():
    found = detections("a", [SQUARE, SQUARE, [50, 50, 60, 60]], [0] * 3, [0.9, 0.8, 0.7])
    ground_truth = example("a", [SQUARE, [50, 50, 60, 60]], [0, 0])
    assert voc_ap([found], [ground_truth], ["x"])["voc12/mAP"] == pytest.approx(
        0.5 * 1 + 0.5 * 2 / 3
    )


def test_the_maximal_overlap_decides_even_when_its_object_is_taken():
    ground_truth = example("a", [[0, 0, 10, 10], [0, 3, 10, 13]], [0, 0])
    found = detections("a", [[0, 0, 10, 10], [0, 1, 10, 11]], [0, 0], [0.9, 0.8])
    # The second overlaps both by more than half, its best object most: no second choice.
    assert voc_ap([found], [ground_truth], ["x"])["voc12/mAP"] == pytest.approx(0.5)


def test_difficult_objects_neither_reward_nor_penalise():
    easy = example("a", [SQUARE], [0])
    both = example("a", [SQUARE, [50, 50, 60, 60]], [0, 0], ignore=[False, True])
    on_easy = detections("a", [SQUARE], [0], [0.5])
    on_both = detections(
        "a", [[50, 50, 60, 60], [50, 50, 60, 59], SQUARE], [0] * 3, [0.9, 0.8, 0.5]
    )
    assert voc_ap([on_easy], [both], ["x"]) == voc_ap([on_easy], [easy], ["x"])
    assert voc_ap([on_both], [both], ["x"]) == voc_ap([on_easy], [easy], ["x"])
    assert voc_ap([on_both], [both], ["x"])["voc07/mAP"] == 1.0


def test_a_class_without_countable_objects_is_nan_and_left_out_of_the_mean():
    ground_truth = example("a", [SQUARE, SQUARE], [0, 2], ignore=[False, True])
    found = detections("a", [SQUARE, SQUARE], [0, 1], [0.9, 0.9])
    result = voc_ap([found], [ground_truth], ["x", "absent", "only difficult"])
    assert result["voc07/mAP"] == result["voc12/mAP"] == result["voc07/AP/x"] == 1.0
    assert math.isnan(result["voc07/AP/absent"]) and math.isnan(result["voc12/AP/only difficult"])


def test_nothing_to_find_and_nothing_found():
    assert math.isnan(VocEvaluator(["x"]).result()["voc07/mAP"])
    nothing = detections("a", [], [], [])
    assert voc_ap([nothing], [example("a", [SQUARE], [0])], ["x"])["voc12/mAP"] == 0.0
    assert math.isnan(voc_ap([nothing], [example("a", [], [])], ["x"])["voc12/mAP"])


def test_classes_do_not_match_each_other():
    found = detections("a", [SQUARE], [1], [0.9])
    assert voc_ap([found], [example("a", [SQUARE], [0])], ["x", "y"])["voc07/mAP"] == 0.0


def test_ap_of_a_curve_by_hand():
    correct = np.array([True, False, True])
    # precision 1, 1/2, 2/3 at recall 1/3, 1/3, 2/3
    assert area_ap(correct, 3) == pytest.approx((1 + 2 / 3) / 3)
    assert eleven_point_ap(correct, 3) == pytest.approx((4 * 1 + 3 * 2 / 3) / 11)
    # Recall exactly 3/10 does not reach the fourth level, which is one rounding above it.
    assert eleven_point_ap(np.ones(3, bool), 10) == pytest.approx(3 / 11)
    assert eleven_point_ap(np.ones(4, bool), 10) == pytest.approx(5 / 11)


def test_curves_are_those_that_the_ap_is_the_area_of():
    """And their scores: a detector cut at one of them has this precision and recall."""
    rng = np.random.default_rng(3)
    ground_truths, found = [], []
    for i in range(30):
        corners = rng.integers(0, 40, (3, 2))
        boxes = np.concatenate([corners, corners + 20], axis=1)
        ground_truths.append(
            example(str(i), boxes, rng.integers(0, 2, 3), ignore=rng.random(3) < 0.2)
        )
        noisy = np.concatenate([boxes, boxes + rng.normal(0, 5, boxes.shape)])
        found.append(detections(str(i), noisy, rng.integers(0, 2, 6), rng.random(6)))
    evaluator = evaluator_of(found, ground_truths, ["a", "b", "absent"])
    curves, result = evaluator.curves(), evaluator.result()
    assert set(curves) == {"voc/precision_recall/a", "voc/precision_recall/b"}
    for label, name in enumerate("ab"):
        curve = curves[f"voc/precision_recall/{name}"]
        x, y = np.array(curve["x"]), np.array(curve["y"])
        envelope = np.maximum.accumulate(y[::-1])[::-1]
        area = np.sum(np.diff(x, prepend=0) * envelope)
        assert 0.1 < area == pytest.approx(result[f"voc12/AP/{name}"])
        middle = len(x) // 2
        cut = [image.select(image.scores >= curve["score"][middle]) for image in found]
        tp, fp, npos = plain_devkit(cut, ground_truths, label, 0.5)
        assert tp.sum() / npos == pytest.approx(x[middle])
        assert tp.sum() / (tp.sum() + fp.sum()) == pytest.approx(y[middle])


def test_images_must_correspond():
    with pytest.raises(ValueError, match="'a' against 'b'"):
        VocEvaluator(["x"]).add(detections("a", [], [], []), example("b", [], []))
