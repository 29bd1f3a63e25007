"""Strides and map sizes of a backbone's stages, known before anything is traced."""

from __future__ import annotations

import re
from typing import Any


def stage_geometry(backbone: Any, size: int) -> dict[str, tuple[int, int]]:
    """Stride and side of the map (cells) of every stage for a square image with a side of ``size`` pixels.

    A backbone defines them by a method ``stage_geometry(size)``. Without it, and for stages that it leaves
    out, a stage ``cN`` has stride 2^N and a map of ``size`` divided by that, rounded up.

    Args:
        backbone: module with ``stage_names``.
        size: pixels.

    Raises:
        ValueError: a stage is not named ``cN`` and the backbone does not define its stride.
    """
    known = getattr(backbone, "stage_geometry", lambda size: {})(size)
    found = {}
    for name in backbone.stage_names:
        if name in known:
            found[name] = known[name]
            continue
        named = re.fullmatch(r"c(\d+)", name)
        if not named:
            raise ValueError(
                f"backbone {type(backbone).__name__} does not define the stride of its stage {name!r}; "
                "give it a method stage_geometry(size) -> {stage: (stride, cells)}, or name stages cN for "
                "strides of 2^N"
            )
        stride = 2 ** int(named[1])
        found[name] = stride, -(-size // stride)
    return found
