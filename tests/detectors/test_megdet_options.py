"""MegDet's further tricks: context of RoIs, classes of cells, large kernels, a dilated last stage."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet import build
from jdet.backbones.resnet import ResNet
from jdet.config import get_defaults
from jdet.detectors.roi_features import RoIDetector
from jdet.detectors.semantic_head import semantic_loss, semantic_targets
from jdet.necks.fpn import FPN
from jdet.nn import observe
from jdet.nn.conv import conv2d
from jdet.nn.initialisers import he
from jdet.nn.large_kernel import LargeKernel
from jdet.nn.norm import Norm
from jdet.train import optim
from jdet.train.init.layer_gradients import mean_squares
from jdet.types import ConfigError
from tests import harness
from tests.detectors import two_stage
from tests.detectors.two_stage import CLASSES, make

STRIDE = 4


def traced(model, batch):
    """Losses and parameters, by shape alone."""
    return jax.eval_shape(
        lambda key: model.init_with_output(key, batch, method="losses", train=True),
        jax.random.key(0),
    )


def sizes(tree):
    return {
        "/".join(k.key for k in p): x.shape for p, x in jax.tree_util.tree_leaves_with_path(tree)
    }


def test_they_are_off_by_default_and_add_what_they_say():
    batch = harness.make_batch(64, count=2)
    losses, plain = traced(make(), batch)
    assert set(losses) == {"rpn_cls", "rpn_loc", "cls", "loc"}
    fields = dict(context=2.0, semantic_weight=0.2, semantic_convs=1, semantic_channels=4)
    model = make(head_norm="group", **fields)
    losses, more = traced(model, batch)
    assert set(losses) == {"rpn_cls", "rpn_loc", "cls", "loc", "semantic"}
    before, after = sizes(plain["params"]), sizes(more["params"])
    own = {path for path in after if path.startswith("semantic_head/")}
    assert set(after) - set(before) == own
    assert after["semantic_head/cls/kernel"] == (1, 1, 4, 1 + len(CLASSES))
    assert {path.split("/")[1] for path in own} == {"level1", "conv1", "cls"}
    assert any("/norm/" in path for path in own)
    changed = {path for path, shape in before.items() if after[path] != shape}
    assert changed == {"box_head/fc1/kernel"}
    (inputs, _), (twice, _) = before["box_head/fc1/kernel"], after["box_head/fc1/kernel"]
    assert twice == 2 * inputs
    assert model.remat_parts == ("semantic_head",) and make().remat_parts == ()
    layers = [layer.pattern for layer in model.head_layout().classes]
    assert any(path.startswith("semantic_head") for path in layers)


def test_context_is_what_surrounds_a_roi():
    """It is read as the RoI itself is, RoIs that only fill up are named, and it comes second."""
    corners = np.array([[[20, 24, 28, 44], [2, 2, 40, 30], [0, 0, 9, 9]]], np.float32)
    around = [[[16, 14, 32, 54], [-17, -12, 59, 44], [-4.5, -4.5, 13.5, 13.5]]]
    asked = []

    def pool(self, levels, corners, real, size):
        asked.append((levels, real, size))
        return jnp.asarray(corners)[:, :, None, None]

    model = make(context=2.0, roi_size=2)
    with mock.patch.object(RoIDetector, "pool", pool):
        found = model.box_features("levels", corners, "real")
    np.testing.assert_array_equal(found[:, :, 0, 0], np.concatenate([corners, around], -1))
    assert asked == [("levels", "real", 2)] * 2


def painted(batch, learnt, cells, masked):
    """The classes of cells object by object, the largest first."""
    target = np.zeros((len(batch.boxes), cells, cells), int)
    known = np.zeros(target.shape, bool)
    for b, size in enumerate(np.asarray(batch.image_sizes)):
        corners = np.asarray(batch.boxes[b])
        order = np.argsort(-(corners[:, 2:] - corners[:, :2]).prod(1))
        for i in range(cells):
            for j in range(cells):
                y, x = (i + 0.5) * STRIDE, (j + 0.5) * STRIDE
                hidden, cls = False, 0
                for n in order:
                    x1, y1, x2, y2 = corners[n]
                    if not (batch.valid[b, n] and x1 <= x < x2 and y1 <= y < y2):
                        continue
                    shown = True
                    if masked:
                        mask = np.asarray(batch.masks[b, n])
                        side = len(mask)
                        row, column = (y - y1) / (y2 - y1) * side, (x - x1) / (x2 - x1) * side
                        shown = mask[int(row), int(column)]
                        hidden |= not mask.any()
                    if not learnt[b, n]:
                        hidden = True
                    elif shown:
                        cls = batch.labels[b, n] + 1
                target[b, i, j] = cls
                known[b, i, j] = y < size[0] and x < size[1] and (cls > 0 or not hidden)
    return target, known


@pytest.mark.parametrize("masked", [False, True])
def test_cells_have_the_class_of_the_smallest_object(masked):
    """Of masks, or of boxes where there are none; not of objects that are ignored or without a mask."""
    batch = harness.make_batch(64, count=3, boxes=5)
    rng = np.random.default_rng(4)
    masks = rng.random((3, 6, 8, 8)) < 0.8
    masks[:, 2] = False  # unknown
    learnt = np.asarray(batch.valid) & (np.arange(6) != 1)
    batch = batch._replace(
        masks=masks.astype(np.uint8) if masked else None,
        image_sizes=jnp.array([[64, 64], [64, 64], [40, 52]]),
    )
    run = jax.jit(lambda batch: semantic_targets(batch, jnp.asarray(learnt), (16, 16), STRIDE))
    target, known = jax.device_get(run(batch))
    expected, expected_known = painted(batch, learnt, 16, masked)
    np.testing.assert_array_equal(known, expected_known)
    np.testing.assert_array_equal(target, expected)
    assert 30 < (target > 0).sum() and 5 < (~known[:2]).sum() < 100 and not target[1].any()


def test_the_loss_counts_known_cells():
    logits = np.log(np.array([[[[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]]], np.float32))
    target = np.array([[[1, 0]]])
    known = np.array([[[True, False]]])
    empty = harness.make_batch(16, count=2, max_boxes=0)

    @jax.jit
    def run(logits, empty):
        mean = semantic_loss(logits, target, known, 0.2)
        return mean, semantic_targets(empty, empty.valid, (4, 4), STRIDE)

    mean, (nothing, everywhere) = jax.device_get(run(logits, empty))
    np.testing.assert_allclose([mean.total, mean.weight], [0.2 * np.log(4), 1], rtol=1e-6)
    assert not nothing.any() and everywhere.all()


def test_large_kernels_are_those_that_their_factors_span():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 9, 7, 3)), jnp.float32)
    layer = LargeKernel(4, 5, Norm("none"), True, he)

    @jax.jit
    def run(key, x):
        y, variables = layer.init_with_output(key, x)
        w = variables["params"]
        row1, row2 = (w[name]["kernel"][0] for name in ("row1", "row2"))
        column1, column2 = (w[name]["kernel"][:, 0] for name in ("column1", "column2"))
        whole = jnp.einsum("xcm,ymn->yxcn", row1, column2)
        whole += jnp.einsum("ycm,xmn->yxcn", column1, row2)
        with observe.layers() as seen:
            layer.apply(variables, x)
        return (
            y,
            conv2d(x, whole, padding=2),
            w,
            {path: call[0].power for path, call in seen.items()},
        )

    found, expected, weights, powers = run(jax.random.key(0), x)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert sum(x.size for x in jax.tree.leaves(weights)) == 2 * 5 * (3 + 4) * 4 + 4
    assert set(powers) == set(mean_squares(weights))
    squares = np.pad(np.square(np.asarray(x[0])).mean(-1), ((2, 2), (0, 0)))
    expected = np.mean([squares[i : i + 9] for i in range(5)], axis=0)
    np.testing.assert_allclose(powers["column1/kernel"][0], expected, rtol=1e-5)


def test_a_pyramid_with_large_kernels():
    stages = {t: jnp.zeros((1, n, n, 3)) for t, n in (("c3", 8), ("c4", 4))}
    neck = FPN(("c3", "c4"), channels=4, extra="pool", lateral_kernel=7, use_norm=True)
    levels, variables = jax.eval_shape(
        lambda key: neck.init_with_output(key, stages, train=True), jax.random.key(0)
    )
    assert [x.shape for x in levels] == [(1, n, n, 4) for n in (8, 4, 2)]
    shapes = sizes(variables["params"])
    assert shapes["lateral_c3/row1/kernel"] == (1, 7, 3, 4) and "lateral_c3/bias" not in shapes
    assert shapes["lateral_c4/norm/scale"] == (4,) and shapes["output_c4/conv/kernel"] == (
        3,
        3,
        4,
        4,
    )
    lines = {n: x for n, x in variables["params"]["lateral_c3"].items() if n != "norm"}
    assert len(jax.eval_shape(mean_squares, lines)) == 4
    settings = get_defaults().optimizer
    for mask in ("caffe", "kernels", "no_norm_decay", "all"):
        settings.decay_mask = mask
        uses = optim.parameter_rules(settings, lines)
        assert sum(use.tensors for use in uses) == 4 and all(use.decay == 1 for use in uses)
    with pytest.raises(ValueError, match="lateral_kernel=4; it must be odd, such as 5"):
        FPN(("c3",), lateral_kernel=4)


def test_a_dilated_last_stage_keeps_the_resolution():
    """Its 3×3 convolutions read every second cell; anchors go on doubling where their sides are given."""
    net = ResNet(
        depth=18, root=0, stem_stride=2, pool=3, width=1 / 64, norm=Norm("none"), dilation=2
    )
    x = jnp.zeros((1, 64, 64, 3))
    variables = jax.eval_shape(lambda: net.init(jax.random.key(0), x, train=False))
    program = jax.make_jaxpr(lambda v: net.apply(v, x, train=False))(variables)
    stages = dict(zip(net.stage_names, program.out_avals))
    assert [stages[name].shape[1] for name in ("c2", "c3", "c4", "c5")] == [16, 8, 4, 4]
    text = str(program)
    assert text.count("rhs_dilation=(2, 2)") == 4 and text.count("window_strides=(2, 2)") == 5
    c = two_stage.config(rpn=dict(anchor_sides=(32.0, 64.0, 128.0, 256.0, 512.0)))
    c.model.backbone = build.group("backbone", "resnet", depth=18, width=1 / 64, dilation=2)
    found = build.detector(c, CLASSES).anchor_levels()
    assert [(level.step, level.sides) for level in found] == [
        (4, (32.0,)),
        (8, (64.0,)),
        (16, (128.0,)),
        (16, (256.0,)),
        (32, (512.0,)),
    ]
    c.model.rpn.anchor_sides = (32.0, 64.0)
    with pytest.raises(ConfigError, match="anchor_sides=.*give one side for each"):
        build.detector(c, CLASSES)
