"""Strides and map sizes of a backbone's stages, known before anything is traced."""

from __future__ import annotations

import re
from typing import Any


def stage_geometry(backbone: Any, size: int) -> dict[str, tuple[int, int]]:
    """Stride and map side (cells) of every stage for an image of ``size`` pixels a side.

    A backbone says them itself by ``stage_geometry(size)``; of one that does not, or not for all stages,
    a stage ``cN`` has stride 2^N and a map of ``size`` over that, rounded up.

    Args:
        backbone: module with ``stage_names``.
        size: pixels.

    Raises:
        ValueError: a stage is not named ``cN`` and the backbone does not say its stride.
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
                f"backbone {type(backbone).__name__} does not say the stride of its stage {name!r}; give "
                "it a method stage_geometry(size) -> {stage: (stride, cells)}, or name stages cN for "
                "strides of 2^N"
            )
        stride = 2 ** int(named[1])
        found[name] = stride, -(-size // stride)
    return found
