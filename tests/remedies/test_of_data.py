"""What messages about images, masks, phases, the search for a batch and calibration tell to do, done."""

import ast
import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jdet import build, search_batch
from jdet import config as config_lib
from jdet.config import complete_phase, get_defaults, split_phases
from jdet.data.readers.decoder import Decoder
from jdet.preflight import batch_search
from jdet.train.init import calibrate
from jdet.types import ConfigError, DataError
from tests.data.readers.files import SIDE, by_opencv, coco, npy, values
from tests.test_phases import config as phased

CLEAR = values("uint8", 4)
LOW = values("uint8", 1).astype(np.uint16)


def typed(message):
    """Key and value of every ``--config.data.image.key=value``, each a remedy of its own."""
    found = re.findall(r"--config\.data\.image\.(\w+)=('\([^)]*\)'|\w+)", message)
    return [(key, ast.literal_eval(x.strip("'")) if x[0] in "'TF" else x) for key, x in found]


@pytest.mark.parametrize(
    "data, settings, remedies",
    [
        (npy(values("uint8", 5)), dict(channels="rgb"), ["channels", "bands"]),
        (npy(values("uint8", 2)), dict(channels="rgb"), ["channels"]),
        (npy(values("uint16", 3)), dict(channels="rgb", dtype="uint8"), ["dtype", "high_byte"]),
        (npy(np.float32(values("uint8", 1)) / 7), dict(dtype="uint16"), ["dtype"]),
        (by_opencv(".png", CLEAR), dict(channels="rgb", alpha="refuse"), ["alpha", "channels"]),
    ],
)
def test_an_image_that_is_refused_is_read_by_each_remedy(tmp_path, data, settings, remedies):
    def read(number, **given):
        source = coco(tmp_path / str(number), {"a.dat": data}, **given)
        return Decoder.of(source)(source[0].image)

    with pytest.raises(DataError) as error:
        read(0, **settings)
    found = typed(str(error.value))
    assert [key for key, _ in found] == remedies
    for number, (key, value) in enumerate(found, 1):
        assert read(number, **{**settings, key: value}).shape[:2] == (SIDE, SIDE)


@pytest.mark.parametrize(
    "image, settings",
    [
        (values("uint8", 1), dict(channels="rgb")),
        (LOW, {}),
        (LOW * 257, {}),
        (LOW * 257, dict(dtype="uint16")),
    ],
)
def test_what_is_told_of_a_set_is_gone_by_its_remedy(tmp_path, image, settings):
    def notes(folder, **given):
        return coco(
            tmp_path / folder, {"a.png": by_opencv(".png", image)}, **given
        ).image_survey.notes

    (note,) = notes("before", **settings)
    ((key, value),) = typed(note)
    settings = {**settings, key: value} | ({"dtype": "auto"} if key == "high_byte" else {})
    assert not [one for one in notes("after", **settings) if "--config" in one]


def test_keys_of_phases():
    each = {name: dict(train=dict(steps=4)) for name in ("low", "high")}
    c = phased(groups=each)
    with pytest.raises(ConfigError) as error:
        config_lib.check_common(c, "train.steps")
    keys = re.findall(r"--config\.(phase\.\w+\.train\.steps)", str(error.value))
    assert len(keys) == 2
    for key in keys:
        complete_phase(c, key)
        _, name, group, leaf = key.split(".")
        c.phase[name][group][leaf] = 9
    assert [phase.config.train.steps for phase in split_phases(c)] == [9, 9]


def test_the_search_for_a_batch():
    with pytest.raises(ConfigError, match="such as 11GB or 900MB, or auto"):
        batch_search.parse_memory("11")
    assert [batch_search.parse_memory(x) for x in ("11GB", "900MB", "auto")] == [11e9, 9e8, 0]
    with pytest.raises(ConfigError, match="--sizes=a; give whole numbers, such as 224,448"):
        search_batch.numbers("a", "sizes")
    assert search_batch.numbers("224,448", "sizes") == (224, 448)

    def search(**given):
        options = {"sides": (64,), "batches": (8,), **given}
        return batch_search.search(lambda side, batch: 1e6 * batch * side**2, 4e10, **options)

    assert search(batches=(1,)).frontier
    with pytest.raises(ConfigError, match="multiple of 32, .*; take 96$"):
        search(sides=(100,))
    assert search(sides=(96,), batches=(1,)).frontier
    with pytest.raises(ConfigError, match="such as 2,4,8"):
        search(batches=(0,))
    assert search(batches=(2, 4, 8)).frontier
    with pytest.raises(ConfigError, match="take smaller --sizes or --batches"):
        search(sides=(224,), batches=(1,))
    assert search(sides=(160,), batches=(1,)).frontier
    c = get_defaults()
    c.resize = build.group("resize", "keep_ratio", short=(64,), long=96)
    with pytest.raises(ConfigError, match="search with 'fit_crop' or 'warp'"):
        search_batch.resized(c, (64, 2), 1, "none")
    for name in ("fit_crop", "warp"):
        c.resize = build.group("resize", name)
        assert search_batch.resized(c, (64, 2), 1, "none").input_size == 64


def test_layers_to_calibrate():
    c = get_defaults()
    c.model = build.group("detector", "tests.own_detector:GridDetector")
    detector = SimpleNamespace(parts={}, head_layout=lambda: None)
    params = {"stem": {"kernel": jax.ShapeDtypeStruct((3, 3), np.float32)}}
    c.calibration.scope = "backbone"
    with pytest.raises(ConfigError, match="take another, or --config.calibration.iterations=0"):
        calibrate.scope(detector, c, params)
    c.calibration.scope = "all"
    assert calibrate.scope(detector, c, params)
