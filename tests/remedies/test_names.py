"""Remedies that messages name can be typed: options, keys, files and modules in them exist."""

import functools
import re

import pytest

from jdet import build
from jdet.build.table import TABLE
from jdet.config import flatten, get_defaults
from tests.remedies.messages import ROOT, texts

FOREIGN = {
    "shm-size",
    "file_format",
    "data_dir",
    "key",
    "editable",
}  # of docker, tfds and pip, and any


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
        for where, text in sorted({(f"{x.file}:{x.line}", x.text) for x in texts()})
        for name in sorted(set(re.findall(pattern, text)))
    ]


def test_messages_are_found():
    assert len(texts()) > 1500 and len(options()) > 40 and len(keys()) > 150


@pytest.mark.parametrize("option", mentioned(r"(?<![\w-])--([a-z][\w-]+)(?!\.)\b(?![.\w])"))
def test_an_option_exists(option):
    assert option in options()


GROUPS = "train|eval|data|model|optimizer|parallel|resize|augment|landscape|init_from|calibration"


@pytest.mark.parametrize(
    "key", mentioned(rf"(?<![\w./])(?:config\.)?((?:{GROUPS})(?:\.(?!txt|yaml)[a-z]\w+)+)")
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
