"""Loading some parts of a model: which are taken, kept and refused, by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.train import state
from jdet.train.init.plan import part_of
from jdet.types import ConfigError
from tests.train.init.test_init_from import (
    SMALL,
    detector_of,
    flat,
    prepare,
    randomised,
    save_run,
    settings,
)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    config = settings(SMALL)
    variables = randomised(state.abstract_variables(detector_of(config), config), 3)
    return save_run(tmp_path_factory.mktemp("source"), config, variables), variables


@pytest.mark.parametrize(
    "parts", [("backbone",), ("backbone", "neck"), ("backbone", "neck", "head")]
)
def test_loaded_parts_are_the_sources_and_all_else_is_fresh(source, parts, tmp_path):
    run, variables = source
    config = settings(SMALL, init_from__path=str(run), init_from__parts=parts)
    plan = prepare(config, tmp_path)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), variables)
    old, own = dict(flat(*variables)), dict(flat(*plan(*zeros)))
    for path, x in own.items():
        expected = old[path] if part_of(path) in parts else np.zeros_like(x)
        np.testing.assert_array_equal(x, expected)
    rows = plan.modules()
    assert {part for part, cells in rows.items() if cells["loaded"][0]} == set(parts)
    assert all(rows[part]["left"][0] for part in rows.keys() - set(parts))


def test_parts_by_name_wherever_they_lie():
    names = ("roi_heads/box_head/fc1/kernel", "box_head2/fc/bias", "mask_head_1/x", "rpn/conv/bias")
    assert [part_of(path) for path in names] == ["box_head", "box_head", "mask_head", "rpn"]
    assert part_of("backbone/stage1_block1/conv1/kernel") == "backbone"


@pytest.mark.parametrize(
    "more, message",
    [
        (dict(parts=("backbon",)), "'backbon' is no part.*mean 'backbone'"),
        (dict(parts=("neck",), include=("backbone/.*",)), "leave nothing of parts"),
    ],
)
def test_bad_parts_are_refused(source, more, message, tmp_path):
    given = {f"init_from__{key}": value for key, value in more.items()}
    with pytest.raises(ConfigError, match=message):
        prepare(settings(SMALL, init_from__path=str(source[0]), **given), tmp_path)


def test_a_part_of_which_nothing_fits_is_refused(source, tmp_path):
    config = settings(SMALL, init_from__path=str(source[0]), init_from__parts=("backbone", "neck"))
    config.model.neck.width = 0.125
    config.init_from.strict = False
    with pytest.raises(ConfigError, match="nothing of 'neck' fits"):
        prepare(config, tmp_path)
