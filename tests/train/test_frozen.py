"""Frozen parameters: neither differentiated nor sent nor in the optimiser's state."""

import jax
import numpy as np
import pytest

from jdet.preflight import compile as compile_lib
from jdet.train import optim, state
from jdet.train.checkpoints.checkpoint import Checkpoints
from tests.train import fake
from tests.train.test_loop import assert_identical, train

# Per image: a 3×3 convolution of 3 channels to 8×8×4, and a dense layer from 256 to 6.
CONV, DENSE = 8 * 8 * 4 * 27, 256 * 6
BACKBONE, HEAD = 27 * 4 + 4, 256 * 6 + 6


def measured(monkeypatch, *frozen, norm="none", **settings):
    """The compiled step on four devices of two images each, whose FLOPs and collectives are looked at."""
    monkeypatch.setattr(compile_lib.build, "detector", lambda *_, **__: fake.FakeDetector(norm))
    rules = tuple((pattern, 0.0, 0.0) for pattern in frozen)
    config = fake.config(parallel__devices=0, optimizer__rules=rules, **settings)
    config.class_names = ("a", "b")
    found = compile_lib.measure(config, "train", jax.devices()[:4])
    sent = sum(each.bytes for each in found.collectives if each.purpose == "gradients")
    return found, sent


@pytest.mark.parametrize("accumulation", [1, 2])
def test_backward_flops_and_bytes_sent_fall(monkeypatch, accumulation):
    """Forward once; backward once for a kernel, and once for what lies below if that trains."""
    more = dict(train__accumulation=accumulation)
    (all_of_it, sent), (no_backbone, less), (no_head, least) = (
        measured(monkeypatch, *frozen, **more) for frozen in ((), ("backbone/.*",), ("head/.*",))
    )
    images = 2
    assert all_of_it.flops == 2 * images * (2 * CONV + 3 * DENSE)
    assert no_backbone.flops == 2 * images * (CONV + 2 * DENSE)
    assert no_head.flops == 2 * images * (2 * CONV + 2 * DENSE)
    assert no_backbone.xla_flops < 0.8 * all_of_it.xla_flops
    assert sent - less == 4 * BACKBONE and sent - least == 4 * HEAD
    assert no_head.memory.arguments == all_of_it.memory.arguments - 4 * HEAD  # no momentum


def test_frozen_norms_send_nothing_backward(monkeypatch):
    """Synchronised statistics still go forward: the norms of a frozen backbone train on as norms."""

    def purposes(*frozen):
        found, _ = measured(monkeypatch, *frozen, norm="sync")
        return {each.purpose for each in found.collectives}

    assert {"batch norm forward", "batch norm backward"} <= purposes()
    assert "batch norm forward" in purposes("backbone/.*")
    assert "batch norm backward" not in purposes("backbone/.*")


@pytest.mark.parametrize("name, moments", [("sgd", 1), ("adamw", 2)])
def test_the_rest_trains_as_it_did(tmp_path, name, moments):
    """Freezing the backbone leaves the head's steps what they are, and keeps no state of it."""
    settings = dict(optimizer__name=name, optimizer__lr=1e-3, train__steps=1, landscape__every=1)
    frozen = dict(optimizer__rules=(("backbone/.*", 0.0, 0.0),), init_from__random_frozen="allow")
    free, half = (
        train(tmp_path / folder, **settings, **more).state
        for folder, more in (("free", {}), ("half", frozen))
    )
    np.testing.assert_allclose(
        half.params["head"]["kernel"], free.params["head"]["kernel"], rtol=1e-5, atol=1e-7
    )
    detector = fake.FakeDetector("batch")
    begin, _ = jax.jit(lambda: state.init_variables(detector, fake.config(), 8))()
    kernel = begin["backbone"]["conv"]["kernel"]
    np.testing.assert_allclose(half.params["backbone"]["conv"]["kernel"], kernel, rtol=1e-6)
    assert not np.allclose(free.params["backbone"]["conv"]["kernel"], kernel, rtol=1e-5)
    held = [x for x in jax.tree.leaves(half.opt_state) if x.ndim]
    assert state.count_parameters(held) == moments * HEAD
    said = (tmp_path / "half" / "landscape.jsonl").read_text()
    assert "grad_norm/head" in said and "grad_norm/backbone" not in said


def test_checkpoint_with_a_momentum_of_frozen_parameters_goes_on(tmp_path):
    """As earlier versions wrote them."""
    settings = dict(
        optimizer__rules=(("backbone/.*", 0.0, 0.0),),
        init_from__random_frozen="allow",
        train__steps=6,
    )
    settings |= dict(train__save_every=3)
    whole = train(tmp_path / "new", **settings)
    config = fake.config(**settings)
    older = optim.make_optimizer(config.optimizer, lambda _: 0.1, whole.state.params, whole=True)
    path = tmp_path / "new" / "checkpoints"
    with Checkpoints(path, 9) as checkpoints:
        (path / "6").rename(tmp_path / "gone")
        found, _ = checkpoints.restore(whole.state)
        # Zeros, as the factor 0 of the rate had made of it.
        filled = jax.tree.map(np.zeros_like, older.init(jax.device_get(found.params)))
        values = dict(jax.tree_util.tree_leaves_with_path(jax.device_get(found.opt_state)))
        filled = jax.tree_util.tree_map_with_path(lambda at, x: values.get(at, x), filled)
        (path / "3").rename(tmp_path / "also gone")
        checkpoints.save(3, found._replace(opt_state=filled))
    assert_identical(train(tmp_path / "new", **settings).state, whole.state)
