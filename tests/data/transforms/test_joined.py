"""Mosaic, mixup and copy-paste against plain references, pixel by pixel, for images of any kind."""

import cv2
import numpy as np
import pytest

from jdet.data.segmentation import decode, encode
from jdet.data.transforms import joined
from jdet.data.transforms.element import Element
from jdet.data.transforms.joined import Left, Place
from jdet.data.transforms.pasted import pasted

KINDS = [("uint8", 3), ("uint16", 1), ("float32", 6)]
ALL = Left(0.0, 0.0)


def element(
    seed, size=(24, 32), kind=("uint8", 3), boxes=((4, 4, 12, 10),), ignore=None, masks=False
):
    """Noise with objects; their masks are ellipses, as polygons and bitmaps in turn."""
    rng = np.random.default_rng(seed)
    image = (rng.random((*size, kind[1])) * 200).astype(kind[0])
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    shapes = []
    for number, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        x = (x1 + x2) / 2 + (x2 - x1) / 2 * np.cos(turn)
        y = (y1 + y2) / 2 + (y2 - y1) / 2 * np.sin(turn)
        polygon = [np.stack([x, y], 1).ravel().tolist()]
        shapes.append(polygon if number % 2 == 0 else encode(decode(polygon, *size)))
    return Element(
        index=seed,
        id=str(seed),
        image=image,
        boxes=boxes,
        labels=np.arange(len(boxes), dtype=np.int32) + 10 * seed,
        ignore=np.zeros(len(boxes), bool) if ignore is None else np.array(ignore),
        masks=tuple(shapes) if masks else None,
    )


def canvas_of(elements, centre, size, fill):
    """YOLOX's mosaic at full size: a canvas of twice the sides, images with a corner at the centre."""
    height, width = size
    first = elements[0].image
    canvas = np.zeros((2 * height, 2 * width, first.shape[2]), first.dtype) + np.array(
        fill, first.dtype
    )
    cy, cx = centre
    found = []
    for number, one in enumerate(elements):
        h, w = one.image.shape[:2]
        ratio = min(height / h, width / w)
        h2, w2 = round(h * ratio), round(w * ratio)
        image = cv2.resize(one.image, (w2, h2)).reshape(h2, w2, -1)
        top = cy - h2 if number < 2 else cy
        left = cx - w2 if number % 2 == 0 else cx
        for y in range(max(top, 0), min(top + h2, 2 * height)):
            for x in range(max(left, 0), min(left + w2, 2 * width)):
                canvas[y, x] = image[y - top, x - left]
        scale = np.array([w2 / w, h2 / h] * 2)
        found.append(one.boxes * scale + np.array([left, top] * 2))
    return canvas, np.concatenate(found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("window", [(0.0, 0.0), (1.0, 0.5)])
def test_a_mosaic_is_a_window_of_the_canvas(kind, window):
    """At a zoom of 1 the two are equal bit for bit."""
    fill = tuple(float(v + 1) for v in range(kind[1]))
    sizes = ((24, 32), (48, 64), (12, 32), (30, 20))
    elements = [element(i, size, kind) for i, size in enumerate(sizes)]
    centre = (0.375, 0.625)  # of 48 and 64: row 18, column 40
    canvas, boxes = canvas_of(elements, (18, 40), (24, 32), fill)
    found = joined.mosaic(elements, centre=centre, window=window, zoom=1.0, fill=fill, left=ALL)
    y, x = round(24 * window[0]), round(32 * window[1])
    # OpenCV resizes four channels at a time, here and six there: the last bit differs.
    exact = 0.0 if kind[0] != "float32" else 1e-6
    np.testing.assert_allclose(found.image, canvas[y : y + 24, x : x + 32], rtol=exact)
    assert found.image.dtype == kind[0]
    expected = np.clip(boxes - np.array([x, y] * 2), 0, np.array([32, 24] * 2))
    there = (expected[:, 2:] > expected[:, :2]).all(1)
    assert there.any() and not there.all()
    np.testing.assert_allclose(found.boxes, expected[there], rtol=1e-5)
    np.testing.assert_array_equal(found.labels, np.array([0, 10, 20, 30])[there])
    assert (found.index, found.boxes.dtype) == (0, np.float32)


def test_a_mosaic_at_half_the_size_shows_the_whole_canvas():
    elements = [element(i) for i in range(3)] + [Element(problem="unreadable")]
    found = joined.mosaic(
        elements, centre=(0.5, 0.5), window=(0.3, 0.9), zoom=0.5, fill=(7.0,) * 3, left=ALL
    )
    half = [cv2.resize(one.image, (16, 12)) for one in elements[:3]]
    np.testing.assert_array_equal(found.image[:12, :16], half[0])
    np.testing.assert_array_equal(found.image[:12, 16:], half[1])
    np.testing.assert_array_equal(found.image[12:, :16], half[2])
    assert (found.image[12:, 16:] == 7).all()
    np.testing.assert_allclose(found.boxes, [[2, 2, 6, 5], [18, 2, 22, 5], [2, 14, 6, 17]])


@pytest.mark.parametrize("kind", KINDS)
def test_mixup_is_the_mean_and_has_the_objects_of_both(kind):
    first, other = element(0, kind=kind), element(1, (12, 16), kind)
    place = Place((12, 16), 6, 20, True)  # twelve of its sixteen columns are seen
    fill = tuple(float(v + 3) for v in range(kind[1]))
    found = joined.mixed(first, other, place, fill, ALL)
    second = np.zeros(first.image.shape) + np.array(fill)
    second[6:18, 20:32] = other.image[:, ::-1][:, :12]
    expected = (first.image.astype(np.float64) + second) / 2
    if kind[0] != "float32":
        expected = np.rint(expected)
    np.testing.assert_allclose(found.image, expected, rtol=1e-6)
    assert found.image.dtype == kind[0]
    np.testing.assert_allclose(found.boxes, [[4, 4, 12, 10], [24, 10, 32, 16]])
    assert found.labels.tolist() == [0, 10]


def test_which_objects_stay():
    """Those with enough of their area and sides; regions that are ignored as long as they are seen."""
    boxes = ((-0.0, 0, 10, 10), (0, 0, 4, 10), (2, 0, 10, 3), (1, 0, 3, 10), (0, 12, 3, 20))
    given = element(0, boxes=boxes, ignore=(False, False, False, True, True))
    # Three columns to the left of the frame.
    found = joined.laid(given, Place((24, 32), 0, -3), (24, 32), Left(0.5, 2.0))
    # 70 % of the first is left, 25 % of the second, 7 of 8 columns of the third.
    np.testing.assert_allclose(found.boxes, [[0, 0, 7, 10], [0, 0, 7, 3]])
    found = joined.laid(given, Place((24, 32), 0, -2), (24, 32), Left(0.5, 4.0))
    np.testing.assert_allclose(found.boxes, [[0, 0, 8, 10], [0, 0, 1, 10], [0, 12, 1, 20]])
    assert found.ignore.tolist() == [False, True, True]


@pytest.mark.parametrize("flip", [False, True])
def test_masks_go_with_their_pixels(flip):
    """Polygons and bitmaps, of whole images and of tiles, land where the pixels of the object do."""
    given = element(3, boxes=((4, 4, 20, 16), (6, 8, 28, 22)), masks=True)
    whole = [decode(mask, 24, 32) for mask in given.masks]
    place = Place((48, 64), 5, -7, flip)
    found = joined.laid(given, place, (50, 60), ALL)
    tile = given._replace(
        image=given.image[2:22, 3:30], boxes=given.boxes - [3, 2, 3, 2], cut_from=(2, 3, 24, 32)
    )
    tiled = joined.laid(tile, Place((40, 54), 5, -7, flip), (50, 60), ALL)
    for number, mask in enumerate(whole):
        for part, one, corner in ((mask, found, 0), (mask[2:22, 3:30], tiled, 1)):
            grown = cv2.resize(part, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
            grown = grown[:, ::-1] if flip else grown
            expected = np.zeros((50, 60), np.uint8)
            expected[5 : 5 + grown.shape[0], : grown.shape[1] - 7] = grown[:45, 7:][:, :60]
            got = decode(one.masks[number], 50, 60)
            both, either = (got & expected).sum(), (got | expected).sum()
            assert both / either > 0.93, (number, corner, both / either)
    assert found.cut_from is None and tiled.cut_from is None


@pytest.mark.parametrize("kind", KINDS)
def test_pasting_by_boxes(kind):
    first = element(0, kind=kind, boxes=((0, 0, 8, 8), (10, 10, 20, 20), (9, 0, 12, 4)))
    first = first._replace(ignore=np.array([False, False, True]))
    other = element(1, kind=kind, boxes=((1, 1, 9, 8), (10, 10, 14, 14), (20, 0, 24, 4)))
    other = other._replace(ignore=np.array([False, False, True]))
    wanted = np.array([True, False, True])
    found = pasted(first, other, Place((24, 32), 0, 0), wanted, Left(0.2, 2.0))
    expected = first.image.copy()
    expected[1:8, 1:9] = other.image[1:8, 1:9]
    np.testing.assert_array_equal(found.image, expected, strict=True)
    # Of the first object 15 of 64 pixels are left, a quarter nearly; the crowd is covered and stays.
    np.testing.assert_allclose(found.boxes, [*first.boxes, other.boxes[0]])
    assert found.labels.tolist() == [0, 1, 2, 10] and found.ignore.tolist() == [
        False,
        False,
        True,
        False,
    ]
    fewer = pasted(first, other, Place((24, 32), 0, 0), wanted, Left(0.3, 2.0))
    assert fewer.labels.tolist() == [1, 2, 10]
    nothing = pasted(first, other, Place((24, 32), 0, 0), wanted & False, Left())
    assert nothing is first


def test_pasting_by_masks():
    """What is covered leaves masks and boxes; what covers a box beside its mask leaves both alone."""
    first = element(0, boxes=((2, 2, 20, 18), (22, 14, 30, 22), (14, 6, 18, 14)), masks=True)
    corner = np.zeros((24, 32), np.uint8)
    corner[20:22, 28:30] = 1
    first = first._replace(masks=(first.masks[0], encode(corner), first.masks[2]))
    other = element(1, boxes=((10, 0, 30, 20), (0, 0, 4, 4)), masks=True)
    given = first.image.copy()
    found = pasted(first, other, Place((24, 32), 0, 0), np.array([True, False]), Left(0.1, 2.0))
    cover = decode(other.masks[0], 24, 32).astype(bool)
    expected = np.where(cover[..., None], other.image, given)
    np.testing.assert_array_equal(found.image, expected)
    np.testing.assert_array_equal(first.image, given)
    rest = decode(first.masks[0], 24, 32).astype(bool) & ~cover
    np.testing.assert_array_equal(decode(found.masks[0], 24, 32), rest)
    rows, columns = (np.flatnonzero(rest.any(axis=axis)) for axis in (1, 0))
    box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    np.testing.assert_array_equal(found.boxes[0], box)
    # The box of the second is covered in part; the third lies underneath altogether.
    assert cover[14:22, 22:30].any()
    assert found.labels.tolist() == [0, 1, 10]
    np.testing.assert_array_equal(found.boxes[1], first.boxes[1])
    np.testing.assert_array_equal(decode(found.masks[1], 24, 32), decode(first.masks[1], 24, 32))
    np.testing.assert_array_equal(decode(found.masks[2], 24, 32), cover)
