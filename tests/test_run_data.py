"""From the data groups of a config to sources, and what a run tells of them, on tiny data sets."""

import logging
import re
import sys
from types import SimpleNamespace

import pytest
from absl import flags
from ml_collections import config_flags

from jdet import build, run
from jdet import config as config_lib
from jdet.config import get_defaults
from jdet.evaluation import tta
from jdet.types import ConfigError, DataError
from tests.data.sources.test_coco import annotation, content, write
from tests.data.sources.test_voc import annotation_xml, make_folder, object_xml


def voc(root, **annotations):
    """Config of a VOC folder of a few good images and those given: id → XML text."""
    texts = {f"good{i}": annotation_xml(object_xml()) for i in range(4)} | annotations
    make_folder(root, {"train": list(texts), "test": ["good0"]}, texts, labels=("cat", "dog"))
    c = get_defaults()
    c.data.root = str(root)
    c.data.train = build.group("source", "voc", root=c.data.get_ref("root"), splits="train")
    c.data.eval = build.group("source", "voc", root=c.data.get_ref("root"), splits="test")
    return c


def tiny(c):
    """With a small model."""
    c.input_size = 64
    c.data.threads = 0
    c.model = build.group(
        "detector",
        "ssd",
        backbone=build.group("backbone", "resnet", depth=18, width=0.125),
        neck=build.group("neck", "residual_extras", width=0.125),
        first_ratio=0.25,
        min_ratio=0.4,
    )
    c.train.batch_size = c.eval.batch_size = 2
    c.train.steps = 1
    c.parallel.devices = 1
    return c


def from_command_line(monkeypatch, config, *arguments):
    """The config after ``--config.…`` flags, as the programs parse them."""
    values = flags.FlagValues()
    monkeypatch.setattr(sys, "argv", ["jdet", *arguments])  # where ml_collections looks for them
    config_flags.DEFINE_config_dict("config", config, flag_values=values)
    values(sys.argv)
    return values.config


def stored(config, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(config.to_json())
    return config_lib.load(path)


def test_on_error_reaches_the_sources(tmp_path):
    c = voc(tmp_path, broken="<annotation>")
    with pytest.raises(DataError, match=r"broken\.xml, line 1"):
        build.sources(c)
    c.data.on_error = "skip"
    train, _ = build.sources(c)
    assert len(train) == 4 and [(d.id, d.what) for d in train.defects] == [("broken", "skipped")]
    c.data.train = build.group(
        "source", "voc", root=str(tmp_path), splits="train", on_error="raise"
    )
    with pytest.raises(DataError, match=r"broken\.xml"):  # a group may have its own
        build.sources(c)


def test_tfds_by_name(tmp_path):
    pytest.importorskip("tensorflow_datasets", reason="the extra `tfds` is not installed")
    from tests.data.sources.test_tfds import TinyPets

    TinyPets(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    c = get_defaults()
    c.data.train = build.group(
        "source", "tfds", dataset="tiny_pets", split="train", data_dir=str(tmp_path)
    )
    source = build.source(stored(c, tmp_path).data.train, "config.data.train")
    assert len(source) == 3 and source.class_names == ("cat", "dog")
    c.data.train.classes = ("bird", "dog", "cat")
    assert build.source(c.data.train, "config.data.train").class_names == ("bird", "dog", "cat")


def test_fields_without_a_default_can_be_set_on_the_command_line(tmp_path, monkeypatch):
    c = voc(tmp_path)
    assert c.data.train.classes is None and c.data.train.year is None
    back = stored(c, tmp_path)
    assert back.to_dict() == c.to_dict()
    assert build.sources(back)[0].class_names == ("cat", "dog")  # labels.txt

    c = from_command_line(monkeypatch, c, "--config.data.train.classes=('dog','cat')")
    assert c.data.train.classes == ("dog", "cat") and c.data.eval.classes is None
    assert build.source(c.data.train, "config.data.train").class_names == ("dog", "cat")
    back = stored(c, tmp_path)
    assert back.to_dict() == c.to_dict()
    assert build.source(back.data.train, "config.data.train").class_names == ("dog", "cat")


def test_place_of_the_images_on_the_command_line(tmp_path, monkeypatch):
    file = write(tmp_path / "set", content(annotation(1)), folder="elsewhere/images")
    (tmp_path / "set" / "elsewhere").rename(tmp_path / "elsewhere")
    c = get_defaults()
    c.data.train = build.group("source", "coco", annotation_file=str(file))
    with pytest.raises(DataError, match="image_root=PATH"):
        build.source(c.data.train, "config.data.train")
    place = tmp_path / "elsewhere" / "images"
    c = from_command_line(monkeypatch, c, f"--config.data.train.image_root={place}")
    assert len(build.source(c.data.train, "config.data.train")) == 1


@pytest.fixture
def first_steps(monkeypatch):
    """Stands in for the loop: takes the workdir, asks for the stream, and is done."""

    def train(config, workdir, *, train_stream, **_):
        assert not workdir.exists()  # nothing is written there before it is known to be ours
        workdir.mkdir()
        with train_stream(0) as stream:
            next(stream)
        return SimpleNamespace(status="interrupted", config=config)

    monkeypatch.setattr(run.loop, "train", train)


@pytest.fixture
def messages(caplog):
    """What absl logs, while it is being logged."""
    caplog.set_level(logging.INFO, logger="absl")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("holdout", [0, 4])
def test_defects_are_told_and_kept(tmp_path, messages, first_steps, holdout):
    outside = annotation_xml(*[object_xml(box=(60 + i, 1, 90, 20)) for i in range(14)])
    c = tiny(voc(tmp_path / "data", bad=outside))
    for number, path in enumerate(sorted((tmp_path / "data" / "JPEGImages").iterdir())):
        path.write_bytes(path.read_bytes() + bytes([number]))  # no copies of each other
    c.data.holdout = holdout
    run.train(c, tmp_path / "run")
    lines = (tmp_path / "run" / "defects.txt").read_text().splitlines()
    assert len(lines) == 14
    role, id, what, detail = lines[0].split("\t")
    assert (id, what) == ("bad", "clipped") and detail == "cat 60, 1, 90, 20 in 64x50"
    shown = [m for m in messages() if m.startswith(f"{role} data: bad: ")]
    assert len(shown) == 10 and shown[0] == f"{role} data: bad: clipped: {detail}"
    assert f"{role} data: 4 more; defects.txt of the workdir has all" in messages()
    repeated = [
        m for m in messages() if m.startswith("1 of 1 images for evaluation are images of the")
    ]
    assert len(repeated) == (holdout == 0)


def test_frozen_parameters_are_announced(tmp_path, messages, first_steps):
    c = tiny(voc(tmp_path / "data"))
    run.train(c, tmp_path / "free")
    (free,) = (m for m in messages() if m.startswith("model: "))
    assert free.endswith("random initialisation, nothing pre-trained, nothing frozen")
    c.optimizer.rules = ((".*", 0.0, 0.0),)
    c.init_from.random_frozen = "allow"
    run.train(c, tmp_path / "still")
    still = [m for m in messages() if m.startswith("model: ")][-1]
    total = re.search(r"([\d,]+) trainable", free).group(1)
    assert " 0 trainable parameters" in still
    assert still.endswith(f"{total} parameters by config.optimizer.rules frozen")
    c.optimizer.rules, c.model.norm, c.model.head_norm = (), "affine_batch", "frozen_batch"
    run.train(c, tmp_path / "norms")
    norms = [m for m in messages() if m.startswith("model: ")][-1]
    assert norms.endswith("statistics of config.model.norm and config.model.head_norm frozen")


class NeedsImages:
    """An evaluator whose numbers exist once it has seen an image."""

    def __init__(self, class_names):
        self.sizes = []

    def add(self, detections, ground_truth):
        self.sizes.append(len(detections.scores))

    def result(self):
        return {"mean": sum(self.sizes) / len(self.sizes)}


def test_evaluators_are_asked_for_names_only_where_one_is_to_be_the_best(tmp_path, first_steps):
    c = tiny(voc(tmp_path / "data"))
    c.eval.metrics = (f"{__name__}:NeedsImages",)
    run.train(c, tmp_path / "run")
    c.train.best_metric = "mean"
    with pytest.raises(ZeroDivisionError):
        run.train(c, tmp_path / "best")
    c.eval.metrics, c.train.best_metric = ("voc",), "mean"
    with pytest.raises(ConfigError, match="train.best_metric='mean' is no metric"):
        run.train(c, tmp_path / "best")


def test_category_ids_are_the_data_sets(tmp_path, first_steps):
    file = write(tmp_path, content(*(annotation(i, image_id=i) for i in (1, 2)), images=(1, 2)))
    c = tiny(get_defaults())
    for role in ("train", "eval"):
        c.data[role] = build.group("source", "coco", annotation_file=str(file))
    config = run.train(c, tmp_path / "run").config
    assert config.class_names == ("dog", "cat") and config.category_ids == (1, 3)
    assert c.category_ids == ()
    assert not (tmp_path / "run" / "defects.txt").exists()
    c.category_ids = (1, 2)
    with pytest.raises(ConfigError, match=r"category_ids=\(1, 2\) does not fit .*\(1, 3\)"):
        run.train(c, tmp_path / "run")


def test_category_ids_of_data_that_have_none(tmp_path):
    c = voc(tmp_path)
    train, _ = build.sources(c)
    c.class_names = train.class_names
    assert build.category_ids(c, train) == (1, 2)
    c.category_ids = (5, 9)
    assert build.category_ids(c, train) == (5, 9)


def test_multi_scale_passes_from_the_command_line(monkeypatch):
    config = from_command_line(
        monkeypatch,
        get_defaults(),
        "--config.eval.tta.preset=custom",
        "--config.eval.tta.passes=((1.5, 1.0, True, 0, 64), (0.5, 0.5, False, 8, 0))",
    )
    first, second = tta.settings(config.eval.tta).passes
    assert first == (1.5, 1.0, True, 0, 64) and second == (0.5, 0.5, False, 8, 0)
