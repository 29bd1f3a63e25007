"""The detector of a config: its nested parts, with norms, types and rematerialisation bound on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from jdet.build import normalise
from jdet.build.class_weights import class_weights
from jdet.build.data import resize
from jdet.build.groups import (
    NORM_OF_KIND,
    class_groups,
    class_of,
    fields,
    make,
    parts_of,
    shared_fields,
)
from jdet.build.table import resolve
from jdet.config import NORM_NAMES, image_kind, nearest, norms, ranges
from jdet.data.transforms.finish import OPTIONAL_FIELDS
from jdet.detectors.base import Detector
from jdet.nn.norm import KINDS, Norm
from jdet.nn.remat import Remat
from jdet.nn.stages import stage_geometry
from jdet.types import ConfigError


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
    model, kind = config.model, image_kind(config)
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
        "image_kind": kind,
        "padded_inputs": resize(config).keeps_ratio,
        "class_weights": class_weights(config, len(class_names)),
    }
    if bound["class_weights"] and "class_weights" not in fields(factory):
        raise ConfigError(
            f"config.model.name={model.name!r} does not weight classes in its loss; set "
            "config.train.class_weights.by='none'"
        )
    if constants := normalise.provisional(config, kind):
        model = ConfigDict({**model.copy_and_resolve_references(), **constants})
    module, segments = _assemble("detector", model, "config.model", bound, drop=shared)
    remat.check(segments)
    if bound["padded_inputs"] and not module.knows_padding:
        raise ConfigError(
            f"config.model.name={model.name!r} would learn from the padding of "
            f"config.resize.name={config.resize.name!r}; set it to 'warp'"
        )
    if lacking := [field for field in module.needs if field not in OPTIONAL_FIELDS]:
        raise ConfigError(
            f"config.model.name={model.name!r} needs {', '.join(lacking)} in its batches, which the input "
            f"pipeline does not make; it makes {', '.join(OPTIONAL_FIELDS) or 'no optional fields'}"
        )
    _check_constants(module)
    module.check_design()
    return module


def _check_constants(module: Detector) -> None:
    """Refuses constants of normalisation that are neither one for all channels nor one for each.

    Raises:
        ConfigError: names the key.
    """
    channels = module.image_kind.channels
    for key in ("mean", "std"):
        values = tuple(getattr(module, key))
        if len(values) not in (1, channels):
            raise ConfigError(
                f"config.model.{key}={values} has {len(values)} numbers for images of {channels} "
                f"channel{'s' * (channels != 1)}; give {'one, or ' * (channels > 1)}{channels}, or "
                "measure them, --config.data.normalise.by=data"
            )


def _norms(config: ConfigDict, axis_name: str | None) -> dict[str, Norm]:
    """The norms that a detector's group names, by field.

    Raises:
        ConfigError: a norm does not exist, or a group size without one that uses it.
    """
    chosen, known = norms(config), (*KINDS, *NORM_NAMES)
    for key, kind in chosen.items():
        if kind not in KINDS:
            raise ConfigError(
                f"config.model.{key}={kind!r} is no norm{nearest(kind, known)}; "
                f"there are {', '.join(known)}"
            )
        for field in ("momentum", "epsilon"):
            name = f"{key}_{field}"
            ranges.check(ranges.FIELDS["Norm"][field], f"config.model.{name}", config.model[name])
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
            finest = getattr(class_of(resolve(kind, config["name"])), "finest_stride", 8)
            found = _taps(part, config.get("taps", ()), where, bound["input_size"], finest)
            here |= found
            if hasattr(part, "taps"):  # it ends differently in stages that are taken
                here[field] = part.clone(taps=found["taps"])
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


def _taps(
    backbone: Any, given: Sequence[str], where: str, input_size: int, finest: int
) -> dict[str, Any]:
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
    taps = tuple(given) or tuple(name for name, (stride, _) in geometry.items() if stride >= finest)
    if not taps:
        raise ConfigError(
            f"{where}.taps is empty and backbone {type(backbone).__name__} has no stage of stride {finest} "
            f"or more; name levels among {', '.join(geometry)}"
        )
    return {"taps": taps, "design_cells": geometry[taps[-1]][1]}


def with_frozen_stages(config: ConfigDict) -> ConfigDict:
    """A whole config whose ``optimizer.rules`` freeze what ``freeze_at`` of its backbone names.

    Args:
        config: not changed; returned as it is where nothing is to be added.
    """
    added = [(path, 0.0, 0.0) for stages in _frozen_stages(config).values() for path in stages]
    known = tuple(tuple(rule) for rule in config.optimizer.rules)
    added = [rule for rule in added if rule not in known]
    if not added:
        return config
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.optimizer.rules = (*added, *known)
    return config


def _frozen_stages(config: ConfigDict) -> dict[str, list[str]]:
    """Patterns of the parameter paths that backbones freeze, by the setting that says so."""
    found = {}
    for key, kind, named in class_groups(config):
        if kind == "backbone" and named.get("freeze_at"):
            cls: Any = class_of(resolve(kind, named["name"]))
            prefix = key.removeprefix("model.").replace(".", "/")
            stages = [f"{prefix}/{path}" for path in cls.frozen_paths(named["freeze_at"])]
            found[f"config.{key}.freeze_at={named['freeze_at']}"] = stages
    return found


NORM_MODES = {
    "batch": "the images a device processes at a time, running statistics follow; scale and bias train",
    "sync_batch": "the images of a group, running statistics follow; scale and bias train",
    "affine_batch": "fixed running statistics; scale and bias train",
    "frozen_batch": "fixed running statistics; scale and bias are fixed",
    "group": "groups of channels of each image; scale and bias train",
    "layer": "channels of each cell; scale and bias train",
}
"""What each kind of norm normalises by, and what of it moves in training (docs/batch_norm.md)."""


def describe_norms(config: ConfigDict) -> list[str]:
    """A line for each norm of the model: what it normalises by, and what of it moves in training."""
    lines = [
        f"config.model.{key} {kind}: normalises by {NORM_MODES[kind]}"
        for key, kind in norms(config).items()
        if kind in NORM_MODES
    ]
    for key, stages in _frozen_stages(config).items():
        lines.append(f"{key}: {', '.join(stages)} do not train, and their batch norms are fixed")
    return lines


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
