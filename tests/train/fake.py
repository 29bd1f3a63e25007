"""The smallest detector that honours the contract, a config and a data stream to train it with."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jdet.config import get_defaults
from jdet.nn.randomness import Dropout
from jdet.types import Batch, Detections, Mean

SIDE, OBJECTS, CLASSES = 16, 3, 2

TWELVE = dict(train__steps=12, train__save_every=1, train__keep=12)


class Stem(nn.Module):
    norm: str
    conv: Any = nn.Conv

    @nn.compact
    def __call__(self, x, *, train):
        x = self.conv(4, (3, 3), strides=2, padding=1, use_bias=self.norm == "none", name="conv")(x)
        if self.norm != "none":
            axis = "member" if self.norm == "sync" and not self.is_initializing() else None
            x = nn.BatchNorm(not train, momentum=0.9, axis_name=axis, name="norm")(x)
        return nn.relu(x)


class FakeDetector(nn.Module):
    """One box and one class per image.

    Attributes:
        norm: "none", "batch" (per device) or "sync" (over the mesh axis "member").
        bad_index: a batch holding the image of this index makes the loss NaN.
    """

    norm: str = "batch"
    bad_index: int = -1
    dropout: float = 0.0
    needs = ()
    input_size = SIDE

    def setup(self):
        self.backbone = Stem(self.norm)
        self.head = nn.Dense(4 + CLASSES)
        self.drop = Dropout(self.dropout)

    def predict(self, images, *, train):
        x = self.backbone(images.astype(jnp.float32) / 128.0 - 1.0, train=train)
        x = self.drop(x.reshape(x.shape[0], -1), train=train)
        x = self.head(x)
        return x[:, :4] * SIDE, x[:, 4:]

    def losses(self, batch: Batch, *, train: bool = True) -> dict[str, Mean]:
        boxes, logits = self.predict(batch.images, train=train)
        valid = batch.valid.astype(jnp.float32)
        weight = valid.sum()
        loc = (jnp.abs(boxes[:, None] - batch.boxes).sum(-1) / SIDE * valid).sum()
        logp = jnp.take_along_axis(jax.nn.log_softmax(logits), batch.labels, axis=1)
        cls = -(logp * valid).sum()
        bad = jnp.any(batch.index == self.bad_index)
        return {"loc": Mean(loc * jnp.where(bad, jnp.nan, 1.0), weight), "cls": Mean(cls, weight)}

    def detect(self, images, image_sizes) -> Detections:
        boxes, logits = self.predict(images, train=False)
        scores = jax.nn.softmax(logits).max(-1, keepdims=True)
        labels = logits.argmax(-1, keepdims=True)
        return Detections(boxes[:, None], scores, labels, jnp.ones_like(labels, bool))


def variables(detector, given):
    """What a detector starts with, in one program; ``init`` by itself compiles every operation."""
    init = functools.partial(detector.init, train=True, method="losses")
    return jax.jit(init)(jax.random.key(0), given)


def config(**overrides):
    """A complete config of a short run; keys of overrides have ``__`` for dots."""
    c = get_defaults()
    c.input_size = SIDE
    c.data.max_boxes = OBJECTS
    c.train.batch_size = 8
    c.train.steps = 6
    c.train.log_every = 2
    c.optimizer.reference_batch = 0
    c.optimizer.lr = 0.02
    c.parallel.devices = 1
    for key, value in overrides.items():
        node = c
        *groups, leaf = key.split("__")
        for group in groups:
            node = node[group]
        node[leaf] = value
    return c


def batch(k: int, size: int = 8, seed: int = 0) -> Batch:
    """Batch k of the stream, a pure function of (seed, k)."""
    rng = np.random.default_rng([seed, k])
    corner = rng.uniform(0, SIDE / 2, (size, OBJECTS, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, SIDE / 2, corner.shape)], axis=-1)
    valid = np.arange(OBJECTS) < rng.integers(0, OBJECTS + 1, (size, 1))
    return Batch(
        images=rng.integers(0, 256, (size, SIDE, SIDE, 3), np.uint8),
        boxes=(boxes * valid[..., None]).astype(np.float32),
        labels=(rng.integers(0, CLASSES, (size, OBJECTS)) * valid).astype(np.int32),
        valid=valid,
        ignore=np.zeros_like(valid),
        image_sizes=np.full((size, 2), SIDE, np.int32),
        original_sizes=np.full((size, 2), SIDE, np.int32),
        index=(np.arange(size) + k * size).astype(np.int32),
        real=np.ones(size, bool),
    )


def stream(start: int, size: int = 8, seed: int = 0):
    """The endless stream from batch ``start`` on."""
    k = start
    while True:
        yield batch(k, size, seed)
        k += 1
