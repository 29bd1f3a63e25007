"""Modules whose numbers are held against the one table of ranges."""

from __future__ import annotations

import flax.linen as nn

from jdet.config import ranges


class Checked(nn.Module):
    """A module whose numbers lie in the ranges of ``jdet.config.ranges``, from a config or made in Python.

    A number outside of them is a ``ConfigError``, where the module is made.
    """

    def __post_init__(self):
        super().__post_init__()
        ranges.check_made(self)
