import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet import build
from jdet.config import get_defaults
from jdet.describe import describe
from jdet.detectors.pyramid import Predictions
from jdet.ops.nms import best_pairs
from jdet.types import ConfigError
from tests import harness
from tests.golden import centred, load
from tests.tiny_backbone import TINY

CLASSES = tuple("abcde")


def resnet(depth, **fields):
    return dict(name="resnet", depth=depth, **fields)


def config(size=64, norm="batch", head_norm="none", neck=None, backbone=None, **fields):
    c = get_defaults()
    c.input_size = size
    c.resize = build.group("resize", "keep_ratio", short=(size,), long=size)
    c.model = build.group(
        "detector",
        "retinanet",
        backbone=build.group("backbone", **(backbone or dict(name=TINY))),
        neck=build.group("neck", "fpn", **(neck or {})),
        norm=norm,
        head_norm=head_norm,
        **fields,
    )
    return c


def make(**fields):
    small = dict(neck=dict(width=0.0625), head_channels=16)
    return build.detector(config(**(dict(head_depth=1) | small | fields)), CLASSES)


@pytest.mark.parametrize(
    "case",
    [
        dict(head_norm="batch", backbone=resnet(18, width=0.125)),
        harness.thorough(dict(norm="group", head_norm="group", box_loss="giou")),
    ],
    ids=["batch", "group"],
)
def test_battery(case):
    harness.check_detector(lambda: make(**case), 64, len(CLASSES), background=True)


def fixture(name):
    golden = load(name)
    return golden, jnp.asarray(centred(golden["anchors"]))


def test_loss_and_gradient_equal_torchvision():
    golden, priors = fixture("retinanet_loss")
    ground_truth, labels, valid = np.zeros((3, 4, 4)), np.zeros((3, 4), int), np.zeros((3, 4), bool)
    for i in range(3):
        n = len(golden[f"boxes{i}"])
        ground_truth[i, :n], labels[i, :n], valid[i, :n] = (
            golden[f"boxes{i}"],
            golden[f"labels{i}"],
            True,
        )
    arrays = (
        jnp.asarray(ground_truth, jnp.float32),
        jnp.asarray(labels, jnp.int32),
        jnp.asarray(valid),
    )
    sizes = jnp.full((3, 2), 128)

    @functools.partial(jax.jit, static_argnames=("normalizer", "fields"))
    def losses(offsets, logits, normalizer="image", fields=(("low_quality", "anchor"),)):
        found = Predictions({"offsets": [offsets], "logits": [logits]}, [np.asarray(priors)])
        model = make(normalizer=normalizer, **dict(fields))
        return model.loss_terms(found, *arrays, sizes)

    offsets, logits = jnp.asarray(golden["bbox_regression"]), jnp.asarray(golden["cls_logits"])
    positives = losses(offsets, logits, normalizer="batch")["loc"].weight
    assert positives == (golden["matched_idxs"] >= 0).sum()
    high = ("iou_threshold", 0.9)  # the best anchors of most objects lie below
    all_best, well_overlapped, none = (
        losses(offsets, logits, normalizer="batch", fields=(high, field))["loc"].weight
        for field in (("min_pos_iou", 0.0), ("min_pos_iou", 0.9), ("low_quality", "none"))
    )
    assert all_best > well_overlapped == none
    means = losses(offsets, logits)
    assert means["loc"].weight == means["cls"].weight == 3  # torchvision: image by image
    np.testing.assert_allclose(means["loc"].total / 3, golden["loss_bbox"], rtol=1e-5)
    np.testing.assert_allclose(means["cls"].total / 3, golden["loss_cls"], rtol=1e-5)
    gradient = jax.jit(
        jax.grad(lambda o, x: sum(m.total / 3 for m in losses(o, x).values()), argnums=(0, 1))
    )
    loc_grad, cls_grad = gradient(offsets, logits)
    np.testing.assert_allclose(loc_grad, golden["grad_reg"], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(cls_grad, golden["grad_cls"], rtol=1e-4, atol=1e-8)


def test_postprocessing_equals_torchvision():
    golden, priors = fixture("retinanet_postprocess")
    model = make(max_detections=300)
    ends = np.cumsum(golden["level_sizes"])[:-1]
    offsets, logits = (
        [jnp.asarray(x) for x in np.split(golden[key], ends, axis=1)]
        for key in ("bbox_regression", "cls_logits")
    )
    levels = np.split(np.asarray(priors), ends)
    found = jax.jit(lambda outputs, s: model.postprocess(Predictions(outputs, levels), s))(
        {"offsets": offsets, "logits": logits}, jnp.array([[128, 128]])
    )
    assert found.valid.all()
    np.testing.assert_allclose(found.scores[0], golden["scores"], rtol=1e-5)
    np.testing.assert_array_equal(found.labels[0], golden["labels"])
    np.testing.assert_allclose(found.boxes[0], golden["boxes"], rtol=1e-5, atol=1e-3)


def test_best_pairs_are_those_of_one_long_selection():
    rng = np.random.default_rng(0)
    for count, steps in ((7, 4), (40, 10), (500, 3)):
        scores = (rng.random((60, 5)) * steps).round() / steps  # ties everywhere
        best, anchors, classes = best_pairs(jnp.asarray(scores, jnp.float32), 0.3, count)
        kept = np.where(scores > 0.3, scores, 0)
        order = np.argsort(-kept.reshape(-1), kind="stable")[: min(count, 300)]
        np.testing.assert_allclose(best, kept.reshape(-1)[order], rtol=1e-6)
        there = np.asarray(best) > 0
        found = np.asarray(anchors) * 5 + np.asarray(classes)
        np.testing.assert_array_equal(found[there], order[there])


@pytest.fixture(scope="module")
def started():
    """A model at its start, everything a detection: network, losses and detections, compiled once."""
    model, batch = make(score_threshold=0.0), harness.make_batch(64)
    variables = harness.initialise(model, batch.images, train=False)
    network = jax.jit(functools.partial(model.apply, variables, train=False, method="by_level"))
    losses = jax.jit(functools.partial(model.apply, variables, train=False, method="losses"))
    detect = jax.jit(functools.partial(model.apply, variables, method="detect"))
    return batch, network, losses, detect


def test_start_is_the_prior_and_the_published_loss(started):
    """Every class begins at 1 %; the focal loss of the background is then as small as stated."""
    batch, network, losses, _ = started
    found = network(batch.images)
    logits = jnp.concatenate(found.outputs["logits"], 1)
    np.testing.assert_allclose(jax.nn.sigmoid(logits), 0.01, rtol=0.3)
    assert [level.shape for level in found.priors] == [(9 * n, 4) for n in (64, 16, 4, 1, 1)]
    means = losses(batch)
    expected = 4 * 9 * 86 * len(CLASSES) * 0.75 * 0.01**2 * -np.log(0.99)
    positives = float(means["cls"].weight)
    assert positives == means["loc"].weight >= 9  # three objects in three images
    expected += positives * 0.25 * 0.99**2 * -np.log(0.01)
    np.testing.assert_allclose(means["cls"].total, expected, rtol=0.1)


def test_shared_convolutions_have_norms_of_their_own_on_every_level():
    x = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.uint8)

    def head(kind):
        model = make(head_norm=kind, head_depth=2)
        return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), x)["params"][
            "head"
        ]

    convs = {f"{kind}{rest}" for kind in ("cls", "box") for rest in ("_conv1", "_conv2", "")}
    norms = {f"{kind}_norm{i}" for kind in ("cls", "box") for i in (1, 2)}
    assert set(head("none")) == convs
    assert set(head("group")) == convs | norms
    assert set(head("batch")) == convs | {f"{norm}_{level}" for norm in norms for level in range(5)}


def test_padding_beside_an_image_takes_no_part(started):
    batch, _, losses, detect = started
    sizes = jnp.array([[64, 64], [40, 64], [64, 24], [40, 40]], jnp.int32)
    found = detect(batch.images, sizes)
    boxes = np.asarray(found.boxes)
    assert found.valid.any(1).all() and (boxes >= 0).all()
    assert (boxes[..., 2:] <= np.asarray(sizes)[:, None, ::-1]).all()
    empty = batch._replace(valid=jnp.zeros_like(batch.valid))
    cut, whole = (losses(b)["cls"].total for b in (empty._replace(image_sizes=sizes), empty))
    shares = [
        sum(-(-height // s) * -(-width // s) for s in (8, 16, 32, 64, 128)) / 86
        for height, width in np.asarray(sizes)
    ]
    np.testing.assert_allclose(cut / whole, np.mean(shares), rtol=0.05)


def test_crowds_and_boxes_without_area_are_not_trained_on(started):
    batch, _, losses, _ = started
    crowd = batch._replace(ignore=batch.valid)
    flat = batch._replace(boxes=batch.boxes.at[..., 3].set(batch.boxes[..., 1]))
    for nothing in (crowd, flat):
        means = losses(nothing)
        assert means["loc"].total == means["loc"].weight == 0 and np.isfinite(means["cls"].total)


def test_image_by_image_is_the_mean_of_single_images(started):
    batch, _, losses, _ = started
    model = make(normalizer="image", train_ignored=True)
    variables = harness.initialise(model, batch.images, train=False)
    crowd = batch._replace(ignore=batch.valid)  # trained on here
    means = jax.jit(functools.partial(model.apply, train=False, method="losses"))(variables, crowd)
    assert means["cls"].weight == means["loc"].weight == 4
    alone = []
    for i in range(4):  # an image without size has no anchors
        here = (jnp.arange(4) == i)[:, None]
        one = batch._replace(valid=batch.valid & here, image_sizes=batch.image_sizes * here)
        alone.append(losses(one))
    for name, mean in means.items():
        shares = [one[name].total / jnp.maximum(one[name].weight, 1) for one in alone]
        np.testing.assert_allclose(mean.total, sum(shares), rtol=1e-4)


@pytest.mark.parametrize(
    "depth, parameters, gmacs",
    [
        (50, 37_968_692, {(448, 448): 46.75, (800, 1280): 238.54, (800, 1344): 250.49}),
        harness.thorough(101, 56_960_820, {(448, 448): 61.60, (800, 1280): 314.30}),
    ],
)
def test_published_numbers(depth, parameters, gmacs):
    """Parameters with 80 classes; multiply-adds of convolutions."""
    for shape, expected in gmacs.items():
        c = config(448, backbone=resnet(depth))
        found = describe(c, tuple(map(str, range(80))), shape)
        assert found.parameters == parameters
        assert found.macs / 1e9 == pytest.approx(expected, abs=0.006)
    by_path = {row.path: row.parameters for row in found.rows}
    assert (by_path["neck"], by_path["head"]) == (7_997_440, 6_463_220)


@pytest.mark.parametrize(
    "shape, boxes",
    [
        ((448, 448), (28_224, 7_056, 1_764, 441, 144)),
        ((800, 1344), (151_200, 37_800, 9_450, 2_457, 693)),
    ],
)
def test_published_anchor_counts(shape, boxes):
    found = describe(config(448), CLASSES, shape)
    assert tuple(level["boxes"] for level in found.levels) == boxes
    rows, columns = zip(*(level["map"] for level in found.levels))
    assert rows[:3] == tuple(shape[0] // s for s in (8, 16, 32))
    assert columns[:3] == tuple(shape[1] // s for s in (8, 16, 32))


def test_wrong_fields_are_named():
    for fields, message in (
        (dict(box_loss="l2"), "model.box_loss='l2'.*smooth_l1"),
        (dict(normalizer="pixel"), "model.normalizer='pixel'.*batch, image"),
        (dict(low_quality="best"), "model.low_quality='best'.*object, anchor, none"),
        (dict(min_pos_iou=1.5), "model.min_pos_iou=1.5; it must be in 0 … 1"),
        (dict(negative_iou=0.6), "model.negative_iou=0.6 .*must not be above"),
        (dict(aspect_ratios=(1.0, 0.0)), r"model.aspect_ratios=\(1.0, 0.0\)"),
        (dict(octaves=0), "model.octaves=0; it must be in 1 … 100"),
        (dict(prior=1.0), "model.prior=1.0"),
    ):
        with pytest.raises(ConfigError, match=message):
            make(**fields)
