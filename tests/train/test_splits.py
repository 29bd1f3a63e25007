"""The same batch on one device, on several, on two processes and in micro-batches: the same training."""

import functools
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.preflight import collectives
from tests import harness
from tests.train import split_program
from tests.train.split_program import BATCH, CHANNELS, GROUPS, IMAGES, SPLITS, STEPS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """``split(processes)``: arrays and metrics of the program on so many, and the compiled step."""

    @functools.cache
    def run(processes):
        folder = tmp_path_factory.mktemp("split")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        command = [sys.executable, "-m", split_program.__name__, str(folder)]
        started = [
            subprocess.Popen(
                [*command, port, str(rank), str(processes)],
                env={**os.environ, "JAX_PLATFORMS": "cpu"},
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(processes)
        ]
        try:
            texts = [each.communicate(timeout=900)[0] for each in started]
        finally:
            for each in started:
                each.kill()
        assert all(each.returncode == 0 for each in started), "\n".join(texts)
        metrics = json.loads((folder / "metrics.json").read_text())
        return np.load(folder / "arrays.npz"), metrics, (folder / "program.txt").read_text()

    return run


@functools.cache
def reference(group):
    """Both norms by their definition, every group on its own, in float64 on one device."""
    with jax.enable_x64(True):
        wide = functools.partial(np.asarray, dtype=np.float64)
        x, params, dy = jax.tree.map(wide, split_program.norm_case())

        def norm(x, p):
            parts = x.reshape(-1, group, 3, 3, CHANNELS)
            mean, var = parts.mean((1, 2, 3)), parts.var((1, 2, 3))
            count = group * 9
            stats = {
                "mean": 0.1 * mean.mean(0),
                "var": 0.9 + 0.1 * var.mean(0) * count / (count - 1),
            }
            parts = (parts - mean[:, None, None, None]) / jnp.sqrt(var + 1e-5)[:, None, None, None]
            return parts.reshape(x.shape) * p["scale"] + p["bias"], stats

        def loss(params, x):
            hidden, first = norm(x, params["first"])
            y, second = norm(jax.nn.relu(hidden) @ params["mix"], params["second"])
            return jnp.sum(y * dy), (y, {"first": first, "second": second})

        gradients, (y, stats) = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params, x)
        found = {"0": y, "1": stats, "2": gradients[0], "3": gradients[1]}
        return {
            "/".join(key.key for key in path): np.asarray(leaf)
            for path, leaf in jax.tree_util.tree_flatten_with_path(found)[0]
        }


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("processes, devices", [(1, 1), (1, 2), (1, 8), harness.thorough(2, 4)])
def test_norm_groups_equal_the_whole_group_on_one_device(split, processes, devices, group):
    """Outputs, running statistics and gradients; groups within a device, over devices, over processes."""
    norms = split(processes)[0]
    expected = reference(group)
    assert len(expected) == 1 + 4 + 5 + 1
    for name, value in expected.items():
        ours = norms[f"norms {devices} {group}/{name}"]
        error = np.abs(ours - value).max() / max(1.0, np.abs(value).max())
        assert error < 1e-5, (name, error)


@pytest.mark.parametrize("processes, devices", [(1, 8), harness.thorough(2, 4)])
def test_statistics_of_bfloat16_activations_are_float32(split, processes, devices):
    norms = split(processes)[0]
    x = split_program.norm_case(jnp.bfloat16)[0].astype(np.float64)
    parts = x.reshape(IMAGES // 16, -1, CHANNELS)
    mean, var = parts.mean((0, 1)), parts.var(1, ddof=1).mean(0)
    stats = f"norms {devices} 16 bfloat16/1/first"
    np.testing.assert_allclose(norms[f"{stats}/mean"], 0.1 * mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(norms[f"{stats}/var"], 0.9 + 0.1 * var, rtol=1e-5)
    # The activations were rounded to 8 bits.
    y = norms[f"norms {devices} 16 bfloat16/0"]
    np.testing.assert_array_equal(y, y.astype(jnp.bfloat16).astype(np.float32))
    assert np.abs(y - reference(16)["0"]).max() > 1e-3


def test_losses_and_gradients_are_sane(split):
    """Normalised logits at the start: a positive and its three hard negatives cost ln 3 or more."""
    arrays, metrics, _ = split(1)
    first = metrics["1 devices"][0]
    assert 4 * np.log(3) < first["loss/cls"] < 4 * (np.log(3) + 4)
    assert first["loss"] == pytest.approx(first["loss/cls"] + first["loss/loc"], rel=1e-6)
    assert 0 < first["grad_norm"] < 1000 and first["finite"]
    assert all(np.isfinite(arrays[path]).all() for path in arrays.files)


@pytest.mark.parametrize("name", [*list(SPLITS)[1:], harness.thorough("processes")])
def test_training_does_not_depend_on_the_split(split, name):
    """Ten steps of ScratchDet in one piece and in parts, with norms over the same four images."""
    arrays, metrics, _ = split(1)
    others, other_metrics, _ = split(2 if name == "processes" else 1)
    losses, other_losses = (
        [step["loss"] for step in steps] for steps in (metrics["1 devices"], other_metrics[name])
    )
    assert BATCH == 16 and len(losses) == STEPS
    np.testing.assert_allclose(other_losses, losses, rtol=1e-4)
    for path in arrays.files:
        whole, end, place = path.partition("1 devices/1/")
        if whole or not end or (place.startswith("1/") and "micro-batches" in name):
            continue  # running statistics follow micro-batches one by one
        begin, one = arrays[f"1 devices/0/{place}"], arrays[path]
        moved = np.linalg.norm(one - begin)
        apart = np.linalg.norm(one - others[f"{name}/1/{place}"])
        assert moved > 0 and apart <= 1e-2 * moved, (place, moved, apart)


def test_what_a_step_sends(split):
    """Gradients in one piece, norms in as few as follow on one another, and nothing but sums.

    24 norms follow on one another: 3 of the root, 16 of the blocks, 4 of the extra levels and one of the
    head. 3 projections and 7 more norms of the head travel along.
    """
    arrays, _, program = split(1)
    found = collectives.find(program)
    assert {each.kind for each in found} == {"all-reduce"}
    assert collectives.host_transfers(program) == []
    norms = [each for each in found if each.purpose.startswith("batch norm")]
    begin = "8 devices/0"
    parameters = [arrays[path].size for path in arrays.files if path.startswith(f"{begin}/0/")]
    stats = [arrays[path].size for path in arrays.files if path.startswith(f"{begin}/1/")]
    layers, channels = len(stats) // 2, sum(stats) // 2
    assert layers == 34 and sum(each.arrays for each in norms) == 2 * layers
    assert 2 * 24 <= len(norms) <= 2 * 24 + 2
    # Forth and back, a sum and a sum of products for every channel, float32.
    assert sum(each.bytes for each in norms) == 2 * 2 * 4 * channels
    assert {each.group_size for each in norms} == {2}

    others = [each for each in found if each not in norms]
    assert {each.group_size for each in others} == {8} and len(others) <= 3
    assert max(each.bytes for each in others) >= 4 * sum(parameters)
