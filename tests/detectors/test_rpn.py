import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet import build
from jdet.detectors.pyramid import Predictions
from jdet.detectors.rpn import RPN
from jdet.ops import sampling
from jdet.ops.anchors import default_boxes
from jdet.ops.boxes import cxcywh_to_xyxy
from jdet.types import ConfigError
from tests.detectors import two_stage
from tests.golden import centred, load


def torchvision(**fields):
    return build.make("rpn", {"name": "torchvision_rpn", **fields}, "here")


@pytest.fixture(scope="module")
def golden():
    return load("rpn")


def predictions(golden):
    """Of torchvision's three levels, two images."""
    ends = np.cumsum(golden["level_sizes"])[:-1]
    logits = np.split(golden["flat_objectness"].reshape(2, -1), ends, axis=1)
    offsets = np.split(golden["flat_deltas"].reshape(2, -1, 4), ends, axis=1)
    priors = np.split(centred(golden["anchors"]).astype(np.float32), ends)
    arrays = jax.tree.map(jnp.asarray, {"logits": logits, "offsets": offsets})
    return Predictions(arrays, priors)


def test_losses_equal_torchvision(golden):
    """Every anchor is sampled there."""
    boxes, valid = np.zeros((2, 4, 4), np.float32), np.zeros((2, 4), bool)
    for i in range(2):
        n = len(golden[f"boxes{i}"])
        boxes[i, :n], valid[i, :n] = golden[f"boxes{i}"], True
    rpn = torchvision(samples=2016)
    means = jax.jit(
        lambda *arrays: rpn.apply(
            {}, predictions(golden), *arrays, method="losses", rngs={"sample": jax.random.key(0)}
        )
    )(boxes, valid, golden["image_hw"])
    counted = (golden["labels"] >= 0).sum()
    assert means["rpn_cls"].weight == means["rpn_loc"].weight == counted
    np.testing.assert_allclose(
        means["rpn_cls"].total / counted, golden["loss_objectness"], rtol=1e-5
    )
    np.testing.assert_allclose(means["rpn_loc"].total / counted, golden["loss_box"], rtol=1e-5)


def test_proposals_equal_torchvision(golden):
    rpn = torchvision(pre_nms=100, proposals=50)
    found = jax.jit(functools.partial(rpn.propose, predictions(golden), train=False))(
        golden["image_hw"]
    )
    assert found.valid.all()
    for i in range(2):
        np.testing.assert_allclose(found.scores[i], golden[f"prop_scores{i}"], rtol=1e-5)
        np.testing.assert_allclose(found.boxes[i], golden[f"prop_boxes{i}"], rtol=1e-4, atol=1e-3)


def iou(corners):
    """Of all pairs, in numpy."""
    low = np.maximum(corners[:, None, :2], corners[None, :, :2])
    high = np.minimum(corners[:, None, 2:], corners[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    areas = (corners[:, 2:] - corners[:, :2]).prod(-1)
    return shared / np.maximum(areas[:, None] + areas - shared, 1e-9)


LEVELS = ((16, 16), (8, 8), (0, 0), (4, 4))


def random_predictions(size=64, seed=0, scale=8.0):
    """On three levels, and one without anchors."""
    rng = np.random.default_rng(seed)
    levels = RPN(anchor_scale=scale / 4).anchor_levels((4, 8, 8, 16))
    priors = [default_boxes([level], [cells]) for level, cells in zip(levels, LEVELS)]
    draw = {
        "logits": [jnp.asarray(rng.normal(size=(2, len(p))), jnp.float32) for p in priors],
        "offsets": [jnp.asarray(rng.normal(size=(2, len(p), 4)), jnp.float32) for p in priors],
    }
    return Predictions(draw, priors)


def test_proposals_are_the_best_boxes_of_every_level():
    """Top of each level, cut to the content, NMS within the level, and the best of all; in numpy."""
    rpn = RPN(pre_nms_train=30, proposals_train=40)
    found, sizes = random_predictions(), np.array([[64, 64], [40, 50]])
    proposals = jax.jit(functools.partial(rpn.propose, found, train=True))(sizes)
    for i, (height, width) in enumerate(sizes):
        rows = []
        for logits, offsets, prior in zip(*found.outputs.values(), found.priors):
            on_image = (prior[:, 0] < width) & (prior[:, 1] < height)
            score = np.where(on_image, np.asarray(logits[i], np.float64), -np.inf)
            order = np.argsort(-score, kind="stable")[:30]
            corners = np.asarray(rpn.decode(offsets[i], jnp.asarray(prior)))
            corners = np.clip(corners, 0, [width, height, width, height])
            overlaps = iou(corners)
            kept = []
            for j in order[score[order] > -np.inf]:
                side = (corners[j, 2:] - corners[j, :2]).min()
                if side > 0 and (not kept or overlaps[j, kept].max() <= 0.7):
                    kept.append(j)
            rows += [(score[j], *corners[j]) for j in kept]
        rows = np.array(sorted(rows, key=lambda row: -row[0])[:40])
        there = np.asarray(proposals.valid[i])
        assert there.sum() == len(rows) and not there[len(rows) :].any()
        np.testing.assert_allclose(proposals.boxes[i, : len(rows)], rows[:, 1:], atol=1e-4)
        np.testing.assert_allclose(
            proposals.scores[i, : len(rows)], 1 / (1 + np.exp(-rows[:, 0])), rtol=1e-5
        )


def test_images_without_content_or_objects_propose_and_teach_no_boxes():
    rpn, found = RPN(samples=32), random_predictions()
    sizes, nothing = jnp.array([[0, 0], [64, 64]]), jnp.zeros((2, 3, 4))
    proposals = jax.jit(functools.partial(rpn.propose, found, train=False))(sizes)
    assert not proposals.valid[0].any() and (proposals.boxes[0] == 0).all()
    assert proposals.valid[1].any()

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def losses(outputs):
        given = found._replace(outputs=outputs)
        means = rpn.apply(
            {},
            given,
            nothing,
            jnp.zeros((2, 3), bool),
            sizes,
            method="losses",
            rngs={"sample": jax.random.key(0)},
        )
        return sum(mean.total for mean in means.values()), means

    gradient, means = losses(found.outputs)
    assert means["rpn_cls"].weight == 32 and means["rpn_loc"].total == 0
    assert all((leaf == 0).all() for leaf in gradient["offsets"])
    assert all(jnp.isfinite(leaf).all() for leaf in gradient["logits"])


def test_anchors_that_leave_the_image_can_be_left_out():
    priors = np.concatenate(random_predictions().priors)
    sizes = np.array([[64, 64], [40, 50]])
    x1, y1, x2, y2 = np.asarray(cxcywh_to_xyxy(priors)).T
    for border in (0.0, 3.0):
        found = RPN(border=border)._taking_part(priors, jnp.asarray(sizes))
        for row, (height, width) in zip(np.asarray(found), sizes):
            fits = (x1 >= -border) & (y1 >= -border)
            fits &= (x2 < width + border) & (y2 < height + border)
            centred = (priors[:, 0] < width) & (priors[:, 1] < height)
            np.testing.assert_array_equal(row, fits & centred)
            assert 0 < row.sum() < centred.sum()


def test_anchors_draw_alike_in_any_input():
    """What is sampled of an image does not depend on the size that it is padded to."""
    level = RPN().anchor_levels((4,))
    small, large = (default_boxes(level, [cells]) for cells in ((8, 8), (12, 20)))
    numbers = {tuple(row): x for row, x in zip(large, sampling.anchor_ids(large))}
    assert len(set(numbers.values())) == len(large)
    ids = sampling.anchor_ids(small)
    assert [numbers[tuple(row)] for row in small] == ids.tolist()
    drawn = sampling.noise(jax.random.key(1), np.arange(100_000, dtype=np.uint32))
    assert 0 <= drawn.min() and drawn.max() < 1
    share = np.histogram(drawn, 10, (0, 1))[0] / 100_000
    np.testing.assert_allclose(share, 0.1, atol=0.005)
    others = sampling.noise(jax.random.key(2), np.arange(100_000, dtype=np.uint32))
    assert abs(np.corrcoef(drawn, others)[0, 1]) < 0.02
    assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 0.02


@pytest.mark.parametrize("row", ["rpn", "cascade_rpn", "torchvision_rpn"])
def test_rows_differ_as_the_references_do(row):
    rpn = build.make("rpn", {"name": row}, "here")
    assert (rpn.pre_nms_train, rpn.pre_nms, rpn.proposals) == (2000, 1000, 1000)
    assert rpn.proposals_train == (1000 if row == "rpn" else 2000)
    assert rpn.border == (0 if row == "cascade_rpn" else -1)
    assert rpn.clamp_below == (row != "torchvision_rpn")
    box = rpn.decode(jnp.array([0.0, 0, -9, -9]), jnp.array([8.0, 8, 16, 16]))
    assert (box[2] - box[0] < 0.2) == (row == "torchvision_rpn")
    sides = [level.cell()[0, 1] for level in rpn.anchor_levels((4, 8))]
    whole = row == "torchvision_rpn"
    np.testing.assert_allclose(sides, [22, 46] if whole else [22.627417, 45.254834])


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ConfigError, match="rpn.negative_iou=0.8 and rpn.iou_threshold=0.7"):
        two_stage.make(rpn=dict(negative_iou=0.8))
    with pytest.raises(ConfigError, match="rpn.box_loss='giou'; it can be one of l1, smooth_l1"):
        two_stage.make(rpn=dict(box_loss="giou"))
    with pytest.raises(ConfigError, match="config.model.rpn.samples=0; it must be in 1"):
        two_stage.make(rpn=dict(samples=0))
