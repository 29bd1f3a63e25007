"""What a run was made with."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import jax

from jdet import __version__


def versions() -> dict[str, str]:
    """Versions of jdet, JAX and Python, and the commit of jdet's checkout where it is one."""
    found = {
        "jdet": __version__,
        "jax": jax.__version__,
        "python": platform.python_version(),
    }
    revision = commit(Path(__file__).resolve().parents[2])
    return {**found, "commit": revision} if revision else found


def commit(folder: Path) -> str:
    """The commit of a checkout, with a + behind it where tracked files were changed since.

    Args:
        folder: the root of the checkout.

    Returns:
        Twelve digits at least; "" where the folder is no checkout, or git does not say.
    """
    if not (folder / ".git").exists():  # installed; whatever lies above is somebody else's
        return ""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        done = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
