"""Leaves of images however readers take them; devices and pipes are absent."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from jdet.certify import leaves
from jdet.types import Example


def leaf_of(image):
    example = Example(
        id="a",
        image=image,
        boxes=np.zeros((1, 4), np.float32),
        labels=np.zeros(1, np.int32),
        ignore=np.zeros(1, bool),
        areas=np.ones(1, np.float32),
    )
    return leaves._leaf(example)


def test_an_image_has_one_digest_however_its_files_are_named(tmp_path):
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_bytes(path.name.encode())
    names = list(map(str, paths))
    assert leaf_of(names[0]) == leaf_of(paths[0]) == leaf_of(paths[:1]) == leaf_of((names[0],))
    assert leaf_of(names) == leaf_of(paths) == leaf_of(tuple(paths))
    assert leaf_of(paths).files == tuple(names) and leaf_of(paths) != leaf_of(paths[::-1])
    assert leaf_of(b"content").image == hashlib.sha256(b"content").hexdigest()
    assert leaf_of(np.ones((3, 4, 3), np.uint8)).files == ()


@pytest.mark.parametrize("kind", ["device", "pipe", "folder", "nothing"])
def test_what_is_no_file_is_absent(tmp_path, kind):
    """A device has no end, and opening a pipe waits for somebody to write."""
    path = Path("/dev/zero") if kind == "device" else tmp_path / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    assert leaf_of(path).image == leaves.ABSENT
