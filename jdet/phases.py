"""Several trainings in one workdir, each starting from the one before.

A config with ``phases`` is one config per phase (``jdet.config.split_phases``). Each phase is an ordinary
run in a folder of its own inside the workdir, so that it resumes exactly, is evaluated, predicts and is
reported like any other. Beside these folders lie ``phases.json``, what became of every phase, and
``curves.png``, all of them in one figure. ``jdet.run.train`` calls this.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
from absl import logging
from ml_collections import ConfigDict

from jdet import build
from jdet import config as config_lib
from jdet.analysis.curves import plot_curves
from jdet.atomic_files import write_json
from jdet.config import Phase, complete, flatten
from jdet.parallel import broadcast
from jdet.train import schedule
from jdet.train.claim import Claim, check_name
from jdet.train.cycle import Result
from jdet.train.folders import (
    CONFIG,
    CURVES,
    METRICS,
    PHASES,
    discard,
    phase_names,
    read_json,
    record_of,
)
from jdet.train.progress import Outlook
from jdet.train.workdir import differences
from jdet.types import ConfigError


class Ready(Protocol):
    """A training that can begin: its data are there, and its config is complete."""

    @property
    def config(self) -> ConfigDict:
        """Complete config, without phases."""
        ...

    @property
    def num_examples(self) -> int:
        """Images of an epoch."""
        ...


class Planned(NamedTuple):
    """A phase with what its training needs.

    Attributes:
        phase: its name and what it sets.
        ready: from ``prepare``.
        steps: of its training.
        cost: of a step, in pixels of network inputs.
    """

    phase: Phase
    ready: Any
    steps: int
    cost: float


def train(
    config: ConfigDict,
    workdir: str | Path,
    *,
    prepare: Callable[[ConfigDict, Path], Ready],
    train_phase: Callable[[Any, Path, Outlook], Result],
    overwrite: bool = False,
    say: Callable[[str], None] = logging.info,
) -> Result:
    """Trains the phases of a config one after the other, or goes on where the workdir stopped.

    Everything that can be wrong with a later phase's config or data is found before the first one trains.
    A phase that is finished is not begun again.

    Args:
        config: a whole config with phases.
        workdir: folder of all phases; made if it is not there.
        prepare: from the config of one training and its folder to one that can begin; raises where it
            cannot.
        train_phase: trains one in a folder, given what comes before and after it; of a finished one it
            gives the result.
        overwrite: discard the run that the workdir holds.
        say: told what is done.

    Returns:
        The result of the last phase, or of one that did not come to its end.

    Raises:
        ConfigError: the config is invalid, or the workdir holds another run or none.
        DataError: a data set is missing or contradicts itself.
    """
    check_name(workdir)
    root = Path(workdir).expanduser().absolute()
    planned = [_plan(phase, root, prepare) for phase in config_lib.split_phases(config)]
    with _held(root, overwrite, say):
        finished = broadcast.from_main(lambda: _finished(root, planned))
        _announce(planned, finished, say)
        for place, each in enumerate(planned):
            last = place == len(planned) - 1
            if place < finished and not last:
                continue
            try:
                result = train_phase(each.ready, root / each.phase.name, _outlook(planned, place))
            except Exception:
                if jax.process_index() == 0:  # the others may be gone: nothing is said to them
                    with contextlib.suppress(Exception):
                        _write_record(root, planned)
                raise
            broadcast.from_main(lambda: _write_record(root, planned))
            if last or result.status != "completed":
                return result
            del result  # its weights make room for the next phase
    raise AssertionError("a config with phases has a last one")


def _plan(phase: Phase, root: Path, prepare: Callable[[ConfigDict, Path], Ready]) -> Planned:
    try:
        config_lib.validate(phase.config)
        ready = prepare(phase.config, root / phase.name)
        steps = schedule.resolve(ready.config, ready.num_examples).steps
    except ConfigError as error:
        raise ConfigError(f"phase {phase.name}: {error}") from error
    pixels = math.prod(build.resize(ready.config).largest)
    return Planned(phase, ready, steps, float(ready.config.train.batch_size * pixels))


@contextlib.contextmanager
def _held(root: Path, overwrite: bool, say: Callable[[str], None]) -> Iterator[None]:
    """Holds the workdir for this process, and refuses one that holds something else.

    Raises:
        ConfigError: another process trains there, or it holds a run without phases or no run at all.
    """

    def take() -> None:
        if root.exists() and not root.is_dir():
            raise ConfigError(f"workdir {root} is a file; name a folder")
        try:
            root.mkdir(parents=True, exist_ok=True)
            claims.append(Claim(root, say))
        except OSError as error:
            raise ConfigError(f"workdir {root} cannot be used: {error}") from error
        known = (root / PHASES).exists() or (root / CONFIG).exists()
        unfinished = f"{PHASES}.tmp"  # left by a process that was killed while it wrote
        names = sorted(path.name for path in root.iterdir())
        held = [name for name in names if not name.startswith(".") and name != unfinished]
        if held and not known:
            raise ConfigError(
                f"workdir {root} holds something else than a run ({', '.join(held[:5])}); name an empty or "
                "new folder"
            )
        if overwrite and known:
            say(f"discarding the run in {root}")
            discard(root)
        elif (root / CONFIG).exists():
            raise ConfigError(
                f"workdir {root} holds a run without phases, and this config has some; give the config the "
                "run was begun with, take another workdir, or discard it with --overwrite"
            )

    claims: list[Claim] = []
    try:
        broadcast.from_main(take)
        yield
    finally:
        for claim in claims:
            claim.release()


def _finished(root: Path, planned: Sequence[Planned]) -> int:
    """How many phases are finished, after a check that they are those of the config, unchanged.

    Raises:
        ConfigError: the workdir has other phases or another order, or a finished phase has another config.
    """
    names = [each.phase.name for each in planned]
    begun = [name for name in phase_names(root) if (root / name / CONFIG).exists()]
    if begun != names[: len(begun)]:
        raise ConfigError(
            f"workdir {root} holds the phases {', '.join(begun)}, in this order; config.phases has "
            f"{', '.join(names)}. Those that have begun must come first; set this back, take another "
            "workdir, or discard it with --overwrite"
        )
    finished = 0
    for each in planned[: len(begun)]:
        folder = root / each.phase.name
        record = record_of(folder)
        if record.get("status") != "completed":
            break
        _check_unchanged(folder, each, record)
        finished += 1
    _write_record(root, planned)
    return finished


def _check_unchanged(folder: Path, each: Planned, record: dict[str, Any]) -> None:
    """Refuses a finished phase that the config describes otherwise."""
    config = each.ready.config
    defaults = json.loads(json.dumps(build.defaults(config)))
    stored = complete(read_json(folder / CONFIG, "put back a copy"))
    forbidden, _ = differences(
        {**defaults, **flatten(stored)}, {**defaults, **flatten(json.loads(config.to_json()))}
    )
    images = record.get("num_examples", each.ready.num_examples)
    if images != each.ready.num_examples:
        forbidden.append(f"images of an epoch: {images} → {each.ready.num_examples}")
    if forbidden:
        raise ConfigError(
            f"phase {each.phase.name} is finished in {folder}, and differs in\n  "
            + "\n  ".join(forbidden)
            + "\nSet this back to go on after it, take another workdir, or discard all phases with "
            "--overwrite."
        )


def _outlook(planned: Sequence[Planned], place: int) -> Outlook:
    """What comes before and after a phase, in steps of its own, by the pixels that they see."""

    def amount(others: Sequence[Planned]) -> float:
        return sum(other.steps * other.cost for other in others) / planned[place].cost

    label = f"phase {place + 1}/{len(planned)} {planned[place].phase.name}"
    return Outlook(label, amount(planned[:place]), amount(planned[place + 1 :]))


def _announce(planned: Sequence[Planned], finished: int, say: Callable[[str], None]) -> None:
    for place, each in enumerate(planned):
        sets = ", ".join(f"{key}={value!r}" for key, value in sorted(each.phase.sets.items()))
        passes = each.steps * each.ready.config.train.batch_size / each.ready.num_examples
        start = each.ready.config.init_from.path
        say(
            f"phase {place + 1}/{len(planned)} {each.phase.name}"
            f"{' (finished)' if place < finished else ''}: {each.steps} steps, {passes:.1f} data passes, "
            f"from {start or 'random weights'}; sets {sets or 'nothing'}"
        )


def _write_record(root: Path, planned: Sequence[Planned]) -> None:
    """Writes what became of every phase, and their curves as one."""
    facts, logs, before = [], [], 0
    for each in planned:
        folder = root / each.phase.name
        record = record_of(folder)
        kept = {
            key: record[key] for key in ("step", "metrics", "images_per_second") if key in record
        }
        status = record.get("status", "not begun")
        facts.append({"name": each.phase.name, "status": status, "steps": each.steps, **kept})
        logs.append((folder / METRICS, before))
        before += each.steps
    write_json(root / PHASES, {"phases": facts})
    logs = [(path, start) for path, start in logs if path.exists()]
    if logs:
        with contextlib.suppress(ValueError):  # nothing is logged yet
            plot_curves(logs, root / CURVES)
