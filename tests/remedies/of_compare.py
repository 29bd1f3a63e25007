"""Remedies of comparisons of runs."""

from unittest import mock

import numpy as np

from jdet.compare import __main__ as command
from jdet.compare.compare import check_same
from tests.analyse.random_set import random_set
from tests.compare.test_compare import run
from tests.remedies.rows import row

COMMAND, COMPARE = "jdet/compare/__main__.py", "jdet/compare/compare.py"


def compared(runs=2, images=3, shift=0.0):
    """Runs on three images, the second on as many of them as is said, with objects moved."""
    whole = random_set(1, images=3)
    other = [
        one._replace(
            ground_truth=one.ground_truth._replace(
                xywh=one.ground_truth.xywh + np.array([shift, 0, 0, 0])
            )
        )
        for one in whole[:images]
    ]
    check_same([[run("a", whole)], [run("b", other)]][:runs])


def drawn(**flags):
    typed = [f"--{name}={value}" for name, value in flags.items()]
    with (
        mock.patch.object(command.cli, "run", lambda work, *_: work()),
        mock.patch.object(command, "read_run", side_effect=KeyboardInterrupt),
    ):
        try:
            command.main(["a", "b", *typed])
        except KeyboardInterrupt:  # the next stage is reached
            pass


ROWS = [
    row(COMMAND, "must be at least 100, such as 1000", drawn, {"samples": 3}, {"samples": 1000}),
    row(COMMAND, "--seed={} must be at least 0", drawn, {"seed": -1}, {"seed": 0}),
    row(COMPARE, "name two or more", compared, {"runs": 1}, {"runs": 2}),
    row(COMPARE, "evaluate both on the same set", compared, {"images": 2}, {"images": 3}),
    row(COMPARE, "compare runs on one set of labels", compared, {"shift": 1.0}, {"shift": 0.0}),
]
