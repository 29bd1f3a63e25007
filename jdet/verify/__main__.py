"""Whether a certificate still holds: every digest is taken again, and parts of the run are trained again.

    python -m jdet.verify CERTIFICATE [--segments=3] [--seed=0] [--from_start] [--run=FOLDER]
        [--data=OLD=NEW …] [--tolerance=0.05]

Segments lie between checkpoints that the run kept. On the machine of the run they must end with the same
bits; on another one within a share of the way that the parameters went, which is then said.

Exit codes: 0 where all holds, 1 where something does not, 2 after a user's mistake.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from jdet import cli
from jdet.certify import certificate as certificate_lib
from jdet.train import provenance
from jdet.train.checkpoints.checkpoint import CheckpointError
from jdet.train.workdir import Run, open_run
from jdet.types import ConfigError, DataError
from jdet.verify import checks, moved, segments
from jdet.verify.checks import Check

FAILED = 1
"""Exit code where something is not as certified."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m jdet.verify", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("certificate", help="file that jdet.certify has written")
    parser.add_argument("--segments", type=int, default=3, help="to train again; 0: none")
    parser.add_argument("--seed", type=int, default=0, help="that chooses them")
    parser.add_argument(
        "--from_start",
        action="store_true",
        help="the one from the initial weights to the first checkpoint is among them",
    )
    parser.add_argument("--run", default="", help="folder of the run, where it was moved")
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="place of data in the config, and where they are now",
    )
    parser.add_argument(
        "--tolerance", type=float, default=segments.TOLERANCE, help="on another machine"
    )
    args = parser.parse_args(argv)

    def work() -> int:
        if args.segments < 0 or args.seed < 0 or not 0 <= args.tolerance <= 1:
            raise ConfigError(
                f"--segments={args.segments} --seed={args.seed} --tolerance={args.tolerance}: give numbers "
                "from 0 on, and a tolerance of at most 1"
            )
        path = Path(args.certificate).expanduser()
        certificate = certificate_lib.read(path)
        run = open_run(moved.run_of(certificate, path, args.run))
        config = moved.with_data(run.config, moved.parse(args.data))
        held = _held(certificate, path, run, config)
        for each in certificate_lib.doubts(certificate):
            print(f"note: {each}")
        if args.segments:
            held = _segments(certificate, run, config, args) and held
        print("the certificate holds" if held else "the certificate does not hold")
        return 0 if held else FAILED

    return cli.run(work)


def _held(certificate: dict, path: Path, run: Run, config: ConfigDict) -> bool:
    """Takes all digests again and prints what was found."""
    found = [
        checks.of_itself(certificate),
        *checks.of_code(certificate, config, provenance.PACKAGE),
        checks.of_config(certificate, run.path),
        checks.of_checkpoints(certificate, run.path),
        checks.of_licences(certificate),
        *checks.of_data(certificate, path, config),
    ]
    for check in filter(None, found):
        _print(check)
    return all(check.holds for check in found if check is not None)


def _segments(certificate: dict, run: Run, config: ConfigDict, args: argparse.Namespace) -> bool:
    """Trains segments again and prints what came out."""
    steps = sorted(map(int, certificate["checkpoints"]))
    known = segments.segments(steps, args.from_start)
    if not known:
        print(
            f"segments: none between checkpoints, for only step {steps[0]} was kept; --from_start trains "
            "from the initial weights. More are kept with --config.train.keep=10 "
            "--config.train.save_every=STEPS"
        )
        return True
    chosen = segments.choose(known, args.segments, args.seed)
    print(f"{len(chosen)} of {len(known)} segments are trained again")
    good = 0
    for first, last in chosen:
        try:
            found = segments.retrain(run, config, first, last)
        except (ConfigError, DataError, CheckpointError) as error:
            found = segments.Retrained(first, last, error=str(error))
        holds = found.holds(args.tolerance)
        good += holds
        _print(Check("segment", holds, tuple(found.describe(args.tolerance))))
    print(f"{good} of {len(chosen)} segments agree")
    return good == len(chosen)


def _print(check: Check) -> None:
    first, *more = check.said
    print(f"{'ok  ' if check.holds else 'FAIL'} {check.name}: {first}", flush=True)
    for line in more:
        print(f"     {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
