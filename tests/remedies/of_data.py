"""Remedies of label files, data sets in folders, and parts of them."""

import json
import re
import shlex
import subprocess
from types import SimpleNamespace
from unittest import mock

import numpy as np
from absl import logging as absl_logging
from PIL import Image

from jdet.build.groups import make
from jdet.config import get_defaults
from jdet.convert.__main__ import main
from jdet.convert.convert import convert
from jdet.data import first_look, redraw
from jdet.data.discover import discover
from jdet.data.find_images import find_images
from jdet.data.sources import repeated
from jdet.data.sources.coco import CocoSource
from jdet.data.sources.coco_file import read_json
from jdet.data.sources.holdout import Holdout
from jdet.data.sources.label_text import decode
from jdet.data.sources.part import share_of
from jdet.data.sources.voc import VocSource
from jdet.evaluation import loaders
from jdet.evaluation.coco_ap import CocoEvaluator
from jdet.evaluation.official import official_of
from tests.data.layouts import folders, test_spoiled_folders
from tests.data.sources.test_voc import annotation_xml, make_folder, object_xml
from tests.data.test_discover import detections
from tests.evaluation import records
from tests.remedies.rows import Elsewhere, Untyped, row, type_in

DISCOVER, SIDES = "jdet/data/discover.py", "jdet/data/layouts/voc_sides.py"

TFDS = "jdet/data/sources/tfds.py"

SPOILED = (
    "tests/data/layouts/test_spoiled_folders.py::test_a_spoiled_folder_is_refused_until_its_remedy_is_done",
    "SPOILED[name]",
)

PIXELS = np.zeros((50, 64, 3), np.uint8)


def voc(root, splits, names=("cat",), **given):
    texts = {
        i: annotation_xml(*(object_xml(name=n) for n in names))
        for ids in splits.values()
        for i in ids
    }
    return make_folder(root, splits, texts, **given)


def found(root):
    discover(root)


def lists(folder, train):
    """Two lists of which neither names a split."""
    found(voc(folder / "set", {train: ["a"], "other": ["b"]}))


def typed_list(folder, run):
    """The command of the message, in a shell, in a folder with blanks and quotes in its name."""
    root = voc(folder / "the dog's set", {"mine": ["a"], "other": ["a"]})
    try:
        return found(root)
    except ValueError as error:
        if not run:
            raise
        command = re.search("`(.*)`", str(error))[1]
    subprocess.run(["bash", "-ec", command], check=True)
    assert len(VocSource(root, discover(root).train)) == 1


def several_years(folder, name):
    for year, split in (("2007", "train"), ("2012", "test")):
        voc(folder / f"VOC{year}", {split: ["a"]})
    found(folder / name)


def several_sets(folder, name):
    for each in ("first", "second"):
        voc(folder / each, {"train": ["a"]})
    found(folder / name)


def annotation_files(folder, names):
    for first, name in enumerate(names):
        (folder / f"{name}.json").write_text(json.dumps(detections(100 * first)))
    found(folder)


def unlabelled(folder, typed):
    """The folder as the command of the message names it."""
    root = folder / "the dog's images"
    root.mkdir()
    Image.fromarray(PIXELS).save(root / "a.jpg")
    try:
        found(root)
    except ValueError as error:
        if not typed:
            raise
        command = shlex.split(re.search("`(.*)`", str(error))[1])
        assert f"--images={root}" in command and [*find_images([str(root)])]


def two_layouts(folder, layout="", both=True):
    folders.yolo_label_studio(folder)
    if both:
        folders.labelme(folder)
    discover(folder, layout)


def asked(folder, name, typed):
    """A folder whose labels leave an argument open, which the converter then gets as the message has it."""
    if name == "coordinates":
        for stem in ("a", "b"):
            folders.image(folder, f"{stem}.png")
        folders.text(folder, "labels.csv", test_spoiled_folders.RELATIVE)
    else:
        folders.via_project(folder)
        test_spoiled_folders.attributes(folder)
    try:
        return convert(folder, folder / "a.json")
    except ValueError as error:
        if not typed:
            raise
        option = re.search(rf"--{name}=\S+", str(error))[0]
    assert main([str(folder), f"--out={folder}/a.json", option]) == 0


def usable(share, typed=None):
    least = 0.5
    if typed:
        try:
            first_look.check_share(share, least, {}, "set")
        except ValueError as error:
            config = type_in(get_defaults(), re.search(r"--config\S+", str(error))[0])
            least = config.data.min_usable
    first_look.check_share(share, least, {}, "set")


def unknown(folder, classes):
    root = voc(folder / "set", {"train": ["a"]}, names=("cat", "dog"))
    VocSource(root, "train", classes=classes)


def coco_images(folder, given):
    (folder / "mine" / "labels").mkdir(parents=True)
    (folder / "elsewhere").mkdir()
    data = detections(0)
    for image in data["images"]:
        Image.fromarray(PIXELS).save(folder / "elsewhere" / image["file_name"])
    (folder / "mine" / "labels" / "set.json").write_text(json.dumps(data))
    CocoSource(folder / "mine" / "labels" / "set.json", folder / "elsewhere" if given else None)


def labels_of(folder, name):
    (folder / "there.json").write_text(json.dumps(detections(0)))
    read_json(folder / name)


def split_of(folder, every):
    root = voc(folder / "set", {"train": [f"p{i}" for i in range(20)], "val": ["b"]})
    Holdout(VocSource(root, "train"), every, held_out=True) if every else VocSource(root, "val")


def part_of(folder, share):
    root = voc(folder / "set", {"train": [f"p{i}" for i in range(20)]})
    share_of(VocSource(root, "train"), share)


def repeated_in(folder, evaluation):
    root = voc(folder / "set", {"train": ["a", "b"], "val": ["b", "c"], "rest": ["c"]})
    Image.fromarray(PIXELS + 9).save(root / "JPEGImages" / "c.jpg")  # no copy of the others
    return repeated.warning(VocSource(root, "train"), VocSource(root, evaluation))


def encoded(encoding):
    """What is logged when a label file is read; once for each place in the code."""
    said = []

    def told(level, message, most, *values):
        assert (level, most) == (absl_logging.WARNING, 1)
        said.append(message % values)

    with mock.patch.object(absl_logging, "log_first_n", told):
        decode("<name>Bär</name>".encode(encoding), f"{encoding}.xml")
    return "\n".join(said)


def redrawn(folder, redraws, objects=False):
    """Looking for objects in parts of images, where no image has any, or not looking."""
    root = voc(folder / "set", {"train": ["a"]}, names=("cat",) if objects else ())
    source = VocSource(root, "train", classes=("cat",))
    if redraws:
        redraw.check_objects(SimpleNamespace(source=source, count=1))
    assert make("resize", {"name": "fit_crop", "redraws": redraws}, "config.resize", input_size=64)


def masks(keep, label=True):
    config = get_defaults()
    config.data.train.keep_masks = keep
    source = SimpleNamespace(has_masks=keep and label)
    loaders.check_masks(config, source, "train", "config.model.name='mask_rcnn'")


def finite(box):
    return official_of(records.example("a", [box], [0])) and None


def scored(kind):
    evaluator = CocoEvaluator(("a",), iou_type=kind)
    boxes = [[0, 0, 5, 5]]
    evaluator.add(records.detections("1", boxes, [0], [0.5]), records.example("1", boxes, [0]))


ROWS = [
    row(SIDES, "; of {}, rename one", lists, {"train": "mine"}, {"train": "train"}),
    row(
        SIDES,
        "list the images there, all of them with",
        typed_list,
        {"run": False},
        {"run": True},
    ),
    row(
        SIDES,
        "holds several data sets: {}; name one",
        several_sets,
        {"name": ""},
        {"name": "first"},
    ),
    row(
        SIDES,
        "no lists to train on in common (trainval.txt or train.txt); name one of them",
        several_years,
        {"name": ""},
        {"name": "VOC2007"},
    ),
    row(
        DISCOVER,
        "write 'train' and 'val' as words into their names",
        annotation_files,
        {"names": ("first", "second")},
        {"names": ("train", "val")},
        {"names": ("boxes_train", "boxes_val")},
    ),
    row(
        DISCOVER,
        "For prediction: `python -m jdet.predict --workdir=RUN",
        unlabelled,
        {"typed": False},
        {"typed": True},
    ),
    Elsewhere(DISCOVER, "put those to train on into a folder called train", *SPOILED),
    Elsewhere(DISCOVER, ", and others, such as {}, of none", *SPOILED),
    row(
        DISCOVER,
        "Say which: {} of the experiments on your own images, or move the others elsewhere",
        two_layouts,
        {"layout": ""},
        {"layout": "yolo"},
        {"layout": "labelme"},
        {"both": False},
    ),
    Elsewhere(
        DISCOVER,
        "Say layout=%s for these",
        "tests/data/layouts/test_repaired_folders.py::test_two_layouts_of_which_one_goes_first",
        "discover(tmp_path, told)",
    ),
    row(
        "jdet/data/layouts/tables.py",
        "where they are relative to the images, say so: {}",
        asked,
        {"name": "coordinates", "typed": False},
        {"typed": True},
    ),
    row(
        "jdet/data/layouts/via.py",
        "say which, such as {}",
        asked,
        {"name": "attribute", "typed": False},
        {"typed": True},
    ),
    row(
        "jdet/data/first_look.py",
        "go on with fewer: --config.data.min_usable=",
        usable,
        {"share": 0.333},
        {"typed": True},
        {"typed": True, "share": 0.004},
    ),
    row(
        "jdet/data/sources/annotations.py",
        "or name all classes: classes=a+b",
        unknown,
        {"classes": ("cat",)},
        {"classes": ("cat", "dog")},
    ),
    row(
        "jdet/data/sources/coco.py",
        "image_root=PATH of the experiments on your own images",
        coco_images,
        {"given": False},
        {"given": True},
    ),
    row(
        "jdet/data/sources/coco_file.py",
        "or name your own COCO annotation file",
        labels_of,
        {"name": "elsewhere.json"},
        {"name": "there.json"},
    ),
    row(
        "jdet/data/sources/holdout.py",
        "make a split of your own",
        split_of,
        {"every": 1},
        {"every": 0},
    ),
    row("jdet/data/sources/part.py", "take a larger one", part_of, {"share": 1e-9}, {"share": 0.9}),
    row(
        "jdet/data/sources/repeated.py",
        "Take them out of one of the two",
        repeated_in,
        {"evaluation": "val"},
        {"evaluation": "rest"},
    ),
    row(
        "jdet/data/sources/label_text.py",
        "Store label files as UTF-8",
        encoded,
        {"encoding": "cp1252"},
        {"encoding": "utf-8"},
    ),
    Elsewhere(
        TFDS,
        "to read it, pip install --editable",
        "tests/data/sources/test_tfds.py::test_without_tensorflow_datasets",
        "pip install --editable",
    ),
    Untyped(TFDS, "Prepare it once with", "tfds builds by TensorFlow and from the network"),
    Untyped(TFDS, " --data_dir={}", "tfds builds by TensorFlow and from the network"),
    row(
        "jdet/data/redraw.py",
        "check the labels, or set config.resize.redraws=0",
        redrawn,
        {"redraws": 50},
        {"redraws": 0},
        {"objects": True},
    ),
    Untyped(
        "jdet/data/worker_errors.py",
        "Fewer workers take less memory",
        "the system ends workers where memory runs out",
    ),
    row(
        "jdet/evaluation/official.py",
        "is not finite; correct the labels",
        finite,
        {"box": (0, 0, np.nan, 4)},
        {"box": (0, 0, 4, 4)},
    ),
    row(
        "jdet/evaluation/coco_ap.py",
        "without a mask; {}: leave it out",
        scored,
        {"kind": "segm"},
        {"kind": "bbox"},
    ),
    row(
        "jdet/evaluation/loaders.py",
        "set --config.data.{}.keep_masks=True",
        masks,
        {"keep": False},
        {"keep": True},
    ),
    row(
        "jdet/evaluation/loaders.py",
        "take annotations with `segmentation`",
        masks,
        {"keep": True, "label": False},
        {"label": True},
    ),
    Untyped(
        "jdet/atomic_files.py",
        "give the container more (docker run --shm-size=8g), or take fewer data workers",
        "a container gets its shared memory as it starts",
    ),
]
