"""Remedies of resizes, augmentations, multi-scale testing and drawings."""

import dataclasses
import functools
import re
from types import SimpleNamespace

from jdet.build.groups import make
from jdet.config import get_defaults, validate
from jdet.evaluation import multi_scale, tta
from jdet.evaluation.display import Display
from jdet.evaluation.tiling import Tiling
from tests.data.transforms.test_own_resize import Jitter
from tests.evaluation import records
from tests.remedies.rows import Elsewhere, of_config, row, type_in

HYBRID, DSOD, TTA = "jdet/backbones/hybrid.py", "jdet/backbones/dsod.py", "jdet/evaluation/tta.py"

MULTI, ANCHORS = "jdet/evaluation/multi_scale.py", "jdet/ops/anchors.py"

TILING = "jdet/evaluation/tiling.py"

KEEP, TORCH = "jdet/data/transforms/keep_ratio.py", "jdet/interop/torchvision.py"

INPUT = {"input_size": 64}


def passes(config):
    return tta.settings(config.eval.tta.to_dict()) and None


ONE_PASS = ((1.0, 1.0, True, 0, 0),)


def one_pass(*values):
    return {"eval__tta__preset": "custom", "eval__tta__passes": (values,)}


def several(resize, any_size=True, **given):
    settings = {**get_defaults().eval.tta.to_dict(), **given}
    detector = type("Detector", (), {"any_input_size": any_size})()
    detect = SimpleNamespace(detector=detector, processes=1)
    if options := tta.settings(settings):
        multi_scale.MultiScale(detect, options, resize)


def resize(name, **fields):
    return make("resize", {"name": name, **fields}, "config.resize", **INPUT)


def shown(name, **given):
    several(resize(name), **given)


def own(preset, passes, scaled=False):
    several((Scaled if scaled else Jitter)(64), preset=preset, passes=passes)


@dataclasses.dataclass(frozen=True)
class Scaled(Jitter):
    """A resize of one's own at several sizes."""

    def scaled(self, factor):
        return dataclasses.replace(self, input_size=round(factor * self.input_size))


def augmented(augment, shape, **fields):
    made = make("augment", {"name": augment, **fields}, "config.augment")
    made.operations(resize(shape))


def drawn(bands):
    Display(bands=bands).check(3)


def drawn_as_typed(typed):
    config = get_defaults()
    config.eval.drawn_bands = (7,)
    if typed:
        type_in(config, "--config.eval.drawn_bands='()'")
    drawn(config.eval.drawn_bands)


class Long:
    """One image of 3,000 pixels with a long object."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return records.example("a", [[10, 10, 10 + self.length, 19]], [0])

    def image_size(self, index):
        return 3000, 3000


def tiled(typed, side=100, overlap=40, length=90):
    config, source = get_defaults(), Long(length)
    config.eval.tile.side, config.eval.tile.overlap = side, overlap
    said = Tiling.of(config.eval.tile).warning(source)
    if not typed:
        return said
    type_in(config, " ".join(re.findall(r"--config\S+=\d+", said)))
    validate(config)
    return Tiling.of(config.eval.tile).warning(source)


ROWS = [
    row(TILING, "has room for all", tiled, {"typed": False}, {"typed": True}),
    row(
        TILING,
        "has room for all",
        functools.partial(tiled, side=1024, overlap=64, length=60),
        {"typed": False},
        {"typed": True},
    ),
    of_config(
        TTA,
        "set the preset to 'custom', or leave the passes out",
        passes,
        {"eval__tta__passes": ONE_PASS},
        {"eval__tta__preset": "custom"},
        {"eval__tta__passes": ()},
    ),
    of_config(
        TTA,
        "needs config.eval.tta.passes, such as",
        passes,
        {"eval__tta__preset": "custom"},
        {"eval__tta__passes": ONE_PASS},
    ),
    of_config(
        TTA,
        "above, below), such as (1.2, 1.2",
        passes,
        one_pass(1.2),
        one_pass(1.2, 1.2, True, 0, 160),
    ),
    of_config(
        TTA,
        "must lie in 0 < short <= long <= 16",
        passes,
        one_pass(1.0, 2.0, True, 0, 0),
        one_pass(2.0, 1.0, True, 0, 0),
    ),
    of_config(
        TTA,
        "above must be the smaller one, and 0 is no limit",
        passes,
        one_pass(1.0, 1.0, True, 90, 9),
        one_pass(1.0, 1.0, True, 9, 90),
        one_pass(1.0, 1.0, True, 90, 0),
    ),
    row(
        MULTI,
        "set config.eval.tta.preset='none'",
        functools.partial(shown, "warp"),
        {"preset": "flip", "any_size": False},
        {"preset": "none"},
    ),
    row(
        MULTI,
        "use the preset 'flip', or 'custom' with passes",
        functools.partial(shown, "keep_ratio"),
        {"preset": "custom", "passes": ((2.0, 1.0, True, 0, 0),)},
        {"preset": "flip", "passes": ()},
        {"passes": ((2.0, 2.0, True, 0, 0),)},
    ),
    Elsewhere(
        MULTI,
        "lower the batch size (config.eval.batch_size",
        "tests/evaluation/test_multi_scale.py::test_too_little_memory_is_said_before_running",
        "lower the batch size",
    ),
    row(
        KEEP,
        "take factors of at most {}",
        functools.partial(shown, "keep_ratio"),
        {"preset": "custom", "passes": ((16.0, 16.0, True, 0, 0),)},
        {"passes": ((3.0, 3.0, True, 0, 0),)},
    ),
    row(
        KEEP,
        "such as ((800, 1344), (1344, 800))",
        functools.partial(resize, "keep_ratio"),
        {"shapes": ((800,),)},
        {"shapes": ((800, 1344), (1344, 800))},
    ),
    row(
        "jdet/data/transforms/resize.py",
        "define {}.scaled(factor), or set",
        own,
        {"preset": "custom", "passes": ((2.0, 2.0, True, 0, 0),)},
        {"preset": "flip", "passes": ()},
        {"scaled": True},
    ),
    row(
        "jdet/data/transforms/fit_crop.py",
        "with config.resize.name='fit_crop', such as",
        lambda side: make("resize", {"name": "fit_crop"}, "config.resize", input_size=side),
        {"side": 300},
        {"side": 288},
    ),
    row(
        "jdet/data/transforms/detr.py",
        "such as (400, 500, 600)",
        functools.partial(augmented, "detr", "keep_ratio"),
        {"short": ()},
        {"short": (400, 500, 600)},
    ),
    row(
        "jdet/data/transforms/detr.py",
        "take config.resize.name='keep_ratio', or config.augment.name='ssd'",
        augmented,
        {"augment": "detr", "shape": "fit_crop"},
        {"shape": "keep_ratio"},
        {"augment": "ssd"},
    ),
    row(
        "jdet/data/transforms/large_scale_jitter.py",
        "with one length in config.resize.short, or config.augment.name='ssd'",
        augmented,
        {"augment": "lsj", "shape": "fit_crop"},
        {"shape": "keep_ratio"},
        {"augment": "ssd"},
    ),
    row(
        "jdet/data/transforms/ssd.py",
        "set it to 0, or config.resize.name='warp'",
        functools.partial(augmented, "ssd"),
        {"shape": "keep_ratio", "rotate": 0.5},
        {"rotate": 0.0},
        {"shape": "warp"},
    ),
    row(
        "jdet/evaluation/display.py",
        "such as (1.0, 99.0)",
        lambda given: Display(percentiles=given),
        {"given": (99.0, 1.0)},
        {"given": (1.0, 99.0)},
    ),
    row(
        "jdet/evaluation/display.py",
        "--config.eval.drawn_bands='()' shows the first",
        drawn_as_typed,
        {"typed": False},
        {"typed": True},
    ),
]
