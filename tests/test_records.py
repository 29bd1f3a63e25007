"""Records grow: they are built by keyword, read by name, and pass on what is optional."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RECORDS = {"Batch", "Detections", "ImageDetections", "Example", "Element", "Row"}
FILES = [
    p for folder in ("jdet", "benchmarks", "experiments") for p in (ROOT / folder).rglob("*.py")
]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_records_are_built_by_keyword(path):
    for node in ast.walk(ast.parse(path.read_text())):
        name = getattr(node, "func", None)
        if isinstance(node, ast.Call) and isinstance(name, ast.Name) and name.id in RECORDS:
            if name.id == "Row" and "data" not in path.parts:  # of a table
                continue
            assert not node.args, f"line {node.lineno}: {name.id} takes its fields by keyword"
