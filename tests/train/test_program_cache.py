"""Where compiled programs are kept, and when not."""

import os
import sys
from types import SimpleNamespace

import pytest

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


def test_the_oldest_programs_go(tmp_path):
    for age in range(5):
        path = tmp_path / f"{age}"
        path.write_bytes(b"x" * 100)
        os.utime(path, (1e9 - age, 1e9 - age))
    program_cache._shrink(tmp_path, 250)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]
    program_cache._shrink(tmp_path, 250)
    assert len(list(tmp_path.iterdir())) == 2
