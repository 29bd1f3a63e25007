"""Files are replaced whole, hold plain JSON, and reach the disk before anything relies on them."""

import json
import os
from types import SimpleNamespace

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


@pytest.mark.parametrize(
    "full, number, filename, says",
    [
        ("/work/run", 28, None, "/work/run is full (512 KiB left of 64 MiB): make room there"),
        (
            "/dev/shm",
            28,
            None,
            "/dev/shm is full (512 KiB left of 64 MiB): give the container more",
        ),
        (
            "/tmp",
            28,
            None,
            "/tmp is full (512 KiB left of 64 MiB): make room there, or name another",
        ),
        ("/other", 28, "/other/x", "/other is full (512 KiB left of 64 MiB): make room there"),
        ("/work/run", 122, "/other/x", "the quota of /other is used up: make room there"),
        ("", 28, None, "/work/run had no room for a moment (No space left on device): make room"),
    ],
)
def test_what_is_full_is_found_out(monkeypatch, full, number, filename, says):
    def statvfs(place):
        free = 1 << 19 if str(place) == full else 1 << 40
        return SimpleNamespace(
            f_files=100, f_favail=50, f_blocks=1 << 26, f_bavail=free, f_frsize=1
        )

    monkeypatch.setattr(atomic_files.os, "statvfs", statvfs)
    monkeypatch.setattr(atomic_files.tempfile, "gettempdir", lambda: "/tmp")
    error = OSError(number, "No space", filename)
    assert atomic_files.what_is_full(error, "/work/run").startswith(says)


def test_a_file_system_without_a_free_inode_is_full(monkeypatch):
    used_up = SimpleNamespace(f_files=1000, f_favail=0, f_blocks=9, f_bavail=9, f_frsize=1 << 30)
    monkeypatch.setattr(atomic_files.os, "statvfs", lambda _: used_up)
    said = atomic_files.what_is_full(OSError(28, "No space"), "/work/run")
    assert said == "/work/run is full (no file more, of 1,000): make room there"
