"""What a training from scratch will come to, and how many more images a target takes.

    python -m jdet.analysis.price RUN
    python -m jdet.analysis.price RUN RUN RUN … --target=0.9

Of each run, finished or still training, the final AP is foretold from its last evaluation, with an interval
(docs/learning.md says what it is worth). Of three runs and more on parts of a set
(``--config.data.share=0.1``, 0.25, 0.5, 1) a law over the number of images follows, and with ``--target``
how many images reach that AP.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from jdet import cli
from jdet.analysis.price import of_runs
from jdet.train.workdir import open_run
from jdet.types import ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code, 2 for a user's mistake."""
    parser = argparse.ArgumentParser(prog="python -m jdet.analysis.price", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("runs", metavar="RUN", nargs="+", help="evaluated runs")
    parser.add_argument("--target", type=float, default=0.0, help="AP to reach, 0 … 1")
    parser.add_argument("--metric", default="", help="as the evaluation names it; else AP50 or mAP")
    parser.add_argument("--phase", default="", help="of runs with phases; else the last finished")
    given = parser.parse_args(argv)

    def work() -> None:
        if not 0 <= given.target < 1:
            raise ConfigError(
                f"--target={given.target:g} must be at least 0 and below 1, such as 0.9"
            )
        if given.target and len(given.runs) < 3:
            raise ConfigError(
                f"--target={given.target:g} takes a law over images; give three runs on parts of the set, "
                "trained with --config.data.share=0.25, 0.5 and 1"
            )
        prices = [of_runs.price(open_run(run, given.phase), given.metric) for run in given.runs]
        for one in prices:
            print(f"{one.name}: {of_runs.sentence(one)}")
        if len(prices) > 2:
            print("\n".join(of_runs.table(prices, given.target)))

    return cli.run(work)


if __name__ == "__main__":
    sys.exit(main())
