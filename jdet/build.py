"""THE table: from the names in a config to the classes of jdet.

``{"name": "root_resnet", "depth": 34}`` becomes ``ResNet(depth=34)``: ``name`` picks the row, every
other key is a field of the class. ``"my_package.my_module:MyClass"`` is taken as well, so a class of
your own needs no registration.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict, config_dict

from jdet.backbones.dsod import DSOD
from jdet.backbones.resnet import ResNet
from jdet.backbones.vgg import VGG16
from jdet.config import nearest
from jdet.data.sources.coco import CocoSource
from jdet.data.sources.holdout import Holdout
from jdet.data.sources.shapes import ShapesSource
from jdet.data.sources.tfds import TfdsSource
from jdet.data.sources.voc import VocSource
from jdet.data.transforms.augment import Augment
from jdet.data.transforms.keep_ratio import KeepRatio
from jdet.data.transforms.resize import Resize
from jdet.data.transforms.ssd import SSDAugment
from jdet.data.transforms.warp import Warp
from jdet.detectors.atss import ATSS
from jdet.detectors.fcos import FCOS
from jdet.detectors.retinanet import RetinaNet
from jdet.detectors.ssd import SSD, tap_geometry
from jdet.evaluation.coco_ap import CocoEvaluator
from jdet.evaluation.voc_ap import VocEvaluator
from jdet.necks.dense_prediction import DensePrediction
from jdet.necks.fpn import FPN
from jdet.necks.ssd_extras import BottleneckExtras, ResidualExtras, SSDExtras
from jdet.nn.norm import KINDS, Norm
from jdet.nn.remat import Remat
from jdet.types import ConfigError, Source

TABLE: dict[str, dict[str, Callable[..., Any]]] = {
    "backbone": {
        "vgg16": VGG16,
        "resnet": functools.partial(ResNet, root=0, stem_stride=2, pool=3),
        "root_resnet": ResNet,
        "dsod": DSOD,
    },
    "neck": {
        "ssd_extras": SSDExtras,
        "residual_extras": ResidualExtras,
        "bottleneck_extras": BottleneckExtras,
        "dense_prediction": DensePrediction,
        "fpn": FPN,
    },
    "detector": {"ssd": SSD, "retinanet": RetinaNet, "fcos": FCOS, "atss": ATSS},
    "source": {
        "voc": VocSource,
        "coco": CocoSource,
        "tfds": TfdsSource,
        "shapes": ShapesSource,
    },
    "resize": {"warp": Warp, "keep_ratio": KeepRatio},
    "augment": {"ssd": SSDAugment, "none": Augment},
    "evaluator": {
        "voc": VocEvaluator,
        "coco": CocoEvaluator,
        "coco_segm": functools.partial(CocoEvaluator, iou_type="segm"),
    },
}

BOUND = (
    "backbone",
    "neck",
    "norm",
    "head_norm",
    "dtype",
    "remat",
    "on_error",
    "design_cells",
    "input_size",
)
"""Fields that the program fills in; a config group does not carry them as plain values."""


SHARED_FIELDS = {
    "taps": (),  # backbone stages that are levels; empty: all from stride 8 on
    "norm": "batch",  # of backbone and neck
    "norm_momentum": 0.9,  # share of the old running statistics in the new
    "norm_epsilon": 1e-5,
    "head_norm": "batch",
    "head_norm_momentum": 0.9,
    "head_norm_epsilon": 1e-5,
}
"""Fields of a detector group from which backbone, neck and norms are made."""


def resolve(kind: str, name: str) -> Callable[..., Any]:
    """The class (or partial of it) behind a name.

    Raises:
        ConfigError: no such name; the message lists what exists and the nearest.
    """
    table = TABLE[kind]
    if name in table:
        return table[name]
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"{kind} {name!r} cannot be imported: {error}") from error
    raise ConfigError(
        f"{kind} {name!r} does not exist{nearest(name, table)}; there are {', '.join(sorted(table))}, "
        "or give your own as 'module:Class'"
    )


def fields(factory: Callable[..., Any]) -> dict[str, Any]:
    """Names and defaults of what a class can be given; ``inspect.Parameter.empty`` where required."""
    preset = factory.keywords if isinstance(factory, functools.partial) else {}
    cls = factory.func if isinstance(factory, functools.partial) else factory
    if dataclasses.is_dataclass(cls):
        empty = inspect.Parameter.empty
        found = {
            f.name: empty if f.default is dataclasses.MISSING else f.default
            for f in dataclasses.fields(cls)
            if f.init and f.name not in ("parent", "name")
        }
    else:
        found = {k: p.default for k, p in inspect.signature(cls).parameters.items()}
    return {**found, **preset}


def group(kind: str, name: str, **values: Any) -> ConfigDict:
    """A complete config group: every plain field of the class with its default, and ``values``.

    Experiments use it so that all that can be set can also be set on the command line; for that, a
    field whose default is None becomes a placeholder, of a tuple where it takes a sequence and of a
    string elsewhere.

    Raises:
        ConfigError: a value's name is not a field of the class.
    """
    factory = resolve(kind, name)
    known = fields(factory)
    plain: dict[str, Any] = {
        key: default
        for key, default in known.items()
        if key not in BOUND and isinstance(default, bool | int | float | str | tuple)
    }
    for key, default in known.items():
        if key not in BOUND and default is None:
            annotation = str(inspect.signature(factory).parameters[key].annotation)
            sequence = re.search("sequence|tuple", annotation, re.IGNORECASE)
            plain[key] = config_dict.placeholder(tuple if sequence else str)
    if kind == "detector":
        plain.update(SHARED_FIELDS)
    for key in values:
        if key not in known and key not in plain:
            raise ConfigError(
                f"{kind} {name!r} has no field {key!r}{nearest(key, {**known, **plain})}; "
                f"it has {', '.join(sorted({**known, **plain}))}"
            )
    return ConfigDict({"name": name, **plain, **values})


def make(kind: str, config: Mapping[str, Any], where: str, **bound: Any) -> Any:
    """The object of a config group.

    Args:
        kind: row of the table.
        config: the group, with ``name``.
        where: its key in the whole config, for messages.
        **bound: fields the program itself fills in; those the class does not have are left out.

    Raises:
        ConfigError: unknown name or key, or a value the class refuses.
    """
    values = {k: v for k, v in config.items() if k != "name"}
    factory = resolve(kind, config["name"])
    known = fields(factory)
    for key in values:
        if key not in known:
            raise ConfigError(
                f"{where}.{key} is not a field of {kind} {config['name']!r}{nearest(key, known)}; "
                f"it has {', '.join(sorted(known))}"
            )
    try:
        return factory(**values, **{k: v for k, v in bound.items() if k in known})
    except (TypeError, ValueError) as error:
        if isinstance(error, ConfigError) or type(error).__name__ == "DataError":
            raise
        raise ConfigError(f"{where}: {error}") from error


def detector(config: ConfigDict, class_names, *, axis_name: str | None = None) -> Any:
    """The detector of a whole config.

    Args:
        config: with groups ``model``, ``input_size``, ``precision``, ``train.remat``, ``parallel``.
        class_names: of the data, without background.
        axis_name: mesh axis that ``sync_batch`` reduces over while training; None for ``init``,
            ``detect`` and notebooks, which run under plain ``jit``.

    Raises:
        ConfigError: unknown names, keys or values; a default-box layout that contradicts itself.
    """
    model = config.model
    for key in ("backbone", "neck", *SHARED_FIELDS):
        if key not in model:
            raise ConfigError(
                f"config.model.{key} is missing; make the group with "
                "jdet.build.group('detector', …, backbone=…, neck=…), which fills everything in"
            )
    for key in ("norm", "head_norm"):
        if model[key] not in KINDS:
            raise ConfigError(
                f"config.model.{key}={model[key]!r} is no norm{nearest(model[key], KINDS)}; "
                f"there are {', '.join(KINDS)}"
            )

    group_size = config.parallel.bn_group_size
    if group_size and "sync_batch" not in (model.norm, model.head_norm):
        raise ConfigError(
            f"config.parallel.bn_group_size={group_size} is for sync_batch; config.model.norm is "
            f"{model.norm}, head_norm {model.head_norm}"
        )

    def norm(which: str) -> Norm:
        return Norm(
            model[which],
            momentum=model[f"{which}_momentum"],
            epsilon=model[f"{which}_epsilon"],
            group_size=group_size,
            axis_name=axis_name,
        )

    dtype = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}[config.precision]
    remat = Remat(config.train.remat, tuple(config.train.remat_parts))
    common = {"norm": norm("norm"), "dtype": dtype, "remat": remat}
    backbone = make("backbone", model.backbone, "config.model.backbone", **common)
    taps = tuple(model.taps) or tuple(s for s in backbone.stage_names if int(s[1:]) >= 3)
    for tap in taps:
        if tap not in backbone.stage_names:
            raise ConfigError(
                f"config.model.taps names stage {tap!r}; backbone {model.backbone.name!r} has "
                f"{', '.join(backbone.stage_names)}"
            )
    common["design_cells"] = tap_geometry(backbone, taps, config.input_size)[1][-1]
    neck = make("neck", model.neck, "config.model.neck", taps=taps, **common)
    own = {k: v for k, v in model.items() if k not in ("backbone", "neck", *SHARED_FIELDS)}
    pads = resize(config).keeps_ratio
    if not pads and "mask_padding" in own:
        own["mask_padding"] = False  # warped images fill their input
    module = make(
        "detector",
        own,
        "config.model",
        num_classes=len(class_names),
        input_size=config.input_size,
        backbone=backbone,
        neck=neck,
        head_norm=norm("head_norm"),
        dtype=dtype,
        remat=remat,
    )
    parts = [name for name, made in (("neck", neck), ("head", module)) if hasattr(made, "remat")]
    remat.check((*getattr(backbone, "remat_parts", ()), *parts))
    if pads and not getattr(module, "knows_padding", False):
        raise ConfigError(
            f"config.model.name={model.name!r} would learn from the padding of "
            f"config.resize.name={config.resize.name!r}; set it to 'warp'"
        )
    check_default_boxes(module, config.input_size)
    return module


def check_default_boxes(module: Any, input_size: int) -> None:
    """Holds the levels a detector really makes against its design, before anything is compiled.

    Raises:
        ConfigError: there are no such levels, or the network's maps do not carry the designed number of
            default boxes.
    """
    try:
        _, cells = module.level_sizes()
        per_location = [level.boxes_per_location for level in module.default_box_levels()]
    except ValueError as error:
        raise ConfigError(f"config.model: {error}") from error
    expected = sum(side * side * count for side, count in zip(cells, per_location))
    images = jax.ShapeDtypeStruct((1, input_size, input_size, 3), jnp.uint8)
    offsets, _ = jax.eval_shape(
        lambda rng, images: module.init_with_output(rng, images, train=False)[0][:2],
        jax.random.key(0),
        images,
    )
    if offsets.shape[1] != expected:
        raise ConfigError(
            f"config.model makes {offsets.shape[1]} default boxes at config.input_size={input_size}, "
            f"its levels {'/'.join(map(str, cells))} call for {expected}; check backbone, neck and taps"
        )


def resize(config: ConfigDict) -> Resize:
    """What the network sees of images: the group ``resize`` of a whole config.

    Raises:
        ConfigError: unknown name or key, or a value out of range.
    """
    return make("resize", config.resize, "config.resize", input_size=config.input_size)


def augment(config: ConfigDict) -> Augment:
    """What training does to images at random: the group ``augment`` of a whole config.

    Raises:
        ConfigError: unknown name or key, a value out of range, or an operation that does not suit the
            config's resize.
    """
    made = make("augment", config.augment, "config.augment")
    made.operations(resize(config))  # refuses here, before anything is compiled
    return made


def source(config: Mapping[str, Any], where: str, on_error: str = "raise") -> Source:
    """The data source of a config group such as ``config.data.train``.

    Args:
        config: the group.
        where: its key in the whole config, for messages.
        on_error: ``config.data.on_error``; a group may carry its own.

    Raises:
        ConfigError: unknown name or key.
        DataError: the data set is missing or contradicts itself.
    """
    extra = {} if "on_error" in config else {"on_error": on_error}
    return make("source", config, where, **extra)


def sources(config: ConfigDict) -> tuple[Source, Source]:
    """The sources of training and of evaluation.

    Raises:
        ConfigError: unknown name or key.
        DataError: a data set is missing or contradicts itself.
    """
    train = source(config.data.train, "config.data.train", config.data.on_error)
    if config.data.holdout:
        every = config.data.holdout
        return Holdout(train, every, False), Holdout(train, every, True)
    return train, source(config.data.eval, "config.data.eval", config.data.on_error)
