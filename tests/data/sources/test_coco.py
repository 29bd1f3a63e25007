"""COCO files: counts of a real set, ids, masks, where images are found, every kind of bad input."""

import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdet.data.sources.coco import CocoSource, xywh_to_xyxy, xyxy_to_xywh
from jdet.types import DataError, Source
from tests.harness import ROOT

SHARED = ROOT.parent / "shared" / "data" / "coco_open"


def annotation(id, image_id=7, category_id=3, bbox=(1, 2, 10, 20), **more):
    return {"id": id, "image_id": image_id, "category_id": category_id, "bbox": list(bbox), **more}


def rectangle(x, y, width, height):
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def content(*annotations, images=(7,), categories=((3, "cat"), (1, "dog"))):
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 50} for i in images],
        "annotations": list(annotations),
        "categories": [{"id": id, "name": name} for id, name in categories],
    }


def write(root, data, folder="images", name="instances_train.json"):
    """The annotation file and an image for every image listed; returns the file's path."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    for image in data["images"]:
        cv2.imwrite(str(root / folder / image["file_name"]), np.zeros((50, 64, 3), np.uint8))
    (root / "annotations").mkdir(exist_ok=True)
    path = root / "annotations" / name
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize("split, images, objects", [("train", 80, 770), ("val", 57, 517)])
def test_counts_of_a_real_set(split, images, objects):
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent")
    path = SHARED / "annotations" / f"instances_{split}.json"
    source, data = CocoSource(path), json.loads(path.read_bytes())
    assert (len(source), source.class_counts().sum()) == (images, objects)
    assert source.image_ids == tuple(image["id"] for image in data["images"])
    assert source.category_ids == tuple(sorted(c["id"] for c in data["categories"]))
    assert source.class_names[0] == "person" and len(source.class_names) == 80
    assert source.defects == []

    by_image = {image["id"]: [] for image in data["images"]}
    for record in data["annotations"]:
        by_image[record["image_id"]].append(record)
    crowds = 0
    for index, image in enumerate(data["images"]):
        example, records = source[index], by_image[image["id"]]
        assert example.id == str(image["id"])
        assert source.image_size(index) == (image["height"], image["width"])
        expected = np.array([r["bbox"] for r in records]).reshape(-1, 4)
        np.testing.assert_allclose(xyxy_to_xywh(example.boxes), expected, atol=0.02)
        assert [source.category_ids[k] for k in example.labels] == [
            r["category_id"] for r in records
        ]
        assert example.masks == tuple(r["segmentation"] for r in records)
        np.testing.assert_allclose(example.areas, [r["area"] for r in records], rtol=1e-6)
        assert example.ignore.tolist() == [bool(r["iscrowd"]) for r in records]
        crowds += example.ignore.sum()
        if index % 10 == 0:
            assert cv2.imread(example.image).shape[:2] == source.image_size(index)
    assert crowds == {"train": 9, "val": 7}[split]


def test_person_of_the_real_set_is_counted_right():
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent")
    sources = [CocoSource(SHARED / "annotations" / f"instances_{s}.json") for s in ("train", "val")]
    counts = sum(s.class_counts() for s in sources)
    total = dict(zip(sources[0].class_names, counts.tolist(), strict=True))
    assert {k: total[k] for k in ("person", "car", "book", "chair")} == {
        "person": 327,
        "car": 91,
        "book": 57,
        "chair": 51,
    }
    empty = [s[i].id for s in sources for i in range(len(s)) if not len(s[i].labels)]
    assert sorted(empty) == ["226111", "508", "58636"]  # kept, as SOURCE.md lists them


@given(st.lists(st.tuples(*[st.integers(0, 4000)] * 4), max_size=5), st.sampled_from("if"))
def test_box_conversion_round_trip(boxes, kind):
    boxes = np.array(boxes, np.float32 if kind == "f" else np.int32).reshape(-1, 4)
    there = xywh_to_xyxy(boxes)
    assert there.dtype == boxes.dtype and (there[:, 2:] >= there[:, :2]).all()
    np.testing.assert_array_equal(xyxy_to_xywh(there), boxes)


def test_example(tmp_path):
    polygon, rle = [[1.25, 2, 11, 2, 11, 22]], {"size": [50, 64], "counts": [0, 3200]}
    data = content(
        annotation(1, area=77.5, iscrowd=0, segmentation=polygon),
        annotation(2, category_id=1, bbox=(0, 0, 64, 50), iscrowd=1, segmentation=rle),
        annotation(3, image_id=9),
        images=(7, 4, 9),
    )
    source = CocoSource(write(tmp_path, data))
    assert isinstance(source, Source)
    assert source.class_names == ("dog", "cat") and source.category_ids == (1, 3)
    assert source.image_ids == (7, 4, 9)
    example = source[0]
    assert example.id == "7" and example.image == str(tmp_path / "images" / "7.jpg")
    assert example.boxes.tolist() == [[1, 2, 11, 22], [0, 0, 64, 50]]
    assert example.labels.tolist() == [1, 0] and example.ignore.tolist() == [False, True]
    assert example.areas.tolist() == [77.5, 3200.0]
    assert example.masks == (polygon, rle)
    assert source[1].boxes.shape == (0, 4) and source[1].masks == ()
    assert source[-1].masks == (None,)
    assert pickle.loads(pickle.dumps(source))[0].masks == (polygon, rle)


def test_crowds_and_masks_can_be_left_out(tmp_path):
    data = content(annotation(1, iscrowd=1), annotation(2, segmentation=[[1, 2, 3, 9, 5, 6]]))
    path = write(tmp_path, data)
    assert CocoSource(path, keep_crowd=False)[0].masks == ([[1, 2, 3, 9, 5, 6]],)
    assert CocoSource(path, keep_masks=False)[0].masks is None


def test_masks_stay_with_their_boxes(tmp_path):
    data = content(
        annotation(1, bbox=(5, 5, 0, 3)),
        annotation(2, bbox=(5, 5, 3, 3), segmentation=rectangle(5, 5, 3, 3)),
        annotation(3, bbox=(5, 5, -3, 3)),
        annotation(4, bbox=(60, 5, 9, 3), segmentation=rectangle(60, 5, 9, 3)),
        annotation(5, bbox=(64, 5, 9, 3)),
        annotation(6, bbox=(60, 5, 4.01, 3), segmentation=rectangle(60, 5, 4, 3)),
    )
    source = CocoSource(write(tmp_path, data))
    second, fourth, sixth = (data["annotations"][i]["segmentation"] for i in (1, 3, 5))
    assert source[0].masks == (second, fourth, sixth)
    assert source[0].boxes.tolist() == [[5, 5, 8, 8], [60, 5, 64, 8], [60, 5, 64, 8]]
    # The last box leaves the image by the rounding of the file: clipped, and not a defect.
    assert [d.what for d in source.defects] == ["empty", "inverted", "clipped", "outside"]
    assert source.defects[0].detail == "cat 5, 5, 0, 3 in 64x50"


def test_masks_that_cannot_be_used_are_listed_and_keep_their_boxes(tmp_path):
    """In the ground truth of official numbers a mask stays where it is; only what is none is not there."""
    box, good = (10, 10, 20, 20), rectangle(10, 10, 20, 20)
    runs = {"size": [50, 64], "counts": [10 * 50 + 10, 20, 30, 20, 50 * 64 - 580]}
    forms = {
        "no mask": [
            (None, "it has no segmentation"),
            ([], "it has no segmentation"),
            ([[10, 10, 20, 20]], "three points at least"),
            ({"size": [64, 50], "counts": [3200]}, "50x64 in an image of 64x50"),
            ({"size": [50, 64], "counts": "n`7"}, "cover 7710 pixels of 64x50 = 3200"),
            (rectangle(40, 10, 20, 20), "from 40, 10, 60, 30 (x1 y1 x2 y2), lies outside"),
        ],
        "mask cut": [(rectangle(5, 10, 20, 20), "from 5, 10, 25, 30 (x1 y1 x2 y2), leaves it")],
        "": [(good, ""), (runs, "")],
    }
    rows = [(form, what, detail) for what, some in forms.items() for form, detail in some]
    annotations = [annotation(i, bbox=box, segmentation=row[0]) for i, row in enumerate(rows, 1)]
    source = CocoSource(write(tmp_path, content(*annotations)))
    example = source[0]
    assert len(example.boxes) == len(rows) and source.has_masks
    assert example.masks == tuple(None if what == "no mask" else form for form, what, _ in rows)
    assert example.official.masks[:5] == (None,) * 5
    assert example.official.masks[5:] == tuple(row[0] for row in rows[5:])
    wanted = [(what, detail) for _, what, detail in rows if what]
    for defect, (what, detail) in zip(source.defects, wanted, strict=True):
        assert defect.what == what and detail in defect.detail
        assert defect.detail.startswith("object 10, 10, 20, 20 (x y width height): ")
    assert source.describe().endswith("defects: 1 mask cut, 6 no mask")
    without = CocoSource(write(tmp_path, content(annotation(1), annotation(2, segmentation=[]))))
    assert not without.has_masks and without.defects == [] and without[0].masks is None


def test_ground_truth_stays_as_the_file_has_it(tmp_path):
    boxes = [(-3.5, 2, 20.1, 7), (10.1, 5, 0, 3), (0.3, 0.1, 0.2, 9), (63, 40, 9, 9)]
    data = content(
        *(annotation(i + 1, bbox=box, area=1024.00003) for i, box in enumerate(boxes)),
        annotation(5, bbox=(1, 2, -3, 4), segmentation=rectangle(1, 2, 3, 4)),
        annotation(6, image_id=9, bbox=(0.1, 0.2, 0.3, 0.7), iscrowd=1),
        images=(7, 10, 9),
    )
    source = CocoSource(write(tmp_path, data))
    official = source[0].official
    assert official.xywh.tolist() == [list(box) for box in [*boxes, (1, 2, -3, 4)]]
    assert official.areas.tolist() == [1024.00003] * 4 + [-12]
    assert official.xywh.dtype == official.areas.dtype == np.float64
    assert official.masks == (None,) * 4 + (rectangle(1, 2, 3, 4),)
    assert source[0].masks == (None,) * 3
    assert source[0].boxes[0].tolist() == [0, 2, np.float32(16.6), 9]  # training: clipped
    assert source[2].official.areas.tolist() == [0.3 * 0.7] and source[2].official.ignore.all()
    assert [source[i].official.rank for i in range(3)] == [0, 2, 1]  # pycocotools sorts the ids
    bare = source[0].without_masks()
    assert bare.masks is None and bare.official.masks is None


def test_given_classes(tmp_path):
    data = content(annotation(1), categories=((0, "animals"), (3, "cat")))
    path = write(tmp_path, data)
    assert CocoSource(path).class_names == ("animals", "cat")
    source = CocoSource(path, classes=("cow", "cat"))  # drops the unused category 0
    assert source.class_names == ("cow", "cat") and source[0].labels.tolist() == [1]
    assert source.category_ids == (4, 3)
    with pytest.raises(
        DataError, match=r"annotation 1: class 'cat' .*\(cats\), did you mean 'cats'"
    ):
        CocoSource(path, classes=("cats",))


@pytest.mark.parametrize(
    "folder, name",
    [
        ("images", "instances_train.json"),
        ("val2017", "instances_val2017.json"),
        ("images/val2017", "instances_val2017.json"),
        ("annotations", "_annotations.coco.json"),
        ("annotations/images", "labels.json"),
        ("data", "labels.json"),
        ("photos/2024/train", "instances_train.json"),
    ],
)
def test_images_are_found(tmp_path, folder, name):
    source = CocoSource(write(tmp_path, content(annotation(1)), folder, name))
    assert Path(source[0].image) == tmp_path / folder / "7.jpg"


def test_images_in_a_given_folder(tmp_path):
    path = write(tmp_path / "set", content(annotation(1)), "../elsewhere")
    assert CocoSource(path, tmp_path / "elsewhere")[0].image.endswith("elsewhere/7.jpg")
    with pytest.raises(DataError) as error:
        CocoSource(path)
    for place in ("images/train", "7.jpg", "image_root", "python data/get_coco.py"):
        assert place in str(error.value)
    with pytest.raises(DataError, match="image_root .*nowhere is missing; it should hold 7.jpg"):
        CocoSource(path, tmp_path / "nowhere")


def test_images_anywhere_below_are_those_of_the_split(tmp_path):
    """Of the same name in several folders; what is as likely in two is not guessed."""
    for split in ("train", "val"):
        path = write(tmp_path, content(annotation(1)), f"photos/{split}/x", f"{split}.json")
        assert Path(CocoSource(path)[0].image) == tmp_path / "photos" / split / "x" / "7.jpg"
    path = write(tmp_path, content(annotation(1)), "photos/more", "set.json")
    with pytest.raises(DataError, match="its images .* are in none of"):
        CocoSource(path)
    with pytest.raises(DataError, match="'7.jpg' may be any of more/7.jpg, train/x/7.jpg"):
        CocoSource(path, tmp_path / "photos")


def test_missing_image(tmp_path):
    path = write(tmp_path, content(annotation(1), annotation(2, image_id=8), images=(7, 8)))
    (tmp_path / "images" / "7.jpg").unlink()
    with pytest.raises(DataError, match=r"instances_train.json: image 7: .*7.jpg is missing"):
        CocoSource(path)
    source = CocoSource(path, on_error="skip")
    assert source.image_ids == (8,) and len(source[0].boxes) == 1
    assert [(d.id, d.what) for d in source.defects] == [("7", "skipped")]


def test_missing_size_is_read_from_the_image(tmp_path):
    data = content(annotation(1, bbox=(0, 0, 100, 100)))
    del data["images"][0]["width"]
    source = CocoSource(write(tmp_path, data))
    assert source.image_size(0) == (50, 64) and source[0].boxes.tolist() == [[0, 0, 64, 50]]


@pytest.mark.parametrize(
    "data, message",
    [
        (content(annotation(1), images=(7, 8, 7)), "`images` uses these ids twice: 7"),
        (content(categories=((1, "a"), (1, "b"))), "`categories` uses these ids twice: 1"),
        (
            content(
                *(annotation(i, category_id=i) for i in (1, 2)), categories=((1, "a"), (2, "a"))
            ),
            "classes named twice: 'a'",
        ),
        (content(categories=((None, "a"),)), r"categories\[0\] has the id None"),
        (content(categories=((1, None),)), "a class is named None"),
        (content(annotation(1, image_id=99)), "annotation 1 belongs to image 99"),
        (content(annotation(1, category_id=2)), r"annotation 1 has category 2; .* \[1, 3\]"),
        (content(annotation(1, bbox=(1, 2, 3))), r"annotation 1 has the bbox \[1, 2, 3\]"),
        (
            content(annotation(1, bbox=(1, 2, 3, 4, 5))),
            r"has the bbox \[1, 2, 3, 4, 5\].* four numbers",
        ),
        (content(annotation(1, bbox=(1, 2, 3, "x"))), "expected four numbers, x y width height"),
        (content(annotation(1, area="big")), "the area 'big'"),
        (content({"id": 1}), r"annotations\[0\] has no `image_id`, `category_id`"),
        (
            content({"image_id": 7, "category_id": 3}),
            r"annotations\[0\] has the bbox None .* expected four numbers",
        ),
        (content(annotation(1) | {"bbox": "1234"}), "has the bbox '1234' .* expected four numbers"),
        (content(annotation(1, iscrowd="perhaps")), "iscrowd of annotation 1 is 'perhaps'"),
        (
            content(annotation(1, bbox=(), segmentation=[["x", 1]])),
            "annotation 1 has no bbox, and a segmentation that has none",
        ),
        (content(images=()), "`images` is empty"),
        ({"images": [], "annotations": {}, "categories": []}, "has no list `annotations`"),
        ([], "has no list `images`"),
    ],
)
def test_files_that_contradict_themselves(tmp_path, data, message):
    good = write(tmp_path, content(annotation(1)))
    path = good.with_name("bad.json")
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match=message) as error:
        CocoSource(path)
    assert "bad.json" in str(error.value)


def test_files_that_are_not_json(tmp_path):
    path = tmp_path / "bad.json"
    with pytest.raises(DataError, match=r"bad.json is missing. .*python data/get_coco.py"):
        CocoSource(path)
    path.write_text('{"images": [\n1, }')
    with pytest.raises(DataError, match=r"bad.json, line 2, column 4: not JSON"):
        CocoSource(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="bad.json"):
        CocoSource(path)
    path.write_text("[" * 100_000)
    with pytest.raises(DataError, match="bad.json"):
        CocoSource(path)
