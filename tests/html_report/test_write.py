"""The page of runs of every kind: what it holds, what it says is missing, how large it is."""

import base64
import hashlib
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from jdet.config import get_defaults
from jdet.html_report import __main__ as command
from jdet.html_report import gallery
from jdet.html_report.write import write
from jdet.train.folders import REPORT, remove_views
from jdet.types import ImageKind
from tests.html_report import made_run

LIMIT = 5_000_000


def settings(names=made_run.NAMES):
    config = get_defaults()
    config.class_names = tuple(names)
    return config


def held(page):
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="contents">(.*?)</script>', text, re.DOTALL)[1])


def jpeg(record):
    data = np.frombuffer(base64.b64decode(record["jpeg"]), np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def test_a_finished_run(tmp_path):
    config = settings()
    scenes = [made_run.scene(i) for i in range(5)]
    source = made_run.evaluated(tmp_path, config, scenes)
    page = write(tmp_path, source=source)
    data = held(page)
    # 14 objects count; at 0.6 all but the one with score 0.4 are found, three times.
    assert data["gallery"]["objects"] == 14 and data["gallery"]["total"] == 5
    level = round(100 * data["gallery"]["threshold"])
    found, false = (data["gallery"][key][level] for key in ("found", "false"))
    share = f"{100 * found / 14:.1f} % of the objects at {100 * found / (found + false):.1f} %"
    assert share in data["headline"] and "on 6 images, after 200 steps" in data["headline"]
    assert data["data"]["findings"][0]["remedy"] == "look at them"
    assert data["notes"] == [] and len(data["gallery"]["images"]) == 5
    assert ["Of these could not be read, and are not evaluated", 1] in data["data"]["facts"]
    assert data["gallery"]["of_suspect"][1] is None
    shown = data["gallery"]["images"][data["gallery"]["of_suspect"][0]]
    assert shown["name"] == "image 1" and jpeg(shown).shape == (60, 80, 3)
    assert shown["objects"][:6] == [50, 50, 250, 300, 1, 0]
    assert shown["detections"][:7] == [60, 60, 260, 310, 1, 950, 0]
    rows = {row["class"]: row for row in data["per_class"]["rows"]}
    assert rows["猫"]["score"] == 0.4 and rows["سيارة"].get("score") is None
    assert ["Training images", 20, "count"] in data["cost"]
    assert ["Images of an epoch, repeats and tiles counted", 50, "count"] in data["cost"]
    assert ["Most memory of a device, or of the process on CPUs", 3 << 30, "bytes"] in data["cost"]


def test_the_headline_has_the_step_of_its_numbers(tmp_path):
    source = made_run.evaluated(tmp_path, settings(), [made_run.scene(0)])
    record = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(record | {"step": 900, "status": "interrupted"}))
    headline = held(write(tmp_path, source=source))["headline"]
    assert "interrupted at step 900 of 200" in headline and "after 200 steps" in headline


def test_nothing_from_the_data_is_markup_and_nothing_is_loaded(tmp_path):
    folder = tmp_path / "a<b>&'run'"
    source = made_run.evaluated(folder, settings(), [made_run.scene(0)])
    text = write(folder, source=source).read_text(encoding="utf-8")
    assert text.count("</script") == 2 and "<img src=x" not in text
    assert "<title>a&lt;b&gt;&amp;&#x27;run&#x27; – jdet report</title>" in text
    assert not re.search(r'(src|href)="(?!#|data:)', text) and "@import" not in text
    policy = re.search(r'Policy" content="([^"]*)"', text)[1].replace("&#x27;", "'")
    assert "default-src 'none'" in policy and "unsafe" not in policy
    for kind, part in (("style", r"<style>(.*?)</style>"), ("script", r"<script>(.*?)</script>")):
        content = re.search(part, text, re.DOTALL)[1].encode()
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_a_run_without_evaluation_says_so(tmp_path, capsys):
    made_run.begin(tmp_path, settings())
    assert command.main([str(tmp_path)]) == 0
    page = Path(capsys.readouterr().out.strip())
    assert page == tmp_path / REPORT
    data = held(page)
    assert "still training (200 steps planned). There is no evaluation yet" in data["headline"]
    assert data["gallery"] is None and data["per_class"]["rows"] == []
    assert {chart["title"] for chart in data["charts"]} >= {"Training loss", "Learning rate"}
    with (tmp_path / "metrics.jsonl").open("a") as file:
        for said in ("an older look: gone", "something (rate): too low"):
            row = {"step": 9, "event": "learning", "said": said}
            file.write(json.dumps(row) + "\n")
    (finding,) = held(write(tmp_path))["data"]["findings"]
    assert finding["title"] == "something (rate)" and finding["remedy"] == "too low"
    (tmp_path / "metrics.jsonl").unlink()
    assert held(write(tmp_path))["charts"] == []
    assert command.main([str(tmp_path / "nothing")]) == 2
    assert "holds no run" in capsys.readouterr().err


def test_an_older_run_whose_data_is_gone(tmp_path):
    config = settings()
    config.data.eval = {"name": "voc", "root": str(tmp_path / "gone"), "splits": ("x",)}
    config.data.train = config.data.eval
    made_run.evaluated(tmp_path, config, [made_run.scene(0)], analysed=False)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write("nonsense\n{}\n")
    data = held(write(tmp_path))
    notes = "\n".join(data["notes"])
    (tmp_path / "analysis.json").write_text('{"version": 9}')
    assert "version 9, not 1; renew it" in "".join(held(write(tmp_path))["notes"])
    assert "Without images" in notes and "jdet.analyse" in notes and "Some curves" in notes
    assert data["per_class"]["rows"] == [{"class": "猫", "voc07": 0.6}]
    assert "voc07/mAP 70.0 %" in data["headline"]
    report = json.loads((tmp_path / "report.json").read_text())
    (tmp_path / "report.json").write_text(json.dumps(report | {"forecast": {"said": "80 %"}}))
    assert "Forecast" not in held(write(tmp_path))["headline"]  # it has ended
    record = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(record | {"status": "running"}))
    assert held(write(tmp_path))["headline"].endswith("Forecast: 80 %.")
    other = made_run.ListSource([made_run.scene(7)[0]], config.class_names)
    assert "has no image 'image 0'" in held(write(tmp_path, source=other))["notes"][1]


def test_phases_are_one_run(tmp_path):
    config = settings()
    made_run.begin(tmp_path / "warm", config, status="completed", steps=100)
    source = made_run.evaluated(tmp_path / "main", config, [made_run.scene(0)])
    phases = [{"name": "warm", "steps": 100}, {"name": "main", "steps": 200}]
    (tmp_path / "phases.json").write_text(json.dumps({"phases": phases}))
    assert write(tmp_path / "main", source=source) == tmp_path / "main" / REPORT
    page = write(tmp_path, source=source)
    assert page == tmp_path / REPORT
    loss = next(chart for chart in held(page)["charts"] if chart["title"] == "Training loss")
    assert loss["marks"] == [{"x": 0, "label": "warm"}, {"x": 100, "label": "main"}]
    assert max(loss["lines"][0]["x"]) == 300
    other = write(tmp_path, phase="warm")
    assert other == tmp_path / "warm" / REPORT and "phase main" in page.read_text()
    first = held(other)
    assert max(first["charts"][0]["lines"][0]["x"]) == 100
    remove_views(tmp_path / "warm")  # evaluated again: what is above is of another phase
    assert not other.exists() and page.exists()
    remove_views(tmp_path / "main")
    assert not page.exists() and not (tmp_path / "main" / "analysis.json").exists()
    assert not (tmp_path / "main" / REPORT).exists()


def test_masks_of_many_channels(tmp_path):
    scenes = [made_run.scene(i, masks=True, channels=5, dtype=np.uint16) for i in range(2)]
    kind = ImageKind(5, "bands", "uint16", (0.0, 65535.0))
    config = settings()
    source = made_run.evaluated(tmp_path, config, scenes, kind=kind)
    for record in held(write(tmp_path, source=source))["gallery"]["images"]:
        assert jpeg(record).shape == (60, 80, 3) and jpeg(record).max() > 200
        assert len(record["object_outlines"]) == 3 and len(record["outlines"]) == 5
        points = np.array(re.findall(r"[\d.]+", record["object_outlines"][0]), float).reshape(-1, 2)
        assert (np.abs(points.min(0) - 5) <= 1.5).all() and (
            np.abs(points.max(0) - [25, 30]) <= 1.5
        ).all()


def test_500_images_and_600_classes_stay_small(tmp_path):
    names = [f"class {i}" for i in range(600)]
    scenes = [made_run.scene(i, (10, 10), classes=600) for i in range(500)]
    noise = np.random.default_rng(0).integers(0, 255, (320, 320, 3)).astype(np.uint8)
    examples = [example._replace(image=noise) for example, _ in scenes]
    scenes = list(zip(examples, (found for _, found in scenes), strict=True))
    source = made_run.evaluated(tmp_path, settings(names), scenes)
    page = write(tmp_path, source=source)
    data = held(page)
    assert page.stat().st_size < LIMIT
    assert 60 <= len(data["gallery"]["images"]) <= gallery.MOST < data["gallery"]["total"]
    assert len(data["confusion"]["labels"]) == 31 and data["confusion"]["classes"] == 600
    assert len(data["per_class"]["rows"]) == 600


@pytest.mark.parametrize("most", [0, 1, 7, 40])
def test_the_choice_holds_the_worst_and_what_is_wanted(most):
    from jdet.html_report.matching import match

    matched = [match(found, example, 0.5) for example, found in map(made_run.scene, range(30))]
    chosen = gallery.choose(matched, 0.5, wanted=[29], most=most)
    assert len(chosen) == len(set(chosen)) == min(most, 30)
    f1 = [image.f1(0.5) for image in matched]
    assert [f1[i] for i in chosen] == sorted(f1[i] for i in chosen)
    assert most < 4 or (29 in chosen and min(f1) == f1[chosen[0]])


def test_the_wheel_holds_the_parts_of_the_page():
    wheel = pytest.importorskip("hatchling.builders.wheel")
    root = Path(__file__).resolve().parents[2]
    files = {
        Path(one.distribution_path)
        for one in wheel.WheelBuilder(str(root)).recurse_included_files()
    }
    parts = {
        path.relative_to(root) for path in (root / "jdet" / "html_report").glob("*.[hcj][ts]*")
    }
    assert len(parts) >= 7 and parts <= files
