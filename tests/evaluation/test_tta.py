"""Settings of multi-scale testing: presets, passes and what is refused."""

import pytest

from jdet.config import get_defaults, validate
from jdet.data.transforms.warp import Warp
from jdet.evaluation import tta
from jdet.evaluation.detect import DetectFn
from jdet.evaluation.multi_scale import MultiScale
from jdet.types import ConfigError
from tests.evaluation.pixel_detector import AnySize, PixelDetector


def options(**values):
    return {**get_defaults().eval.tta.to_dict(), **values}


def custom(*passes, **values):
    found = tta.settings(options(preset="custom", passes=passes, **values))
    assert found is not None
    return found


def test_presets_are_the_published_passes():
    voc, coco = (tta.settings(options(preset=name)) for name in ("voc", "coco"))
    table = {  # factor: keep sides above, below
        (1.0, 1.0): (0, 0),
        (1.0, 0.6): (0, 0),
        (0.6, 0.6): (32, 0),
        (1.2, 1.2): (0, 160),
        (1.4, 1.4): (0, 128),
        (1.6, 1.6): (0, 96),
        (1.8, 1.8): (0, 64),
        (2.0, 2.0): (0, 48),
        (2.2, 2.2): (0, 32),
    }
    for found, merge in ((voc, "voting"), (coco, "soft_voting")):
        assert all(one.flip for one in found.passes)
        passes = {one[:2]: one[3:] for one in found.passes}
        expected = dict(table)
        if found is voc:
            del expected[2.0, 2.0]
        assert passes == expected and list(passes) == list(expected)
        assert found[1:] == (merge, 0.45, 1.0, 0.01, 0)
    views = [view.shape for view in MultiScale(DetectFn(AnySize()), voc, Warp(300)).views]
    assert views[:3] == [(300, 300), (180, 300), (300, 180)]
    assert [v[0] for v in views[3:]] == [180, 360, 420, 480, 540, 660]
    config = get_defaults()
    for name in ("none", "custom", *tta.PRESETS):
        config.eval.tta.preset = name
        validate(config)


@pytest.mark.parametrize(
    "values, message",
    [
        (dict(preset="vok"), "preset='vok'.*did you mean 'voc'"),
        (dict(merge="vote"), "merge='vote'"),
        (dict(iou_threshold=1.5), "iou_threshold=1.5"),
        (dict(preset="custom"), "needs config.eval.tta.passes"),
        (dict(preset="voc", passes=((1, 1, True, 0, 0),)), "preset='voc' has its own"),
        (dict(passes=((0, 0, True, 0, 0),)), r"passes\[0\].*0 < short <= long"),
        (dict(passes=((1, -1, True, 0, 0),)), "0 < short <= long"),
        (dict(passes=((0.6, 1, True, 0, 0),)), "0 < short <= long"),
        (dict(passes=((float("nan"), 1, True, 0, 0),)), "0 < short <= long"),
        (dict(passes=((1, 1, True, 96, 32),)), "above 96 and below 32 pixels.*turned round"),
        (dict(passes=((1, 1, True, -1, 0),)), "0 for no limit"),
        (dict(passes=((1, 1, "yes", 0, 0),)), "flip is True or False"),
        (dict(passes=((1, 1, True),)), "is not .long side, short side, flip"),
        (dict(passes=(1.5,)), "is not .long side, short side, flip"),
    ],
)
def test_bad_settings_are_named(values, message):
    if "passes" in values:
        values = {"preset": "custom", **values}
    config = get_defaults()
    config.eval.tta.update(values)
    with pytest.raises(ConfigError, match=message):
        validate(config)
        tta.settings(config.eval.tta)


def test_off_by_default_and_a_detector_of_one_size_is_refused():
    assert tta.settings(options()) is None
    with pytest.raises(ConfigError, match="PixelDetector takes inputs of config.input_size only"):
        MultiScale(DetectFn(PixelDetector()), custom((1, 1, True, 0, 0)), Warp(32))
