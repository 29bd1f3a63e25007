from pathlib import Path

import numpy as np


def centred(boxes):
    """Corners [n, 4], as golden files have them, as ``cx cy w h``."""
    low, high = boxes[:, :2], boxes[:, 2:]
    return np.concatenate([(low + high) / 2, high - low], axis=1)


def load(name):
    """The arrays of one golden file; float16 was stored exactly and comes back as float32."""
    with np.load(Path(__file__).parent / f"{name}.npz") as arrays:
        data = dict(arrays)
    return {k: v.astype(np.float32) if v.dtype == np.float16 else v for k, v in data.items()}
