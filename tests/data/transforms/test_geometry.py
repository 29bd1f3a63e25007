"""Geometry against slow literal versions of the Caffe rules, and its invariants."""

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdet.data.transforms import resample
from jdet.data.transforms.geometry import (
    MIN_IOUS,
    TRIALS,
    UPRIGHT,
    WHOLE,
    Canvas,
    Orientation,
    batch_sampler,
    centres_inside,
    expand,
    move_boxes,
    place,
    render,
    sample_patches,
    to_fractions,
)
from jdet.data.transforms.photometric import NO_DISTORTION, Distortion, distort
from jdet.data.transforms.resample import INTERPOLATIONS, plain_interpolation

MEAN = (123.0, 117.0, 104.0)
SIZE = 60


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def smooth(height, width, cells=8):
    coarse = noise(cells, cells)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def draw(image, placement, size=SIZE, kind="linear", orientation=UPRIGHT, distortion=NO_DISTORTION):
    options = {"interpolation": INTERPOLATIONS[kind], "fill": MEAN, "orientation": orientation}
    return render(
        image, placement, (size, size), distort=lambda part: distort(part, distortion), **options
    )


def on_real_canvas(image, canvas, patch, size, kind, flip=False):
    """Caffe's way: paint the canvas, cut whole pixels out of it, resize, mirror."""
    height, width = image.shape[:2]
    full = np.empty((canvas.height, canvas.width, 3), np.uint8)
    full[:] = MEAN
    full[canvas.y : canvas.y + height, canvas.x : canvas.x + width] = image
    x, y = int(patch[0] * canvas.width), int(patch[1] * canvas.height)
    w = max(int((patch[2] - patch[0]) * canvas.width), 1)
    h = max(int((patch[3] - patch[1]) * canvas.height), 1)
    crop = full[y : y + h, x : x + w]
    out = cv2.resize(crop, (size, size), interpolation=INTERPOLATIONS[kind])
    return out[:, ::-1] if flip else out


# ------------------------------------------------------------------ the batch sampler


def literal_patches(uniforms, min_scale):
    """Caffe's SampleBBox, one patch at a time."""
    for scale, aspect, left, top in uniforms.T.astype(np.float64):
        scale = min_scale + (1 - min_scale) * scale
        aspect = 0.5 + 1.5 * aspect
        aspect = min(max(aspect, scale**2), 1 / scale**2)
        width, height = scale * aspect**0.5, scale / aspect**0.5
        left, top = left * (1 - width), top * (1 - height)
        yield left, top, left + width, top + height


def literal_iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def literal_candidates(patches, boxes):
    """Caffe's GenerateBatchSamples: at most one patch from each of the seven samplers."""
    found = [WHOLE]
    for sampler, threshold in enumerate([*MIN_IOUS, None]):
        for trial in range(TRIALS):
            patch = patches[sampler * TRIALS + trial]
            ious = [literal_iou(patch, box) for box in boxes]
            if any(iou <= 1 if threshold is None else iou >= threshold for iou in ious):
                found.append(patch)
                break
    return found


def fractions(rng, count):
    corner = rng.random((count, 2), np.float32) * np.float32(0.9)
    side = np.float32(0.02) + (1 - np.float32(0.02) - corner) * rng.random((count, 2), np.float32)
    return np.concatenate([corner, np.minimum(corner + side, 1)], axis=1)


@pytest.mark.parametrize("min_scale", [0.1, 0.3, 1.0])
def test_patches_equal_the_literal_rule(min_scale):
    uniforms = np.random.default_rng(5).random((4, 300), np.float32)
    patches = sample_patches(np.random.default_rng(5), 300, min_scale)
    expected = np.array(list(literal_patches(uniforms, min_scale)))
    np.testing.assert_allclose(patches.T, expected, atol=1e-6)
    assert patches.min() >= 0 and patches.max() <= 1 + 1e-6


def test_batch_sampler_equals_the_literal_rule():
    counts = np.zeros(8, int)
    for seed in range(150):
        boxes = fractions(np.random.default_rng(1000 + seed), 1 + seed % 12)
        patches = [
            tuple(p.tolist()) for p in sample_patches(np.random.default_rng(seed), 300, 0.3).T
        ]
        candidates = literal_candidates(patches, boxes.astype(np.float64))
        rng = np.random.default_rng(seed)
        rng.random((4, 300), np.float32)
        expected = candidates[int(rng.random() * len(candidates))]
        assert batch_sampler(np.random.default_rng(seed), boxes, 0.3) == expected
        counts[len(candidates)] += 1
    assert (counts > 0).sum() >= 4  # the seeds show many different numbers of accepted patches


def test_all_accepted_patches_are_equally_likely():
    """One object as large as the image: every sampler up to IoU 0.5 succeeds in practice."""
    boxes = np.array([[0.0, 0.0, 1.0, 1.0]], np.float32)
    rng = np.random.default_rng(6)
    picks = [batch_sampler(rng, boxes, 0.3) for _ in range(3000)]
    # Area = IoU here. Samplers 6 (0.9) fails now and then, so that the share of the whole image
    # lies between 1/7 and 1/6 (standard error 0.007).
    assert 1 / 7 - 0.02 < np.mean([pick == WHOLE for pick in picks]) < 1 / 6 + 0.02


def test_sampler_seven_accepts_its_first_patch():
    """A speck that no patch overlaps by 0.1 leaves the whole image and sampler 7, evenly."""
    boxes = np.array([[0.5, 0.5, 0.501, 0.501]], np.float32)
    whole = 0
    for seed in range(200):
        first = sample_patches(np.random.default_rng(seed), 300, 0.3)[:, 5 * TRIALS]
        pick = batch_sampler(np.random.default_rng(seed), boxes, 0.3)
        assert pick in (WHOLE, tuple(first.tolist()))
        whole += pick == WHOLE
    assert 70 < whole < 130


def test_image_without_objects_is_not_cropped():
    assert batch_sampler(np.random.default_rng(0), np.zeros((0, 4), np.float32), 0.3) == WHOLE


def test_centres_on_the_border_count():
    boxes = np.array([[0.1, 0.1, 0.3, 0.3], [0.7, 0.4, 0.9, 0.6], [0, 0, 0.3, 0.4]], np.float32)
    patch = tuple(np.float32([0.2, 0.2, 0.8, 0.8]).tolist())
    assert centres_inside(boxes, patch).tolist() == [True, True, False]


# ------------------------------------------------------------------ zoom-out


def test_expand_draws():
    rng = np.random.default_rng(7)
    canvases = [expand(rng, 64, 48, probability=0.5, max_ratio=4.0) for _ in range(4000)]
    zoomed = [c for c in canvases if c != Canvas(64, 48)]
    assert abs(len(zoomed) / 4000 - 0.5) < 0.04
    ratio = np.array([c.width / 64 for c in zoomed])
    np.testing.assert_allclose(np.quantile(ratio, [0.25, 0.5, 0.75]), [1.75, 2.5, 3.25], atol=0.12)
    assert all(0 <= c.x <= c.width - 64 and 0 <= c.y <= c.height - 48 for c in zoomed)
    assert all(48 * 64 <= c.width * c.height <= 16 * 48 * 64 for c in zoomed)
    share = np.array([c.x / max(c.width - 64, 1) for c in zoomed])
    np.testing.assert_allclose(np.quantile(share, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.06)


def test_expand_never():
    assert expand(np.random.default_rng(0), 5, 6, probability=0.0, max_ratio=4.0) == Canvas(5, 6)


# ------------------------------------------------------------------ one sampling for all


@pytest.mark.parametrize("kind", INTERPOLATIONS)
@pytest.mark.parametrize("flip", [False, True])
def test_crop_inside_the_image_is_exact(kind, flip):
    image, canvas = noise(90, 130), Canvas(300, 250, 101, 77)
    rng = np.random.default_rng(8)
    for _ in range(20):
        x, y = 101 + rng.integers(0, 60), 77 + rng.integers(0, 40)
        w, h = rng.integers(1, 232 - x), rng.integers(1, 168 - y)
        # A hundredth of a pixel more, so that rounding down gives back the whole numbers.
        patch = np.array([x, y, x + w, y + h]) + [0.01, 0.01, 0.02, 0.02]
        patch = tuple((patch / [300, 250, 300, 250]).tolist())
        placement = place(canvas, 130, 90, (SIZE, SIZE), patch)
        assert placement.source == (x - 101, y - 77, x - 101 + w, y - 77 + h)
        assert placement.target == (0, 0, SIZE, SIZE)
        expected = on_real_canvas(image, canvas, patch, SIZE, kind, flip)
        np.testing.assert_array_equal(
            draw(image, placement, kind=kind, orientation=Orientation(flip)), expected
        )


SEAMS = {"nearest": 0, "area": 0, "linear": 1, "cubic": 1, "lanczos4": 3}  # output pixels


@pytest.mark.parametrize(("kind", "seam"), SEAMS.items())
def test_canvas_in_view_is_exact_beside_the_seam(kind, seam):
    """Image edges on whole output pixels: only the seam's blending with the canvas differs."""
    image, canvas = noise(120, 160), Canvas(480, 360, 40, 60)
    patch = (0.0, 0.0, 0.5, 0.5)  # 240 x 180 canvas pixels for 60 x 60: four and three to one
    placement = place(canvas, 160, 120, (SIZE, SIZE), patch)
    assert placement.source == (0, 0, 160, 120) and placement.target == (10, 20, 50, 60)
    result = draw(image, placement, kind=kind)
    expected = on_real_canvas(image, canvas, patch, SIZE, kind)
    assert (result[:20] == MEAN).all() and (result[:, :10] == MEAN).all()
    inner = (slice(20 + seam, 60), slice(10 + seam, 50 - seam))
    np.testing.assert_array_equal(result[inner], expected[inner])
    if not seam:
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("kind", INTERPOLATIONS)
def test_canvas_in_view_differs_by_half_an_output_pixel_at_most(kind):
    """Off the grid, values change by no more than half the step to the next pixel, on average."""
    image = smooth(240, 320)
    rng, compared = np.random.default_rng(9), 0
    for _ in range(30):
        canvas = expand(rng, 320, 240, probability=1.0, max_ratio=4.0)
        patch = tuple(sample_patches(rng, 1, 0.3)[:, 0].tolist())
        placement = place(canvas, 320, 240, (SIZE, SIZE), patch)
        result = draw(image, placement, kind=kind).astype(int)
        expected = on_real_canvas(image, canvas, patch, SIZE, kind).astype(int)
        x0, y0, x1, y1 = placement.target
        outside = np.ones((SIZE, SIZE), bool)
        outside[max(y0 - 4, 0) : y1 + 4, max(x0 - 4, 0) : x1 + 4] = False
        assert (result[outside] == MEAN).all()
        np.testing.assert_array_equal(result[outside], expected[outside])
        result, expected = (x[y0 + 3 : y1 - 3, x0 + 3 : x1 - 3] for x in (result, expected))
        if min(result.shape) > 1:
            steps = sum(np.abs(np.diff(expected, axis=axis)).mean() for axis in (0, 1))
            assert np.abs(result - expected).mean() <= 0.5 * steps + 0.5
            compared += 1
    assert compared > 10


def test_canvas_alone_in_view():
    placement = place(Canvas(400, 400, 300, 300), 100, 100, (SIZE, SIZE), (0.0, 0.0, 0.5, 0.5))
    assert placement.source.pixels == 0
    assert (draw(noise(100, 100), placement) == MEAN).all()


@pytest.mark.parametrize("kind", INTERPOLATIONS)
def test_without_randomness_it_is_a_plain_resize(kind):
    image = noise(70, 110)
    result = draw(image, place(Canvas(110, 70), 110, 70, (SIZE, SIZE)), kind=kind)
    expected = cv2.resize(image, (SIZE, SIZE), interpolation=INTERPOLATIONS[kind])
    np.testing.assert_array_equal(result, expected)


def test_plain_interpolation_averages_only_beyond_a_threefold_shrink():
    assert plain_interpolation(np.empty((480, 640, 3), np.uint8), 300, 300) == cv2.INTER_LINEAR
    assert plain_interpolation(np.empty((480, 901, 3), np.uint8), 300, 300) == cv2.INTER_AREA
    # each side for itself
    assert plain_interpolation(np.empty((480, 901, 3), np.uint8), 301, 160) == cv2.INTER_LINEAR
    assert plain_interpolation(np.empty((480, 901, 3), np.uint8), 301, 159) == cv2.INTER_AREA


def test_distortion_after_resizing_hardly_differs():
    """It is applied to the smaller of the two images and never to the canvas."""
    image, canvas = smooth(240, 320, cells=24), Canvas(400, 300, 50, 20)
    placement = place(canvas, 320, 240, (SIZE, SIZE))
    rng = np.random.default_rng(10)
    for kind in INTERPOLATIONS:
        distortion = Distortion(*rng.uniform((-32, 0.5, 0.5, -18), (32, 1.5, 1.5, 18)), True)
        after = draw(image, placement, kind=kind, distortion=distortion)
        before = draw(distort(image, distortion), placement, kind=kind)
        inside = (before != MEAN).any(axis=2)
        assert (after[~inside] == MEAN).all()
        assert np.abs(after.astype(int) - before)[inside].mean() < 4
    # Enlarging, it comes first; OpenCV's HSV rounds by the position in a row, now and then.
    placement = place(Canvas(320, 240), 320, 240, (SIZE, SIZE), (0.2, 0.2, 0.35, 0.35))
    after = draw(image, placement, distortion=distortion)
    before = draw(distort(image, distortion), placement)
    np.testing.assert_allclose(after, before.astype(int), atol=3)


# ------------------------------------------------------------------ boxes


TURNS = [Orientation(*bits) for bits in itertools.product([False, True], repeat=3)]


@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_boxes_follow_the_pixels(turn):
    """A bright rectangle is found where its box is moved to, for crops with and without canvas."""
    rng = np.random.default_rng(11)
    seen = 0
    for _ in range(60):
        image = np.zeros((200, 300, 3), np.uint8)
        x0, y0 = rng.integers(0, 220), rng.integers(0, 140)
        x1, y1 = x0 + rng.integers(20, 80), y0 + rng.integers(20, 60)
        image[y0:y1, x0:x1] = 255
        box = np.array([[x0, y0, x1, y1]], np.float32)
        canvas = expand(rng, 300, 200, probability=0.7, max_ratio=2.0)
        patch = tuple(sample_patches(rng, 1, 0.3)[:, 0].tolist())
        placement = place(canvas, 300, 200, (SIZE, SIZE), patch)
        if not placement.source.pixels:
            continue
        moved = move_boxes(box, placement, (SIZE, SIZE), orientation=turn)[0]
        bright = (draw(image, placement, kind="nearest", orientation=turn) == 255).all(axis=2)
        rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
        if min(moved[2] - moved[0], moved[3] - moved[1]) > 2:
            found = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            np.testing.assert_allclose(found, moved, atol=1.0)
            seen += 1
    assert seen > 15


def test_turns_are_the_eight_orientations_of_a_square():
    """Mirrors and the quarter turn clockwise, of pixels, and all combinations differ."""
    image = noise(SIZE, SIZE)
    placement = place(Canvas(SIZE, SIZE), SIZE, SIZE, (SIZE, SIZE))
    np.testing.assert_array_equal(
        draw(image, placement, orientation=Orientation(flip=True)), image[:, ::-1]
    )
    np.testing.assert_array_equal(
        draw(image, placement, orientation=Orientation(flip_vertical=True)), image[::-1]
    )
    # Clockwise: the top row becomes the last column.
    quarter = draw(image, placement, orientation=Orientation(quarter=True))
    np.testing.assert_array_equal(quarter[:, -1], image[0])
    np.testing.assert_array_equal(quarter, np.rot90(image, -1))
    everything = draw(image, placement, orientation=Orientation(True, True, True))
    np.testing.assert_array_equal(everything, np.rot90(image[::-1, ::-1], -1))
    assert len({draw(image, placement, orientation=turn).tobytes() for turn in TURNS}) == 8


scenes = st.fixed_dictionaries(
    {
        "width": st.integers(1, 400),
        "height": st.integers(1, 400),
        "size": st.integers(1, 96),
        "seed": st.integers(0, 2**32 - 1),
        "count": st.integers(0, 6),
        "probability": st.sampled_from([0.0, 1.0]),
        "min_scale": st.sampled_from([0.05, 0.3]),
        "turn": st.sampled_from(TURNS),
    }
)


@given(scenes)
def test_invariants(scene):
    width, height, size = scene["width"], scene["height"], scene["size"]
    rng = np.random.default_rng(scene["seed"])
    sides = np.array([width, height] * 2, np.float32)
    boxes = fractions(rng, scene["count"]) * sides
    canvas = expand(rng, width, height, probability=scene["probability"], max_ratio=4.0)
    inside = to_fractions(boxes, canvas)
    assert ((inside >= 0) & (inside <= 1 + 1e-6)).all()
    patch = batch_sampler(rng, inside, scene["min_scale"])
    (x0, y0, x1, y1), (left, top, right, bottom) = placement = place(
        canvas, width, height, (size, size), patch
    )
    result = draw(noise(height, width), placement, size, orientation=scene["turn"])
    assert result.shape == (size, size, 3) and result.dtype == np.uint8
    if not placement.source.pixels:
        return
    assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
    assert 0 <= left < right <= size and 0 <= top < bottom <= size
    moved = move_boxes(boxes, placement, (size, size), orientation=scene["turn"])
    assert moved.dtype == np.float32 and moved.shape == boxes.shape
    assert (moved >= 0).all() and (moved <= size).all() and (moved[:, :2] <= moved[:, 2:]).all()
    # A centre inside the patch leaves something to see, unless the object is below a pixel.
    kept = centres_inside(inside, patch) & ((boxes[:, 2:] - boxes[:, :2]) > 4).all(axis=1)
    assert (moved[kept, :2] < moved[kept, 2:]).all()
    turn = scene["turn"]
    again = move_boxes(
        boxes, placement, (size, size), orientation=turn._replace(flip=not turn.flip)
    )
    axis = [1, 3] if turn.quarter else [0, 2]
    np.testing.assert_allclose(again[:, axis[::-1]], size - moved[:, axis], atol=1e-4)


def test_blank_images_are_independent():
    first = resample.blank((4, 4), MEAN)
    first[:] = 0
    assert (resample.blank((4, 4), MEAN) == MEAN).all()
