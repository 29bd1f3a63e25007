"""Runs a study of many arms on a small machine and writes its table.

    python -m experiments.miniature table1 root_block dsod --root=BCCD --runs=runs/miniature
    python -m experiments.miniature table1 --only=0.05 --seeds=0,1,2 --jobs=2

An arm is a run of ``jdet.main`` in a folder of its own, ``RUNS/STUDY/ARM-sSEED``. Finished arms are not run
again and stopped ones go on where they were, so that the command can be stopped and repeated at will. A
run that diverges is a result. After every run ``RUNS/STUDY/table.md`` and ``table.json`` are written anew
from all finished runs in the folder, whichever command began them: mean and range over the seeds, and
whether what the paper found shows here too.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import importlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jdet import files

DONE = ("completed", "diverged")
MAIN = "voc07/mAP"

Scores = Mapping[str, list[float]]
"""Main metric of every seed of an arm; a diverged run counts as 0."""


class Study(NamedTuple):
    """Arms that answer one question.

    Attributes:
        question: what is asked, and the paper's table.
        arms: name to experiment and its arguments.
        claims: what the paper found, and a test of it.
        columns: metrics of the table beside the main one.
        options: further command-line options of every arm.
    """

    question: str
    arms: dict[str, str]
    claims: tuple[tuple[str, Callable[[Scores], bool]], ...] = ()
    columns: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def mean(scores: Scores, arm: str) -> float:
    """Of an arm over its seeds."""
    return statistics.fmean(scores[arm])


def best(scores: Scores, start: str) -> float:
    """Best mean of the arms whose names begin so."""
    return max(mean(scores, arm) for arm in scores if arm.startswith(start))


RATES = (0.001, 0.01, 0.05)
BY_SIZE = ("coco/AP", "coco/APs", "coco/APm", "coco/APl")

STUDIES = {
    "table1": Study(
        "Where must norms be, and which learning rate do they allow? (ScratchDet, Table 1)",
        {
            f"{norm}@{rate:g}": f"scratchdet_table1.py:norm={norm},lr={rate}"
            for norm in ("none", "head", "backbone", "both")
            for rate in RATES
        },
        (
            ("no norm diverges or fails at 0.05", lambda s: mean(s, "none@0.05") < 0.05),
            (
                "no norm is best at its smallest rate",
                lambda s: mean(s, "none@0.001") == best(s, "none"),
            ),
            ("head norms beat none", lambda s: best(s, "head") > best(s, "none")),
            ("backbone norms beat none", lambda s: best(s, "backbone") > best(s, "none")),
            ("backbone norms beat head norms", lambda s: best(s, "backbone") > best(s, "head")),
            (
                "both at their best rate are at least as good as every other arm",
                lambda s: best(s, "both") >= best(s, ""),
            ),
            (
                "both gain from the larger rates",
                lambda s: mean(s, "both@0.05") > mean(s, "both@0.001"),
            ),
        ),
    ),
    "root_block": Study(
        "Does resolution in the first layers help small objects? (ScratchDet, Table 2)",
        {
            stem: f"scratchdet_table2.py:stem={stem},lr=0.1,norm=sync_batch"
            for stem in ("s2_7x7", "s2_root3", "s1_7x7", "s1_root3")
        },
        (
            ("stride 1 beats stride 2", lambda s: mean(s, "s1_root3") > mean(s, "s2_root3")),
            (
                "three 3×3 beat one 7×7 at stride 1",
                lambda s: mean(s, "s1_root3") > mean(s, "s1_7x7"),
            ),
            (
                "the root block beats ResNet-18's stem",
                lambda s: mean(s, "s1_root3") > mean(s, "s2_7x7"),
            ),
        ),
        BY_SIZE,
        ("--config.eval.metrics=('voc','coco')", "--config.parallel.cpu_devices=2"),
    ),
    "dsod": Study(
        "Dense against plain prediction layers, and DSOD without norms (DSOD, Table 3; ScratchDet, sec. 1)",
        {
            "dense": "dsod_voc.py:head=dense",
            "plain": "dsod_voc.py:head=plain",
            **{f"no norm@{rate:g}": f"dsod_no_bn.py:lr={rate}" for rate in (0.001, 0.005, 0.01)},
        },
        (
            ("dense beats plain", lambda s: mean(s, "dense") > mean(s, "plain")),
            ("norms beat no norms", lambda s: mean(s, "dense") > best(s, "no norm")),
        ),
    ),
}


class Run(NamedTuple):
    """One arm with one seed."""

    study: str
    arm: str
    seed: int
    folder: Path

    @property
    def log(self) -> Path:
        """What the run printed; beside its folder, which is its own."""
        return self.folder.with_name(f"{self.folder.name}.log")

    def record(self) -> dict[str, Any]:
        """What the run wrote about itself; empty before its start."""
        path = self.folder / "run.json"
        return json.loads(path.read_text()) if path.exists() else {}


def plan(study: str, runs: Path, seeds: list[int], only: str = "") -> list[Run]:
    """Runs of a study, seed by seed, so that early tables have every arm."""
    names = [arm for arm in STUDIES[study].arms if re.search(only, arm)]
    return [
        Run(study, arm, seed, runs / study / f"{_slug(arm)}-s{seed}")
        for seed in seeds
        for arm in names
    ]


def begun(study: str, runs: Path) -> list[Run]:
    """All runs of a study that there are in a folder, arm by arm."""
    found = []
    for arm in STUDIES[study].arms:
        folders = {}
        for folder in (runs / study).glob(f"{_slug(arm)}-s*"):
            seed = folder.name.removeprefix(f"{_slug(arm)}-s")
            if seed.isdecimal() and folder.is_dir():
                folders[int(seed)] = folder
        found += [Run(study, arm, seed, folders[seed]) for seed in sorted(folders)]
    return found


def _slug(arm: str) -> str:
    return re.sub(r"[^\w.@-]", "_", arm)


def experiment(run: Run, root: str, steps: int) -> str:
    """File in ``experiments`` and arguments of a run."""
    arguments = f"{STUDIES[run.study].arms[run.arm]},mini,root={root},seed={run.seed}"
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
        there = run.record().get("steps")
        if there is None:
            continue
        name, _, arguments = experiment(run, root, steps).partition(".py:")
        asked = importlib.import_module(f"experiments.{name}").get_config(arguments).train.steps
        if asked != there:
            return (
                f"{run.folder} holds a run of {there} steps, and {asked} are asked for; give the same "
                "--steps as then, or another folder with --runs"
            )
    return ""


class Runner:
    """Runs commands side by side, each on its share of the cores, until told to stop."""

    def __init__(self, root: str, steps: int, jobs: int):
        self._root, self._steps, self._jobs = root, steps, jobs
        self._children: set[subprocess.Popen] = set()
        self._lock = threading.Lock()
        self.stopping = False
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self._shares = [set(cores[i::jobs]) for i in range(jobs)] if len(cores) >= jobs else []

    def stop(self, *_: Any) -> None:
        """Asks every run to save and end."""
        self.stopping = True
        with self._lock:
            for child in self._children:
                child.send_signal(signal.SIGTERM)

    def all(self, runs: list[Run], finished: Callable[[], None]) -> None:
        """Runs what is not done yet; ``finished`` is called after each."""
        waiting = [run for run in runs if run.record().get("status") not in DONE]
        free = list(self._shares)

        def one(run: Run) -> None:
            with self._lock:
                if self.stopping:
                    return
                share = free.pop() if free else None
            try:
                self._one(run, share)
            finally:
                with self._lock:
                    if share is not None:
                        free.append(share)
                    finished()

        with concurrent.futures.ThreadPoolExecutor(self._jobs) as pool:
            for future in [pool.submit(one, run) for run in waiting]:
                future.result()

    def _one(self, run: Run, share: set[int] | None) -> None:
        run.folder.parent.mkdir(parents=True, exist_ok=True)
        with open(run.log, "ab") as log, self._lock:
            if self.stopping:
                return
            child = subprocess.Popen(
                command(run, self._root, self._steps), stdout=log, stderr=subprocess.STDOUT
            )
            if share:
                os.sched_setaffinity(child.pid, share)
            self._children.add(child)
        code = child.wait()
        with self._lock:
            self._children.discard(child)
        record = run.record()
        text = record.get("status", "stopped before its start")
        if record.get("status") in DONE:
            text += f" {score(record):.3f}"
        elif code:  # what is on record may be of an earlier start
            text = f"failed with code {code}, see {run.log}"
        print(f"{run.study} {run.arm} seed {run.seed}: {text}", flush=True)


def score(record: Mapping[str, Any]) -> float:
    """Main metric of a run; 0 for one that diverged, as its weights are of no use; nan if unknown."""
    if record.get("status") == "diverged":
        return 0.0
    value = record.get("metrics", {}).get(MAIN)
    return float("nan") if value is None else value


def summary(study: str, runs: list[Run]) -> dict[str, Any]:
    """What the finished runs of a study say.

    Returns:
        ``arms`` (name to ``scores`` of the seeds, ``mean``, ``low``, ``high``, ``diverged``, ``steps``,
        ``seconds`` of training, and the means of the further metrics) and ``claims`` (text to
        True, False, or None while arms are missing).
    """
    arms: dict[str, dict[str, Any]] = {}
    for run in runs:
        record = run.record()
        if record.get("status") in DONE:
            arms.setdefault(run.arm, {"records": []})["records"].append(record)
    for arm in arms.values():
        records = arm.pop("records")
        scores = [score(record) for record in records]
        arm |= dict(
            scores=scores,
            mean=statistics.fmean(scores),
            low=min(scores),
            high=max(scores),
            diverged=sum(record["status"] == "diverged" for record in records),
            steps=max(record["step"] for record in records),
            seconds=statistics.fmean(seconds(record) for record in records),
            metrics=averages(records),
        )
    scores = {name: arm["scores"] for name, arm in arms.items()}
    whole = scores.keys() == STUDIES[study].arms.keys()
    claims = {text: holds(scores) if whole else None for text, holds in STUDIES[study].claims}
    return {"question": STUDIES[study].question, "arms": arms, "claims": claims}


def seconds(record: Mapping[str, Any]) -> float:
    """Training time of a run, without evaluations."""
    speed = record.get("images_per_second", 0)
    pictures = record["step"] * record["micro_batch"] * record["devices"]
    return pictures / speed if speed else 0.0


def averages(records: list[dict[str, Any]]) -> dict[str, float]:
    """Mean of every metric over the runs that did not diverge and have it.

    Not every set has objects of every size: a metric without any is null in ``run.json``.
    """
    values: dict[str, list[float]] = {}
    for record in records:
        if record["status"] == "completed":
            for name, value in record["metrics"].items():
                if value is not None:
                    values.setdefault(name, []).append(value)
    return {name: statistics.fmean(column) for name, column in values.items()}


def markdown(study: str, found: Mapping[str, Any]) -> str:
    """The table of a summary."""
    classes = sorted({n for arm in found["arms"].values() for n in arm["metrics"]})
    columns = [name for name in classes if name.startswith("voc07/AP/")]
    columns += [name for name in STUDIES[study].columns if name in classes]
    heads = ["arm", f"{MAIN}, %", "range", "seeds", "steps", "min", *columns]
    lines = [
        f"**{found['question']}**",
        "",
        f"| {' | '.join(heads)} |",
        "| --- " * len(heads) + "|",
    ]
    for name, arm in found["arms"].items():
        spread = f"{100 * arm['low']:.1f} … {100 * arm['high']:.1f}"
        cells = [name, f"{100 * arm['mean']:.1f}", spread, str(len(arm["scores"]))]
        if arm["diverged"]:
            cells[1] += f" ({arm['diverged']} diverged)"
        cells += [str(arm["steps"]), f"{arm['seconds'] / 60:.1f}"]
        cells += [f"{100 * arm['metrics'][c]:.1f}" if c in arm["metrics"] else "–" for c in columns]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    for text, holds in found["claims"].items():
        verdict = {True: "holds", False: "does not hold", None: "not all arms run"}[holds]
        lines.append(f"* {text}: {verdict}")
    return "\n".join(lines) + "\n"


def write(study: str, folder: Path) -> str:
    """Writes table and numbers of all finished runs of a study in a folder; returns the table."""
    found = summary(study, begun(study, folder))
    text = markdown(study, found)
    files.write_json(folder / study / "table.json", found)
    files.write_text(folder / study / "table.md", text)
    return text


def numbers(text: str) -> list[int]:
    """Comma-separated whole numbers."""
    return [int(part) for part in text.split(",")]


def pattern(text: str) -> str:
    """A regular expression."""
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from error
    return text


def main() -> int:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("studies", nargs="+", choices=list(STUDIES), metavar="STUDY")
    parser.add_argument("--root", default="data/bccd", help="folder of VOC shape")
    parser.add_argument("--runs", type=Path, default=Path("runs/miniature"))
    parser.add_argument("--seeds", type=numbers, default=[0, 1])
    parser.add_argument(
        "--steps", type=int, default=0, help="of every arm; 0: the experiment's own"
    )
    parser.add_argument(
        "--only", type=pattern, default="", help="arms that this regular expression finds"
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    options = parser.parse_args()
    if options.jobs < 1:
        parser.error(f"--jobs={options.jobs}; it must be at least 1")
    runner = Runner(options.root, options.steps, options.jobs)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, runner.stop)
    failed = False
    for study in options.studies:
        runs = plan(study, options.runs, options.seeds, options.only)
        if not runs:
            parser.error(f"--only={options.only} finds none of {', '.join(STUDIES[study].arms)}")
        if reason := other_length(begun(study, options.runs), options.root, options.steps):
            parser.error(reason)
        runner.all(runs, lambda: write(study, options.runs))  # noqa: B023
        print(write(study, options.runs))
        failed |= any(run.record().get("status") not in DONE for run in runs)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
