import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet import build
from jdet.detectors.pyramid import Predictions
from jdet.detectors.rcnn import RCNN
from jdet.detectors.rois import RoIs, match_candidates
from jdet.detectors.stage import BOX_LOSSES, softmax_loss
from jdet.ops import coding
from jdet.ops.boxes import clip, pairwise_iou, xyxy_to_cxcywh
from jdet.ops.roi_align import roi_align
from jdet.ops.roi_pool import roi_pool
from jdet.types import ConfigError
from tests import harness
from tests.detectors import two_stage, wild
from tests.detectors.two_stage import CLASSES, make
from tests.golden import load

CASCADE = dict(head=dict(class_agnostic=True), rpn=dict(name="cascade_rpn"))


@pytest.mark.parametrize(
    "name, fields", [harness.thorough("faster_rcnn", {}), ("cascade_rcnn", CASCADE)]
)
def test_battery(name, fields):
    head = dict(name="4conv1fc", convs=1) | fields.get("head", {})
    fields = fields | dict(head=head, head_norm="batch")
    if name == "cascade_rcnn":
        two = {"stage_ious": (0.5, 0.6), "stage_weights": (1.0, 0.5)}
        fields |= two | {"center_stds": (0.1, 0.05), "size_stds": (0.2, 0.1)}
    harness.check_detector(lambda: make(name, **fields), 64, len(CLASSES), background=True)


@pytest.fixture(scope="module")
def golden():
    return load("fastrcnn_head")


def torchvision():
    """torchvision's settings of the second stage."""
    return make(box_loss="smooth_l1", smooth_l1_beta=1 / 9, clamp_below=False, min_side=1e-2)


def without_background(offsets, rows):
    """torchvision's box offsets of rows, which has some of the background too."""
    return jnp.asarray(offsets[rows].reshape(1, len(rows), 5, 4)[:, :, 1:])


def test_losses_equal_torchvision(golden):
    (stage,), rows = torchvision().stages, np.arange(40)
    corners = jnp.concatenate([golden["proposals0"], golden["proposals1"]])[None]
    labels = jnp.asarray(golden["labels"], jnp.int32)[None]
    positive, every = labels > 0, jnp.ones((1, 40), bool)
    rois = RoIs(
        boxes=corners,
        labels=labels,
        match=jnp.zeros_like(labels),
        target=stage.decode(corners, jnp.asarray(golden["regression_targets"])[None]),
        positive=positive,
        valid=every,
        is_object=~every,
    )

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
    def run(logits, offsets):
        means = stage.terms(rois, logits, offsets, 40)
        return sum(mean.total / mean.weight for mean in means.values()), means

    logits = jnp.asarray(golden["class_logits"])[None]
    (_, means), gradients = run(logits, without_background(golden["box_regression"], rows))
    assert means["cls"].weight == means["loc"].weight == 40
    np.testing.assert_allclose(means["cls"].total / 40, golden["loss_cls"], rtol=1e-5)
    np.testing.assert_allclose(means["loc"].total / 40, golden["loss_box"], rtol=1e-4)
    np.testing.assert_allclose(gradients[0][0], golden["grad_cls"], rtol=1e-4, atol=1e-7)
    expected = without_background(golden["grad_box"], rows)
    np.testing.assert_allclose(gradients[1], expected, rtol=1e-4, atol=1e-6)
    rest = rois._replace(valid=jnp.arange(40)[None] < 10)
    assert (
        stage.terms(rest, logits, without_background(golden["box_regression"], rows), 40)[
            "cls"
        ].weight
        == 10
    )


def test_postprocessing_equals_torchvision(golden):
    """Two images of 22 and 18 RoIs; the slots that remain find nothing."""
    rows = np.stack([np.arange(22), np.r_[np.arange(22, 40), np.zeros(4, int)]])
    corners = np.concatenate([golden["proposals0"], golden["proposals1"]])[rows]
    offsets = jnp.concatenate([without_background(golden["post_box_regression"], r) for r in rows])
    scores = jax.nn.softmax(jnp.asarray(golden["class_logits"]))[rows][..., 1:]
    scores = scores.at[1, 18:].set(0)
    found = jax.jit(torchvision().postprocess)(corners, scores, offsets, golden["image_hw"])
    for i in range(2):
        there = np.asarray(found.valid[i])
        assert there.sum() == len(golden[f"det_scores{i}"])
        np.testing.assert_allclose(found.scores[i][there], golden[f"det_scores{i}"], rtol=1e-5)
        np.testing.assert_array_equal(found.labels[i][there] + 1, golden[f"det_labels{i}"])
        np.testing.assert_allclose(
            found.boxes[i][there], golden[f"det_boxes{i}"], rtol=1e-4, atol=1e-3
        )


def of_stages(logits, offsets):
    """A detector's network whose stages say the same of all RoIs, and all of whose anchors are equal."""

    def by_level(self, images, image_sizes, *, train):
        priors = self.priors([(16, 16), (4, 4), (2, 2)], (64, 64))
        outputs = {
            "logits": [jnp.zeros((len(images), len(p))) for p in priors],
            "offsets": [jnp.zeros((len(images), len(p), 4)) for p in priors],
        }
        return [], Predictions(outputs, priors)

    def predict(self, levels, corners, real, stage, *, train):
        seen.append(corners)
        shape = corners.shape[:2]
        said = jnp.asarray(logits[stage.number - 1]), jnp.asarray(offsets[stage.number - 1])
        return tuple(jnp.broadcast_to(x, (*shape, *x.shape)) for x in said)

    seen = []
    return seen, mock.patch.multiple(RCNN, by_level=by_level, predict=predict)


SAID = [
    np.array(x, np.float32) for x in ([0, 2, 0, 1, 0, 0], [0, 0, 0, 4, 0, 0], [1, 0, 0, 1, 0, 3])
]
MOVES = [np.full((1, 4), x, np.float32) for x in (0.5, -0.3, 0.2)]


def test_a_cascade_refines_boxes_and_averages_logits():
    """Every stage starts from the boxes of the one before; logits, not probabilities, are averaged."""
    model = make("cascade_rcnn", nms_iou=1.0, score_threshold=0.0, max_detections=200, **CASCADE)
    seen, patched = of_stages(SAID, MOVES)

    @jax.jit
    def run(images, sizes):
        return model.apply({}, images, sizes, method="detect"), list(seen)

    with patched:
        found, seen = run(jnp.zeros((1, 64, 64, 3), jnp.uint8), jnp.array([[64, 64]]))
    for number in (0, 1):
        center, size = model.center_stds[number], model.size_stds[number]
        moved = coding.decode(
            MOVES[number], xyxy_to_cxcywh(seen[number]), (center, center, size, size)
        )
        np.testing.assert_allclose(seen[number + 1], clip(moved, jnp.array([64, 64])), rtol=1e-6)
        assert np.abs(seen[number + 1] - seen[number]).max() > 0.3
    expected = np.sort(np.asarray(jax.nn.softmax(sum(SAID) / 3))[1:])[::-1]
    there = np.unique(np.asarray(found.scores[0])[found.valid[0]])[::-1]
    np.testing.assert_allclose(there, np.unique(expected)[::-1], rtol=1e-5)


def test_later_stages_learn_from_refined_boxes_without_the_objects_themselves():
    """Weights 1, 0.5 and 0.25; what was an object is replaced by the object once more."""
    model, batch = make("cascade_rcnn", **CASCADE), harness.make_batch(64, count=2)
    _, patched = of_stages(SAID, MOVES)
    found = []
    original = RCNN.sample

    def sample(self, levels, corners, there, *rest):
        rois = original(self, levels, corners, there, *rest)
        found.append((corners, there, rois))
        return rois

    @jax.jit
    def run(batch):
        return harness.call_losses(model, {}, batch, jax.random.key(0))[0], list(found)

    with patched, mock.patch.object(RCNN, "sample", sample):
        means, found = run(batch)
    for (_, _, before), (corners, there, _), number in zip(found, found[1:], (0, 1)):
        assert before.is_object[0].any() and not before.is_object[1].any()
        np.testing.assert_array_equal(there, before.valid & ~before.is_object)
        center, size = model.center_stds[number], model.size_stds[number]
        moved = coding.decode(
            MOVES[number], xyxy_to_cxcywh(before.boxes), (center, center, size, size)
        )
        np.testing.assert_allclose(corners, clip(moved, jnp.array([64, 64])), rtol=1e-5)
    for (_, _, rois), number, weight in zip(found, range(3), (1.0, 0.5, 0.25)):
        loss = -jax.nn.log_softmax(SAID[number])[rois.labels]
        mean = means[f"cls{number + 1 if number else ''}"]
        np.testing.assert_allclose(mean.total, weight * loss[rois.valid].sum(), rtol=1e-5)
        assert mean.weight == rois.valid.sum()


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ConfigError, match="stage_weights=.*give each one number per stage"):
        make(stage_weights=(1.0, 0.5))
    with pytest.raises(ConfigError, match="sampler='ohm'; it can be one of random, ohem"):
        make(sampler="ohm")
    with pytest.raises(ConfigError, match="stage_ious=.*; it must be a tuple of numbers above 0"):
        make("cascade_rcnn", stage_ious=(0.5, 0.6, 7.0))
    c = two_stage.config()
    del c.model.rpn
    with pytest.raises(ConfigError, match="config.model.rpn is missing"):
        build.detector(c, CLASSES)


def test_levels_begin_at_stride_four():
    c = two_stage.config()
    assert c.model.taps == () and build.detector(c, CLASSES).neck.taps == ("c2", "c4")
    model = make(train_ignored=True)
    assert [level.step for level in model.anchor_levels()] == [4, 16, 32]
    assert [level.cells for level in model.anchors((64, 96))] == [(16, 24), (4, 6), (2, 3)]
    assert model.positive_iou == 0.3 and make(rpn=dict(low_quality="none")).positive_iou == 0.7


def test_wild_predictions_have_finite_gradients():
    """Of every box loss, for RoIs and objects of every kind."""
    rng = np.random.default_rng(0)
    stages = [make(box_loss=kind).stages[0] for kind in BOX_LOSSES]
    ground_truth = wild.ground_truth(rng, 64)
    boxes = jnp.asarray(ground_truth["boxes"])
    positive = jnp.asarray(ground_truth["valid"])
    rois = RoIs(
        boxes=jnp.asarray(wild.ground_truth(rng, 64)["boxes"]),
        labels=jnp.where(positive, jnp.asarray(ground_truth["labels"]) + 1, 0),
        match=jnp.zeros_like(positive, jnp.int32),
        target=boxes,
        positive=positive,
        valid=jnp.ones_like(positive),
        is_object=~positive,
    )

    @jax.jit
    def gradients(logits, offsets):
        def loss(stage, logits, offsets):
            return sum(mean.total for mean in stage.terms(rois, logits, offsets, 4).values())

        return [
            jax.value_and_grad(functools.partial(loss, stage), argnums=(0, 1))(logits, offsets)
            for stage in stages
        ]

    for seed in range(20):
        rng = np.random.default_rng(seed)
        found = gradients(*wild.predictions(rng, [(64, 4, 3), (64, 4, 2, 4)]))
        for stage, (value, (of_logits, of_offsets)) in zip(stages, found):
            finite = np.isfinite(value) and np.isfinite(of_logits).all()
            assert finite and np.isfinite(of_offsets).all(), (stage.box_loss, seed)


@pytest.mark.parametrize("sampler", ["ohem", "ohem_apart"])
def test_hard_examples_are_those_with_the_highest_losses(sampler):
    """In MMDetection's shares of positives and negatives, or whatever is hardest."""
    model, batch = make(sampler=sampler), harness.make_batch(64, count=2)
    batch = jax.tree.map(lambda x: x[:1], batch)
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 40, (1, 30, 2))
    corners = jnp.asarray(np.concatenate([low, low + rng.uniform(4, 20, low.shape)], -1))
    corners = jnp.concatenate([corners, batch.boxes[:, :3] + jnp.arange(1, 4)[:, None]], 1)

    def predict(self, levels, corners, real, stage, *, train):
        assert not train  # statistics of norms are left alone
        return jnp.concatenate([corners, corners[..., :2]], -1) / 20, None

    @jax.jit
    def run(corners):
        there = jnp.ones(corners.shape[:2], bool)
        stage = model.stages[0]
        arguments = [], corners.astype(jnp.float32), there, batch, batch.valid, stage
        rois = model.apply({}, *arguments, method="sample")
        candidates = match_candidates(
            *arguments[1:3], batch.boxes, batch.labels, batch.valid, iou=0.5, low_quality="none"
        )
        logits, _ = predict(model, [], candidates.boxes, there, stage, train=False)
        return rois, candidates, softmax_loss(logits, candidates.labels)

    with mock.patch.object(RCNN, "predict", predict):
        rois, candidates, loss = run(corners)
    there, positive = np.asarray(candidates.valid[0]), np.asarray(candidates.positive[0])
    order = [i for i in np.argsort(-np.asarray(loss[0])) if there[i]]
    if sampler == "ohem":
        hard = [i for i in order if positive[i]][:4]
        expected = hard + [i for i in order if not positive[i]][: 16 - len(hard)]
    else:
        overlap = np.asarray(pairwise_iou(candidates.boxes[0], candidates.boxes[0]))
        kept: list[int] = []
        for i in order:
            if len(kept) < 16 and (not kept or overlap[i, kept].max() <= 0.7):
                kept.append(i)
        expected = sorted(kept, key=lambda i: not positive[i])
        assert sum(positive[kept]) > 0 and kept != order[:16]
    np.testing.assert_array_equal(rois.boxes[0], candidates.boxes[0][np.array(expected)])
    assert rois.valid.all()


@pytest.mark.parametrize("fields", [dict(roi_op="pool"), dict(box_loss="giou", sampler="ohem")])
def test_options_of_the_second_stage_can_be_traced(fields):
    model, batch = make(**fields), harness.make_batch(64, count=2)
    found = jax.eval_shape(
        lambda key: model.init_with_output(key, batch, method="losses", train=True)[0],
        jax.random.key(0),
    )
    assert set(found) == {"rpn_cls", "rpn_loc", "cls", "loc"}


@pytest.mark.parametrize("roi_op", ["align", "pool"])
def test_rois_are_resampled_as_the_fields_say(roi_op):
    model = make(roi_op=roi_op, roi_aligned=False, roi_sampling=1, roi_size=2)
    rng = np.random.default_rng(0)
    levels = [jnp.asarray(rng.normal(size=(1, n, n, 3)), jnp.float32) for n in (16, 4)]
    rois = jnp.array([[[4.0, 4.0, 12.0, 12.0], [0.0, 0.0, 64.0, 64.0], [1.0, 2.0, 3.0, 4.0]]])
    real = jnp.array([[True, True, False]])
    found = jax.jit(lambda *a: model.pool(levels, *a, 2))(rois, real)
    settings = dict(strides=(4, 16), output=2, finest_scale=8.0, valid=real)
    if roi_op == "pool":
        expected = roi_pool(levels, rois, **settings)
    else:
        expected = roi_align(levels, rois, sampling=1, aligned=False, **settings)
        np.testing.assert_allclose(
            found[0, 0, 0, 0], levels[0][0, 1:3, 1:3].mean((0, 1)), rtol=1e-5
        )
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert (found[0, 2] == 0).all() and (found[0, 1] != 0).all()
