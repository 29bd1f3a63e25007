"""Tables of boxes as text: lines, their separator, and what the columns are called."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jdet.data.sources.label_text import decode, read_text
from jdet.types import DataError

SEPARATORS = (",", ";", "\t")


class Row(NamedTuple):
    """A line: its number in the file, and its fields by the names of the columns."""

    line: int
    fields: Mapping[str, str]


def head(path: Path) -> list[list[str]]:
    """The fields of the first two lines that say something; nothing more of the file is read."""
    try:
        with path.open("rb") as file:
            text = decode(file.read(8192), str(path))
    except OSError:
        return []
    lines = [line for line in text.splitlines() if line.strip()][:2]
    return [_fields(line, _separator(lines)) for line in lines]


def rows(path: Path, columns: list[str] | None = None) -> Iterator[Row]:
    """The lines of a table.

    Args:
        path: of the file.
        columns: names of the columns; None: the first line has them. They are in lower case.

    Raises:
        DataError: a line is none of a table.
    """
    text = read_text(path)
    separator = _separator(text.splitlines()[:2])
    reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True)
    for values in _lines(reader, path):
        if not any(map(str.strip, values)):
            continue
        if columns is None:
            columns = [name.strip().lower() for name in values]
        else:
            fields = dict(zip(columns, map(str.strip, values)))
            yield Row(line=reader.line_num, fields=fields)


def _lines(reader: Any, path: Path) -> Iterator[list[str]]:
    """The fields of each line that a reader of tables finds."""
    try:
        yield from reader
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not a table: {error}") from error


def _separator(lines: list[str]) -> str:
    first = lines[0] if lines else ""
    return max(SEPARATORS, key=first.count)


def _fields(line: str, separator: str) -> list[str]:
    parsed = csv.reader([line], delimiter=separator, skipinitialspace=True)
    try:
        return [field.strip() for field in next(parsed, [])]
    except csv.Error:
        return []
