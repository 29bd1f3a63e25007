import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet import build
from jdet.detectors.roi_heads import BoxHead, each_region
from jdet.nn import observe
from jdet.nn.norm import Norm
from tests import harness


@pytest.mark.parametrize(
    "name, fields, norm, parameters",
    [
        ("2fc", {}, "none", 14_306_705),
        ("2fc", dict(class_agnostic=True), "none", 13_982_805),
        ("4conv1fc", {}, "none", 15_617_425),
        ("4conv1fc", {}, "group", 15_618_449),
        ("4conv1fc", {}, "batch", 15_618_449),
    ],
)
def test_published_parameters(name, fields, norm, parameters):
    head = build.make("box_head", {"name": name, **fields}, "here", num_classes=80, norm=Norm(norm))
    x, real = jax.ShapeDtypeStruct((1, 2, 7, 7, 256), jnp.float32), np.ones((1, 2), bool)
    with observe.scale_invariant() as invariant:
        made = jax.eval_shape(lambda x: head.init(jax.random.key(0), x, real, train=True), x)
    assert sum(leaf.size for leaf in jax.tree.leaves(made["params"])) == parameters
    assert len(invariant) == (4 if norm != "none" else 0)
    assert all(path.split("/")[0] in made["params"] for path in invariant)


@pytest.mark.parametrize("kind", ["batch", "group", "layer"])
def test_regions_that_only_fill_up_count_nowhere(kind):
    """Neither in statistics nor in what is said of others; every region is an image to other norms."""
    head = BoxHead(num_classes=3, convs=1, conv_channels=8, fcs=1, fc_channels=8, norm=Norm(kind))
    x = jnp.asarray(np.random.default_rng(0).normal(2, 3, (2, 5, 3, 3, 4)), jnp.float32)
    real = jnp.array([[True, True, False, True, False], [True, False, False, True, True]])
    variables = harness.initialise(head, x, real, train=True)

    @jax.jit
    def run(x):
        (logits, offsets), updates = head.apply(
            variables, x, real, train=True, mutable=["batch_stats"]
        )
        return logits, offsets, updates

    logits, offsets, updates = run(x)
    assert logits.shape == (2, 5, 4) and offsets.shape == (2, 5, 3, 4)
    wild = run(jnp.where(real[..., None, None, None], x, 100.0))
    np.testing.assert_allclose(logits[real], wild[0][real], rtol=1e-5)
    np.testing.assert_allclose(offsets[real], wild[1][real], rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), updates, wild[2])
    if kind != "batch":
        return
    kernel = variables["params"]["conv1"]["kernel"]
    features = each_region(
        lambda x: jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
        x,
    )
    mean = features[real].reshape(-1, 8).mean(0)
    np.testing.assert_allclose(
        updates["batch_stats"]["norm1"]["mean"], 0.1 * mean, rtol=1e-4, atol=1e-6
    )
