import errno

import pytest

from jdet import atomic_files
from jdet.data import worker_errors
from jdet.data.stream import BatchStream
from jdet.types import DataError


class Broken:
    """A dataset of grain whose workers end."""

    def __init__(self, error, early=False):
        self.error, self.early = error, early

    def __iter__(self):
        if self.early:
            raise self.error
        return self

    def __next__(self):
        raise self.error


def gone(code):
    return RuntimeError(
        f"Worker process was terminated unexpectedly with exit code {code}. Search the logs"
    )


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize(
    "error, says",
    [
        (
            gone(-9),
            "by SIGKILL, as the system does where memory runs out; the same command goes on",
        ),
        (gone(-11), "by SIGSEGV; the same command goes on .* --config.data.workers=1"),
        (gone(3), "by exit code 3; the same command goes on"),
        (gone(-99), "by signal 99"),
        (gone(-7), r"SIGBUS.*/dev/shm is full \(8 KiB .*--shm-size=8g.*--config.data.workers=0"),
        (OSError(errno.ENOSPC, "No space"), "/dev/shm is full .*--shm-size=8g.*same command"),
    ],
)
def test_what_ended_a_worker_is_said_with_the_way_on(monkeypatch, error, says, early):
    monkeypatch.setattr(
        atomic_files, "_room", lambda place: "8 KiB left" if str(place) == "/dev/shm" else ""
    )
    with pytest.raises(DataError, match=says.replace(".* ", ".*")):
        next(BatchStream(Broken(error, early), batch_size=1, position=0, length=None, epoch=1))


@pytest.mark.parametrize("error", [RuntimeError("another"), OSError(errno.EIO, "I/O error")])
def test_other_errors_stay_as_they_are(error):
    assert worker_errors.explain(error) is None
    with pytest.raises(type(error), match=str(error.args[-1])):
        next(BatchStream(Broken(error), batch_size=1, position=0, length=None, epoch=1))
