"""A run of seconds on a few images of a VOC folder, whose every file can be changed."""

import cv2
import numpy as np

from jdet import build, run
from jdet.config import get_defaults
from tests.data.sources.test_voc import annotation_xml, object_xml

IMAGES = 6


def make_data(root):
    """A folder of VOC shape with random images that have one or two objects each."""
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / name).mkdir(parents=True)
    ids = [f"image{i}" for i in range(IMAGES)]
    for split, chosen in {"train": ids[:4], "test": ids[4:]}.items():
        text = "".join(f"{id}\n" for id in chosen)
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(text)
    rng = np.random.default_rng(0)
    for place, id in enumerate(ids):
        objects = [object_xml("cat", (5, 6, 30, 40)), object_xml("dog", (20, 10, 60, 45))]
        text = annotation_xml(*objects[: 1 + place % 2])
        (root / "Annotations" / f"{id}.xml").write_text(text)
        image = rng.integers(0, 256, (50, 64, 3), np.uint8)
        cv2.imwrite(str(root / "JPEGImages" / f"{id}.png"), image)
    (root / "labels.txt").write_text("cat\ndog\n")
    return root


def config(root):
    """Of six steps, with a checkpoint after every second."""
    c = get_defaults()
    c.input_size = 32
    c.data.root = str(root)
    c.data.train = build.group("source", "voc", root=c.data.get_ref("root"), splits="train")
    c.data.eval = build.group("source", "voc", root=c.data.get_ref("root"), splits="test")
    c.data.max_boxes = 4
    c.data.threads = 0
    c.augment = build.group("augment", "none")
    c.model = build.group("detector", "tests.own_detector:GridDetector", width=8)
    c.train.batch_size = c.eval.batch_size = 2
    c.train.steps = 6
    c.train.save_every = 2
    c.train.keep = 9
    c.train.ema = 0.9
    c.optimizer.lr = 0.01
    c.eval.images = 0
    c.eval.analyse = False
    c.parallel.devices = 1
    return c


def train(folder):
    """The run, in a folder beside its data."""
    run.train(config(make_data(folder / "data")), folder / "run")
    return folder / "run"
