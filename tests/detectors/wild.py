"""Losses of all detectors on wild predictions and every kind of ground truth: are gradients finite?

The suite runs a few cases. ``python -m tests.detectors.wild --cases 100000`` runs so many for each detector
and box loss, and prints how many had a loss or gradient that is not finite.
"""

from __future__ import annotations

import argparse
import itertools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from jdet import build
from jdet.config import get_defaults
from jdet.detectors import centerness, retinanet, sparse_rcnn
from jdet.detectors.dense_detector import DenseDetector
from jdet.detectors.pyramid import Predictions
from jdet.detectors.reppoints import RepPointsV2
from jdet.detectors.ssd import SSD
from jdet.ops.anchors import default_boxes
from jdet.types import Batch
from tests.tiny_backbone import TINY

SIZE, CLASSES, OBJECTS = 32, 2, 4
SPECIAL = np.array([0, -20, 20, 88, -88, 1e4, -1e4, 1e8, -1e8], np.float32)
SCALES = np.array([0, 1e-3, 1, 30, 1e3, 1e6], np.float32)

VARIANTS = {
    "ssd": [{"clip_boxes": False}, {"clip_boxes": True, "first_centres": (-40.0, 8.0, 16.0)}],
    "retinanet": [{"box_loss": kind} for kind in retinanet.BOX_LOSSES],
    "fcos": [
        {"box_loss": kind, "box_activation": activation}
        for kind, activation in itertools.product(centerness.BOX_LOSSES, ("relu", "exp"))
    ]
    + [
        {"assignment": "simota", "cls_loss": "quality", "box_loss": "ciou", "box_activation": "exp"}
    ],
    "atss": [{"box_loss": kind} for kind in centerness.BOX_LOSSES]
    + [{"assignment": "task_aligned", "cls_loss": "varifocal", "box_loss": "ciou"}],
    "reppoints_v2": [{"box_loss": "smooth_l1"}, {"box_loss": "giou", "cls_loss": "quality"}],
    "sparse_rcnn": [{"proposals": 3}, {"proposals": 6}],  # fewer than objects, more than objects
}
"""Every detector with each of its losses."""


def make(name, **fields):
    """A detector of three levels at 32 pixels."""
    c = get_defaults()
    c.input_size = SIZE
    body = build.group("backbone", TINY, stages=("c2", "c3", "c4", "c5"))
    if name == "ssd":
        neck = build.group("neck", "ssd_extras", width=0.25)
    else:
        c.resize = build.group("resize", "keep_ratio", short=(SIZE,), long=SIZE)
        neck = build.group("neck", "fpn", width=0.0625)
        if name == "sparse_rcnn":
            fields |= {"stages": 2, "attention_heads": 2}
        else:
            fields |= {"head_depth": 1, "head_channels": 16}
    c.model = build.group("detector", name, backbone=body, neck=neck, **fields)
    return build.detector(c, tuple("ab"))


def ground_truth(rng, count):
    """Batch fields of ``count`` images: objects of every kind, alone and mixed, or none."""
    low = rng.uniform(-4, SIZE, (count, OBJECTS, 2))
    sides = rng.uniform(1, SIZE, low.shape)
    whole = np.array([0, 0, SIZE, SIZE])
    ordinary = np.concatenate([low, low + sides], -1)
    thin = np.where(rng.random(low.shape) < 0.5, 1e-3, sides)
    kinds = [
        ordinary,
        np.round(ordinary / 8) * 8,  # on the grid, often without area
        np.concatenate([low, low], -1),
        np.concatenate([low + sides, low], -1),  # inverted
        np.concatenate([low, low + 10.0 ** -rng.uniform(1, 9, low.shape)], -1),
        np.concatenate([low, low + thin], -1),
        ordinary * 1e5,
        ordinary + 3 * SIZE,  # beside the image
        np.broadcast_to(whole, ordinary.shape),
        np.broadcast_to(ordinary[:, :1], ordinary.shape),  # the same object several times
        np.zeros(ordinary.shape),
    ]
    each = rng.integers(0, len(kinds), (count, OBJECTS))
    one = np.broadcast_to(each[:, :1], each.shape)
    kind = np.where(rng.random((count, 1)) < 0.5, one, each)
    boxes = np.choose(kind[..., None], kinds).astype(np.float32)
    valid = np.arange(OBJECTS) < rng.integers(0, OBJECTS + 1, (count, 1))
    content = rng.choice([1, 20, SIZE], (count, 2), p=[0.1, 0.2, 0.7]).astype(np.int32)
    return dict(
        boxes=boxes,  # rows that are not valid hold anything
        labels=rng.integers(0, CLASSES, valid.shape).astype(np.int32),
        valid=valid,
        ignore=rng.random(valid.shape) < np.array([0, 0.5, 1])[rng.integers(0, 3, (count, 1))],
        image_sizes=content,
        original_sizes=content,
        index=np.arange(count, dtype=np.int32),
        real=np.ones(count, bool),
    )


def predictions(rng, shapes):
    """Arrays of these shapes, each image at a scale of its own, a tenth of the numbers special."""

    def one(shape):
        scale = rng.choice(SCALES, (shape[0], *[1] * (len(shape) - 1)))
        values = rng.standard_normal(shape, np.float32) * scale
        return np.where(rng.random(shape) < 0.1, rng.choice(SPECIAL, shape), values)

    return jax.tree.map(one, shapes, is_leaf=lambda x: isinstance(x, tuple))


def ends_of(model, classes):
    """Trailing axes of what the head predicts at every place, by name."""
    if isinstance(model, RepPointsV2):
        points = dict.fromkeys(("initial", "offsets"), (18,))
        maps = dict.fromkeys(("logits", "semantic"), (classes,))
        return {**points, **maps, "heat": (2,), "corners": (4,)}
    ends = {"offsets": (4,), "logits": (classes,)}
    return ends | ({"centerness": ()} if hasattr(model, "centerness_branch") else {})


def sets_of(model, outputs, image_sizes):
    """Sparse R-CNN's predictions of all stages: boxes that offsets [B, S, R, 4] move in turn."""
    whole = jnp.tile(jnp.array([0.5, 0.5, 1.0, 1.0]), (model.proposals, 1))
    corners, found = sparse_rcnn.boxes_on_images(whole, image_sizes), []
    for logits, offsets in zip(*(jnp.moveaxis(x, 1, 0) for x in outputs), strict=True):
        found.append(sparse_rcnn.Sets(logits=logits, boxes=model.moved(corners, offsets)))
        corners = jax.lax.stop_gradient(found[-1].boxes)
    return jax.tree.map(lambda *stages: jnp.stack(stages), *found)


NETWORKS = {"ssd": (SSD, "__call__"), "sparse_rcnn": (sparse_rcnn.SparseRCNN, "by_stage")}
"""Which method is the network, by detector; that of dense ones is the same."""


def checker(name, variants):
    """``run(seed, count)``: how many of ``count`` images have a bad loss or gradient, by variant."""
    models = [make(name, **fields) for fields in variants]
    layouts = [priors(model) for model in models]

    def shapes(count):
        model, anchors = models[0], [len(level) for level in layouts[0]]
        if name == "sparse_rcnn":  # all variants take those of the largest
            rows = count, model.stages, max(each.proposals for each in models)
            return [(*rows, CLASSES), (*rows, 4)]
        if name == "ssd":
            return [(count, anchors[0], 4), (count, anchors[0], CLASSES + 1)]
        ends = ends_of(model, CLASSES)
        return {key: [(count, n, *end) for n in anchors] for key, end in ends.items()}

    def loss(outputs, model, own, ground_truth):
        def network(self, images, image_sizes=None, *, train):
            if name == "sparse_rcnn":
                return sets_of(model, [x[:, :, : model.proposals] for x in images], image_sizes)
            return (*images, own[0]) if name == "ssd" else Predictions(images, own)

        owner, method = NETWORKS.get(name, (DenseDetector, "by_level"))
        with mock.patch.object(owner, method, network):
            means = model.losses(Batch(images=outputs, **ground_truth))
        return sum(mean.total for mean in means.values())

    @jax.jit
    def all_finite(outputs, ground_truth):
        """bool [B] of every variant: images do not interact, so each has its own gradient."""
        found = []
        for model, own in zip(models, layouts, strict=True):
            value, gradient = jax.value_and_grad(loss)(outputs, model, own, ground_truth)
            rows = [jnp.isfinite(x).reshape(len(x), -1).all(1) for x in jax.tree.leaves(gradient)]
            found.append(jnp.stack(rows).all(0) & jnp.isfinite(value))
        return jnp.stack(found)

    def run(seed, count):
        rng = np.random.default_rng(seed)
        drawn = ground_truth(rng, count)
        return np.asarray(~all_finite(predictions(rng, shapes(count)), drawn)).sum(1)

    return run


def priors(model):
    """Anchors of every level; SSD's of all levels at once; of Sparse R-CNN there are none."""
    levels = model.anchors((SIZE, SIZE))
    if not levels:
        return []
    if isinstance(model, SSD):
        clip = (SIZE, SIZE) if model.clip_boxes else None
        return [default_boxes([x.level for x in levels], [x.cells for x in levels], clip)]
    return model.priors([x.cells for x in levels], (SIZE, SIZE))


def main():
    """Prints a line per detector and loss."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    cases, at_a_time = parser.parse_args().cases, 1000
    for name, variants in VARIANTS.items():
        run = checker(name, variants)
        bad = sum(run(seed, at_a_time) for seed in range(-(-cases // at_a_time)))
        for fields, count in zip(variants, bad, strict=True):
            settings = " ".join(f"{key}={value}" for key, value in fields.items())
            print(f"{name:10} {settings:40} {cases} cases, {count} not finite", flush=True)


if __name__ == "__main__":
    main()
