"""A workdir and a config of an earlier version: read, gone on with and evaluated as then.

The numbers were written by that version (``tests/golden/old_run``). Here they come out bit for bit; the
tolerance is for other processors.
"""

import json
import tarfile
from pathlib import Path

import pytest

from jdet import build, run
from jdet import config as config_lib
from jdet.train.workdir import Workdir

OLD = Path(__file__).parent / "golden" / "old_run"
CLOCK = ("images_per_second", "data_wait")


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(OLD / "run.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "run"


def lines(path):
    """Records of a ``metrics.jsonl`` from the checkpoint on, by step and whether they are of training."""
    records = map(json.loads, path.read_text().splitlines())
    found = {(r["step"], "loss" in r): r for r in records if r["step"] >= 148}
    found.pop((148, True), None)  # before the checkpoint
    return found


def close(found, wanted):
    for name in wanted.keys() - {*CLOCK}:
        if wanted[name] is None:  # no object of that size
            assert found[name] is None
        else:
            assert found[name] == pytest.approx(wanted[name], rel=1e-4, abs=1e-6), name


def complete_model(config):
    """The group with every key that its classes have now, as experiments make it."""
    model = config.model.to_dict()
    parts = {part: build.group(part, **model.pop(part)) for part in ("backbone", "neck")}
    return build.group("detector", **model, **parts)


def test_an_old_run_is_evaluated_as_then(old):
    wanted = lines(OLD / "uninterrupted.jsonl")[148, False]
    found = run.evaluate(old, step=148)
    measured = {k: v for k, v in wanted.items() if k != "step" and v is not None}
    assert measured["coco/AR100"] > 0.1 and measured["voc07/mAP"] > 0.01
    close(found, measured)


def test_an_old_run_goes_on_as_it_would_have(old):
    stored = json.loads((old / "config.json").read_text())
    assert stored["eval"]["pictures"] == 2 and stored["resize"]["mode"] == "warp"
    config = run.open_run(old).config
    assert (config.eval.images, config.eval.max_images, config.resize.name) == (2, 20, "warp")
    # What an experiment makes today: every key that the classes have now.
    config.model = complete_model(config)
    config.parallel.devices = 1  # as then
    before = lines(old / "metrics.jsonl")
    result = run.train(config, old)
    assert (result.status, result.step) == ("completed", 160)
    assert run.open_run(old).record["resumed_at"] == 148
    after, wanted = lines(old / "metrics.jsonl"), lines(OLD / "uninterrupted.jsonl")
    assert after.keys() == wanted.keys()
    for key, record in wanted.items():
        close(after[key], record)
    assert any(after[k].get("data_wait") != before[k]["data_wait"] for k in before if k[0] > 148)
    assert "pictures" not in json.loads((old / "config.json").read_text())["eval"]


def test_the_config_of_an_old_run_means_the_same(tmp_path):
    path = tmp_path / "config.json"
    path.write_text((OLD / "retinanet_config.json").read_text())
    config = config_lib.load(path)
    later = {"rounding": "nearest"}  # a key that came after it, with what it did then
    assert config.resize.to_dict() | later == build.group(
        "resize", "keep_ratio", short=(96, 128), sampling="range", long=200, test_short=112
    ).to_dict()  # fmt: skip
    assert (config.augment.name, config.eval.images, config.eval.max_images) == ("none", 3, 7)
    config_lib.validate(config)
    detector = build.detector(config, ("a", "b"))
    assert detector.normalizer == "image" and detector.low_quality == "anchor"
    config.model = complete_model(config)
    assert build.detector(config, ("a", "b")) == detector

    (tmp_path / "run.json").write_text(json.dumps({"num_examples": 20}))
    said = []
    defaults = build.defaults(config)
    folder = Workdir(tmp_path, config, 20, class_defaults=defaults, notify=said.append)
    assert folder.resumes and not said
    folder.close()
