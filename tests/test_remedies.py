"""Remedies that messages name can be typed: options, keys, files and modules in them exist."""

import ast
import functools
import re
from pathlib import Path

import pytest

from jdet import build
from jdet.build.table import TABLE
from jdet.config import flatten, get_defaults

ROOT = Path(__file__).resolve().parents[1]
FOREIGN = {
    "shm-size",
    "file_format",
    "data_dir",
    "key",
    "editable",
}  # of docker, tfds and pip, and any


@functools.cache
def messages():
    """Every text of the package that is no docstring, by file and line; values in it are {}."""
    found = {}
    for path in sorted((ROOT / "jdet").rglob("*.py")):
        tree = ast.parse(path.read_text())
        docs = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        docs |= {
            id(b.value)
            for a, b in zip(tree.body, tree.body[1:])
            if isinstance(a, ast.Assign) and isinstance(b, ast.Expr)
        }
        inner = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                parts = [getattr(part, "value", "{}") for part in node.values]
                text = "".join(part if isinstance(part, str) else "{}" for part in parts)
                inner |= {id(part) for part in node.values}
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
            else:
                continue
            if id(node) not in docs | inner and " " in text:
                found[f"{path.relative_to(ROOT)}:{node.lineno}"] = text
    return found


@functools.cache
def options():
    """Names of the options of all commands and scripts."""
    names = set(FOREIGN) | {"config", "help"}
    for folder in ("jdet", "data", "experiments"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            names |= set(re.findall(r"DEFINE_\w+\(\s*\"(\w+)\"", text))
            names |= set(re.findall(r"\"--([\w-]+)\"", text))
    return names | {f"no-{name}" for name in names}


@functools.cache
def keys():
    """Keys of configs, groups of classes included, without their groups' outer parts."""
    names = set(flatten(get_defaults().to_dict()))
    outer = {
        "detector": "model", "backbone": "model.backbone", "neck": "model.neck", "rpn": "model.rpn",
        "box_head": "model.box_head", "mask_head": "model.mask_head",
        "augment": "augment", "resize": "resize",
    }  # fmt: skip
    for kind, table in TABLE.items():
        where = ["data.train", "data.eval"] if kind == "source" else [outer.get(kind, kind)]
        for name in table:
            group = flatten(build.group(kind, name).to_dict())
            names |= {f"{place}.{key}" for key in group for place in where}
    return names | {name.rpartition(".")[0] for name in names}


def mentioned(pattern):
    return [
        pytest.param(name, id=f"{where}-{name}")
        for where, text in messages().items()
        for name in sorted(set(re.findall(pattern, text)))
    ]


def test_messages_are_found():
    assert len(messages()) > 500 and len(options()) > 40 and len(keys()) > 150


@pytest.mark.parametrize("option", mentioned(r"(?<![\w-])--([a-z][\w-]+)(?!\.)\b(?![.\w])"))
def test_an_option_exists(option):
    assert option in options()


GROUPS = "train|eval|data|model|optimizer|parallel|resize|augment|landscape|init_from|calibration"


@pytest.mark.parametrize(
    "key", mentioned(rf"(?<![\w./])(?:config\.)?((?:{GROUPS})(?:\.(?!txt)[a-z]\w+)+)")
)
def test_a_key_exists(key):
    assert key in keys() or key.removesuffix(".name") in keys()


@pytest.mark.parametrize("file", mentioned(r"python ((?:data|experiments|benchmarks)/\w+\.py)"))
def test_a_script_exists(file):
    assert (ROOT / file).is_file()


@pytest.mark.parametrize("module", mentioned(r"python -m (jdet[\w.]+\w)"))
def test_a_module_exists(module):
    path = ROOT / module.replace(".", "/")
    assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
