"""Folders that something is odd about, and that are read all the same; what is left out is told."""

import logging

import pytest

from jdet import build
from jdet.data.discover import Found, discover, recognise
from jdet.data.layouts import listing
from jdet.types import DataError
from tests.data.layouts import folders
from tests.data.layouts.test_good_folders import found, own
from tests.data.layouts.test_spoiled_folders import delete, edit, move, put, read

FILE = "annotations/instances_default.json"


@pytest.mark.parametrize(
    "write, change",
    [
        (folders.yolo_roboflow, move("train/labels/a.txt", "train/labels/A.txt")),
        (folders.yolo_ultralytics, move("images/train/a.png", "images/train/a.PNG")),
        (folders.csv_headerless, move("pictures/a.png", "pictures/deep/A.Png")),
        (folders.labelme, move("train/a.png", "train/A.PNG")),
        (folders.dota, move("train/images/a.png", "train/A.png")),
        (folders.cvat, move("images/a.png", "images/deeper/a.jpeg")),
        (folders.coco_cvat, move("images/default/a.png", "images/default/monday/a.png")),
        (folders.voc_no_lists, move("JPEGImages/a.png", "JPEGImages/deep/a.png")),
    ],
)
def test_names_that_differ_by_case_folder_or_extension(tmp_path, write, change):
    write(tmp_path)
    change(tmp_path)
    boxes = read(tmp_path)
    key = "A" if "A" in boxes else "a"
    assert boxes[key] == folders.GROUND_TRUTH["a"] and boxes["b"] == folders.GROUND_TRUTH["b"]


@pytest.mark.parametrize("content", ["", "\n\n", None])
def test_images_without_objects(tmp_path, content):
    """A label file that is empty, or missing."""
    folders.yolo_roboflow(tmp_path)
    delete("train/labels/a.txt")(tmp_path)
    if content is not None:
        folders.text(tmp_path, "train/labels/a.txt", content)
    source = build.source(own(tmp_path).data.train, "config.data.train")
    assert len(source) == 2 and found(source) == {"b": folders.GROUND_TRUTH["b"]}
    told = "1 images without a label file, which have no objects"
    assert (told in source.describe()) == (content is None)


def test_nothing_but_empty_labels(tmp_path):
    folders.yolo_label_studio(tmp_path)
    for stem in folders.SIZES:
        (tmp_path / "labels" / f"{stem}.txt").write_text("")
    with pytest.raises(DataError, match="YOLO .*: the 3 training images carry no boxes"):
        own(tmp_path)


@pytest.mark.parametrize(
    "name", ["a2024-05-01", "a2024.05.01", "a 2024-05-01T12:30:00.5", "a.b.txt"]
)
def test_dates_and_dots_in_names(tmp_path, name):
    folders.yolo_roboflow(tmp_path / "yolo")
    move("train/images/a.png", f"train/images/{name}.png")(tmp_path / "yolo")
    move("train/labels/a.txt", f"train/labels/{name}.txt")(tmp_path / "yolo")
    assert sorted(map(len, read(tmp_path / "yolo").values())) == [1, 2]
    folders.open_images(tmp_path / "open")
    move("train/a.png", f"train/{name}.png")(tmp_path / "open")
    edit("train-annotations-bbox.csv", "\na,", f"\n{name},")(tmp_path / "open")
    assert sorted(map(len, read(tmp_path / "open").values())) == [1, 2]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_encodings_and_line_ends(tmp_path, encoding):
    folders.csv_headerless(tmp_path / "csv")
    folders.yolo_roboflow(tmp_path / "yolo")
    for path in [*tmp_path.rglob("*.csv"), *tmp_path.rglob("*.txt"), *tmp_path.rglob("*.yaml")]:
        path.write_text(path.read_text().replace("\n", "\r\n"), encoding=encoding, newline="")
    assert read(tmp_path / "csv") == folders.GROUND_TRUTH
    assert read(tmp_path / "yolo") == {stem: folders.GROUND_TRUTH[stem] for stem in folders.TRAIN}


def test_coordinates_a_little_outside(tmp_path):
    folders.yolo_polygons(tmp_path)
    put("train/labels/a.txt", "0 0.5 0.5 1.004 0.5 1.004 0.9\n")(tmp_path)
    assert read(tmp_path)["a"] == [("cat", (32, 25, 64, 45))]


@pytest.mark.parametrize(
    "write, beside, shape, told",
    [
        (folders.voc_lists, folders.yolo_label_studio, Found("voc", "train", "val"), "yolo"),
        (folders.coco_cvat, folders.labelme, Found("coco", FILE, None), "labelme"),
        (folders.coco_cvat, folders.voc_no_lists, Found("coco", FILE, None), "voc"),
    ],
)
def test_two_layouts_of_which_one_goes_first(tmp_path, caplog, write, beside, shape, told):
    write(tmp_path)
    beside(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert discover(tmp_path) == shape
    assert f"Labels of another layout are not used: {told} (" in caplog.text
    assert f"Say layout={told} for these" in caplog.text
    assert discover(tmp_path, told).shape == told


def test_what_the_system_puts_beside(tmp_path):
    folders.yolo_roboflow(tmp_path)
    for path in (
        "__MACOSX/train/labels/._a.txt",
        "train/labels/.ipynb_checkpoints/a-checkpoint.txt",
    ):
        folders.text(tmp_path, path, "x")
    folders.text(tmp_path, "train/labels/desktop.ini", "[x]")
    assert read(tmp_path) == {stem: folders.GROUND_TRUTH[stem] for stem in folders.TRAIN}


def test_boxes_that_are_none(tmp_path):
    """They are dropped or clipped, and listed, as those of VOC and COCO."""
    folders.csv_headerless(tmp_path)
    edit("annotations.csv", "10,20,30,40", "30,20,10,40")(tmp_path)
    edit("annotations.csv", "5,5,15,25", "5,5,15,95")(tmp_path)
    source = build.source(own(tmp_path).data.train, "config.data.train")
    assert [(one.id, one.what) for one in source.defects] == [
        ("pictures/a.png", "inverted"),
        ("pictures/b.png", "clipped"),
    ]


def test_one_bad_label_of_many_is_left_out_and_listed(tmp_path):
    folders.yolo_roboflow(tmp_path)
    put("train/labels/a.txt", "7 0.5 0.5 0.1 0.1")(tmp_path)
    source = build.sources(own(tmp_path))[0]
    (defect,) = source.defects
    assert source.ids == ("train/images/b.png",) and defect.what == "skipped"
    assert "a.txt, line 1: the class is 7, and there are 0 cat, 1 dog" in defect.detail


def test_links_in_a_circle(tmp_path):
    folders.yolo_label_studio(tmp_path)
    (tmp_path / "images" / "all").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "labels" / "self").symlink_to("self")
    (tmp_path / "other").symlink_to(tmp_path / "images", target_is_directory=True)
    assert read(tmp_path) == folders.GROUND_TRUTH
    folders.voc_lists(tmp_path / "voc")
    (tmp_path / "voc" / "JPEGImages" / "up").symlink_to("..", target_is_directory=True)
    assert read(tmp_path / "voc") == {stem: folders.GROUND_TRUTH[stem] for stem in folders.TRAIN}


@pytest.mark.parametrize(
    "kind, name, content",
    [
        ("yolo", "labels/{}.txt", "0 0.5 0.5 0.1 0.1\n"),
        ("dota", "labelTxt/{}.txt", "1 1 5 1 5 5 1 5 ship 0\n"),
        ("labelme", "labels/{}.json", '{"shapes": [], "imagePath": "x"}'),
        ("voc", "annotations/{}.xml", "<annotation/>"),
    ],
)
def test_many_files(tmp_path, monkeypatch, kind, name, content):
    """They are listed once, and a few of them opened: the others are not there."""
    count = 50_000 if kind == "yolo" else 5_000
    names = [f"{number:06}" for number in range(count)]
    folder, file = name.split("/")
    labels = [name.format(one) for one in names]
    few = listing.sample(labels)
    for path in few:
        folders.text(tmp_path, path, content)

    def walk(root):
        yield str(root), ["images", folder], []
        yield f"{root}/images", [], [f"{one}.jpg" for one in names]
        yield f"{root}/{folder}", [], [file.format(one) for one in names]

    monkeypatch.setattr(listing, "walk", walk)
    found = listing.Listing(tmp_path)
    assert (len(found.files), len(found.images), len(few)) == (2 * count, count, listing.LOOKS)
    assert recognise(found) == (kind, {} if kind == "voc" else {"": few[0]})
