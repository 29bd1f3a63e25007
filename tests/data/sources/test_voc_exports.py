"""Folders of VOC shape as other tools write them."""

import re

import cv2
import numpy as np
import pytest

from jdet.data.find_images import SUFFIXES
from jdet.data.sources.voc import VocSource, voc_to_xyxy
from jdet.data.sources.voc_files import VOC_CLASSES
from jdet.types import ConfigError, DataError
from tests.data.sources.test_voc import annotation_xml, make_folder, object_xml, simple


def names(source):
    return [source.class_names[label] for i in range(len(source)) for label in source[i].labels]


@pytest.mark.parametrize(
    "text, expected",
    [
        (
            annotation_xml(object_xml()).replace("<annotation>", '<annotation xmlns="http://a/b">'),
            "cat",
        ),
        (
            f"\n<?xml version='1.1' encoding='utf-16' standalone='maybe'?>{annotation_xml(object_xml())}",
            "cat",
        ),
        (annotation_xml(f"<objects>{object_xml()}</objects>"), "cat"),
        (re.sub(r"<(width|height)>(\d+)<", r"<\1>\2.0<", annotation_xml(object_xml())), "cat"),
        (annotation_xml(object_xml()).replace("bndbox", "bndBox"), "cat"),
        (annotation_xml(object_xml("汽车")).encode("gbk"), "汽车"),
        (
            (
                b'<?xml version="1.0" encoding="gb2312"?>'
                + annotation_xml(object_xml("汽车")).encode("gbk")
            ),
            "汽车",
        ),
        (annotation_xml(object_xml("vélo")).encode("latin-1"), "vélo"),
        (annotation_xml(object_xml("vélo")).encode("utf-16"), "vélo"),
        (annotation_xml(object_xml("big\n  cat\n")), "big cat"),
    ],
)
def test_annotations_of_other_tools(tmp_path, text, expected):
    """All in one folder with a plain one: neither half of the images nor a class is lost."""
    root = make_folder(
        tmp_path, {"train": ["a", "b"]}, dict.fromkeys("ab", annotation_xml(object_xml("dog")))
    )
    (root / "Annotations" / "a.xml").write_bytes(text if isinstance(text, bytes) else text.encode())
    source = VocSource(root, "train")
    assert names(source) == [expected, "dog"] and source[0].boxes.tolist() == [[9, 19, 30, 40]]


@pytest.mark.parametrize(
    "points",
    [
        "<x1>10</x1><y1>40</y1><x2>30</x2><y2>20</y2><x3>15</x3><y3>25</y3>",
        "<pt><x>10</x><y>40</y></pt><pt><x>30</x><y>20</y></pt>",
    ],
)
def test_box_around_a_polygon(tmp_path, points):
    object = f"<object><name>cat</name><polygon>{points}</polygon></object>"
    assert VocSource(simple(tmp_path, object), "train")[0].boxes.tolist() == [[9, 19, 30, 40]]


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "<annotations><image/></annotations>",
            "is no VOC annotation: it begins with <annotations>",
        ),
        (
            annotation_xml(object_xml(difficult="perhaps")),
            "<difficult> of object 'cat' is 'perhaps'",
        ),
        (annotation_xml("<object><name>cat</name><polygon/></object>"), "<polygon> without points"),
    ],
)
def test_annotations_that_say_nothing(tmp_path, text, message):
    root = make_folder(tmp_path, {"train": ["a"]}, {"a": text})
    with pytest.raises(DataError, match=rf"a\.xml: .*{message}"):
        VocSource(root, "train", ["cat"])


def test_difficult_in_words(tmp_path):
    objects = [object_xml(difficult=d) for d in ("false", "True", "0", "1", "Unspecified", "")]
    assert VocSource(simple(tmp_path, *objects), "train")[0].ignore.tolist() == [0, 1, 0, 1, 0, 0]


@pytest.mark.parametrize(
    "entry",
    [
        "p1", "p1.jpg", "p1.xml", "JPEGImages/p1.jpg", "/home/me/set/JPEGImages/p1.jpg",
        "C:\\set\\p1.jpg", "VOC/JPEGImages/p1.jpg VOC/Annotations/p1.xml", "p1.jpg  1", "p1.JPG",
    ],
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_lists_of_other_tools(tmp_path, entry, encoding):
    text = annotation_xml(object_xml())
    root = make_folder(tmp_path, {}, {"p1": text, "p2": text})
    list = root / "ImageSets" / "Main" / "train.txt"
    list.write_text(f"{entry}\r\n{entry.replace('p1', 'p2')}\r\n", encoding=encoding)
    source = VocSource(root, "train")
    assert source.ids == ("p1", "p2") and source[1].image.endswith("p2.jpg")


def test_names_that_end_like_extensions(tmp_path):
    text = annotation_xml(object_xml())
    root = make_folder(tmp_path, {"train": ["p1.jpg", "p1"]}, {"p1.jpg": text, "p1": text})
    source = VocSource(root, "train")
    assert [source[i].image.rpartition("/")[2] for i in range(2)] == ["p1.jpg.jpg", "p1.jpg"]


def test_subfolders(tmp_path):
    text = annotation_xml(object_xml())
    root = make_folder(tmp_path, {"default": ["day/p1", "night/p1", "p2"]}, {"a": text})
    for name in ("day/p1", "night/p1", "day/p2"):
        for folder, old, new in (("Annotations", "a.xml", ".xml"), ("JPEGImages", "a.jpg", ".jpg")):
            path = root / folder / (name + new)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes((root / folder / old).read_bytes())
    source = VocSource(root, "default")
    assert source.ids == ("day/p1", "night/p1", "day/p2")
    assert source[1].image == str(root / "JPEGImages/night/p1.jpg")


def test_images_where_label_studio_puts_them(tmp_path):
    root = simple(tmp_path, object_xml())
    (root / "JPEGImages").rename(root / "images")
    assert VocSource(root, "train")[0].image == str(root / "images" / "a.jpg")


def test_every_format_that_prediction_reads(tmp_path):
    text = annotation_xml(object_xml())
    root = make_folder(tmp_path, {"train": [s[1:] for s in SUFFIXES]}, {"a": text})
    for suffix in SUFFIXES:
        (root / "Annotations" / f"{suffix[1:]}.xml").write_text(text)
        (root / "JPEGImages" / (suffix[1:] + suffix)).write_bytes(b"")
    assert len(VocSource(root, "train")) == len(SUFFIXES)


def test_names_from_another_file_system(tmp_path):
    root = make_folder(
        tmp_path, {"train": ["v\u00e9lo"]}, {"ve\u0301lo": annotation_xml(object_xml())}
    )
    assert len(VocSource(root, "train")) == 1


def test_own_classes_in_a_folder_named_like_a_year(tmp_path):
    root = tmp_path / "VOCdevkit" / "VOC2007"
    text = annotation_xml(object_xml("zebra"))
    make_folder(root, {"train": ["000001"], "val": ["000002"]}, {"000001": text, "000002": text})
    assert VocSource(tmp_path, "train").class_names == ("zebra",)
    (root / "Annotations" / "000001.xml").write_text(annotation_xml(object_xml("dog")))
    (root / "Annotations" / "000002.xml").write_text(annotation_xml(object_xml("cat")))
    assert VocSource(tmp_path, "2007:val").class_names == VOC_CLASSES


def test_where_the_folder_may_lie(tmp_path, monkeypatch):
    simple(tmp_path / "set", object_xml())
    monkeypatch.setenv("HOME", str(tmp_path))
    for root in (tmp_path, "~", "~/set"):
        assert len(VocSource(root, "train")) == 1
    simple(tmp_path / "other", object_xml())
    with pytest.raises(
        DataError, match=r"holds other, set; name one of them, such as .*/other, as"
    ):
        VocSource(tmp_path, "train")
    with pytest.raises(DataError, match="^/nowhere does not exist: no VOC folder"):
        VocSource("/nowhere", "train")


def test_files_that_count_from_0(tmp_path):
    whole = (0, 0, 63, 49)
    assert voc_to_xyxy(np.array(whole), "from_0").tolist() == [0, 0, 64, 50]
    root = simple(tmp_path, object_xml(box=(0, 0, 64, 50)), object_xml(box=(5, 5, 9, 9)))
    source = VocSource(root, "train", coordinates="edges")
    assert source[0].boxes.tolist() == [[0, 0, 64, 50], [5, 5, 9, 9]] and not source.defects
    assert source[0].official.xywh.tolist() == [[0, 0, 64, 50], [5, 5, 4, 4]]
    assert "begin at 0" not in source.describe()
    hint = VocSource(root, "train").describe()
    assert "1 boxes begin at 0" in hint and "--config.data.train.coordinates" in hint
    with pytest.raises(
        ConfigError, match="coordinates='from_2'; it must be one of from_1, from_0, edges"
    ):
        VocSource(root, "train", coordinates="from_2")


def test_an_empty_images_folder_names_the_first_image(tmp_path):
    root = simple(tmp_path, object_xml())
    (root / "JPEGImages" / "a.jpg").unlink()
    with pytest.raises(DataError, match="names 'a', but .*JPEGImages has no image a"):
        VocSource(root, "train")
    cv2.imwrite(str(root / "JPEGImages" / "._a.jpg"), np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(DataError, match="JPEGImages has no image a"):
        VocSource(root, "train")
