"""Parameters of RepPointsV2 to the unit, and what papers print as "FLOPs"."""

import jax
import pytest

from experiments import transformers_table5
from jdet import build
from jdet.preflight.mmcv_flops import mmcv_flops
from jdet.train import state
from tests import harness
from tests.detectors.test_dense_detector import config

CLASSES = tuple(map(str, range(80)))

# Swin's flavour of it: parameters; GMAC on 1280×800 with the products of attention.
ROWS = [
    ("resnet50", 42_132_528, 273.2),
    harness.thorough("swin_t", 44_916_202, 282.5),
    harness.thorough("c2c2t12t4", 68_691_744, 317.4),
]


def abstract(c):
    detector = build.detector(c, CLASSES)
    params, stats = state.abstract_variables(detector, c)
    return detector, params, stats


def size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("backbone, parameters, flops", ROWS)
def test_published_numbers(backbone, parameters, flops):
    c = transformers_table5.get_config(f"detector=swin_reppoints_v2,backbone={backbone}")
    detector, params, stats = abstract(c)
    assert size(params) == parameters
    assert size(params["head"]) == 7_210_442
    if backbone == "swin_t":
        assert size(params["neck"]) == 10_185_254
    found = mmcv_flops(detector, state.variables(params, stats), (1280, 800))
    assert round((found.total + found.attention) / 1e9, 1) == flops


def test_as_first_published():
    """A pyramid with group norms, whose sixth level is made from C5; the head is the same."""
    c = config("reppoints_v2", 800, 50, dict(use_norm=True), norm="group", head_norm="group")
    _, params, _ = abstract(c)
    assert size(params["head"]) == 7_210_442
    # Laterals and outputs of three stages, two convolutions of stride 2; norms instead of biases.
    laterals, three = 256 * (512 + 1024 + 2048), 9 * 256 * 256
    assert size(params["neck"]) == laterals + 4 * three + 9 * 2048 * 256 + 8 * 512
