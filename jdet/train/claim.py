"""Which folders can hold a run, and the claim on one: no two processes write to a workdir at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shlex
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from jdet.types import ConfigError

LOCK = ".lock"

BEAT_SECONDS, STALE_SECONDS = 10.0, 60.0
"""Where the file system has no locks: how often the owner renews its claim, and when it has lapsed."""


def check_name(path: str | Path) -> None:
    """Refuses a folder under whose name no checkpoint could be kept.

    orbax takes what looks like a pattern in a path for one, and finds nothing, or files of other folders;
    tensorstore wants UTF-8, and both take what looks like an address for one.

    Raises:
        ConfigError: names what is wrong, and a folder that would do.
    """
    if re.search(r"(^\w{2,}|(^|/)(gs|s3|az|hf)):/", str(path)):
        raise ConfigError(
            f"workdir {path} is an address, and runs are kept in folders; mount the bucket (gcsfuse, "
            "mount-s3) and name a folder there"
        )
    full = str(Path(path).expanduser().absolute())
    odd = sorted({char for char in full if char in "*?[\\" or "\ud800" <= char <= "\udfff"})
    if odd:
        shown = [char if char.isascii() else "bytes that are not UTF-8" for char in odd]
        good = "".join("_" if char in [*odd, "]"] else char for char in full)
        raise ConfigError(
            f"workdir {os.fsencode(full).decode(errors='replace')} has {' and '.join(shown)} in its path, "
            "with which checkpoints cannot be written; take a folder without, such as "
            f"--workdir={shlex.quote(good)}"
        )


class Claim:
    """The right to write to a folder, held until ``release`` or the end of the process.

    It is a lock on a file in the folder. Some file systems have none (NFS without its lock service, Lustre
    without ``flock``, drives that notebooks mount): there the file names its owner, who renews it every few
    seconds, and a claim that was not renewed for a minute has lapsed.
    """

    def __init__(self, folder: Path, notify: Callable[[str], None] = print):
        """Takes the folder.

        Args:
            folder: there already.
            notify: told where the file system has no locks.

        Raises:
            ConfigError: another process holds it; it is named.
            OSError: the folder cannot be written to.
        """
        self._folder, self._path = folder, folder / LOCK
        self._released = threading.Event()
        self._owner = f"{os.getpid()} {socket.gethostname()}"
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise self._in_use() from error
            except OSError as error:
                notify(
                    f"the file system of {folder} has no locks ({error.strerror}): this run renews "
                    f"{LOCK} every {BEAT_SECONDS:g} s instead, so that no other one begins there"
                )
                self._take_without_lock()
            else:
                self._sign()
        except BaseException:
            os.close(self._file)
            raise

    def _take_without_lock(self) -> None:
        if self._is_live():
            raise self._in_use(
                f"; or, if that process is gone, wait {STALE_SECONDS:g} s or remove {self._path}"
            )
        self._sign()
        # Of two that come at the same moment, the one that signed last has it.
        if self._released.wait(0.5) or self._read() != self._owner:
            raise self._in_use()
        threading.Thread(target=self._renew, name="claim", daemon=True).start()

    def _is_live(self) -> bool:
        """Whether the owner that the file names is at work."""
        pid, _, host = self._read().partition(" ")
        if not pid.isdecimal():
            return False
        if host == socket.gethostname() and int(pid) != os.getpid():
            try:
                os.kill(int(pid), 0)
            except ProcessLookupError:
                return False
            except OSError:
                pass
        # By the clock of the file system: that of another host may be wrong.
        with tempfile.NamedTemporaryFile(prefix=LOCK, dir=self._folder) as now:
            age = os.fstat(now.fileno()).st_mtime - os.stat(self._path).st_mtime
        return age < STALE_SECONDS

    def _renew(self) -> None:
        while not self._released.wait(BEAT_SECONDS):
            try:
                os.utime(self._path)
            except OSError:  # of a network that is away for a moment; the next one may do
                continue

    def _sign(self) -> None:
        os.truncate(self._file, 0)
        os.pwrite(self._file, self._owner.encode(), 0)
        os.fsync(self._file)

    def _read(self) -> str:
        try:
            return self._path.read_text(errors="replace").strip()
        except OSError:
            return ""

    def _in_use(self, remedy: str = "") -> ConfigError:
        pid, _, host = self._read().partition(" ")
        where = f" on {host}" if host else ""
        return ConfigError(
            f"workdir {self._folder} is in use by process {pid or 'unknown'}{where}; wait for it, stop "
            f"it, or take another workdir{remedy}"
        )

    def release(self) -> None:
        """Lets the folder go."""
        self._released.set()
        with contextlib.suppress(OSError):  # the disk may be gone
            if self._read() == self._owner:  # else it had lapsed
                os.truncate(self._file, 0)
        os.close(self._file)
