"""Folders as tools write them: recognised without a flag, with boxes right to the pixel."""

import base64
import posixpath

import cv2
import numpy as np
import pytest

from experiments.common_own import OWN_DATA, own_images
from jdet import build, config
from jdet.data import segmentation
from jdet.data.discover import discover
from jdet.data.layouts.cvat import CvatSource
from jdet.data.layouts.labelme import LabelMeSource
from jdet.data.readers.settings import ImageSettings
from jdet.data.segmentation import extent
from jdet.types import Source
from tests.data.layouts import folders
from tests.test_experiments import ROOT


class Arguments(dict):
    """Arguments by key and by name, as those of experiments."""

    __getattr__ = dict.__getitem__


def own(root, **given):
    """The config that the experiments on one's own images make of a folder."""
    return own_images(Arguments(OWN_DATA | dict(seed=0, root=str(root)) | given), "any")[0]


def found(source):
    """Stem → class names and boxes, of the images with objects."""
    examples = [source[index] for index in range(len(source))]
    return {
        posixpath.basename(str(example.image)).split(".")[0]: [
            (source.class_names[label], tuple(box))
            for label, box in zip(example.labels, example.boxes.round(3).tolist(), strict=True)
        ]
        for example in examples
        if len(example.boxes)
    }


@pytest.mark.parametrize(
    "layout, write", folders.CASES, ids=lambda case: getattr(case, "__name__", "")
)
def test_a_folder_is_recognised_and_read(tmp_path, layout, write):
    write(tmp_path)
    shape, _, evaluation = discover(tmp_path)
    assert shape == layout
    c = own(tmp_path)
    assert (c.data.train.name, c.data.holdout == 0) == (layout, evaluation is not None)
    sides = build.sources(c) if evaluation else [build.source(c.data.train, "config.data.train")]
    wanted = (folders.TRAIN, folders.VAL) if evaluation else (tuple(folders.SIZES),)
    for source, stems in zip(sides, wanted, strict=True):
        assert isinstance(source, Source) and source.class_names == folders.NAMES
        assert found(source) == {stem: folders.GROUND_TRUTH[stem] for stem in stems}
        assert not source.defects
        for index in range(len(source)):
            stem = posixpath.basename(source[index].image)[0].lower()
            if stem in folders.SIZES and source[index].boxes.size:
                assert source.image_size(index) == folders.SIZES[stem]


@pytest.mark.parametrize(
    "write, polygons",
    [
        (folders.yolo_polygons, {"cat", "dog"}),
        (folders.cvat, {"cat"}),
        (folders.labelme, {"cat"}),
        (folders.via_project, {"cat"}),
        (folders.dota, {"cat", "dog"}),
    ],
)
def test_polygons_are_masks(tmp_path, write, polygons):
    write(tmp_path)
    c = own(tmp_path)
    c.data.train.keep_masks = True
    source = build.source(c.data.train, "config.data.train")
    assert source.has_masks
    for index in range(len(source)):
        example = source[index]
        for label, box, mask in zip(example.labels, example.boxes, example.masks):
            assert (mask is not None) == (source.class_names[label] in polygons)
            if mask is not None:
                np.testing.assert_allclose(extent(mask), box, atol=1e-4)


def test_images_elsewhere(tmp_path):
    folders.yolo_label_studio(tmp_path / "set")
    (tmp_path / "set" / "images").rename(tmp_path / "pictures")
    c = own(tmp_path / "set", image_root=tmp_path / "pictures", layout="yolo")
    assert found(build.source(c.data.train, "config.data.train")) == folders.GROUND_TRUTH


def test_several_files_make_an_image(tmp_path):
    folders.dota(tmp_path)
    for path in sorted(tmp_path.rglob("*.png")):
        path.with_stem(f"{path.stem}_depth").write_bytes(path.read_bytes())
        path.rename(path.with_stem(f"{path.stem}_rgb"))
    source = build.source(
        build.folder_group("dota", str(tmp_path), "train"),
        "config.data.train",
        image=ImageSettings(files="{stem}_rgb.png + {stem}_depth.png", channels="auto"),
    )
    assert [[posixpath.basename(p) for p in source[i].image] for i in (0, 1)] == [
        ["a_rgb.png", "a_depth.png"],
        ["b_rgb.png", "b_depth.png"],
    ]


def test_shapes_of_labelling_tools(tmp_path):
    """Circles, ellipses, turned boxes, masks and shapes of several parts; what has no area is counted."""
    folders.image(tmp_path, "cvat/a.png")
    folders.text(
        tmp_path,
        "cvat/annotations.xml",
        '<annotations><image id="0" name="a.png" width="64" height="50">'
        '<ellipse label="e" cx="20" cy="10" rx="8" ry="4"/>'
        '<box label="t" xtl="10" ytl="20" xbr="30" ybr="30" rotation="90"/>'
        '<mask label="m" rle="1, 2, 1, 2" left="4" top="5" width="3" height="2"/>'
        '<polyline label="l" points="1,2;3,4"/></image></annotations>',
    )
    source = CvatSource(tmp_path / "cvat", keep_masks=True)
    assert found(source) == {
        "a": [("e", (12, 6, 28, 14)), ("t", (15, 15, 25, 35)), ("m", (4, 5, 7, 7))]
    }
    mask = segmentation.decode(source[0].masks[2], 50, 64)
    assert mask.sum() == 4 and mask[5, 5:7].all() and mask[6, 5:7].all()
    assert source.describe().endswith("1 points, lines, cuboids and tags left out")

    folders.image(tmp_path, "labelme/a.png")
    part = cv2.imencode(".png", np.array([[0, 255, 0], [255, 0, 0]], np.uint8))[1]
    triangle = dict(label="p", shape_type="polygon", group_id=1)
    shapes = [
        dict(label="c", shape_type="circle", points=[[20, 20], [23, 24]]),
        dict(triangle, points=[[1, 2], [5, 2], [5, 6]]),
        dict(triangle, points=[[30, 40], [35, 40], [35, 45]]),
        dict(
            label="m",
            shape_type="mask",
            points=[[10, 12], [12, 13]],
            mask=base64.b64encode(part).decode(),
        ),
        dict(label="x", shape_type="point", points=[[1, 1]]),
    ]
    data = folders.labelme_json("a") | dict(shapes=shapes)
    folders.text(tmp_path, "labelme/a.json", data)
    source = LabelMeSource(tmp_path / "labelme", keep_masks=True)
    boxes = {"c": (15, 15, 25, 25), "m": (10, 12, 13, 14), "p": (1, 2, 35, 45)}
    assert dict(found(source)["a"]) == boxes
    mask = segmentation.decode(source[0].masks[2], 50, 64)
    assert np.argwhere(mask).tolist() == [[12, 11], [13, 10]]
    assert source.describe().endswith("1 points and lines left out")


def test_names_of_classes_that_yaml_would_take_for_something_else(tmp_path):
    folders.yolo_roboflow(tmp_path)
    names = ["no", "2024-05-01", "1e3", "0x1F", "null", "~"]
    folders.text(tmp_path, "data.yaml", f"train: train/images\nnames: [{', '.join(names)}]\n")
    source = build.source(own(tmp_path).data.train, "config.data.train")
    assert source.class_names == tuple(names)


@pytest.mark.parametrize("name", ["scratchdet", "dense", "mask", "direct", "swin"])
def test_the_experiments_take_any_layout(tmp_path, name):
    folders.cvat(tmp_path)
    c = config.from_file(f"{ROOT}/experiments/{name}_custom.py:root={tmp_path},cpu")
    assert (c.data.train.name, c.data.train.split, c.data.eval.split) == ("cvat", "train", "val")
    assert c.data.train.keep_masks == (name == "mask")
