"""Quantities of the loss surface against closed forms, and what is said where there are none."""

import csv
import json

import numpy as np
import pytest

from jdet.analysis import landscape, landscape_figures
from jdet.analysis.landscape_records import on_one_grid, read_run
from jdet.data.readers.decoder import Decoder
from jdet.train import loop
from jdet.train.folders import LANDSCAPE
from jdet.train.writers import JsonlWriter
from jdet.types import ConfigError, DataError
from tests.train import fake

LENGTHS = (0.5, 1.0, 4.0)


def write(folder, records, status="completed"):
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"status": status}))
    writer = JsonlWriter(folder / LANDSCAPE)
    for record in records:
        writer.scalars(record["step"], {k: v for k, v in record.items() if k != "step"})
    writer.close()
    return folder


def descent(curvature, start, lr=0.05, steps=40, every=1, probe_every=0, lengths=LENGTHS):
    """Records of gradient descent on half the sum of curvature times squared parameter."""
    a, w = np.array(curvature, float), np.array(start, float)
    for k in range(1, steps + 1):
        g = a * w
        record = {"step": k, "lr": lr, "loss": (a * w**2).sum() / 2}
        record |= {"grad_norm": np.linalg.norm(g), "grad_norm/first": abs(g[0])}
        for s in lengths if probe_every and k % probe_every == 0 else ():
            there = w - s * lr * g
            change = np.linalg.norm(a * there - g)
            cosine = a * there @ g / np.linalg.norm(a * there) / np.linalg.norm(g)
            record |= {f"probe/{s}/loss": (a * there**2).sum() / 2, f"probe/{s}/change": change}
            record |= {f"probe/{s}/smoothness": change / np.linalg.norm(s * lr * g)}
            record |= {f"probe/{s}/cosine": cosine}
        if k % every == 0:
            yield record
        w = w - lr * g


def constant(steps, loss, norms, every=1, **more):
    return [
        {"step": k * every, "loss": loss, "grad_norm": float(norms(k)), **more}
        for k in range(1, steps + 1)
    ]


# Quantities.


def test_averages_of_the_last_values():
    values = np.random.default_rng(0).normal(5.0, 1.0, 50)
    expected = [values[max(0, i - 9) : i + 1].mean() for i in range(50)]
    np.testing.assert_allclose(landscape.running_mean(values), expected)
    steps = np.arange(2, 102, 2)
    found = landscape.running_std(steps, values, 20)  # ten records lie in twenty steps
    expected = [values[max(0, i - 9) : i + 1].std() for i in range(50)]
    assert np.isnan(found[0])
    np.testing.assert_allclose(found[1:], expected[1:], atol=1e-12)


def test_fluctuation_is_the_change_of_the_norm():
    np.testing.assert_array_equal(landscape.fluctuation(np.array([3.0, 1.0, 2.5])), [2.0, 1.5])


def test_cubic_fit_finds_a_cubic(tmp_path):
    """Norms that rise and fall in turn by p(k) fluctuate by exactly p(k)."""

    def p(k):
        return 2.0 - 3.0 * (k / 60) + 4.0 * (k / 60) ** 2 - 1.5 * (k / 60) ** 3

    def norm(k):
        return 10 + sum((-1) ** i * p(i) for i in range(2, k + 1))

    found = read_run(write(tmp_path / "a", constant(60, 1.0, norm)), "a")
    steps, values = landscape.smoothed_fluctuation(found, "cubic")
    np.testing.assert_array_equal(steps, range(2, 61))
    np.testing.assert_allclose(values, p(steps), rtol=1e-9)
    row = landscape.summary(found, values, 7)
    assert row["start_fluctuation"] == pytest.approx(p(2))
    assert row["early_fluctuation"] == pytest.approx(np.mean([p(k) for k in range(2, 8)]))


def test_quadratic_gives_its_curvature_and_its_range(tmp_path, capsys):
    """Along the steep axis beta is that axis' curvature, from any place and over any length."""
    steep = write(tmp_path / "steep", descent([1.0, 8.0], [0.0, 1.0], probe_every=10))
    flat = write(tmp_path / "flat", descent([1.0, 8.0], [2.0, 0.0], probe_every=10))
    rows = landscape.compare([steep, flat], tmp_path / "out")
    for row, a, w in ((rows[0], 8.0, 1.0), (rows[1], 1.0, 2.0)):
        assert row["mean_smoothness"] == pytest.approx(a)
        assert row["max_smoothness"] == pytest.approx(a)
        at = w * (1 - 0.05 * a) ** np.arange(40)  # the parameter before each step
        losses = a * at**2 / 2
        assert row["final_loss"] == pytest.approx(losses[-10:].mean())
        assert row["mean_grad_norm"] == pytest.approx((a * at).mean())
        ahead = losses[9::10, None] * (1 - np.array(LENGTHS) * 0.05 * a) ** 2
        spread = ahead.max(1) - ahead.min(1)
        assert row["mean_loss_range"] == pytest.approx(spread.mean())
        assert row["max_loss_range"] == pytest.approx(spread.max())
        change = 4.0 * 0.05 * a * (a * at[9::10])  # the longest way's
        assert row["mean_grad_change"] == pytest.approx(change.mean())
    assert rows[0]["mean_cosine"] == pytest.approx(-1.0)  # 4 · 0.05 · 8 > 1: over the bottom
    assert rows[1]["mean_cosine"] == pytest.approx(1.0)
    said = capsys.readouterr().out
    assert "Mean effective beta-smoothness: steep (8) > flat (1)." in said
    assert "Final training loss: flat (" in said
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        *("landscape.png", "probes.png", "modules.png", "landscape.csv", "landscape.md")
    }


def test_effective_smoothness_is_the_largest_of_a_probe(tmp_path):
    records = constant(6, 1.0, lambda k: k)
    for s, beta in ((0.5, 3.0), (2.0, 7.0)):
        records[3] |= {f"probe/{s}/loss": 1.0, f"probe/{s}/change": s, f"probe/{s}/cosine": s / 2}
        records[5] |= {f"probe/{s}/loss": s, f"probe/{s}/change": 1.0, f"probe/{s}/cosine": 0.5}
        records[3] |= {f"probe/{s}/smoothness": beta}
        records[5] |= {f"probe/{s}/smoothness": 1.0}
    (row,) = landscape.compare([write(tmp_path / "a", records)], tmp_path / "out")
    assert (row["mean_smoothness"], row["max_smoothness"]) == (4.0, 7.0)
    assert (row["mean_loss_range"], row["max_loss_range"]) == (0.75, 1.5)
    assert (row["mean_grad_change"], row["mean_cosine"]) == (1.5, 0.375)


def test_probe_that_meets_infinity_is_counted_and_left_out(tmp_path):
    records = list(descent([2.0], [1.0], steps=20, probe_every=10))
    records[9] |= {f"probe/4.0/{x}": float("nan") for x in ("loss", "change", "smoothness")}
    (row,) = landscape.compare([write(tmp_path / "a", records)], tmp_path / "out")
    assert row["probes_not_finite"] == 1 and row["mean_smoothness"] == pytest.approx(2.0)
    records[9] |= {f"probe/{s}/loss": None for s in LENGTHS}
    (row,) = landscape.compare([write(tmp_path / "b", records)], tmp_path / "out")
    assert row["probes_not_finite"] == 1 and row["max_loss_range"] == row["mean_loss_range"]


# Runs side by side.


def test_three_panels_hold_the_curves(tmp_path):
    folders = [
        write(tmp_path / name, descent([a], [1.0])) for name, a in (("one", 1.0), ("two", 4.0))
    ]
    runs = [read_run(folder, folder.name) for folder in folders]
    losses = [(r.steps, landscape.running_mean(r.loss)) for r in runs]
    curves = [landscape.smoothed_fluctuation(r) for r in runs]
    figure = landscape_figures.trajectories(runs, losses, curves, "cubic fit")
    for axes, expected in ((figure.axes[0], losses), (figure.axes[2], curves)):
        for line, (steps, values) in zip(axes.get_lines(), expected, strict=True):
            np.testing.assert_array_equal(line.get_xydata(), np.stack([steps, values], 1))
    np.testing.assert_array_equal(figure.axes[1].get_lines()[0].get_ydata(), runs[0].norm)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "two"]
    colours = [line.get_color() for line in figure.axes[0].get_lines()]
    styles = [line.get_linestyle() for line in figure.axes[0].get_lines()]
    assert len(set(colours)) == len(set(styles)) == 2
    assert landscape_figures.probes(runs) is None


def test_bands_reach_from_the_smallest_to_the_largest(tmp_path):
    found = read_run(write(tmp_path / "a", descent([8.0], [1.0], probe_every=5)), "a")
    figure = landscape_figures.probes([found])
    low, high = (line.get_ydata() for line in figure.axes[0].get_lines())
    np.testing.assert_array_equal(low, found.probes.loss.min(1))
    np.testing.assert_array_equal(high, found.probes.loss.max(1))
    np.testing.assert_allclose(figure.axes[2].get_lines()[0].get_ydata(), np.full(8, 8.0))


def test_diverged_run_is_drawn_until_then_labelled_and_not_ranked(tmp_path, capsys):
    good = write(tmp_path / "good", constant(30, 2.0, lambda k: 5 + k % 2))
    bad = constant(13, 9.0, lambda k: 5 + k) + [{"step": 14, "event": "diverged", "loss": None}]
    bad = write(tmp_path / "bad", bad, status="diverged")
    rows = landscape.compare([good, bad], tmp_path / "out")
    assert [row["status"] for row in rows] == ["completed", "diverged at step 14"]
    assert rows[1]["last_step"] == 13 and rows[1]["final_loss"] == 9.0
    said = capsys.readouterr().out
    assert "Final training loss: good (2); not ranked: bad: diverged at step 14." in said
    run_ = read_run(bad, "bad")
    curves = [landscape.smoothed_fluctuation(run_)]
    figure = landscape_figures.trajectories([run_], [(run_.steps, run_.loss)], curves, "")
    assert figure.axes[0].get_lines()[0].get_xdata()[-1] == 13
    assert figure.legends[0].get_texts()[0].get_text() == "bad (diverged at 14)"


def test_other_steps_are_refused_or_left_out_aloud(tmp_path, capsys):
    fine = write(tmp_path / "fine", descent([2.0], [1.0], steps=40, probe_every=10))
    coarse = write(
        tmp_path / "coarse",
        descent([2.0], [1.0], steps=60, every=4, probe_every=20, lengths=(1.0, 4.0)),
    )
    with pytest.raises(DataError) as error:
        landscape.compare([fine, coarse], tmp_path / "out")
    said = str(error.value)
    assert "fine: records 40 from step 1 to 40, every 1" in said and "--align" in said
    assert "coarse: records 15 from step 4 to 60, every 4" in said and "lengths 1 4" in said
    assert not (tmp_path / "out").exists()

    runs, notes = on_one_grid([read_run(f, f.name) for f in (fine, coarse)], align=True)
    for one in runs:
        np.testing.assert_array_equal(one.steps, range(4, 41, 4))
        np.testing.assert_array_equal(one.probes.steps, [20, 40])
        np.testing.assert_array_equal(one.probes.lengths, [1.0, 4.0])
    np.testing.assert_array_equal(runs[0].norm, runs[1].norm)
    np.testing.assert_array_equal(runs[0].probes.loss, runs[1].probes.loss)
    assert len(notes) == 2 and "cut to records 10 from step 4 to 40, every 4" in notes[0]
    rows = landscape.compare([fine, coarse], tmp_path / "out", align=True)
    assert {k: v for k, v in rows[0].items() if k != "run"} == {
        k: v for k, v in rows[1].items() if k != "run"
    }
    assert notes[0] in capsys.readouterr().out

    alone = write(tmp_path / "alone", constant(8, 1.0, lambda k: k, every=7))
    late = write(tmp_path / "late", [{"step": k, "loss": 1, "grad_norm": 1} for k in range(90, 99)])
    for align in (False, True):
        with pytest.raises(DataError, match="recorded step in common|evenly spaced"):
            landscape.compare([alone, late], tmp_path / "none", align=align)


def test_gap_in_one_run_is_refused_unless_aligned(tmp_path):
    steps = [*range(1, 21), *range(25, 61, 5)]  # landscape.every was changed when it went on
    folder = write(
        tmp_path / "a", [{"step": k, "loss": 1.0, "grad_norm": float(k % 7)} for k in steps]
    )
    with pytest.raises(DataError, match="every 1 or 5"):
        landscape.compare([folder], tmp_path / "out")
    (found,), _ = on_one_grid([read_run(folder, "a")], align=True)
    np.testing.assert_array_equal(found.steps, range(5, 61, 5))


def test_too_few_points_for_a_cubic(tmp_path):
    folder = write(tmp_path / "a", constant(4, 1.0, lambda k: k % 2))
    with pytest.raises(DataError, match="needs 4 points.*there are 4.*--smooth=window"):
        landscape.compare([folder], tmp_path / "out")
    (row,) = landscape.compare([folder], tmp_path / "out", smooth="window", window=10)
    assert row["start_fluctuation"] == 0.5
    five = write(tmp_path / "b", constant(5, 1.0, lambda k: k))
    (row,) = landscape.compare([five], tmp_path / "out")
    assert row["start_fluctuation"] == pytest.approx(1.0)
    single = write(tmp_path / "c", constant(1, 1.0, lambda k: k))
    with pytest.raises(DataError, match="needs 2 records"):
        landscape.compare([single], tmp_path / "out", smooth="window")


def test_a_run_without_records_says_which_keys_to_set(tmp_path, capsys):
    (tmp_path / "plain").mkdir()
    out = f"--out={tmp_path / 'out'}"
    assert landscape.main([str(tmp_path / "plain"), out]) == 2
    said = capsys.readouterr().err
    assert "config.landscape.every=1" in said and "config.landscape.probe_every" in said
    empty = write(tmp_path / "empty", [{"step": 1, "event": "diverged", "loss": None}])
    for folder, message in (
        (empty, "no record of a finite loss"),
        (tmp_path / "x", "not a folder"),
    ):
        with pytest.raises(DataError, match=message):
            read_run(folder, "a")
    broken = write(tmp_path / "broken", [])
    (broken / LANDSCAPE).write_text('{"step": 1}\nnonsense\n{"step": 3}\n')
    with pytest.raises(DataError, match="line 2"):
        read_run(broken, "a")


def test_labels_and_target_are_checked(tmp_path):
    folder = write(tmp_path / "a", constant(9, 1.0, lambda k: k))
    with pytest.raises(ConfigError, match="1 labels .x. for 2 runs"):
        landscape.compare([folder, folder], tmp_path / "out", labels=["x"])
    with pytest.raises(ConfigError, match="not all different"):
        landscape.compare([folder, folder], tmp_path / "out")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="is a file"):
        landscape.compare([folder], tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_real_run_from_training_to_figures(tmp_path, capsys):
    config = fake.config(landscape__every=1, landscape__depth=2, landscape__probe_every=2)
    detector = fake.FakeDetector("batch")
    loop.train(
        config, tmp_path / "run", detector=detector, train_stream=fake.stream, num_examples=24
    )
    out = tmp_path / "out"
    capsys.readouterr()
    assert landscape.main([str(tmp_path / "run"), f"--out={out}", "--labels=tiny"]) == 0
    said = capsys.readouterr().out
    assert (out / "landscape.md").read_text() in said and f"wrote {out / 'probes.png'}" in said
    (row,) = csv.DictReader((out / "landscape.csv").read_text().splitlines())
    records = list(map(json.loads, (tmp_path / "run" / LANDSCAPE).read_text().splitlines()))
    assert row["run"] == "tiny" and row["status"] == "completed" and row["last_step"] == "6"
    losses = [record["loss"] for record in records]
    assert float(row["final_loss"]) == pytest.approx(np.mean(losses))
    probed = records[1::2]
    beta = [max(v for k, v in r.items() if k.endswith("/smoothness")) for r in probed]
    assert float(row["mean_smoothness"]) == pytest.approx(np.mean(beta)) and min(beta) > 0
    found = read_run(tmp_path / "run", "x")
    assert {"backbone", "backbone/conv", "head", "head/kernel"} <= set(found.modules)
    np.testing.assert_array_equal(found.probes.steps, [2, 4, 6])
    for name in ("landscape.png", "probes.png", "modules.png"):
        image = Decoder()(out / name)
        assert image.shape[1] > 1000 and image.std() > 5
    landscape.main([str(tmp_path / "run"), f"--out={out}", "--smooth=window", "--window=5"])
    assert f"replaced {out / 'landscape.png'}" in capsys.readouterr().out
    landscape.compare([write(tmp_path / "plain", constant(9, 1.0, lambda k: k))], out)
    assert f"{out / 'probes.png'} is of an earlier comparison" in capsys.readouterr().out
