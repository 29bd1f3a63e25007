"""Plan of what a run loads from another: decided per parameter, carried out, and reported."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from jdet.train.checkpoints.manifest import path_text
from jdet.train.init.class_map import take_classes
from jdet.types import ClassLayer

NAME = "init_from"
"""The transform by its name in ``run.json``."""

LISTED = 10
"""Parameters named one by one in messages; ``run.json`` names all."""


class Stored(NamedTuple):
    """The weights of another run.

    Attributes:
        run: its folder.
        step: of the checkpoint.
        average: they are the moving average.
        config: the run's.
        arrays: path → parameter or statistic.
    """

    run: Path
    step: int
    average: bool
    config: ConfigDict
    arrays: dict[str, np.ndarray]


class Entry(NamedTuple):
    """The decision about one parameter or statistic of the new model.

    Attributes:
        action: "loaded", "mapped" (by class), "left" (not asked for), "absent" (asked for, not in the
            source) or "other" (asked for, of another shape in the source).
        size: numbers.
        taken: numbers that come from the source.
        trains: it is a parameter.
        shapes: in the source, "" where absent, and here.
        layer: the class layer it belongs to.
    """

    action: str
    size: int
    taken: int
    trains: bool
    shapes: tuple[str, str]
    layer: ClassLayer | None


class Plan(NamedTuple):
    """What a run starts from, as the first of its transforms (``jdet.train.init.transforms``).

    Attributes:
        stored: the source.
        entries: by path, all parameters and statistics of the new model.
        unused: arrays of the source, by path, that go nowhere.
        classes: for every new class its position in the source; empty where no class layer is mapped.
        class_names: of the new model.
        warnings: what may not be meant.
    """

    stored: Stored
    entries: dict[str, Entry]
    unused: dict[str, int]
    classes: tuple[int | None, ...]
    class_names: tuple[str, ...]
    warnings: list[str]

    @property
    def name(self) -> str:
        """``NAME``."""
        return NAME

    def __call__(self, params: Any, stats: Any) -> tuple[Any, Any]:
        """The initial parameters and statistics, with those of the source in their place."""
        old_classes = len(self.stored.config.class_names)

        def take(path, initial):
            path = path_text(path)
            entry = self.entries[path]
            if not entry.taken:
                return initial
            array = self.stored.arrays[path]
            if entry.action == "mapped":
                assert entry.layer is not None
                array = take_classes(
                    np.asarray(initial), array, entry.layer, self.classes, old_classes
                )
            return jax.make_array_from_callback(
                array.shape, initial.sharding, lambda index: array[index]
            )

        return tuple(jax.tree_util.tree_map_with_path(take, tree) for tree in (params, stats))

    def record(self) -> dict[str, Any]:
        """The account for ``run.json``."""

        def share(trains: bool) -> list[int]:
            chosen = [e for e in self.entries.values() if e.trains == trains]
            return [sum(e.taken for e in chosen), sum(e.size for e in chosen)]

        names = self.stored.config.class_names
        return {
            "run": str(self.stored.run),
            "step": self.stored.step,
            "weights": "ema" if self.stored.average else "raw",
            "parameters": share(True),
            "statistics": share(False),
            "modules": self.modules(),
            "absent": sorted(self.paths("absent")),
            "other_shape": {p: self.entries[p].shapes for p in self.paths("other")},
            "unused": sorted(self.unused),
            "classes": {
                name: None if old is None else names[old]
                for name, old in zip(self.class_names, self.classes)
            },
            "warnings": self.warnings,
        }

    def modules(self) -> dict[str, dict[str, list[int]]]:
        """By module: tensors and numbers loaded, mapped, left, of other shape, and unused."""
        columns = ("loaded", "mapped", "left", "other", "unused")
        table = {
            part_of(path): {column: [0, 0] for column in columns}
            for path in (*self.entries, *self.unused)
        }

        def count(path: str, column: str, tensors: int, numbers: int) -> None:
            cell = table[part_of(path)][column]
            cell[0] += tensors
            cell[1] += numbers

        for path, entry in self.entries.items():
            action = "left" if entry.action == "absent" else entry.action
            count(path, action, 1, entry.taken or entry.size)
            if entry.taken < entry.size and action == "mapped":
                count(path, "left", 0, entry.size - entry.taken)
        for path, size in self.unused.items():
            count(path, "unused", 1, size)
        return table

    def describe(self) -> str:
        """The account as text: modules, classes, what was left, warnings."""
        titles = ("loaded", "by class", "left as initialised", "other shape", "unused there")
        rows: list[tuple[str, ...]] = [("tensors, numbers", *titles)]
        for module, cells in self.modules().items():
            rows.append((module, *(f"{t}, {n:,}" if n else "–" for t, n in cells.values())))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(f"{c:>{w}}" for c, w in zip(row, widths)) for row in rows]
        if self.classes:
            names = self.stored.config.class_names
            pairs = [(n, names[o]) for n, o in zip(self.class_names, self.classes) if o is not None]
            known = ", ".join(n if n == o else f"{n} ({o})" for n, o in pairs)
            fresh = [n for n, o in zip(self.class_names, self.classes) if o is None]
            lines.append(f"classes from the source: {known}")
            lines.append(f"classes without counterpart, as initialised: {some(fresh) or 'none'}")
        for action, title in (("absent", "not in the source"), ("other", "of other shape")):
            if found := self.paths(action):
                lines.append(f"{title}, as initialised:\n  {listed(self.lines(found))}")
        lines += [f"WARNING: {text}" for text in self.warnings]
        return "\n".join(lines)

    def paths(self, action: str) -> list[str]:
        """Paths with this action."""
        return [path for path, entry in self.entries.items() if entry.action == action]

    def lines(self, paths: Iterable[str]) -> list[str]:
        """Per path the shapes in the source and here."""
        lines = []
        for path in paths:
            there, here = self.entries[path].shapes
            lines.append(f"{path}: {there or 'absent'} in the source, {here} here")
        return lines


PARTS = ("backbone", "neck", "rpn", "box_head", "mask_head")
"""Parts that have a name of their own wherever in the model they lie."""


def part_of(path: str) -> str:
    """The part of the model that a parameter belongs to: one of ``PARTS``, else its outermost module.

    Several modules may be one part, such as the box heads of a cascade: ``box_head1/…``, ``box_head_2/…``.
    """
    modules = path.split("/")
    named = [re.sub(r"_?\d+$", "", module) for module in modules]
    return next((name for name in named if name in PARTS), modules[0])


def summary(record: Mapping[str, Any] | None) -> str:
    """What ``Plan.record`` gave in one line; None is what a run without a source has."""
    if record is None:
        return "random weights, nothing pre-trained"
    (taken, of), (taken_stats, of_stats) = record["parameters"], record["statistics"]
    average = " (moving average)" if record["weights"] == "ema" else ""
    return (
        f"{taken:,} of {of:,} parameters and {taken_stats:,} of {of_stats:,} statistics from "
        f"{record['run']} step {record['step']}{average}"
    )


def some(names: Iterable[str]) -> str:
    """The first names of a long list, and how many there are."""
    names = list(names)
    more = f" … ({len(names)} in all)" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def listed(lines: list[str]) -> str:
    """The first lines of many, indented, and how many more there are."""
    more = f"\n  … and {len(lines) - LISTED} more" if len(lines) > LISTED else ""
    return "\n  ".join(lines[:LISTED]) + more
