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
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict, config_dict

from jdet.backbones.dsod import DSOD
from jdet.backbones.resnet import ResNet
from jdet.backbones.vgg import VGG16
from jdet.config import nearest, norms
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
from jdet.detectors.base import Detector
from jdet.detectors.fcos import FCOS
from jdet.detectors.retinanet import RetinaNet
from jdet.detectors.ssd import SSD
from jdet.evaluation.coco_ap import CocoEvaluator
from jdet.evaluation.voc_ap import VocEvaluator
from jdet.necks.dense_prediction import DensePrediction
from jdet.necks.fpn import FPN
from jdet.necks.ssd_extras import BottleneckExtras, ResidualExtras, SSDExtras
from jdet.nn.norm import KINDS, Norm
from jdet.nn.remat import Remat
from jdet.nn.stages import stage_geometry
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
    "norm",
    "head_norm",
    "dtype",
    "remat",
    "on_error",
    "design_cells",
    "input_size",
    "padded_inputs",
)
"""Fields that the program fills in; a config group does not carry them as plain values."""

DEFAULTS_OF_NORM = {"": "batch", "_momentum": 0.9, "_epsilon": 1e-5}
"""Keys of a norm in the group of a detector, by what follows its name, and their defaults: the kind
(``jdet.nn.norm``), the share of the old running statistics in the new, and what is added to variances."""

NORM_OF_KIND = {"backbone": "norm", "neck": "norm"}
"""Which norm of the detector's group a nested part gets as its ``norm``; all other kinds: ``head_norm``."""


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


def class_of(factory: Callable[..., Any]) -> Callable[..., Any]:
    """The class that a row of the table makes an object of."""
    return factory.func if isinstance(factory, functools.partial) else factory


def parts_of(factory: Callable[..., Any]) -> Mapping[str, str]:
    """The nested groups that a class declares: field → kind, in the order in which they are made."""
    return getattr(class_of(factory), "parts", {})


def fields(factory: Callable[..., Any]) -> dict[str, Any]:
    """Names and defaults of what a class can be given; ``inspect.Parameter.empty`` where required."""
    preset = factory.keywords if isinstance(factory, functools.partial) else {}
    cls = class_of(factory)
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


def shared_fields(factory: Callable[..., Any]) -> dict[str, Any]:
    """Keys of a detector's group from which its parts and norms are made, with their defaults.

    ``taps``: backbone stages that are levels; empty: all from stride 8 on. ``norm…`` of backbone and neck,
    ``head_norm…`` of everything else; each where a part or a field can use it.
    """
    parts, known = parts_of(factory), fields(factory)
    wanted = {NORM_OF_KIND.get(kind, "head_norm") for kind in parts.values()}
    wanted |= {name for name in ("norm", "head_norm") if name in known}
    found: dict[str, Any] = {"taps": ()} if "backbone" in parts.values() else {}
    for name in sorted(wanted, reverse=True):
        found |= {f"{name}{end}": default for end, default in DEFAULTS_OF_NORM.items()}
    return found


def group(kind: str, name: str, **values: Any) -> ConfigDict:
    """A complete config group: every plain field of the class with its default, and ``values``.

    Experiments use it so that all that can be set can also be set on the command line; for that, a
    field whose default is None becomes a placeholder, of a tuple where it takes a sequence and of a
    string elsewhere.

    Raises:
        ConfigError: a value's name is not a field of the class.
    """
    factory = resolve(kind, name)
    known = {key: default for key, default in fields(factory).items() if key not in BOUND}
    plain: dict[str, Any] = {
        key: default
        for key, default in known.items()
        if isinstance(default, bool | int | float | str | tuple)
    }
    for key, default in known.items():
        if default is None:
            annotation = str(inspect.signature(factory).parameters[key].annotation)
            sequence = re.search("sequence|tuple", annotation, re.IGNORECASE)
            plain[key] = config_dict.placeholder(tuple if sequence else str)
    if kind == "detector":
        plain.update(shared_fields(factory))
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


def detector(config: ConfigDict, class_names, *, axis_name: str | None = None) -> Detector:
    """The detector of a whole config, with its nested parts.

    Args:
        config: with groups ``model``, ``input_size``, ``precision``, ``train.remat``, ``parallel``.
        class_names: of the data, without background.
        axis_name: mesh axis that ``sync_batch`` reduces over while training; None for ``init``,
            ``detect`` and notebooks, which run under plain ``jit``.

    Raises:
        ConfigError: unknown names, keys or values; a layout of anchors that contradicts itself.
    """
    model = config.model
    factory = resolve("detector", model.name)
    cls = class_of(factory)
    if not (isinstance(cls, type) and issubclass(cls, Detector)):
        raise ConfigError(
            f"config.model.name={model.name!r} is not a detector; derive the class from "
            "jdet.detectors.base.Detector"
        )
    shared = shared_fields(factory)
    _complete("detector", model, "config.model", shared)
    remat = Remat(config.train.remat, tuple(config.train.remat_parts))
    bound = {
        **_norms(config, axis_name),
        "dtype": {"float32": jnp.float32, "bfloat16": jnp.bfloat16}[config.precision],
        "remat": remat,
        "num_classes": len(class_names),
        "input_size": config.input_size,
        "padded_inputs": resize(config).keeps_ratio,
    }
    module, segments = _assemble("detector", model, "config.model", bound, drop=shared)
    remat.check(segments)
    if bound["padded_inputs"] and not module.knows_padding:
        raise ConfigError(
            f"config.model.name={model.name!r} would learn from the padding of "
            f"config.resize.name={config.resize.name!r}; set it to 'warp'"
        )
    module.check_design()
    return module


def _norms(config: ConfigDict, axis_name: str | None) -> dict[str, Norm]:
    """The norms that a detector's group names, by field.

    Raises:
        ConfigError: a norm does not exist, or a group size without one that uses it.
    """
    chosen = norms(config)
    for key, kind in chosen.items():
        if kind not in KINDS:
            raise ConfigError(
                f"config.model.{key}={kind!r} is no norm{nearest(kind, KINDS)}; "
                f"there are {', '.join(KINDS)}"
            )
    group_size = config.parallel.bn_group_size
    if group_size and "sync_batch" not in chosen.values():
        named = ", ".join(f"config.model.{key} is {kind}" for key, kind in chosen.items())
        raise ConfigError(
            f"config.parallel.bn_group_size={group_size} is for sync_batch; {named or 'there is no norm'}"
        )
    return {
        key: Norm(
            kind,
            momentum=config.model[f"{key}_momentum"],
            epsilon=config.model[f"{key}_epsilon"],
            group_size=group_size,
            axis_name=axis_name,
        )
        for key, kind in chosen.items()
    }


def _assemble(
    kind: str, config: Mapping[str, Any], where: str, bound: Mapping[str, Any], drop: Any = ()
) -> tuple[Any, list[str]]:
    """Makes the nested parts that a class declares, each with its own, and then the object itself.

    Args:
        kind: row of the table.
        config: the group, with a group for every part.
        where: its key in the whole config, for messages.
        bound: what the program fills in.
        drop: keys of the group that are not fields of the class.

    Returns:
        The object, and the names of the segments that rematerialisation can be limited to.
    """
    _complete(kind, config, where)
    own = {key: value for key, value in config.items() if key not in drop}
    here, segments = dict(bound), []
    for field, part_kind in parts_of(resolve(kind, config["name"])).items():
        norm = (
            {"norm": bound[key]}
            if (key := NORM_OF_KIND.get(part_kind, "head_norm")) in bound
            else {}
        )
        part, more = _assemble(part_kind, own.pop(field), f"{where}.{field}", {**here, **norm})
        here[field] = part
        segments += more
        if part_kind == "backbone":
            here |= _taps(part, config.get("taps", ()), where, bound["input_size"])
    made = make(kind, own, where, **here)
    return made, segments + list(getattr(made, "remat_parts", ()))


def _complete(kind: str, config: Mapping[str, Any], where: str, keys: Iterable[str] = ()) -> None:
    """Refuses a group that lacks one of its parts, or one of further keys."""
    parts = parts_of(resolve(kind, config["name"]))
    for key in (*parts, *keys):
        if key not in config:
            groups = "".join(f", {part}=…" for part in parts)
            raise ConfigError(
                f"{where}.{key} is missing; make the group with "
                f"jdet.build.group({kind!r}, {config['name']!r}{groups}), which fills everything in"
            )


def _taps(backbone: Any, given: Sequence[str], where: str, input_size: int) -> dict[str, Any]:
    """The stages that are levels, and the map size (cells a side) of the last at the input size."""
    try:
        geometry = stage_geometry(backbone, input_size)
    except ValueError as error:
        raise ConfigError(f"{where}.backbone: {error}") from error
    for tap in given:
        if tap not in geometry:
            raise ConfigError(
                f"{where}.taps names stage {tap!r}; backbone {type(backbone).__name__} has "
                f"{', '.join(geometry)}"
            )
    taps = tuple(given) or tuple(name for name, (stride, _) in geometry.items() if stride >= 8)
    if not taps:
        raise ConfigError(
            f"{where}.taps is empty and backbone {type(backbone).__name__} has no stage of stride 8 or "
            f"more; name levels among {', '.join(geometry)}"
        )
    return {"taps": taps, "design_cells": geometry[taps[-1]][1]}


def test_keys(config: ConfigDict) -> set[str]:
    """Dotted keys below ``config.model`` that may differ between training and evaluation."""

    def of(kind: str, group: Mapping[str, Any], prefix: str) -> set[str]:
        factory = resolve(kind, group["name"])
        found = {f"{prefix}{name}" for name in getattr(class_of(factory), "test_fields", ())}
        for field, part_kind in parts_of(factory).items():
            found |= of(part_kind, group[field], f"{prefix}{field}.")
        return found

    return of("detector", config.model, "")


def summary(config: ConfigDict) -> str:
    """The detector of a config in a line: its name, those of its parts, and its norms."""
    model = config.model
    parts = [f"{field} {model[field].name}" for field in parts_of(resolve("detector", model.name))]
    kinds = [f"{key.replace('_', ' ')} {kind}" for key, kind in norms(config).items()]
    return ", ".join([model.name, *parts, *kinds])


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
