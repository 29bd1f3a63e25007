"""What a message tells to do is typed, and the same call then goes through: a row for every message."""

import ast
import functools
import importlib
from pathlib import Path

import pytest

from tests.remedies.messages import ROOT, TESTED_WHOLE, remedies
from tests.remedies.rows import Elsewhere, Typed, Untyped

PARTS = sorted(Path(__file__).parent.glob("of_*.py"))
ROWS = [
    row for part in PARTS for row in importlib.import_module(f"tests.remedies.{part.stem}").ROWS
]


def named(row):
    return f"{row.file.removeprefix('jdet/')}-{row.fragment[:40]}"


@pytest.mark.parametrize("row", [x for x in ROWS if isinstance(x, Typed)], ids=named)
def test_a_remedy_works_when_it_is_typed(row, tmp_path):
    row.check(tmp_path)


def test_every_message_with_a_remedy_has_a_row():
    """Of its file, with a part of its text; and no row is left of a message that is gone."""
    known = remedies()

    def belongs(row, message):
        return row.file == message.file and row.fragment in message.text

    asked = [one for one in known if not one.file.startswith(TESTED_WHOLE)]
    missing = [one for one in asked if not any(belongs(row, one) for row in ROWS)]
    gone = [row[:2] for row in ROWS if not any(belongs(row, one) for one in known)]
    assert not missing and not gone


@functools.cache
def functions(file):
    tree = ast.parse((ROOT / file).read_text())
    return {x.name: x for x in ast.walk(tree) if isinstance(x, ast.FunctionDef)}


@pytest.mark.parametrize("row", [x for x in ROWS if isinstance(x, Elsewhere)], ids=named)
def test_another_test_types_it(row):
    file, _, name = row.test.partition("::")
    node = functions(file)[name]
    texts = [str(x.value) for x in ast.walk(node) if isinstance(x, ast.Constant)]
    assert (row.proof or row.fragment) in "\n".join([*texts, ast.unparse(node)])


def test_few_remedies_are_not_typed():
    untyped = [row for row in ROWS if isinstance(row, Untyped)]
    assert all(row.why for row in untyped) and len(untyped) < len(ROWS) / 10
