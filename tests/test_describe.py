"""Published parameter counts, to the unit, and multiply-accumulates within one per cent."""

import jax
import pytest

from jdet import build
from jdet.config import get_defaults
from jdet.describe import describe, to_json

VGG = dict(name="vgg16")
RESNET = dict(name="resnet", depth=18)
ROOT18 = dict(name="root_resnet", depth=18)
ROOT34 = dict(name="root_resnet", depth=34)
S, R = "ssd_extras", "residual_extras"

# backbone, neck, norm, head norm, fields; 20 classes: parameters, head, GMAC; 80 classes: parameters, GMAC
ROWS = [
    (VGG, S, "none", "none", dict(l2norm_levels=1), 26_285_486, 3_341_550, 31.37, 34_305_206, 34.36),
    (VGG, S, "none", "none", {}, 26_284_974, 3_341_550, None, 34_304_694, None),
    (VGG, S, "none", "batch", {}, 26_285_724, 3_342_300, None, 34_307_244, None),
    (VGG, S, "batch", "none", {}, 26_293_166, 3_341_550, None, 34_312_886, None),
    (VGG | dict(norm_after_pool=True), S, "batch", "none", {}, 26_296_110, None, None, 34_315_830, None),
    (VGG, S, "batch", "batch", {}, 26_293_916, 3_342_300, None, 34_315_436, None),
    (RESNET, S, "batch", "batch", {}, 14_154_524, 1_959_900, 3.78, None, None),
    (ROOT18 | dict(root=1, stem_stride=2), S, "batch", "batch", {}, 14_146_844, None, 3.61, None, None),
    (ROOT18 | dict(root=2, stem_stride=2), S, "batch", "batch", {}, 14_183_836, None, 4.44, None, None),
    (ROOT18 | dict(root=3, stem_stride=2), S, "batch", "batch", {}, 14_220_828, None, 5.27, None, None),
    (RESNET | dict(pool=0), S, "batch", "batch", {}, 15_927_580, 2_420_700, 13.38, None, None),
    (RESNET | dict(stem_stride=1), S, "batch", "batch", {}, 15_927_580, 2_420_700, 14.02, None, None),
    (ROOT18 | dict(root=1), S, "batch", "batch", {}, 15_919_900, 2_420_700, 13.32, None, None),
    (ROOT18 | dict(root=2), S, "batch", "batch", {}, 15_956_892, 2_420_700, 16.64, None, None),
    (ROOT18 | dict(root=3), S, "batch", "batch", {}, 15_993_884, 2_420_700, 19.96, None, None),
    (ROOT18 | dict(root=4), S, "batch", "batch", {}, 16_030_876, 2_420_700, 23.28, None, None),
    (ROOT18 | dict(root=5), S, "batch", "batch", {}, 16_067_868, 2_420_700, 26.60, None, None),
    (ROOT18, R, "batch", "batch", {}, 14_481_692, 1_499_100, 19.81, None, None),
    (ROOT34, R, "batch", "batch", {}, 24_589_852, 1_499_100, 33.30, 28_187_692, 34.76),
    (ROOT34, R, "batch", "none", {}, 24_589_102, 1_498_350, None, 28_185_142, None),
    (ROOT34, S, "batch", "batch", {}, 26_102_044, 2_420_700, 33.45, 31_911_724, 35.04),
]  # fmt: skip


def description(backbone, neck, norm, head_norm, fields, classes):
    c = get_defaults()
    c.model = build.group(
        "detector",
        "ssd",
        backbone=build.group("backbone", **backbone),
        neck=build.group("neck", neck),
        norm=norm,
        head_norm=head_norm,
        **fields,
    )
    return describe(c, tuple(map(str, range(classes))))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(map(str, row[0].values())))
def test_published_numbers(row):
    *model, parameters, head, gmacs, coco_parameters, coco_gmacs = row
    found = description(*model, 20)
    assert found.parameters == parameters
    by_path = {row.path: row for row in found.rows}
    if head:
        assert by_path["head"].parameters == head
    if gmacs:
        assert found.macs / 1e9 == pytest.approx(gmacs, rel=0.01)
    assert sum(level["boxes"] for level in found.levels) == 8732
    if coco_parameters:
        found = description(*model, 80)
        assert found.parameters == coco_parameters
        if coco_gmacs:
            assert found.macs / 1e9 == pytest.approx(coco_gmacs, rel=0.01)


def test_modules_add_up_and_json_says_the_same():
    found = description(*ROWS[18][:5], 20)
    tops = [row for row in found.rows if "/" not in row.path]
    assert [row.path for row in tops] == ["backbone", "neck", "head"]
    for field, total in (("parameters", found.parameters), ("macs", found.macs)):
        assert sum(getattr(row, field) for row in tops) == total
    by_path = {row.path: row for row in found.rows}
    assert by_path["backbone/stem"].parameters == 75_840
    assert by_path["backbone/stem"].output == (300, 300, 64)
    assert by_path["neck"].parameters == 1_739_776
    stages = [
        r for r in found.rows if r.path.startswith("backbone/stage") and r.path.count("/") == 1
    ]
    assert sum(row.parameters for row in stages) == 21_275_136
    data = to_json(found)
    assert data["parameters"] == found.parameters and len(data["modules"]) == len(found.rows)
    assert data["default_boxes"] == 8732
    # 2 numbers, mean and variance, for every normalised channel, as for scale and bias.
    scales = [r.statistics for r in found.rows if r.path.split("/")[-1].endswith("norm")]
    assert sum(scales) == found.statistics


def test_describing_computes_nothing():
    before = jax.live_arrays()
    description(*ROWS[18][:5], 20)
    assert len(jax.live_arrays()) <= len(before) + 2  # keys, not weights
