"""Runs of a study: the folder of each, what it wrote there, and the command that makes it."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments.studies.questions import STUDIES
from jdet.config import split_phases
from jdet.train.schedule import resolve

DONE = ("completed", "diverged")


class Run(NamedTuple):
    """One arm with one seed; ``folder`` is with the first study that has the same training."""

    study: str
    arm: str
    seed: int
    folder: Path

    @property
    def log(self) -> Path:
        """What the run printed; beside its folder, which is its own."""
        return self.folder.with_name(f"{self.folder.name}.log")

    def record(self) -> dict[str, Any]:
        """What the run wrote about itself, its phases together; empty before its start."""
        phases = self.folder / "phases.json"
        if not phases.exists():
            return _read(self.folder / "run.json")
        facts = json.loads(phases.read_text())["phases"]
        parts = [_read(self.folder / each["name"] / "run.json") for each in facts]
        ends = [part.get("status", "") for part in parts]
        status = "diverged" if "diverged" in ends else "running"
        begun = [part for part in parts if "step" in part]
        return {
            **parts[-1],
            "status": "completed" if set(ends) == {"completed"} else status,
            "step": sum(part["step"] for part in begun),
            "steps": sum(each["steps"] for each in facts),
            "seconds": sum(seconds(part) for part in begun),
        }


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def seconds(record: Mapping[str, Any]) -> float:
    """Training time of a run, without evaluations."""
    if "seconds" in record:
        return record["seconds"]
    speed = record.get("images_per_second", 0)
    images = record["step"] * record["micro_batch"] * record["devices"]
    return images / speed if speed else 0.0


def steps_of(config: ConfigDict, images: int) -> int:
    """Optimiser steps of a config, of all its phases together."""
    each = [phase.config for phase in split_phases(config)] if config.phases else [config]
    return sum(one.train.steps or resolve(one, images, devices=1).steps for one in each)


def plan(study: str, runs: Path, seeds: Sequence[int], only: str = "") -> list[Run]:
    """Runs of a study, seed by seed, so that early tables have every arm."""
    names = [arm for arm in STUDIES[study].arms if re.search(only, arm)]
    return [
        Run(study, arm, seed, runs / f"{_home(study, arm)}-s{seed}")
        for seed in seeds
        for arm in names
    ]


def begun(study: str, runs: Path) -> list[Run]:
    """All runs of a study that there are in a folder, arm by arm."""
    found = []
    for arm in STUDIES[study].arms:
        folders, home = {}, runs / _home(study, arm)
        for folder in home.parent.glob(f"{home.name}-s*"):
            seed = folder.name.removeprefix(f"{home.name}-s")
            if seed.isdecimal() and folder.is_dir():
                folders[int(seed)] = folder
        found += [Run(study, arm, seed, folders[seed]) for seed in sorted(folders)]
    return found


def _home(study: str, arm: str) -> str:
    """Where an arm's runs lie, without their seeds: with the first study that has the same training."""

    def training(of: str, name: str) -> tuple:
        return STUDIES[of].arms[name], STUDIES[of].options, STUDIES[of].data

    wanted = training(study, arm)
    others = ((of, name) for of in STUDIES for name in STUDIES[of].arms)
    study, arm = next(each for each in others if training(*each) == wanted)
    slug = re.sub(r"[^\w.@-]", "_", arm)
    return f"{study}/{slug}"


def experiment(run: Run, root: str, steps: int) -> str:
    """File in ``experiments`` and arguments of a run.

    Args:
        run: which.
        root: folder of VOC shape, or one that holds such folders under the names of the sets.
        steps: of training; 0: the experiment's own.
    """
    study = STUDIES[run.study]
    own = Path(root) / study.data
    folder = own if own.is_dir() else root
    arguments = f"{study.arms[run.arm]},mini,root={folder},seed={run.seed}"
    return arguments + (f",steps={steps}" if steps else "")


def command(run: Run, root: str, steps: int) -> list[str]:
    """The command line of a run."""
    return [
        *(sys.executable, "-m", "jdet.main"),
        f"--config=experiments/{experiment(run, root, steps)}",
        f"--workdir={run.folder}",
        *STUDIES[run.study].options,
    ]


def other_length(runs: list[Run], root: str, steps: int) -> str:
    """Why runs cannot count as these, for they were begun with other steps; "" where all can."""
    for run in runs:
        record = run.record()
        if "steps" not in record:
            continue
        name, _, arguments = experiment(run, root, steps).partition(".py:")
        config = importlib.import_module(f"experiments.{name}").get_config(arguments)
        asked = steps_of(config, record.get("num_examples", 0))
        if asked != record["steps"]:
            return (
                f"{run.folder} holds a run of {record['steps']} steps, and {asked} are asked for; "
                "give the same --steps as then, or another folder with --runs"
            )
    return ""
