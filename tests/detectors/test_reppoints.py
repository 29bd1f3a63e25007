"""RepPointsV2: its head, losses, refinement by corners, and the parameters that papers print."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.detectors.pyramid import Predictions
from jdet.detectors.reppoints import point_grids, snapped
from jdet.detectors.reppoints_head import POINTS, RepPointsHead
from jdet.nn import padding
from jdet.nn.norm import Norm
from tests import harness
from tests.detectors.test_dense_detector import CLASSES, make, random_predictions
from tests.ops.matching import test_atss

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


def losses_of(model, found, *arrays):
    """``loss_terms`` of two images of 64×64 pixels."""

    @jax.jit
    def run(outputs, *arrays):
        predictions = Predictions(outputs, found.priors)
        return model.loss_terms(predictions, *arrays, jnp.full((2, 2), 64))

    return run(found.outputs, *arrays)


def smooth_l1(difference, beta):
    away = np.abs(difference)
    return np.where(away < beta, away**2 / (2 * beta), away - beta / 2)


def giou(a, b, extent):
    shared = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]) + extent
    hull = (np.maximum(a[2:], b[2:]) - np.minimum(a[:2], b[:2]) + extent).prod()
    inner = np.maximum(shared, 0).prod()
    union = sum(np.maximum(x[2:] - x[:2] + extent, 0).prod() for x in (a, b)) - inner
    return inner / union - (hull - union) / hull


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def reference(outputs, priors, ground_truth, labels, quality):
    """Box, class and semantic losses of one image, place by place, by the spec of the detector."""
    stride, centre = priors[:, 2], np.concatenate([priors[:, :2]] * 2, 1)
    first, refined = (
        outputs[name][:, [1, 0, 3, 2]] * stride[:, None] + centre for name in ("initial", "offsets")
    )
    level = np.clip(
        np.trunc(np.log2((ground_truth[:, 2:] - ground_truth[:, :2]) / 4).mean(1)), 3, 5
    )
    sums = dict.fromkeys(("initial", "loc", "cls"), 0.0)

    def box_loss(a, b, unit):
        if quality:
            return 1 - giou(a / unit, b / unit, 1)
        return smooth_l1((a - b) / unit, 0.11).sum()

    for box, own in zip(ground_truth, level):
        size = box[2:] - box[:2]
        away = np.linalg.norm((priors[:, :2] - (box[:2] + box[2:]) / 2) / size, axis=1)
        away[np.log2(stride) != own] = np.inf
        place = away.argmin()
        sums["initial"] += box_loss(first[place], box, 4 * stride[place])

    best, owner = np.zeros(len(priors)), np.full(len(priors), -1)
    for i, box in enumerate(ground_truth):
        middle, near = (first[:, :2] + first[:, 2:]) / 2, []
        distance = np.linalg.norm(middle - (box[:2] + box[2:]) / 2, axis=1)
        for s in (8, 16, 32):
            own = np.flatnonzero(stride == s)
            near += own[np.argsort(distance[own], kind="stable")[:9]].tolist()
        overlap = iou(box, first[near])
        threshold = overlap.mean() + overlap.std(ddof=1)
        for j, value in zip(near, overlap):
            depth = min(*(middle[j] - box[:2]), *(box[2:] - middle[j]))
            if value >= threshold and depth > 0.01 and value > best[j]:
                best[j], owner[j] = value, i
    p = sigmoid(outputs["logits"])
    for j, i in enumerate(owner):
        target = np.zeros(p.shape[1])
        if i >= 0:
            sums["loc"] += box_loss(refined[j], ground_truth[i], 4 * stride[j])
            target[labels[i]] = iou(ground_truth[i], refined[j][None])[0] if quality else 1
        if quality:
            entropy = -target * np.log(p[j]) - (1 - target) * np.log(1 - p[j])
            sums["cls"] += (np.abs(p[j] - target) ** 2 * entropy).sum()
        else:
            right = np.where(target == 1, p[j], 1 - p[j])
            share = np.where(target == 1, 0.25, 0.75)
            sums["cls"] += (-share * (1 - right) ** 2 * np.log(right)).sum()
    return sums, (owner >= 0).sum()


def iou(box, others):
    """As the tests of ATSS have it; boxes with sides the wrong way round have no area."""
    sides = np.maximum(others[:, 2:] - others[:, :2], 0)
    whole = np.concatenate([others[:, :2], others[:, :2] + sides], 1)
    return test_atss.iou(box, whole)


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_those_of_the_spec(name):
    """Box and class losses; targets of corners and classes have tests of their own."""
    model = make(name)
    found = random_predictions(model, count=2)
    signs = jnp.tile(jnp.array([-2.0, -2.0, 2.0, 2.0]), 5)[: 2 * POINTS]
    for key in ("initial", "offsets"):  # boxes with an area, most of them
        found.outputs[key] = [x + signs for x in found.outputs[key]]
    batch = harness.make_batch(64, count=2)
    arrays = batch.boxes, batch.labels, batch.boxes[..., 2] > batch.boxes[..., 0]
    means = losses_of(model, found, *arrays)
    outputs, priors = found.joined()
    valid = np.asarray(arrays[2])
    assert valid.sum(1).tolist() == [3, 0]
    own = {key: np.asarray(x[0], np.float64) for key, x in outputs.items()}
    ground_truth, labels = (np.asarray(x[0][valid[0]]) for x in arrays[:2])
    sums, positives = reference(
        own, priors, ground_truth.astype(np.float64), labels, "swin" in name
    )
    p = sigmoid(np.asarray(outputs["logits"][1], np.float64))  # no object: all background
    share = 1 if "swin" in name else 0.75
    sums["cls"] += (-share * p**2 * np.log(1 - p)).sum()
    weights = (1.0, 2.0) if "swin" in name else (0.5, 1.0)
    assert positives > 1 and means["loc"].weight == means["cls"].weight == positives
    assert means["initial"].weight == 3
    for key, weight in zip(("initial", "loc", "cls"), (*weights, 1.0)):
        np.testing.assert_allclose(means[key].total, weight * sums[key], rtol=1e-4)
    for corner in ("tl", "br"):
        assert means[f"{corner}_heat"].weight == means[f"{corner}_offset"].weight > 3


def test_an_image_without_objects_learns_that_there_is_nothing():
    model = make("reppoints_v2")
    found, batch = random_predictions(model), harness.make_batch(64, count=2)
    nothing = jnp.zeros(batch.valid.shape, bool)
    means = losses_of(model, found, batch.boxes, batch.labels, nothing)
    assert all(mean.weight == 0 for mean in means.values())
    learned = {name for name, mean in means.items() if mean.total > 0}
    assert learned == {"cls", "tl_heat", "br_heat", "semantic_background"}


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


def test_only_coarse_levels_are_refined_and_only_on_request():
    """One place of each level is sure of a box; the heat of the finest level is all one value."""
    settings = dict(score_threshold=0.1, nms_iou=1.0, max_detections=3)
    found = random_predictions(make("reppoints_v2", **settings))
    place = 5, 3, 0
    for number, j in enumerate(place):
        found.outputs["logits"][number] = (
            (found.outputs["logits"][number] * 0 - 9).at[:, j, 0].set(9.0 - number)
        )
    found.outputs["heat"][0] = jnp.zeros_like(found.outputs["heat"][0])
    found.outputs["corners"][0] = jnp.full_like(found.outputs["corners"][0], 0.25)

    def detected(on):
        model = make("reppoints_v2", **settings, refine_corners=on)

        @jax.jit
        def run(outputs):
            return model.postprocess(Predictions(outputs, found.priors), jnp.full((2, 2), 64))

        return run(found.outputs)

    plain, refined = detected(False), detected(True)
    np.testing.assert_array_equal(plain.boxes[:, 0], refined.boxes[:, 0])
    # With equal heat the first of four cells is taken, a quarter of a stride before its corner.
    assert (refined.boxes[:, 1:] % 8 == 2).all() and (
        plain.boxes[:, 1:] != refined.boxes[:, 1:]
    ).any()
    assert (plain.boxes[..., 2:] >= plain.boxes[..., :2]).all()


def test_points_that_are_no_numbers_take_no_objects():
    """Such as a diverged network has; the first assignment does not look at them."""
    model, batch = make("reppoints_v2"), harness.make_batch(64, count=2)
    found = random_predictions(model)
    bad = jnp.array([jnp.nan, jnp.inf, -jnp.inf, 1e30])
    initial = [x.at[:, :4].set(bad[None, :, None]) for x in found.outputs["initial"]]
    found = Predictions({**found.outputs, "initial": initial}, found.priors)
    arrays = batch.boxes, batch.labels, batch.boxes[..., 2] > batch.boxes[..., 0]
    means = losses_of(model, found, *arrays)
    assert all(np.isfinite(means[name].total) for name in means if name != "initial")
