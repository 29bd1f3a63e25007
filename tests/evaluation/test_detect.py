import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh
from pycocotools import mask as coco_mask

from jdet.data.pipeline import eval_batches
from jdet.data.transforms.keep_ratio import KeepRatio
from jdet.data.transforms.warp import Warp
from jdet.evaluation.detect import DetectFn, one_ahead, to_images
from jdet.evaluation.evaluate import evaluate_stream, make_evaluators, metric_names
from jdet.evaluation.gather import SampleImages
from jdet.types import Batch, ConfigError, Detections, Example, ImageDetections
from tests.evaluation.pixel_detector import MaskDetector, PixelDetector

SIDE = 32


VARIABLES = {"shift": np.float32(0)}


class Rectangles:
    """One red rectangle on grey in images of different sizes; every fifth is empty."""

    class_names = ("red", "other")

    def __init__(self, count, broken=()):
        self.count, self.broken = count, broken

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        height, width = SIDE * rng.integers(1, 5, 2)  # whole multiples: resizing keeps edges
        image = np.full((height, width, 3), rng.integers(90, 160), np.uint8)
        cells = np.sort(rng.choice(SIDE, (2, 2), replace=False), axis=0)
        scale = np.array([width, height]) // SIDE
        box = (cells * scale).ravel()
        n = int(index % 5 > 0)
        if n:
            image[box[1] : box[3], box[0] : box[2]] = (255, 0, 0)
        return Example(
            id=f"p{index}",
            image=b"no image" if index in self.broken else image,
            boxes=np.tile(box, (n, 1)).astype(np.float32),
            labels=np.zeros(n, np.int32),
            ignore=np.zeros(n, bool),
            areas=np.ones(n, np.float32),
        )


def stream(source, batch_size=4, **options):
    return eval_batches(
        source, resize=Warp(SIDE), max_boxes=2, batch_size=batch_size, threads=1, **options
    )


def mesh(groups, members):
    devices = np.array(jax.devices()[: groups * members]).reshape(groups, members)
    return Mesh(devices, ("group", "member"), axis_types=(AxisType.Auto,) * 2)


class Record:
    """An evaluator with nothing but what it must have."""

    def __init__(self, class_names=()):
        self.class_names = class_names
        self.pairs = []

    def add(self, detections, ground_truth):
        self.pairs.append((detections, ground_truth))

    def result(self):
        return {"images": float(len(self.pairs))}


def test_boxes_return_to_the_original_images():
    source, record, progress = Rectangles(11), Record(), []
    evaluators = [record, *make_evaluators(["voc", "coco"], source.class_names)]
    with stream(source) as batches:
        metrics = evaluate_stream(
            DetectFn(PixelDetector()),
            VARIABLES,
            batches,
            source,
            evaluators,
            on_progress=lambda done, total: progress.append((done, total)),
        )
    assert metrics["images"] == 11 and progress == [(4, 11), (8, 11), (11, 11)]
    for index, (found, ground_truth) in enumerate(record.pairs):
        assert found.id == ground_truth.id == f"p{index}"
        np.testing.assert_allclose(found.boxes, ground_truth.boxes, atol=1e-4)
    assert metrics["voc07/mAP"] == metrics["voc12/mAP"] == 1.0
    assert metrics["coco/AP"] == pytest.approx(1)


def test_images_that_keep_their_proportions_come_once_each_and_return_to_their_pixels():
    """Wide, high and square inputs, each compiled once; an image that cannot be read is left out."""
    resize = KeepRatio(shapes=((64, 128), (128, 64), (80, 80)), short=(64,), long=128)
    source, record, detector = Rectangles(13, broken=(7,)), Record(), PixelDetector()
    options = dict(resize=resize, max_boxes=2, batch_size=4, threads=1, on_error="skip")
    with eval_batches(source, **options) as batches:
        metrics = evaluate_stream(DetectFn(detector), VARIABLES, batches, source, [record])
    assert metrics["images"] == 12 and detector.traces == 3
    assert {found.id for found, _ in record.pairs} == {f"p{i}" for i in range(13)} - {"p7"}
    for found, ground_truth in record.pairs:
        assert found.id == ground_truth.id
        pixel = max(1.0, max(ground_truth.image.shape) / 64)
        np.testing.assert_allclose(found.boxes, ground_truth.boxes, atol=2 * pixel)


def test_to_images_scales_clips_and_drops():
    found = Detections(
        boxes=np.array(
            [
                [[1, 2, 3, 4], [-5, -5, 40, 40], [0, 0, 1, 1]],
                [[1, 1, np.nan, 2], [2, 2, 6, 6], [9, 9, 9, 9]],
                [[0, 0, 1, 1]] * 3,
            ],
            np.float32,
        ),
        scores=np.array([[0.9, 0.8, 0.7], [0.9, 0.8, 0.001], [0.9, 0.8, 0.7]], np.float32),
        labels=np.array([[0, 1, 2], [0, 1, 2], [0, 1, 2]], np.int32),
        valid=np.array([[1, 1, 0], [1, 1, 1], [1, 1, 1]], bool),
    )
    batch = Batch.of_images(
        None,
        image_sizes=np.array([[10, 10], [10, 8], [0, 0]]),
        original_sizes=np.array([[20, 50], [10, 16], [0, 0]]),
        real=np.array([True, True, False]),
    )
    first, second = to_images(jax.tree.map(jnp.asarray, found), batch, ["a", "b", ""])
    assert first.id == "a" and second.id == "b"
    # width: 50 / 10, height: 20 / 10; then inside 50 × 20
    np.testing.assert_allclose(first.boxes, [[5, 4, 15, 8], [0, 0, 50, 20]])
    np.testing.assert_array_equal(first.labels, [0, 1])
    # Not a number is dropped; a low score and an empty box are not.
    np.testing.assert_allclose(second.boxes, [[4, 2, 12, 6], [16, 9, 16, 9]])
    np.testing.assert_allclose(second.scores, [0.8, 0.001])


@pytest.mark.parametrize("layout", [(1, 4), (2, 2), (4, 1), (1, 1)])
def test_results_do_not_depend_on_the_devices(layout):
    source = Rectangles(11)

    def run(mesh):
        record = Record()
        with stream(source) as batches:
            evaluate_stream(DetectFn(PixelDetector(), mesh), VARIABLES, batches, source, [record])
        return [found for found, _ in record.pairs]

    for one, many in zip(run(None), run(mesh(*layout)), strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, many)


class Outlined(Rectangles):
    """With the rectangles' outlines as polygons."""

    def __getitem__(self, index):
        example = super().__getitem__(index)
        corners = [(x1, y1, x2, y1, x2, y2, x1, y2) for x1, y1, x2, y2 in example.boxes.tolist()]
        return example._replace(masks=tuple([list(polygon)] for polygon in corners))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_masks_return_to_the_original_images_with_their_boxes():
    """Also those of boxes that reach beyond the image: cut, not moved."""
    found = Detections(
        boxes=np.array([[[2, 2, 6, 8], [-4, 0, 4, 10]]], np.float32),
        scores=np.array([[0.9, 0.8]], np.float32),
        labels=np.array([[0, 1]], np.int32),
        valid=np.array([[True, True]]),
        masks=np.stack([np.ones((8, 8)), np.arange(64).reshape(8, 8) % 8 >= 6])[None],
    )
    batch = Batch.of_images(
        None, image_sizes=np.array([[10, 10]]), original_sizes=np.array([[20, 50]])
    )
    (image,) = to_images(jax.tree.map(jnp.asarray, found), batch, ["a"])
    first, second = (coco_mask.decode(rle).astype(bool) for rle in image.masks)
    assert first.shape == (20, 50)
    rows, columns = np.nonzero(first)
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (4, 16, 10, 30)
    # The last two of eight columns of a box from x = -20 to 20: from x = 10 on.
    rows, columns = np.nonzero(second)
    assert (columns.min(), columns.max() + 1) == (10, 20)
    np.testing.assert_array_equal(image.boxes[1], [0, 0, 20, 20])
    assert image.select(np.array([False, True])).masks == image.masks[1:]


@pytest.mark.parametrize("layout", [None, (2, 2)])
def test_masks_are_evaluated(layout):
    source = Outlined(11)
    evaluators = make_evaluators(["coco_segm", "coco"], source.class_names)
    with stream(source) as batches:
        detect = DetectFn(MaskDetector(), layout and mesh(*layout))
        metrics = evaluate_stream(detect, VARIABLES, batches, source, evaluators)
    assert metrics["coco_segm/AP"] == metrics["coco/AP"] == pytest.approx(1)
    shifted = {"shift": np.float32(1)}
    evaluators = make_evaluators(["coco_segm"], source.class_names)
    with stream(source) as batches:
        metrics = evaluate_stream(detect, shifted, batches, source, evaluators)
    assert 0.05 < metrics["coco_segm/AP"] < 0.9


def test_a_batch_is_started_before_the_one_before_it_is_handled():
    events = []
    for batch, started in one_ahead("abc", lambda batch: events.append(batch) or batch.upper()):
        events.append(started)
        assert started == batch.upper()
    assert "".join(events) == "abAcBC"
    assert list(one_ahead([], str)) == []


def test_every_device_works_and_nothing_is_compiled_twice():
    detector, source = PixelDetector(), Rectangles(11)
    detect = DetectFn(detector, mesh(2, 2))
    seen = []
    with stream(source) as batches:
        evaluate_stream(
            lambda *arguments: seen.append(detect(*arguments)) or seen[-1],
            VARIABLES,
            batches,
            source,
            [],
        )
    assert len(seen) == 3 and detector.traces == 1
    boxes = seen[0].boxes
    assert len(boxes.devices()) == 4
    assert boxes.addressable_shards[0].data.shape[0] * 4 == boxes.shape[0]


def test_batch_must_divide_over_the_devices():
    detect = DetectFn(PixelDetector(), mesh(1, 4))
    with pytest.raises(ConfigError, match=r"eval.batch_size = 3 .* 4 devices"):
        detect(VARIABLES, np.zeros((3, SIDE, SIDE, 3), np.uint8), np.zeros((3, 2), np.int32))


def test_every_image_must_come_exactly_once():
    source, detect = Rectangles(6), DetectFn(PixelDetector())
    with stream(source) as batches:
        first, second = batches
    for batches, message in (
        ([first], "2 were missing"),
        ([first, second, first], "4 came more than once"),
    ):
        with pytest.raises(RuntimeError, match=message):
            evaluate_stream(detect, VARIABLES, batches, source, [])
    with pytest.raises(RuntimeError, match="holds image 5 of 5 expected"):
        evaluate_stream(detect, VARIABLES, [first, second], source, [], expected=5)
    with stream(source, limit=5) as batches:
        metrics = evaluate_stream(detect, VARIABLES, batches, source, [Record()], expected=5)
    assert metrics == {"images": 5.0}


def test_unreadable_images_are_left_out_when_the_stream_skips_them():
    source, record = Rectangles(7, broken=(0, 5)), Record()
    with stream(source, on_error="skip") as batches:
        evaluate_stream(DetectFn(PixelDetector()), VARIABLES, batches, source, [record])
    assert [found.id for found, _ in record.pairs] == ["p1", "p2", "p3", "p4", "p6"]


def test_a_detector_of_other_classes_is_refused():
    class Wrong(PixelDetector):
        def apply(self, *arguments, **options):
            found = super().apply(*arguments, **options)
            return found._replace(labels=found.labels + 2)

    source = Rectangles(3)
    with stream(source) as batches, pytest.raises(ValueError, match="label 2.*2 classes"):
        evaluate_stream(DetectFn(Wrong()), VARIABLES, batches, source, [])


def test_kept_images_are_spread_over_the_stream():
    for count, total, expected in (
        (3, 10, [0, 3, 6]),
        (5, 2, [0, 1]),
        (0, 4, []),
        (4, 4, range(4)),
    ):
        keep = SampleImages(count, total)
        for i in range(total):
            keep.add(i, i)
        assert keep.pairs == [(i, i) for i in expected] and keep.result() == {}


def test_evaluators_are_rows_of_the_table_or_classes_of_ones_own():
    with pytest.raises(ConfigError, match="config.eval.metrics: .*'coco_seg'.*mean 'coco_segm'"):
        make_evaluators(["voc", "coco_seg"], ["x"])
    with pytest.raises(ConfigError, match="config.eval.metrics: .*cannot be imported"):
        make_evaluators(["tests.evaluation.test_detect:Nothing"], ["x"])
    (own,) = make_evaluators(["tests.evaluation.test_detect:Record"], ["x"])
    assert isinstance(own, Record) and own.class_names == ["x"]


def test_metric_names_are_those_of_an_evaluation():
    source = Rectangles(7)
    evaluators = make_evaluators(("coco", "voc"), source.class_names)
    for index in range(len(source)):
        ground_truth = source[index]
        found = ImageDetections(
            id=ground_truth.id,
            boxes=ground_truth.boxes,
            scores=np.ones(len(ground_truth.boxes)),
            labels=ground_truth.labels,
        )
        for evaluator in evaluators:
            evaluator.add(found, ground_truth)
    names = [name for evaluator in evaluators for name in evaluator.result()]
    assert metric_names(("coco", "voc"), source.class_names) == names and "coco/AP50" in names
