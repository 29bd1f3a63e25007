"""Fingerprint of a data set: equal for two copies, different for two different sets."""

from __future__ import annotations

import hashlib
import os

import numpy as np

from jdet.types import Source

SAMPLES = 32
"""Images that are read; of the others only the names count, where the source has them."""


def fingerprint(source: Source) -> str:
    """Hash of the class names, all image names, and objects and file size of some images.

    It does not depend on where the files lie.
    """
    digest = hashlib.blake2b(digest_size=8)
    count = len(source)
    digest.update(repr((count, tuple(source.class_names), getattr(source, "ids", ()))).encode())
    for index in sorted({i * count // SAMPLES for i in range(min(SAMPLES, count) and SAMPLES)}):
        example = source[index]
        digest.update(example.id.encode())
        for column in (example.boxes, example.labels, example.ignore):
            digest.update(np.ascontiguousarray(column).tobytes())
        image = example.image
        if isinstance(image, (str, tuple)):
            files = (image,) if isinstance(image, str) else image
            size = sum(os.stat(f).st_size if os.path.exists(f) else -1 for f in files)
        else:
            size = image.nbytes if isinstance(image, np.ndarray) else len(image)
        digest.update(str(size).encode())
    return digest.hexdigest()
