"""Runs a target on files that are changed at random."""

import contextlib
import re
import resource
import shutil
import signal
import sys
import tempfile
import warnings
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.mutation import changed, changes
from tests.fuzz.targets import CLEAR

SECONDS = 20
"""A reader that takes longer on a file of some kilobytes hangs."""

MEMORY = 1 << 30
"""Bytes by which the memory of the process may grow while one file is read."""


def fuzz(target, examples, number=None):
    """Changes the files of a target and reads them; returns how often.

    Args:
        target: of ``tests.fuzz.targets``.
        examples: how many times.
        number: seed; None: always the same examples.

    Raises:
        Exception: what the reader raised that is no clear error, with the changes that bring it about.
    """
    ran = 0
    with tempfile.TemporaryDirectory(prefix="jdet-fuzz-") as name:
        folder = Path(name) / "files"
        folder.mkdir()
        target.write(folder)
        good = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        spoilt = sorted(path for path in folder.glob(target.spoilt) if path in good)
        assert spoilt
        target.read(folder)  # which are good

        @settings(
            max_examples=examples,
            derandomize=number is None,
            database=None,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
            print_blob=False,
        )
        @given(st.sampled_from(spoilt), changes)
        def attempt(path, operations):
            nonlocal ran
            ran += 1
            path.write_bytes(changed(good[path], operations))
            try:
                with _alarm(), _watched(target.name), warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # Pillow's, of what is broken
                    target.read(folder)
            except CLEAR:
                pass
            finally:
                _restore(folder, good)

        run = attempt if number is None else seed(number)(attempt)
        run()
    return ran


def _restore(folder, good):
    """Puts the files back; what a reader made, renamed or removed is no longer so."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and path not in good:
            path.unlink()
    for path, data in good.items():
        if not path.is_file() or path.read_bytes() != data:
            if path.is_dir():
                shutil.rmtree(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


class _Rang(BaseException):
    """Ends a reader that hangs; no Exception, which most readers take for a broken file."""


@contextlib.contextmanager
def _alarm():
    rang = False

    def ring(*_):
        nonlocal rang
        rang = True
        raise _Rang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS, SECONDS)  # again, where a reader passes over it
    try:
        yield
    except BaseException:
        if not rang:
            raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not rang, f"it takes longer than {SECONDS} seconds"


@contextlib.contextmanager
def _watched(name):
    _forget_peak()
    before = _peak()
    refused = None
    try:
        yield
    except CLEAR as error:
        refused = error
    grown = _peak() - before
    assert grown < MEMORY, f"{name}: memory grew by {grown >> 20} MiB"
    if refused is not None:
        raise refused


STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def _forget_peak():
    """Sets the peak to the memory in use, so that an earlier reader's does not hide the next one's."""
    with contextlib.suppress(OSError):  # elsewhere than on Linux
        CLEAR_REFS.write_text("5")


def _peak():
    """Most memory that the process has had, since that was forgotten where it can be, in bytes."""
    if STATUS.exists():
        found = re.search(r"VmHWM:\s*(\d+) kB", STATUS.read_text())
        return int(found[1]) << 10
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
