"""From numbers to sentences: each cause by its numbers, and silence on runs that learn."""

import json
import math
from pathlib import Path

import pytest

from jdet.analysis.learning import curve, judge
from jdet.analysis.learning.curve import Curve
from jdet.analysis.learning.evidence import Evidence
from jdet.analysis.learning.found import Found

NAN = math.nan
LEARNS = Found(32, 200, 0.2, 0.3, 0.5, near=8.0, classes=9.0, right=0.8, same=False)
BLIND = Found(32, 200, 0.0, 0.01, 0.02, near=0.5, classes=NAN, right=NAN, same=False)
GOOD = Evidence(flat=0, contradicting=0.01, edges=9, alike=12, alike_fine=14)
FALLS, SETTINGS = Curve(0.6, 1.0, 500.0), judge.Settings(0.1, 128, "runs/x")


def causes(found=LEARNS, evidence=GOOD, loss=FALLS, settings=SETTINGS, last=True):
    said = judge.judge(found, evidence, loss, settings, last=last)
    assert all(each.text for each in said)
    return [each.cause for each in said]


def test_a_run_that_learns_hears_nothing():
    assert causes() == []
    assert causes(BLIND, last=False) == []  # too early to tell
    assert causes(LEARNS._replace(near=NAN), last=False) == []
    assert causes(BLIND._replace(near=NAN)) == []  # too few images to tell
    assert causes(LEARNS, loss=Curve(0.9, 1.0, 0.01)) == []  # a small rate, as in fine-tuning
    silent = Evidence(*[NAN] * 5)  # too little to say
    assert causes(LEARNS, silent, Curve(NAN, NAN, NAN)) == []


@pytest.mark.parametrize(
    "cause, text, changed",
    [
        (
            "images",
            "are constant as the network sees them",
            dict(found=BLIND, evidence=GOOD._replace(flat=1.0)),
        ),
        (
            "labels",
            "keep the right one, or make them one class; python -m jdet.doctor --run=runs/x",
            dict(evidence=GOOD._replace(contradicting=0.5)),
        ),
        (
            "reach",
            "no anchor",
            dict(found=BLIND, settings=SETTINGS._replace(out_of_reach="no anchor")),
        ),
        (
            "rate",
            "or --config.optimizer.clip_norm=1",
            dict(found=BLIND, loss=Curve(3.7, 3.7, 500.0)),
        ),
        ("rate", "the rate is too low: at most 1", dict(found=BLIND, loss=Curve(0.9, 1.0, 0.01))),
        ("rate", "it has gone dead", dict(found=BLIND._replace(same=True))),
        (
            "boxes",
            "compare them with the images",
            dict(found=BLIND, evidence=GOOD._replace(edges=-2.5, alike=0.1)),
        ),
        (
            "classes",
            "correct labels that were mixed up",
            dict(found=BLIND, evidence=GOOD._replace(alike=0.1, alike_fine=0.2)),
        ),
        (
            "classes",
            "give them more pixels",
            dict(found=LEARNS._replace(classes=1.0), evidence=GOOD._replace(alike=0.1)),
        ),
        ("unknown", "no cause is in sight: look at what the network is fed", dict(found=BLIND)),
    ],
)
def test_each_cause(cause, text, changed):
    assert causes(**changed) == [cause]
    assert causes(**changed, last=False) == ([] if cause == "unknown" else [cause])
    given = dict(found=LEARNS, evidence=GOOD, loss=FALLS, settings=SETTINGS) | changed
    (said,) = judge.judge(*given.values(), last=True)
    assert text in said.text


def test_a_loss_that_is_not_finite():
    said = judge.not_finite(SETTINGS)
    assert "--config.optimizer.lr=0.01" in said and "shows which rates the loss bears" in said


def test_more_pixels_where_the_files_show_the_classes():
    (said,) = judge.judge(
        LEARNS._replace(classes=0.5), GOOD._replace(alike=0.5), FALLS, SETTINGS, last=False
    )
    assert "--config.input_size=256" in said.text and "in the files they do not" in said.text


def test_the_rate_by_the_losses():
    def measured(losses, norm=5.0, **given):
        rows = [{"loss": x, "lr": 0.1, "grad_norm": norm} for x in losses]
        given = dict(steps=400, peak=0.1, momentum=0.9, clip=0.0) | given
        return curve.measure(rows, **given)

    falling = measured([10, 8, 6, 5])
    assert not falling.high and not falling.low and falling.last == 0.5
    assert measured([2, 3, 4, 5]).high and measured([2, 20, 1, 1]).high
    assert measured([10, 10, 10], peak=1e-8).low
    assert measured([10, 10, 10], peak=1e-6, norm=1000.0).low is False
    assert measured([10, 10, 10], peak=1e-7, norm=1000.0, clip=1.0).low
    assert measured([10, 9, 9], peak=1e-7, momentum=None).low
    assert not measured([10, 9, 9], peak=1e-4, momentum=None).low
    for nothing in (measured([]), measured([3.0]), measured([None, None, 2.0])):
        assert not nothing.high and not nothing.low


GOLDEN = json.loads((Path(__file__).parents[2] / "golden/loss_curves.json").read_text())


@pytest.mark.parametrize("name", sorted(GOLDEN["runs"]))
@pytest.mark.parametrize("share", [0.05, 0.1, 0.25, 1.0])
def test_recorded_runs(name, share):
    """Curves of real runs: no word on those that learnt; the ones whose loss rose are found in time."""
    run = GOLDEN["runs"][name]
    rows = [dict(zip(GOLDEN["columns"], row)) for row in run["rows"]]
    rows = [row for row in rows if row["step"] <= share * run["steps"]]
    found = curve.measure(rows, steps=run["steps"], peak=run["peak"], momentum=0.9, clip=0.0)
    if run["final"] > 0.01:
        assert not found.high and not found.low
    elif share == 0.1:
        assert found.high
