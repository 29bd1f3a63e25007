"""The token of a run: what a process shows to be taken for one of the run's.

Process 0 draws it and writes it into the workdir, which all processes of a run see and strangers do
not; the file is readable by its owner alone. Where hosts run under different users, or the workdir is
open to others, the same secret in the environment of all processes takes its place.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
from pathlib import Path

from jdet.types import ConfigError

VARIABLE = "JDET_TOKEN"
"""Environment variable with the token; unset: it is in the workdir."""

FILE = ".token"
"""Name of the file in the workdir, there while the run goes on."""


def draw(workdir: Path) -> str:
    """Process 0's token: that of the environment, else a new one, which is written into the workdir.

    Raises:
        ConfigError: the workdir cannot be written to.
    """
    if given := os.environ.get(VARIABLE):
        return given
    token, path = secrets.token_hex(32), workdir / FILE
    temporary = path.with_name(f"{FILE}.tmp")
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "w") as file:
            file.write(token)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise ConfigError(f"workdir {workdir} cannot be used: {error}") from error
    return token


def find(workdir: Path) -> str:
    """The token as another process finds it now; "" where there is none (yet).

    Raises:
        ConfigError: it is there, but this user may not read it.
    """
    if given := os.environ.get(VARIABLE):
        return given
    try:
        return (workdir / FILE).read_text()
    except PermissionError as error:
        raise ConfigError(
            f"{workdir / FILE} belongs to another user: start all processes as one user, or give all of "
            f"them the same secret in {VARIABLE}"
        ) from error
    except OSError:
        return ""


def source(workdir: Path) -> str:
    """Where this process has the token from, for messages."""
    return f"variable {VARIABLE}" if os.environ.get(VARIABLE) else f"workdir {workdir}"


def discard(workdir: Path, token: str) -> None:
    """Removes what ``draw`` wrote if it is still there, and the workdir if nothing else came into it."""
    if os.environ.get(VARIABLE) or find(workdir) != token:
        return
    with contextlib.suppress(OSError):  # a run is in it
        (workdir / FILE).unlink()
        workdir.rmdir()


def matches(shown: object, token: str) -> bool:
    """Whether what a process shows is the token; takes as long whatever it shows."""
    if not isinstance(shown, str):
        return False
    # JSON can hold halves of characters, which UTF-8 cannot.
    return hmac.compare_digest(shown.encode("utf-8", "surrogatepass"), token.encode())
