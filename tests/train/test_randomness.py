"""What a detector draws follows from seed, step and image alone, however the batch is split."""

import functools
import importlib
import socket
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.nn.randomness import DropPath, per_image_keys
from jdet.nn.remat import Remat
from jdet.parallel import mesh as mesh_lib
from jdet.train import state
from jdet.train.gradient import make_gradient
from jdet.types import Mean
from tests.harness import ROOT, child_environment, thorough
from tests.train import fake

ROWS, STEP = 16, 5


class Sampling(nn.Module):
    """Cells of a map as anchors, of which the loss counts some at random, after blocks with drop-path.

    Attributes:
        remat: of the blocks.
    """

    remat: Remat = Remat()

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.Conv(8, (3, 3), strides=4, name="stem")(images.astype(jnp.float32) / 128.0 - 1.0)

        def blocks(module, x):
            del module
            for i in range(3):
                branch = nn.relu(nn.Conv(8, (3, 3), name=f"conv{i}")(x))
                x = x + DropPath(0.4, name=f"drop{i}")(branch, train=train)
            return x

        x = self.remat.segment(blocks, "blocks")(self, x)
        return nn.Conv(fake.CLASSES, (1, 1), name="head")(x).reshape(len(images), -1, fake.CLASSES)

    @nn.compact
    def losses(self, batch, *, train=True):
        logits = self(batch.images, train=train)  # [B, A, K]
        keys = per_image_keys(self, "sample", len(logits))

        def pick(key):  # 5 of the anchors
            order = jax.random.permutation(key, logits.shape[1])
            return order < 5

        chosen = jax.vmap(pick)(keys)
        wanted = jnp.where(batch.valid[:, :1], batch.labels[:, :1], 0)
        logp = jnp.take_along_axis(jax.nn.log_softmax(logits), wanted[..., None], axis=2)[..., 0]
        weight = jnp.where(batch.valid[:, 0], 1.0, 0.5)[:, None] * chosen
        return {"cls": Mean(-(logp * weight).sum(), weight.sum())}


def loss_and_gradient(detector, step=STEP, **split):
    """Of one batch, on this process's devices and those of the others."""
    config = fake.config(train__batch_size=ROWS, **split)
    mesh = mesh_lib.make_mesh(config)
    create = jax.jit(
        lambda: state.init_variables(detector, config), out_shardings=mesh_lib.replicated(mesh)
    )
    params, stats = create()
    share = ROWS // jax.process_count()
    mine = slice(share * jax.process_index(), share * (jax.process_index() + 1))
    batch = jax.tree.map(lambda x: x[mine], fake.batch(3, ROWS))
    found = make_gradient(detector, mesh, config)(
        params, stats, mesh_lib.to_global(batch, mesh), step
    )
    return jax.device_get((found.loss, found.parts, found.gradient))


@functools.cache
def alone():
    return loss_and_gradient(Sampling())


def check(found, expected=None):
    """Equal within 1e-5 of the largest value; ``expected``: None for that of ``Sampling`` alone."""
    expected = expected or alone()
    most = max(np.abs(x).max() for x in jax.tree.leaves(expected[2]))
    assert most > 1e-3
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-5 * most), expected, found)


@pytest.mark.parametrize("devices, accumulation", [(1, 2), (2, 1), (2, 2), (4, 1), (4, 2)])
def test_splits_draw_alike(devices, accumulation):
    check(
        loss_and_gradient(Sampling(), parallel__devices=devices, train__accumulation=accumulation)
    )


def test_recomputing_draws_alike():
    check(loss_and_gradient(Sampling(Remat("full")), parallel__devices=2, train__accumulation=2))


def test_another_step_or_seed_draws_otherwise():
    same = dict(parallel__devices=1)
    losses = [
        float(alone()[0]),
        *(float(loss_and_gradient(Sampling(), k, **same)[0]) for k in (0, 6)),
    ]
    assert len(set(losses)) == 3


SCRIPT = """
import importlib, pickle, sys
import jax

port, rank, file = sys.argv[1], int(sys.argv[2]), sys.argv[3]
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=rank)

from tests.train.test_randomness import loss_and_gradient

detector = getattr(importlib.import_module(sys.argv[4]), sys.argv[5])()
found = [loss_and_gradient(detector, parallel__devices=4, train__accumulation=n) for n in (1, 2)]
if rank == 0:
    with open(file, "wb") as out:
        pickle.dump(found, out)
jax.distributed.shutdown()
"""


@pytest.mark.parametrize(
    "module, name",
    [
        ("tests.train.test_randomness", "Sampling"),
        thorough("tests.backbones.test_swin_devices", "Blocks"),  # window attention too
    ],
)
def test_two_processes_with_two_devices_each_draw_alike(module, name, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    file = tmp_path / "found.pickle"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, port, str(rank), str(file), module, name],
            env=child_environment(JAX_PLATFORMS="cpu"),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in (0, 1)
    ]
    try:
        texts = [process.communicate(timeout=300)[0].decode() for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(process.returncode == 0 for process in processes), "\n".join(texts)
    expected = None
    if name != "Sampling":
        detector = getattr(importlib.import_module(module), name)()
        expected = loss_and_gradient(detector, parallel__devices=1)
    for found in np.load(file, allow_pickle=True):
        check(found, expected)
