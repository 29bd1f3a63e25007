"""Initialisers of kernels, and the names by which a config selects them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def _traced_once(initialiser: Callable[..., Any]) -> Callable[..., Any]:
    """The initialiser, which JAX then traces once for a shape and not once for every layer that has it."""
    return jax.jit(initialiser, static_argnums=(1, 2))  # key, shape, dtype


caffe_xavier = _traced_once(nn.initializers.variance_scaling(1.0, "fan_in", "uniform"))
"""Caffe's "xavier": uniform in ±sqrt(3 / fan_in)."""

xavier = _traced_once(nn.initializers.variance_scaling(1.0, "fan_avg", "uniform"))
"""Glorot & Bengio 2010, eq. 16: uniform in ±sqrt(6 / (fan_in + fan_out))."""

he = _traced_once(nn.initializers.variance_scaling(2.0, "fan_out", "normal"))
"""He et al. 2015, eq. 14: normal with variance 2 / fan_out."""

he_fan_in = _traced_once(nn.initializers.variance_scaling(2.0, "fan_in", "normal"))
"""He et al. 2015, eq. 10: normal with variance 2 / fan_in, which keeps the scale of activations."""

small_normal = _traced_once(nn.initializers.normal(0.02))
"""Normal with standard deviation 0.02, as in Swin, whose cut at ±2, a hundred deviations, never acts."""


def torch_uniform(fan_in: int):
    """PyTorch's own initialiser of kernels and biases: uniform in ±1 / sqrt(fan_in)."""
    bound = fan_in**-0.5

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


gaussian = _traced_once(nn.initializers.normal(0.01))
"""Normal with standard deviation 0.01 (towers and predictions of RetinaNet, Lin et al. 2017b, sec. 4.1)."""

INITIALISERS = {
    "caffe_xavier": caffe_xavier,
    "xavier": xavier,
    "kaiming": he,
    "he": he_fan_in,
    "gaussian": gaussian,
}
"""Initialisers that a config can name; ``kaiming`` keeps the scale of gradients, as PyTorch's "fan_out" and
MMDetection do, ``he`` that of activations."""


def initialiser(chosen: str | Callable[..., Any], key: str) -> Callable[..., Any]:
    """The initialiser of a name in ``INITIALISERS``; a function is returned as it is.

    Args:
        chosen: name or function.
        key: of the config, for the message.

    Raises:
        ValueError: there is no such name.
    """
    if not isinstance(chosen, str):
        return chosen
    if chosen not in INITIALISERS:
        raise ValueError(f"{key}={chosen!r}; it can be one of {tuple(INITIALISERS)}")
    return INITIALISERS[chosen]
