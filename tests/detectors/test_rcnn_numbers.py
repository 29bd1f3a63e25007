"""Published parameter counts of two-stage detectors, to the unit, and multiply-accumulates."""

import functools

import jax
import jax.numpy as jnp
import pytest

from jdet import build
from jdet.config import get_defaults
from jdet.describe import describe
from tests import harness


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
        harness.thorough("faster_rcnn", {}, (800, 1344), 41_753_056, 215.93),
        harness.thorough("mask_rcnn", dict(head="4conv1fc"), (448, 448), 45_707_056, 219.48),
        ("cascade_mask_rcnn", AGNOSTIC, (1280, 800), 77_324_606, 392.93),
    ],
)
def test_published_numbers(name, fields, shape, parameters, gmacs):
    """Of layers; products of RoIAlign, which belong to none, are some more."""
    found = describe(config(name, **fields), names(80), shape)
    assert found.parameters == parameters
    layers = sum(row.macs for row in found.rows if row.path and "/" not in row.path)
    assert layers / 1e9 == pytest.approx(gmacs, rel=0.001)
    assert layers < found.macs < 1.02 * layers
    by_path = {row.path: row.parameters for row in found.rows}
    assert (by_path["neck"], by_path["rpn"]) == (3_344_384, 593_935)
    if shape == (800, 1344):
        assert sum(level["boxes"] for level in found.levels) == 268_569
        maps = [[200, 336], [100, 168], [50, 84], [25, 42], [13, 21]]
        assert [level["map"] for level in found.levels] == maps
        assert [level["sizes"] for level in found.levels] == [[32], [64], [128], [256], [512]]


STAGES = tuple((f"c{i}", (1, 8, 8, 64 << i)) for i in range(2, 6))
"""Name and shape of what a ResNet of bottlenecks gives the pyramid."""


@functools.cache
def count(module, *shapes):
    """Parameters of a part for arrays of these shapes, or for named ones."""
    arrays = [jnp.zeros(shape) for shape in shapes if shape not in STAGES]
    arrays += [{name: jnp.zeros(shape) for name, shape in STAGES}] if STAGES[0] in shapes else []
    made = jax.eval_shape(lambda: module.init(jax.random.key(0), *arrays, train=True))
    return sum(leaf.size for leaf in jax.tree.leaves(made["params"]))


@pytest.mark.parametrize(
    "name, classes, fields, r50, r101",
    [
        ("faster_rcnn", 80, {}, 41_753_056, 60_745_184),
        ("faster_rcnn", 80, dict(head="4conv1fc"), 43_063_776, 62_055_904),
        ("faster_rcnn", 80, GN, 43_066_848, 62_058_976),
        ("mask_rcnn", 80, {}, 44_396_336, 63_388_464),
        ("mask_rcnn", 80, dict(head="4conv1fc"), 45_707_056, 64_699_184),
        ("mask_rcnn", 80, GN, 45_711_152, 64_703_280),
        ("cascade_rcnn", 80, AGNOSTIC, 69_394_766, 88_386_894),
        ("cascade_mask_rcnn", 80, AGNOSTIC, 77_324_606, 96_316_734),
        ("cascade_mask_rcnn", 80, dict(head="4conv1fc"), 82_228_466, 101_220_594),
        ("faster_rcnn", 20, {}, 41_445_556, None),
        ("faster_rcnn", 20, dict(head="4conv1fc"), 42_756_276, None),
    ],
)
def test_published_parameters(name, classes, fields, r50, r101):
    """The sum of the parts, with as many heads as there are stages."""
    for depth, expected in ((50, r50), (101, r101)):
        model = build.detector(config(name, depth=depth, **fields), names(classes))
        rois = (1, 1, model.roi_size, model.roi_size, 256), (1, 1)
        heads = count(model.box_head, *rois)
        if "mask" in name:
            heads += count(model.mask_head, *rois)
        body = count(model.backbone, (1, 64, 64, 3)) + count(model.neck, *STAGES)
        total = body + 593_935 + len(model.stages) * heads
        assert expected in (None, total)


def test_heads_of_the_transformer_study():
    """Norms in the box heads alone: 85,629,804 parameters with Swin-T, of which 30,844,617 come before."""
    fields = dict(head="4conv1fc", head_norm="sync_batch")
    c = config("cascade_mask_rcnn", depth=50, **fields)
    c.model.mask_head.use_norm = False
    model = build.detector(c, names(80))
    rois = (1, 1, 7, 7, 256), (1, 1)
    heads = count(model.box_head, *rois), count(model.mask_head, *rois)
    assert heads == (15_618_449, 2_643_280)
    assert not model.mask_head.scale_invariant and len(model.box_head.scale_invariant) == 4
    assert 27_520_698 + 2_729_984 + 593_935 + 3 * sum(heads) == 85_629_804
