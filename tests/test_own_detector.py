"""A detector from outside, by ``module:Class``, through the ordinary commands."""

import json
import shutil
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest

from jdet import build, config, describe, run
from jdet.data.image_io import write_image
from jdet.detectors.base import Detector
from jdet.predict import predict
from jdet.preflight.preflight import preflight
from jdet.types import ConfigError

pytestmark = pytest.mark.trains

NAME = "tests.own_detector:GridDetector"


def own_config(steps=300):
    c = config.get_defaults()
    c.input_size = 48
    scene = dict(size=48, num_classes=2, min_scale=0.35, max_objects=1, clutter=0.0)
    c.data.train = build.group("source", "shapes", count=2000, split="train", **scene)
    c.data.eval = build.group("source", "shapes", count=80, split="test", **scene)
    c.data.max_boxes = 4
    c.augment.expand, c.augment.photometric, c.augment.crop = 0.0, 0.0, False
    c.model = build.group("detector", NAME, nms_iou=0.4)
    c.train.batch_size, c.train.steps, c.train.save_every = 16, steps, steps // 2
    c.optimizer.lr, c.optimizer.reference_batch, c.optimizer.schedule = 0.02, 0, "cosine"
    c.optimizer.clip_norm = 5.0
    c.parallel.devices = 1
    return c


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("own") / "run"
    return workdir, run.train(own_config(), workdir)


def test_it_learns(trained):
    """Far above chance: boxes drawn at random reach an IoU of 0.5 with hardly any object."""
    _, result = trained
    assert result.status == "completed"
    assert result.metrics["voc07/mAP"] > 0.5


def test_its_group_has_its_fields_and_nothing_else():
    group = build.group("detector", NAME)
    assert set(group) == {"name", "mean", "std", "width", "halvings", "nms_iou"}
    with pytest.raises(ConfigError, match="no field 'widht', did you mean 'width'"):
        build.group("detector", NAME, widht=3)


def test_resume_evaluate_and_predict(trained, tmp_path):
    workdir, result = trained
    assert run.train(own_config(), workdir).step == result.step  # complete: nothing left to do
    other = own_config()
    other.model.nms_iou = 0.9  # the detector declares that this may differ
    metrics = run.evaluate(workdir, config=other)
    assert 0 < metrics["voc07/mAP"] < 1
    other.model.halvings = 2
    with pytest.raises(ConfigError, match="config.model.halvings=2"):
        run.evaluate(workdir, config=other)
    source = build.source(own_config().data.eval, "config.data.eval")
    write_image(tmp_path / "a.png", np.asarray(source[0].image))
    (found,) = predict(workdir, tmp_path, score=0.05)
    assert len(found.boxes) and found.boxes.max() <= 48


def test_resume_in_between_is_exact(trained, tmp_path):
    workdir, result = trained
    half = tmp_path / "half"
    half.mkdir()
    for name in ("config.json", "run.json", "metrics.jsonl"):
        (half / name).write_bytes((workdir / name).read_bytes())
    record = json.loads((half / "run.json").read_text())
    (half / "run.json").write_text(json.dumps({**record, "status": "interrupted"}))
    shutil.copytree(workdir / "checkpoints" / "150", half / "checkpoints" / "150")
    again = run.train(own_config(), half)
    for a, b in zip(jax.tree.leaves(again.state.params), jax.tree.leaves(result.state.params)):
        np.testing.assert_array_equal(a, b)


def test_describe_and_preflight():
    found = describe.describe(own_config(), ("a", "b"))
    assert found.levels == [] and found.macs > 1e5
    assert found.parameters == sum(row.parameters for row in found.rows if "/" not in row.path)
    c = own_config()
    c.class_names, c.parallel.devices = ("a", "b"), 0
    report = preflight(c, ["cpu:2"], jobs=1)
    programs = report["topologies"][0]["programs"]
    assert programs["train"]["fits"] and programs["train"]["flops"] > programs["evaluate"]["flops"]


def test_what_is_no_detector_is_refused():
    c = own_config()
    c.model.name = "flax.linen:Dense"
    with pytest.raises(ConfigError, match="not a detector; derive the class from"):
        build.detector(c, ("a",))


class Head(nn.Module):
    """A nested part of a kind of its own."""

    outputs: int = 4
    norm: Any = None

    def __call__(self, x):
        return x


class WithHead(Detector, kw_only=True):
    head: Any

    parts = {"head": "own_head"}
    needs = ("depths",)


def test_parts_may_be_of_a_kind_of_ones_own():
    head = build.group("own_head", f"{__name__}:Head", outputs=7)
    c = own_config()
    c.model = build.group("detector", f"{__name__}:WithHead", head=head, head_norm="group")
    with pytest.raises(
        ConfigError, match="needs depths in its batches, which the .* does not make; it makes masks"
    ):
        build.detector(c, ("a",))
    WithHead.needs = ()
    made = build.detector(c, ("a",)).head
    assert made.outputs == 7 and made.norm.kind == "group"
    with pytest.raises(ConfigError, match="there are none of jdet's; give your own"):
        build.group("own_head", "box")
