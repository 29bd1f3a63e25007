"""Coverage against all default boxes written out, and what training says when it is poor."""

import numpy as np
import pytest

from jdet import build
from jdet.analysis.box_coverage import read_objects, sampler, summary
from jdet.config import get_defaults
from jdet.data.sources.shapes import ShapesSource
from jdet.data.transforms.augment import Augment
from jdet.data.transforms.ssd import SSDAugment
from jdet.data.transforms.warp import Warp
from jdet.ops import anchors
from jdet.ops.coverage import Objects, best_iou, cover
from jdet.types import DataError, Example

STRIDES, CELLS = [8, 16, 32, 64], [12, 6, 3, 1]  # at 96 pixels
LEVELS = anchors.ssd_levels(96, STRIDES, CELLS)
SQUARE = Warp(96)


def random_objects(count=200, seed=0, size=96.0):
    rng = np.random.default_rng(seed)
    sides = np.exp(rng.uniform(np.log(3), np.log(90), (count, 2)))
    low = rng.uniform(-5, size - 5, (count, 2))
    return Objects(
        np.concatenate([low, low + sides], 1), rng.integers(0, 3, count), np.arange(count) // 4
    )


def literal_iou(objects, levels=LEVELS, cells=CELLS, clip=None):
    """Every object with every default box."""
    priors = anchors.default_boxes(levels, [(n, n) for n in cells], clip).astype(float)
    low, high = priors[:, :2] - priors[:, 2:] / 2, priors[:, :2] + priors[:, 2:] / 2
    a, b = objects.boxes[:, None, :2], objects.boxes[:, None, 2:]
    common = np.maximum(np.minimum(b, high) - np.maximum(a, low), 0).prod(-1)
    return common / ((b - a).prod(-1) + (high - low).prod(-1) - common)


SHIFTED = anchors.replace_columns(
    LEVELS, first_centres=[2.5, 2.5, 10.5, 48], max_sizes=[0, 40, 60, 80]
)
DENSER = tuple(level._replace(first=5.0, step=level.step * 0.9) for level in LEVELS)


@pytest.mark.parametrize("clip", [0, 96])
@pytest.mark.parametrize("levels", [LEVELS, SHIFTED, DENSER])
@pytest.mark.parametrize("threshold", [0.2, 0.35, 0.5])
def test_coverage_equals_the_literal_rule(threshold, levels, clip):
    objects = random_objects()
    iou = literal_iou(objects, levels, clip=(clip, clip) if clip else None)
    found = cover(objects, levels, CELLS, threshold, clip)
    np.testing.assert_allclose(found.best, iou.max(1), rtol=1e-5)
    np.testing.assert_allclose(best_iou(objects, levels, CELLS, clip), iou.max(1), rtol=1e-5)
    clear = (np.abs(iou - threshold) > 1e-5).all(1)  # float32 boxes may round across the threshold
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(found.count[clear], (iou >= threshold).sum(1)[clear])
    assert found.count.max() > (3 if threshold < 0.5 else 0)


def test_known_geometry():
    side = LEVELS[0].size  # the first level's square, in the second cell of the first row
    centre = np.array([12.0, 4.0])
    box = np.concatenate([centre - side / 2, centre + side / 2])
    twin = box + [0.5, 0, 0.5, 0]  # nearest to the same default box
    objects = Objects(np.array([box, twin, box]), np.array([0, 0, 1]), np.array([0, 0, 1]))
    found = cover(objects, LEVELS, CELLS)
    assert found.best[0] == pytest.approx(1) and found.best[1] == pytest.approx(8.5 / 9.5)
    np.testing.assert_array_equal(found.shared, [True, True, False])  # images do not mix


def test_more_boxes_never_cover_less():
    objects = random_objects(seed=1)
    few, many = cover(objects, LEVELS[1:], CELLS[1:]), cover(objects, LEVELS, CELLS)
    assert (many.best >= few.best).all() and (many.count >= few.count).all()
    assert (many.count > few.count).any()


def test_summary_adds_up():
    objects = random_objects()
    found = cover(objects, LEVELS, CELLS)
    rows = summary(objects, found, "abc")
    whole = {row["class"]: row for row in rows if row["sizes"] == "all"}
    assert list(whole) == ["a", "b", "c", "all"] and whole["all"]["objects"] == 200
    for name in "abc":
        parts = [row for row in rows if row["class"] == name and row["sizes"] != "all"]
        assert sum(row["objects"] for row in parts) == whole[name]["objects"]
        hits = sum(row["objects"] * row["recall"] for row in parts)
        assert hits == pytest.approx(whole[name]["objects"] * whole[name]["recall"])
    small, large = rows[-len({row["sizes"] for row in rows}) + 1], rows[-1]
    assert small["size"][2] < large["size"][0]
    assert whole["all"]["recall"] == pytest.approx((found.best >= 0.5).mean())


class Boxes:
    """A source of given boxes in images of 200 × 100, which cannot be opened."""

    class_names = ("a", "b")

    def __init__(self, *boxes, labels=None, ignore=None, known=True):
        self.boxes = np.array(boxes, np.float32)
        self.labels = np.zeros(len(boxes), np.int32) if labels is None else np.array(labels)
        self.ignore = np.zeros(len(boxes), bool) if ignore is None else np.array(ignore)
        self.known = known

    def __len__(self):
        return 20

    def __getitem__(self, i):
        areas = np.ones(len(self.boxes), np.float32)
        return Example(str(i), "gone.jpg", self.boxes, self.labels, self.ignore, areas)

    def image_size(self, i):
        return (100, 200) if self.known else None


def test_objects_are_read_in_pixels_of_the_input_without_their_images():
    source = Boxes([0, 0, 200, 100], [100, 50, 150, 100], labels=[0, 1], ignore=[False, True])
    found = read_objects(source, SQUARE)
    assert len(found.labels) == 40 and len(np.unique(found.images)) == 20
    np.testing.assert_allclose(found.boxes[:2], [[0, 0, 96, 96], [48, 48, 72, 96]])
    assert (read_objects(source, SQUARE, keep_ignored=False).labels == 0).all()
    assert len(read_objects(source, SQUARE, max_images=3).labels) == 6
    assert len(read_objects(source, SQUARE, max_boxes=5).labels) == 6
    source.known = False
    with pytest.raises(DataError, match="gone.jpg"):
        read_objects(source, SQUARE)
    assert not len(read_objects(source, SQUARE, on_error="skip").labels)


def test_augmented_objects_follow_the_config():
    source = Boxes([80, 40, 120, 60])
    augment = SSDAugment(crop=False, expand=1.0)
    found = read_objects(source, Warp(100), augment=augment)
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    assert (sides < 20.5).all() and sides.min() < 10  # zoomed out by up to four
    np.testing.assert_array_equal(
        found.boxes, read_objects(source, Warp(100), augment=augment).boxes
    )
    np.testing.assert_allclose(
        read_objects(source, Warp(100), augment=Augment()).boxes[0], [40, 40, 60, 60]
    )


def detector(**values):
    c = get_defaults()
    c.input_size = 96
    c.model = build.group(
        "detector",
        "ssd",
        backbone=build.group("backbone", "resnet", depth=18, width=0.125),
        neck=build.group("neck", "residual_extras", width=0.125),
        **values,
    )
    return build.detector(c, ("a", "b"))


def warning(source, model, sample=2000):
    return model.start_warning(sampler(source, SQUARE, sample), source.class_names, SQUARE)


def test_warning_counts_what_no_default_box_reaches():
    small, large = [100, 50, 106, 53], [20, 10, 100, 50]  # 3 and 38 pixels of the input
    said = warning(Boxes(small, large, labels=[1, 0]), detector())
    assert "b 100% (20 of 20 sampled, median size of those 3 pixels)" in said
    assert "a " not in said.split(":")[1] and "jdet.analysis.default_boxes" in said
    assert "bipartite" in said and "config.input_size=96" in said
    assert warning(Boxes(large), detector()) == ""
    only_ignored = Boxes(small, large, ignore=[True, False])
    assert warning(only_ignored, detector(train_ignored=False)) == ""


def test_warning_looks_at_a_sample_only():
    class Counting(ShapesSource):
        read = 0

        def __getitem__(self, index):
            self.read += 1
            return super().__getitem__(index)

    source = Counting(size=32, count=5000, num_classes=2, min_scale=0.2)
    warning(source, detector(), sample=50)
    assert 0 < source.read <= 10
