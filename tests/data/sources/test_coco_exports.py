"""COCO files as other tools write them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from jdet.data.sources.coco import CocoSource
from jdet.types import DataError
from tests.data.sources.test_coco import annotation, content, write


def rewritten(path, data, **changes):
    """The file again with other fields in its only image."""
    data["images"][0].update(changes)
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize(
    "name",
    [
        "images\\7.jpg",
        "7.JPG",
        "7",
        "images/7.jpg",
        "C:\\data\\set\\images\\7.jpg",
        "/home/me/set/7.jpg",
        "/data/local-files/?d=set%2Fimages%2F7.jpg",
        "http://localhost:8080/data/upload/1/7.jpg",
        "./7.jpg",
    ],
)
@pytest.mark.parametrize("given", [True, False])
def test_names_of_images(tmp_path, name, given):
    data = content(annotation(1))
    path = rewritten(write(tmp_path, data), data, file_name=name)
    source = CocoSource(path, tmp_path / "images" if given else None)
    assert Path(source[0].image).samefile(tmp_path / "images" / "7.jpg")


def test_names_with_accents_from_another_file_system(tmp_path):
    data = content(annotation(1))
    path = rewritten(write(tmp_path, data), data, file_name="v\u00e9lo.jpg")
    shutil.move(tmp_path / "images" / "7.jpg", tmp_path / "images" / "ve\u0301lo.jpg")
    assert len(CocoSource(path)) == 1


def test_two_images_do_not_become_one(tmp_path):
    data = content(annotation(1), images=(7, 8))
    path = write(tmp_path, data)
    for image, name in zip(data["images"], ("a/7.jpg", "b/7.jpg")):
        image["file_name"] = name
    path.write_text(json.dumps(data))
    with pytest.raises(
        DataError, match=r"image 8: .*b/7.jpg is missing; .*7.jpg is image 7 already"
    ):
        CocoSource(path, tmp_path / "images")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "gbk"])
def test_encodings(tmp_path, encoding):
    data = content(annotation(1), categories=((3, "汽车"),))
    path = write(tmp_path, data)
    path.write_text(json.dumps(data, ensure_ascii=False), encoding=encoding)
    assert CocoSource(path).class_names == ("汽车",)


def test_ids_as_text(tmp_path):
    data = content(
        annotation("x", image_id="7", category_id="0"),
        annotation(None, image_id=7.0, category_id="1"),
        annotation(5, category_id=1),
        annotation(5, image_id="eight"),
        images=(7, "eight"),
        categories=((0, "cat"), ("1", "dog"), (3.0, "cow")),
    )
    del data["annotations"][1]["id"]
    source = CocoSource(write(tmp_path, data))
    assert source.class_names == ("cat", "dog", "cow") and source.category_ids == (0, "1", 3)
    assert source[0].labels.tolist() == [0, 1, 1] and source.image_ids == (7, "eight")
    assert [source[i].official.rank for i in range(2)] == [0, 1]


def test_an_unknown_category_is_told_from_the_listed_ones(tmp_path):
    path = write(tmp_path, content(annotation(1, category_id="x")))
    with pytest.raises(DataError, match=r"annotation 1 has category 'x'; .* lists \[1, 3\]"):
        CocoSource(path)


def roboflow(*annotations):
    data = content(*annotations)
    data["categories"] = [
        {"id": 0, "name": "cat", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "cat"},
        {"id": 2, "name": "dog", "supercategory": "cat"},
    ]
    return data


@pytest.mark.parametrize("annotations", [(annotation(1, category_id=1),), ()])
def test_a_group_with_the_name_of_its_class(tmp_path, annotations):
    source = CocoSource(write(tmp_path, roboflow(*annotations)))
    assert source.class_names == ("cat", "dog") and source.category_ids == (1, 2)
    assert source[0].labels.tolist() == [0] * len(annotations)


def test_of_two_categories_of_one_name_the_used_one_stays(tmp_path):
    data = content(annotation(1, category_id=1), categories=((1, "cat"), (2, "cat ")))
    assert CocoSource(write(tmp_path, data)).category_ids == (1,)


def test_class_names_are_text_on_a_line(tmp_path):
    data = content(annotation(1), categories=((1, "cat\n"), (3, 5), (4, 2.0)))
    path = write(tmp_path, data)
    assert CocoSource(path).class_names == ("cat", "5", "2")
    assert CocoSource(path, classes=(5, "cat")).class_names == ("5", "cat")


def test_crowds_in_words(tmp_path):
    words = ("0", "false", "1", None, 0.0, "True")
    data = content(*(annotation(i, iscrowd=word) for i, word in enumerate(words)))
    path = write(tmp_path, data)
    assert CocoSource(path)[0].ignore.tolist() == [0, 0, 1, 0, 0, 1]
    assert len(CocoSource(path, keep_crowd=False)[0].boxes) == 4


MASK = np.zeros((50, 64), np.uint8, order="F")
MASK[2:22, 1:11] = 1
RLE = coco_mask.encode(MASK)
COUNTS = np.diff([0, *np.flatnonzero(np.diff(MASK.ravel(order="F"))) + 1, MASK.size]).tolist()


@pytest.mark.parametrize(
    "segmentation",
    [
        [[1, 2, 11, 2, 11, 22]],
        [1, 2, 11, 2, 11, 22],
        [[1, 2, 3, 4, 3, 2], [8, 8, 11, 8, 11, 22]],
        {"size": [50, 64], "counts": RLE["counts"].decode()},
        {"size": [50, 64], "counts": COUNTS},
    ],
)
@pytest.mark.parametrize("bbox", [None, []])
def test_box_around_a_segmentation(tmp_path, segmentation, bbox):
    record = {"image_id": 7, "category_id": 3, "segmentation": segmentation}
    data = content(record if bbox is None else record | {"bbox": bbox})
    assert CocoSource(write(tmp_path, data))[0].boxes.tolist() == [[1, 2, 11, 22]]


@pytest.mark.parametrize(
    "height, width", [("50", "64.0"), (50.0, 64), (None, ""), (0, 0), (-1, -1)]
)
def test_sizes(tmp_path, height, width):
    data = content(annotation(1))
    path = rewritten(write(tmp_path, data), data, height=height, width=width)
    assert CocoSource(path).image_size(0) == (50, 64)
    with pytest.raises(DataError, match="image 7: the height is 'tall'; expected pixels"):
        CocoSource(rewritten(path, data, height="tall"))


def test_the_home_folder(tmp_path, monkeypatch):
    write(tmp_path, content(annotation(1)))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(CocoSource("~/annotations/instances_train.json")) == 1
    assert len(CocoSource("~/annotations/instances_train.json", "~/images")) == 1
