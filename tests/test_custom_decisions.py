"""What an experiment on one's own images decides by the data, says, and lets be decided otherwise."""

import logging

import cv2
import numpy as np
import pytest

from jdet import build
from jdet.config import validate
from jdet.types import ConfigError, DataError
from tests.data.sources.test_voc import annotation_xml, make_folder, object_xml
from tests.test_custom_settings import read
from tests.test_experiments import ROOT, load


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """Thirty square images of 36 cells of 6 to 8 pixels of 512; every 16th shows a rare one."""
    root, rng = tmp_path_factory.mktemp("cells"), np.random.default_rng(0)
    texts = {}
    for i in range(30):
        places, sides = rng.integers(2, 500, (36, 2)), rng.integers(6, 9, 36)
        names = ["cell"] * 35 + ["rare" if i % 16 == 0 else "cell"]
        boxes = [(x, y, x + s, y + s) for (x, y), s in zip(places.tolist(), sides.tolist())]
        texts[f"p{i}"] = annotation_xml(*map(object_xml, names, boxes), size=(512, 512))
    make_folder(root, {"train": list(texts)[:26], "test": list(texts)[26:]}, texts)
    blank = cv2.imencode(".jpg", np.zeros((512, 512, 3), np.uint8))[1].tobytes()
    for path in (root / "JPEGImages").iterdir():
        path.write_bytes(blank)
    return root


def config(root, experiment="own_folder", arg=""):
    module = load(ROOT / "experiments" / f"{experiment}.py")
    return module.get_config(f"root={root},cpu,fit=false{arg}")


def test_everything_follows_from_the_data_and_is_said(cells, caplog):
    caplog.set_level(logging.INFO)
    c = config(cells)
    validate(c)
    build.augment(c)
    assert c.input_size == 320 and 32 < c.data.tile.side < 360 and c.eval.tile.overlap > 8
    assert c.eval.tile.side == c.data.tile.side and c.data.max_boxes <= 64
    assert (c.augment.flip, c.augment.flip_vertical, c.augment.rotate) == (0.5, 0.5, 0.5)
    assert (c.augment.crop_scale, c.augment.expand) == (0.6, 0.0)
    assert c.data.repeat_threshold == 0.1
    for line in ("size=320: ", f"tile={c.data.tile.side}: ", "zoom=little: ", "flips=all: "):
        assert line in caplog.text
    assert "balance=0.1: 1 classes are rarer, rare is in 7.7% of the images" in caplog.text
    assert "none of the 4 images for evaluation shows rare" in caplog.text


def test_every_choice_can_be_made_otherwise(cells, caplog):
    caplog.set_level(logging.INFO)
    c = config(cells, arg=",size=160,tile=none,zoom=full,flips=mirror,balance=none")
    assert (c.input_size, c.data.tile.side, c.eval.tile.side) == (160, 0, 0)
    assert (c.augment.crop_scale, c.augment.expand) == (0.3, 0.5)
    assert (c.augment.flip, c.augment.flip_vertical, c.augment.rotate) == (0.5, 0.0, 0.0)
    assert c.data.repeat_threshold == 0 and c.data.max_boxes == 64
    assert "tile=none: given" in caplog.text and "flips=mirror: given" in caplog.text
    assert not config(cells, arg=",zoom=none").augment.crop


def test_what_is_said_can_be_typed(cells, caplog):
    """The arguments with which the lines begin make the same config."""
    caplog.set_level(logging.INFO)
    c = config(cells)
    keys = ("size=", "tile=", "zoom=", "flips=", "balance=")
    said = [r.getMessage().partition(":")[0] for r in caplog.records]
    typed = [text for text in said if text.startswith(keys)]
    again = config(cells, arg="," + ",".join(typed))
    assert len(typed) == 5 and c.augment == again.augment
    assert (c.data.to_json(), c.input_size) == (again.data.to_json(), again.input_size)
    assert c.eval.tile.side == again.eval.tile.side


@pytest.mark.parametrize(
    "arg, text, typed",
    [
        (",tile=7", "give a side of 32 to 4096 pixels, tile=none or tile=auto", ",tile=none"),
        (",balance=much", "such as balance=0.1, balance=none or balance=auto", ",balance=0.1"),
        (",flips=sideways", "flips=sideways does not exist", ",flips=all"),
        (",steps=3,minutes=1", "steps=3 and minutes=1: give one of them", ",minutes=1"),
    ],
)
def test_arguments_that_make_no_sense(cells, arg, text, typed):
    with pytest.raises(ConfigError, match=text):
        config(cells, arg=arg)
    validate(config(cells, arg=typed))


@pytest.mark.parametrize("experiment", ["dense_custom", "swin_custom", "scratchdet_custom"])
def test_all_experiments_on_own_images_decide(cells, experiment, caplog):
    caplog.set_level(logging.INFO)
    c = config(cells, experiment, ",minutes=2,compile")
    validate(c)
    build.augment(c)
    assert c.augment.flip_vertical == 0.5 and c.data.tile.side and c.data.repeat_threshold
    assert c.augment.rotate == (0.5 if experiment == "scratchdet_custom" else 0)
    assert (c.train.budget.minutes, c.train.budget.counts) == (2, "all")
    assert c.train.budget.evaluations == 4
    said = "inputs that keep proportions are not turned"
    assert (said in caplog.text) == (experiment != "scratchdet_custom")


def test_phases_share_the_minutes(cells):
    c = config(cells, "direct_custom", ",minutes=8,share=0.25")
    validate(c)
    budgets = [c.phase[name].train.budget.minutes for name in c.phases]
    assert budgets == [2, 6] and not c.data.tile.side
    with pytest.raises(ConfigError, match="pre=5 and minutes=8: give one of them"):
        config(cells, "direct_custom", ",minutes=8,pre=5")
    assert config(cells, "direct_custom", ",pre=5").phase.pretrain.train.steps == 5


def one_split(root, count):
    box = object_xml()
    return make_folder(
        root, {"train": [f"p{i}" for i in range(count)]},
        {f"p{i}": annotation_xml(box, object_xml(box=(3 * i, 4, 3 * i + 9, 9))) for i in range(count)},
    )  # fmt: skip


@pytest.mark.parametrize("count", [2, 3, 5, 12])
def test_few_images_are_split_all_the_same(tmp_path, count):
    c = config(one_split(tmp_path / "set", count))
    train, evaluation = build.sources(c)
    assert len(train) and len(evaluation) and len(train) + len(evaluation) == count


def test_one_image(tmp_path, monkeypatch):
    """Nothing is left to evaluate on; by heart it can be learnt."""
    root = one_split(tmp_path / "set", 1)
    with pytest.raises(
        DataError, match=r"has 1 labelled image.* by heart: --config.data.holdout=0"
    ):
        config(root)
    typed = read(monkeypatch, root, "--config.data.holdout=0", experiment="own_folder", fit="false")
    train, evaluation = build.sources(typed)
    assert len(train) == len(evaluation) == 1
