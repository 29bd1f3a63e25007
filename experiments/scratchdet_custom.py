"""ScratchDet on your own images: name a folder, the rest is read from the data.

    python -m jdet.main --config=experiments/scratchdet_custom.py:root=PATH --workdir=runs/mine
    python -m jdet.main --config=experiments/scratchdet_custom.py:root=PATH,cpu --workdir=runs/mine

PATH is a folder of VOC shape (``Annotations/``, ``JPEGImages/``, ``ImageSets/Main/*.txt``) or of COCO
shape: JSON files with "train" and "val", "valid" or "test" as a word of their names or folders, as COCO
itself or an export of a labelling tool has them (``instances_train2017.json``,
``train/_annotations.coco.json``). Where there is only one split, a tenth of it is held out.

Derived from the data: classes, size of the smallest default boxes (from the tenth percentile of object
sizes), input size (512 pixels where a tenth of the objects would be under 12 pixels at 300) and the
length of the run (every image about 200 times, 6,000 to 100,000 steps). ``cpu`` trains a half-width
Root-ResNet-18 at 128 pixels instead, 1,200 to 6,000 steps. All can be set: size=, batch=, steps=, lr=.

Source: ours
Paper: –
Ours: depends on the data; ``scratchdet_bccd.py`` gives a feeling
Cost: depends on the data
"""

import mmap
import re
from pathlib import Path

import numpy as np

from jdet import build
from jdet.config import get_defaults, parse_arg
from jdet.types import ConfigError


def get_config(arg=""):
    arg = parse_arg(arg, root="", cpu=False, size=0, batch=0, steps=0, lr=0.05, seed=0)
    c, source, smallest = own_images(arg, "scratchdet_custom")
    smallest = float(np.clip(smallest, 0.04, 0.10))

    c.input_size = arg.size or (128 if arg.cpu else 300 if smallest * 300 >= 12 else 512)
    depth, width = (18, 0.5) if arg.cpu else (34, 1.0)
    c.model = build.group(
        "detector",
        "ssd",
        backbone=build.group("backbone", "root_resnet", depth=depth, width=width),
        neck=build.group("neck", "residual_extras", width=width),
        first_ratio=round(smallest, 3),
        min_ratio=round(2 * smallest, 2),
    )

    recipe(c, arg, len(source))
    return c


def own_images(arg, name):
    """Defaults with the data of a folder.

    Args:
        arg: with ``root`` and ``seed``.
        name: of the experiment.

    Returns:
        The config, the source of training, and the tenth percentile of the object sizes: square roots of
        the areas, relative to their images.
    """
    if not arg.root:
        raise ConfigError(f"name your folder: --config=experiments/{name}.py:root=PATH")
    c = get_defaults()
    c.seed = arg.seed
    c.data.root = arg.root
    splits, c.eval.metrics = find_data(Path(arg.root), c.data.get_ref("root"))
    c.data.train, c.data.eval = splits[0], splits[-1]
    c.data.holdout = 0 if len(splits) == 2 else 10
    c.data.on_error = "skip"
    source = build.source(c.data.train, "config.data.train", c.data.on_error)
    scales, crowd = statistics(source)
    c.data.max_boxes = int(2 ** np.ceil(np.log2(max(crowd, 8))))
    return c, source, float(np.quantile(scales, 0.1))


def recipe(c, arg, images):
    """Length of the run and optimisation, for so many training images."""
    c.train.batch_size = c.optimizer.reference_batch = arg.batch or (16 if arg.cpu else 32)
    passes, low, high = (60, 1200, 6000) if arg.cpu else (200, 6000, 100_000)
    steps = int(np.clip(images * passes // c.train.batch_size, low, high))
    c.train.steps = arg.steps or steps
    c.train.eval_every = max(c.train.steps // 4, 1)
    c.train.ema = 0.995 if arg.cpu else 0.999
    c.optimizer.lr = arg.lr
    c.optimizer.schedule = "cosine"
    c.optimizer.warmup = min(100, c.train.steps // 10)


SPLITS = {
    "train": {"train", "training"},
    "trainval": {"trainval"},
    "val": {"val", "valid", "validation"},
    "test": {"test", "testing"},
}
OTHER_TASKS = {"captions", "keypoints", "panoptic"}


def find_data(root, where):
    """Source groups of training and, where there is a second split, evaluation; metrics to report.

    The groups refer to ``where``, the config's ``data.root``, and so follow it.
    """
    if (root / "Annotations").is_dir():
        lists = root / "ImageSets" / "Main"
        names = {path.stem for path in lists.glob("*.txt")}
        pairs = (
            ("trainval", "test"),
            ("train", "test"),
            ("train", "val"),
            ("trainval",),
            ("train",),
        )
        pair = next((pair for pair in pairs if names.issuperset(pair)), None)
        if not pair:
            raise ConfigError(f"{lists} has no train.txt or trainval.txt; list the images there")
        return [build.group("source", "voc", root=where, splits=split) for split in pair], ("voc",)

    files = annotation_files(root)
    pairs = (("train", "val"), ("train", "test"), ("trainval", "test"), ("trainval",), ("train",))
    pair = next((pair for pair in pairs if files.keys() >= set(pair)), None)
    pair = tuple(files) if len(files) == 1 else pair
    if not pair:
        raise ConfigError(
            f"{root} is neither of VOC shape (Annotations/, ImageSets/Main/) nor of COCO shape (JSON "
            "files with boxes, and 'train' and 'val' as words in their names)"
        )
    groups = [
        build.group("source", "coco", annotation_file=where + f"/{files[key]}", keep_masks=False)
        for key in pair
    ]
    return groups, ("coco", "voc")


def annotation_files(root):
    """Split (the path itself where it names none) → annotation file with boxes, below ``root``.

    Of several, one with ``instances`` in its name goes first, then one higher up.
    """
    found = {}
    paths = [path.relative_to(root) for path in root.rglob("*.json") if path.is_file()]
    for path in sorted(paths, key=lambda p: ("instances" not in words(p.name), len(p.parts), p)):
        split = split_of(path) or path.as_posix()
        if split not in found and not OTHER_TASKS & words(path.name) and has_boxes(root / path):
            found[split] = path.as_posix()
    return found


def words(text):
    """``instances_train2017.json`` → instances, train, 2017, json."""
    return set(re.findall(r"[a-z]+|[0-9]+", text.lower()))


def split_of(path):
    """The split that a file's name, or else the nearest of its folders, speaks of; "" for none."""
    for part in reversed(path.parts):
        named = [split for split, names in SPLITS.items() if names & words(part)]
        if named:
            return "trainval" if set(named) == {"train", "val"} else named[0]
    return ""


def has_boxes(path):
    """Whether a JSON file has what COCO's detection files have; nothing is parsed."""
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return all(text.find(key) >= 0 for key in (b'"images"', b'"annotations"', b'"bbox"'))


def statistics(source):
    """Object sizes relative to their images (square root of the area), and most objects in one."""
    scales, counts = [], [1]
    for i in range(len(source)):
        example, size = source[i], source.image_size(i)
        counts.append(len(example.boxes))
        if size and len(example.boxes):
            height, width = size
            sides = (example.boxes[:, 2:] - example.boxes[:, :2]) / (width, height)
            scales.append(np.sqrt(sides.prod(-1)))
    if not scales:
        raise ConfigError("the training images carry no boxes; there is nothing to learn")
    return np.concatenate(scales), max(counts)
