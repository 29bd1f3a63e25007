"""What lies beside labels is not taken for some, and images that are left out are counted."""

import logging

import pytest

from jdet.convert.convert import convert
from jdet.data.discover import Found, discover
from jdet.data.layouts.cvat import CvatSource
from jdet.data.layouts.labelme import LabelMeSource
from jdet.data.layouts.tables import CsvSource
from jdet.data.layouts.yolo import YoloSource
from jdet.data.readers.settings import ImageSettings
from jdet.types import DataError
from tests.data.layouts import folders
from tests.data.layouts.test_namesakes import below
from tests.data.layouts.yolo_folders import image, text

LINE = "0 0.5 0.5 0.5 0.5\n"


@pytest.mark.parametrize(
    "name, content",
    [
        ("train_labels.csv", "filename,xmin,ymin,xmax,ymax,class\na.png,1,1,9,9,cat\n"),
        ("anchors.txt", "10 13 16 30"),
        ("a.txt", LINE),
    ],
)
def test_xml_files_without_lists_go_first(tmp_path, caplog, name, content):
    for stem in folders.SIZES:
        image(tmp_path, f"train/{stem}.png")
        text(tmp_path, f"train/{stem}.xml", folders.voc_xml(stem))
    text(tmp_path, f"train/{name}", content)
    with caplog.at_level(logging.WARNING):
        assert discover(tmp_path) == Found("voc", "train", None)
    assert ("of another layout are not used" in caplog.text) == (name != "anchors.txt")


def test_a_text_with_numbers_is_no_label(tmp_path):
    image(tmp_path, "a.png")
    text(tmp_path, "anchors.txt", "10 13 16 30")
    with pytest.raises(DataError, match="1 images and no labels"):
        discover(tmp_path)
    text(tmp_path, "labels/other.txt", LINE)
    assert discover(tmp_path).shape == "yolo"


def test_labels_without_images_beside_them(tmp_path):
    image(tmp_path, "pictures/a.png")
    text(tmp_path, "mine/a.txt", LINE)
    assert discover(tmp_path / "mine", "yolo") == Found("yolo", ".", None)


def test_images_that_no_label_names_are_counted(tmp_path):
    """Once, whatever the split; those whose labels are wrong are listed instead."""
    folders.cvat(tmp_path / "cvat")
    folders.labelme(tmp_path / "labelme")
    folders.csv_headerless(tmp_path / "csv")
    text(tmp_path, "labelme/train/a.json", "{")
    for kind, folder in ((CvatSource, "cvat"), (LabelMeSource, "labelme"), (CsvSource, "csv")):
        assert "no label names" not in kind(tmp_path / folder, on_error="skip").describe()
        image(tmp_path, f"{folder}/more/a1.png")
        image(tmp_path, f"{folder}/more/a2.png")
        source = kind(tmp_path / folder, on_error="skip")
        assert "; 2 images that no label names left out" in source.describe()


def test_images_elsewhere_without_a_label_file_have_no_objects(tmp_path):
    for name in ("train/a1", "train/a2", "val/b1", "val/b2", "more/c"):
        image(tmp_path, f"pictures/{name}.png")
    text(tmp_path, "set/labels/train/a1.txt", LINE)
    text(tmp_path, "set/labels/val/b1.txt", "7 wrong")
    for split, stem in (("train", "a"), ("val", "b")):
        source = YoloSource(
            tmp_path / "set", split, image_root=tmp_path / "pictures", on_error="skip"
        )
        names = [name for name, boxes in below(source, tmp_path).items() if not boxes]
        assert names == [f"pictures/{split}/{stem}2.png"] and len(source) == (split == "train") + 1
        assert "2 images without a label file, which have no objects" in source.describe()
        assert "1 images that no label names left out" in source.describe()


def test_several_files_without_a_label_file(tmp_path):
    for name in ("a_rgb", "a_depth", "b_rgb", "b_depth", "c_rgb"):
        image(tmp_path, f"{name}.png")
    text(tmp_path, "a.txt", LINE)
    files = ImageSettings(files="{stem}_rgb.png + {stem}_depth.png", channels="auto")
    source = YoloSource(tmp_path, on_error="skip", image_settings=files)
    found = [[path.rpartition("/")[2] for path in source[i].image] for i in range(len(source))]
    assert found == [["a_rgb.png", "a_depth.png"], ["b_rgb.png", "b_depth.png"]]
    assert [(one.id, one.what) for one in source.defects] == [("c_rgb.png", "skipped")]


def test_a_split_that_is_refused_leaves_nothing(tmp_path):
    folders.yolo_roboflow(tmp_path / "set")
    text(tmp_path, "set/valid/labels/c.txt", "wrong")
    for _ in range(2):
        with pytest.raises(DataError, match="c.txt, line 1"):
            convert(tmp_path / "set", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    text(tmp_path, "set/valid/labels/c.txt", "")
    assert len(convert(tmp_path / "set", tmp_path / "out")) == 2
