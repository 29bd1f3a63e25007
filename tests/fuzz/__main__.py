"""Reads spoilt files of every kind, many times: python -m tests.fuzz --examples=100000 [--targets=…]."""

import argparse
import logging
import random
import sys
import time

from absl import logging as absl_logging

from tests.fuzz.harness import fuzz
from tests.fuzz.targets import TARGETS


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--examples", type=int, default=100000, help="of all targets together")
    parser.add_argument("--targets", default="", help="comma-separated; else all")
    parser.add_argument("--seed", type=int, default=None)
    args = parser.parse_args()
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.disable(logging.CRITICAL)
    names = args.targets.split(",") if args.targets else [*TARGETS]
    number = random.randrange(1 << 32) if args.seed is None else args.seed
    print(f"seed {number}")
    failed = 0
    for name in names:
        begun = time.monotonic()
        try:
            ran = fuzz(TARGETS[name], max(1, args.examples // len(names)), number)
            print(f"ok   {name}: {ran} files in {time.monotonic() - begun:.0f} s", flush=True)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            failed += 1
            told = "\n     ".join([repr(error)[:300], *getattr(error, "__notes__", ())])
            where, traceback = "", error.__traceback__
            while traceback is not None:
                if "/jdet/" in (file := traceback.tb_frame.f_code.co_filename):
                    where = f"{file.partition('/jdet/')[2]}:{traceback.tb_lineno}"
                traceback = traceback.tb_next
            print(f"FAIL {name}: {told}\n     at {where}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
