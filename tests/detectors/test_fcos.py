import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet import build
from jdet.detectors.pyramid import Predictions
from jdet.types import ConfigError
from tests.detectors.test_dense_detector import config, make
from tests.golden import load

TORCHVISION = dict(
    torchvision_anchors=True,
    level_scales=False,
    weigh_boxes=False,
    score="root",
    score_threshold=0.2,
    neck=dict(extra="conv_p5"),
)
SHAPES = [(n, n) for n in (16, 8, 4, 2, 1)]


@pytest.fixture(scope="module")
def model():
    return build.detector(config("fcos", 128, **TORCHVISION), tuple("abcdefgh"))


def by_level(golden, key):
    return [jnp.asarray(x) for x in np.split(golden[key], np.cumsum(golden["level_sizes"])[:-1], 1)]


def test_points_losses_and_gradients_equal_torchvision(model):
    golden = load("fcos_loss")
    ground_truth, labels, valid = np.zeros((3, 5, 4)), np.zeros((3, 5), int), np.zeros((3, 5), bool)
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
    priors = model.priors(SHAPES, (128, 128))
    flat = np.concatenate(priors)
    corners = np.concatenate([flat[:, :2] - flat[:, 2:] / 2, flat[:, :2] + flat[:, 2:] / 2], 1)
    np.testing.assert_allclose(corners, golden["anchors"], atol=1e-4)
    match = jax.vmap(lambda t, v: model.assign(priors, t, v, None))(arrays[0], arrays[2])
    np.testing.assert_array_equal(match, golden["matched_idxs"])

    def losses(offsets, logits, centerness):
        outputs = {"offsets": offsets, "logits": logits, "centerness": centerness}
        found = Predictions(outputs, priors)
        means = model.loss_terms(found, *arrays, jnp.full((3, 2), 128))
        return {key: mean.total / mean.weight for key, mean in means.items()}

    golden["bbox_ctrness"] = golden["bbox_ctrness"][..., 0]
    outputs = [by_level(golden, key) for key in ("bbox_regression", "cls_logits", "bbox_ctrness")]

    @jax.jit
    def run(*outputs):
        gradient = jax.grad(lambda *x: sum(losses(*x).values()), argnums=(0, 1, 2))
        return losses(*outputs), gradient(*outputs)

    found, gradients = run(*outputs)
    for key, name in dict(loc="bbox", cls="cls", centerness="ctr").items():
        np.testing.assert_allclose(found[key], golden[f"loss_{name}"], rtol=1e-5)
    for name, gradient in zip(("reg", "cls", "ctr"), gradients):
        gradient = jnp.concatenate(gradient, axis=1)
        expected = golden[f"grad_{name}"].reshape(gradient.shape)
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-8)


def test_postprocessing_equals_torchvision(model):
    golden = load("fcos_postprocess")
    golden["level_sizes"] = [h * w for h, w in SHAPES]
    golden["bbox_ctrness"] = golden["bbox_ctrness"][..., 0]
    keys = {"offsets": "bbox_regression", "logits": "cls_logits", "centerness": "bbox_ctrness"}
    outputs = {name: by_level(golden, key) for name, key in keys.items()}
    priors = model.priors(SHAPES, (128, 128))
    run = jax.jit(lambda x: model.postprocess(Predictions(x, priors), jnp.array([[128, 128]])))
    found = run(outputs)
    assert found.valid.all()
    np.testing.assert_allclose(found.scores[0], golden["scores"], rtol=1e-5)
    np.testing.assert_array_equal(found.labels[0], golden["labels"])
    np.testing.assert_allclose(found.boxes[0], golden["boxes"], rtol=1e-5, atol=1e-3)


def test_regress_bounds_and_publications():
    shapes = [(8, 8), (4, 4), (2, 2)]
    box, valid = jnp.array([[0.0, 0.0, 40.0, 40.0]]), jnp.array([True])
    levels = np.repeat([0, 1, 2], [64, 16, 4])

    def found_on(**fields):
        model = make("fcos", **fields)
        priors = model.priors(shapes, (64, 64))
        match = jax.jit(lambda *a: model.assign(priors, *a, None))(box, valid)
        return set(levels[np.asarray(match) >= 0]), int((match >= 0).sum())

    assert found_on() == ({0}, 9)  # three cells around the centre, distances up to 28
    assert found_on(center_radius=0.0) == ({0}, 25)
    assert found_on(center_radius=0.0, regress_bounds=(10.0, 24.0)) == ({1, 2}, 2)
    for fields, message in (
        (dict(regress_bounds=(10.0,)), r"model.regress_bounds=\(10.0,\) for 3 levels; .* 2"),
        (dict(regress_bounds=(30.0, 10.0)), "rise"),
        (dict(center_radius=-1.0), "model.center_radius=-1.0"),
        (dict(box_activation="softplus"), "model.box_activation='softplus'.*relu, exp"),
        (dict(box_loss="l1"), "model.box_loss='l1'.*log_iou"),
        (dict(centerness_branch="none"), "model.centerness_branch='none'.*box, cls"),
        (dict(score="sum"), "model.score='sum'.*product, root"),
    ):
        with pytest.raises(ConfigError, match=message):
            make("fcos", **fields)


def test_distances_become_boxes():
    priors = jnp.array([[20.0, 30.0, 8.0, 8.0]])
    raw = jnp.array([[-1.0, 1.0, 2.0, 0.5]])
    e = np.exp(raw[0])
    for fields, distances in (
        ({}, [0, 8, 16, 4]),
        (dict(norm_on_bbox=False), [0, 1, 2, 0.5]),
        (dict(box_activation="exp"), 8 * e),
        (dict(box_activation="exp", norm_on_bbox=False), e),
    ):
        left, top, right, bottom = distances
        box = make("fcos", **fields).corners(raw, priors)[0]
        expected = [20 - left, 30 - top, 20 + right, 30 + bottom]
        np.testing.assert_allclose(box, expected, rtol=1e-6)
    wild = make("fcos", box_activation="exp").corners(jnp.full((1, 4), 1e4), priors)
    assert bool(jnp.isfinite(wild).all())
