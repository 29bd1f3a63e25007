"""Final AP from an early one, images for a target, and how far off both are on what is known."""

import math

import numpy as np
import pytest

from jdet.analysis import outlook
from jdet.analysis.price import images, of_runs
from jdet.analysis.price.__main__ import main
from jdet.analysis.price.forecast import leave_one_set_out, mean_error, predict
from jdet.analysis.price.recorded import RECORDED, Recorded
from tests.analysis.price.made_runs import made


def test_forecasts_of_sets_that_were_left_out():
    """The figures of docs/learning.md."""
    held = leave_one_set_out()
    assert mean_error(held, 0.45, 0.55) == pytest.approx(0.050, abs=0.002)
    assert mean_error(held, 0.22, 0.30) == pytest.approx(0.111, abs=0.002)
    half = [one for one in held if one.share == 0.5]
    inside = [one.forecast.low <= one.final <= one.forecast.high for one in half]
    assert len(half) == 28 and np.mean(inside) > 0.75
    standstill = np.mean([abs(dict(one.run.curve)[one.share] - one.final) for one in half])
    assert mean_error(half, 0, 1) < 0.7 * standstill


def test_a_law_is_found_again():
    """Curves that follow the law are foretold exactly, and without an interval."""
    runs = []
    for name, final in (("a", 0.9), ("b", 0.7), ("c", 0.5)):
        exact = Recorded(name, "", ((0.25, 0.0), (0.5, 0.0), (1, final)))
        for share in (0.25, 0.5):  # the AP from which the law leads to the final one, by bisection
            low, high = 0.0, final
            for _ in range(60):
                middle = (low + high) / 2
                way = 0.5 * math.sqrt(1 - middle) * math.log2(1 / share) ** 2
                odds = math.log((middle + 0.01) / (1.01 - middle)) + way
                reached = 1.02 / (1 + math.exp(-odds)) - 0.01
                low, high = (middle, high) if reached < final else (low, middle)
            points = dict(exact.curve) | {share: low}
            exact = exact._replace(curve=tuple(points.items()))
        runs.append(exact)
    said = predict(0.25, dict(runs[0].curve)[0.25], runs)
    assert said.value == pytest.approx(0.9, abs=1e-3)
    assert said.high - said.low < 1e-3


@pytest.mark.parametrize("share, ap", [(0.1, 0.5), (1.0, 0.5), (0.5, math.nan), (0.5, 1.5)])
def test_nothing_is_foretold_too_early_or_of_no_ap(share, ap):
    assert predict(share, ap) is None


def test_a_forecast_grows_with_what_is_left():
    early, late = predict(0.25, 0.5), predict(0.75, 0.5)
    assert 0.5 < late.value < early.value < 1
    assert early.low < early.value < early.high and late.high - late.low < early.high - early.low
    assert all(len(run.curve) > 1 and run.curve[-1][0] == 1 for run in RECORDED)


def test_images_for_a_target():
    counts = np.array([100, 250, 500, 1000])
    law = images.fit(counts, 1 - (0.1 + 3 * counts**-0.5))
    low, middle, high = law.images(0.85)  # (3 / 0.05)² = 3,600
    assert low < 3600 < high and 1800 < middle < 7200
    assert law.ap(1000)[0] < 1 - (0.1 + 3 * 1000**-0.5) < law.ap(1000)[2]
    assert law.images(0.97)[2] == math.inf
    assert images.fit(counts, [0.5] * 4).images(0.9)[1] > 1e5  # nothing is gained by more
    repeated = images.fit([100, 100, 250, 250, 1000, 1000], [0.2, 0.4, 0.4, 0.6, 0.6, 0.8])
    assert np.ptp(repeated.ap(1000)) > np.ptp(law.ap(1000))  # seeds that differ more
    with pytest.raises(ValueError, match="three numbers"):
        images.fit([1, 2, 2], [0.1, 0.2, 0.3])


def test_the_command(tmp_path, capsys):
    half = made(tmp_path / "half", [(25, 0.2), (50, 0.6)])
    assert main([half]) == 0
    said = capsys.readouterr().out
    assert "coco/AP50 60.0 % after 50 of 100 steps; at the end" in said and "is expected" in said
    parts = [
        made(tmp_path / f"{n}", [(100, ap)], images=n)
        for n, ap in ((100, 0.4), (250, 0.55), (1000, 0.7))
    ]
    assert main([*parts, "--target=0.8"]) == 0
    said = capsys.readouterr().out
    assert "4,000 images" in said and "80 % take" in said and "more than there are" in said


def test_what_an_evaluation_adds_to_the_report(tmp_path):
    import json

    report = tmp_path / "report.json"
    report.write_text('{"step": 50, "metrics": {}}')
    (tmp_path / "run.json").write_text('{"steps": 100}')
    row = '{"step": 10, "event": "learning", "causes": "rate", "said": "too low: raise it"}\n'
    (tmp_path / "metrics.jsonl").write_text(row)
    outlook.tell(tmp_path, {"coco/AP": 0.3, "coco/AP50": 0.6}, 50)
    held = json.loads(report.read_text())
    assert held["step"] == 50 and held["learning"]["causes"] == "rate"
    assert held["forecast"]["metric"] == "coco/AP50"
    assert held["forecast"]["low"] < 0.6 < held["forecast"]["value"] < held["forecast"]["high"]
    report.write_text('{"step": 100}')
    outlook.tell(tmp_path / "none", {"own": 0.3}, 50)
    outlook.tell(tmp_path, {"own": 0.3}, 5)  # before the look, and with no AP
    assert json.loads(report.read_text()) == {"step": 100}


def test_metrics_of_a_run():
    assert of_runs.metric_of({"own/x": 1.0, "voc07/mAP": 0.5}) == "voc07/mAP"
    assert of_runs.metric_of({"own/x": 1.0}) == ""
