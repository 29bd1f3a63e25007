"""Tiles: grids, merging with a detector whose answers are known, and whole passes over large images."""

import cv2
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdet.config import get_defaults, validate
from jdet.data import tiles as tiles_lib
from jdet.data.transforms.keep_ratio import KeepRatio
from jdet.evaluation import evaluate as evaluate_lib
from jdet.evaluation import predictor as predictor_lib
from jdet.evaluation.coco_ap import CocoEvaluator
from jdet.evaluation.detect import DetectFn, Moved, moved
from jdet.evaluation.predictor import Predictor
from jdet.evaluation.tiling import Tiling
from jdet.parallel import mesh as mesh_lib
from jdet.types import Batch, ConfigError, DataError, Detections, Example, ImageDetections
from tests.evaluation.saved_run import kept_run, save_run
from tests.own_detector import GridDetector

TILING = Tiling(side=100, overlap=40, iou_threshold=0.5, max_detections=0)


@given(st.integers(1, 3000), st.integers(4, 400), st.data())
def test_grids_cover_every_side_and_neighbours_overlap(length, side, data):
    overlap = data.draw(st.integers(0, side // 2))
    first = tiles_lib.starts(length, side, overlap)
    assert first[0] == 0 and first[-1] == max(length - side, 0)
    steps = np.diff(first)
    assert (steps > 0).all() and (steps <= side - overlap).all()
    if len(first) > 1:  # and there are no more than needed
        assert (len(first) - 1) * (side - overlap) + side >= length
        assert (len(first) - 2) * (side - overlap) + side < length


def test_grid_by_hand():
    assert tiles_lib.starts(1000, 400, 100) == [0, 300, 600]
    assert tiles_lib.grid(50, 130, 100, 40) == [(0, 0, 50, 100), (0, 30, 50, 100)]


def found_in(tile, boxes, scores, labels, masks=None):
    """What an exact detector finds in a tile: of every object the part that it shows."""
    corner = np.array([tile.x, tile.y] * 2)
    limit = np.array([tile.width, tile.height] * 2)
    cut = np.clip(boxes - corner, 0, limit).astype(np.float32)
    there = (cut[:, 2:] - cut[:, :2] > 2).all(axis=1)
    whole = (cut + corner == boxes).all(axis=1)
    score = np.where(whole, scores, scores + 0.01).astype(np.float32)  # parts look better
    image = ImageDetections("", cut[there], score[there], labels[there])
    return Moved(image, cut[there], None if masks is None else masks[there], tile[2:])


def merged(size, boxes, scores, labels, tiling=TILING, masks=None):
    parts = [(t, found_in(t, boxes, scores, labels, masks)) for t in tiling.tiles(*size)]
    return tiling.merge(parts[::-1], size, "image")


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(60, 400), st.integers(60, 400))
def test_every_object_as_large_as_the_overlap_is_found_once_and_whole(seed, height, width):
    rng = np.random.default_rng(seed)
    cells = rng.permutation((height // 60) * (width // 60))[:25]
    corner = np.stack([cells % (width // 60), cells // (width // 60)], 1) * 60 + rng.integers(
        0, 20, (len(cells), 2)
    )
    boxes = np.concatenate([corner, corner + rng.integers(4, 38, corner.shape)], 1).astype(float)
    scores, labels = rng.permutation(len(cells)) / 100 + 0.3, rng.integers(0, 2, len(cells))
    found = merged((height, width), boxes, scores, labels).image
    order = np.argsort(-scores)
    np.testing.assert_array_equal(found.boxes, boxes[order])
    np.testing.assert_array_equal(found.labels, labels[order])
    np.testing.assert_allclose(found.scores, scores[order], rtol=1e-6)
    assert found.id == "image"


def test_a_box_and_its_double_across_the_width_of_a_touch_are_one():
    """Borders are touched up to 304: one of two boxes of an object lies beyond, and they still meet."""
    tiling = Tiling(side=400, overlap=100, iou_threshold=0.5, max_detections=0)
    boxes = np.array([[303.9, 100, 350, 150], [4.2, 100, 50, 150]], np.float32)
    parts = []
    for tile, box, score in zip(tiling.tiles(400, 700), boxes[:, None], (0.9, 0.8), strict=True):
        image = ImageDetections("", box, np.array([score], np.float32), np.array([0]))
        parts.append((tile, Moved(image, box, None, tile[2:])))
    assert tiling.merge(parts, (400, 700), "").image.scores.tolist() == [np.float32(0.9)]


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(60, 400), st.integers(60, 400))
def test_objects_are_found_once_by_a_detector_that_is_a_pixel_off(seed, height, width):
    """Each tile is off in its own way, by up to the width of a touch, and so are its scores."""
    rng = np.random.default_rng(seed)
    cells = rng.permutation((height // 60) * (width // 60))
    corner = np.stack([cells % (width // 60), cells // (width // 60)], 1) * 60 + rng.integers(
        0, 20, (len(cells), 2)
    )
    boxes = np.concatenate([corner, corner + rng.integers(14, 39, corner.shape)], 1).astype(float)
    scores, labels = rng.uniform(0.3, 0.9, len(cells)), np.zeros(len(cells), int)
    parts = []
    for tile in TILING.tiles(height, width):
        part = found_in(tile, boxes, scores, labels)
        moved = part.frames + rng.uniform(-0.99, 0.99, part.frames.shape)
        moved = np.clip(moved, 0, np.array([tile.width, tile.height] * 2)).astype(np.float32)
        noisy = part.image.scores + rng.uniform(-0.1, 0.1, len(moved)).astype(np.float32)
        parts.append(
            (tile, Moved(part.image._replace(boxes=moved, scores=noisy), moved, None, tile[2:]))
        )
    found = TILING.merge(parts, (height, width), "").image.boxes
    away = np.abs(found[:, None] - boxes).max(axis=2)  # [found, objects]
    assert sorted(away.argmin(axis=1)) == list(range(len(boxes)))
    assert away.min(axis=1).max(initial=0) < 3


def test_objects_larger_than_the_overlap_are_kept_in_parts():
    """Of one of 90 pixels over a seam, both tiles hold more than the overlap."""
    boxes = np.array([[35.0, 10, 125, 30]])  # tiles begin at 0 and 60
    found = merged((100, 160), boxes, np.array([0.5]), np.array([0])).image
    np.testing.assert_array_equal(found.boxes, [[35, 10, 100, 30], [60, 10, 125, 30]])
    # A piece within the overlap is the neighbour's, which sees more of it.
    boxes = np.array([[35.0, 10, 95, 30]])
    found = merged((100, 160), boxes, np.array([0.5]), np.array([0])).image
    np.testing.assert_array_equal(found.boxes, [[35, 10, 95, 30]])


def test_only_boxes_of_different_tiles_and_of_one_class_suppress_each_other():
    """Two objects of one class that overlap by 0.6 stay, found by both tiles or by one."""
    pair = np.array([[64.0, 20, 84, 40], [69, 20, 89, 40]])
    scores, size = np.array([0.9, 0.8]), (100, 160)
    for labels in (np.array([0, 0]), np.array([0, 1])):
        found = merged(size, pair, scores, labels).image
        np.testing.assert_array_equal(found.boxes, pair)
        found = merged(size, pair - [60, 0, 60, 0], scores, labels).image
        np.testing.assert_array_equal(found.boxes, pair - [60, 0, 60, 0])


def test_masks_follow_and_the_best_are_kept():
    boxes = np.array([[10.0, 10, 30, 30], [90, 40, 110, 70], [130, 70, 150, 90]])
    masks = np.stack([np.full((4, 4), v) for v in (0.6, 0.7, 0.8)])
    tiling = TILING._replace(max_detections=2)
    scores, labels = np.array([0.2, 0.9, 0.5]), np.zeros(3, int)
    found = merged((100, 160), boxes, scores, labels, tiling, masks)
    np.testing.assert_array_equal(found.image.boxes, boxes[[1, 2]])
    np.testing.assert_array_equal(found.masks[:, 0, 0], [0.7, 0.8])
    assert found.size == (100, 160)
    (first, _) = found.pasted().masks
    assert first["size"] == [100, 160]


def test_rows_of_processes_hold_whole_images_and_equal_batches():
    sizes = [(100, 350), (90, 90), (400, 100), (250, 250), (30, 400)]
    resize = KeepRatio(shapes=((32, 64), (64, 32), (64, 64)), short=(32,), long=64)
    dealt = tiles_lib.tile_rows(sizes, resize, side=100, overlap=20, local=4, processes=2)
    assert len(dealt[0]) == len(dealt[1]) and len(dealt[0]) % 4 == 0
    for process, rows in enumerate(dealt):
        images = [row.image for row in rows if row.image >= 0]
        assert {image % 2 for image in images} == {process}
        for image in set(images):
            own = [row for row in rows if row.image == image]
            expected = tiles_lib.grid(*sizes[image], 100, 20)
            assert sorted(row.tile for row in own) == expected
            assert [row.last for row in own] == [False] * (len(own) - 1) + [True]
    for first in range(0, len(dealt[0]), 4):
        assert len({row.shape for rows in dealt for row in rows[first : first + 4]}) == 1


COLOURS = ((255, 0), (0, 255))
"""Red and green of the classes; blue is the score."""


def draw(image, boxes, labels, scores):
    for (x1, y1, x2, y2), label, score in zip(boxes.astype(int), labels, scores, strict=True):
        image[y1:y2, x1:x2] = (*COLOURS[label], int(score))
    return image


def exact(variables, images, image_sizes):
    """Every connected region of a class's colour, exactly."""
    del variables, image_sizes
    depth = 40
    boxes = np.zeros((len(images), depth, 4), np.float32)
    scores, labels = np.zeros((len(images), depth), np.float32), np.zeros((len(images), depth), int)
    for row, image in enumerate(np.asarray(images)):
        n = 0
        for label, (red, green) in enumerate(COLOURS):
            mask = (image[..., 0] == red) & (image[..., 1] == green)
            regions = cv2.connectedComponentsWithStats(mask.astype(np.uint8))[2][1:, :4]
            for x, y, w, h in regions:
                boxes[row, n], labels[row, n] = (x, y, x + w, y + h), label
                scores[row, n] = image[y, x, 2] / 255
                n += 1
    return Detections(boxes=boxes, scores=scores, labels=labels, valid=scores > 0)


exact.fold = lambda variables: variables


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    save_run(folder)
    return folder


def scene(cells, side, seed=0):
    """One object in every cell of a grid; a fifth of those drawn are no ground truth."""
    rng = np.random.default_rng(seed)
    corner = np.stack(np.divmod(np.arange(cells**2), cells)[::-1], 1) * side
    corner = corner + rng.integers(2, side - 62, corner.shape)
    boxes = np.concatenate([corner, corner + rng.integers(6, 60, corner.shape)], 1).astype(float)
    drawn_label = rng.integers(0, 2, len(boxes))
    scores = rng.integers(30, 256, len(boxes))
    return boxes, drawn_label, scores, rng.random(len(boxes)) < 0.8


def example(id, boxes, labels):
    boxes = boxes.astype(np.float32)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return Example(id, b"", boxes, labels.astype(np.int32), np.zeros(len(boxes), bool), area)


def test_a_large_image_has_the_ap_of_its_objects_in_small_images(workdir, tmp_path, monkeypatch):
    """4,000 × 4,000 pixels, 256 objects and distractors, many on seams; through the predictor."""
    monkeypatch.setattr(predictor_lib, "DetectFn", lambda detector: exact)
    run = kept_run(workdir, tmp_path / "run", input_size=300, resize=dict(name="warp"))
    boxes, labels, scores, real = scene(16, 250)
    large = draw(np.zeros((4000, 4000, 3), np.uint8), boxes, labels, scores)
    predictor = Predictor(run, batch_size=16, tile=300, tile_overlap=70)
    (found,) = predictor([large])
    assert len(found.boxes) == len(boxes)  # each once
    np.testing.assert_array_equal(np.sort(found.boxes, 0), np.sort(boxes, 0))
    small = Predictor(run, batch_size=16)
    moved = boxes - np.tile(boxes[:, :2] // 250 * 250, 2)
    images = [
        draw(
            np.zeros((300, 300, 3), np.uint8),
            moved[i : i + 1],
            labels[i : i + 1],
            scores[i : i + 1],
        )
        for i in range(len(boxes))
    ]
    ap = []
    for detections, ground_truth in (
        ([found], [example("0", boxes[real], labels[real])]),
        (
            small(images),
            [
                example(
                    str(i), moved[i : i + 1][real[i : i + 1]], labels[i : i + 1][real[i : i + 1]]
                )
                for i in range(len(boxes))
            ],
        ),
    ):
        evaluator = CocoEvaluator(("a", "b"), max_detections=(1, 10, 1000))
        for one, objects in zip(detections, ground_truth, strict=True):
            evaluator.add(one, objects)
        ap.append(evaluator.result())
    assert ap[0]["coco/AP"] == ap[1]["coco/AP"] and 0.5 < ap[0]["coco/AP"] < 0.95


class Large:
    """Three images of which the third cannot be read."""

    class_names = ("a", "b")

    def __init__(self):
        self.parts = [scene(5, 90, 1), scene(1, 128, 2), scene(2, 90, 3)]

    def __len__(self):
        return 3

    def image_size(self, index):
        side = (450, 128, 180)[index]
        return side, side

    def __getitem__(self, index):
        boxes, labels, scores, _ = self.parts[index]
        image = draw(np.zeros((*self.image_size(index), 3), np.uint8), boxes, labels, scores)
        encoded = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
        whole = example(str(index), boxes, labels)
        return whole._replace(image=encoded[:50] if index == 2 else encoded)


def test_an_evaluation_in_tiles_sees_every_image_once():
    config, source = get_defaults(), Large()
    config.input_size, config.class_names = 128, source.class_names
    config.data.on_error, config.eval.batch_size = "skip", 4
    config.eval.tile.side, config.eval.tile.overlap = 128, 64
    config.eval.metrics = ("coco",)
    validate(config)
    mesh = mesh_lib.make_mesh(config)
    tiling = Tiling.of(config.eval.tile)
    found = evaluate_lib.evaluate(config, source, mesh, exact, {}, samples=2, tiling=tiling)
    assert found.metrics["coco/AP"] == 1.0
    assert [pair[0].id for pair in found.samples.pairs][:1] == ["0"]
    config.data.on_error = "raise"
    with pytest.raises(DataError, match="image 2|truncated|decode"):
        evaluate_lib.evaluate(config, source, mesh, exact, {}, tiling=tiling)


def test_a_network_in_an_evaluation_finds_what_it_finds_in_each_tile():
    """Rows of the loader, their places and corners: a compiled detector with random weights."""

    class One(Large):
        def __len__(self):
            return 1

    config, source = get_defaults(), One()
    config.input_size, config.class_names = 128, source.class_names
    config.eval.batch_size, config.parallel.devices, config.eval.metrics = 4, 1, ("coco",)
    mesh, tiling = mesh_lib.make_mesh(config), Tiling(128, 40, 0.3, 0)
    detector = GridDetector(num_classes=2, input_size=128, width=8, halvings=4)
    images, sizes = np.zeros((4, 128, 128, 3), np.uint8), np.full((4, 2), 128, np.int32)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(
        lambda: detector.init(jax.random.key(0), images, sizes, method="detect")
    )
    variables = jax.tree.map(lambda x: rng.normal(0, 0.2, x.shape).astype(np.float32), shapes)
    detect = DetectFn(detector, mesh)
    outcome = evaluate_lib.evaluate(
        config, source, mesh, detect, variables, samples=1, tiling=tiling
    )
    ((found, _),) = outcome.samples.pairs

    pixels = draw(np.zeros((450, 450, 3), np.uint8), *source.parts[0][:3])
    batch = Batch.of_images(None, sizes, original_sizes=sizes, real=np.arange(4) < 1)
    parts = []
    for tile in tiling.tiles(450, 450):
        images[0] = tile.cut(pixels)
        parts.append((tile, moved(detect(variables, images, sizes), batch, [""] * 4)[0]))
    alone = tiling.merge(parts, (450, 450), "").pasted()
    assert 20 < len(found.boxes) < sum(len(part.frames) for _, part in parts)
    for field in ("boxes", "scores", "labels"):
        ours, theirs = getattr(found, field), getattr(alone, field)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)


def test_objects_that_the_overlap_does_not_hold_are_told():
    """Of the image that is larger than a tile; one that cannot be read is passed over."""

    class Long(Large):
        def __getitem__(self, index):
            if index == 2:
                raise DataError("gone")
            boxes = np.array([[0.0, 0, 70, 10], [0, 0, 20, 12]])
            return example("", boxes, np.zeros(2, int))._replace(
                image=np.zeros((9, 9, 3), np.uint8)
            )

    text = Tiling(128, 64, 0.5, 0).warning(Long())
    assert "1 of 2 sampled objects are longer than the 61 pixels" in text
    assert text.count("--config.eval.tile.side=152 --config.eval.tile.overlap=76") == 1
    assert Tiling(152, 76, 0.5, 0).warning(Long()) == ""
    assert Tiling(500, 10, 0.5, 0).warning(Long()) == ""  # nothing is cut


def test_settings_are_checked():
    config = get_defaults()
    config.eval.tile.overlap = 300
    validate(config)  # off
    config.eval.tile.side = 400
    with pytest.raises(ConfigError, match="overlap to 200 or less, or the side to 600"):
        validate(config)
    config.eval.tile.overlap, config.eval.tta.preset = 100, "flip"
    with pytest.raises(ConfigError, match="tiles are shown at one size"):
        validate(config)
    assert Tiling.of(get_defaults().eval.tile) is None
