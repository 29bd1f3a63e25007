"""Published parameter counts of two-stage detectors, to the unit, and multiply-accumulates."""

import jax
import pytest

from jdet import build
from jdet.config import get_defaults
from jdet.describe import describe
from jdet.train import state


def config(name, depth=50, head="2fc", norm="batch", head_norm="none", **fields):
    c = get_defaults()
    c.input_size = 800
    c.resize = build.group("resize", "keep_ratio", short=(800,), long=1333)
    masks = {"mask_head": build.group("mask_head", "fcn")} if "mask" in name else {}
    c.model = build.group(
        "detector",
        name,
        backbone=build.group("backbone", "resnet", depth=depth),
        neck=build.group("neck", "fpn", extra="pool", use_norm=norm == "group"),
        rpn=build.group("rpn", "cascade_rpn" if "cascade" in name else "rpn"),
        box_head=build.group("box_head", head, **fields),
        norm=norm,
        head_norm=head_norm,
        **masks,
    )
    return c


def names(classes):
    return tuple(map(str, range(classes)))


AGNOSTIC = dict(class_agnostic=True)
GN = dict(head="4conv1fc", norm="group", head_norm="group")


@pytest.mark.parametrize(
    "name, fields, shape, parameters, gmacs",
    [
        ("faster_rcnn", {}, (1280, 800), 41_753_056, 206.33),
        ("faster_rcnn", {}, (448, 448), 41_753_056, 51.94),
        ("faster_rcnn", dict(head="4conv1fc"), (800, 1344), 43_063_776, 330.49),
        ("cascade_rcnn", AGNOSTIC, (1280, 800), 69_394_766, 233.97),
        ("faster_rcnn", dict(depth=101), (800, 1344), 60_745_184, 295.48),
        ("mask_rcnn", dict(head="4conv1fc"), (1280, 800), 45_707_056, 373.87),
        ("cascade_mask_rcnn", AGNOSTIC, (1280, 800), 77_324_606, 392.93),
    ],
)
def test_published_numbers(name, fields, shape, parameters, gmacs):
    found = describe(config(name, **fields), names(80), shape)
    assert found.parameters == parameters
    assert found.macs / 1e9 == pytest.approx(gmacs, rel=0.01)
    by_path = {row.path: row.parameters for row in found.rows}
    assert (by_path["neck"], by_path["rpn"]) == (3_344_384, 593_935)
    if shape == (800, 1344):
        assert sum(level["boxes"] for level in found.levels) == 268_569
        maps = [[200, 336], [100, 168], [50, 84], [25, 42], [13, 21]]
        assert [level["map"] for level in found.levels] == maps
        assert [level["sizes"] for level in found.levels] == [[32], [64], [128], [256], [512]]


@pytest.mark.parametrize(
    "name, classes, fields, parameters",
    [
        ("faster_rcnn", 80, dict(depth=101, head="4conv1fc"), 62_055_904),
        ("faster_rcnn", 80, GN, 43_066_848),
        ("faster_rcnn", 80, dict(depth=101, **GN), 62_058_976),
        ("faster_rcnn", 20, {}, 41_445_556),
        ("faster_rcnn", 20, dict(head="4conv1fc"), 42_756_276),
        ("cascade_rcnn", 80, dict(depth=101, **AGNOSTIC), 88_386_894),
        ("mask_rcnn", 80, {}, 44_396_336),
        ("mask_rcnn", 80, GN, 45_711_152),
        ("mask_rcnn", 80, dict(depth=101, **GN), 64_703_280),
        ("cascade_mask_rcnn", 80, dict(head="4conv1fc"), 82_228_466),
        ("cascade_mask_rcnn", 80, dict(depth=101, **AGNOSTIC), 96_316_734),
    ],
)
def test_published_parameters(name, classes, fields, parameters):
    c = config(name, **fields)
    c.input_size = 64
    params, _ = state.abstract_variables(build.detector(c, names(classes)), c)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == parameters
