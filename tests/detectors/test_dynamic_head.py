"""A stage of Sparse R-CNN against a plain reference, proposal by proposal."""

import jax
import jax.numpy as jnp
import numpy as np

from jdet.detectors.dynamic_head import DynamicHead
from jdet.nn.observe import scale_invariant
from jdet.nn.remat import Remat

HEADS, WIDTH, DYNAMIC, SIDE = 2, 8, 3, 2


def dense(p, x):
    return x @ p["kernel"] + p.get("bias", 0)


def norm(p, x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * p["scale"] + p["bias"]


def relu(x):
    return np.maximum(x, 0)


def attention(p, x):
    """Head by head, of one image [R, C]."""
    q, k, v = np.split(dense(p["qkv"], x), 3, -1)
    size, found = WIDTH // HEADS, []
    for h in range(HEADS):
        part = slice(h * size, (h + 1) * size)
        weights = np.exp(q[:, part] @ k[:, part].T / np.sqrt(size))
        found.append(weights / weights.sum(-1, keepdims=True) @ v[:, part])
    return dense(p["proj"], np.concatenate(found, -1))


def dynamic_conv(p, feature, region):
    """Of one proposal: [C] and [cells, C]."""
    kernels = dense(p["kernels"], feature)
    first = kernels[: WIDTH * DYNAMIC].reshape(WIDTH, DYNAMIC)
    second = kernels[WIDTH * DYNAMIC :].reshape(DYNAMIC, WIDTH)
    x = relu(norm(p["norm1"], region @ first))
    x = relu(norm(p["norm2"], x @ second))
    return relu(norm(p["fc_norm"], dense(p["fc"], x.reshape(-1))))


def reference(p, features, regions):
    x = norm(p["attention_norm"], features + attention(p["attention"], features))
    rows = zip(x, regions.reshape(len(x), -1, WIDTH))
    x = norm(p["dynamic_norm"], x + np.stack([dynamic_conv(p["dynamic_conv"], *r) for r in rows]))
    x = norm(p["fc_norm"], x + dense(p["fc2"], relu(dense(p["fc1"], x))))
    cls = relu(norm(p["cls_norm1"], dense(p["cls_fc1"], x)))
    box = x
    for i in "123":
        box = relu(norm(p[f"box_norm{i}"], dense(p[f"box_fc{i}"], box)))
    return dense(p["cls"], cls), dense(p["box"], box), x


def test_a_stage_equals_the_reference():
    head = DynamicHead(num_classes=4, attention_heads=HEADS, dynamic_channels=DYNAMIC, hidden=12)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, 5, WIDTH)).astype(np.float32)
    regions = rng.normal(size=(2, 5, SIDE, SIDE, WIDTH)).astype(np.float32)
    with scale_invariant() as free:
        shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), features, regions))["params"]
    # Biases and norms that are not their initial values, which would hide what they do.
    params = jax.tree.map(lambda x: rng.normal(0, 0.5, x.shape).astype(np.float32), shapes)
    found = jax.jit(head.apply)({"params": params}, features, regions)
    expected = [reference(params, *image) for image in zip(features, regions)]
    for one, other in zip(found, zip(*expected)):
        np.testing.assert_allclose(one, np.stack(other), rtol=1e-4, atol=1e-4)
    assert {path for path in free if "box" in path} == {f"box_fc{i}/kernel" for i in "123"}
    assert all("bias" not in shapes[path.split("/")[0]] for path in free)


def test_bfloat16_and_recomputation_keep_the_types():
    """Predictions are float32, features go on as they are computed; nothing is run."""
    shapes = [jax.ShapeDtypeStruct((2, 5, *x, WIDTH), jnp.bfloat16) for x in ((), (SIDE, SIDE))]
    for dtype, remat in ((jnp.bfloat16, Remat()), (jnp.float32, Remat("full"))):
        head = DynamicHead(
            num_classes=4, attention_heads=HEADS, hidden=12, dtype=dtype, remat=remat
        )
        made = jax.eval_shape(lambda key, *x, h=head: h.init(key, *x), jax.random.key(0), *shapes)
        found = jax.eval_shape(head.apply, made, *shapes)
        assert [x.dtype for x in found] == [jnp.float32, jnp.float32, dtype]

        def loss(variables, *given, head=head):
            return sum(jnp.sum(x.astype(jnp.float32)) for x in head.apply(variables, *given))

        assert jax.eval_shape(jax.grad(loss), made, *shapes) == made


def test_recomputation_and_bfloat16_give_the_same():
    """Values and gradients; in bfloat16 as far as it reaches."""
    rng = np.random.default_rng(4)
    given = [rng.normal(size=(2, 5, *x, WIDTH)).astype(np.float32) for x in ((), (SIDE, SIDE))]
    settings = dict(num_classes=4, attention_heads=HEADS, dynamic_channels=DYNAMIC, hidden=12)
    variables = jax.jit(DynamicHead(**settings).init)(jax.random.key(0), *given)

    def run(dtype=jnp.float32, **more):
        head = DynamicHead(**settings, dtype=dtype, **more)

        def loss(variables):
            logits, offsets, _ = head.apply(
                variables, *(x.astype(dtype) for x in map(jnp.asarray, given))
            )
            return jnp.sum(logits**2) + jnp.sum(offsets**2)

        return jax.tree.leaves(jax.jit(jax.value_and_grad(loss))(variables))

    plain, again, half = run(), run(remat=Remat("full")), run(jnp.bfloat16)
    for a, b, c in zip(plain, again, half):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(a, c, atol=0.1 * np.abs(a).max() + 1e-6)


def test_numbers_of_a_stage():
    """MMDetection's ``DIIHead`` of 80 classes and 256 channels has 13,235,412 parameters."""
    features, regions = (np.zeros((1, 2, *x, 256), np.float32) for x in ((), (7, 7)))
    shapes = jax.eval_shape(
        lambda: DynamicHead(num_classes=80).init(jax.random.key(0), features, regions)
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 13_235_412
