"""What is wrong in the labels of data sets, in a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jdet.types import Source


def write(path: Path, sources: Mapping[str, Source]) -> None:
    """One line for everything wrong in the labels; no file where there is nothing.

    Args:
        path: of the file.
        sources: by role, which stands first in each line.
    """
    lines = [
        f"{role}\t{defect.id}\t{defect.what}\t{defect.detail}\n"
        for role, source in sources.items()
        for defect in getattr(source, "defects", ())
    ]
    if lines:
        # Names of files need not be text: these bytes come out as they are.
        path.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")
    else:
        path.unlink(missing_ok=True)
