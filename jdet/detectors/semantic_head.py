"""An auxiliary branch that says of every cell which class it shows: supervision by masks, or by boxes."""

from __future__ import annotations

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jdet.nn.checked import Checked
from jdet.nn.conv import Conv
from jdet.nn.conv_norm import ConvNorm
from jdet.nn.initialisers import he
from jdet.nn.norm import Norm
from jdet.nn.remat import Remat
from jdet.nn.repeat import repeat_to
from jdet.ops import boxes as box_ops
from jdet.types import Batch, Mean


class SemanticHead(Checked):
    """Classes of the cells of a level: levels joined, 3×3 convolutions, a 1×1 convolution.

    The levels enter by 1×1 convolutions of their own and are added up at the size of the first, enlarged by
    nearest neighbours; then as in Chen et al. 2019 (Hybrid Task Cascade, sec. 3.3).

    Attributes:
        num_classes: K.
        convs: 3×3 convolutions.
        channels: of all convolutions but the last.
        norm: after every convolution but the last.
        remat: what the backward pass computes again; its part is ``semantic_head``.
        dtype: of the computation; logits are float32.
    """

    num_classes: int
    convs: int = 4
    channels: int = 256
    norm: Norm = Norm("none")
    remat: Remat = Remat()
    dtype: Any = None

    remat_parts: ClassVar[tuple[str, ...]] = ("semantic_head",)

    @nn.compact
    def __call__(self, levels: list[jax.Array], *, train: bool) -> jax.Array:
        """Logits float32 [B, h, w, 1 + K], background first, of the cells of the first level.

        Args:
            levels: [B, h, w, C] each, finest first.
            train: use and update batch statistics.
        """

        def hidden(module, levels):
            return module._hidden(levels, train)

        x = self.remat.segment(hidden, "semantic_head")(self, list(levels))
        cls = Conv(
            1 + self.num_classes, 1, use_bias=True, kernel_init=he, dtype=self.dtype, name="cls"
        )
        return cls(x).astype(jnp.float32)

    def _hidden(self, levels, train):
        def layer(name, size):
            return ConvNorm(
                self.channels,
                norm=self.norm,
                train=train,
                kernel_size=size,
                kernel_init=he,
                dtype=self.dtype,
                name=name,
            )

        height, width = levels[0].shape[1:3]
        taken = [layer(f"level{i}", 1)(x) for i, x in enumerate(levels, start=1)]
        x = sum(repeat_to(x, height, width) for x in taken[1:]) + taken[0]
        for i in range(1, self.convs + 1):
            x = layer(f"conv{i}", 3)(x)
        return x


def semantic_targets(
    batch: Batch, learnt: jax.Array, shape: tuple[int, ...], stride: int
) -> tuple[jax.Array, jax.Array]:
    """The class of every cell of a map, of overlapping objects that of the smallest.

    An object covers the cells whose centres lie in its mask; where the batch has no masks, in its box
    (Zhang et al. 2018, "Single-Shot Object Detection with Enriched Semantics", sec. 3.2). For an image of
    8×8 pixels, a map of 2×2 cells and an object of class 3 in the box 0 0 4 8, without masks, the result
    is 4 0 / 4 0: centres lie at 2 and at 6 pixels.

    Args:
        batch: with objects, and with masks or without.
        learnt: bool [B, N], the objects that are learnt; cells of others in the batch are not known.
        shape: height and width of the map, cells.
        stride: of the map, pixels.

    Returns:
        int32 [B, h, w], 0 for background, 1 + k for class k; and bool [B, h, w], cells of the image's
        content of which it is known, which is not so in objects that are not learnt or whose mask is not
        known, outside of those that are.
    """
    y, x = ((jnp.arange(cells) + 0.5) * stride for cells in shape)

    def one_image(corners, labels, valid, learnt, masks, size):
        within = [
            (at >= corners[:, axis, None]) & (at < corners[:, axis + 2, None])
            for axis, at in ((1, y), (0, x))
        ]
        box = within[0][:, :, None] & within[1][:, None, :] & valid[:, None, None]  # [N, h, w]
        covers = box
        if masks is not None:
            side = masks.shape[-1]

            def cell(axis, at):
                low, high = corners[:, axis, None], corners[:, axis + 2, None]
                place = (at - low) / jnp.maximum(high - low, 1e-3) * side
                return jnp.clip(place.astype(jnp.int32), 0, side - 1)

            def look_up(mask, rows, columns):
                return mask[rows][:, columns] > 0

            covers = box & jax.vmap(look_up)(masks, cell(1, y), cell(0, x))
            learnt = learnt & jnp.any(masks > 0, axis=(1, 2))
        own = covers & learnt[:, None, None]
        area = jnp.where(own, box_ops.area(corners)[:, None, None], jnp.inf)
        smallest = jnp.argmin(area, axis=0)
        found = jnp.any(own, axis=0)
        hidden = jnp.any(box & ~learnt[:, None, None], axis=0)
        inside = (y < size[0])[:, None] & (x < size[1])
        target = jnp.where(found, labels[smallest] + 1, 0)
        return target, inside & (found | ~hidden)

    if not batch.boxes.shape[1]:
        everything = jnp.zeros((len(batch.boxes), *shape), jnp.int32)
        inside = (y < batch.image_sizes[:, :1])[:, :, None] & (x < batch.image_sizes[:, 1:])[
            :, None
        ]
        return everything, inside
    return jax.vmap(one_image, in_axes=(0, 0, 0, 0, None if batch.masks is None else 0, 0))(
        batch.boxes, batch.labels, batch.valid, learnt, batch.masks, batch.image_sizes
    )


def semantic_loss(logits: jax.Array, target: jax.Array, known: jax.Array, weight: float) -> Mean:
    """Cross-entropy of the cells that are known, and their number.

    Args:
        logits: float32 [B, h, w, 1 + K].
        target: int32 [B, h, w].
        known: bool [B, h, w].
        weight: of the loss.
    """
    each = optax.losses.softmax_cross_entropy_with_integer_labels(logits, target)
    total = jnp.sum(jnp.where(known, each, 0.0))
    return Mean(weight * total, jnp.sum(known, dtype=jnp.float32))
