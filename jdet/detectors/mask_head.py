"""The mask branch of Mask R-CNN (He et al. 2017): its head, and what it learns."""

from __future__ import annotations

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from jdet.detectors.roi_heads import region_convs
from jdet.nn.checked import Checked
from jdet.nn.initialisers import he
from jdet.nn.layer import Dense, Layer
from jdet.nn.norm import Norm
from jdet.nn.remat import Remat
from jdet.ops.losses import sigmoid_cross_entropy
from jdet.ops.roi_align import Axis, axis_weights
from jdet.types import Mean


class MaskHead(Checked):
    """Masks of RoIs for every class: convolutions, doubling by a transposed convolution, 1×1 convolution.

    He et al. 2017, Fig. 4 right. Norms stand after the 3×3 convolutions alone and measure the regions
    that hold something (MMDetection's ``FCNMaskHead``). All kernels are drawn as in He et al. 2015.

    Attributes:
        num_classes: K.
        convs: 3×3 convolutions.
        channels: of all convolutions but the last.
        class_agnostic: one mask for all classes instead of one for each.
        use_norm: every 3×3 convolution is followed by the norm of the heads and has no bias; False: those
            of the box heads alone are (Liu et al. 2021, Cascade Mask R-CNN).
        norm: of the heads.
        remat: what the backward pass computes again; its part is ``mask_head``.
        dtype: of the computation; logits are float32.
    """

    num_classes: int
    convs: int = 4
    channels: int = 256
    class_agnostic: bool = False
    use_norm: bool = True
    norm: Norm = Norm("none")
    remat: Remat = Remat()
    dtype: Any = jnp.float32

    remat_parts: ClassVar[tuple[str, ...]] = ("mask_head",)

    @property
    def _norm(self):
        return self.norm if self.use_norm else Norm("none")

    @property
    def scale_invariant(self) -> tuple[str, ...]:
        """Kernels whose scale does not matter (``jdet.nn.observe``)."""
        count = self.convs if self._norm.normalises else 0
        return tuple(f"conv{i}/kernel" for i in range(1, count + 1))

    @property
    def folds(self) -> tuple[tuple[str, str], ...]:
        """Norms that are the only reader of a convolution (``jdet.nn.fold``)."""
        return tuple((f"conv{i}", f"norm{i}") for i in range(1, self.convs + 1))

    @nn.compact
    def __call__(self, x: jax.Array, real: jax.Array, *, train: bool) -> jax.Array:
        """Logits of the regions of every image.

        Args:
            x: [B, R, h, w, C], features.
            real: bool [B, R], regions that are none but fill up are False.
            train: use and update batch statistics.

        Returns:
            float32 [B, R, 2·h, 2·w, K], or [B, R, 2·h, 2·w, 1] where masks are not those of a class.
        """

        def hidden(module, x, real):
            return module._hidden(x, real, train)

        x = self.remat.segment(hidden, "mask_head")(self, x, real)
        # A 1×1 convolution may come before the cells are put in their places, which then moves less.
        masks = 1 if self.class_agnostic else self.num_classes
        x = Dense(masks, kernel_init=he, dtype=self.dtype, name="mask")(x)
        regions, (height, width) = x.shape[:2], x.shape[2:4]
        x = x.swapaxes(3, 4)  # [B, R, h, 2, w, 2, K]
        return x.reshape(*regions, 2 * height, 2 * width, masks).astype(jnp.float32)

    def _hidden(self, x, real, train):
        x = region_convs(
            x,
            real,
            convs=self.convs,
            channels=self.channels,
            norm=self._norm,
            train=train,
            dtype=self.dtype,
        )
        return jax.nn.relu(Doubling(self.channels, self.dtype, name="deconv")(x))


class Doubling(Layer):
    """Transposed convolution of kernel 2×2 and stride 2, whose outputs do not overlap.

    Attributes:
        features: output channels.
        dtype: of the computation.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """X [..., C] to the four cells [..., 2, 2, features], rows first, that each cell becomes."""
        shape = (2, 2, x.shape[-1], self.features)
        kernel = self.param("kernel", he, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        x, kernel, bias = (value.astype(self.dtype) for value in (x, kernel, bias))
        return jnp.einsum("...c,ijcn->...ijn", x, kernel) + bias

    def input_power(self, x: jax.Array) -> jax.Array:
        """Mean square of what every cell of the output reads, float32 [..., 2, 2]."""
        squares = jnp.mean(jnp.square(x.astype(jnp.float32)), axis=-1)
        return jnp.broadcast_to(squares[..., None, None], (*squares.shape, 2, 2))


def mask_targets(
    masks: jax.Array,
    frames: jax.Array,
    rois: jax.Array,
    size: int,
    *,
    aligned: bool = True,
    binary: bool = True,
) -> jax.Array:
    """What masks should be in the frames of RoIs: RoIAlign of bitmaps that are in the frames of objects.

    The reference form is RoIAlign of the object's mask in the whole image, with as many sampling points in
    a bin as pixels, rounded up. Here the points are the same and the map is the bitmap [M, M] of the
    object's box, which is 0 outside, so that no map of an image's size exists. On ellipses of 16 to 50
    pixels and RoIs that overlap them, bitmaps of 112² give targets that differ by 0.005 in the mean before
    they are cut at 0.5, and in 0.4 % of the cells after that, all on outlines.

    Args:
        masks: uint8 [..., M, M] of 0 and 1, bitmap of each RoI's object.
        frames: float32 [..., 4], box of that object, x1 y1 x2 y2, pixels.
        rois: float32 [..., 4], x1 y1 x2 y2, pixels.
        size: m, cells along a side of the targets.
        aligned: pixel i is centred at i + 0.5; False: at i, and RoIs are at least one pixel long, as in
            torchvision.
        binary: cut at 0.5 (MMDetection); False: leave as they are (torchvision).

    Returns:
        float32 [..., m, m] in 0 … 1.
    """
    side = masks.shape[-1]
    by_axis = []
    for low in (1, 0):
        begin, end = rois[..., low], rois[..., low + 2]
        length = end - begin if aligned else jnp.maximum(end - begin, 1.0)
        cells = side / jnp.maximum(frames[..., low + 2] - frames[..., low], 1e-3)  # of a pixel
        # Zeros around the bitmap are its first and last cell.
        start = (begin + (0.0 if aligned else 0.5) - frames[..., low]) * cells + 0.5
        points = jnp.clip(jnp.ceil(length / size), 1, 64)
        axis = Axis(start=start, bin=length / size * cells, points=points)

        def weights(axis):
            return axis_weights(axis, size, jnp.arange(1, side + 1), side + 2)

        for _ in range(begin.ndim):
            weights = jax.vmap(weights)
        by_axis.append(weights(axis))
    exact = jax.lax.Precision.HIGHEST
    found = jnp.einsum(
        "...iy,...yx,...jx->...ij",
        by_axis[0],
        masks.astype(jnp.float32),
        by_axis[1],
        precision=exact,
    )
    return (found >= 0.5).astype(jnp.float32) if binary else found


def mask_loss(logits: jax.Array, labels: jax.Array, targets: jax.Array, learnt: jax.Array) -> Mean:
    """Binary cross-entropy of the masks of the RoIs' own classes (He et al. 2017, sec. 3).

    Args:
        logits: float32 [B, R, m, m, K or 1].
        labels: int32 [B, R], classes 0 … K-1; anything where a RoI is not learnt.
        targets: float32 [B, R, m, m] in 0 … 1.
        learnt: bool [B, R], positives whose object's mask is known.

    Returns:
        The sum over RoIs of the means over cells, and the number of RoIs.
    """
    own = jnp.where(learnt[..., None, None], own_masks(logits, labels), 0.0)
    each = jnp.mean(sigmoid_cross_entropy(own, targets), (-2, -1))
    return Mean(jnp.sum(jnp.where(learnt, each, 0.0)), jnp.sum(learnt, dtype=jnp.float32))


def own_masks(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Masks [..., m, m] of classes [...], 0 … K-1, among those of all [..., m, m, K], or the only ones."""
    if logits.shape[-1] == 1:
        return logits[..., 0]
    index = jnp.clip(labels, 0, logits.shape[-1] - 1)[..., None, None, None]
    return jnp.take_along_axis(logits, index, axis=-1)[..., 0]
