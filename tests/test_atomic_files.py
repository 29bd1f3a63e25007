"""Files are replaced whole, hold plain JSON, and reach the disk before anything relies on them."""

import json
import os

import numpy as np
import pytest

from jdet import atomic_files


def test_json_is_replaced_as_a_whole(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    atomic_files.write_json(
        path, {"a": 1, "b": (np.float32(2), float("inf")), "c": {"d": np.int64(3)}}
    )
    assert json.loads(path.read_text()) == {"a": 1, "b": [2.0, None], "c": {"d": 3}}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic_files.os, "fsync", full)
    with pytest.raises(OSError):
        atomic_files.write_json(path, {"a": 2})
    assert json.loads(path.read_text())["a"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_a_tree_is_synced_from_its_leaves_to_its_root(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_text("x")
    (tmp_path / "other").write_text("y")
    synced = []
    monkeypatch.setattr(
        atomic_files.os, "fsync", lambda handle: synced.append(os.fstat(handle).st_ino)
    )
    atomic_files.sync_tree(tmp_path)
    inode = {
        name: (tmp_path / name).stat().st_ino for name in ("", "a", "a/b", "a/b/file", "other")
    }
    assert sorted(synced) == sorted(inode.values())
    order = [synced.index(inode[name]) for name in ("a/b/file", "a/b", "a", "")]
    assert order == sorted(order)
