"""Evaluation images that are training images as well."""

import shutil

from jdet.data.sources.coco import CocoSource
from jdet.data.sources.part import Part
from jdet.data.sources.repeated import repeated_images, warning
from jdet.data.sources.shapes import ShapesSource
from jdet.data.sources.voc import VocSource
from tests.data.sources.test_coco import annotation, content, write
from tests.data.sources.test_voc import annotation_xml, make_folder, object_xml


def test_lists_that_name_an_image_twice(tmp_path):
    texts = dict.fromkeys("abc", annotation_xml(object_xml()))
    root = make_folder(
        tmp_path / "set", {"train": ["a", "b"], "val": ["b", "c"], "test": ["c"]}, texts
    )
    for name in "abc":  # no copies of each other
        (root / "JPEGImages" / f"{name}.jpg").write_bytes(name.encode())
    (tmp_path / "link").symlink_to(root)
    train = VocSource(root, "train")
    assert repeated_images(train, VocSource(root, "val")) == [f"{root}/JPEGImages/b.jpg"]
    assert repeated_images(train, VocSource(tmp_path / "link", "val")) == [
        f"{tmp_path}/link/JPEGImages/b.jpg"
    ]
    assert repeated_images(train, VocSource(root, "test")) == []
    assert warning(train, VocSource(root, "test")) == ""
    text = warning(train, VocSource(root, "val"))
    assert text.startswith("1 of 2 images for evaluation") and "JPEGImages/b.jpg)" in text


def test_copies(tmp_path):
    train = CocoSource(write(tmp_path / "train", content(annotation(1), images=(7, 8, 9))))
    shutil.copytree(tmp_path / "train", tmp_path / "val")
    images = tmp_path / "val" / "images"
    (images / "7.jpg").write_bytes((images / "7.jpg").read_bytes()[:-1] + b"x")  # as large
    (images / "8.jpg").write_bytes(b"")
    val = CocoSource(tmp_path / "val" / "annotations" / "instances_train.json")
    assert repeated_images(train, val) == [str(images / "9.jpg")]


def test_copies_under_other_names(tmp_path):
    """A held-out part of a folder is compared as well."""
    train = CocoSource(write(tmp_path, content(annotation(1), images=(7, 8, 9))))
    for name, text in (("7", b"one"), ("8", b"one"), ("9", b"two")):
        (tmp_path / "images" / f"{name}.jpg").write_bytes(text)
    first, second, third = (Part(train, str(i).__eq__, places=[i]) for i in range(3))
    assert repeated_images(first, second) == [second.image_paths[0]]
    assert repeated_images(first, third) == []
    assert "1 of 1 images for evaluation" in warning(first, second)


def test_images_that_are_no_files():
    source = ShapesSource(count=3)
    assert repeated_images(source, source) == []
