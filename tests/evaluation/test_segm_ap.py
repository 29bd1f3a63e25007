"""AP of masks from probabilities in boxes and labels in every form, against plain pycocotools."""

import io
import math
from contextlib import redirect_stdout

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from jdet.data.segmentation import encode
from jdet.evaluation import coco_ap
from jdet.evaluation.coco_ap import STATS, CocoEvaluator, CocoInstancesEvaluator
from jdet.evaluation.detect import to_images
from jdet.types import Batch, DataError, Detections
from tests.evaluation.records import detections, example
from tests.evaluation.test_masks import plain_paste

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = (40, 52)


def blob(rng):
    """A polygon around a centre, its box, and what a network may find of it: probabilities and a box."""
    centre, angles = rng.uniform([12, 12], [40, 28]), np.sort(rng.uniform(0, 2 * np.pi, 8))
    corners = centre + rng.uniform(4, 11, (8, 1)) * np.stack([np.cos(angles), np.sin(angles)], -1)
    corners = corners.round(2)
    box = np.concatenate([corners.min(0), corners.max(0)])
    frame = box + rng.normal(0, rng.choice([0.3, 2.5]), 4)
    points = (np.stack(np.meshgrid(*[(np.arange(7) + 0.5) / 7] * 2), -1)) * (frame[2:] - frame[:2])
    away = np.linalg.norm(points + frame[:2] - centre, axis=-1) / 8 + rng.normal(0, 0.1, (7, 7))
    return corners.reshape(-1).tolist(), box, frame, np.clip(1.5 - away, 0, 1)


def as_labelled(polygon, form):
    """One segmentation in one of COCO's forms."""
    if form == 0:
        return [polygon]
    rle = coco_mask.merge(coco_mask.frPyObjects([polygon], *SIZE))
    if form == 1:
        return {"size": list(SIZE), "counts": rle["counts"].decode()}
    flat, counts, value = coco_mask.decode(rle).T.reshape(-1).tolist(), [0], 0
    for pixel in flat:
        counts += [0] * (pixel != value)
        value, counts[-1] = pixel, counts[-1] + 1
    return {"size": list(SIZE), "counts": counts}


def scene(seed, images=8):
    """Images with up to five objects, some of them crowds, and noisy detections of them.

    Returns:
        What jdet takes: detections in the network's pixels, their batch, ground truths; and what
        pycocotools takes.
    """
    rng = np.random.default_rng(seed)
    depth, ground_truths, annotations, results = 7, [], [], []
    found = Detections(
        boxes=np.zeros((images, depth, 4), np.float32),
        scores=np.zeros((images, depth), np.float32),
        labels=rng.integers(0, 2, (images, depth)).astype(np.int32),
        valid=np.zeros((images, depth), bool),
        masks=np.zeros((images, depth, 7, 7), np.float32),
    )
    for i in range(images):
        rows = [blob(rng) for _ in range(i % 6)]
        crowd = [bool(rng.random() < 0.2) for _ in rows]
        labels = found.labels[i, : len(rows)].copy()
        forms = [as_labelled(row[0], 1 if c else rng.integers(3)) for row, c in zip(rows, crowd)]
        areas = [float(coco_mask.area(encode(decoded(form)))) for form in forms]
        extra = [blob(rng) for _ in range(int(rng.integers(0, 3)))]
        for k, (_, _, frame, probabilities) in enumerate([*rows, *extra]):
            found.boxes[i, k], found.masks[i, k] = (
                frame / 2,
                probabilities,
            )  # the input is half as large
            found.scores[i, k], found.valid[i, k] = rng.random(), True
            if rng.random() < 0.1:
                found.labels[i, k] = 1 - found.labels[i, k]
            pasted = plain_paste(found.masks[i, k], 2 * found.boxes[i, k].astype(float), *SIZE)
            results.append(
                {
                    "image_id": i + 1,
                    "category_id": int(found.labels[i, k]) + 1,
                    "segmentation": encode(pasted),
                    "score": float(found.scores[i, k]),
                }
            )
        for k, form in enumerate(forms):
            x1, y1, x2, y2 = rows[k][1].tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i + 1,
                    "category_id": int(labels[k]) + 1,
                    "segmentation": form,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": areas[k],
                    "iscrowd": int(crowd[k]),
                }
            )
        boxes = [row[1] for row in rows]
        ground_truth = example(str(i + 1), boxes, labels, ignore=crowd, areas=areas)
        ground_truths.append(ground_truth._replace(masks=tuple(forms)))
    size = np.tile(np.array(SIZE), (images, 1))
    batch = Batch.of_images(None, size // 2, original_sizes=size)
    return found, batch, ground_truths, annotations, results


def decoded(form):
    if isinstance(form, dict):
        counts = form["counts"]
        rle = form if isinstance(counts, str) else coco_mask.frPyObjects(form, *SIZE)
    else:
        rle = coco_mask.merge(coco_mask.frPyObjects(form, *SIZE))
    return coco_mask.decode(rle)


def reference(annotations, results, images):
    coco = COCO()
    coco.dataset = {
        "images": [{"id": i + 1, "height": SIZE[0], "width": SIZE[1]} for i in range(images)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }
    with redirect_stdout(io.StringIO()):
        coco.createIndex()
        check = COCOeval(coco, coco.loadRes(results), "segm")
        check.evaluate(), check.accumulate(), check.summarize()
    return check.stats


@pytest.mark.parametrize("engine", coco_ap.ENGINES)
@pytest.mark.parametrize("seed", range(4))
def test_from_the_detectors_arrays_to_the_twelve_numbers(seed, engine):
    pytest.importorskip(engine)
    found, batch, ground_truths, annotations, results = scene(seed)
    expected = reference(annotations, results, len(ground_truths))
    evaluator = CocoEvaluator(["a", "b"], iou_type="segm", engine=engine)
    images = to_images(found, batch, [ground_truth.id for ground_truth in ground_truths])
    for image, ground_truth in zip(images, ground_truths, strict=True):
        evaluator.add(image, ground_truth)
    metrics = evaluator.result()
    assert 0.1 < expected[0] < 0.95
    for name, value in zip(STATS, expected, strict=True):
        value = math.nan if value < 0 else value
        assert metrics[f"coco_segm/{name}"] == pytest.approx(value, abs=1e-12, nan_ok=True), name


def test_boxes_and_masks_in_one_pass():
    found, batch, ground_truths, *_ = scene(0)
    images = to_images(found, batch, [ground_truth.id for ground_truth in ground_truths])
    both = CocoInstancesEvaluator(["a", "b"])
    apart = [CocoEvaluator(["a", "b"], iou_type=kind) for kind in ("bbox", "segm")]
    for image, ground_truth in zip(images, ground_truths, strict=True):
        for evaluator in (both, *apart):
            evaluator.add(image, ground_truth)
    expected = apart[0].result() | apart[1].result()
    assert list(both.result()) == list(expected)
    assert both.result() == pytest.approx(expected, abs=0, rel=0, nan_ok=True)
    assert list(both.result())[0] == "coco/AP"
    assert both.curves() == apart[0].curves() | apart[1].curves()
    assert both.per_class == {"coco": "AP", "coco_segm": "AP"} and both.needs == ("masks",)
    assert "mask IoU" in both.protocol and both.protocol.count("pycocotools") == 2


def test_an_object_known_by_its_box_alone_counts_neither_way():
    """What lies in its box is not a mistake, and it need not be found."""
    box, mask = [10, 10, 20, 20], np.zeros(SIZE, bool)
    mask[12:18, 12:18] = True
    other = [[30, 10, 40, 10, 40, 20, 30, 20]]
    ground_truth = example("a", [box, [30, 10, 40, 20]], [0, 0])._replace(masks=(None, other))
    evaluator = CocoEvaluator(["x"], iou_type="segm")
    good = np.zeros(SIZE, bool)
    good[10:20, 30:40] = True
    image = detections("a", [box, [30, 10, 40, 20]], [0, 0], [0.9, 0.8])
    evaluator.add(image._replace(masks=(encode(mask), encode(good))), ground_truth)
    assert evaluator.result()["coco_segm/AP"] == pytest.approx(1)
    evaluator = CocoEvaluator(["x"], iou_type="segm")
    with pytest.raises(DataError, match="objects without a mask"):
        evaluator.add(
            image._replace(masks=(encode(mask), encode(good))), ground_truth._replace(masks=None)
        )
