"""A detector of one's own: one box per cell of a grid, for the object whose centre lies in the cell."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jdet.detectors.base import Detector
from jdet.ops import losses, nms
from jdet.types import Mean


class GridDetector(Detector):
    """Without anchors, pyramid, named stages or a norm of jdet's."""

    width: int = 16
    halvings: int = 3
    nms_iou: float = 0.5
    test_fields = ("nms_iou",)

    @nn.compact
    def predict(self, images):
        """Boxes [B, h·w, 4], logits [B, h·w, K] and centres [h·w, 2] of the cells, pixels."""
        x, stride = self.normalised(images), 2**self.halvings
        for i in range(1, self.halvings + 2):
            step = 2 if i <= self.halvings else 1
            x = nn.Conv(self.width * 2 ** min(i, 3), (3, 3), strides=step, padding=1)(x)
            x = nn.relu(nn.GroupNorm(8)(x))
        x = nn.Conv(4 + self.num_classes, (1, 1))(x)
        cells = jnp.meshgrid(jnp.arange(x.shape[2]), jnp.arange(x.shape[1]))
        centres = stride * (jnp.stack(cells, -1).reshape(-1, 2) + 0.5)
        x = x.reshape(len(x), len(centres), -1)
        middle, half = centres + stride * x[..., :2], stride * jnp.exp(x[..., 2:4])
        boxes = jnp.concatenate([middle - half, middle + half], -1)
        return boxes, x[..., 4:], centres

    def losses(self, batch, *, train=True):
        """IoU loss of the cells that hold an object's centre, cross-entropy of all."""
        boxes, logits, centres = self.predict(batch.images)
        middle = (batch.boxes[..., :2] + batch.boxes[..., 2:]) / 2  # [B, N, 2]
        away = jnp.abs(middle[:, None] - centres[:, None]).max(-1)  # [B, h·w, N]
        holds = (away < 2**self.halvings / 2) & batch.valid[:, None]
        positive, owner = holds.any(-1), holds.argmax(-1)
        target = jnp.take_along_axis(batch.boxes, owner[..., None], 1)
        labels = jnp.take_along_axis(batch.labels, owner, 1)
        classes = jax.nn.one_hot(labels, self.num_classes) * positive[..., None]
        loc = losses.iou_loss(boxes, jnp.where(positive[..., None], target, boxes), "giou")
        weight = positive.sum().astype(jnp.float32)
        cls = optax.losses.sigmoid_binary_cross_entropy(logits, classes)
        return {"loc": Mean((loc * positive).sum(), weight), "cls": Mean(cls.sum(), weight)}

    def detect(self, images, image_sizes):
        """The best class of every cell, after NMS."""
        boxes, logits, _ = self.predict(images)
        scores = jax.nn.sigmoid(logits)
        keep = dict(iou_threshold=self.nms_iou, keep=10)
        find = jax.vmap(lambda *found: nms.candidates_nms(*found, **keep))
        return find(boxes, scores.max(-1), scores.argmax(-1).astype(jnp.int32))
