"""The files of a profile: where they go, and what they may replace."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from jdet import atomic_files
from jdet.profile import figure
from jdet.types import ConfigError


class Output(NamedTuple):
    """Two files side by side.

    Attributes:
        report: FILE.json.
        bars: FILE.png.
    """

    report: Path
    bars: Path

    def write(self, report: dict[str, Any]) -> None:
        """Writes what ``jdet.profile.profile.profile`` returns."""
        atomic_files.write_json(self.report, report)
        figure.save(report, self.bars)


def prepare(given: str) -> Output:
    """Looks at the files of ``--out`` and makes their folder, before anything is profiled in vain.

    Args:
        given: FILE.json, FILE.png or FILE.

    Raises:
        ConfigError: one of them exists and is not of an earlier profile, or the folder cannot be written.
    """
    out = Path(given).expanduser()
    stem = out.with_suffix("") if out.suffix in (".json", ".png") else out
    output = Output(Path(f"{stem}.json"), Path(f"{stem}.png"))
    try:
        foreign = [] if _is_profile(output.report) else [path for path in output if path.exists()]
        output.report.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output.report.parent):
            pass
    except OSError as error:
        raise ConfigError(
            f"--out={given}: {output.report.parent} cannot be written ({error.strerror or error}); name a "
            "file in another folder"
        ) from error
    if foreign:
        raise ConfigError(
            f"--out={given} would replace {foreign[0]}, which is not of an earlier profile; name another "
            "file or delete it"
        )
    return output


def _is_profile(path: Path) -> bool:
    """Whether a file is the report of a profile, and the bars beside it are so too."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        return {"what", "peaks", "by_module_and_kind"} <= report.keys()
    except (OSError, ValueError, AttributeError):
        return False
