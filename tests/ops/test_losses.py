import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from jdet.ops import losses
from tests.golden import load


def test_smooth_l1_values_and_gradient():
    x = jnp.array([-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0])
    expected = [2.5, 0.5, 0.125, 0.0, 0.125, 0.5, 2.5]
    np.testing.assert_allclose(losses.smooth_l1(x, jnp.zeros(7)), expected)
    np.testing.assert_allclose(losses.smooth_l1(x, jnp.zeros(7), beta=0.5)[0], 2.75)
    gradient = jax.grad(lambda v: losses.smooth_l1(v, jnp.zeros(7)).sum())(x)
    np.testing.assert_allclose(gradient, [-1, -1, -0.5, 0, 0.5, 1, 1])


@pytest.mark.parametrize(
    "key, settings", [("", {}), ("_noalpha_g15", dict(alpha=-1, gamma=1.5))], ids=["paper", "plain"]
)
def test_focal_loss_equals_torchvision(key, settings):
    golden = load("sigmoid_focal_loss")
    logits, targets = jnp.asarray(golden["logits"]), jnp.asarray(golden["targets"])
    ours = losses.sigmoid_focal_loss(logits, targets, **settings)
    np.testing.assert_allclose(ours, golden[f"loss{key}"], rtol=1e-5, atol=1e-8)
    gradient = jax.grad(lambda x: losses.sigmoid_focal_loss(x, targets, **settings).sum())(logits)
    np.testing.assert_allclose(gradient, golden[f"grad{key}"], rtol=1e-4, atol=1e-7)


def test_focal_loss_of_wild_logits_is_finite_and_right():
    logits = jnp.array([-1e4, -100.0, 0.0, 0.0, 100.0, 1e4])
    targets = jnp.array([1, 1, 1, 0, 0, 0])
    ours = losses.sigmoid_focal_loss(logits, targets)
    np.testing.assert_allclose(ours, [2500, 25, 0.04332, 0.12997, 75, 7500], rtol=1e-4)
    gradient = jax.grad(lambda x: losses.sigmoid_focal_loss(x, targets).sum())
    np.testing.assert_allclose(
        gradient(logits)[jnp.array([0, 1, 4, 5])], [-0.25, -0.25, 0.75, 0.75]
    )
    assert jnp.isfinite(gradient(-logits)).all()
    entropy = optax.sigmoid_binary_cross_entropy(logits, targets)
    np.testing.assert_allclose(
        losses.sigmoid_focal_loss(logits, targets, -1, 0), entropy, rtol=1e-6
    )


def plain_focal_loss(logits, targets, alpha, gamma):
    """Lin et al. 2017b, eq. 5, for JAX to differentiate."""
    right = jax.nn.sigmoid(jnp.where(targets, logits, -logits))
    return -jnp.where(targets, alpha, 1 - alpha) * (1 - right) ** gamma * jnp.log(right)


@pytest.mark.parametrize("gamma", [0.0, 1.5, 2.0])
def test_focal_loss_has_all_derivatives_of_its_formula(gamma):
    """Forward, backward, second, in batches; its own rule stands for JAX's."""
    logits = jnp.linspace(-4, 4, 12).reshape(3, 4)
    targets = jnp.arange(12).reshape(3, 4) % 3 == 0
    ours, plain = (
        lambda x, f=f: f(x, targets, 0.25, gamma).sum()
        for f in (losses.sigmoid_focal_loss, plain_focal_loss)
    )
    for derivative in (jax.grad, jax.jacfwd, jax.hessian):
        np.testing.assert_allclose(
            jax.jit(derivative(ours))(logits),
            jax.jit(derivative(plain))(logits),
            rtol=1e-4,
            atol=1e-6,
        )
    each = jax.vmap(jax.grad(lambda x, t: losses.sigmoid_focal_loss(x, t, 0.25, gamma).sum()))
    expected = jax.jit(jax.grad(plain))(logits)
    np.testing.assert_allclose(jax.jit(each)(logits, targets), expected, rtol=1e-4, atol=1e-6)
    half = jax.jit(jax.grad(ours))(logits.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(half, np.float32), expected, rtol=0.02, atol=0.01)


def test_focal_loss_over_devices_and_of_shared_logits():
    """One logit for all targets: its gradient is the sum over images, wherever they are."""
    targets = jnp.arange(12).reshape(4, 3) % 2 == 0
    mesh = jax.make_mesh(
        (2,), ("group",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2]
    )

    def loss(logits, targets):
        return losses.sigmoid_focal_loss(logits, targets).sum()

    spread = jax.shard_map(jax.grad(loss), mesh=mesh, in_specs=(P(), P("group")), out_specs=P())
    logits = jnp.array([-1.0, 0.5, 2.0])
    expected = jax.grad(lambda x: plain_focal_loss(x, targets, 0.25, 2.0).sum())(logits)
    np.testing.assert_allclose(jax.grad(loss)(logits, targets), expected, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(spread)(logits, targets), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
def test_iou_losses_equal_torchvision(kind):
    golden = load("iou_losses")
    prediction, target = jnp.asarray(golden["pred"]), jnp.asarray(golden["target"])
    ours = losses.iou_loss(prediction, target, kind)
    np.testing.assert_allclose(ours, golden[f"{kind}_loss"], rtol=1e-5, atol=1e-6)
    gradient = jax.grad(lambda boxes: losses.iou_loss(boxes, target, kind).sum())(prediction)
    np.testing.assert_allclose(gradient, golden[f"{kind}_grad_pred"], rtol=1e-4, atol=1e-6)


def test_l1_is_smooth_l1_without_the_smoothness():
    x = jnp.linspace(-3, 3, 13)
    np.testing.assert_allclose(losses.l1(x, jnp.ones(13)), jnp.abs(x - 1))
    np.testing.assert_allclose(
        losses.l1(x, jnp.ones(13)), losses.smooth_l1(x, jnp.ones(13), 1e-6), atol=1e-6
    )
    np.testing.assert_array_equal(losses.l1(x, x), losses.smooth_l1(x, x, 0.0))
    np.testing.assert_array_equal(losses.l1(x, 1 + x), losses.smooth_l1(x, 1 + x, 0.0))


def test_log_iou_is_the_logarithm_and_bounded():
    target = jnp.array([[0.0, 0.0, 10.0, 10.0]] * 3)
    prediction = jnp.array([[0.0, 0.0, 10.0, 10.0], [2.0, 1.0, 7.0, 9.0], [20.0, 0.0, 30.0, 10.0]])
    ours = losses.iou_loss(prediction, target, "log_iou")
    np.testing.assert_allclose(ours, [0, np.log(2.5), np.log(1e6)], rtol=1e-6, atol=1e-7)
    gradient = jax.grad(lambda x: losses.iou_loss(x, target, "log_iou").sum())(prediction)
    np.testing.assert_allclose(gradient[1], [0.2, 0.125, -0.2, -0.125], rtol=1e-5)
    assert bool(jnp.isfinite(gradient).all())


def test_cross_entropy_of_probabilities_equals_optax():
    logits = jnp.array([-50.0, -2.0, 0.0, 3.0, 50.0])
    for target in (0.0, 0.3, 1.0):
        targets = jnp.full(5, target)
        expected = optax.sigmoid_binary_cross_entropy(logits, targets)
        np.testing.assert_allclose(
            losses.sigmoid_cross_entropy(logits, targets), expected, rtol=1e-6, atol=1e-7
        )


def sigmoid(x):
    return 1 / (1 + np.exp(-x.astype(np.float64)))


def test_gaussian_focal_loss_is_its_formula():
    """Law & Deng 2018, eq. 1, in double precision."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 7)).astype(np.float32) * 3
    targets = np.where(rng.random((6, 7)) < 0.2, 1, rng.random((6, 7))).astype(np.float32)
    p = sigmoid(logits)
    peak, other = -((1 - p) ** 2) * np.log(p), -((1 - targets) ** 4) * p**2 * np.log(1 - p)
    ours = losses.gaussian_focal_loss(logits, targets)
    np.testing.assert_allclose(ours, np.where(targets == 1, peak, other), rtol=1e-4, atol=1e-7)


def test_quality_focal_loss_is_its_formula():
    """Li et al. 2020, eq. 2; with whole numbers as targets it is the focal loss without weights."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 7)).astype(np.float32) * 3
    quality = rng.random((6, 7)).astype(np.float32)
    p = sigmoid(logits)
    entropy = -quality * np.log(p) - (1 - quality) * np.log(1 - p)
    ours = losses.quality_focal_loss(logits, quality)
    np.testing.assert_allclose(ours, (p - quality) ** 2 * entropy, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(
        losses.quality_focal_loss(logits, np.round(quality)),
        losses.sigmoid_focal_loss(logits, np.round(quality), alpha=-1),
        rtol=1e-5,
        atol=1e-8,
    )


def test_varifocal_loss_is_its_formula():
    """Zhang et al. 2021, eq. 2, in double precision."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 7)).astype(np.float32) * 3
    quality = np.where(rng.random((6, 7)) < 0.5, 0, rng.random((6, 7))).astype(np.float32)
    p = sigmoid(logits)
    object_ = -quality * (quality * np.log(p) + (1 - quality) * np.log(1 - p))
    background = -0.6 * p**1.5 * np.log(1 - p)
    ours = losses.varifocal_loss(logits, quality, 0.6, 1.5)
    np.testing.assert_allclose(ours, np.where(quality > 0, object_, background), rtol=1e-4)


@pytest.mark.parametrize(
    "loss", [losses.gaussian_focal_loss, losses.quality_focal_loss, losses.varifocal_loss]
)
def test_gradients_of_wild_logits_are_finite(loss):
    logits = jnp.array([-1e4, -100.0, 0.0, 100.0, 1e4])
    for target in (0.0, 0.5, 1.0):
        value, gradient = jax.value_and_grad(lambda x, t=target: loss(x, jnp.full(5, t)).sum())(
            logits
        )
        assert np.isfinite(value) and bool(jnp.isfinite(gradient).all())


def test_giou_of_boxes_that_end_behind_their_pixels():
    """MMDetection 1, step by step: one more in every width and height."""
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 3, (2, 20, 2))
    a, b = np.concatenate([low, low + rng.uniform(0.1, 3, low.shape)], -1).astype(np.float32)
    shared = np.maximum(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]) + 1, 0)
    areas = [(box[:, 2:] - box[:, :2] + 1).prod(1) for box in (a, b)]
    union = sum(areas) - shared.prod(1)
    hull = (np.maximum(a[:, 2:], b[:, 2:]) - np.minimum(a[:, :2], b[:, :2]) + 1).prod(1)
    expected = 1 - shared.prod(1) / union + (hull - union) / hull
    ours = losses.iou_loss(jnp.asarray(a), jnp.asarray(b), "giou", extent=1.0)
    np.testing.assert_allclose(ours, expected, rtol=1e-4)
    assert np.abs(expected - losses.iou_loss(jnp.asarray(a), jnp.asarray(b))).max() > 0.1
