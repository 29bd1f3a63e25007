"""ScratchDet on your own pictures: name a folder, the rest is read from the data.

    python -m jdet.main --config=experiments/scratchdet_custom.py:root=PATH --workdir=runs/mine
    python -m jdet.main --config=experiments/scratchdet_custom.py:root=PATH,cpu --workdir=runs/mine

PATH is a folder of VOC shape (``Annotations/``, ``JPEGImages/``, ``ImageSets/Main/*.txt``) or of COCO
shape (JSON files with "train" and "val", "valid" or "test" in their names, as COCO itself or an
export of a labelling tool has them). Where there is only one split, a tenth of it is held out.

Derived from the data: classes, size of the smallest default boxes (from the tenth percentile of object
sizes), input size (512 pixels where a tenth of the objects would be under 12 pixels at 300) and the
length of the run (every picture about 200 times, 6,000 to 100,000 steps). ``cpu`` trains a half-width
Root-ResNet-18 at 128 pixels instead, 1,200 to 6,000 steps. All can be set: size=, batch=, steps=, lr=.

Cost and AP depend on the data; BCCD gives a feeling (``scratchdet_bccd.py``).
"""

from pathlib import Path

import numpy as np

from jdet import build
from jdet.config import get_defaults, parse_arg
from jdet.types import ConfigError


def get_config(arg=""):
    arg = parse_arg(arg, root="", cpu=False, size=0, batch=0, steps=0, lr=0.05, seed=0)
    if not arg.root:
        raise ConfigError("name your folder: --config=experiments/scratchdet_custom.py:root=PATH")
    c = get_defaults()
    c.seed = arg.seed
    c.data.root = arg.root
    c.data.train, evaluation, c.eval.metrics = find_data(Path(arg.root))
    c.data.eval = evaluation or c.data.train.copy_and_resolve_references()
    c.data.holdout = 0 if evaluation else 10
    c.data.on_error = "skip"

    source = build.source(c.data.train, "config.data.train", c.data.on_error)
    scales, crowd = statistics(source)
    smallest = float(np.clip(np.quantile(scales, 0.1), 0.04, 0.10))
    c.data.max_boxes = int(2 ** np.ceil(np.log2(max(crowd, 8))))

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

    c.train.batch_size = c.optimizer.reference_batch = arg.batch or (16 if arg.cpu else 32)
    passes, low, high = (60, 1200, 6000) if arg.cpu else (200, 6000, 100_000)
    steps = int(np.clip(len(source) * passes // c.train.batch_size, low, high))
    c.train.steps = arg.steps or steps
    c.train.eval_every = max(c.train.steps // 4, 1)
    c.train.ema = 0.995 if arg.cpu else 0.999
    c.optimizer.lr = arg.lr
    c.optimizer.schedule = "cosine"
    c.optimizer.warmup = min(100, c.train.steps // 10)
    return c


def find_data(root):
    """Source groups of training and evaluation (None: only one split), and the metrics to report."""
    lists = root / "ImageSets" / "Main"
    if (root / "Annotations").is_dir():
        names = {path.stem for path in lists.glob("*.txt")}
        for train, evaluation in (
            ("trainval", "test"), ("train", "test"), ("train", "val"), ("trainval", ""), ("train", ""),
        ):  # fmt: skip
            if train in names and (not evaluation or evaluation in names):
                sides = [
                    build.group("source", "voc", root=str(root), splits=split) if split else None
                    for split in (train, evaluation)
                ]
                return *sides, ("voc",)
        raise ConfigError(f"{lists} has no train.txt or trainval.txt; list the pictures there")
    files = sorted(p for p in root.rglob("*.json") if p.stat().st_size > 2)

    def named(*words):
        return next((p for word in words for p in files if word in str(p.relative_to(root))), None)

    train, evaluation = (
        named("train") or (files[0] if len(files) == 1 else None),
        named("val", "test"),
    )
    if not train:
        raise ConfigError(
            f"{root} is neither of VOC shape (Annotations/, ImageSets/Main/) nor of COCO shape (JSON "
            "files with 'train' and 'val' in their names)"
        )
    sides = [
        build.group("source", "coco", annotation_file=str(file)) if file else None
        for file in (train, evaluation)
    ]
    return *sides, ("coco", "voc")


def statistics(source):
    """Object sizes relative to their pictures (square root of the area), and most objects in one."""
    scales, counts = [], [1]
    for i in range(len(source)):
        example, size = source[i], source.image_size(i)
        counts.append(len(example.boxes))
        if size and len(example.boxes):
            height, width = size
            sides = (example.boxes[:, 2:] - example.boxes[:, :2]) / (width, height)
            scales.append(np.sqrt(sides.prod(-1)))
    if not scales:
        raise ConfigError("the training pictures carry no boxes; there is nothing to learn")
    return np.concatenate(scales), max(counts)
