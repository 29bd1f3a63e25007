"""Questions that take many arms to answer: their experiments, and what the papers found.

``experiments/miniature.py`` runs them on a small machine.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import NamedTuple

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
