"""Remedies of folders of VOC shape, and of images beside their labels."""

import re
import shlex

import numpy as np
from PIL import Image

from jdet.data.discover import discover
from jdet.data.sources.voc import VocSource
from jdet.data.sources.voc_masks import read_instances
from tests.data.layouts.folders import image, text
from tests.data.sources.test_voc import annotation_xml, make_folder, object_xml
from tests.remedies.rows import row

DISCOVER, VOC = "jdet/data/discover.py", "jdet/data/sources/voc_files.py"

PIXELS = np.zeros((50, 64, 3), np.uint8)


def voc(root, splits, names=("cat",), **given):
    texts = {
        i: annotation_xml(*(object_xml(name=n) for n in names))
        for ids in splits.values()
        for i in ids
    }
    return make_folder(root, splits, texts, **given)


def voc_source(folder, splits="train", **given):
    voc(folder / "set", {"train": ["a"], "val": ["b"]})
    VocSource(folder / "set", splits, **given)


def years(folder, splits, root=""):
    for year in (2007, 2012):
        voc(folder / f"VOC{year}", {"train": ["a"]})
    VocSource(folder / root, splits)


def folders(folder, root):
    for name in ("first", "second"):
        voc(folder / name, {"train": ["a"]})
    VocSource(folder / root, "train")


def shapeless(folder, there):
    root = folder / "my sets"
    if there:
        voc(root, {"train": ["a"]})
    try:
        VocSource(root, "train")
    except ValueError as error:
        (command,) = re.findall("`python (data/.*?)`", str(error))
        assert shlex.split(command) == ["data/get_voc.py", "--root", str(root)]
        raise


def two_years(folder, classes):
    voc(folder / "VOC2007", {"train": ["a"]}, labels=("cat", "dog"))
    voc(folder / "VOC2012", {"train": ["b"]}, labels=("dog", "cat"))
    VocSource(folder, "2007:train+2012:train", classes=classes)


def counted(folder, coordinates):
    texts = {"a": annotation_xml(object_xml(box=("0", "0", "9", "9")))}
    root = make_folder(folder / "set", {"train": ["a"]}, texts)
    return VocSource(root, "train", coordinates=coordinates).describe()


def instances(folder, palette):
    image = Image.fromarray(PIXELS)
    path = folder / "a.png"
    (image.convert("P") if palette else image).save(path)
    read_instances(path, [0], 1)


def labels_above(folder, typed=False):
    """The images of a table that lies beside their folder."""
    image(folder, "images/a.png")
    text(folder, "labels.csv", "filename,xmin,ymin,xmax,ymax,class\na.png,1,1,9,9,cat\n")
    try:
        return discover(folder / "images")
    except ValueError as error:
        if not typed:
            raise
        assert discover(re.search(r"root=(\S+)$", str(error))[1]).shape == "csv"


ROWS = [
    row(DISCOVER, "name the folder of both, root={}", labels_above, {}, {"typed": True}),
    row(
        "jdet/data/sources/voc.py",
        "set --config.data.train.coordinates",
        counted,
        {"coordinates": "from_1"},
        {"coordinates": "edges"},
        {"coordinates": "from_0"},
    ),
    row(
        VOC,
        "an item is empty; write",
        voc_source,
        {"splits": "train+"},
        {"splits": "train"},
    ),
    row(
        VOC,
        "say which, as in",
        years,
        {"splits": "train"},
        {"splits": "2007:train"},
    ),
    row(
        VOC,
        "or a split without a year",
        years,
        {"splits": "2012:train", "root": "VOC2007"},
        {"splits": "train"},
        {"root": ""},
    ),
    row(VOC, "as the data set's root", folders, {"root": ""}, {"root": "first"}),
    row(
        VOC,
        "or set the data set's root to your",
        shapeless,
        {"there": False},
        {"there": True},
    ),
    row(
        VOC,
        "Name all classes: classes=a+b",
        two_years,
        {"classes": None},
        {"classes": ("cat", "dog")},
    ),
    row(
        "jdet/data/sources/voc_masks.py",
        "save it with a palette",
        instances,
        {"palette": False},
        {"palette": True},
    ),
]
