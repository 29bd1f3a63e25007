"""One recipe for folders that nobody tuned it for, measured on many sets under fixed budgets.

    python -m experiments.studies.own_folder --root=SETS --runs=runs/own_folder
    python -m experiments.studies.own_folder --root=SETS --minutes=1 --sets=bccd --arms='today|new'

SETS holds a folder for each set. Three drawn kinds of sets (few images, many classes, tiny objects), and
cards that differ in small marks, are written to RUNS/sets and join them. Every arm trains on every set for
so many minutes of the machine's cores, compilation and evaluations besides, with arguments that do not know
the set. Finished runs are not repeated, stopped ones go on; a run that fails is a result too, and is tried
again by the next call.

After every run RUNS/table.md, table.json and curves.png are written from all finished runs: AP, AP50, cost
and failures of each arm, and for every set the arm that is best on the other sets (leave one out), beside
the one that is best on the set itself.

An arm is an experiment with its arguments, and settings of the command line; more are rows of ``ARMS``.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging

from experiments.studies import own_folder_table, shape_sets
from experiments.studies.miniature import Runner, numbers, pattern
from experiments.studies.runs import DONE, Run
from jdet import atomic_files
from jdet.data.discover import discover
from jdet.types import ConfigError, DataError


class Arm(NamedTuple):
    """A way to train.

    Attributes:
        experiment: file in ``experiments`` and arguments, but those of folder, time and seed.
        settings: further ones of the command line, without ``--config.``.
    """

    experiment: str
    settings: tuple[str, ...] = ()


NEW = "own_folder.py:cpu"

ARMS = {
    # What scratchdet_custom did before the data decided about more than default boxes.
    "today": Arm("scratchdet_custom.py:cpu,size=128,tile=none,flips=mirror,zoom=full,balance=none"),
    "new": Arm(NEW),
    "retinanet": Arm(f"{NEW},detector=retinanet"),
    "atss": Arm(f"{NEW},detector=atss"),
    "fcos": Arm(f"{NEW},detector=fcos"),
    "own_boxes": Arm(f"{NEW},fit=false"),
    "mirrored": Arm(f"{NEW},flips=mirror"),
    "zoomed": Arm(f"{NEW},zoom=full"),
    "whole": Arm(f"{NEW},tile=none"),
    "unbalanced": Arm(f"{NEW},balance=none"),
    "batch16": Arm(f"{NEW},batch=16"),
    "batch4": Arm(f"{NEW},batch=4"),
    "wide": Arm(f"{NEW},width=0.75"),
    "rate_half": Arm(f"{NEW},lr=0.025"),
    "rate_double": Arm(f"{NEW},lr=0.1"),
    "no_average": Arm(NEW, ("train.ema=0.0",)),
    "calm_colours": Arm(NEW, ("augment.photometric=0.2",)),
    "group_norms": Arm(NEW, ("model.norm='group'", "model.head_norm='group'")),
}
"""By name; "today" and "new" are run where none are asked for."""

BASE = ("today", "new")
METRICS = "eval.metrics=('coco','voc')"


def sets_in(root: Path, drawn: Path, only: str) -> dict[str, Path]:
    """The sets by name: labelled folders in a folder, and those that are drawn."""
    found = {}
    for folder in sorted(root.expanduser().iterdir()):
        if folder.is_dir() and re.search(only, folder.name):
            try:
                discover(folder)
            except (DataError, ConfigError) as error:
                logging.warning("%s is left out: %s", folder, error)
                continue
            found[folder.name] = folder
    for name in (*shape_sets.SETS, shape_sets.CARDS):
        if re.search(only, name):
            found[name] = shape_sets.make(name, drawn / name)
    return found


def plan(
    sets: dict[str, Path], arms: list[str], minutes: list[float], seeds: list[int], runs: Path
) -> list[Run]:
    """The runs: shortest budgets first, and of each all sets with one arm before the next."""
    return [
        Run(name, f"{arm}@{budget:g}", seed, runs / name / f"{arm}-m{budget:g}-s{seed}")
        for budget in sorted(minutes)
        for seed in seeds
        for arm in arms
        for name in sets
    ]


def command(run: Run, folder: Path, full: bool = False) -> list[str]:
    """The command line of a run.

    Args:
        run: which.
        folder: of its set.
        full: leave ``cpu`` out, for a machine with an accelerator.
    """
    name, _, budget = run.arm.rpartition("@")
    arm = ARMS[name]
    experiment = arm.experiment
    if full:
        experiment = experiment.replace("cpu,size=128", "size=300")  # scratchdet_custom's sides
        experiment = experiment.replace(":cpu,", ":").replace(":cpu", ":").rstrip(":")
    join = "," if ":" in experiment else ":"
    arguments = f"{experiment}{join}root={folder},minutes={budget},seed={run.seed}"
    return [
        *(sys.executable, "-m", "jdet.main"),
        f"--config=experiments/{arguments}",
        f"--workdir={run.folder}",
        *(f"--config.{setting}" for setting in (METRICS, "eval.images=0", *arm.settings)),
    ]


class Bench(Runner):
    """Runs of the bench, side by side.

    Args:
        sets: folders by name.
        full: as in ``command``.
        jobs: as in ``Runner``.
        programs: as in ``Runner``.
    """

    def __init__(self, sets: dict[str, Path], full: bool, jobs: int, programs: Path):
        super().__init__("", 0, jobs, programs)
        self._sets, self._full = sets, full

    def words(self, run: Run) -> list[str]:
        """As in ``Runner``."""
        return command(run, self._sets[run.study], self._full)

    def failed(self, run: Run, code: int) -> None:
        """Writes that a run failed; one that succeeds later counts instead."""
        atomic_files.write_json(own_folder_table.failure(run), dict(code=code))

    def value(self, run: Run) -> float:
        """AP50 of a finished run."""
        return own_folder_table.score(run, own_folder_table.AP50)


def _minutes(text: str) -> list[float]:
    values = [float(part) for part in text.split(",")]
    if not values or min(values) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r}: minutes above 0, such as 15,60")
    return values


def main(arguments: list[str] | None = None) -> int:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, required=True, help="folder of the sets' folders")
    parser.add_argument("--runs", type=Path, default=Path("runs/own_folder"))
    parser.add_argument("--minutes", type=_minutes, default=[15.0, 60.0], help="15,60")
    parser.add_argument(
        "--arms", type=pattern, help="names that this regular expression matches; else today, new"
    )
    parser.add_argument("--sets", type=pattern, default="", help="the same of sets; else all")
    parser.add_argument("--seeds", type=numbers, default=[0])
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--full", action="store_true", help="full-size arms, on an accelerator")
    options: Any = parser.parse_args(arguments)
    arms = [
        arm for arm in ARMS if (re.fullmatch(options.arms, arm) if options.arms else arm in BASE)
    ]
    if not arms:
        parser.error(f"--arms={options.arms} matches none of {', '.join(ARMS)}")
    if options.jobs < 1 or not options.root.expanduser().is_dir():
        parser.error(f"--jobs={options.jobs} must be at least 1, --root={options.root} a folder")
    sets = sets_in(options.root, options.runs / "sets", options.sets)
    if not sets:
        parser.error(f"--sets={options.sets} finds no labelled folder in {options.root}")
    runs = plan(sets, arms, options.minutes, options.seeds, options.runs)
    bench = Bench(sets, options.full, options.jobs, options.runs / "programs")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, bench.stop)
    bench.all(runs, lambda: own_folder_table.write(options.runs))
    print(own_folder_table.write(options.runs))
    return int(any(run.record().get("status") not in DONE for run in runs))


if __name__ == "__main__":
    sys.exit(main())
