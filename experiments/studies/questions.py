"""Questions that take many arms to answer: their experiments, and what the papers found.

``python -m experiments.studies.miniature`` runs them on a small machine.
"""

from __future__ import annotations

import re
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
        data: name of the set's folder.
    """

    question: str
    arms: dict[str, str]
    claims: tuple[tuple[str, Callable[[Scores], bool]], ...] = ()
    columns: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    data: str = "bccd"


def mean(scores: Scores, arm: str) -> float:
    """Of an arm over its seeds."""
    return statistics.fmean(scores[arm])


def best(scores: Scores, start: str) -> float:
    """Best mean of the arms whose names begin so."""
    return max(mean(scores, arm) for arm in scores if arm.startswith(start))


def _normed(scores: Scores) -> list[str]:
    """Arms of the study of batches with norms, warm-up and the normal policy."""
    return [arm for arm in scores if re.fullmatch(r"b\d+-bn\d+", arm)]


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
                "at the largest rate both beat backbone norms alone",
                lambda s: mean(s, "both@0.05") > mean(s, "backbone@0.05"),
            ),
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
            stem: f"scratchdet_table2.py:stem={stem},boards,norm=sync_batch"
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
        "deeppcb",
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
    "megdet": Study(
        "Large batches for the same epochs: linear rates, warm-up, norm groups (MegDet, Tables 2 and 3)",
        {
            **{
                f"b{batch}-bn{group}{end}": f"megdet_voc.py:batch={batch},bn={group}{more}"
                for batch in (8, 32, 128)
                for group in (2, 8, 32)
                for end, more in (("", ""), ("-cold", ",warmup=false"))
                if group <= batch and (batch > 16 or not end)  # 8 images are below its start
            },
            **{f"b{b}-none": f"megdet_voc.py:batch={b},norm=none" for b in (8, 32, 128)},
            "b128-none-half": "megdet_voc.py:batch=128,norm=none,lr=0.01",
            **{f"b{b}-bn32-long": f"megdet_voc.py:batch={b},bn=32,policy=long" for b in (32, 128)},
        },
        (
            (
                "without norms the largest batch fails at the linear rate",
                lambda s: mean(s, "b128-none") < 0.5 * mean(s, "b8-none"),
            ),
            (
                "without norms it fails at half the rate too",
                lambda s: mean(s, "b128-none-half") < 0.5 * mean(s, "b8-none"),
            ),
            (
                "with norms and warm-up no batch fails, whatever the group",
                lambda s: min(mean(s, arm) for arm in _normed(s)) > 0.8 * mean(s, "b8-bn8"),
            ),
            (
                "norms over 2 images are worse than over 32",
                lambda s: all(mean(s, f"b{b}-bn2") < mean(s, f"b{b}-bn32") for b in (32, 128)),
            ),
            (
                "norms over 8 images are worse than over 32",
                lambda s: all(mean(s, f"b{b}-bn8") < mean(s, f"b{b}-bn32") for b in (32, 128)),
            ),
            (
                "norms over 32 images: batch 128 is as good as 32, within 0.01",
                lambda s: mean(s, "b128-bn32") > mean(s, "b32-bn32") - 0.01,
            ),
            (
                "batch 128 needs the warm-up",
                lambda s: all(
                    mean(s, f"b128-bn{g}-cold") < mean(s, f"b128-bn{g}") for g in (2, 8, 32)
                ),
            ),
            (
                "the long policy beats the normal one",
                lambda s: all(
                    mean(s, f"b{b}-bn32-long") > mean(s, f"b{b}-bn32") for b in (32, 128)
                ),
            ),
            (
                "by the long policy batch 128 is as good as 32, within 0.01",
                lambda s: mean(s, "b128-bn32-long") > mean(s, "b32-bn32-long") - 0.01,
            ),
        ),
    ),
}
