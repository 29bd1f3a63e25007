import itertools

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest

from jdet import build
from jdet.config import get_defaults
from jdet.data.pipeline import eval_batches
from jdet.data.segmentation import decode
from jdet.data.transforms.keep_ratio import KeepRatio
from jdet.data.transforms.multi_scale import prepare_views
from jdet.data.transforms.warp import Warp
from jdet.evaluation import evaluate as evaluate_lib
from jdet.evaluation import multi_scale, tta
from jdet.evaluation.detect import DetectFn, Moved, moved
from jdet.evaluation.evaluate import evaluate_stream
from jdet.evaluation.multi_scale import MultiScale
from jdet.evaluation.voc_ap import VocEvaluator
from jdet.train import state
from jdet.types import Batch, ConfigError, Detections, ImageDetections
from tests.evaluation.pixel_detector import AnySize, PixelDetector
from tests.evaluation.test_detect import SIDE, VARIABLES, Record, Rectangles, mesh
from tests.evaluation.test_tta import custom, options
from tests.tiny_backbone import TINY


def shapes(multi):
    return [view.shape for view in multi.views]


ANY_SIZE = DetectFn(AnySize())
"""Compiled once for every input size, whatever the passes."""


def multi_scale_of(*passes, detector=None, over=None, resize=None, **values):
    detect = DetectFn(detector, over) if detector else ANY_SIZE
    return MultiScale(detect, custom(*passes, **values), resize or Warp(SIDE))


def found_by(multi, source, batch_size=4):
    record = Record()
    with eval_batches(source, views=multi.views, batch_size=batch_size, threads=1) as stream:
        evaluate_stream(
            multi.detect, VARIABLES, stream, source, [record], to_images=multi.to_images
        )
    return record.pairs


def batch_of(images, multi, real=None):
    """Images of any size as a batch of several views."""
    prepared = [prepare_views(image, multi.views) for image in images]
    columns = [tuple(map(np.stack, zip(*field))) for field in zip(*prepared)]
    return Batch.of_images(
        columns[0],
        columns[1],
        original_sizes=np.array([image.shape[:2] for image in images]),
        real=np.ones(len(images), bool) if real is None else np.array(real),
    )


def test_one_pass_with_nms_is_plain_detection():
    source, plain = Rectangles(7), Record()
    with eval_batches(source, resize=Warp(SIDE), batch_size=4, threads=1) as stream:
        evaluate_stream(DetectFn(PixelDetector()), VARIABLES, stream, source, [plain])
    multi = multi_scale_of((1.0, 1.0, False, 0, 0), merge="nms", pixel_offset=0.0)
    assert shapes(multi) == [(SIDE, SIDE)] and multi.passes_per_image == 1
    for (ours, _), (theirs, _) in zip(found_by(multi, source), plain.pairs, strict=True):
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_all_passes_find_the_same_boxes():
    """Square, oriented, larger, smaller and mirrored: every one comes back to the original pixels."""
    source = Rectangles(9)
    multi = multi_scale_of((1, 1, True, 0, 0), (2, 1, True, 0, 0), (3, 3, True, 0, 0))
    assert shapes(multi) == [(32, 32), (32, 64), (64, 32), (96, 96)] and multi.passes_per_image == 6
    for found, ground_truth in found_by(multi, source):
        # Vertical edges are those of whole pixels in every view but where the image is smaller.
        assert len(found.labels) == len(ground_truth.labels)
        np.testing.assert_allclose(found.boxes, ground_truth.boxes, atol=2.5)


def test_each_pass_by_itself_returns_to_the_original_pixels():
    image = np.full((64, 128, 3), 100, np.uint8)
    image[16:48, 32:96] = (255, 0, 0)
    tall = image.transpose(1, 0, 2).copy()
    tall[:32] = 100  # now not symmetric: rows 32 … 96 become 64 … 96 …
    tall[32:96, 16:48] = (255, 0, 0)
    for one in itertools.product((1.0, 2.0), (1.0, 0.5), (True, False)):
        long, factor, flip = one
        multi = multi_scale_of((long, long * factor, flip, 0, 0))
        batch = batch_of([image, tall], multi, real=[True, True])
        started = multi.detect(VARIABLES, batch.images, batch.image_sizes)
        assert len(started) == (1 + flip) * (1 if factor == 1 else 2)
        wide, high = multi.to_images(started, batch, ["wide", "high"])
        np.testing.assert_allclose(wide.boxes, [[32, 16, 96, 48]], atol=1e-3)
        np.testing.assert_allclose(high.boxes, [[16, 32, 48, 96]], atol=1e-3)


KEPT = KeepRatio(shapes=((32, 64), (64, 32), (40, 40)), short=(32,), long=64)


def test_kept_proportions_at_several_scales():
    """A scale is a resize of its own; every image lies in one shape of each, and comes back from it."""
    multi = multi_scale_of(
        (1, 1, True, 0, 0), (2, 2, True, 0, 0), (0.5, 0.5, False, 0, 0), resize=KEPT
    )
    halves = [(32, 32)]  # of all three shapes, in multiples of 32
    assert shapes(multi) == [*KEPT.shapes, (64, 128), (128, 64), (96, 96), *halves]
    assert multi.passes_per_image == 5
    sizes = [(50, 100), (100, 50), (64, 64), (60, 66), (10, 200), (3, 2)]
    images = [np.full((*size, 3), 100, np.uint8) for size in sizes]
    for image, (height, width) in zip(images, sizes):
        image[height // 4 : height // 2, width // 4 : width // 2 + 1] = (255, 0, 0)
    batch = batch_of(images, multi)
    for scale, first, last in ((1, 0, 3), (2, 3, 6), (0.5, 6, 7)):
        views = [np.array(sizes) for sizes in batch.image_sizes[first:last]]
        assert (np.sum([view.any(1) for view in views], axis=0) == 1).all()
        content = np.sum(views, axis=0)
        np.testing.assert_array_equal(
            content[:2], [[32 * scale, 64 * scale], [64 * scale, 32 * scale]]
        )
    for one, size, found in zip(
        images,
        sizes,
        multi.to_images(
            multi.detect(VARIABLES, batch.images, batch.image_sizes), batch, list("abcdef")
        ),
    ):
        if min(size) < 20:  # vanishes in the smaller views
            continue
        rows, columns = np.nonzero(one[..., 0] == 255)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert len(found.boxes) == 1
        np.testing.assert_allclose(found.boxes[0], box, atol=2.5)


def test_evaluation_of_kept_proportions_has_every_image_once():
    source = Rectangles(9)
    large = KeepRatio(shapes=((64, 128), (128, 64), (80, 80)), short=(64,), long=128)
    multi = multi_scale_of((1, 1, True, 0, 0), (2, 2, False, 0, 0), resize=large)
    pairs = found_by(multi, source, batch_size=2)
    assert multi.passes_per_image == 3 and len(multi.views) == 6
    assert sorted(ground_truth.id for _, ground_truth in pairs) == sorted(
        source[i].id for i in range(9)
    )
    for found, ground_truth in pairs:
        assert len(found.labels) == len(ground_truth.labels)
        np.testing.assert_allclose(found.boxes, ground_truth.boxes, atol=3)


def test_a_pass_that_changes_proportions_is_refused():
    with pytest.raises(ConfigError, match="pass of 1 × 0.6 changes proportions.*'flip'"):
        MultiScale(DetectFn(AnySize()), tta.settings(options(preset="voc")), KEPT)


def test_mirroring_twice_is_nothing():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (3, 8, 12, 3)).astype(np.uint8)
    sizes = np.array([[8, 12], [8, 7], [0, 0]])
    once = multi_scale.mirror_images(images, sizes)
    np.testing.assert_array_equal(once[0], images[0, :, ::-1])
    np.testing.assert_array_equal(once[1, :, :7], images[1, :, 6::-1])  # the content alone
    np.testing.assert_array_equal(once[1, :, 7:], images[1, :, 7:])
    np.testing.assert_array_equal(multi_scale.mirror_images(once, sizes), images)
    boxes = rng.uniform(0, 8, (3, 5, 4)).astype(np.float32)
    found = Detections(boxes=boxes, scores=None, labels=None, valid=None)
    back = multi_scale.mirror_detections(multi_scale.mirror_detections(found, sizes), sizes)
    np.testing.assert_allclose(back.boxes, found.boxes, atol=1e-5)
    one = multi_scale.mirror_detections(found, sizes).boxes[1, 0]
    x1, y1, x2, y2 = found.boxes[1, 0]
    np.testing.assert_allclose(one, [7 - x2, y1, 7 - x1, y2])


def test_an_image_is_only_in_its_own_orientation():
    multi = multi_scale_of((1.0, 0.5, True, 0, 0))
    wide = np.full((20, 40, 3), 100, np.uint8)
    wide[5:15, 10:20] = (255, 0, 0)
    batch = batch_of([wide, wide], multi, real=[True, False])
    started = multi.detect(VARIABLES, batch.images, batch.image_sizes)
    assert [shapes(multi)[run.view] for run, _ in started] == [
        (16, 32)
    ] * 2  # no call without an image
    (found,) = multi.to_images(started, batch, ["a", ""])
    assert found.id == "a" and len(found.boxes) == 1


@pytest.mark.parametrize(
    "limits, kept",
    [
        ((0, 0), [0, 1, 2]),
        ((32, 0), [1, 2]),  # the longer side decides
        ((0, 32), [0, 1]),  # the shorter one
        ((30, 41), [0, 1]),
        ((32, 41), [1]),
    ],
)
def test_sizes_a_pass_keeps(limits, kept):
    """Sides in pixels of the original image: 32×30, 20×50 and 60×41; limits are exclusive."""
    boxes = np.array([[0, 0, 32, 30], [5, 5, 25, 55], [0, 0, 60, 41]], np.float32)
    labels = np.arange(3, dtype=np.int32)
    image = ImageDetections(id="x", boxes=boxes, scores=np.ones(3, np.float32), labels=labels)
    found = Moved(image, frames=boxes, masks=labels[:, None, None], size=(64, 64))
    one = multi_scale._of_size(found, custom((1.0, 1.0, True, *limits)).passes[0])
    for labels in (one.image.labels, one.masks[:, 0, 0]):
        np.testing.assert_array_equal(labels, kept)
    np.testing.assert_array_equal(one.frames, one.image.boxes)


def test_a_filtered_pass_adds_nothing_to_the_vote():
    image = np.full((64, 64, 3), 100, np.uint8)
    image[16:32, 16:32] = (255, 0, 0)
    for limit, count in ((17, 1), (16, 0)):
        multi = multi_scale_of((2.0, 2.0, False, 0, limit))
        batch = batch_of([image], multi)
        (found,) = multi.to_images(
            multi.detect(VARIABLES, batch.images, batch.image_sizes), batch, ["x"]
        )
        assert len(found.boxes) == count


@pytest.mark.parametrize("layout", [None, (1, 4)])
def test_one_program_per_input_size(layout):
    detector, source, compiled = AnySize(), Rectangles(11), []
    multi = multi_scale_of(
        (1, 1, True, 0, 0),
        (1, 0.5, True, 0, 0),
        (2, 2, True, 0, 64),
        detector=detector,
        over=layout and mesh(*layout),
    )
    jax.clear_caches()

    def listen(event, *_, **__):
        compiled.append(event.endswith("backend_compile_duration"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        multi.prepare(VARIABLES, 4)
        prepared = sum(compiled)
        found_by(multi, source)
        first = sum(compiled)
        found_by(multi, source)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert len(multi.views) == 4 and multi.passes_per_image == 6
    assert detector.traces == 4 and prepared == 4  # mirrored images go through the same
    assert first == 5 and sum(compiled) == first  # and one program merges


class RedMasks(AnySize):
    """Beside its box, which points of it are red, 16 each way."""

    def apply(self, variables, images, image_sizes, *, method):
        found = super().apply(variables, images, image_sizes, method=method)
        red = (images[..., 0] > 200) & (images[..., 1] < 50)
        low, high = jnp.split(found.boxes[:, 0], 2, axis=-1)  # [B, xy]
        points = low[:, None] + (jnp.arange(16)[:, None] + 0.5) / 16 * (high - low)[:, None]
        x, y = jnp.moveaxis(jnp.floor(points).astype(int), -1, 0)  # [B, 16]
        mask = jax.vmap(lambda image, y, x: image[y][:, x])(red, y, x).astype(jnp.float32)
        return found._replace(masks=jnp.stack([mask, jnp.zeros_like(mask)], 1))


@pytest.mark.parametrize("merge", ["voting", "nms"])
def test_masks_come_back_with_their_boxes(merge):
    """Of an L, so that one that is not mirrored back, or of another view's box, lies elsewhere."""
    image = np.full((64, 128, 3), 100, np.uint8)
    image[16:48, 32:96] = (255, 0, 0)
    image[16:32, 56:96] = 100
    red = (image[..., 0] > 200).astype(np.uint8)
    multi = multi_scale_of(
        (1, 1, True, 0, 0), (2, 2, True, 0, 0), detector=RedMasks(), merge=merge, pixel_offset=0.0
    )
    batch = batch_of([image, np.full_like(image, 100)], multi)
    started = multi.detect(VARIABLES, batch.images, batch.image_sizes)
    found, nothing = multi.to_images(started, batch, ["a", "b"])
    assert len(found.masks) == len(found.boxes) == 1 and nothing.masks == ()
    mask = decode(found.masks[0], 64, 128)
    overlap = (mask & red).sum() / (mask | red).sum()
    assert overlap > 0.93, overlap
    for run, one in started:  # each view alone finds it as well
        (alone,) = multi_scale.MultiScale.to_images(multi, [(run, one)], batch, ["a", "b"])[:1]
        mask = decode(alone.masks[0], 64, 128)
        assert (mask & red).sum() / (mask | red).sum() > 0.9


def test_too_little_memory_is_said_before_running():
    detector = AnySize()
    multi = multi_scale_of((1, 1, True, 0, 0), (2.2, 2.2, True, 0, 0), detector=detector)
    message = r"scale 2.2 \(70×70 pixels\) with 4 images .* GiB are free; lower the batch size"
    with pytest.raises(ConfigError, match=message):
        multi.prepare(VARIABLES, 4, free=4 * 70 * 70 * 3)  # the images alone just fit
    multi.prepare(VARIABLES, 4)  # there is enough


@pytest.mark.parametrize("late", [False, True])
def test_memory_that_runs_out_is_explained(late):
    class Full:
        def __array__(self, *_, **__):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating")

    multi = multi_scale_of((1.5, 1.5, False, 0, 0))
    batch = batch_of([np.zeros((8, 8, 3), np.uint8)], multi)

    def fail(*_):
        if not late:
            np.asarray(Full())
        return Detections(boxes=Full(), scores=Full(), labels=Full(), valid=Full())

    multi._detect = fail
    with pytest.raises(ConfigError, match=r"scale 1.5 \(48×48 pixels\).* memory ran out; lower"):
        started = multi.detect(VARIABLES, batch.images, batch.image_sizes)
        assert late
        multi.to_images(started, batch, ["x"])

    def broken(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    multi._detect = broken
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        multi.detect(VARIABLES, batch.images, batch.image_sizes)


def tiny_ssd(size=64):
    c = get_defaults()
    c.input_size = size
    c.eval.batch_size = 2
    c.parallel.devices = 1
    c.model = build.group(
        "detector",
        "ssd",
        backbone=build.group("backbone", TINY, stages=("c3", "c4")),
        neck=build.group("neck", "residual_extras", width=0.0625),
        max_detections=5,
        pre_nms=20,
    )
    return c


def test_an_ssd_at_several_sizes(tmp_path, monkeypatch):
    """From config to metrics, and what is done is not done again."""
    config = tiny_ssd()
    config.data.eval = build.group("source", "shapes", count=3, size=64, num_classes=2)
    config.data.threads, config.eval.tta.preset = 0, "custom"
    config.eval.tta.passes = ((1.0, 1.0, True, 0, 0), (0.6, 0.6, True, 0, 0))
    source = build.source(config.data.eval, "config.data.eval")
    detector = build.detector(config, source.class_names)
    run = evaluate_lib.make_multi_scale(config, detector, source, mesh(1, 1), tmp_path)
    assert run is not None
    rng = np.random.default_rng(0)
    params, stats = jax.tree.map(  # random weights without compiling an initialisation
        lambda x: rng.normal(0.0, 0.05, x.shape).astype(x.dtype),
        state.abstract_variables(detector, config),
    )
    variables = {"params": params, "batch_stats": jax.tree.map(np.ones_like, stats)}
    metrics = run(variables, 7)
    assert list(metrics)[0] == "tta/voc07/mAP" and 0 <= metrics["tta/voc07/mAP"] <= 1
    monkeypatch.delattr(MultiScale, "detect")  # would fail if it were run again
    assert run(variables, 7, repeat=False) == pytest.approx(metrics, nan_ok=True)
    with pytest.raises(AttributeError):
        run(variables, 8, repeat=False)


def test_a_scale_without_levels_is_named_before_anything_is_compiled(tmp_path):
    config = tiny_ssd()
    config.eval.tta.preset = "custom"
    config.eval.tta.passes = ((0.1, 0.1, False, 0, 0),)
    source = build.source(build.group("source", "shapes", count=1), "config.data.eval")
    detector = build.detector(config, source.class_names)
    with pytest.raises(ConfigError, match=r"scale 0.1 \(6×6 pixels\): .* leave no level"):
        evaluate_lib.make_multi_scale(config, detector, source, mesh(1, 1), tmp_path)


def test_better_than_one_pass():
    """Scores 1 for an exact box and a shifted detector: votes of mirrored passes cancel the shift."""
    source = Rectangles(10)
    shifted = {"shift": np.float32(1.0)}  # a pixel of the network to the lower right

    def ap(multi):
        evaluator = VocEvaluator(source.class_names, iou_threshold=0.75)
        with eval_batches(source, views=multi.views, batch_size=5, threads=1) as stream:
            found = evaluate_stream(
                multi.detect, shifted, stream, source, [evaluator], to_images=multi.to_images
            )
        return found["voc12/mAP"]

    alone, both = (multi_scale_of((1, 1, flip, 0, 0), iou_threshold=0.2) for flip in (False, True))
    assert ap(both) > ap(alone)


def test_plain_mapping_is_used(monkeypatch):
    """There is one place where boxes leave the network's pixels."""
    calls = []
    monkeypatch.setattr(multi_scale.detect, "moved", lambda *a: calls.append(1) or moved(*a))
    multi = multi_scale_of((1, 1, True, 0, 0), (2, 2, False, 0, 0))
    batch = batch_of([np.zeros((8, 8, 3), np.uint8)], multi)
    multi.to_images(multi.detect(VARIABLES, batch.images, batch.image_sizes), batch, ["x"])
    assert len(calls) == 3
