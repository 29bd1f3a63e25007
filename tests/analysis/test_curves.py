import json

import matplotlib
import numpy as np
import pytest

from jdet.analysis.curves import plot_curves, read_metrics, read_precision_recall
from jdet.data.readers.decoder import Decoder


def write(path, records, tail=""):
    path.write_text("".join(json.dumps(r) + "\n" for r in records) + tail)
    return path


def test_reads_series_and_an_unfinished_last_line(tmp_path):
    records = [
        {"step": 10, "loss": 3.0, "lr": 0.1},
        {"step": 20, "loss": float("nan"), "note": "text"},
        {"step": 20, "voc07/mAP": 0.5},
        {"step": 30, "loss": 2.0},
        {"step": 30, "loss": 1.0},
    ]
    series = read_metrics(write(tmp_path / "m.jsonl", records, tail='{"step": 4'))
    assert set(series) == {"loss", "lr", "voc07/mAP"}
    np.testing.assert_array_equal(series["loss"], [[10, 30], [3, 1]])


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    path = write(tmp_path / "m.jsonl", [{"step": 1}], tail='{"loss": 1}\n{"step": 2}\n')
    with pytest.raises(ValueError, match="line 2"):
        read_metrics(path)


@pytest.mark.parametrize("count", [1, 60])
def test_draws_the_panels_a_run_has(tmp_path, count):
    backend = matplotlib.get_backend()
    steps = range(0, 10 * count, 10)
    records = [{"step": s, "loss": 5.0, "loss/loc": 2.0, "loss/cls": 3.0, "lr": 0.1} for s in steps]
    records += [{"step": s, "voc07/mAP": 0.5, "coco/AP": 0.3, "coco/AP/x": 0.1} for s in steps]
    plot_curves(write(tmp_path / "m.jsonl", records), tmp_path / "all.png")
    plot_curves(write(tmp_path / "l.jsonl", [{"step": 1, "loss": 2}]), tmp_path / "loss.png")
    everything, loss = Decoder()(tmp_path / "all.png"), Decoder()(tmp_path / "loss.png")
    assert everything.shape == (840, 1344, 3) and loss.shape == (420, 672, 3)
    assert matplotlib.get_backend() == backend


@pytest.mark.parametrize("classes", [1, 20])
def test_precision_over_recall_is_drawn(tmp_path, classes):
    """Those of the first metric; a file that cannot be read leaves the panel out."""
    curve = {"x": [0.0, 0.5, 1.0], "y": [1.0, 0.8, 0.1], "score": [0.9, 0.5, 0.1]}
    names = [
        f"{metric}/precision_recall/c/{i}" for metric in ("voc", "coco") for i in range(classes)
    ]
    curves = dict.fromkeys(names, curve) | {"voc/precision_recall/none": {"x": [], "y": []}}
    file = tmp_path / "evaluation_curves.json"
    file.write_text(json.dumps({"step": 1, "curves": curves}))
    found = read_precision_recall(file)
    assert [*found] == [f"c/{i}" for i in range(classes)]
    np.testing.assert_array_equal(found["c/0"], [curve["x"], curve["y"]])
    log = write(tmp_path / "m.jsonl", [{"step": 1, "loss": 2}])
    plot_curves(log, tmp_path / "two.png")
    assert Decoder()(tmp_path / "two.png").shape == (420, 1344, 3)
    file.write_text("{")
    plot_curves(log, tmp_path / "one.png")
    assert Decoder()(tmp_path / "one.png").shape == (420, 672, 3)


def test_nothing_to_draw_is_said(tmp_path):
    with pytest.raises(ValueError, match="holds no loss"):
        plot_curves(write(tmp_path / "m.jsonl", [{"step": 1, "x": 2}]), tmp_path / "x.png")
