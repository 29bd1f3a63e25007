import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from jdet.data.transforms.instance_masks import box_bitmaps
from jdet.detectors.mask_head import Doubling, MaskHead, mask_loss, mask_targets, own_masks
from jdet.nn import observe
from jdet.nn.norm import Norm
from jdet.ops.roi_align import roi_align
from tests.golden import load


@pytest.fixture(scope="module")
def golden():
    return load("mask_head")


@pytest.mark.parametrize(
    "norm, classes, agnostic, parameters",
    [
        ("none", 80, False, 2_643_280),
        ("none", 20, False, 2_627_860),
        ("group", 80, False, 2_644_304),
        ("batch", 80, False, 2_644_304),
        ("none", 80, True, 2_643_280 - 79 * 257),
    ],
)
def test_published_parameters(norm, classes, agnostic, parameters):
    head = MaskHead(num_classes=classes, class_agnostic=agnostic, norm=Norm(norm))
    x, real = jax.ShapeDtypeStruct((1, 2, 14, 14, 256), jnp.float32), np.ones((1, 2), bool)
    with observe.layers() as layers, observe.scale_invariant() as invariant:
        made = jax.eval_shape(lambda x: head.init(jax.random.key(0), x, real, train=True), x)
    assert sum(leaf.size for leaf in jax.tree.leaves(made["params"])) == parameters
    convs = {f"conv{i}/kernel" for i in range(1, 5)}
    assert invariant == (convs if norm != "none" else set())
    assert layers.keys() == convs | {"deconv/kernel", "mask/kernel"}
    for (call,) in layers.values():  # what is read and what comes out, position by position
        assert call.power.shape == call.output.shape[:-1]


def test_doubling_reads_a_cell_four_times():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 3, 5)), jnp.float32)
    power = Doubling(7).input_power(x)
    expected = np.broadcast_to(np.square(x).mean(-1)[..., None, None], (2, 3, 3, 2, 2))
    np.testing.assert_allclose(power, expected, rtol=1e-6)


def test_doubling_equals_torch():
    golden = load("transposed_conv")
    x = jnp.asarray(golden["x"].transpose(0, 2, 3, 1))
    kernel = jnp.asarray(golden["weight"].transpose(2, 3, 0, 1))
    variables = {"params": {"kernel": kernel, "bias": jnp.asarray(golden["bias"])}}
    found = Doubling(kernel.shape[-1]).apply(variables, x)  # [B, h, w, 2, 2, C]
    found = found.transpose(0, 5, 1, 3, 2, 4).reshape(golden["y"].shape)
    np.testing.assert_allclose(found, golden["y"], atol=1e-5)


def test_cells_are_in_their_places_and_fillers_count_nowhere():
    head = MaskHead(num_classes=3, convs=1, channels=4, norm=Norm("batch"))
    x = jnp.asarray(np.random.default_rng(0).normal(1, 2, (2, 3, 5, 4, 2)), jnp.float32)
    real = jnp.array([[True, True, False], [True, False, False]])
    variables = head.init(jax.random.key(0), x, real, train=True)

    @jax.jit
    def run(x):
        return head.apply(variables, x, real, train=True, mutable=["batch_stats"])

    logits, updates = run(x)
    assert logits.shape == (2, 3, 10, 8, 3) and logits.dtype == jnp.float32
    wild, same = run(jnp.where(real[..., None, None, None], x, 1e3))
    np.testing.assert_allclose(logits[real], wild[real], rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), updates, same)
    # What changes in one corner of a region changes its masks in that corner only.
    changed = jax.jit(lambda x: head.apply(variables, x, real, train=False))
    difference = np.abs(changed(x.at[0, 0, 0, 3].add(1.0)) - changed(x)).max(-1)
    assert (difference[0, 0, :4, 4:] > 0).any(1).all() and difference.sum() > 0
    difference[0, 0, :4, 4:] = 0
    np.testing.assert_array_equal(difference, 0)


def test_targets_of_the_whole_image_equal_torchvision(golden):
    """The reference form: RoIAlign of masks of the size of the image, adaptive."""
    masks = jnp.asarray(golden["gt_masks"][golden["matched_idxs"]], jnp.float32)[..., None]
    found = roi_align(
        [masks], golden["proposals"][:, None], strides=(1,), output=14, sampling=0, aligned=False
    )
    np.testing.assert_allclose(found[:, 0, ..., 0], golden["mask_targets"], atol=1e-5)


@pytest.mark.parametrize("aligned", [False, True])
def test_targets_from_bitmaps_are_close_to_those_of_the_whole_image(golden, aligned):
    match, rois = golden["matched_idxs"], jnp.asarray(golden["proposals"])
    whole = golden["gt_masks"].astype(np.uint8)
    runs = [coco_mask.encode(np.asfortranarray(mask)) for mask in whole]
    # Boxes end between pixels, as those of polygons do.
    frames = np.array([_box(mask) for mask in whole], np.float32) + [-0.3, -0.2, 0.4, 0.1]
    bitmaps = box_bitmaps(runs, frames, whole.shape[1:], 112)
    settings = dict(strides=(1,), output=14, sampling=0, aligned=aligned)
    exact = roi_align(
        [jnp.asarray(whole[match], jnp.float32)[..., None]], rois[:, None], **settings
    )
    exact = np.asarray(exact[:, 0, ..., 0])

    @jax.jit
    def run(bitmaps, frames):
        soft = mask_targets(bitmaps, frames, rois, 14, aligned=aligned, binary=False)
        return soft, mask_targets(bitmaps, frames, rois, 14, aligned=aligned)

    soft, binary = run(bitmaps[match], jnp.asarray(frames[match], jnp.float32))
    assert exact.max() > 0.9 and np.abs(soft - exact).mean() < 0.006
    assert set(np.unique(binary)) == {0, 1}
    differ = (binary > 0) != (exact >= 0.5)
    assert differ.mean() < 0.006
    assert (np.abs(exact - 0.5)[differ] < 0.25).all()  # none of them inside or outside altogether


def _box(mask):
    rows, columns = np.nonzero(mask)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def test_loss_equals_torchvision(golden):
    labels = jnp.asarray(golden["gt_labels"][golden["matched_idxs"]], jnp.int32)
    targets = jnp.asarray(golden["mask_targets"])

    @jax.jit
    def loss(logits, labels, targets, learnt):
        mean = mask_loss(logits, labels, targets, learnt)
        return mean.total / jnp.maximum(mean.weight, 1)

    logits = jnp.asarray(golden["mask_logits"].transpose(0, 2, 3, 1))
    every = jnp.ones(len(labels), bool)
    value, gradient = jax.value_and_grad(loss)(logits, labels, targets, every)
    np.testing.assert_allclose(value, golden["loss"], rtol=1e-5)
    sums = np.abs(gradient).sum((1, 2))
    np.testing.assert_allclose(sums, golden["grad_abs_sum"], rtol=1e-4, atol=1e-7)
    # What is not learnt may be anything.
    wild = jnp.concatenate([logits, jnp.full_like(logits[:1], jnp.nan)])
    labels, targets = jnp.append(labels, -1), jnp.concatenate([targets, targets[:1]])
    value, gradient = jax.value_and_grad(loss)(wild, labels, targets, jnp.append(every, False))
    np.testing.assert_allclose(value, golden["loss"], rtol=1e-5)
    assert np.isfinite(gradient).all() and (gradient[-1] == 0).all()
    assert loss(wild, labels, targets, jnp.zeros(len(labels), bool)) == 0


def test_the_only_mask_is_that_of_any_class():
    logits = jnp.arange(8.0).reshape(2, 2, 2, 1)
    np.testing.assert_array_equal(own_masks(logits, jnp.array([5, 7])), logits[..., 0])
