"""Options that users of other detectors know: ignore regions, fewest negatives, limits of detections."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.detectors.multibox import multibox_loss
from jdet.detectors.pyramid import Predictions
from jdet.ops.anchors import default_boxes
from jdet.types import ConfigError
from tests.detectors import wild

PRIORS = np.array([[8, 8, 16, 16], [24, 8, 16, 16], [8, 24, 16, 16], [24, 24, 16, 16]], np.float32)
LOGITS = jnp.array([[[3.0, 0, 0], [2.0, 0, 0], [1.0, 0, 0], [0.0, 0, 0]]])
"""Background is the more difficult the further back a default box stands."""


def count(boxes, valid, **options):
    """Positives, negatives and background of SSD's loss on four default boxes."""
    arrays = jnp.asarray(boxes, jnp.float32)[None], jnp.zeros((1, len(boxes)), int)
    loss = multibox_loss(jnp.zeros((1, 4, 4)), LOGITS, PRIORS, *arrays, valid[None], **options)
    return loss[1][0], [int(x[0]) for x in loss[2]]


def test_an_image_has_some_negatives_at_least():
    """TensorFlow's ``min_negatives_per_image``, also without objects."""
    objects, there = [[0, 0, 16, 16]], jnp.array([True])
    entropy = np.sort(np.log(np.exp(LOGITS[0]).sum(1)) - LOGITS[0, :, 0])[::-1]
    assert count(objects, ~there)[1] == [0, 0, 4]
    loss, counts = count(objects, ~there, min_negatives=2)
    assert counts == [0, 2, 4]
    np.testing.assert_allclose(loss, entropy[:2].sum(), rtol=1e-6)
    assert count(objects, there, negative_ratio=1.0)[1] == [1, 1, 3]
    assert count(objects, there, negative_ratio=1.0, min_negatives=2)[1] == [1, 2, 3]
    assert count(objects, there, min_negatives=2)[1] == [1, 3, 3]


def test_default_boxes_in_an_ignored_region_are_no_background():
    """A crowd over the lower half: the boxes there are neither positives nor negatives."""
    boxes = [[0, 0, 16, 16], [0, 16, 32, 32]]
    there, ignored = jnp.array([True, False]), jnp.array([[False, True]])
    assert count(boxes, there)[1] == [1, 3, 3]
    assert count(boxes, there, ignored=ignored, ignore_iof=0.5)[1] == [1, 1, 1]
    # A region that covers half of a box leaves it out below that share alone.
    boxes[1] = [0, 24, 32, 32]
    assert count(boxes, there, ignored=ignored, ignore_iof=0.4)[1] == [1, 1, 1]
    assert count(boxes, there, ignored=ignored, ignore_iof=0.5)[1] == [1, 3, 3]
    # An object in it has no default box there, as in MMDetection.
    boxes = [[0, 16, 16, 32], [0, 16, 32, 32]]
    assert count(boxes, there, ignored=ignored, ignore_iof=0.5)[1] == [0, 0, 2]


@pytest.mark.parametrize("name, scale", [("retinanet", 1.0), ("fcos", None), ("atss", 1.0)])
def test_anchors_in_an_ignored_region_are_no_background(name, scale):
    """The focal loss of an empty image loses exactly the places that lie in the region."""
    small = {"anchor_scale": scale} if scale else {}
    model = wild.make(name, ignore_iof=0.45, **small)
    priors = wild.priors(model)
    outputs = {
        "offsets": [jnp.zeros((1, len(p), 4)) for p in priors],
        "logits": [jnp.zeros((1, len(p), 2)) for p in priors],
        "centerness": [jnp.zeros((1, len(p))) for p in priors],
    }
    region = jnp.array([[[0.0, 0.0, 16.0, 32.0]]])
    arrays = region, jnp.zeros((1, 1), int), jnp.zeros((1, 1), bool), jnp.full((1, 2), 32)

    def cls(**more):
        return model.loss_terms(Predictions(outputs, priors), *arrays, **more)["cls"].total

    flat = np.concatenate(priors)
    low, high = flat[:, :2] - flat[:, 2:] / 2, flat[:, :2] + flat[:, 2:] / 2
    shared = np.minimum(high, [16, 32]) - np.maximum(low, 0)
    share = np.clip(shared, 0, None).prod(1) / flat[:, 2:].prod(1)
    inside = (flat[:, :2] < 32).all(1)
    left = inside & (share <= 0.45)
    assert 0 < left.sum() < inside.sum()
    expected = left.sum() / inside.sum()
    ignored = jnp.array([[True]])
    np.testing.assert_allclose(cls(ignored=ignored) / cls(), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["ssd", "retinanet"])
def test_objects_that_are_trained_on_are_no_ignored_regions(name):
    with pytest.raises(ConfigError, match="ignore_iof=0.5 .*; set model.train_ignored=False"):
        wild.make(name, ignore_iof=0.5, train_ignored=True)
    wild.make(name, ignore_iof=0.5, train_ignored=False)


@pytest.mark.parametrize("name", ["ssd", "fcos"])
def test_detections_have_a_least_side_and_a_limit_per_class(name):
    limits = {"max_detections": 20, "score_threshold": 0.0}
    everything = wild.make(name, nms_iou=1.0, **limits)
    few = wild.make(name, nms_iou=1.0, min_side=12.0, max_per_class=3, **limits)
    rng = np.random.default_rng(0)
    priors = wild.priors(everything)
    if name == "ssd":
        offsets = jnp.asarray(rng.normal(size=(1, len(priors[0]), 4)), jnp.float32)
        logits = jnp.asarray(rng.normal(size=(1, len(priors[0]), 3)), jnp.float32)
        found = [jax.jit(m.postprocess)(offsets, logits, priors[0]) for m in (everything, few)]
    else:
        outputs = {
            key: [jnp.asarray(rng.uniform(0, 2, (1, len(p), *end)), jnp.float32) for p in priors]
            for key, end in (("offsets", (4,)), ("logits", (2,)), ("centerness", ()))
        }
        size = jnp.full((1, 2), 32)
        found = [
            jax.jit(lambda outputs, m=m: m.postprocess(Predictions(outputs, priors), size))(outputs)
            for m in (everything, few)
        ]
    sides = [np.asarray(x.boxes[0, :, 2:] - x.boxes[0, :, :2])[x.valid[0]] for x in found]
    assert sides[0].min() < 12 <= sides[1].min()
    assert np.bincount(found[1].labels[0][found[1].valid[0]]).tolist() == [3, 3]


def test_default_boxes_can_be_clamped_to_the_input():
    """torchvision's ``DefaultBoxGenerator`` with ``clip``: widths and heights, not corners."""
    plain, clamped = wild.make("ssd"), wild.make("ssd", clamp_sizes=True)
    cells = [level.cells for level in plain.anchors((32, 32))]
    before, after = (default_boxes(m.anchor_levels(), cells) for m in (plain, clamped))
    np.testing.assert_array_equal(after[:, :2], before[:, :2])
    np.testing.assert_array_equal(after[:, 2:], np.minimum(before[:, 2:], 32))
    assert before[:, 2:].max() > 32
    layouts = [m.head_layout().references["default-box clamping"] for m in (plain, clamped)]
    assert layouts == [False, True]


def test_the_rule_of_sizes_is_a_field():
    sizes = [build_sizes(rule) for rule in ("mmdetection", "caffe")]
    assert sizes[0] != sizes[1] and sizes[0] == [float(int(size)) for size in sizes[1]]


def build_sizes(rule):
    return [float(level.size) for level in wild.make("ssd", size_rule=rule).anchor_levels()]
