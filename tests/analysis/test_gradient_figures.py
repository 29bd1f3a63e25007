"""The variance's table, Markdown and figure."""

import csv

import numpy as np
import pytest

from jdet.analysis import gradient_figures
from jdet.analysis.gradient_noise import Noise, fit

POINTS = [Noise(1, 8, 4.0, 0.2, 1.0, 2.0), Noise(4, 8, 1.1, 0.1, 1.2, 1.5)]


def test_table_and_figure():
    found = list(csv.DictReader(gradient_figures.table(POINTS).splitlines()))
    assert [float(row["equivalence"]) for row in found] == pytest.approx([1, 1.1])
    error = 1.1 * np.hypot(0.1 / 1.1, 0.2 / 4)
    assert float(found[1]["equivalence_error"]) == pytest.approx(error)
    text = gradient_figures.markdown(POINTS, fit(POINTS), ["Held fixed."])
    assert "| 4 | 1.1 ± 0.1 | 4.4 | 1.100 ± 0.114 | 1.2 |" in text and "Held fixed." in text
    left, right = gradient_figures.draw(POINTS, fit(POINTS)).axes
    assert left.get_xlabel() == "1/N" and right.get_xlabel() == "images N"
    np.testing.assert_allclose(left.containers[0].lines[0].get_ydata(), [4.0, 1.1])
    assert (left.get_xscale(), right.get_yscale()) == ("linear", "linear")
    wild = [*POINTS, Noise(2, 8, 400.0, 300.0, 1.0, 9.0)]
    left, right = gradient_figures.draw(wild, fit(wild)).axes
    assert (left.get_xscale(), left.get_yscale(), right.get_yscale()) == ("log",) * 3
