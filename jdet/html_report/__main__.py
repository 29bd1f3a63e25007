"""The report of a run, finished or still training, as one page: ``report.html`` in its folder.

    python -m jdet.html_report RUN [--phase=NAME]

A training writes it by itself once it is complete, and so does an evaluation that is asked for; those in
the course of a training remove it, for it is older than they are. This is for runs that still train, were
interrupted, or are older than the page.
"""

from __future__ import annotations

import argparse
import sys

from jdet import cli
from jdet.html_report.write import write


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m jdet.html_report", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("run", help="folder of the run")
    parser.add_argument(
        "--phase", default="", help="of a run that has some; else the last finished"
    )
    given = parser.parse_args(argv)
    return cli.run(lambda: print(write(given.run, phase=given.phase)))


if __name__ == "__main__":
    sys.exit(main())
