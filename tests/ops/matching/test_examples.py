"""The worked examples in the docstrings of the assignment rules."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["ssd", "max_iou", "fcos", "atss"])
def test_examples_of_docstrings(name):
    module = importlib.import_module(f"jdet.ops.matching.{name}")
    result = doctest.testmod(module)
    assert result.attempted > 2 and not result.failed
