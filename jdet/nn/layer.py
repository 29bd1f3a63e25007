"""What layers with parameters derive from, so that applying them is traced quickly."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import numpy as np
from flax import errors


class Layer(nn.Module):
    """A module whose parameters, once they are there, are looked up and no more than that.

    Flax traces the initialiser of a parameter whenever the module is applied, to compare shapes, a
    millisecond for every parameter. Here the shape that the initialiser is given is compared:
    ``self.param(name, initialiser, shape, dtype)`` is the form that this class supports.
    """

    @nn.nowrap
    def param(self, name: str, init_fn: Any, *init_args: Any, **options: Any) -> Any:
        """As ``nn.Module.param``.

        Raises:
            ScopeParamShapeError: the parameter has another shape.
        """
        if not self.has_variable("params", name):
            return super().param(name, init_fn, *init_args, **options)
        value, shape = self.get_variable("params", name), tuple(init_args[0])
        if np.shape(value) != shape:
            path = "/".join(("", *self.path))
            raise errors.ScopeParamShapeError(name, path, np.shape(value), shape)
        return value


class Dense(Layer, nn.Dense):
    """Flax's dense layer as a ``Layer``."""
