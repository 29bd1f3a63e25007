"""Files of one name in several folders: none gets the labels, or the images, of another."""

import pytest

from jdet import build
from jdet.data.discover import all_splits, discover
from jdet.data.layouts.path_index import PathIndex
from jdet.data.layouts.tables import CsvSource
from jdet.data.layouts.via import ViaSource
from jdet.data.layouts.yolo import YoloSource
from jdet.data.sources.coco import CocoSource
from jdet.types import DataError
from tests.data.layouts.yolo_folders import image, text


def images(root, *paths):
    for path in paths:
        image(root, path)


def below(source, root):
    """Image below the folder → its boxes."""
    return {
        str(source[index].image)[len(str(root)) + 1 :]: source[index].boxes.tolist()
        for index in range(len(source))
    }


def coco(names):
    return {
        "categories": [{"id": 1, "name": "cat"}],
        "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [i, i, 5, 5], "iscrowd": 0}
            for i in range(len(names))
        ],
    }


def csv(names):
    lines = (f"{name},{i},{i},{i + 5},{i + 5},cat" for i, name in enumerate(names))
    return "\n".join(["filename,xmin,ymin,xmax,ymax,class", *lines]) + "\n"


@pytest.mark.parametrize("other", ["a/a2.png", "c/a2.png"], ids=["folder", "no_folder"])
def test_a_missing_image_is_not_one_of_another_folder(tmp_path, other):
    """Whether there is the folder of the missing one, or only the other image is named exactly."""
    names = ("a/a1.png", "b/a1.png", other)
    images(tmp_path, *names[1:])
    text(tmp_path, "labels.json", coco(names))
    text(tmp_path, "labels.csv", csv(names))
    wanted = {"b/a1.png": [[1, 1, 6, 6]], other: [[2, 2, 7, 7]]}
    for kind, name in ((CocoSource, tmp_path / "labels.json"), (CsvSource, tmp_path)):
        source = kind(name, on_error="skip")
        assert below(source, tmp_path) == wanted
        (defect,) = source.defects
        assert defect.what == "skipped"
        with pytest.raises(DataError, match=r"a/a1.png"):
            kind(name)


def test_the_folder_that_is_written_is_meant_where_it_exists():
    index = PathIndex(["a/2.png", "b/1.png", "c/deep/1.png", "c/2.png", "D/1.PNG"])
    for name, found in [
        ("a/1.png", ""),
        ("/content/a/1.png", ""),
        ("c\\1.png", "c/deep/1.png"),
        ("d/1.png", "D/1.PNG"),
        ("/content/b/1", "b/1.png"),
    ]:
        assert index.find(name, "labels") == found


def test_an_image_without_labels_gets_none_of_another_folder(tmp_path):
    """Those in the place of another image, or that of one which is missing, are not its."""
    images(tmp_path, "cam1/images/a1.png", "cam1/images/a2.png", "cam1/images/a3.png")
    images(tmp_path, "cam2/images/a1.png", "cam2/images/a4.png")
    for label in ("cam2/labels/a1", "cam2/labels/a2", "cam1/labels/deep/a3", "cam2/labels/a4"):
        text(tmp_path, f"{label}.txt", "0 0.5 0.5 0.5 0.5\n")
    source = YoloSource(tmp_path, on_error="skip")
    assert {name: len(boxes) for name, boxes in below(source, tmp_path).items()} == {
        **{"cam1/images/a1.png": 0, "cam1/images/a2.png": 0, "cam1/images/a3.png": 1},
        **{"cam2/images/a1.png": 1, "cam2/images/a4.png": 1},
    }
    assert [defect.id for defect in source.defects] == ["cam2/labels/a2.txt"]


@pytest.mark.parametrize("place", ["../{}/images", "/content/set/{}/images"])
def test_a_split_is_never_all_images(tmp_path, place):
    images(tmp_path, "images/train/a.png", "images/val/b.png")
    text(tmp_path, "labels/train/a.txt", "0 0.5 0.5 0.5 0.5\n")
    train, val = place.format("train"), place.format("valid")
    text(tmp_path, "data.yaml", f"train: {train}\nval: {val}\nnames: [cat]\n")
    with pytest.raises(DataError, match=f"data.yaml: train is '{train}'"):
        YoloSource(tmp_path, "train")
    train, val = (f"/home/me/training/images/{split}" for split in ("train", "val"))
    text(tmp_path, "data.yaml", f"train: {train}\nval: {val}\nnames: [cat]\n")
    for split, name in (("train", "images/train/a.png"), ("val", "images/val/b.png")):
        assert list(below(YoloSource(tmp_path, split), tmp_path)) == [name]


def test_the_split_of_a_table_says_which_image(tmp_path):
    images(tmp_path, "train/a1.png", "val/a1.png", "train/a2.png")
    for split, names in (("train", ["a1.png", "a2.png"]), ("val", ["a1.png", "a2.png"])):
        text(tmp_path, f"{split}.csv", csv(names))
    assert sorted(below(CsvSource(tmp_path, "train"), tmp_path)) == ["train/a1.png", "train/a2.png"]
    source = CsvSource(tmp_path, "val", on_error="skip")
    assert list(below(source, tmp_path)) == ["val/a1.png"] and len(source.defects) == 1


def test_a_table_of_a_split_without_a_folder_takes_what_there_is(tmp_path):
    images(tmp_path, "train/a1.png", "train/a2.png")
    text(tmp_path, "train.csv", csv(["a1.png"]))
    text(tmp_path, "val.csv", csv(["a2.png"]))
    assert list(below(CsvSource(tmp_path, "val"), tmp_path)) == ["train/a2.png"]


def test_the_splits_of_via_are_those_of_its_images(tmp_path):
    images(tmp_path, "train/a.png", "val/b.png")
    region = {
        "shape_attributes": {"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4},
        "region_attributes": {"class": "cat"},
    }
    names = ("train/a.png", "val/b.png")
    text(tmp_path, "via.json", {n: {"filename": n, "regions": [region]} for n in names})
    assert discover(tmp_path) == ("via", "train", "val")
    shape, sides = all_splits(tmp_path)
    assert (shape, sorted(sides)) == ("via", ["train", "val"])
    assert list(below(ViaSource(tmp_path, "val"), tmp_path)) == ["val/b.png"]
    assert build.folder_group("via", str(tmp_path), "val").split == "val"
