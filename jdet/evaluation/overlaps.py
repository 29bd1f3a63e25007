"""How much boxes of an image overlap, on the host."""

from __future__ import annotations

import numpy as np


def overlaps(boxes: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """IoU of boxes [d, 4] with others [n, 4], and the share of each box that lies in the other; [d, n]."""
    a, b = boxes.reshape(-1, 1, 4), others.reshape(1, -1, 4)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.clip(sides, 0, None).prod(-1)
    area, other = (np.clip(x[..., 2:] - x[..., :2], 0, None).prod(-1) for x in (a, b))
    union = area + other - shared

    def share(whole: np.ndarray) -> np.ndarray:
        return np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)

    return share(union), share(np.broadcast_to(area, shared.shape))
