"""A run on 16-bit images with gaps: one measurement for training, resuming, evaluation and prediction."""

import json

import cv2
import numpy as np
import pytest

from jdet import build, run
from jdet.build import normalise
from jdet.config import get_defaults
from jdet.data.measure import measure
from jdet.evaluation.predictor import Predictor
from jdet.train.workdir import open_run
from jdet.types import ConfigError


def make_set(root):
    """Six one-channel images of faint squares far from zero, with a column that was not measured."""
    rng, images, annotations = np.random.default_rng(0), [], []
    for i in range(6):
        image = (30_000 + rng.integers(0, 20, (48, 48))).astype(np.uint16)
        x, y = rng.integers(2, 30, 2).tolist()
        image[y : y + 14, x : x + 14] += 60
        image[:, 45:] = 0
        cv2.imwrite(str(root / f"{i}.png"), image)
        images.append({"id": i, "file_name": f"{i}.png", "width": 48, "height": 48})
        box = {"bbox": [x, y, 14, 14], "area": 196, "iscrowd": 0}
        annotations.append({"id": i + 1, "image_id": i, "category_id": 1, **box})
    (root / "boxes.json").write_text(
        json.dumps(
            {
                "images": images,
                "annotations": annotations,
                "categories": [{"id": 1, "name": "square"}],
            }
        )
    )
    values = np.stack([cv2.imread(str(root / f"{i}.png"), -1) for i in range(6)])[..., :45]
    return values.astype(np.float64)


def config_of(root):
    c = get_defaults()
    c.input_size = 32
    for role in ("train", "eval"):
        file = str(root / "boxes.json")
        c.data[role] = build.group("source", "coco", annotation_file=file, image_root=str(root))
    c.data.image.channels = "gray"
    c.data.image.invalid = 0.0
    c.data.normalise.by = "data"
    c.data.threads = 0
    c.augment = build.group("augment", "intensity")
    c.model = build.group("detector", "tests.own_detector:GridDetector")
    c.train.batch_size = c.eval.batch_size = 2
    c.train.steps = 2
    c.eval.images = 2
    c.parallel.devices = 1
    return c


def test_measured_once_and_used_everywhere(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = tmp_path / "data"
    data.mkdir()
    values = make_set(data)
    c, workdir = config_of(data), tmp_path / "run"
    caplog.set_level("INFO")
    run.train(c, workdir)
    stored = open_run(workdir).config
    np.testing.assert_allclose(stored.model.mean, values.mean(), rtol=1e-9)
    np.testing.assert_allclose(stored.model.std, values.std(), rtol=1e-9)
    found = json.loads((workdir / "image_statistics.json").read_text())
    assert found["invalid"] == [6 * 48 * 3] and found["minimum"] == [values.min()]
    for line in ("by what was measured on the training images (mean 300", "are invalid"):
        assert line in caplog.text
    drawn = cv2.imread(str(next((workdir / "detections").glob("*.jpg"))))
    assert drawn is not None and drawn.std() > 10  # not a black image

    # The same command resumes by what is kept, and nothing else measures.
    monkeypatch.setattr(normalise, "measure", lambda *_, **__: pytest.fail("measured again"))
    assert run.train(config_of(data), workdir).status == "completed"
    with pytest.raises(ConfigError, match="normalise.by: 'data' → 'range'"):
        other = config_of(data)
        other.data.normalise.by, other.data.normalise.range = "range", (0.0, 1.0)
        with monkeypatch.context() as again:
            again.setattr(normalise, "measure", measure)
            run.train(other, workdir)
    metrics = run.evaluate(workdir)
    assert run.evaluate(workdir, config=config_of(data)) == metrics

    predictor = Predictor(workdir)
    image = cv2.imread(str(data / "0.png"), -1)[..., None]
    (prepared,) = predictor.prepare(image, "0").images
    filled = np.where(image == 0, np.rint(values.mean()), image).astype(np.uint16)
    np.testing.assert_array_equal(prepared, predictor.resize.prepare(filled)[0])
    assert predictor.display(image).shape == (48, 48, 3)


def test_a_run_that_goes_on_takes_what_was_measured_for_it(tmp_path, monkeypatch):
    """Without the cache; one that begins anew, or measures otherwise, measures."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data, workdir = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    values = make_set(data)

    def prepare(overwrite=False, **normalise):
        c = config_of(data)
        c.data.normalise.update(normalise)
        return run._prepare(c, workdir, overwrite)

    first = prepare()
    np.testing.assert_allclose(first.config.model.mean, values.mean(), rtol=1e-9)
    assert first.values.images == 6
    workdir.mkdir()
    (workdir / "config.json").write_text(first.config.to_json())
    monkeypatch.setattr(normalise, "measure", lambda *_, **__: pytest.fail("measured again"))
    again = prepare()
    assert again.values is None and again.config.to_json() == first.config.to_json()
    for given in (dict(overwrite=True), dict(by="range", range=(29_000.0, 31_000.0))):
        with pytest.raises(pytest.fail.Exception, match="measured again"):
            prepare(**given)
    (workdir / "config.json").write_text("{")  # the workdir's own check says what is wrong
    with pytest.raises(pytest.fail.Exception, match="measured again"):
        prepare()
