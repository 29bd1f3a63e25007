"""Remedies of experiment files and of the classes that a config names."""

import sys

from experiments import common_transformers
from jdet import build
from jdet import config as config_lib
from jdet.build import normalise
from jdet.build.class_weights import class_weights
from jdet.config import get_defaults, set_found
from jdet.config.experiment import parse_arg
from jdet.train import loggers
from jdet.types import ImageKind
from tests.data.transforms.test_own_resize import Folder
from tests.remedies.rows import Elsewhere, of_config, row, type_in
from tests.test_experiments import ROOT, load
from tests.tiny_backbone import TINY

PHASED, CLI, PARTS = "jdet/config/phased.py", "jdet/cli.py", "jdet/build/detector_parts.py"

CHECKS = "jdet/config/checks.py"

DATA, COMMON = "jdet/build/data.py", "experiments/common.py"


def detector(side=64, classes=("a",), **model):
    config = get_defaults()
    config.input_size = side
    given = {"name": "ssd", "backbone": {}, "neck": {"name": "residual_extras", "width": 0.125}}
    given |= model
    name, body, neck = given.pop("name"), given.pop("backbone"), given.pop("neck")
    body = build.group("backbone", **{"name": TINY, "stages": ("c3", "c4"), **body})
    config.model = build.group(
        "detector", name, backbone=body, neck=build.group("neck", **neck), **given
    )
    build.detector(config, classes)


def grid(edit=lambda config: None):
    config = get_defaults()
    config.model = build.group("detector", "tests.own_detector:GridDetector")
    edit(config)
    return build.detector(config, ("a",))


def weighted(by):
    def edit(config):
        weights = config.train.class_weights
        weights.by, weights.factors = by, (2.0,) if by == "given" else ()

    return edit


def resized(name):
    def edit(config):
        config.resize = build.group("resize", name)

    return edit


class Told(Folder):
    """A source of one's own that takes the settings of images."""

    def __init__(self, image_settings):
        self.image_settings = image_settings


def source(name="Folder", channels="gray"):
    config = get_defaults()
    config.data.image.channels = channels
    module = Folder.__module__ if name == "Folder" else __name__
    made = build.group("source", f"{module}:{name}")
    build.source(made, "config.data.train", image=config_lib.image_settings(config))


def ids(given):
    config = get_defaults()
    config.class_names, config.category_ids = ("a", "b"), given
    source = type("Source", (), {"category_ids": (3, 7)})
    assert build.data.category_ids(config, source) == (3, 7)


def constants(by):
    config = get_defaults()
    config.model = build.group("detector", "tests.own_detector:GridDetector")
    kind = ImageKind(1, "gray", "float32", (0.25, 0.26))
    set_found(config, kind, 0.0, "")
    config.data.normalise.by = by
    return "\n".join(normalise.describe(config, kind))


def typed_constants():
    config = get_defaults()
    type_in(config, "--config.data.normalise.by=data")
    return constants(config.data.normalise.by)


def deleted(group, key):
    """A group that a field was taken out of by hand."""
    config = get_defaults()
    config.model = build.group(
        "detector",
        "ssd",
        backbone=build.group("backbone", TINY, stages=("c3", "c4")),
        neck=build.group("neck", "residual_extras", width=0.125),
    )
    config.input_size = 64
    if key:
        del config[group][key]
    build.detector(config, ("a",))


def arms(name, argument):
    return load(ROOT / "experiments" / f"{name}.py").get_config(argument)


def channels(**model):
    def edit(config):
        set_found(config, ImageKind(), 0.0, "")
        config.model.update(model)

    grid(edit)


def named(kind, name):
    """A group of the config named anything, as someone may write it by hand."""
    config = get_defaults()
    config.input_size = 64
    config[kind] = build.group(kind, name)
    getattr(build, kind)(config)


def model(name):
    config = get_defaults()
    config.model = {"name": name}
    if name != "tests.tiny_backbone:Tiny":
        config.model = build.group("detector", name)
    build.detector(config, ("a",))


def small(backbone):
    config = get_defaults()
    config.model = common_transformers.transformer_model("fcos", backbone, "he")
    common_transformers.shrink(config)


def mine(folder, name):
    path = folder / name
    path.write_text(
        'from jdet.config import get_defaults\nget_config = lambda arg="": get_defaults()\n'
    )
    config_lib.from_file(str(path))


def beside(folder, there):
    """A class of a module that lies in a folder on the path."""
    name = f"mine_{there}".lower()
    (folder / f"{name}.py").write_text("class Mine:\n    pass\n")
    sys.path[:0] = [str(folder)] * there
    try:
        build.resolve("detector", f"{name}:Mine")
    finally:
        del sys.path[:there]


def make_warp(**more):
    build.make("resize", {"name": "warp", **more}, "config.resize", input_size=64)


ROWS = [
    row(
        "jdet/config/experiment.py",
        "takes {}, such as {}",
        lambda arg: parse_arg(arg, steps=3),
        {"arg": "steps=a"},
        {"arg": "steps=3"},
    ),
    row(
        "jdet/config/experiment.py",
        "is no experiment file; it must end in .py",
        mine,
        {"name": "mine.txt"},
        {"name": "mine.py"},
    ),
    of_config(
        "jdet/config/images.py",
        "say it: --config.data.image.channels=3",
        config_lib.image_kind,
        {"data__image__channels": "auto"},
        {"data__image__channels": "3"},
    ),
    of_config(
        CHECKS,
        "set that to 'given', or the values to ()",
        config_lib.validate,
        {"train__class_weights__factors": (1.0, 2.0)},
        {"train__class_weights__by": "given"},
        {"train__class_weights__factors": ()},
    ),
    of_config(
        CHECKS,
        "give a number for each class",
        config_lib.validate,
        {"train__class_weights__by": "given"},
        {"train__class_weights__factors": (1.0, 2.0)},
    ),
    of_config(
        "jdet/build/class_weights.py",
        "give one for each",
        lambda config: class_weights(config, 2) and None,
        {"train__class_weights__by": "given", "train__class_weights__factors": (1.0,)},
        {"train__class_weights__factors": (1.0, 2.0)},
    ),
    row(
        PARTS,
        "config.train.class_weights.by='none'",
        lambda by: grid(weighted(by)) and None,
        {"by": "given"},
        {"by": "none"},
    ),
    row(
        "jdet/train/loggers.py",
        "it must be names, such as ('wandb',)",
        lambda names: loggers.libraries(names) and None,
        {"names": "wandb"},
        {"names": ()},
    ),
    Elsewhere(
        "jdet/train/loggers.py",
        "or pip install --editable",
        "tests/train/test_loggers.py::test_what_cannot_be_used_is_refused",
        "pip install mlflow, or pip install --editable",
    ),
    row(
        "jdet/build/groups.py",
        "Where the class is changed in Python, make the group again",
        lambda again: make_warp(**build.group("resize", "warp") if again else {"side": 3}),
        {"again": False},
        {"again": True},
    ),
    row(
        "jdet/build/table.py",
        "give your own as 'module:Class'",
        lambda name: build.resolve("detector", name),
        {"name": "grid"},
        {"name": "tests.own_detector:GridDetector"},
        {"name": "fcos"},
    ),
    row(
        "jdet/build/table.py",
        "its module must lie beside the experiment or in a folder on PYTHONPATH",
        beside,
        {"there": False},
        {"there": True},
    ),
    row(
        DATA,
        "is not a resize; derive the class from",
        lambda name: named("resize", name),
        {"name": "tests.tiny_backbone:Tiny"},
        {"name": "tests.data.transforms.test_own_resize:Jitter"},
    ),
    row(
        DATA,
        "is not an augmentation; derive the class from",
        lambda name: named("augment", name),
        {"name": "tests.tiny_backbone:Tiny"},
        {"name": "tests.data.transforms.test_own_resize:OnlyResize"},
    ),
    row(
        DATA,
        "leave it out, and let the class say what its images are",
        source,
        {"channels": "gray"},
        {"channels": "rgb"},
    ),
    row(
        DATA,
        "or give the class a field `image_settings`",
        source,
        {"name": "Folder"},
        {"name": "Told"},
    ),
    row(DATA, "leave it empty to take what the data has", ids, {"given": (1, 2)}, {"given": ()}),
    row(
        "jdet/build/normalise.py",
        "--config.data.normalise.by=data measures them",
        lambda typed: typed_constants() if typed else constants("constants"),
        {"typed": False},
        {"typed": True},
    ),
    row(
        PARTS,
        "is not a detector; derive the class from",
        model,
        {"name": "tests.tiny_backbone:Tiny"},
        {"name": "tests.own_detector:GridDetector"},
    ),
    row(
        PARTS,
        "; set it to 'warp'",
        lambda name: grid(resized(name)),
        {"name": "keep_ratio"},
        {"name": "warp"},
    ),
    row(
        PARTS,
        "or measure them, --config.data.normalise.by=data",
        channels,
        {"mean": (1.0, 2.0)},
        {"mean": (1.0,)},
        {"mean": (1.0, 2.0, 3.0)},
    ),
    row(
        PARTS,
        "which fills everything in",
        deleted,
        {"group": "model", "key": "backbone"},
        {"key": ""},
    ),
    row(
        PARTS,
        "name levels among",
        detector,
        {"backbone": {"stages": ("c1", "c2")}},
        {"taps": ("c1", "c2")},
    ),
    row(
        COMMON,
        "gn names both norms; leave out norm= and head_norm=, or gn",
        lambda arg: arms("scratchdet_coco", arg),
        {"arg": "gn,norm=none"},
        {"arg": "gn"},
        {"arg": "norm=none"},
    ),
    row(
        COMMON,
        "and steps={}: give one of them",
        lambda arg: arms("megdet_voc", arg),
        {"arg": "epochs=2,steps=3"},
        {"arg": "epochs=2"},
        {"arg": "steps=3"},
    ),
    row(
        "experiments/common_dense.py",
        "that are not warped; drop warp",
        lambda arg: arms("retinanet_coco", arg),
        {"arg": "warp,multiscale"},
        {"arg": "multiscale"},
    ),
    row(
        "experiments/common_rcnn.py",
        "drop multiscale and warp",
        lambda arg: arms("mask_rcnn_coco", arg),
        {"arg": "schedule=lsj100,warp"},
        {"arg": "schedule=lsj100"},
    ),
    row(
        "experiments/direct_mask_coco.py",
        "leave out p, ft and data, or tenth",
        lambda arg: arms("direct_mask_coco", arg),
        {"arg": "tenth,p=3"},
        {"arg": "tenth"},
        {"arg": "p=3"},
    ),
    row(
        "experiments/common_transformers.py",
        "give backbone=c2c2t6t2, swin_t or another",
        small,
        {"backbone": "resnet50"},
        {"backbone": "c2c2t6t2"},
        {"backbone": "swin_t"},
    ),
    row(
        "experiments/dsod_ablation.py",
        "row=12,coco=runs/dsod_coco",
        lambda arg: arms("dsod_ablation", arg),
        {"arg": "row=12"},
        {"arg": "row=12,coco=runs/dsod_coco"},
    ),
]
