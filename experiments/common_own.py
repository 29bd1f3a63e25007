"""What the experiments on one's own images share: what a folder holds, and what its data decide.

Every choice is said in a line that begins with the argument by which it is made otherwise.
"""

import contextlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from experiments.common import pick
from jdet import build
from jdet.analysis import box_coverage, box_search, orientation, scales
from jdet.analysis.set_problems import problems
from jdet.config import apply_settings, get_defaults, image_settings
from jdet.config.ranges import RANGES
from jdet.data.discover import discover
from jdet.data.objects import SetObjects, check_any, read_set
from jdet.data.sources.holdout import Holdout
from jdet.data.sources.label_text import read_text
from jdet.data.transforms.warp import Warp
from jdet.types import ConfigError, DataError, ImageKind

OWN_DATA = dict(root="", layout="", image_root="", classes="", coordinates="")
"""Arguments that say where one's own images are, and what a labelling tool left open: the layout where
a folder has several, the folder of the images, the classes (``cat+dog``, or a text file with one a
line), how boxes count pixels."""

FLIPS = {
    "none": (False, False, False),
    "mirror": (True, False, False),
    "both": (True, True, False),
    "all": (True, True, True),
}
"""Values of ``flips`` besides "auto": mirrored, upside down, turned by quarters."""

ZOOMS = {"full": (0.3, 0.5), "crops": (0.3, 0.0), "little": (0.6, 0.0), "none": (1.0, 0.0)}
"""Values of ``zoom`` besides "auto": smallest crop, probability of zooming out."""

OWN = OWN_DATA | dict(
    cpu=False,
    size=0,
    batch=0,
    steps=0,
    minutes=0.0,
    compile=False,
    lr=0.05,
    seed=0,
    flips="auto",
    zoom="auto",
    balance="auto",
    fit=True,
)
"""Arguments of the experiments on one's own images. ``minutes`` of training decide on the steps, with
``compile`` those of compiling among them; ``fit`` fits default boxes, levels and anchors."""

TILED = dict(tile="auto")
"""Argument of those whose detectors can see images in tiles: a side in pixels, "none" or "auto"."""

MOST_OBJECTS = 10_000
"""Largest ``data.max_boxes``."""

RARE = 0.1
"""Share of the images under which those with a class come more often (LVIS: 0.001, of many images)."""

HELD_OUT = (10, 5, 3, 2, 4, *range(6, 100))
"""One image in so many is held out where there is one split: the first that leaves no side empty."""


class OwnSet(NamedTuple):
    """A folder as it was found.

    Attributes:
        config: defaults with the data of the folder, and what the command line sets of them.
        source: the training images.
        objects: of them.
        evaluation: objects of the images to evaluate on.
    """

    config: Any
    source: Any
    objects: SetObjects
    evaluation: SetObjects

    @property
    def smallest(self):
        """The tenth percentile of the objects' relative sizes."""
        return float(np.quantile(self.objects.relative, 0.1))


def own_images(arg, name):
    """Defaults with the data of a folder, and what the command line sets of them.

    Images that have neither one channel nor three are taken as they are; all that are not 8-bit RGB are
    normalised by what is measured on them, and change in the range of their values.

    Args:
        arg: with ``seed`` and the keys of ``OWN_DATA``.
        name: of the experiment.

    Raises:
        DataError: there is nothing to train on, or nothing to evaluate on.
    """
    c = get_defaults()
    c.seed = arg.seed
    c.data.root = arg.root
    c.data.on_error = "skip"
    apply_settings(c)
    if not c.data.root:
        raise ConfigError(f"name your folder: --config=experiments/{name}.py:root=PATH")
    found = discover(c.data.root, arg.layout)
    c.eval.metrics = ("voc",) if found.shape == "voc" else ("coco", "voc")
    sides = [side for side in (found.train, found.evaluation) if side]
    root, values = c.data.get_ref("root"), source_values(arg)
    groups = [build.folder_group(found.shape, root, side, **values) for side in sides]
    c.data.train, c.data.eval = groups[0], groups[-1]
    apply_settings(c)  # again: the sources have keys now
    where = c.data.train, "config.data.train", c.data.on_error
    source = build.source(*where, image_settings(c))
    seen = source.image_survey
    if c.data.image.channels == "rgb" and len(seen.strays) == seen.known:
        c.data.image.channels = "auto"  # none of them has one channel or three
        source = build.source(*where, image_settings(c))
    objects = read_set(source)
    check_any(objects, source)
    c.data.max_boxes = room(objects.most)
    if not build.normalise.eight_bit_rgb(ImageKind.of(source)):
        if c.data.normalise.by == "constants":
            c.data.normalise.by = "data"
        c.augment = build.group("augment", "intensity")
    if found.evaluation is not None:
        kind = image_settings(c).for_kind(ImageKind.of(source))
        other = build.source(c.data.eval, "config.data.eval", c.data.on_error, kind)
        return OwnSet(c, source, objects, read_set(other))
    c.data.holdout = unsaid = RANGES["data.holdout"].high
    apply_settings(c)
    if c.data.holdout == unsaid:
        c.data.holdout = hold_out(source, c.data.root)
    if not c.data.holdout:  # asked for: evaluated on what is trained on
        return OwnSet(c, source, objects, objects)
    part = Holdout(source, c.data.holdout, True)
    logging.info(
        "--config.data.holdout=%d: the folder has one split; %d of its %d images are held out to evaluate",
        *(c.data.holdout, len(part), len(source)),
    )
    rest = read_set(Holdout(source, c.data.holdout, False))
    return OwnSet(c, source, rest, read_set(part))


def room(most):
    """Rows for so many objects, a power of two."""
    return min(int(2 ** np.ceil(np.log2(max(most, 8)))), MOST_OBJECTS)


def hold_out(source, root):
    """One image in how many is held out to evaluate on.

    Raises:
        DataError: no share leaves both sides an image.
    """
    for every in HELD_OUT:
        with contextlib.suppress(DataError):
            Holdout(source, every, True)
            return every
    raise DataError(
        f"{root} has {len(source)} labelled image(s) and no split to evaluate on, and none can be held "
        "out; label more images (from some hundred on a detector can be learnt), or see whether these can "
        "be learnt by heart: --config.data.holdout=0"
    )


def decide(own, arg, low, high, *, quarters=False):
    """Sizes, tiles, zooming, crops, flips and class balance by the data; each said in a line.

    Args:
        own: of ``own_images``; its config is changed, but for ``input_size`` and ``resize``.
        arg: of ``OWN``, perhaps with ``TILED``.
        low: least side of the network's input.
        high: largest.
        quarters: inputs are squares: images can be turned by quarters.

    Returns:
        The side of the network's input, pixels.
    """
    c, objects, names = own.config, own.objects, own.source.class_names
    tile = given_tile(arg)
    if tile is None and c.data.tile.side:  # --config.data.tile.side
        tile = c.data.tile.side
    found = scales.choose(objects, low, high, side=arg.size, tile=tile)
    logging.info("size=%d: %s", found.side, found.why[0])
    if "tile" in arg:
        logging.info("tile=%s: %s", found.tile or "none", found.why[1])
    c.data.tile.side = c.eval.tile.side = found.tile
    if found.tile:
        c.eval.tile.overlap = found.overlap
        c.data.max_boxes = room(found.crowd)
    _zoom(c, arg, found)
    _flip(c, arg, objects, names, quarters, square=quarters and found.tile > 0)
    _balance(c, arg, objects, names)
    apply_settings(c)  # what is typed counts before anything follows from these
    for line in problems(objects, own.evaluation, names, found):
        logging.warning("%s", line)
    return found.side


def given_tile(arg):
    """Side of the tiles; None where the data are to say, 0 for whole images."""
    text = arg.get("tile", "none")
    if text == "auto":
        return None
    if text != "none" and not (text.isdecimal() and 32 <= int(text) <= 4096):
        raise ConfigError(f"tile={text}: give a side of 32 to 4096 pixels, tile=none or tile=auto")
    return 0 if text == "none" else int(text)


def _zoom(c, arg, found):
    pick("zoom", arg.zoom, ("auto", *ZOOMS))
    chosen, why = (found.crop_scale, found.expand), found.why[2]
    if arg.zoom != "auto":
        chosen, why = ZOOMS[arg.zoom], "given"
    c.augment.crop_scale, c.augment.expand = chosen
    c.augment.crop = chosen[0] < 1
    name = next(name for name, values in ZOOMS.items() if values == chosen)
    what = f"crops down to {chosen[0]:g} of a side" if c.augment.crop else "no crops"
    logging.info("zoom=%s: %s, %szoomed out; %s", name, what, "" if chosen[1] else "not ", why)


def _flip(c, arg, objects, names, quarters, square):
    pick("flips", arg.flips, ("auto", *FLIPS))
    found = orientation.look(objects, names, square=square)
    chosen = found[:3] if arg.flips == "auto" else FLIPS[arg.flips]
    chosen = (*chosen[:2], chosen[2] and quarters)
    c.augment.flip, c.augment.flip_vertical, c.augment.rotate = (0.5 * each for each in chosen)
    name = next((name for name, values in FLIPS.items() if values == chosen), "auto")
    also = "" if quarters else "; inputs that keep proportions are not turned"
    logging.info("flips=%s: %s", name, "given" if arg.flips != "auto" else found.describe() + also)


def _balance(c, arg, objects, names):
    shown = np.unique(np.stack([objects.image, objects.labels]), axis=1)[1]
    share = np.bincount(shown, minlength=len(names)) / max(len(objects.counts), 1)
    rare = np.flatnonzero((share > 0) & (share < RARE))
    text = arg.balance
    if text == "auto":
        text, why = "none", f"every class is in {RARE:.0%} of the images or more"
        if len(rare) and len(names) > 1:
            least = rare[share[rare].argmin()]
            text = f"{RARE:g}"
            why = f"{len(rare)} classes are rarer, {names[least]} is in {share[least]:.1%} of the images"
    else:
        why = "given"
    try:
        c.data.repeat_threshold = 0.0 if text == "none" else float(text)
    except ValueError:
        raise ConfigError(
            f"balance={text}: give the share of the images from which on a class is not repeated, such as "
            "balance=0.1, balance=none or balance=auto"
        ) from None
    logging.info("balance=%s: %s", text, why)


def fit_default_boxes(c, source, same_size):
    """Gives an SSD the default boxes and levels that its objects need, where its own leave many unmatched.

    Args:
        c: with the model; changed in place.
        source: training images.
        same_size: keep the input size.
    """
    seen = c.copy_and_resolve_references()
    build.look_at_images(seen, source)
    detector = build.detector(seen, source.class_names)
    objects = box_coverage.sampler(source, Warp(c.input_size), tile=build.train_tile(c))(
        keep_ignored=detector.train_ignored
    )
    found = box_search.fit(objects, detector, len(source.class_names), same_size=same_size)
    if found is None:
        return
    c.input_size, c.model.taps, *ratios = found.setting
    c.model.first_ratio, c.model.min_ratio, c.model.max_ratio = ratios
    logging.info(
        "Default boxes fitted to the data: input_size=%d, taps=%s, first_ratio=%g, min_ratio=%g, "
        "max_ratio=%g; %.1f %% of the objects of a class match one in the mean, %.1f %% of the worst",
        c.input_size,
        "+".join(c.model.taps),
        *ratios,
        100 * np.nanmean(found.recall),
        100 * np.nanmin(found.recall),
    )


def source_values(arg):
    """Fields of both sources from the arguments that are given."""
    values = {key: arg[key] for key in ("image_root", "coordinates") if arg[key]}
    if arg.classes:
        file = Path(arg.classes).expanduser()
        lines = read_text(file).split("\n") if file.is_file() else arg.classes.split("+")
        values["classes"] = tuple(line.strip() for line in lines if line.strip())
    return values


def room_for_detections(c, most):
    """As many detections of an image as its objects may need, where the model's own number is smaller.

    There are half as many again as rows for objects, which are one to two times the most of an image or
    tile, and twice that enter NMS. COCO's AP is then taken at all of an image, and not at 100.

    Args:
        c: with data, model and metrics; changed in place.
        most: objects of an image.
    """
    wanted = c.data.max_boxes * 3 // 2
    whole = max(wanted, room(most) * 3 // 2) if c.eval.tile.side else wanted
    coco = any(name.startswith("coco") for name in c.eval.metrics)
    if coco and whole > (100 if c.eval.tile.side else c.model.max_detections):
        c.eval.coco.max_detections = (10, 100, whole)
    if wanted <= c.model.max_detections:
        return
    c.model.max_detections = wanted
    c.model.pre_nms = max(c.model.pre_nms, 2 * wanted)
    for key in (
        ("pre_nms_train", "pre_nms", "proposals_train", "proposals") if "rpn" in c.model else ()
    ):
        c.model.rpn[key] = max(c.model.rpn[key], wanted)
    logging.info(
        "Images with many objects: data.max_boxes=%d, model.max_detections=%d, model.pre_nms=%d%s",
        *(c.data.max_boxes, wanted, c.model.pre_nms),
        f"; COCO's AP counts {whole} detections an image" * coco,
    )


def own_recipe(c, arg, own):
    """Limits, length of the run and optimisation for the training images of ``own``.

    With ``minutes`` the number of steps is provisional until the first ones are timed.
    """
    room_for_detections(c, own.objects.most)
    c.train.batch_size = c.optimizer.reference_batch = arg.batch or (16 if arg.cpu else 32)
    passes, low, high = (60, 1200, 6000) if arg.cpu else (200, 6000, 100_000)
    steps = int(np.clip(len(own.source) * passes // c.train.batch_size, low, high))
    c.train.steps = arg.steps or steps
    c.train.eval_every = max(c.train.steps // 4, 1)
    if arg.minutes:
        if arg.steps:
            raise ConfigError(f"steps={arg.steps} and minutes={arg.minutes:g}: give one of them")
        c.train.budget.minutes, c.train.budget.evaluations = arg.minutes, 4
        c.train.budget.counts = "all" if arg.compile else "steps"
    c.train.ema = 0.995 if arg.cpu else 0.999
    c.optimizer.lr = arg.lr
    c.optimizer.schedule = "cosine"
    c.optimizer.warmup = min(100, c.train.steps // 10)
