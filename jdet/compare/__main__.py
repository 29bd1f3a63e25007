"""Which of several runs is better, and whether that is more than chance.

    python -m jdet.compare RUN RUN … [--out=FOLDER] [--samples=1000] [--seed=0] [--phase=NAME]

Takes the detections of the runs' last evaluations, which must be of the same images, and compares each run
with the first by a paired bootstrap over images: AP, AP50 and AP75 of all classes and of each, with 95 %
intervals of the difference. Prints a table; with ``--out`` it also writes ``comparison.json`` and
``comparison.png``. An interval says how far the difference would move with other images. Several seeds of
one recipe are given as RUN,RUN; the interval is then of their mean and knows of seeds too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from jdet import cli
from jdet.analyse.evaluated import read_run
from jdet.atomic_files import write_json
from jdet.compare import show
from jdet.compare.compare import SAMPLES, compare
from jdet.data.find_images import expanded
from jdet.types import ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code, 2 for a user's mistake."""
    parser = argparse.ArgumentParser(
        prog="python -m jdet.compare",
        description="Which of several runs is better, and whether that is more than chance.",
    )
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", help="evaluated runs; seeds of one recipe with commas"
    )
    parser.add_argument("--out", default="", help="folder for comparison.json and comparison.png")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="draws of the bootstrap")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--phase", default="", help="of runs with phases; else the last finished")
    args = parser.parse_args(argv)

    def work() -> None:
        if args.samples < 100:
            raise ConfigError(f"--samples={args.samples} must be at least 100, such as 1000")
        if args.seed < 0:
            raise ConfigError(f"--seed={args.seed} must be at least 0")
        recipes = [
            [
                read_run(run, args.phase)
                for run in ([given] if expanded(given).exists() else _seeds(given))
            ]
            for given in args.runs
        ]
        found = compare(recipes, args.samples, args.seed)
        if args.out:
            out = expanded(args.out)
            out.mkdir(parents=True, exist_ok=True)
            write_json(out / "comparison.json", found.as_json())
            show.plot(found, out / "comparison.png")
        print(show.table(found))

    return cli.run(work, OSError)


def _seeds(given: str) -> list[str]:
    """The runs of ``RUN,RUN``."""
    return [run for run in given.split(",") if run] or [given]


if __name__ == "__main__":
    sys.exit(main())
