"""Where compiled programs are kept, and when not."""

import os
import sys
import zlib
from types import SimpleNamespace

import pytest

from jdet import main
from jdet.parallel.supervisor import ASSIGNED
from jdet.train import program_cache


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A cache of its own, no variable set, and JAX not imported."""
    for name in (program_cache.VARIABLE, program_cache.SWITCH):
        monkeypatch.setenv(name, "")  # put back what there was, whatever the test does
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delitem(sys.modules, "jax")
    return tmp_path


def test_a_folder_of_the_users_cache_for_this_process_and_its_children(home):
    folder = program_cache.keep()
    assert folder.parent == home / "jdet" / "programs" and folder.is_dir()
    assert os.environ[program_cache.VARIABLE] == str(folder)
    assert program_cache.keep() is None  # set by now


def test_jax_that_was_imported_before_is_told(home, monkeypatch):
    told = {}
    config = SimpleNamespace(jax_compilation_cache_dir=None, update=told.__setitem__)
    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(config=config))
    folder = program_cache.keep()
    assert told == {"jax_compilation_cache_dir": str(folder)}
    config.jax_compilation_cache_dir = "elsewhere"
    monkeypatch.delenv(program_cache.VARIABLE)
    assert program_cache.keep() is None


@pytest.mark.parametrize("name", [program_cache.VARIABLE, program_cache.SWITCH])
def test_what_the_user_has_set_stays(home, monkeypatch, name):
    monkeypatch.setenv(name, "false")
    assert program_cache.keep() is None
    assert not (home / "jdet").exists()


def test_a_home_that_cannot_be_written_is_no_error(home, monkeypatch):
    (home / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "file"))
    assert program_cache.keep() is None
    assert program_cache.VARIABLE not in os.environ


def test_the_programs_not_used_for_longest_go(tmp_path):
    inner = tmp_path / "xla_gpu_per_fusion_autotune_cache_dir"  # XLA's, within JAX's
    inner.mkdir()
    for age in range(5):
        path = (inner if age % 2 else tmp_path) / f"{age}"
        path.write_bytes(b"x" * 100)
        os.utime(path, (1e9 - age, 1e9 - age))
    os.utime(inner / "3", (1e9 + 1, 1e9 - 3))  # written long ago, read since
    for _ in range(2):
        program_cache._shrink(tmp_path, 250)
        assert sorted(path.name for path in tmp_path.rglob("?")) == ["0", "3"]


def test_what_cannot_be_removed_makes_no_room(tmp_path, monkeypatch):
    for age in range(3):
        path = tmp_path / f"{age}"
        path.write_bytes(b"x" * 100)
        os.utime(path, (1e9 - age, 1e9 - age))
    remove = os.remove

    def refuse(path):
        if path.endswith("2"):
            raise PermissionError(path)
        remove(path)

    monkeypatch.setattr(os, "remove", refuse)
    program_cache._shrink(tmp_path, 250)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "2"]


def test_programs_cut_short_are_removed_and_each_is_looked_at_once(home, monkeypatch):
    folder = program_cache.keep()
    whole = zlib.compress(bytes(range(256)) * 100)
    for name, data in {"whole": whole, "torn": whole[:-9], "empty": b"", "zeros": bytes(9)}.items():
        (folder / f"{name}-cache").write_bytes(data)
    (folder / "other").write_bytes(b"not JAX's")
    monkeypatch.delenv(program_cache.VARIABLE)
    program_cache.keep()
    left = {"whole-cache", "other", program_cache.CHECKED}
    assert {path.name for path in folder.iterdir()} == left
    os.utime(folder / "whole-cache", (1e9, 1e9))  # long before the last look
    monkeypatch.setattr(program_cache, "_is_whole", lambda _: False)
    monkeypatch.delenv(program_cache.VARIABLE)
    program_cache.keep()
    assert {path.name for path in folder.iterdir()} == left


def test_zstandard_where_jax_uses_it(monkeypatch):
    class ZstdError(Exception):
        pass

    def decompress(data):
        if data != whole:
            raise ZstdError

    whole = program_cache._ZSTD + b"rest"
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    monkeypatch.setitem(
        sys.modules, "zstandard", SimpleNamespace(decompress=decompress, ZstdError=ZstdError)
    )
    assert program_cache._is_whole(whole) and not program_cache._is_whole(whole[:-1])
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert program_cache._is_whole(whole[:-1])  # nothing here can tell


@pytest.mark.parametrize("named", ["", "/shared"])
def test_one_process_of_several_keeps_programs_only_where_the_user_says(home, monkeypatch, named):
    if named:
        monkeypatch.setenv(program_cache.VARIABLE, named)
    program_cache.keep()
    told = []

    def supervise(*_, **__):
        told.append(os.environ.get(program_cache.VARIABLE, ""))
        return 0

    values = dict.fromkeys(
        ("hosts", "coordinator", "num_processes", "process_id", "phase", "workdir")
        + ("connect_seconds", "lost_seconds")
    )
    monkeypatch.setattr(main, "FLAGS", SimpleNamespace(**values, mode="train", step="latest"))
    monkeypatch.setattr(main.cluster, "find", lambda *_: "a place")
    monkeypatch.setattr(main.supervisor, "supervise", supervise)
    main.main()
    assert told == [named]
    monkeypatch.setenv(ASSIGNED, "{}")  # as the program that the agent starts has it
    assert program_cache.keep() is None
    assert os.environ.get(program_cache.VARIABLE, "") == named
