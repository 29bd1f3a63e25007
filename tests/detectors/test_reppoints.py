"""RepPointsV2: its head, losses, refinement by corners, and the parameters that papers print."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.detectors.reppoints import point_grids, snapped
from jdet.detectors.reppoints_head import POINTS, RepPointsHead
from jdet.nn import padding
from jdet.nn.norm import Norm
from tests import harness
from tests.detectors.test_dense_detector import CLASSES, make

NAMES = ("reppoints_v2", "swin_reppoints_v2")


def test_battery():
    fields = dict(norm="batch", head_norm="batch", corner_channels=8)
    harness.check_detector(
        lambda: make("reppoints_v2", **fields),
        64,
        len(CLASSES),
        background=True,
        # Classes are read at the first points: only the refined ones learn from objects alone.
        boxes="head/refined/.*",
    )


def run_head(x, sizes=None, **fields):
    head = RepPointsHead(3, depth=1, channels=8, corner_channels=4, norm=Norm("group"), **fields)
    variables = harness.initialise(head, [x], train=False)
    with padding.content(sizes, (64, 64)):
        return head, variables, head.apply(variables, [x], train=True)


def test_head_of_nothing_predicts_points_on_the_grid():
    """Biases alone: classes and corners are unlikely, points lie on the grid."""
    _, variables, found = run_head(jnp.zeros((1, 4, 5, 8)))
    assert {name: maps[0].shape[1:] for name, maps in found.items()} == {
        "initial": (20, 2 * POINTS),
        "offsets": (20, 2 * POINTS),
        "logits": (20, 3),
        "semantic": (20, 3),
        "heat": (20, 2),
        "corners": (20, 4),
    }
    for name in ("logits", "semantic", "heat"):
        np.testing.assert_allclose(jax.nn.sigmoid(found[name][0]), 0.01, atol=1e-3)
    assert not found["initial"][0].any() and not found["corners"][0].any()
    assert variables["params"]["cls_deform"]["kernel"].shape == (3, 3, 8 + 6, 8)


def test_points_learn_a_tenth_of_what_is_read_at_them():
    """And nothing through the points that the refined ones are added to."""
    x = jax.random.normal(jax.random.key(0), (1, 4, 4, 8))
    for share in (0.0, 0.1, 1.0):
        head, variables, _ = run_head(x, points_gradient=share)

        def loss(bias, name, head=head, variables=variables):
            own = {**variables["params"]["initial"], "bias": bias}
            params = {**variables["params"], "initial": own}
            weights = jnp.arange(16.0)[:, None]
            return jnp.sum(head.apply({"params": params}, [x], train=True)[name][0] * weights)

        bias = jnp.linspace(0.1, 0.9, 2 * POINTS)  # between cells
        gradient = {name: jax.grad(loss)(bias, name) for name in ("logits", "offsets", "initial")}
        np.testing.assert_allclose(gradient["initial"], np.arange(16).sum(), rtol=1e-5)
        if share == 0.0:
            assert not gradient["logits"].any() and not gradient["offsets"].any()
        elif share == 0.1:
            tenth = gradient
        else:
            for name in ("logits", "offsets"):
                assert jnp.abs(gradient[name]).max() > 0
                np.testing.assert_allclose(gradient[name], 10 * tenth[name], rtol=1e-3, atol=1e-9)


def literal_snap(corner, heat, offset, rows, columns, stride):
    """The authors' ``select``: the best of the 2×2 window that starts at the cell, first in rows."""
    x, y = np.clip(np.floor(corner / stride), 0, [max(columns - 2, 0), max(rows - 2, 0)]).astype(
        int
    )
    window = heat[y : y + 2, x : x + 2]
    i, j = np.unravel_index(np.argmax(window), window.shape)
    return (np.array([x + j, y + i]) + offset[y + i, x + j]) * stride


@pytest.mark.parametrize("rows, columns", [(5, 4), (1, 4), (1, 1)])
def test_corners_move_to_the_best_heat(rows, columns):
    rng = np.random.default_rng(rows)
    heat = rng.integers(0, 3, (rows, columns, 2)).astype(np.float32)  # ties
    offsets = rng.normal(size=(rows, columns, 4)).astype(np.float32)
    boxes = rng.uniform(-20, 60, (40, 4)).astype(np.float32)
    y, x = np.mgrid[:rows, :columns] * 8.0
    priors = np.stack([x, y, x * 0 + 8, x * 0 + 8], -1).reshape(-1, 4)
    (grid,) = point_grids([priors])
    assert grid == (rows, columns, 8.0)
    maps = heat.reshape(-1, 2), offsets.reshape(-1, 4)
    found = snapped(
        jnp.asarray(boxes), *map(jnp.asarray, maps), grid, jnp.array([rows, columns]) * 8
    )
    for box, moved in zip(boxes, found):
        for i in (0, 2):
            pair = slice(i, i + 2)
            own = heat[..., i // 2], offsets[..., pair]
            expected = literal_snap(box[pair], *own, rows, columns, 8.0)
            np.testing.assert_allclose(moved[pair], expected, rtol=1e-5, atol=1e-4)
