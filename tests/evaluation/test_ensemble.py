"""Ensembles of runs' detections: equal runs change nothing, unequal ones agree, bad ones are named."""

import json

import numpy as np
import pytest

from jdet import build
from jdet.data.segmentation import decode, encode
from jdet.evaluation.ensemble import ensemble, main, merge
from jdet.evaluation.masks import majority
from jdet.evaluation.results import Results, read
from jdet.types import ImageDetections
from tests.test_masks import mask_config


def found_in(example, rng, masks):
    """The objects, somewhat moved, with scores of chance, and one that is none."""
    height, width = example.image.shape[:2]
    boxes = np.concatenate([example.boxes, [[1, 1, 12, 9]]])
    boxes += rng.normal(0, 1.2, boxes.shape)
    boxes = np.clip(boxes, 0, [width, height, width, height]).astype(np.float32)
    shifted = [np.roll(decode(m, height, width), rng.integers(-1, 2), 1) for m in example.masks]
    shifted.append(np.zeros((height, width), np.uint8))
    scores = np.append(rng.uniform(0.5, 1, len(example.boxes)), 0.1).astype(np.float32)
    order = np.argsort(-scores)
    return ImageDetections(
        id=example.id,
        boxes=boxes[order],
        scores=scores[order],
        labels=np.append(example.labels, 0)[order].astype(np.int32),
        masks=tuple(encode(shifted[i]) for i in order) if masks else None,
    )


@pytest.fixture
def make_run(tmp_path):
    config = mask_config()
    config.class_names, config.data.eval.count = ("disc", "square"), 12
    source = build.source(config.data.eval, "config.data.eval")

    def make(name, seed, masks=True, count=12):
        rng, results, folder = np.random.default_rng(seed), Results(source), tmp_path / name
        config.eval.metrics = ("coco_segm", "coco") if masks else ("coco",)
        for index in range(count):
            results.add(index, found_in(source[index], rng, masks))
        folder.mkdir()
        results.write(folder, (1, 2))
        (folder / "config.json").write_text(json.dumps(config.to_dict()))
        return folder

    return make


@pytest.mark.parametrize("kind", ["voting", "nms", "soft_voting"])
def test_a_run_with_itself_is_that_run(make_run, kind, tmp_path):
    run, out = make_run("a", 0), tmp_path / "out"
    metrics = ensemble([run, run / "detections.json"], out, kind=kind)
    (ours, _), (theirs, index) = read(out / "detections.json"), read(run / "detections.json")
    for id, one in theirs.items():
        keep = ours[id].scores > 0.001  # what soft voting leaves of the twins
        other = ours[id].select(keep)
        assert other.masks == one.masks and other.id == one.id
        np.testing.assert_allclose(other.boxes, one.boxes, atol=2e-3)
        np.testing.assert_array_equal(other.labels, one.labels)
        np.testing.assert_allclose(other.scores, one.scores, atol=1e-6)
    alone = ensemble([run, run], tmp_path / "alone", kind="nms")
    assert metrics == pytest.approx(alone, nan_ok=True) and metrics["coco_segm/AP50"] > 0.5
    written = json.loads((out / "report.json").read_text())
    assert written["settings"]["merge"] == kind
    assert written["metrics"]["coco/AP"] == metrics["coco/AP"]
    assert json.loads((out / "images.json").read_text())["images"] == index["images"]


def test_three_that_differ_agree_better(make_run, tmp_path, capsys):
    runs = [make_run(str(seed), seed) for seed in (1, 2, 3)]
    alone = [ensemble([run, run], tmp_path / f"{run.name}out", kind="nms") for run in runs]
    capsys.readouterr()
    assert main([*map(str, runs), "--out", str(tmp_path / "all"), "--iou=0.6"]) == 0
    together = json.loads((tmp_path / "all" / "report.json").read_text())["metrics"]
    for name in ("coco/AP", "coco_segm/AP"):
        assert together[name] > max(one[name] for one in alone), name
    assert "coco_segm" in capsys.readouterr().out
    found, _ = read(tmp_path / "all" / "detections.json")
    assert sum(len(one.scores) for one in found.values()) < 3 * 12


def test_masks_vote_by_pixel():
    rng = np.random.default_rng(5)
    for _ in range(20):
        masks = rng.random((3, 9, 13)) < 0.5
        masks[:, :, :4] = False
        weights = rng.uniform(0.1, 1, 3)
        expected = np.tensordot(weights, masks, 1) >= 0.5 * weights.sum()
        assert majority([encode(mask) for mask in masks], weights) == encode(expected)
    nothing = encode(np.zeros((9, 13)))
    assert majority([nothing, nothing], np.ones(2)) == nothing


def test_boxes_alone_and_files_of_no_run(make_run, tmp_path):
    runs = [make_run(str(seed), seed, masks=False) for seed in (1, 2)]
    for run in runs:
        (run / "config.json").unlink()
    out = tmp_path / "out"
    assert ensemble(runs, out, max_detections=1) == {}
    found, _ = read(out / "detections.json")
    assert all(len(one.scores) <= 1 and one.masks is None for one in found.values())
    empty = {1: ImageDetections("a", np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), ())}
    (nothing,) = merge([empty, empty]).values()
    assert len(nothing.scores) == 0 and nothing.id == "a"


def test_a_run_without_masks_leaves_boxes(make_run, tmp_path):
    runs = [make_run("masks", 1), make_run("boxes", 2, masks=False)]
    metrics = ensemble(runs, tmp_path / "out")
    assert metrics["coco/AP50"] > 0.3 and not any("segm" in name for name in metrics)
    found, _ = read(tmp_path / "out" / "detections.json")
    assert all(one.masks is None for one in found.values())


def test_mistakes_are_named(make_run, tmp_path, capsys):
    run, fewer, out = make_run("a", 0), make_run("b", 0, count=11), str(tmp_path / "out")

    def error_of(*arguments):
        assert main([*map(str, arguments), "--out", out]) == 2
        return capsys.readouterr().err

    assert "two runs at least, and this is 1" in error_of(run)
    assert "images.json" in (text := error_of(run, fewer)) and "is of other images than" in text
    assert "nowhere/detections.json is missing" in error_of(run, tmp_path / "nowhere")
    assert "detections_tta.json is missing" in error_of(run, run, "--tta")
    assert "--iou=0.0 must be above 0" in error_of(run, run, "--iou=0")
    assert "--max_detections=-1 must be at least 0" in error_of(run, run, "--max_detections=-1")
    assert main([str(run), str(run), "--out", str(run)]) == 2
    assert "is one of the runs" in capsys.readouterr().err
    (fewer / "detections.json").write_text("[{}]")
    assert "no result list of COCO's form" in error_of(run, fewer)
    config = json.loads((run / "config.json").read_text())
    config["data"]["eval"]["count"] = 5
    (run / "config.json").write_text(json.dumps(config))
    assert "lacks 7 of the images" in error_of(run, run)
