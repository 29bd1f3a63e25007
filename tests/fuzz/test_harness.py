"""The harness sees readers that hang or take memory, though they say in words that the file is broken."""

import mmap

import pytest

from jdet.types import DataError
from tests.fuzz import harness
from tests.fuzz.targets import Target


def fuzz(read):
    """Reads a few files; those as they were written are read without doing harm."""

    def unless_good(folder):
        if (folder / "file").read_bytes() != b"good file":
            read()

    def write(folder):
        (folder / "file").write_bytes(b"good file")

    return harness.fuzz(Target("made up", write, "*", unless_good), 3)


def hangs():
    try:
        while True:
            pass
    except Exception as error:  # as readers do, for what decoders raise is of many kinds
        raise DataError("broken") from error


def hangs_and_passes_over_it():
    try:
        while True:
            pass
    except BaseException as error:
        raise DataError("broken") from error


@pytest.mark.parametrize("read", [hangs, hangs_and_passes_over_it])
def test_a_reader_that_hangs_is_found(monkeypatch, read):
    monkeypatch.setattr(harness, "SECONDS", 0.02)
    with pytest.raises(AssertionError, match="it takes longer than 0.02 seconds"):
        fuzz(read)


def test_a_reader_that_takes_memory_is_found_after_one_that_took_more(monkeypatch):
    monkeypatch.setattr(harness, "MEMORY", 16 << 20)
    peak = bytearray(b"x") * (64 << 20)
    del peak

    def takes():
        # Pages of its own: other memory may be some that this process has freed and kept.
        with mmap.mmap(-1, 32 << 20) as held:
            held.write(bytes(32 << 20))
            raise DataError(f"broken after {held.tell()} bytes")

    with pytest.raises(AssertionError, match="made up: memory grew by"):
        fuzz(takes)


def test_a_reader_that_refuses_is_not_blamed():
    def refuses():
        raise DataError("broken")

    assert fuzz(refuses) >= 1
    with pytest.raises(KeyError):
        fuzz(lambda: {}["a"])
