"""Which messages of the package and of the experiments tell what to do, found in their syntax trees."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]

_VERBS = (
    "set|use|give|pass|run|take|name|make|put|leave|add|remove|drop|choose|say|start|keep|correct|save|"
    "export|discard|wait|stop|mount|train|raise|lower|call|download|prepare|rename|begin|go on|shorten|"
    "search|see|check|define|derive|allow|move|list|write|measure|let|mend|try|fetch|compare|evaluate|"
    "takes?|measures?|read|record|renew|store|extract|convert|shows"
)
REMEDY = re.compile(
    rf"(?:^|[;:,.?(]\s|\n|\bor |\band |\bthen |\{{}} )(?:{_VERBS})\b"
    r"|--(?:[a-z]|\{\})|\bpip install|\bpython -m|such as|did you mean|\bis called|works without"
    r"|leaves them so|fewer|smaller|larger|belong into|must (?:lie|end|name|come first)"
    r"|change the anchors|: row=",
    re.IGNORECASE,
)
"""What a text has that tells what to do; limits, and lists of what there is, are no remedies."""

_PATTERNS = re.compile("compile|fullmatch|search|sub|match|findall")
_OPTIONS = re.compile(r"add_argument|DEFINE_\w+|ArgumentParser")


NO_REMEDY = (
    ("jdet/analysis/orientation.py", "such as {}"),
    ("jdet/analysis/orientation.py", "larger farther down"),
    ("jdet/analysis/scales.py", "no smaller than images"),
    ("jdet/analysis/gradients.py", "gradients at each size, by all parameters"),
    ("jdet/build/normalise.py", "train data"),
    ("jdet/cli.py", "Experiment: file.py, or file.py:key=value"),
    ("jdet/data/measure.py", "measures image values"),
    ("jdet/data/readers/opencv.py", "it says that it is larger"),
    ("jdet/data/readers/survey.py", "images are grey and get three equal channels"),
    ("jdet/data/sources/tfds.py", "{}, record {}"),
    ("jdet/detectors/base.py", "does not implement losses"),
    ("jdet/preflight/report.py", "search: {}; tried {}"),
    ("jdet/profile/figure.py", "lower right"),
    ("jdet/run.py", "train images: %s"),
    ("jdet/train/init/from_scratch.py", "{} keep {} statistics"),
    ("experiments/common_own.py", "the folder has one split"),
    ("experiments/common_own.py", "Images with many objects: data.max_boxes"),
    ("experiments/studies/questions.py", ""),
    ("experiments/studies/table.py", "# Experiments"),
)
"""File and part of texts that have words of a remedy and are none."""


TESTED_WHOLE = ("jdet/data/layouts/", "jdet/doctor/")
"""Files whose messages need no rows here, which are welcome all the same: those about label files have a
table of spoilt folders and of what mends each in ``tests/data/layouts/test_spoiled_folders.py``, and the
doctor's are advice about data, for people to judge."""


class Text(NamedTuple):
    """A string of a file that is no docstring and no pattern.

    Attributes:
        file: from the root of the project.
        line: where it begins.
        text: values in it are ``{}``.
        of_option: it describes an option of a command.
    """

    file: str
    line: int
    text: str
    of_option: bool


@functools.cache
def texts() -> tuple[Text, ...]:
    """All of the package and of the experiments."""
    folders = (ROOT / "jdet", ROOT / "experiments")
    files = [file for folder in folders for file in sorted(folder.rglob("*.py"))]
    return tuple(text for file in files for text in _texts(file))


def _texts(path: Path) -> Iterator[Text]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    skipped: set[int] = set()
    options: set[int] = set()
    for node in nodes:
        body = getattr(node, "body", None)
        if isinstance(body, list):  # docstrings, of attributes too
            skipped |= {id(x.value) for x in body if isinstance(x, ast.Expr) and _is_text(x.value)}
        if isinstance(node, ast.Call):
            name = _name(node.func)
            if _PATTERNS.fullmatch(name):
                skipped |= {id(x) for x in ast.walk(node)}
            elif _OPTIONS.fullmatch(name):
                options |= {id(x) for x in ast.walk(node)}
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(x) for x in node.values}
    file = str(path.relative_to(ROOT))
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            text = "".join(
                str(getattr(part, "value", "")) if _is_text(part) else "{}" for part in node.values
            )
        elif _is_text(node):
            text = node.value
        else:
            continue
        if id(node) not in skipped and " " in text:
            yield Text(file, node.lineno, text, id(node) in options)


def _is_text(node: Any) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _name(function: ast.AST) -> str:
    return getattr(function, "attr", getattr(function, "id", ""))


@functools.cache
def remedies() -> tuple[Text, ...]:
    """Those that tell what to do."""
    return tuple(
        one
        for one in texts()
        if REMEDY.search(one.text)
        and not one.of_option
        and not any(one.file == file and part in one.text for file, part in NO_REMEDY)
    )
