"""What the objects of a batch take of memory."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from jdet.build.data import resize

OBJECT_BYTES = 4 * 4 + 4 + 1 + 1
"""A padded object: its box, label, and whether it is valid or ignored."""


def object_memory(config: ConfigDict, detector: Any) -> tuple[int, int]:
    """Bytes of a batch's padded objects, and of the overlaps in which they are matched with anchors.

    Args:
        config: whole.
        detector: of the config.

    Returns:
        Bytes over all devices: of the objects, and of one float32 per object and anchor at the largest
        network input, 0 where there are no anchors. The compiler may need less of these, or them twice.
    """
    rows = config.train.batch_size // config.train.accumulation * config.data.max_boxes
    mask = config.data.mask_size**2 if "masks" in detector.needs else 0
    anchors = sum(level.boxes for level in detector.anchors(resize(config).largest) or ())
    return rows * (OBJECT_BYTES + mask), rows * anchors * 4


def describe(config: ConfigDict, detector: Any) -> str:
    """One line."""
    objects, overlaps = object_memory(config, detector)
    text = (
        f"up to {config.data.max_boxes} objects an image (data.max_boxes), {_size(objects)} a batch"
    )
    return text + (f"; matching them, up to {_size(overlaps)}" if overlaps else "")


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} GiB"
