"""Folders of VOC shape in which something is missing or cannot be read."""

import pytest

from jdet.data.sources.voc import VocSource
from jdet.data.sources.voc_annotation import read_annotation
from jdet.types import ConfigError, DataError
from tests.data.sources.test_voc import annotation_xml, make_folder, object_xml, simple


def test_missing_folder_says_what_to_do(tmp_path):
    with pytest.raises(DataError) as error:
        VocSource(tmp_path / "nowhere", "07+12")
    for part in ("VOCdevkit/VOC2007", "python data/get_voc.py --root", "nowhere", "data/README.md"):
        assert part in str(error.value)
    with pytest.raises(DataError, match=r"looked at nowhere, nowhere/VOCdevkit\. Download"):
        VocSource("nowhere", "train")


def test_missing_image_or_annotation(tmp_path):
    text = annotation_xml(object_xml())
    root = make_folder(tmp_path, {"train": ["a", "b", "c"]}, {"a": text, "b": text, "c": text})
    (root / "JPEGImages" / "a.jpg").unlink()
    with pytest.raises(DataError, match="split 'train' of .* names 'a', but .*JPEGImages has no"):
        VocSource(root, "train")
    (root / "Annotations" / "b.xml").unlink()
    source = VocSource(root, "train", on_error="skip")
    assert [source[i].id for i in range(len(source))] == ["c"]
    assert [(d.id, d.what) for d in source.defects] == [("a", "skipped"), ("b", "skipped")]
    assert "b.xml is missing" in source.defects[1].detail
    assert "defects: 2 skipped" in source.describe()
    (root / "JPEGImages" / "c.jpg").unlink()
    with pytest.raises(DataError, match="none of its 3 images can be used: a: "):
        VocSource(root, "train", on_error="skip")


LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>'
    "<annotation><object><name>&b;</name></object></annotation>"
)


@pytest.mark.parametrize(
    "text, message",
    [
        ("<annotation>\n<object></annotation>", r"a.xml, line 2, column \d+: not XML: mismatched"),
        ("", "not XML: no element found"),
        ("\x00\x01", "not XML"),
        (LAUGHS, "declares a document type"),
        (LAUGHS.encode("utf-16"), "declares a document type"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "declares a document type"),
        ("<a>&b;</a>", "undefined entity"),
        ('<?xml version="1.0" encoding="nonsense"?><a/>', "a.xml"),
        (annotation_xml(object_xml(name=" ")), "no <name>"),
        (annotation_xml("<object><name>cat</name></object>"), "'cat' has no <bndbox>"),
        (annotation_xml(object_xml(box=("1", "1", "x", "3"))), "<bndbox> has xmax 'x'"),
        (annotation_xml(object_xml(box=("1", "1", "nan", "3"))), "<bndbox> has xmax 'nan'"),
        (annotation_xml(size=("1", "inf")), "<size> has width 'inf'"),
    ],
)
def test_annotations_that_cannot_be_read(tmp_path, text, message):
    good = annotation_xml(object_xml())
    root = make_folder(tmp_path, {"train": ["a", "b"]}, {"a": good, "b": good})
    path = root / "Annotations" / "a.xml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message):
        VocSource(root, "train", ["cat"])
    with pytest.raises(DataError, match="a.xml"):
        read_annotation(path)
    source = VocSource(root, "train", on_error="skip")
    assert [source[i].id for i in range(len(source))] == ["b"]
    assert [(d.id, d.what) for d in source.defects] == [("a", "skipped")]


def test_empty_split_and_missing_images_folder(tmp_path):
    root = simple(tmp_path, object_xml())
    (root / "ImageSets" / "Main" / "none.txt").write_text("\n\n")
    with pytest.raises(DataError, match="none.txt lists no images"):
        VocSource(root, "none")
    with pytest.raises(ConfigError, match="on_error='ignore'.*'raise' or 'skip'"):
        VocSource(root, "train", on_error="ignore")
    (root / "JPEGImages").rename(root / "Pictures")
    with pytest.raises(DataError, match="JPEGImages: cannot list the images"):
        VocSource(root, "train")


def test_image_without_a_readable_size(tmp_path):
    text = annotation_xml(object_xml(), size=(0, 0))
    root = make_folder(tmp_path, {"train": ["a"]}, {"a": text})
    (root / "JPEGImages" / "a.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"a.jpg: cannot read the image's size"):
        VocSource(root, "train")
