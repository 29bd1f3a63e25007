"""Runs a study of many arms on a small machine and writes its table.

    python -m experiments.studies.miniature table1 root_block dsod --root=data --runs=runs/miniature
    python -m experiments.studies.miniature table1 --only=0.05 --seeds=0,1,2 --jobs=2

An arm is a run of ``jdet.main`` in a folder of its own, ``RUNS/STUDY/ARM-sSEED``; one that several studies
have is run once, in the folder of the first. Finished arms are not run again and stopped ones go on where
they were, so that the command can be stopped and repeated at will. A run that diverges is a result. After
every run ``RUNS/STUDY/table.md`` and ``table.json`` are written again from all finished runs in the folder,
whichever command began them: mean and range over the seeds, and whether what the paper found shows here
too.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.studies.questions import STUDIES
from experiments.studies.runs import DONE, Run, begun, command, other_length, plan
from experiments.studies.summary import score, write


class Runner:
    """Runs commands side by side, each on its share of the cores, until told to stop.

    A GPU is shared by all of them.

    Args:
        root: as in ``experiment``.
        steps: as in ``experiment``.
        jobs: runs side by side.
        programs: folder of compiled programs, which arms that differ in data or seed share.
    """

    def __init__(self, root: str, steps: int, jobs: int, programs: Path):
        self._root, self._steps, self._jobs = root, steps, jobs
        self._children: set[subprocess.Popen] = set()
        self._lock = threading.Lock()
        self.stopping = False
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self._shares = [set(cores[i::jobs]) for i in range(jobs)] if len(cores) >= jobs else []
        self._environment = dict(os.environ)
        self._environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(programs))
        if jobs > 1:  # by default the first of several runs on a GPU takes its memory
            self._environment.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

    def words(self, run: Run) -> list[str]:
        """The command line of a run."""
        return command(run, self._root, self._steps)

    def value(self, run: Run) -> float:
        """Main metric of a finished run."""
        return score(run.study, run.record())

    def failed(self, run: Run, code: int) -> None:
        """Is told of a run that ended with an error."""

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
                self.words(run),
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
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
            text += f" {self.value(run):.3f}"
        elif code:  # what is on record may be of an earlier start
            text = f"failed with code {code}, see {run.log}"
            self.failed(run, code)
        print(f"{run.study} {run.arm} seed {run.seed}: {text}", flush=True)


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
    parser.add_argument(
        "--root", default="data", help="folder that holds the sets by name, or one set's own folder"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/miniature"))
    parser.add_argument("--seeds", type=numbers, help="default: those of the study")
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
    runner = Runner(options.root, options.steps, options.jobs, options.runs / "programs")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, runner.stop)
    failed = False
    for study in options.studies:
        runs = plan(study, options.runs, options.seeds or STUDIES[study].seeds, options.only)
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
