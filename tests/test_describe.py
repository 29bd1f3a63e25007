"""Published parameter counts, to the unit, and multiply-accumulates within one per cent."""

from unittest import mock

import jax
import jax.numpy as jnp
import pytest

from experiments import (
    dsod_ablation,
    retinanet_coco,
    scratchdet512_coco,
    ssd300_voc,
    ssd300s_resnet101_voc,
    transformers_table2,
    transformers_table5,
)
from jdet import build
from jdet.config import get_defaults, validate
from jdet.describe import describe, parse_shape, to_json
from jdet.detectors import sparse_rcnn
from jdet.preflight.mmcv_flops import mmcv_flops
from jdet.train import state
from jdet.types import ConfigError
from tests import harness

VGG = dict(name="vgg16")
RESNET = dict(name="resnet", depth=18)
ROOT18 = dict(name="root_resnet", depth=18)
ROOT34 = dict(name="root_resnet", depth=34)
S, R = dict(name="ssd_extras"), dict(name="residual_extras")
CAFFE = dict(block="preact", tap="branch")
ROOT18_CAFFE, ROOT34_CAFFE = ROOT18 | CAFFE, ROOT34 | CAFFE | dict(norm_first=False)
S_NORM = S | dict(norm_first=True)
R_CAFFE, R_MMDET = R | CAFFE | dict(release="caffe"), R | dict(release="mmdetection")
BOXES = {"caffe": 8892, "mmdetection": 8764}

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
    (ROOT34_CAFFE, R_CAFFE, "batch", "none", {}, 24_553_262, 1_498_350, 33.32, 28_149_302, None),
    (ROOT34, R_MMDET, "batch", "batch", {}, 24_573_212, 1_499_100, 33.31, 28_171_052, 34.76),
    (ROOT18_CAFFE, S_NORM, "batch", "batch", {}, 15_992_220, 2_420_700, 19.96, 21_801_900, None),
]  # fmt: skip


def config(backbone, neck, norm, head_norm, fields):
    c = get_defaults()
    c.model = build.group(
        "detector",
        "ssd",
        backbone=build.group("backbone", **backbone),
        neck=build.group("neck", **neck),
        norm=norm,
        head_norm=head_norm,
        **fields,
    )
    return c


def names(classes):
    return tuple(map(str, range(classes)))


def count(c, classes):
    """Parameters and statistics of the whole and parameters of the head, without tracing a detection."""
    params, stats = state.abstract_variables(build.detector(c, names(classes)), c)
    return tuple(state.count_parameters(tree) for tree in (params, stats, params.get("head", {})))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(map(str, row[0].values())))
def test_published_numbers(row):
    *model, parameters, head, gmacs, coco_parameters, coco_gmacs = row
    c = config(*model)
    for classes, total, macs in ((20, parameters, gmacs), (80, coco_parameters, coco_gmacs)):
        if macs:
            found = describe(c, names(classes))
            assert found.parameters == total
            assert found.macs / 1e9 == pytest.approx(macs, rel=0.01)
            of_head = {row.path: row.parameters for row in found.rows}["head"]
        elif total:
            whole, _, of_head = count(c, classes)
            assert whole == total
        assert classes == 80 or of_head == (head or of_head)
    levels = build.detector(c, names(20)).anchors((300, 300))
    boxes = BOXES.get(model[1].get("release"), 8732)
    assert sum(level.boxes for level in levels) == boxes


@pytest.mark.parametrize(
    "arg, parameters, head, gmacs, boxes",
    [
        harness.thorough("", 52_706_169, 5_876_025, 19.90, 7308),
        ("ssd321", 116_526_320, None, 35.93, 17080),
    ],
)
def test_published_numbers_of_resnet101(arg, parameters, head, gmacs, boxes):
    found = describe(ssd300s_resnet101_voc.get_config(arg), names(20))
    assert found.parameters == parameters
    by_path = {row.path: row for row in found.rows}
    assert head in (None, by_path["head"].parameters)
    assert found.macs / 1e9 == pytest.approx(gmacs, rel=0.01)
    assert sum(level["boxes"] for level in found.levels) == boxes
    sizes = {"": [38, 19, 10, 5, 3, 1], "ssd321": [40, 20, 10, 5, 3, 1]}
    assert [level["map"] for level in found.levels] == [[n, n] for n in sizes[arg]]


@pytest.mark.parametrize("module", [ssd300_voc, scratchdet512_coco])
def test_levels_and_boxes_at_512(module):
    config = module.get_config("size=512" if module is ssd300_voc else "")
    found = describe(config, names(20))
    assert [level["map"] for level in found.levels] == [[n, n] for n in (64, 32, 16, 8, 4, 2, 1)]
    assert [level["step"] for level in found.levels] == [8, 16, 32, 64, 128, 256, 512]
    assert [level["boxes_per_location"] for level in found.levels] == [4, 6, 6, 6, 6, 4, 4]
    assert sum(level["boxes"] for level in found.levels) == 24_564
    percent = (7, 15, 30, 45, 60, 75, 90) if module is ssd300_voc else (4, 10, 26, 42, 58, 74, 90)
    assert [level["sizes"][0] for level in found.levels] == [512 * p // 100 for p in percent]


# Arguments of experiments/dsod_ablation.py, 20 classes: trainable, with running statistics, GMAC.
DSOD_ROWS = [
    harness.thorough("row=1", 4_098_492, 4_110_440, 0.73),
    harness.thorough("row=2", 4_173_476, 4_188_800, 0.76),
    harness.thorough("row=3", 5_415_916, 5_440_952, 1.46),
    harness.thorough("row=4", 6_055_516, 6_083_672, 2.19),
    harness.thorough("row=5", 6_290_236, 6_320_696, 2.56),
    ("row=6", 17_904_252, 17_976_760, 12.80),
    ("row=7", 5_719_756, 5_748_376, None),
    ("row=7,base=0,last_scale=1x1", 6_088_652, None, None),
    ("row=8", 12_456_876, 12_521_304, None),
    ("row=8,base=0,last_scale=1x1", 13_145_260, None, None),
    ("row=9", 18_104_700, 18_178_488, 15.66),
    harness.thorough("row=9,base=0,last_scale=1x1", 19_032_700, None, 16.41),
    ("row=10", 5_833_372, 5_872_280, 5.30),
    ("row=11", 14_715_804, 14_795_736, 15.08),
    ("row=11,last_scale=1x1", 14_715_804, 14_795_736, 15.08),
    ("row=lite", None, 10_600_800, None),
]  # fmt: skip


@pytest.mark.parametrize("arg, parameters, total, gmacs", DSOD_ROWS, ids=lambda value: str(value))
def test_published_numbers_of_dsod(arg, parameters, total, gmacs):
    config = dsod_ablation.get_config(arg)
    validate(config)
    if gmacs:
        found = describe(config, names(20))
        counts = found.parameters, found.statistics
        assert found.macs / 1e9 == pytest.approx(gmacs, rel=0.01)
    else:
        counts = count(config, 20)[:2]
    assert parameters in (None, counts[0]) and total in (None, sum(counts))
    last = 1 if "1x1" in arg else 2
    levels = build.detector(config, names(20)).anchors((300, 300))
    assert [found.cells for found in levels] == [(n, n) for n in (38, 19, 10, 5, 3, last)]
    assert [found.level.step for found in levels] == [8, 16, 32, 64, 100, 300]
    assert sum(found.boxes for found in levels) == (8732 if last == 1 else 8744)


def test_published_numbers_of_dsod_on_coco():
    found = describe(dsod_ablation.get_config("row=11"), names(80))
    assert found.parameters == 21_700_524
    assert found.parameters + found.statistics == 21_784_056  # the released file has 87.1 MB
    assert found.macs / 1e9 == pytest.approx(18.37, rel=0.01)


def test_head_of_dsod_with_its_scales():
    config = dsod_ablation.get_config("row=11")
    params, _ = state.abstract_variables(build.detector(config, names(20)), config)
    head = {part: tree for part, tree in params.items() if part not in ("backbone", "neck")}
    assert state.count_parameters(head) == 2_912_892


def test_modules_add_up_and_json_says_the_same():
    found = describe(config(*ROWS[18][:5]), names(20))
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
    assert data["anchors"] == 8732
    # 2 numbers, mean and variance, for every normalised channel, as for scale and bias.
    scales = [r.statistics for r in found.rows if r.path.split("/")[-1].endswith("norm")]
    assert sum(scales) == found.statistics


def test_describing_computes_nothing():
    before = jax.live_arrays()
    describe(config(*ROWS[17][:5]), names(20))
    assert len(jax.live_arrays()) <= len(before) + 2  # keys, not weights


def test_shapes():
    """The config's largest, or any other that the detector takes."""
    config = retinanet_coco.get_config("depth=18,size=96,norm=batch")
    found = describe(config, ("a",))
    assert found.shape == (96, 160) and to_json(found)["shape"] == [96, 160]
    assert [level["map"] for level in found.levels][:2] == [[12, 20], [6, 10]]
    other = describe(config, ("a",), (64, 200))
    assert [level["map"] for level in other.levels][:2] == [[8, 25], [4, 13]]
    assert sum(level["boxes"] for level in other.levels) == 9 * (200 + 52 + 14 + 4 + 2)
    assert other.macs < found.macs and other.parameters == found.parameters
    small = describe(ssd300_voc.get_config(""), ("a",), (180, 200))  # the coarsest level is gone
    assert [level["map"] for level in small.levels] == [[23, 25], [12, 13], [6, 7], [3, 4], [1, 2]]
    with pytest.raises(ConfigError, match="images of 3×500 pixels leave no level"):
        describe(dsod_ablation.get_config("row=2"), ("a",), (3, 500))
    for text in ("800", "800x", "0x20", "axb"):
        with pytest.raises(ConfigError, match=f"--shape={text}; give height and width"):
            parse_shape(text)
    assert (parse_shape("800x1280"), parse_shape("")) == ((800, 1280), None)


# FCOS as first published and Faster R-CNN, 80 classes on 1280×800: parameters, "FLOPs" as papers count
# them, the same with the products of attention; ATSS has as many as FCOS (Table 5: 214.7 with Swin-T).
HYBRID_ROWS = [
    ("fcos", "swin_t", 35_734_356, 211.55, 214.7),
    harness.thorough("fcos", "c2c2t6t2", 34_667_090, 187.16, None),
    ("faster_rcnn", "c2c2t12t4", 68_926_672, 246.30, 248.8),
]


@pytest.mark.parametrize("name, backbone, parameters, flops, with_attention", HYBRID_ROWS)
def test_published_numbers_of_hybrids(name, backbone, parameters, flops, with_attention):
    found = counted(
        transformers_table2.get_config(f"detector={name},backbone={backbone}"), parameters
    )
    assert round(found.total / 1e9, 2) == flops
    if with_attention:
        assert round((found.total + found.attention) / 1e9, 1) == with_attention


# Sparse R-CNN with 300 proposals, products of the backbone's attention, without norms and ReLUs of the
# heads. Table 5 prints 166G, 172G and, for a backbone that is none of its own, 170G.
SPARSE_ROWS = [
    ("resnet50", 106_342_888, 165.9),
    harness.thorough("swin_t", 109_741_154, 172.6),
    harness.thorough("c2c2t12t4", 133_516_504, 207.6),
]


def no_regions(levels, rois, *, output, **settings):
    """In place of RoIAlign, which is free by MMCV's rules and takes long to trace."""
    return jnp.zeros((*rois.shape[:2], output, output, levels[0].shape[-1]))


@pytest.mark.parametrize("backbone, parameters, flops", SPARSE_ROWS)
def test_published_numbers_of_sparse_rcnn(backbone, parameters, flops):
    c = transformers_table5.get_config(f"detector=sparse_rcnn,backbone={backbone}")
    with mock.patch.object(sparse_rcnn, "roi_align", no_regions):
        found = counted(c, parameters)
    dynamic = 3 * 49 * (64 + 256) + 3 * 256
    others = 2 * 256 * 3 + 3 * 256 * 4 + 2048
    heads = 6 * 300 * (dynamic + others)
    assert round((found.total + found.attention - heads) / 1e9, 1) == flops


def counted(config, parameters):
    """What MMCV counts of a detector of 80 classes, with its parameters held against ``parameters``."""
    detector = build.detector(config, names(80))
    params, stats = state.abstract_variables(detector, config)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == parameters
    return mmcv_flops(detector, state.variables(params, stats), (1280, 800))
