"""The worked examples in the docstrings of the matching and sampling rules."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "name",
    [f"matching.{n}" for n in ("ssd", "max_iou", "fcos", "atss", "points", "ignored", "hungarian")]
    + ["matching.task_aligned", "matching.simota", "sampling"],
)
def test_examples_of_docstrings(name):
    module = importlib.import_module(f"jdet.ops.{name}")
    result = doctest.testmod(module)
    assert result.attempted > 2 and not result.failed
