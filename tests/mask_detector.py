"""A detector with masks that is quick to train: ``own_detector``'s grid with 7 x 7 masks in its boxes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jdet.ops import nms
from jdet.types import Detections, Mean
from tests.own_detector import GridDetector

SIDE = 7


class MaskGrid(GridDetector):
    """Each cell predicts the mask of the object whose centre it holds, in the frame of its box."""

    needs = ("masks",)

    @property
    def any_input_size(self):
        return True

    @nn.compact
    def logits(self, images):
        """Mask logits of the cells, [B, h·w, 7, 7]."""
        x, stride = self.normalised(images), 2 ** (self.halvings - 1)
        x = nn.relu(nn.Conv(self.width, (5, 5), strides=2, padding=2, name="mask_first")(x))
        x = nn.Conv(SIDE**2, (11, 11), strides=stride, padding=5, name="mask_last")(x)
        return x.reshape(len(x), -1, SIDE, SIDE)

    def losses(self, batch, *, train=True):
        found = super().losses(batch, train=train)
        logits, (_, _, centres) = self.logits(batch.images), self.predict(batch.images)
        side = batch.masks.shape[-1] // SIDE
        cells = batch.masks.astype(jnp.float32).reshape(
            *batch.masks.shape[:2], SIDE, side, SIDE, side
        )
        target = cells.mean((3, 5))  # [B, N, 7, 7]
        middle = (batch.boxes[..., :2] + batch.boxes[..., 2:]) / 2
        away = jnp.abs(middle[:, None] - centres[:, None]).max(-1)  # [B, h·w, N]
        holds = (away < 2**self.halvings / 2) & batch.valid[:, None]
        holds &= batch.masks.any((2, 3))[:, None]
        positive, owner = holds.any(-1), holds.argmax(-1)
        target = jnp.take_along_axis(target, owner[..., None, None], 1)
        loss = optax.losses.sigmoid_binary_cross_entropy(logits, target).mean((2, 3))
        weight = positive.sum().astype(jnp.float32)
        return found | {"mask": Mean((loss * positive).sum(), weight)}

    def detect(self, images, image_sizes):
        boxes, logits, _ = self.predict(images)
        scores, labels = jax.nn.sigmoid(logits).max(-1), logits.argmax(-1).astype(jnp.int32)
        scores, best = jax.lax.top_k(scores, 10)
        boxes = jnp.take_along_axis(boxes, best[..., None], 1)
        masks = jnp.take_along_axis(jax.nn.sigmoid(self.logits(images)), best[..., None, None], 1)
        valid = nms.nms(boxes, scores > 0.05, self.nms_iou)
        labels = jnp.take_along_axis(labels, best, 1)
        return Detections(
            boxes=boxes, scores=scores * valid, labels=labels * valid, valid=valid, masks=masks
        )
