"""Parts of a run trained again: from one checkpoint to the next, and the weights held against what it had.

A run goes on from a checkpoint bit by bit as if it had not stopped (``jdet.train.loop``), so that a segment
between two checkpoints ends with the weights, optimiser state, averages and statistics that the run had,
bit for bit, on the machine of the run. On another one sums are taken in another order, and the ends lie
apart by a share of the way that the weights went.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from jdet import run as run_lib
from jdet.atomic_files import write_json, write_text
from jdet.train import early_stop
from jdet.train.checkpoints import checkpoint, manifest, select
from jdet.train.folders import CONFIG, METRICS, RUN
from jdet.train.workdir import Run
from jdet.types import TrainState

TOLERANCE = 0.05
"""Share of the way of the weights by which the end may lie apart on another machine."""

_QUIET: dict[str, Any] = {"eval_at_start": False, "loggers": (), "learning": {"images": 0}}
"""Keys of ``train`` that are set for a segment; none changes the weights."""


class Retrained(NamedTuple):
    """A segment that was trained again.

    Attributes:
        first, last: steps.
        arrays: of the state.
        different: paths of those that are not equal bit for bit.
        apart: distance of the parameters from the run's, as a share of their way in the segment; 0 where
            they are equal.
        elsewhere: how machine, libraries or code differ from those of the run, a line each.
        error: why it could not be trained; "": it was.
    """

    first: int
    last: int
    arrays: int = 0
    different: tuple[str, ...] = ()
    apart: float = 0.0
    elsewhere: tuple[str, ...] = ()
    error: str = ""

    def holds(self, tolerance: float) -> bool:
        """Whether the segment agrees: bit for bit, or within a tolerance on another machine."""
        if self.error:
            return False
        return not self.different or bool(self.elsewhere and self.apart <= tolerance)

    def describe(self, tolerance: float) -> list[str]:
        """What came out, in lines."""
        name = f"steps {self.first} to {self.last}"
        if self.error:
            return [f"{name} could not be trained again: {self.error}"]
        if not self.different:
            return [f"{name}: all {self.arrays} arrays are equal bit for bit"]
        more = f" and {len(self.different) - 3} more" if len(self.different) > 3 else ""
        lines = [
            f"{name}: {len(self.different)} of {self.arrays} arrays differ "
            f"({', '.join(self.different[:3])}{more}); the parameters end "
            f"{self.apart:.2g} of their way apart"
        ]
        if self.elsewhere:
            inside = "within" if self.apart <= tolerance else "beyond"
            lines.append(
                f"{inside} the tolerance of {tolerance:g}, for here is not where it was trained:"
            )
            lines += [f"  {each}" for each in self.elsewhere]
        else:
            lines.append("machine, libraries and code are those of the run: bits must be equal")
        return lines


def segments(steps: Sequence[int], from_start: bool) -> list[tuple[int, int]]:
    """The segments between checkpoints.

    Args:
        steps: of the checkpoints, in their order.
        from_start: with the one from the initial weights to the first checkpoint.
    """
    steps = [0, *steps] if from_start and 0 not in steps else [*steps]
    return list(zip(steps, steps[1:]))


def choose(known: Sequence[tuple[int, int]], count: int, seed: int) -> list[tuple[int, int]]:
    """Some of the segments at random, in their order; all where there are not more."""
    if count >= len(known):
        return [*known]
    return sorted(random.Random(seed).sample(known, count))


def retrain(run: Run, config: ConfigDict, first: int, last: int) -> Retrained:
    """Trains a segment again in a folder of its own, which is removed afterwards.

    Args:
        run: that has checkpoints of both steps; of ``first`` none is needed where that is 0.
        config: of the run, with the places where its data are now.
        first: step to begin at.
        last: step to end at.

    Raises:
        ConfigError, DataError, CheckpointError: it cannot be trained.
    """
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.train.update(_QUIET)
        if early_stop.policy_of(config) is None:
            config.train.eval_every = 0  # no evaluation decides about the rate
        config.data.workers = 0
    with tempfile.TemporaryDirectory(prefix="jdet-verify-") as scratch:
        folder = Path(scratch) / "run"
        if first:
            _begin(run, config, first, folder)
        result = run_lib.train(config, folder, until=last)
        again = jax.device_get(result.state)
        record = json.loads((folder / RUN).read_text())
    there = checkpoint.load_like(run.checkpoints / str(last), again)
    before = checkpoint.load_like(run.checkpoints / str(first), again).params if first else None
    ours, theirs = _arrays(again), _arrays(there)
    different = tuple(path for path in ours if not _same(ours[path], theirs[path]))
    return Retrained(
        first,
        last,
        arrays=len(ours),
        different=different,
        apart=_apart(again.params, there.params, before) if different else 0.0,
        elsewhere=_elsewhere(run.record.get("stretches", ()), record["stretches"][-1], first, last),
    )


def _begin(run: Run, config: ConfigDict, first: int, folder: Path) -> None:
    """Makes a folder that holds the run as it was when it had saved a step."""
    shutil.copytree(run.checkpoints / str(first), folder / select.FOLDER / str(first))
    write_text(folder / CONFIG, config.to_json())
    kept = {key: value for key, value in run.record.items() if key not in ("status", "stretches")}
    write_json(folder / RUN, kept)
    if (run.path / METRICS).exists():  # from which a policy decides
        shutil.copyfile(run.path / METRICS, folder / METRICS)


def _arrays(state: TrainState) -> dict[str, np.ndarray]:
    """The arrays of a state that checkpoints hold, by path."""
    tree = state._replace(finite=())._asdict()
    found = jax.tree_util.tree_leaves_with_path(tree)
    return {manifest.path_text(path): np.asarray(array) for path, array in found}


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _apart(ours: Any, theirs: Any, before: Any) -> float:
    """Distance of two trees of parameters, as a share of the way of the second.

    Where it is not known where that began, the way is taken from the origin.
    """

    def flat(tree: Any) -> np.ndarray:
        leaves = [np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(tree)]
        return np.concatenate([*leaves, np.zeros(1)])

    end = flat(theirs)
    way = np.linalg.norm(end - flat(before) if before is not None else end)
    distance = np.linalg.norm(flat(ours) - end)
    return float(distance / way) if way else float(distance)


def _elsewhere(
    stretches: Sequence[Mapping[str, Any]], here: Mapping[str, Any], first: int, last: int
) -> tuple[str, ...]:
    """How those stretches of a run that a segment lies in differ from what it was trained with again."""
    if not stretches:
        return (
            "the run does not say with what it was trained; it is of an earlier version of jdet",
        )
    ends = [each["first"] for each in stretches[1:]] + [last]
    inside = [each for each, end in zip(stretches, ends) if each["first"] < last and end > first]
    found = []
    for each in inside:
        if each["code"] != here["code"]:
            found.append(f"code: digest {each['code'][:12]} then, {here['code'][:12]} now")
        for group in ("versions", "machine"):
            then, now = each[group], here[group]
            found += [
                f"{key}: {then.get(key)} then, {now.get(key)} now"
                for key in sorted({*then, *now} - {"commit"})
                if then.get(key) != now.get(key)
            ]
    return tuple(dict.fromkeys(found))
