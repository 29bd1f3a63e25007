"""Starting from the weights of another run: which of them are taken, and an account of it.

Parameters and running statistics are known by their path, such as ``backbone/root/conv0/kernel``;
statistics and parameters share the names, so that a norm which trained there can be frozen here.
Optimiser, moving average and step always start afresh. Everything is read and checked before the
folder of the new run is touched.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from jdet.config import BEFORE
from jdet.train import folders, state
from jdet.train import workdir as workdir_lib
from jdet.train.checkpoints import select
from jdet.train.checkpoints.manifest import path_text, shape_text
from jdet.train.init.class_map import match_names, width_of
from jdet.train.init.plan import LISTED, Entry, Plan, Stored, listed, part_of, some
from jdet.types import ClassLayer, ConfigError, HeadLayout, nearest


def prepare(
    config: ConfigDict,
    workdir: str | Path,
    detector: Any,
    params: Any,
    stats: Any,
    build: Callable[[ConfigDict], Any] | None = None,
    notify: Callable[[str], None] = print,
) -> Plan | None:
    """Reads the run that ``config.init_from`` names and decides what is loaded from it.

    Args:
        config: complete config of the new run, with its class names.
        workdir: of the new run.
        detector: Linen module; its ``head_layout()``, where it has one, says which layers belong to
            classes and boxes.
        params: abstract parameters of the new model.
        stats: abstract statistics.
        build: makes the detector of the source from its config, to compare default boxes.
        notify: told when a damaged checkpoint is passed over.

    Returns:
        None where ``config.init_from.path`` is empty.

    Raises:
        ConfigError: the path is no run, a pattern matches nothing, nothing or (strict) not
            everything asked for is in the source, or the two have no class in common.
        jdet.train.checkpoints.checkpoint.CheckpointError: the checkpoint is not there or cannot be read.
    """
    if not config.init_from.path:
        return None
    trained = _flat(params)
    here = {**trained, **_flat(stats)}
    selected = _select(config.init_from, list(here)) & _of_parts(config.init_from, list(here))
    if not selected:
        raise ConfigError(
            f"init_from: include={tuple(config.init_from.include)} and "
            f"exclude={tuple(config.init_from.exclude)} leave nothing of "
            f"parts={tuple(config.init_from.parts)}; leave the patterns at their defaults"
        )
    stored = _read(config.init_from, Path(workdir), notify)
    layout = detector.head_layout() if hasattr(detector, "head_layout") else None
    names, old_names = tuple(config.class_names), tuple(stored.config.class_names)

    def layer_of(path: str) -> ClassLayer | None:
        layers = layout.classes if layout else ()
        return next((layer for layer in layers if re.fullmatch(layer.pattern, path)), None)

    class_paths = [path for path in selected if layer_of(path) and path in stored.arrays]
    by_name = config.init_from.class_map == "names" and names != old_names
    if by_name and layout is None:
        raise ConfigError(
            f"{type(detector).__name__} does not say which of its layers belong to classes "
            "(head_layout()), and the source has other classes; name those layers in "
            "init_from.exclude and set init_from.class_map='none'"
        )
    classes = match_names(names, old_names) if by_name and class_paths else ()
    if classes and all(position is None for position in classes):
        raise ConfigError(
            f"init_from: none of the classes {some(names)} is one of {some(old_names)} in "
            f"{stored.run}; leave the class layers as initialised with "
            f"init_from.exclude={_pattern_of(class_paths, list(here))}"
        )

    entries = {}
    for path, array in here.items():
        layer = layer_of(path)
        there = stored.arrays.get(path)
        action, taken = "left", 0
        if path in selected:
            action = "absent" if there is None else "other"
            if there is not None and layer and classes:
                sizes = there.shape[:-1], there.shape[-1:], there.dtype
                fits = array.shape[:-1], (width_of(layer, len(old_names)),), array.dtype
                if sizes == fits:
                    share = layer.background + sum(c is not None for c in classes)
                    action, taken = "mapped", array.size // (layer.background + len(names)) * share
            elif there is not None and (there.shape, there.dtype) == (array.shape, array.dtype):
                action, taken = "loaded", array.size
        shapes = ("" if there is None else shape_text(there)), shape_text(array)
        entries[path] = Entry(action, array.size, taken, path in trained, shapes, layer)
    unused = {
        path: array.size
        for path, array in stored.arrays.items()
        if path not in entries or not entries[path].taken
    }
    plan = Plan(stored, entries, unused, classes, names, [])
    _check(plan, config.init_from)
    plan.warnings.extend(_warnings(plan, layout, config, names != old_names, build))
    return plan


def _select(settings: ConfigDict, paths: list[str]) -> set[str]:
    """The paths that ``include`` names and ``exclude`` does not."""
    found: dict[str, set[str]] = {}
    for key in ("include", "exclude"):
        patterns = settings[key]
        if isinstance(patterns, str):
            raise ConfigError(f"init_from.{key} must be a tuple of patterns, not {patterns!r}")
        found[key] = set()
        for pattern in patterns:
            try:
                matched = {path for path in paths if re.fullmatch(pattern, path)}
            except re.error as error:
                raise ConfigError(
                    f"init_from.{key}: {pattern!r} is no regular expression: {error}"
                ) from error
            if not matched:
                raise ConfigError(
                    f"init_from.{key}: {pattern!r} matches no parameter of the model; the whole path "
                    f"must match, as in {', '.join(map(repr, _nearest(pattern, paths)))}"
                )
            found[key] |= matched
    selected = found["include"] - found["exclude"]
    if not selected:
        raise ConfigError(
            f"init_from: include={tuple(settings.include)} and exclude={tuple(settings.exclude)} "
            "leave nothing to load; leave init_from.path empty for random weights"
        )
    return selected


def _of_parts(settings: ConfigDict, paths: list[str]) -> set[str]:
    """The paths of the parts that ``init_from.parts`` names; all where it names none."""
    parts = settings.parts
    there = {path: part_of(path) for path in paths}
    for part in parts:
        if part not in there.values():
            known = tuple(dict.fromkeys(there.values()))
            raise ConfigError(
                f"init_from.parts: {part!r} is no part of the model{nearest(part, known)}; it has "
                f"{', '.join(known)}"
            )
    return {path for path in paths if not parts or there[path] in parts}


def _read(settings: ConfigDict, workdir: Path, notify: Callable[[str], None]) -> Stored:
    """Opens the run or checkpoint."""
    path, step = Path(settings.path).expanduser().absolute(), settings.step
    if settings.path.startswith(BEFORE):
        path = workdir.expanduser().absolute().parent / settings.path.removeprefix(BEFORE)
    run = folders.run_folder(path)
    if path.name.isdecimal() and path.parent.name == select.FOLDER:
        run = path.parent.parent
        if step not in ("latest", "", path.name):
            raise ConfigError(
                f"init_from.path={settings.path!r} is the checkpoint of step {path.name}, but "
                f"init_from.step={step!r}; set one of them"
            )
        step = path.name
    if not (run / folders.CONFIG).is_file() or not select.steps_in(run / select.FOLDER):
        if settings.path.startswith(BEFORE):
            raise ConfigError(
                f"init_from.path={settings.path!r} names a phase, and there is none with checkpoints in "
                f"{path}; phases are those of a config with config.phases"
            )
        what = "does not exist" if not path.exists() else "is not a run with checkpoints"
        raise ConfigError(
            f"init_from.path={settings.path!r} {what}; give the workdir of a run, which holds "
            f"{folders.CONFIG} and {select.FOLDER}/, or one of the folders in {select.FOLDER}/"
        )
    if run.resolve() == workdir.expanduser().resolve():
        raise ConfigError(
            f"init_from.path={settings.path!r} is the workdir of this very run; take another --workdir"
        )
    opened = workdir_lib.open_run(run)
    weights = opened.weights(step, notify=notify)
    average = settings.weights == "ema" and weights.ema is not None
    variables = state.eval_variables(weights, average)
    arrays = {name: x for tree in variables.values() for name, x in _flat(tree).items()}
    return Stored(run, weights.step, average, opened.config, arrays)


def _check(plan: Plan, settings: ConfigDict) -> None:
    """Raises ConfigError where nothing, or (strict) not everything asked for, can be loaded."""
    absent, other = plan.paths("absent"), plan.paths("other")
    if settings.class_map == "none":
        other = [path for path in other if plan.entries[path].layer is None]
    if not any(entry.taken for entry in plan.entries.values()):
        wanted = (absent or plan.paths("other"))[:3]
        near = [f"{p!r} (nearest: {_nearest(p, list(plan.stored.arrays))[0]!r})" for p in wanted]
        raise ConfigError(
            f"init_from: nothing in {plan.stored.run} fits what is to be loaded, such as "
            f"{', '.join(near)}; is it a run of another model?"
            + "".join(f"\n  {line}" for line in plan.lines(plan.paths("other")[:LISTED]))
        )
    for part in settings.parts:
        own = [entry for path, entry in plan.entries.items() if part_of(path) == part]
        if not any(entry.taken for entry in own):
            raise ConfigError(
                f"init_from.parts: nothing of {part!r} fits what is in {plan.stored.run}; is that a run of "
                f"a model with the same {part}? Leave the name out to keep it as initialised"
            )
    if settings.strict and (absent or other):
        raise ConfigError(
            f"init_from: {len(absent)} parameters are not in {plan.stored.run} and {len(other)} have "
            f"another shape there:\n  {listed(plan.lines([*other, *absent]))}\n"
            "Name them in init_from.exclude, or leave all such as initialised with "
            "init_from.strict=False"
        )


def _warnings(
    plan: Plan, layout: HeadLayout | None, config: ConfigDict, other_classes: bool, build: Any
) -> list[str]:
    """Warnings about settings that are valid but probably unintended."""
    if layout is None:
        return []
    found = []
    if config.init_from.class_map == "none" and other_classes:
        by_position = [p for p, e in plan.entries.items() if e.layer and e.action == "loaded"]
        if by_position:
            found.append(
                f"{len(by_position)} tensors of class layers were loaded by position, though the "
                "source has other classes (init_from.class_map='none')"
            )
    boxes = [p for p, e in plan.entries.items() if e.taken and re.fullmatch(layout.boxes, p)]
    if not boxes or build is None:
        return found
    try:
        source = build(plan.stored.config).head_layout().references
    except (ConfigError, AttributeError) as error:
        return [*found, f"the default boxes of the source are not known ({error})"]
    different = [
        f"{name} {source.get(name)} there, {layout.references.get(name)} here"
        for name in sorted({*source, *layout.references})
        if source.get(name) != layout.references.get(name)
    ]
    if different:
        found.append(
            f"box layers were loaded, but what their offsets refer to differs: {'; '.join(different)}. "
            "Keep the source's settings of config.model, or name the box layers in init_from.exclude"
        )
    return found


def _nearest(wanted: str, paths: list[str]) -> list[str]:
    """Up to three paths, or modules with all that is in them, that resemble a pattern."""
    modules = {
        "/".join(parts[:i]) + "/.*" for parts in (p.split("/") for p in paths) for i in (1, 2, 3)
    }
    close = difflib.get_close_matches(wanted, sorted({*paths, *modules}), 3, 0.5)
    return close or sorted({f"{path.split('/')[0]}/.*" for path in paths})[:3]


def _pattern_of(paths: list[str], everything: list[str]) -> tuple[str, ...]:
    """Patterns that match these paths and no others: one, where they share their beginning."""
    start = os.path.commonprefix(paths)
    if start and not [p for p in everything if p.startswith(start) and p not in paths]:
        return (re.escape(start) + ".*",)
    return tuple(sorted(re.escape(path.rsplit("/", 1)[0]) + "/.*" for path in paths))


def _flat(tree: Any) -> dict[str, Any]:
    return {path_text(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
