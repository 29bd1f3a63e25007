"""Images that keep their proportions: sizes, shapes, pixels, boxes and padding."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdet import build
from jdet.config import get_defaults
from jdet.data import pipeline
from jdet.data.transforms import geometry
from jdet.data.transforms.element import Element
from jdet.data.transforms.finish import Finish, locate, moved_objects
from jdet.data.transforms.keep_ratio import KeepRatio, derived_shapes
from jdet.data.transforms.ssd import SSDAugment
from jdet.data.transforms.warp import Warp
from jdet.types import Batch, ConfigError, Example
from tests.harness import ROOT

COCO = KeepRatio()
sides = st.integers(1, 5000)


@pytest.mark.parametrize(
    "height, width, content, shape",
    [  # sizes as MMDetection makes them of (1333, 800)
        (480, 640, (800, 1067), (800, 1344)),
        (427, 640, (800, 1199), (800, 1344)),
        (360, 640, (750, 1333), (800, 1344)),
        (640, 480, (1067, 800), (1344, 800)),
        (500, 500, (800, 800), (896, 896)),
        (100, 1000, (133, 1333), (800, 1344)),
        (1, 4000, (1, 1333), (800, 1344)),
    ],
)
def test_sizes_of_the_reference(height, width, content, shape):
    assert COCO.shapes == ((800, 1344), (1344, 800), (896, 896))
    assert COCO.shapes[COCO.shape_of(height, width)] == shape
    assert COCO.content(height, width, shape) == content


def test_sizes_rounded_down_are_those_of_torchvision():
    rows = json.loads((ROOT / "tests/golden/resized_sizes.json").read_text())
    found = []
    for height, width, short, long, *_ in rows:
        resize = KeepRatio(short=(short,), long=long, rounding="down")
        found.append([*resize.content(height, width, (2000, 2000))])
    assert found == [row[4:] for row in rows]
    assert any(max(row[4:]) == row[3] - 1 for row in rows)  # 1333 / 903 * 903 is below 1333
    twice = KeepRatio(short=(33,), long=77, rounding="down").scaled(2)
    assert twice.content(41, 61, (200, 200)) == (66, 98)  # of 98.2
    with pytest.raises(ConfigError, match="rounding='up'; it must be 'nearest' or 'down'"):
        KeepRatio(rounding="up")


@given(sides, sides, st.integers(1, 1000), st.integers(1000, 2000))
def test_content_fits_keeps_its_proportions_and_is_as_large_as_can_be(height, width, short, long):
    resize = KeepRatio(short=(short,), long=long)
    shape = resize.shapes[resize.shape_of(height, width)]
    rows, columns = resize.content(height, width, shape)
    assert 1 <= rows <= shape[0] and 1 <= columns <= shape[1]
    factor = min(short / min(height, width), long / max(height, width))
    assert abs(rows - height * factor) <= 1 and abs(columns - width * factor) <= 1


@given(sides, sides, st.integers(1, 64))
def test_images_are_shrunk_into_shapes_that_are_too_small_for_them(height, width, short):
    resize = KeepRatio(shapes=((32, 48), (48, 32)), short=(short,), long=64)
    shape = resize.shapes[resize.shape_of(height, width)]
    content = resize.content(height, width, shape)
    assert content[0] <= shape[0] and content[1] <= shape[1]
    if min(content) > 8:
        assert content[1] / content[0] == pytest.approx(width / height, rel=0.25)
    # No other shape would show the image larger.
    areas = [math.prod(resize.content(height, width, other)) for other in resize.shapes]
    assert math.prod(content) == max(areas)


def test_the_shape_is_that_of_the_largest_scale_and_holds_all():
    resize = KeepRatio(short=(480, 640, 800), sampling="list")
    rng = np.random.default_rng(0)
    drawn = {resize.draw(rng) for _ in range(100)}
    assert drawn == {480, 640, 800}
    shape = resize.shapes[resize.shape_of(480, 640)]
    contents = [resize.content(480, 640, shape, short) for short in sorted(drawn)]
    assert contents == [(480, 640), (640, 853), (800, 1067)]
    wide = KeepRatio(short=(640, 800), sampling="range")
    drawn = [wide.draw(rng) for _ in range(2000)]
    assert (min(drawn), max(drawn)) == (640, 800) and len(set(drawn)) == 161


def test_a_square_shape_is_made_up_only_where_it_saves_something():
    assert derived_shapes(64, 128) == ((64, 128), (128, 64))
    assert derived_shapes(640, 640) == ((640, 640),)


def test_testing_has_a_short_side_of_its_own():
    resize = KeepRatio(short=(480, 640), test_short=700)
    assert resize.content(500, 500, (900, 900)) == (700, 700)
    assert resize.shapes[0] == (704, 1344)


def make_image(height, width):
    """Colours that say where a pixel was: smooth, so that resizing can be undone."""
    y, x = np.mgrid[:height, :width]
    ramp = [
        255 * y / max(height - 1, 1),
        255 * x / max(width - 1, 1),
        np.full((height, width), 99.0),
    ]
    return np.stack(ramp, -1).round().astype(np.uint8)


@pytest.mark.parametrize("flip", [False, True])
def test_pixels_boxes_and_padding_agree(flip):
    """A box drawn into the image is where its row says; all else is padding of the fill's colour."""
    resize = KeepRatio(shapes=((64, 96),), short=(48,), long=90)
    image = np.zeros((80, 120, 3), np.uint8)
    image[20:60, 30:90] = 200
    boxes = np.array([[30, 20, 90, 60]], np.float32)
    element = Element(
        image=image,
        boxes=boxes,
        labels=np.zeros(1, np.int32),
        ignore=np.zeros(1, bool),
        orientation=geometry.Orientation(flip=flip),
        shape=(64, 96),
        scale=40,
    )
    row = Finish(resize, 4, (7.0, 8.0, 9.0))(element).fields
    assert row.image_sizes.tolist() == [40, 60] and row.original_sizes.tolist() == [80, 120]
    assert row.images.shape == (64, 96, 3)
    assert row.boxes[0].tolist() == [
        15,
        10,
        45,
        30,
    ]  # in the middle, so that it mirrors onto itself
    bright = np.argwhere(row.images[:40, :60, 0] > 100)
    assert (bright.min(0).tolist(), (bright.max(0) + 1).tolist()) == ([10, 15], [30, 45])
    assert (row.images[40:] == (7, 8, 9)).all() and (row.images[:, 60:] == (7, 8, 9)).all()


def test_preparing_an_image_is_what_evaluation_does():
    resize = KeepRatio(shapes=((64, 96), (96, 64)), short=(48,), long=90)
    for height, width in ((100, 130), (130, 100), (30, 300)):
        image = make_image(height, width)
        prepared, content = resize.prepare(image)
        shape = resize.shapes[resize.shape_of(height, width)]
        row = Finish(resize, 0, (0.0, 0.0, 0.0))(Element(image=image, shape=shape)).fields
        np.testing.assert_array_equal(row.images, prepared)
        np.testing.assert_array_equal(row.image_sizes, content)


def test_cropped_and_zoomed_images_keep_their_proportions_too():
    """SSD's crops are of any aspect: what is cut out is resized, not the image it came from."""
    resize = KeepRatio(shapes=((96, 96),), short=(64,), long=90)
    chain = SSDAugment().operations(resize)
    assert list(chain)[-1] == "scale"
    boxes = np.array([[40, 30, 120, 90]], np.float32)
    seen = set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        element = Element(image=make_image(120, 200), boxes=boxes, labels=np.zeros(1, np.int32))
        for operation in chain.values():
            element = operation(element, rng)
        canvas = element.canvas or geometry.Canvas(200, 120)
        cut = geometry.patch_size(canvas, element.patch)
        moved, kept = moved_objects(element, locate(element, resize))
        rows, columns = resize.content(*cut, (96, 96), 64)
        seen.add((rows, columns))
        assert abs(columns / rows - cut[1] / cut[0]) <= 0.05 * cut[1] / cut[0]
        for box in moved[kept]:
            assert 0 <= box[0] < box[2] <= columns and 0 <= box[1] < box[3] <= rows
    assert len(seen) > 10


class Folder:
    """Images of given sizes, each with one box over its left half."""

    class_names = ("a",)

    def __init__(self, sizes):
        self.sizes = sizes

    def __len__(self):
        return len(self.sizes)

    def image_size(self, index):
        return self.sizes[index]

    def __getitem__(self, index):
        height, width = self.sizes[index]
        box = np.array([[0, 0, width / 2, height]], np.float32)
        one = np.zeros(1, np.int32)
        return Example(
            str(index), make_image(height, width), box, one, one > 0, one.astype(np.float32)
        )


SIZES = [(60, 90), (90, 60), (60, 91), (64, 64), (91, 60), (60, 80), (62, 62), (60, 85), (30, 300)]
SMALL = KeepRatio(shapes=((48, 64), (64, 48), (48, 48)), short=(40, 44), long=64)


def stream(**options):
    settings = dict(resize=SMALL, augment=SSDAugment(), max_boxes=3, batch_size=4, seed=5)
    return pipeline.train_batches(Folder(SIZES), **{**settings, **options})


def take(batches, count):
    with batches:
        return [next(batches) for _ in range(count)]


def same(a, b):
    for name in Batch._fields:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def test_batches_hold_one_shape_and_epochs_every_image():
    shapes = [SMALL.shapes[SMALL.shape_of(*size)] for size in SIZES]
    assert set(shapes) == set(SMALL.shapes)
    batches = take(stream(), 36)  # 16 epochs of 9 images
    counts = np.zeros(len(SIZES), int)
    for batch in batches:
        assert {shapes[i] for i in batch.index} == {batch.images.shape[1:3]}
        assert (batch.image_sizes <= batch.images.shape[1:3]).all()
        counts += np.bincount(batch.index, minlength=len(SIZES))
    assert counts.sum() == 144 and abs(counts - 16).max() <= 3


def test_batch_k_is_the_same_wherever_it_is_asked_for():
    """From the beginning, resumed, on two processes, with worker processes."""
    whole = take(stream(), 8)
    same(whole[5], take(stream(start=5), 1)[0])
    halves = [take(stream(process_index=p, process_count=2, start=3), 2) for p in (0, 1)]
    for k in range(2):
        parts = [half[k]._asdict() for half in halves]
        fields = {n: np.concatenate([p[n] for p in parts]) for n in parts[0] if n != "masks"}
        same(whole[3 + k], Batch(**fields))
    for got, expected in zip(take(stream(start=2, workers=2), 3), whole[2:5], strict=True):
        same(got, expected)


def test_evaluation_shows_every_image_once_in_its_own_shape():
    with pipeline.eval_batches(Folder(SIZES), resize=SMALL, batch_size=4, limit=8) as batches:
        assert batches.length == 3  # 4 wide, 2 high and 2 square images
        rows = list(batches)
    seen = np.concatenate([batch.index[batch.real] for batch in rows])
    assert sorted(seen.tolist()) == list(range(8))
    for batch in rows:
        for index in batch.index[batch.real]:
            shape = SMALL.shapes[SMALL.shape_of(*SIZES[index])]
            assert batch.images.shape[1:3] == shape


def test_other_scales_of_the_same_images():
    resize = KeepRatio(
        shapes=((800, 1344), (1344, 800)), short=(640, 800), long=1333, sampling="range"
    )
    assert resize.scaled(1) is resize
    twice = resize.scaled(1.5)
    assert twice.shapes == ((1216, 2016), (2016, 1216)) and twice.short == (1200,)
    assert twice.content(480, 640, twice.shapes[0]) == (1200, 1600)
    assert Warp(300).scaled(2) == Warp(600)
    with pytest.raises(
        ConfigError, match=r"config.eval.tta: .* at 16 times .*12.29 in .*tta.passes"
    ):
        COCO.scaled(16)
    assert COCO.scaled(12.29).long == 16383
    assert resize.scaled(0.001).shapes == ((32, 32),)
    assert KeepRatio(shapes=((64, 96), (64, 96))).shapes == ((64, 96),)


def config(**resize):
    c = get_defaults()
    c.resize = build.group("resize", "keep_ratio", **resize)
    return c


def test_wrong_settings_are_named():
    for wrong, message in (
        (dict(short=()), "config.resize.short="),
        (dict(short=(1400,)), "config.resize.short="),
        (dict(short=(0.5,)), "config.resize.short="),
        (dict(test_short=2000), "config.resize.test_short=2000"),
        (dict(shapes=((800,),)), "config.resize.shapes="),
        (dict(long=0), "config.resize.long=0"),
        (dict(sampling="lists"), "config.resize.sampling='lists'.*'list' or 'range'"),
    ):
        with pytest.raises(ConfigError, match=message):
            build.resize(config(**wrong))
    turning = config()
    turning.augment.rotate = 0.5
    with pytest.raises(ConfigError, match="config.augment.rotate=0.5 turns"):
        build.augment(turning)
    unknown = config()
    unknown.resize.name = "keep"
    with pytest.raises(ConfigError, match="resize 'keep' does not exist.*keep_ratio"):
        build.resize(unknown)


def test_what_is_said_of_sizes():
    assert Warp(300).describe() == ""
    assert COCO.describe() == (
        "images keep their proportions: short side 800, long side at most 1333, inputs of 800×1344, "
        "1344×800, 896×896"
    )
    assert "short side 640 to 800," in KeepRatio(short=(800, 640), sampling="range").describe()
    assert (Warp(300).test_setting(), COCO.test_setting()) == (
        "config.input_size=300",
        "config.resize.test_short=800",
    )
