"""Instance masks of VOC folders: numbers in the order of the annotation, and what does not fit them."""

import pickle

import numpy as np
import pytest
from PIL import Image

from jdet.data.segmentation import decode
from jdet.data.sources.voc import VocSource
from tests.data.sources.test_voc import annotation_xml, make_folder, object_xml

BOXES = {"cat": (11, 11, 20, 30), "dog": (31, 21, 60, 40), "cow": (1, 1, 10, 10)}


def write_mask(root, id, values, mode="P"):
    folder = root / "SegmentationObject"
    folder.mkdir(exist_ok=True)
    image = Image.fromarray(values.astype(np.uint8), "L")
    if mode == "P":
        image.putpalette([(7 * i) % 256 for i in range(768)])
    image.convert(mode).save(folder / f"{id}.png")


def instances(void=True):
    """Object 1 without its lower half, 2 as a whole, of 3 nothing; an outline of one pixel is void."""
    values = np.zeros((50, 64), np.uint8)
    values[10:20, 10:20] = 1
    values[20:40, 30:60] = 2
    if void:
        values[20, 30:60] = 255
    return values


def folder(root, values=None, mode="P", names=("cat", "dog", "cow"), difficult=""):
    objects = [object_xml(name, BOXES[name], int(name == difficult)) for name in names]
    texts = {"a": annotation_xml(*objects), "b": annotation_xml(object_xml("cat", BOXES["cat"]))}
    make_folder(root, {"train": ["a", "b"]}, texts)
    write_mask(root, "a", instances() if values is None else values, mode)
    return root


@pytest.mark.parametrize("mode", ["P", "L"])
def test_objects_have_the_pixels_of_their_numbers(tmp_path, mode):
    source = VocSource(folder(tmp_path, mode=mode), "train", keep_masks=True)
    assert source.has_masks
    values, example = instances(), pickle.loads(pickle.dumps(source))[0]
    for number, mask in enumerate(example.masks[:2], 1):
        np.testing.assert_array_equal(decode(mask, 50, 64), values == number)
    assert example.masks[2] is None and example.official.masks == example.masks
    assert len(example.boxes) == 3
    # The image without a file keeps its object, and is told once.
    assert source[1].masks == (None,) and len(source[1].boxes) == 1
    assert [(d.id, d.what) for d in source.defects] == [("b", "no mask"), ("a", "no mask")]
    assert "SegmentationObject/b.png is missing" in source.defects[0].detail
    assert "0, 0, 10, 10 (x y width height): it has no segmentation" in source.defects[1].detail


def test_numbers_count_objects_that_are_left_out(tmp_path):
    root = folder(tmp_path, difficult="cat")
    source = VocSource(root, "train", keep_masks=True, keep_difficult=False)
    example, values = source[0], instances()
    np.testing.assert_array_equal(decode(example.masks[0], 50, 64), values == 2)
    assert example.masks[1] is None and len(example.masks) == 2


def test_masks_are_held_against_their_boxes(tmp_path):
    """As where an annotation was sorted anew, and its image of numbers was not."""
    source = VocSource(folder(tmp_path, names=("dog", "cat", "cow")), "train", keep_masks=True)
    assert source[0].masks == (None, None, None) and source.has_masks
    details = [d.detail for d in source.defects if d.id == "a"]
    assert "its mask, from 10, 10, 20, 20 (x1 y1 x2 y2), lies outside" in details[0]
    assert "its mask, from 30, 21, 60, 40 (x1 y1 x2 y2), lies outside" in details[1]
    assert source[0].official.masks[0] is not None


def test_what_does_not_fit_is_listed(tmp_path):
    values = instances(void=False)
    values[45:, 45:] = 9
    root = folder(tmp_path, values)
    write_mask(root, "b", instances()[:40], "P")
    source = VocSource(root, "train", keep_masks=True)
    details = {d.detail.split(": ")[-1] for d in source.defects}
    assert any(
        text.endswith("a.png numbers objects [9], which are not annotated") for text in details
    )
    assert "a run-length encoding of 64x40 in an image of 64x50" in details
    write_mask(root, "b", instances(), "RGB")
    (root / "SegmentationObject" / "a.png").write_bytes(b"no image")
    nothing = VocSource(root, "train", keep_masks=True)
    assert not nothing.has_masks and nothing[0].masks is None
    write_mask(root, "a", instances())
    source = VocSource(root, "train", keep_masks=True)
    assert "b.png has colours (RGB), and no numbers of objects" in source.defects[0].detail


def test_masks_are_read_where_they_are_asked_for(tmp_path):
    source = VocSource(folder(tmp_path), "train")
    assert not source.has_masks and source[0].masks is None and source.defects == []
