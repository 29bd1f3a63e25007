"""One defect in a small clean set is one finding, with the right image and nothing else beside it."""

import logging

import cv2
import numpy as np
import pytest
from PIL import Image

from jdet.doctor import splits
from jdet.doctor.examine import examine
from tests.doctor.sets import HEIGHT, WIDTH, DataSet, labelled_image, texture


def examined(data, root):
    """Findings by name of a set that is written and read."""
    config, found = splits.of_folder(str(data.write(root / "set")))
    result = examine("set", config, found, network=False, processes=1, notify=logging.info)
    return {finding.name: finding for finding in result.findings}


def names(finding):
    """Split and number of the images of a finding, case by case."""
    return [tuple((p.split, p.image) for p in case.places) for case in finding.cases]


def test_a_clean_set_has_no_finding(tmp_path):
    assert examined(DataSet(), tmp_path) == {}


def box_of(kind):
    return {
        "empty": (50, 50, 0, 10),
        "inverted": (50, 50, -20, 10),
        "outside": (WIDTH + 10, 20, 30, 30),
        "clipped": (WIDTH - 20, 50, 30, 30),
        "thin": (50, 50, 1.5, 20),
    }[kind]


@pytest.mark.parametrize(
    "kind, severity, what",
    [
        ("empty", "warning", "empty_labels"),
        ("inverted", "warning", "inverted_labels"),
        ("outside", "warning", "outside_labels"),
        ("clipped", "note", "clipped_labels"),
        ("thin", "warning", "thin_boxes"),
    ],
)
def test_a_bad_box_is_found(tmp_path, kind, severity, what):
    data = DataSet()
    data.train[3].objects.append(("cell", box_of(kind)))
    found = examined(data, tmp_path)
    assert set(found) == {what} and found[what].severity == severity
    assert names(found[what]) == [(("train", "4"),)] and found[what].count == 1


@pytest.mark.parametrize("label, what", [("cell", "double_boxes"), ("seed", "two_classes")])
def test_an_object_with_two_boxes_is_found(tmp_path, label, what):
    data = DataSet()
    (_, (x, y, w, h)) = data.val[2].objects[0]
    data.val[2].objects.append((label, (x, y + 0.5, w, h)))
    found = examined(data, tmp_path)
    assert set(found) == {what}
    (case,) = found[what].cases
    assert case.places[0][:3] == ("val", 2, "3") and "IoU 0.96" in case.note
    assert case.places[0].boxes[0] == (x, y, x + w, y + h)


def test_boxes_that_overlap_less_are_two_objects(tmp_path):
    data = DataSet()
    (label, (x, y, w, h)) = data.val[2].objects[0]
    data.val[2].objects.append((label, (x, y + 2.5, w, h)))  # IoU 0.84
    assert examined(data, tmp_path) == {}


def spoil_file(data):
    data.val[1].pixels = None


def spoil_size(data):
    data.val[1].size = (HEIGHT, WIDTH + 10)


def spoil_constant(data):
    data.val[1].pixels = np.full((HEIGHT, WIDTH, 3), 77, np.uint8)


def spoil_objects(data):
    data.val[1].objects = []


@pytest.mark.parametrize(
    "spoil, severity, what",
    [
        (spoil_file, "error", "skipped_images"),
        (spoil_size, "error", "unusable_images"),
        (spoil_constant, "warning", "constant_images"),
        (spoil_objects, "note", "images_without_objects"),
    ],
)
def test_a_bad_image_is_found(tmp_path, spoil, severity, what):
    data = DataSet()
    spoil(data)
    found = examined(data, tmp_path)
    assert set(found) == {what} and found[what].severity == severity
    assert names(found[what]) == [(("val", "2"),)]


def test_truncated_and_turned_files_are_found(tmp_path):
    data = DataSet()
    folder = tmp_path / "set" / "train"
    folder.mkdir(parents=True)
    data.train[0].name, data.train[1].name = "ash.jpg", "bay.jpg"
    cv2.imwrite(str(folder / "ash.jpg"), data.train[0].pixels)
    (folder / "ash.jpg").write_bytes((folder / "ash.jpg").read_bytes()[:-900])
    exif = Image.Exif()
    exif[0x112] = 3
    Image.fromarray(data.train[1].pixels).save(folder / "bay.jpg", exif=exif)
    found = examined(data, tmp_path)
    assert set(found) == {"unusable_images", "turned_images"}
    assert names(found["unusable_images"]) == [(("train", "1"),)]
    assert names(found["turned_images"]) == [(("train", "2"),)]


def test_classes_are_held_against_each_other(tmp_path):
    data = DataSet()
    data.classes += ["stone", "leaf", "moss"]
    data.val[0].objects.append(("stone", (50, 40, 20, 20)))  # evaluated, never trained
    for one in data.train[:3]:
        one.objects.append(("leaf", (50, 40, 20, 20)))  # three objects, never evaluated
    found = examined(data, tmp_path)
    assert {name: f.severity for name, f in found.items()} == {
        "classes_not_trained": "error",
        "classes_without_objects": "warning",
        "classes_not_evaluated": "warning",
        "rare_classes": "warning",
    }
    assert "stone is evaluated" in found["classes_not_trained"].title
    assert "moss has no object" in found["classes_without_objects"].title
    assert "leaf is trained" in found["classes_not_evaluated"].title
    assert found["rare_classes"].cases[0].note == "leaf: 3 objects"


def test_unequal_classes_are_told_with_their_numbers(tmp_path):
    data = DataSet()
    for one in data.train:
        corners = [(x, y) for x in range(4, 150, 14) for y in range(4, 108, 14)]
        one.objects = [("seed", (*corner, 12, 12)) for corner in corners]
        one.objects[0] = ("cell", one.objects[0][1])
    found = examined(data, tmp_path)["unequal_classes"]
    assert "seed has 87 times the training objects of cell" in found.title
    assert [case.note for case in found.cases] == ["cell: 10 objects", "seed: 870 objects"]


def test_sizes_at_the_input_and_long_objects_are_told(tmp_path):
    data = DataSet()
    for one in data.train + data.val:  # 3 x 3 of 160 x 120 pixels at 300: 6.5 pixels
        one.objects += [("cell", (60 + 6 * i, 50, 3, 3)) for i in range(4)]
        one.objects.append(("seed", (2, 110, 120, 5)))
    found = examined(data, tmp_path)
    assert set(found) == {"small_objects", "long_objects"}
    assert "0 % under 4, 44 % under 8, 44 % under 16" in found["small_objects"].title
    assert found["small_objects"].severity == "warning"
    assert "6.5 pixels at the input" in found["small_objects"].cases[0].note
    assert found["long_objects"].count == 15 and "18.0 times" in found["long_objects"].cases[0].note


def test_labels_of_classification_and_of_a_part_of_the_objects_are_told(tmp_path):
    data = DataSet()
    for one in data.train[:2]:
        one.objects = [("cell", (0, 0, WIDTH, HEIGHT))]
    found = examined(data, tmp_path)
    assert set(found) == {"whole_image_boxes"} and found["whole_image_boxes"].count == 2

    data = DataSet()
    for one in data.train:
        one.objects = [("seed", (6 + 50 * (i % 3), 6 + 36 * (i // 3), 30, 30)) for i in range(9)]
        one.objects[0] = ("cell", one.objects[0][1])
    data.train[4].objects = data.train[4].objects[:2]
    found = examined(data, tmp_path / "second")
    assert set(found) == {"few_labels"} and names(found["few_labels"]) == [(("train", "5"),)]


def test_depth_and_brightness_are_told(tmp_path):
    data = DataSet()
    for one in data.train + data.val:
        one.pixels = one.pixels.astype(np.uint16)
    found = examined(data, tmp_path)
    assert set(found) == {"unused_bits"} and "dtype=uint8" in found["unused_bits"].cases[0].note

    data = DataSet()
    for one in data.val:
        one.pixels = np.clip(one.pixels.astype(int) + 90, 0, 255).astype(np.uint8)
    assert set(examined(data, tmp_path / "second")) == {"other_brightness"}


def test_nothing_labelled_is_an_error(tmp_path):
    data = DataSet()
    for one in data.train + data.val:
        one.objects = []
    assert examined(data, tmp_path)["no_objects"].severity == "error"


def test_texture_and_objects_differ_by_seed():
    assert not np.array_equal(texture(1), texture(2))
    assert labelled_image("a", 1).objects != labelled_image("b", 2).objects
