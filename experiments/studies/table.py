"""Writes the table of all experiments into ``experiments/README.md``.

    python -m experiments.studies.table

Every experiment says in its docstring what the table says: the question in its first line, then lines
that begin with ``Source:``, ``Paper:`` (numbers of others), ``Ours:`` (measured by us, or "not run by us")
and ``Cost:``. A value goes on until the next such line or an empty one.
"""

import ast
import re
from pathlib import Path

from jdet.atomic_files import write_text
from jdet.types import ConfigError

HERE = Path(__file__).resolve().parents[1]
README = HERE / "README.md"
KEYS = ("Source", "Paper", "Ours", "Cost")
INTRODUCTION = """# Experiments

One file per result or question. Each says in its docstring how to run it; arguments after the colon pick
variants: `--config=experiments/scratchdet_voc.py:backbone=vgg16`. What papers report stands beside what we
measured; nothing was measured unless this table says so. The table is made from the docstrings by
`make tables`.

"""


def files() -> list[Path]:
    """The experiments, by name: the files with a ``get_config``."""
    return sorted(path for path in HERE.glob("*.py") if "\ndef get_config(" in path.read_text())


def facts(path: Path) -> dict[str, str]:
    """Question, source, paper's number, our number and cost of an experiment, by column.

    Raises:
        ConfigError: the docstring lacks one of them.
    """
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    found = {"Question": text.partition("\n")[0].strip()}
    for key in KEYS:
        match = re.search(rf"^{key}:(.*?)(?=^(?:{'|'.join(KEYS)}):|^\s*$|\Z)", text, re.M | re.S)
        if not match or not match[1].strip():
            raise ConfigError(f"{path}: the docstring has no line '{key}: …'")
        found[key] = " ".join(match[1].split())
    return found


def table() -> str:
    """The README's whole text."""
    columns = ("Question", *KEYS)
    lines = [f"| file | {' | '.join(column.lower() for column in columns)} |"]
    lines += ["| --- " * (len(columns) + 1) + "|"]
    for path in files():
        cells = [cell.replace("|", "\\|") for cell in facts(path).values()]
        lines += [f"| [{path.stem}]({path.name}) | {' | '.join(cells)} |"]
    return INTRODUCTION + "\n".join(lines) + "\n"


if __name__ == "__main__":
    write_text(README, table())
