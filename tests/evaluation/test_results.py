import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from jdet.analyse import records
from jdet.analyse.last import write_last
from jdet.config import get_defaults
from jdet.evaluation.background import Background
from jdet.evaluation.evaluate import make_evaluation
from jdet.evaluation.results import Results, category_ids, image_ids, to_coco_json
from jdet.train.folders import OWN
from tests.evaluation.pixel_detector import PixelDetector
from tests.evaluation.records import (
    FIXTURES,
    coco_fixture,
    detections,
    needs_fixtures,
    read_json,
)
from tests.evaluation.test_coco_ap import evaluate
from tests.evaluation.test_detect import SIDE, Rectangles, mesh


def score_file(ground_truth, path, images=None):
    """pycocotools' AP of a result file."""
    with redirect_stdout(io.StringIO()):
        check = COCOeval(ground_truth, ground_truth.loadRes(str(path)), "bbox")
        if images is not None:
            check.params.imgIds = images
        check.evaluate(), check.accumulate(), check.summarize()
    return check.stats[0]


@needs_fixtures
def test_result_file_gives_pycocotools_the_same_numbers(tmp_path):
    names, found, ground_truths = coco_fixture("voc100")
    ids = [c["id"] for c in read_json("voc100", "gt.json")["categories"]]
    records = [r for image in found for r in to_coco_json(image, int(image.id), ids)]
    (tmp_path / "results.json").write_text(json.dumps(records))
    with redirect_stdout(io.StringIO()):
        coco = COCO(str(FIXTURES / "voc100" / "gt.json"))
    assert score_file(coco, tmp_path / "results.json") == pytest.approx(
        evaluate(names, found, ground_truths)["coco/AP"], abs=1e-9
    )


class WithIds(Rectangles):
    """A data set with ids of its own, in images and classes."""

    image_ids = tuple(1000 - 7 * i for i in range(9))
    category_ids = (18, 44)


def test_an_evaluation_can_be_scored_again_from_its_files(tmp_path):
    """By the data set's own ids; boxes are a pixel off, so that the AP is neither 0 nor 1."""
    config = get_defaults()
    config.input_size = SIDE
    config.data.threads = 0
    config.eval.metrics = ("coco", "voc")
    config.eval.batch_size = 4
    config.eval.max_images = 8
    config.eval.images = 2
    source = WithIds(9)
    files = Background(1)
    evaluation = make_evaluation(config, PixelDetector(), source, mesh(1, 1), tmp_path, files)
    found = evaluation({"shift": np.float32(1)}, 5)
    found.wait()
    assert 0.05 < found.metrics["coco/AP"] < 0.95 and len(found.images) == 2
    written = {p.name for p in tmp_path.iterdir()}
    assert written == {
        *("report.json", "detections.json", "images.json", "evaluation_curves.json", "detections")
    }
    assert written <= set(OWN)
    index = json.loads((tmp_path / "images.json").read_text())
    assert index["images"] == [{"id": source.image_ids[i], "name": f"p{i}"} for i in range(8)]
    assert index["categories"] == [{"id": 18, "name": "red"}, {"id": 44, "name": "other"}]

    write_last(tmp_path, config, source)
    analysis = records.read(tmp_path)
    assert analysis.step == 5 and analysis.images == 8
    assert analysis.per_class[0]["ap"] == pytest.approx(found.metrics["coco/AP/red"], abs=1e-12)
    assert {one["id"] for one in analysis.image_list} == set(source.image_ids[:8])
    evaluation({"shift": np.float32(1)}, 5)
    assert records.read(tmp_path) is None  # what was there is of other weights

    ground_truth = COCO()
    objects = [(i, box) for i in range(9) for box in source[i].boxes]
    ground_truth.dataset = {
        "images": [{"id": number} for number in source.image_ids],
        "categories": index["categories"],
        "annotations": [
            {
                "id": number,
                "image_id": source.image_ids[i],
                "category_id": 18,
                "bbox": [float(v) for v in (x1, y1, x2 - x1, y2 - y1)],
                "area": 1.0,
                "iscrowd": 0,
            }
            for number, (i, (x1, y1, x2, y2)) in enumerate(objects, 1)
        ],
    }
    with redirect_stdout(io.StringIO()):
        ground_truth.createIndex()
    again = score_file(
        ground_truth, tmp_path / "detections.json", [image["id"] for image in index["images"]]
    )
    assert again == pytest.approx(found.metrics["coco/AP"], abs=1e-9)

    curves = json.loads((tmp_path / "evaluation_curves.json").read_text())
    assert curves["step"] == 5
    assert set(curves["curves"]) == {"coco/precision_recall/red", "voc/precision_recall/red"}
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report["settings"]["protocols"]) == {"coco", "voc"}


def test_ids_of_images():
    assert image_ids({0: "a", 2: "b"}, own=[7, 8, 9]) == {0: 7, 2: 9}
    assert image_ids({0: "000012", 3: "7"}) == {0: 12, 3: 7}
    assert image_ids({0: "000012", 3: "2007_7"}) == {0: 1, 3: 4}
    assert image_ids({0: "12", 1: "012"}) == {0: 1, 1: 2}  # one number for two images
    assert image_ids({0: "a"}, own=()) == {0: 1}  # a source that declares none
    assert image_ids({0: "²", 1: "3"}) == {0: 1, 1: 2}
    assert category_ids(["a", "b"], None, ()) == (1, 2)
    assert category_ids(["a", "b"], (), (7, 90)) == category_ids(["a", "b"], [7, 90], (1, 2))


def test_records_of_a_result_file():
    image = detections("42", [[1.5, 2, 11.5, 22]], [1], [0.75])
    record = {"image_id": 7, "category_id": 90, "bbox": [1.5, 2.0, 10.0, 20.0], "score": 0.75}
    assert to_coco_json(image, 7, [1, 90]) == [record]
    mask = {"size": [4, 4], "counts": "04<"}
    masked = to_coco_json(image._replace(masks=(mask,)), 7, [1, 90])
    assert masked == [{**record, "segmentation": mask}]


def test_files_hold_all_images_in_the_order_of_the_source(tmp_path):
    results = Results(Rectangles(4))
    for index in (2, 0, 1):  # as they come where proportions are kept
        boxes = [[0, 0, 4, index + 1]] * (index != 1)
        results.add(index, detections(f"p{index}", boxes, [0] * len(boxes), [0.5] * len(boxes)))
    results.write(Path(tmp_path), (1, 2), name="more.json")
    records = json.loads((tmp_path / "more.json").read_text())
    assert [(r["image_id"], r["bbox"][3]) for r in records] == [(1, 1.0), (3, 3.0)]
    images = json.loads((tmp_path / "images.json").read_text())["images"]
    assert [image["name"] for image in images] == ["p0", "p1", "p2"]
