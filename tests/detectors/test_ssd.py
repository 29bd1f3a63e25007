import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet import build
from jdet.config import get_defaults
from jdet.detectors.ssd import multibox_loss
from jdet.ops import boxes, coding
from jdet.ops.nms import class_wise_nms
from jdet.types import ConfigError
from tests import harness
from tests.golden import centred, load
from tests.tiny_backbone import TINY

CLASSES = tuple("abcde")


def make(
    size=64, neck="residual_extras", norm="batch", head_norm="batch", backbone="root_resnet", **kw
):
    c = get_defaults()
    c.input_size = size
    fields = {TINY: dict(stages=("c3", "c4")), "vgg16": dict(width=0.125)}
    body = dict(name=backbone) | fields.get(backbone, dict(width=0.125, depth=18))
    c.model = build.group(
        "detector",
        "ssd",
        backbone=build.group("backbone", **body),
        neck=build.group("neck", neck, width=0.25),
        norm=norm,
        head_norm=head_norm,
        **kw,
    )
    return build.detector(c, CLASSES)


@pytest.mark.parametrize(
    "case",
    [
        dict(),
        dict(neck="ssd_extras", backbone=TINY, norm="group", head_norm="none"),
        harness.thorough(
            dict(
                neck="ssd_extras", backbone="vgg16", norm="none", head_norm="batch", l2norm_levels=1
            )
        ),
        dict(backbone=TINY, norm="frozen_batch", head_norm="none"),
    ],
    ids=["scratchdet", "group", "vgg_l2norm", "frozen"],
)
def test_battery(case):
    frozen = case.get("norm") == "frozen_batch"
    harness.check_detector(lambda: make(**case), 64, len(CLASSES), frozen)


def golden_case():
    golden = load("ssd_loss")
    ground_truth, labels, valid = np.zeros((3, 5, 4)), np.zeros((3, 5), int), np.zeros((3, 5), bool)
    for i in range(3):
        n = len(golden[f"boxes{i}"])
        ground_truth[i, :n], labels[i, :n], valid[i, :n] = (
            golden[f"boxes{i}"],
            golden[f"labels{i}"] - 1,
            True,
        )
    # torchvision's table of boxes, clipped width and height included
    priors = jnp.asarray(centred(load("default_boxes_ssd300")["xyxy_coco"]))
    arrays = (
        jnp.asarray(ground_truth, jnp.float32),
        jnp.asarray(labels, jnp.int32),
        jnp.asarray(valid),
    )
    return golden, priors, arrays


def test_loss_and_gradient_equal_torchvision():
    golden, priors, arrays = golden_case()

    @jax.jit
    def losses(offsets, logits):
        loc, cls, samples = multibox_loss(offsets, logits, priors, *arrays)
        count = samples.positives.sum()
        return loc.sum() / count, cls.sum() / count, samples

    offsets, logits = jnp.asarray(golden["bbox_regression"]), jnp.asarray(golden["cls_logits"])
    loc, cls, samples = losses(offsets, logits)
    np.testing.assert_allclose(loc, golden["loss_bbox"], rtol=1e-5)
    np.testing.assert_allclose(cls, golden["loss_cls"], rtol=1e-5)
    np.testing.assert_array_equal(samples.positives, golden["num_pos"])
    np.testing.assert_array_equal(samples.negatives, 3 * golden["num_pos"])
    np.testing.assert_array_equal(samples.background, 8732 - golden["num_pos"])
    gradient = jax.jit(jax.grad(lambda o, l: sum(losses(o, l)[:2]), argnums=(0, 1)))
    loc_grad, cls_grad = gradient(offsets, logits)
    np.testing.assert_allclose(cls_grad[0], golden["grad_cls_image0"], atol=1e-6)
    np.testing.assert_allclose(jnp.abs(loc_grad).sum((1, 2)), golden["grad_reg_abs_sum"], rtol=1e-5)
    np.testing.assert_allclose(jnp.abs(cls_grad).sum((1, 2)), golden["grad_cls_abs_sum"], rtol=1e-5)
    # An image without objects: exactly nothing.
    assert (loc_grad[1] == 0).all() and (cls_grad[1] == 0).all()


def test_zero_logits_cost_what_arithmetic_says():
    golden, priors, arrays = golden_case()
    for classes in (21, 81):
        zeros = np.zeros((3, 8732, 4), np.float32), np.zeros((3, 8732, classes), np.float32)
        _, cls, samples = jax.jit(multibox_loss)(*zeros, priors, *arrays)
        expected = 4 * np.log(classes)  # 12.178 for VOC, 17.578 for COCO
        np.testing.assert_allclose(cls.sum() / samples.positives.sum(), expected, rtol=1e-5)


def test_postprocessing_equals_torchvision():
    golden = load("ssd_postprocess")
    priors = jnp.asarray(centred(load("default_boxes_ssd300")["xyxy_coco"]))
    corners = coding.decode(jnp.asarray(golden["bbox_regression"][0]), priors)
    # torchvision clips before NMS; SSD, and jdet with it, when results leave the net.
    corners = boxes.clip(corners, jnp.array([300, 300]))
    found = class_wise_nms(
        corners,
        jax.nn.softmax(jnp.asarray(golden["cls_logits"][0]))[:, 1:],
        score_threshold=0.01,
        iou_threshold=0.45,
        pre_nms=400,
        keep=200,
    )
    np.testing.assert_allclose(found.scores, golden["scores"], atol=1e-5)
    np.testing.assert_allclose(found.boxes, golden["boxes"], atol=1e-3)
    np.testing.assert_array_equal(found.labels, golden["labels"] - 1)


@pytest.mark.parametrize(
    "backbone, neck, cells",
    [
        ("root_resnet", "residual_extras", [38, 19, 10, 5, 3, 1]),
        ("root_resnet", "ssd_extras", [38, 19, 10, 5, 3, 1]),
        ("resnet", "ssd_extras", [38, 19, 10, 5, 3, 1]),
        ("vgg16", "ssd_extras", [38, 19, 10, 5, 3, 1]),
    ],
)
def test_8732_default_boxes_at_300(backbone, neck, cells):
    model = make(size=300, backbone=backbone, neck=neck)  # building asserts the real maps
    assert model.level_sizes()[1] == cells
    assert (
        sum(n * n * level.boxes_per_location for n, level in zip(cells, model.anchor_levels()))
        == 8732
    )


@pytest.mark.parametrize("size", [48, 96, 128, 161, 224, 320, 512])
def test_any_input_size_builds(size):
    strides, cells = make(size=size).level_sizes()
    assert cells[-1] == 1 and cells[0] == -(-size // strides[0])


def test_tables_of_default_boxes_are_checked_and_used():
    with pytest.raises(ConfigError, match=r"config.model: min_sizes=.* has 2 values for 4 levels"):
        make(min_sizes=(10.0, 20.0))
    for column, message in (
        (dict(min_sizes=(5.0, 0.0, 30.0, 40.0)), "level 1 .* min_sizes 0.0; it must be above 0"),
        (dict(first_ratio=0.01), "level 0 .* min_sizes 0; .*first_ratio"),
        (dict(max_sizes=(5.0, 9.0, -1.0, 40.0)), "level 2 .* max_sizes -1.0"),
        (
            dict(aspect_ratios=((2.0,), (0.0,), (2.0,), (2.0,))),
            r"level 1 .* aspect_ratios \(0.0,\)",
        ),
        (dict(aspect_ratios=(2.0, 2.0, 2.0, 2.0)), "level 0 .* aspect_ratios 2.0; .* a tuple"),
        (dict(steps=(8.0, 16.0, 32.0, 0.0)), "level 3 .* steps 0.0"),
        (dict(head_kernels=(3, 4)), r"model.head_kernels=\(3, 4\); give odd sides"),
        (dict(head_kernels=()), r"model.head_kernels=\(\)"),
    ):
        with pytest.raises(ConfigError, match=message):
            make(**column)
    model = make(max_sizes=(0.0, 30.0, 40.0, 60.0), steps=(8.5, 17.0, 34.0, 64.0), clip_boxes=True)
    assert [level.boxes_per_location for level in model.anchor_levels()] == [3, 6, 4, 4]
    layouts = []

    def trace(images):
        layouts.append(model.init_with_output(jax.random.key(0), images, train=False)[0][2])

    jax.eval_shape(trace, jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.uint8))
    corners = np.asarray(boxes.cxcywh_to_xyxy(layouts[0]))
    assert corners.min() >= 0 and corners.max() <= 64
    np.testing.assert_allclose(layouts[0][3, :2], [12.75, 4.25], rtol=1e-6)  # second cell


def test_head_norm_starts_at_unit_logits():
    model, batch = make(backbone=TINY), harness.make_batch(64, count=16)
    variables = harness.initialise(model, batch.images, train=True)
    (_, logits, _), _ = jax.jit(
        lambda v: model.apply(v, batch.images, train=True, mutable=["batch_stats"])
    )(variables)
    # The finest level has most locations, hence the best statistics: 8·8·4 boxes per image.
    finest = np.asarray(logits[:, : 8 * 8 * 4]).reshape(-1, 4, 6)
    np.testing.assert_allclose(finest.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(finest.var(0), 1, atol=5e-2)


def test_smaller_images_keep_the_layout():
    model, layouts = make(size=128), []

    def trace(images):
        layouts.append(model.init_with_output(jax.random.key(0), images, train=False)[0][2])

    for size in (128, 96):
        jax.eval_shape(trace, jax.ShapeDtypeStruct((1, size, size, 3), jnp.uint8))
    whole, part = layouts
    np.testing.assert_array_equal(part[: 12 * 4], whole[: 12 * 4])  # the first row of cells
    assert set(map(tuple, part[:, 2:])) <= set(map(tuple, whole[:, 2:]))


CELLS = {  # of each level, by neck and input, for a design of 300 pixels (19, 10, 5, 3, 1 above c4)
    ("residual_extras", 300): [38, 19, 10, 5, 3, 1],
    ("residual_extras", 180): [23, 12, 6, 3, 2],  # nothing is left of 2 by a valid 3×3
    ("residual_extras", 360): [45, 23, 12, 6, 3, 1],
    ("residual_extras", 660): [83, 42, 21, 11, 6, 4],
    ("residual_extras", (180, 300)): [(23, 38), (12, 19), (6, 10), (3, 5), (2, 3)],
    ("ssd_extras", 180): [23, 12, 6, 3, 1],  # 3 → 1 → nothing
    ("ssd_extras", 100): [13, 7, 4, 2],
    ("ssd_extras", 660): [83, 42, 21, 11, 9, 7],
}


@pytest.mark.parametrize("neck, size", CELLS)
def test_layers_stay_what_they_are_at_other_sizes(neck, size):
    """The weights of the design serve, with the strides and padding they were trained with."""
    model = make(size=300, neck=neck)
    design = jax.ShapeDtypeStruct((1, 300, 300, 3), jnp.uint8)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), design)
    shape = size if isinstance(size, tuple) else (size, size)
    levels = []

    def run(variables, images):
        def look(next_function, args, kwargs, context):
            result = next_function(*args, **kwargs)
            if (context.module.name, context.method_name) == ("neck", "__call__"):
                levels.extend(x.shape[1:3] for x in result)
            return result

        with nn.intercept_methods(look):
            return model.apply(variables, images, train=False)[:2]

    images = jax.ShapeDtypeStruct((1, *shape, 3), jnp.uint8)
    offsets, _ = jax.eval_shape(run, variables, images)
    expected = [c if isinstance(c, tuple) else (c, c) for c in CELLS[neck, size]]
    assert levels == expected
    per_location = [level.boxes_per_location for level in model.anchor_levels()]
    assert offsets.shape[1] == sum(h * w * n for (h, w), n in zip(expected, per_location))


def test_no_level_is_an_error():
    with pytest.raises(ConfigError, match="7×64 pixels leave no level: .* 8 pixels"):
        jax.eval_shape(
            lambda x: make().init(jax.random.key(0), x, train=False),
            jax.ShapeDtypeStruct((1, 7, 64, 3), jnp.uint8),
        )


@pytest.fixture(scope="module")
def means():
    """Losses of a batch by a small model without batch statistics, which trains on crowds or not."""
    models = {
        crowds: make(backbone=TINY, norm="group", head_norm="none", train_ignored=crowds)
        for crowds in (True, False)
    }
    variables = harness.initialise(models[True], harness.make_batch(64).images, train=False)

    @functools.partial(jax.jit, static_argnames="crowds")
    def run(batch, crowds=True):
        return models[crowds].apply(variables, batch, train=True, method="losses")

    return run


def test_crowds_can_be_left_out_of_training(means):
    batch = harness.make_batch(64)
    crowd = batch._replace(ignore=batch.valid)
    for train_ignored in (True, False):
        found = means(crowd, train_ignored).values()
        assert (sum(mean.total for mean in found) > 0) == train_ignored


def test_losses_do_not_depend_on_the_split_of_totals(means):
    """Totals and weights of two halves add up to those of the whole (no batch statistics)."""
    batch = harness.make_batch(64)
    whole = means(batch)
    halves = [means(jax.tree.map(lambda x, i=i: x[i::2], batch)) for i in range(2)]
    for name, mean in whole.items():
        for field in ("total", "weight"):
            both = sum(getattr(half[name], field) for half in halves)
            np.testing.assert_allclose(both, getattr(mean, field), rtol=1e-4)
