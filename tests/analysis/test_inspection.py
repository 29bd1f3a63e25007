"""Receptive fields against the published ones of VGG-16, matches against the literal rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet import build
from jdet.analysis import inspection
from jdet.config import get_defaults
from tests.tiny_backbone import TINY


def detector(size, backbone, neck="residual_extras", **values):
    c = get_defaults()
    c.input_size = size
    c.model = build.group(
        "detector",
        "ssd",
        backbone=build.group("backbone", **backbone),
        neck=build.group("neck", neck, width=0.0625),
        **values,
    )
    return build.detector(c, ("a", "b"))


@pytest.fixture(scope="module")
def vgg():
    model = detector(128, dict(name="vgg16", width=0.0625), norm="none", taps=("c2", "c3", "c4"))
    return model, inspection.initialise(model, 128)


def test_receptive_fields_are_the_published_ones(vgg):
    """VGG-16: 40 pixels at conv3_3, 92 at conv4_3; strides 4 and 8 put the centre cell at 66 and 68."""
    fields = inspection.receptive_fields(*vgg, 128)
    assert [field.cells for field in fields[:3]] == [32, 16, 8]
    assert fields[0].extent == (40, 40) and fields[1].extent == (92, 92)
    assert fields[2].extent == (128, 128)  # the dilated fc6 sees more than the image
    for field in fields[:2]:
        assert field.strength.max() == 1 and field.strength.shape == (128, 128)
        assert 4 < field.effective < field.extent[0]
    assert fields[0].effective < fields[1].effective
    rows, columns = np.nonzero(fields[1].strength)
    assert (rows.min() + rows.max() + 1) / 2 == (columns.min() + columns.max() + 1) / 2 == 68


def test_level_outputs_are_what_the_head_gets(vgg):
    vgg, variables = vgg
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3)), jnp.uint8)
    levels = inspection.level_outputs(vgg, variables, images)
    _, cells = vgg.level_sizes()
    assert [level.shape[:3] for level in levels] == [(2, side, side) for side in cells]
    head = jax.jit(lambda v, x: vgg.apply(v, x, train=False)[1])(variables, images)
    boxes = sum(
        np.prod(level.shape[1:3]) * spec.boxes_per_location
        for level, spec in zip(levels, vgg.anchor_levels())
    )
    assert head.shape[1] == boxes
    same = inspection.level_outputs(vgg, variables, images.astype(jnp.float32))
    np.testing.assert_array_equal(levels[0], same[0])
    assert not np.allclose(levels[0][0], levels[0][1])


def test_matches():
    model = detector(96, dict(name=TINY, stages=("c3", "c4")), first_ratio=0.15)
    large, small = [20, 20, 60, 60], [3, 3, 6, 6]
    found = inspection.match_default_boxes(model, np.array([large, small], np.float32))
    assert len(found.boxes) == len(found.level) == len(found.matched)
    np.testing.assert_array_equal(found.only, [False, True])
    mine = found.matched & (found.index == 0)
    assert mine.sum() > 1 and (found.overlap[mine] >= 0.5).all()
    alone = found.matched & (found.index == 1)
    assert alone.sum() == 1 and 0 < found.overlap[alone][0] < 0.5
    assert (found.overlap[~found.matched] < 0.5).all()
    widths = found.boxes[:, 2] - found.boxes[:, 0]
    assert (np.diff([widths[found.level == i].mean() for i in np.unique(found.level)]) > 0).all()

    drawn = inspection.matches_as_detections(found)
    assert len(drawn.boxes) == found.matched.sum() and (np.diff(drawn.scores) <= 0).all()
    finest = inspection.matches_as_detections(found, levels=[0])
    assert (finest.labels == 0).all() and 0 < len(finest.labels) < len(drawn.labels)
    nothing = inspection.match_default_boxes(model, np.zeros((0, 4), np.float32))
    assert not nothing.matched.any() and nothing.only.shape == (0,)


def test_mosaic_shows_the_liveliest_channels():
    maps = np.zeros((3, 3, 5), np.float32)
    maps[0, 0, 3], maps[1, 1, 1] = 9.0, 1.0
    tiles = inspection.mosaic(maps, count=3, columns=2, side=6)
    assert tiles.shape == (14, 14, 3) and tiles.dtype == np.uint8
    assert (tiles[:2, :2] == 255).all() and not tiles[2:6, :6].any()  # channel 3 first
    assert (tiles[2:4, 10:12] == 255).all() and not tiles[:2, 8:14].any()  # then channel 1
    assert (tiles[8:, 8:] == 24).all()  # no fourth
