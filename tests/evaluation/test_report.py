import io
import json
import math

import pytest

from jdet.config import get_defaults
from jdet.evaluation import report
from jdet.evaluation.evaluate import make_evaluators

NAMES = ("cat [wild]", "dog")
MEANS = {"voc07": "mAP", "coco": "AP"}
METRICS = {
    "voc07/mAP": 0.75,
    "voc07/AP/cat [wild]": 0.75,
    "voc07/AP/dog": math.nan,
    "coco/AP": 0.4,
    "coco/AP50": 0.5,
    "coco/AP/cat [wild]": 0.4,
    "coco/AP/dog": math.nan,
}


def test_report_is_strict_json_with_null_for_nan(tmp_path):
    path = tmp_path / "run" / "report.json"
    report.write_report(path, step=7, metrics=METRICS, settings={"a": 1})
    read = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert read["step"] == 7 and read["settings"] == {"a": 1}
    assert read["metrics"]["voc07/AP/dog"] is None and read["metrics"]["coco/AP50"] == 0.5
    assert [p.name for p in path.parent.iterdir()] == ["report.json"]


def test_a_failed_write_leaves_the_old_report(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    report.write_report(path, step=1, metrics={})

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(report.os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        report.write_report(path, step=2, metrics={})
    assert json.loads(path.read_text())["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_multi_scale_stands_beside_one_size(tmp_path):
    path = tmp_path / "report.json"
    report.write_report(path, step=7, metrics={"voc07/mAP": 0.5}, seconds_per_image=0.1)
    more = {"tta/voc07/mAP": 0.6, "tta/voc07/AP/dog": math.nan}
    settings = {"preset": "custom", "passes": ((1.0, 1.0, True, 0, 0),)}
    report.add_multi_scale(path, step=7, metrics=more, settings=settings, seconds_per_image=2.0)
    read = json.loads(path.read_text())
    assert read["metrics"] == {"voc07/mAP": 0.5, "tta/voc07/mAP": 0.6, "tta/voc07/AP/dog": None}
    assert read["seconds_per_image"] == 0.1 and read["tta"]["seconds_per_image"] == 2.0
    assert report.format_speed(read).endswith("0.1000 at one size, 2.0000 at several, 20.0 times")
    # What is there is known by step and settings.
    held = report.multi_scale_metrics(path, 7, settings)
    assert held == pytest.approx(more, nan_ok=True)
    assert report.multi_scale_metrics(path, 8, settings) == {}
    assert report.multi_scale_metrics(path, 7, {**settings, "merge": "nms"}) == {}
    # Numbers of other weights do not stay.
    report.add_multi_scale(path, step=8, metrics=more, settings={}, seconds_per_image=None)
    read = json.loads(path.read_text())
    assert read["step"] == 8 and "voc07/mAP" not in read["metrics"]
    assert "one batch" in report.format_speed(read)


def test_a_report_of_an_earlier_version_has_its_speed(tmp_path):
    """It called images pictures; also where it already holds multi-scale testing."""
    path, old = tmp_path / "report.json", "seconds_per_picture"
    tta = {"settings": {"preset": "flip"}, old: 0.3}
    metrics = {"voc07/mAP": 0.5, "tta/voc07/mAP": 0.6}
    path.write_text(
        json.dumps({"step": 7, "metrics": metrics, "settings": {}, old: 0.1, "tta": tta})
    )
    held = report.multi_scale_metrics(path, 7, {"preset": "flip"})
    assert held == {"tta/voc07/mAP": 0.6}
    more = {"tta/voc07/mAP": 0.7}
    whole = report.add_multi_scale(path, step=7, metrics=more, settings={}, seconds_per_image=0.4)
    assert whole == json.loads(path.read_text()) and old not in path.read_text()
    assert report.format_speed(whole).endswith("0.1000 at one size, 0.4000 at several, 4.0 times")


def test_multi_scale_has_its_own_columns():
    metrics = METRICS | {f"tta/{k}": v for k, v in METRICS.items()}
    assert report.format_table(metrics, NAMES, MEANS).splitlines() == [
        "AP, %       voc07   coco  tta/voc07  tta/coco",
        "---------------------------------------------",
        "cat [wild]  75.00  40.00      75.00     40.00",
        "dog             -      -          -         -",
        "---------------------------------------------",
        "mean        75.00  40.00      75.00     40.00",
        "coco/AP50       50.00",
        "tta/coco/AP50   50.00",
    ]


def test_settings_say_what_the_numbers_depend_on():
    config = get_defaults()
    config.eval.metrics = ("voc", "coco")
    config.eval.max_images = 3
    evaluators = make_evaluators(config.eval.metrics, NAMES)
    settings = report.settings_of(config, range(5), evaluators)
    assert settings["images"] == 3 and settings["input_size"] == 300
    assert settings["model"] == {"name": "ssd"}
    assert settings["protocols"] == {
        "voc": "VOC devkit: IoU >= 0.5; voc07 is 11-point, voc12 the area; difficult objects ignored",
        "coco": "pycocotools: IoU 0.50:0.95, 100 detections per image and class; crowd ignored",
    }
    json.dumps(settings)


def test_plain_table():
    assert report.format_table(METRICS, NAMES, MEANS).splitlines() == [
        "AP, %       voc07   coco",
        "------------------------",
        "cat [wild]  75.00  40.00",
        "dog             -      -",
        "------------------------",
        "mean        75.00  40.00",
        "coco/AP50   50.00",
    ]


def test_numbers_without_classes_are_a_list():
    assert report.format_table({"coco/AP50": 0.125}, NAMES, MEANS) == "coco/AP50   12.50"
    # What declares no AP per class is not in percent.
    assert report.format_table({"mine/each": 10.0}, NAMES, MEANS) == "mine/each      10"


def test_table_off_a_terminal_is_plain():
    file = io.StringIO()
    report.print_table(METRICS, NAMES, MEANS, file=file)
    assert file.getvalue() == report.format_table(METRICS, NAMES, MEANS) + "\n"


def test_table_on_a_terminal_has_the_same_cells(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    file = Terminal()
    report.print_table(METRICS, NAMES, MEANS, file=file)
    text = file.getvalue()
    assert "│ cat [wild] │ 75.00 │ 40.00 │" in text and "coco/AP50" in text and "│" in text
