"""A small two-stage detector for tests, on a backbone that compiles in no time."""

import jax
import numpy as np
from jax.sharding import PartitionSpec as P

from jdet import build
from jdet.config import get_defaults
from jdet.parallel import mesh as mesh_lib
from jdet.train import gradient, state
from tests import harness
from tests.tiny_backbone import TINY

CLASSES = tuple("abcde")


def config(name="faster_rcnn", size=64, rpn=None, head=None, **fields):
    """A whole config; ``rpn`` and ``head`` are fields of these parts."""
    c = get_defaults()
    c.input_size = size
    c.data.max_boxes = 6
    c.resize = build.group("resize", "keep_ratio", short=(size,), long=size)
    few = dict(pre_nms_train=60, pre_nms=40, proposals_train=30, proposals=20, samples=32)
    c.model = build.group(
        "detector",
        name,
        backbone=build.group("backbone", TINY, stages=("c2", "c4")),
        neck=build.group("neck", "fpn", channels=8, extra="pool"),
        rpn=build.group("rpn", **(dict(name="rpn", channels=8) | few | (rpn or {}))),
        box_head=build.group(
            "box_head", **(dict(name="2fc", fc_channels=16, conv_channels=8) | (head or {}))
        ),
        **(dict(samples=16, roi_size=3, finest_scale=8.0, head_norm="none") | fields),
    )
    return c


def make(name="faster_rcnn", **fields):
    """The detector of such a config."""
    return build.detector(config(name, **fields), CLASSES)


def mask_rcnn_losses(devices):
    """Totals and weights of Mask R-CNN's losses of four images on devices of all processes (0: all)."""
    c = config(
        "mask_rcnn",
        norm="none",
        mask_head=build.group("mask_head", "fcn", convs=1, channels=8),
        mask_size=4,
    )
    c.parallel.devices = devices
    detector, mesh = build.detector(c, CLASSES), mesh_lib.make_mesh(c)
    rng = np.random.default_rng(0)
    whole = harness.make_batch(64)
    whole = whole._replace(masks=(rng.random((4, 6, 16, 16)) < 0.5).astype(np.uint8))
    first, count = (4 * k // jax.process_count() for k in (jax.process_index(), 1))
    share = jax.tree.map(lambda x: np.asarray(x)[first : first + count], whole)
    shapes, _ = jax.eval_shape(lambda: state.init_variables(detector, c))
    params = jax.tree.map(lambda x: 0.1 * rng.normal(size=x.shape).astype(np.float32), shapes)

    def run(params, batch):
        means, _ = gradient.call_losses(detector, {"params": params}, batch, jax.random.key(0))
        return jax.lax.psum(means, mesh_lib.AXES)

    program = jax.shard_map(run, mesh=mesh, in_specs=(P(), P(mesh_lib.AXES)), out_specs=P())
    params = jax.tree.map(
        lambda x: jax.make_array_from_callback(
            x.shape, mesh_lib.replicated(mesh), lambda index, x=x: x[index]
        ),
        params,
    )
    found = jax.device_get(jax.jit(program)(params, mesh_lib.to_global(share, mesh)))
    return {name: [float(mean.total), float(mean.weight)] for name, mean in found.items()}
