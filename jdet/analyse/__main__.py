"""Where the detector of a run fails, and which score thresholds to use.

    python -m jdet.analyse RUN [--slices=FILE_OR_ATTRIBUTE] [--precision=0.9] [--phase=NAME]

Takes the detections of the run's last evaluation and the objects of its evaluation set, computes AP by
class, size and slice, TIDE's error types, confusions, calibration, score thresholds, the worst images and
suspected labels, prints a summary and writes ``RUN/analysis.json`` (``jdet.analyse.records``) and
``RUN/report.html``. A training does the same once it is complete, and an evaluation that is asked for,
without slices and at a precision of 0.9. The network is not run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from jdet import cli
from jdet.analyse import records, thresholds
from jdet.analyse.compute import analyse
from jdet.analyse.evaluated import read_run
from jdet.analyse.slices import read_slices
from jdet.analyse.summary import summary
from jdet.evaluation.evaluate import needs_masks
from jdet.html_report.write import write as write_page
from jdet.types import ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code, 2 for a user's mistake."""
    parser = argparse.ArgumentParser(
        prog="python -m jdet.analyse",
        description="Where the detector of a run fails, and which score thresholds to use.",
    )
    parser.add_argument("run", metavar="RUN", help="folder of an evaluated run")
    parser.add_argument(
        "--slices",
        default="",
        help='parts of the set to score too: a JSON file {"night": [17, 23], …} of image ids or names, or '
        "a field of the images of a COCO annotation file",
    )
    parser.add_argument(
        "--precision",
        type=float,
        default=thresholds.PRECISION,
        help="wanted of the second threshold of each class (predict --score=precision)",
    )
    parser.add_argument("--phase", default="", help="of a run with phases; else the last finished")
    args = parser.parse_args(argv)

    def work() -> None:
        if not 0 < args.precision <= 1:
            raise ConfigError(
                f"--precision={args.precision} must be above 0 and at most 1, such as 0.9"
            )
        run = read_run(args.run, args.phase)
        slices = read_slices(args.slices, run) if args.slices else {}
        found = analyse(
            run.images,
            run.class_names,
            precision=args.precision,
            slices=slices,
            step=run.step,
            masks=needs_masks(run.config, run.class_names),
        )
        records.write(run.path, found)
        print(summary(found))
        print(f"\nall of it: {run.path / records.FILE}, with images: {write_page(run.path)}")

    return cli.run(work, OSError)


if __name__ == "__main__":
    sys.exit(main())
