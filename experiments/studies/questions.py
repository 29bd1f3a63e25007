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

MAIN = "voc07/mAP"


class Study(NamedTuple):
    """Arms that answer one question.

    Attributes:
        question: what is asked, and the paper's table.
        arms: name to experiment and its arguments.
        claims: what the paper found, and a test of it.
        columns: metrics of the table beside the main one.
        options: further command-line options of every arm.
        data: name of the set's folder.
        pairs: arms whose difference the table gives, seed by seed.
        main: metric that claims are about.
        seeds: that are run where none are asked for.
    """

    question: str
    arms: dict[str, str]
    claims: tuple[tuple[str, Callable[[Scores], bool]], ...] = ()
    columns: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    data: str = "bccd"
    pairs: tuple[tuple[str, str], ...] = ()
    main: str = MAIN
    seeds: tuple[int, ...] = (0, 1)


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
SHARES = (0.05, 0.1, 0.25, 0.5, 1.0)
DIRECT = "direct_deeppcb.py:arm=direct"
"""An arm of several studies, which is run once."""

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
    "direct": Study(
        "Direct pre-training against training from scratch at equal cost (Li et al. 2021, Table 3)",
        {"direct": DIRECT, "scratch": "direct_deeppcb.py:arm=scratch"},
        (("direct beats scratch", lambda s: mean(s, "direct") > mean(s, "scratch")),),
        ("coco/AP",),
        data="deeppcb",
        pairs=(("direct", "scratch"),),
        seeds=(0, 1, 2),
    ),
    "direct_nuclei": Study(
        "The same with masks, and of which pre-trained parts (Li et al. 2021, Tables 3 and 5)",
        {
            "direct": "direct_nuclei.py:arm=direct",
            "scratch": "direct_nuclei.py:arm=scratch",
            "backbone": "direct_nuclei.py:load=backbone",
        },
        (
            ("direct beats scratch", lambda s: mean(s, "direct") > mean(s, "scratch")),
            (
                "all parts beat the backbone alone",
                lambda s: mean(s, "direct") > mean(s, "backbone"),
            ),
        ),
        ("coco/AP", "coco_segm/AP50"),
        data="dsb2018_nuclei",
        pairs=(("direct", "scratch"), ("direct", "backbone")),
        main="coco_segm/AP",
    ),
    "direct_norms": Study(
        "Which batch norms should fine-tuning have? (Li et al. 2021, Table 2)",
        {
            "fixed": DIRECT,
            **{mode: f"direct_deeppcb.py:mode={mode}" for mode in ("affine", "sync_batch")},
        },
        (
            ("fixed beats affine", lambda s: mean(s, "fixed") > mean(s, "affine")),
            ("fixed beats sync_batch", lambda s: mean(s, "fixed") > mean(s, "sync_batch")),
            (
                "affine and sync_batch are alike, within 0.01",
                lambda s: abs(mean(s, "affine") - mean(s, "sync_batch")) < 0.01,
            ),
        ),
        ("coco/AP",),
        data="deeppcb",
        pairs=(("fixed", "affine"), ("fixed", "sync_batch")),
    ),
    "direct_parts": Study(
        "Which pre-trained parts help fine-tuning most? (Li et al. 2021, Table 5)",
        {
            "backbone": "direct_deeppcb.py:load=backbone",
            "backbone+neck": "direct_deeppcb.py:load=backbone+neck",
            "all": DIRECT,
        },
        (
            ("the neck helps", lambda s: mean(s, "backbone+neck") > mean(s, "backbone")),
            ("the head helps", lambda s: mean(s, "all") > mean(s, "backbone+neck")),
            (
                "the head helps more than the neck",
                lambda s: (
                    mean(s, "all") - mean(s, "backbone+neck")
                    > mean(s, "backbone+neck") - mean(s, "backbone")
                ),
            ),
        ),
        ("coco/AP",),
        data="deeppcb",
        pairs=(("all", "backbone"), ("all", "backbone+neck")),
    ),
    "direct_sizes": Study(
        "Batch and resolution of direct pre-training at equal steps (Li et al. 2021, Table 1)",
        {
            **{
                f"l{side}-b{batch}": f"direct_deeppcb.py:side={side},batch={batch},pre=225"
                for side, batch in ((64, 8), (96, 8), (128, 8), (128, 4))
            },
            "l128-b16": DIRECT,  # 225 steps
        },
        (
            (
                "average precision rises with the side",
                lambda s: mean(s, "l64-b8") < mean(s, "l96-b8") < mean(s, "l128-b8"),
            ),
            (
                "average precision rises with the batch",
                lambda s: mean(s, "l128-b4") < mean(s, "l128-b8") < mean(s, "l128-b16"),
            ),
        ),
        ("coco/AP",),
        data="deeppcb",
        pairs=(("l128-b8", "l64-b8"), ("l128-b16", "l128-b4")),
    ),
    "direct_fraction": Study(
        "From how many images on does direct pre-training help? (Li et al. 2021, Table 9)",
        {
            f"{arm}@{share:g}": f"direct_deeppcb.py:arm={arm}" + f",data={share}" * (share < 1)
            for share in SHARES
            for arm in ("direct", "scratch")
        },
        (
            (
                "with all images direct beats scratch",
                lambda s: mean(s, "direct@1") > mean(s, "scratch@1"),
            ),
            (
                "with 5 % of them it does not",
                lambda s: mean(s, "direct@0.05") <= mean(s, "scratch@0.05"),
            ),
        ),
        ("coco/AP",),
        data="deeppcb",
        pairs=tuple((f"direct@{share:g}", f"scratch@{share:g}") for share in SHARES),
    ),
}
