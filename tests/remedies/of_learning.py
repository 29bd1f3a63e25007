"""Remedies of what is said of a run that does not learn, and of forecasts."""

import contextlib
import io
from types import SimpleNamespace

from jdet import config as config_lib
from jdet.analysis.learning import curve, judge
from jdet.analysis.price import of_runs
from jdet.analysis.price.__main__ import main
from jdet.train.workdir import open_run
from tests.analysis.learning.test_judge import BLIND, GOOD, SETTINGS
from tests.analysis.price.made_runs import made
from tests.remedies.rows import Elsewhere, Typed, of_config

JUDGE, RUNS = "jdet/analysis/learning/judge.py", "jdet/analysis/price/of_runs.py"
COMMAND = "jdet/analysis/price/__main__.py"
CAUSES = "tests/analysis/learning/test_judge.py::test_each_cause"


def at_rate(lr):
    """What is said of a run of 400 steps whose gradient has a norm of 5."""
    rows = [{"loss": 9.0, "lr": lr, "grad_norm": 5.0}] * 4
    told = curve.measure(rows, steps=400, peak=lr, momentum=0.9, clip=0.0)
    settings = SETTINGS._replace(lr=lr)
    return "\n".join(x.text for x in judge.judge(BLIND, GOOD, told, settings, last=False))


def over_images(counts=(10, 20, 40), metrics=("a", "a", "a")):
    prices = [
        SimpleNamespace(images=n, metric=m, forecast=None, now=0.5) for n, m in zip(counts, metrics)
    ]
    return "\n".join(of_runs.table(prices, 0.0))


def of_run(folder, curve):
    return of_runs.sentence(of_runs.price(open_run(made(folder / "run", curve))))


def command(folder, target, shares=(1,)):
    runs = [made(folder / f"{x}", [(100, 0.5 * x**0.2)], images=int(x * 400)) for x in shares]
    with contextlib.redirect_stderr(io.StringIO()) as said:
        main([*runs, f"--target={target}"])
    return said.getvalue()


ROWS = [
    *(
        Elsewhere(JUDGE, text, CAUSES)
        for text in (
            "are constant as the network sees them",
            "keep the right one, or make them one class",
            "or --config.optimizer.clip_norm=1",
            "compare them with the images",
            "correct labels that were mixed up",
            "give them more pixels",
            "no cause is in sight: look at what the network is fed",
        )
    ),
    Elsewhere(JUDGE, "python -m jdet.doctor --run=", CAUSES, "python -m jdet.doctor --run=runs/x"),
    Elsewhere(
        JUDGE,
        "shows which rates the loss bears",
        "tests/analysis/learning/test_judge.py::test_a_loss_that_is_not_finite",
    ),
    Typed(JUDGE, "the rate is too low: at most", at_rate, {"lr": 1e-6}, ({"lr": 1e-4},)),
    of_config(
        "jdet/config/checks.py",
        "such as (0.05, 0.1, 0.25)",
        config_lib.validate,
        {"train__learning__at": (0.05, 2.0)},
        {"train__learning__at": (0.05, 0.1, 0.25)},
    ),
    Typed(
        RUNS,
        "images; a law takes three numbers",
        over_images,
        {"counts": (10, 10, 40)},
        ({"counts": (10, 20, 40)},),
    ),
    Typed(
        RUNS,
        "these runs have {}; name one",
        over_images,
        {"metrics": ("a", "b", "b")},
        ({"metrics": ("b", "b", "b")},),
    ),
    Typed(RUNS, "has no evaluation with", of_run, {"curve": []}, ({"curve": [(20, 0.1)]},)),
    Typed(
        COMMAND,
        "must be at least 0 and below 1, such as 0.9",
        command,
        {"target": 90, "shares": (0.25, 0.5, 1)},
        ({"target": 0.9},),
    ),
    Typed(
        COMMAND,
        "takes a law over images; give three runs",
        command,
        {"target": 0.9},
        ({"shares": (0.25, 0.5, 1)},),
    ),
]
