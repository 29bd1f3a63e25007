"""The detector of a run in one file, checked on real images.

    python -m jdet.export RUN --out=detector [--format=stablehlo|onnx|both]

writes ``detector.stablehlo`` (``jdet.export.artifact``), in which resizing, normalisation, network, NMS
and the score thresholds are one program for CPUs, NVIDIA GPUs and TPUs, with weights, class names and
where they come from; or the same as ``detector.onnx`` for ONNX Runtime (``jdet_runtime.py`` beside this).
Before a file gets its name, run and file are compared on images; above the limits of
``jdet.export.parity`` the command fails and leaves no file.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from jdet import cli
from jdet.analyse import thresholds
from jdet.export import parity
from jdet.export.export import CHOICES, export
from jdet.export.onnx.precision import CHOICES as PRECISIONS
from jdet.types import ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code, 2 for a user's mistake, 1 for an export unlike its run."""
    parser = argparse.ArgumentParser(
        prog="python -m jdet.export", description="The detector of a run in one file."
    )
    parser.add_argument("run", metavar="RUN", help="folder of a trained run")
    parser.add_argument("--out", required=True, help="file to write, without its suffix")
    parser.add_argument(
        "--format",
        default="stablehlo",
        choices=CHOICES,
        help="stablehlo: for JAX, on CPUs, GPUs and TPUs; onnx: for ONNX Runtime and jdet_runtime.py",
    )
    parser.add_argument("--step", default="latest", help="checkpoint: a number, latest or best")
    parser.add_argument("--phase", default="", help="of a run with phases; else the last finished")
    parser.add_argument(
        "--score",
        type=thresholds.parse,
        default="auto",
        help="lowest score to report, as in jdet.predict",
    )
    parser.add_argument(
        "--images",
        action="extend",
        nargs="+",
        default=[],
        help="files or folders to check on; default: the run's evaluation split, or random images "
        "where it cannot be read",
    )
    parser.add_argument("--check", type=int, default=16, help="how many images to check on")
    parser.add_argument(
        "--pixels",
        type=float,
        default=parity.PIXELS,
        help="largest difference of a box's coordinate that is let through, pixels of the image",
    )
    parser.add_argument(
        "--onnx_python",
        "--onnx-python",
        default="",
        help="interpreter that has onnxruntime; default: this one, or one that is made once and kept",
    )
    parser.add_argument(
        "--precision",
        default="float32",
        choices=PRECISIONS,
        help="of the network in an ONNX file; with float16 and int8 the metrics of the evaluation split "
        "are measured before and after",
    )
    parser.add_argument(
        "--calibrate", type=int, default=32, help="images that int8 is calibrated on"
    )
    parser.add_argument(
        "--calibrate_on",
        action="extend",
        nargs="+",
        default=[],
        help="files or folders of these; default: the run's training split",
    )
    parser.add_argument(
        "--ap_images",
        type=int,
        default=-1,
        help="images of the evaluation split for these metrics; -1: all, 0: do not measure",
    )
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    args = parser.parse_args(argv)

    def work() -> int:
        if args.check < 1:
            raise ConfigError(f"--check={args.check} must be at least 1, such as --check=16")
        if args.calibrate < 1:
            raise ConfigError(
                f"--calibrate={args.calibrate} must be at least 1, such as --calibrate=32"
            )
        if not 0 <= args.pixels < math.inf:
            raise ConfigError(f"--pixels={args.pixels:g} must be 0 or more, such as --pixels=0.01")
        return export(
            args.run,
            Path(args.out),
            form=args.format,
            step=args.step,
            phase=args.phase,
            score=args.score,
            images=args.images,
            check=args.check,
            force=args.force,
            onnx_python=args.onnx_python,
            pixels=args.pixels,
            precision=args.precision,
            calibrate=args.calibrate,
            calibrate_on=args.calibrate_on,
            ap_images=args.ap_images,
        )

    return cli.run(work, OSError)


if __name__ == "__main__":
    sys.exit(main())
