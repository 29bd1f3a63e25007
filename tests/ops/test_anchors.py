import jax.numpy as jnp
import numpy as np
import pytest

from jdet.ops import anchors, boxes
from tests.golden import load

CELLS = (38, 19, 10, 5, 3, 1)
STRIDES = (8, 16, 32, 64, 128, 256)
SHAPES = [(n, n) for n in CELLS]
VOC = dict(first_ratio=0.10, min_ratio=0.20)
COCO = dict(first_ratio=0.07, min_ratio=0.15)


def ssd300(**ratios):
    return anchors.default_boxes(anchors.ssd_levels(300, STRIDES, CELLS, **ratios), SHAPES)


def test_voc_sizes_and_steps_are_the_published_table():
    levels = anchors.ssd_levels(300, STRIDES, CELLS, **VOC)
    assert [(x.size, x.next_size) for x in levels] == [
        (30, 60), (60, 111), (111, 162), (162, 213), (213, 264), (264, 315),
    ]  # fmt: skip
    assert [x.step for x in levels] == [8, 16, 32, 64, 100, 300]
    assert [x.boxes_per_location for x in levels] == [4, 6, 6, 6, 4, 4]


def test_coco_sizes_are_the_published_table():
    levels = anchors.ssd_levels(300, STRIDES, CELLS, **COCO)
    assert [x.size for x in levels] == [21, 45, 99, 153, 207, 261]


def test_sizes_at_512_are_those_of_either_release():
    """Caffe's ssd_coco.py for 512 keeps fractions, MMDetection's SSDAnchorGenerator truncates them."""
    released = [35.84, 76.8, 153.6, 230.4, 307.2, 384.0, 460.8, 537.6]
    for rule, expected in (("caffe", released), ("mmdetection", list(map(int, released)))):
        levels = anchors.ssd_levels(
            512, (*STRIDES, 512), (64, 32, 16, 8, 4, 2, 1), rule=rule, **COCO
        )
        sizes = [level.size for level in levels] + [levels[-1].next_size]
        np.testing.assert_allclose(sizes, expected, rtol=1e-12)
        at_300 = anchors.ssd_levels(300, STRIDES, CELLS, rule=rule, **VOC)
        np.testing.assert_allclose([x.size for x in at_300], [30, 60, 111, 162, 213, 264])
    with pytest.raises(ValueError, match="size_rule='Caffe'; it can be one of mmdetection, caffe"):
        anchors.ssd_levels(300, STRIDES, CELLS, rule="Caffe")


@pytest.mark.parametrize(
    "ratios, crossing, centres, extents",
    [(VOC, 2869, 4443.9467, 1510.4293), (COCO, 2223, 4443.9467, 1172.1980)],
)
def test_published_sums(ratios, crossing, centres, extents):
    priors = ssd300(**ratios) / 300.0
    assert priors.shape == (8732, 4)
    np.testing.assert_allclose(
        priors.sum(0, dtype=np.float64), [centres, centres, extents, extents], rtol=1e-6
    )
    corners = np.concatenate(
        [priors[:, :2] - priors[:, 2:] / 2, priors[:, :2] + priors[:, 2:] / 2], 1
    )
    assert ((corners < -1e-6) | (corners > 1 + 1e-6)).any(1).sum() == crossing


def test_first_and_last_boxes():
    priors = ssd300(**VOC) / 300.0
    np.testing.assert_allclose(priors[0], [0.013333, 0.013333, 0.1, 0.1], atol=1e-5)
    np.testing.assert_allclose(
        priors[1:4, 2:],
        [[0.141421, 0.141421], [0.141421, 0.070711], [0.070711, 0.141421]],
        atol=1e-5,
    )
    np.testing.assert_allclose(
        priors[-4:, 2:],
        [[0.88, 0.88], [0.961249, 0.961249], [1.244508, 0.622254], [0.622254, 1.244508]],
        atol=1e-5,
    )


@pytest.mark.parametrize("case", ["xyxy_voc_noclip", "xyxy_voc", "xyxy_coco"])
def test_equal_torchvision(case):
    golden = load("default_boxes_ssd300")
    scales = golden["scales_coco" if case == "xyxy_coco" else "scales_voc"].astype(np.float64) * 300
    levels = [
        level._replace(size=a, next_size=b)
        for level, a, b in zip(anchors.ssd_levels(300, STRIDES, CELLS), scales, scales[1:])
    ]
    priors = anchors.default_boxes(levels, SHAPES)
    if not case.endswith("noclip"):  # torchvision clips widths and heights; SSD does not
        priors[:, 2:] = np.minimum(priors[:, 2:], 300)
    ours = boxes.cxcywh_to_xyxy(jnp.asarray(priors))
    np.testing.assert_allclose(ours, golden[case], rtol=1e-6, atol=1e-4)


def test_too_small_an_input_is_an_error():
    with pytest.raises(ValueError, match="input_size=8"):
        anchors.ssd_levels(8, (8,), (1,))


def test_columns_are_replaced_one_by_one():
    levels = anchors.ssd_levels(300, STRIDES, CELLS)
    steps = [300 / n for n in CELLS]
    changed = anchors.replace_columns(levels, steps=steps, aspect_ratios=(), first_centres=())
    assert [x.step for x in changed] == steps
    assert [x._replace(step=0) for x in changed] == [x._replace(step=0) for x in levels]
    with pytest.raises(ValueError, match="min_sizes=.* has 5 values for 6 levels"):
        anchors.replace_columns(levels, min_sizes=steps[:5])


def test_no_second_square_box_and_first_centre():
    level = anchors.DefaultBoxLevel(30, 0, (2.0,), 8, 2.5)
    assert level.boxes_per_location == 3
    found = anchors.default_boxes([level], [(2, 3)]).reshape(2, 3, 3, 4)
    root = np.sqrt(2)
    sizes = [[30, 30], [30 * root, 30 / root], [30 / root, 30 * root]]
    np.testing.assert_allclose(found[1, 2, :, 2:], sizes, rtol=1e-6)
    np.testing.assert_allclose(found[1, 2, 0, :2], [18.5, 10.5])


def test_clipped_boxes_are_the_part_inside():
    levels = anchors.ssd_levels(300, STRIDES, CELLS)
    whole, cut = (
        boxes.cxcywh_to_xyxy(jnp.asarray(anchors.default_boxes(levels, SHAPES, clip)))
        for clip in (None, (300, 300))
    )
    np.testing.assert_allclose(cut, boxes.clip(whole, jnp.array([300, 300])), atol=1e-4)
    assert float(boxes.area(cut).min()) > 0
    inside = ((whole >= 0) & (whole <= 300)).all(1)
    np.testing.assert_allclose(cut[inside], whole[inside], atol=1e-4)


def test_retinanet_anchors_equal_torchvision():
    golden = load("anchors_retinanet")
    levels = anchors.retinanet_levels((8, 16, 32), rounded=True)
    found = anchors.default_boxes(levels, [(12, 16), (6, 8), (3, 4)])
    ours = boxes.cxcywh_to_xyxy(jnp.asarray(found))
    np.testing.assert_allclose(ours, golden["anchors"], atol=1e-4)


def test_anchors_with_two_steps_equal_torchvision():
    golden = load("anchors_fpn")
    levels = [
        anchors.AnchorLevel((side,), (0.5, 1.0, 2.0), step, rounded=True)
        for side, step in ((32.0, 4), (64.0, (7, 8)), (128.0, (14, 15)))
    ]
    found = anchors.default_boxes(levels, [(25, 34), (13, 17), (7, 9)])
    ours = boxes.cxcywh_to_xyxy(jnp.asarray(found))
    np.testing.assert_allclose(ours, golden["anchors"], atol=1e-4)


def test_retinanet_anchors_are_the_published_ones():
    levels = anchors.retinanet_levels((8, 16, 32, 64, 128))
    shapes = [(100, 168), (50, 84), (25, 42), (13, 21), (7, 11)]
    found = anchors.default_boxes(levels, shapes)
    assert found.shape == (201_600, 4)
    ratio, side = np.unravel_index(np.arange(9), (3, 3))
    np.testing.assert_allclose(found[:9, 3] / found[:9, 2], 2.0 ** (ratio - 1), rtol=1e-6)
    np.testing.assert_allclose(found[:9, 2:].prod(1) ** 0.5, 32 * 2 ** (side / 3), rtol=1e-6)
    np.testing.assert_allclose(found[3:6, 2] / 2, [16, 20.159, 25.398], rtol=1e-4)
    assert (found[:9, :2] == 0).all() and (found[9:18, 0] == 8).all()
