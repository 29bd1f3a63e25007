"""What a batch comes to when it is split over devices, micro-batches and processes.

    python -m tests.train.split_program FOLDER [PORT RANK PROCESSES]

One process counts as eight devices, each of several as two. The first writes ``arrays.npz``,
``metrics.json`` and ``program.txt`` (the compiled step on eight devices) into the folder. It is a program
for the sake of its number of devices.
"""

import functools
import json
import os
import sys
from pathlib import Path

import jax
import numpy as np

IMAGES, CHANNELS = 32, 6
GROUPS = (2, 8, 16, 32)
STEPS, BATCH, LOSS_GROUP = 10, 16, 4


def norm_case(dtype=np.float32):
    """Images of very different brightness, float32 [B, 3, 3, C], and a gradient of that shape."""
    rng = np.random.default_rng(0)
    shape = (IMAGES, 3, 3, CHANNELS)
    scale = rng.uniform(0.5, 2, (IMAGES, 1, 1, CHANNELS))
    x = rng.normal(size=shape) * scale + rng.normal(size=(IMAGES, 1, 1, CHANNELS))
    params = {
        "first": {"scale": rng.uniform(0.5, 2, CHANNELS), "bias": rng.normal(size=CHANNELS)},
        "second": {"scale": rng.uniform(0.5, 2, CHANNELS), "bias": rng.normal(size=CHANNELS)},
        "mix": rng.normal(size=(CHANNELS, CHANNELS)),
    }
    as_floats = functools.partial(np.asarray, dtype=np.float32)
    dy = as_floats(rng.normal(size=shape))
    return as_floats(x).astype(dtype), jax.tree.map(as_floats, params), dy


def run_norms(devices, group, dtype):
    """Norm, ReLU, 1×1 convolution, norm: output, gradients and running statistics, from the mesh."""
    import flax.linen as nn
    import jax.numpy as jnp
    from jax.sharding import PartitionSpec as P

    from jdet.nn.norm import Norm
    from jdet.parallel import mesh as mesh_lib
    from jdet.train import gradient
    from tests.train import fake

    class Two(nn.Module):
        norm: Norm

        @nn.compact
        def __call__(self, x):
            mix = self.param("mix", nn.initializers.zeros, (CHANNELS, CHANNELS)).astype(x.dtype)
            x = jax.nn.relu(self.norm(train=True, name="first")(x))
            return self.norm(train=True, name="second")(x @ mix)

    config = fake.config(
        parallel__devices=devices, parallel__bn_group_size=group, train__batch_size=IMAGES
    )
    mesh = mesh_lib.make_mesh(config)
    net = Two(Norm("sync_batch", group_size=group, axis_name="member"))
    begin = {"mean": np.zeros(CHANNELS, np.float32), "var": np.ones(CHANNELS, np.float32)}
    stats = {"first": begin, "second": begin}

    def on_devices(params, x, dy):
        def loss(params, x):
            y, updates = net.apply(
                {"params": params, "batch_stats": stats}, x, mutable=["batch_stats"]
            )
            return jax.lax.psum(jnp.sum(y * dy), mesh_lib.AXES), (y, updates["batch_stats"])

        gradients, (y, after) = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)
        return y, gradient.mean_statistics(after), *gradients

    rows, whole = P(mesh_lib.AXES), P()
    program = jax.jit(
        jax.shard_map(
            on_devices,
            mesh=mesh,
            in_specs=(whole, rows, rows),
            out_specs=(rows, whole, whole, rows),
        ),
        out_shardings=mesh_lib.replicated(mesh),
    )
    x, params, dy = norm_case(dtype)
    placed = [
        jax.make_array_from_callback(a.shape, mesh_lib.batch_sharding(mesh), lambda i, a=a: a[i])
        for a in (x, dy)
    ]
    return jax.device_get(program(params, *placed))


def run_losses(**split):
    """Metrics of small ScratchDet step by step, its arrays at both ends, and the compiled step."""
    from jdet.parallel import mesh as mesh_lib
    from tests.train import test_ssd

    # At rates of training from scratch steps are steep enough to grow rounding to percents in 10 steps.
    config = test_ssd.settings(
        "sync_batch",
        optimizer__lr=1e-4,
        train__batch_size=BATCH,
        parallel__bn_group_size=LOSS_GROUP,
        **split,
    )
    mesh, create, lowered = test_ssd.prepare(config)
    train_step = lowered.compile()
    now, history, states = create(), [], []
    share = BATCH // jax.process_count()
    mine = slice(share * jax.process_index(), share * (jax.process_index() + 1))
    for k in range(STEPS):
        if k == 0:
            states.append(jax.device_get((now.params, now.stats)))
        batch = jax.tree.map(lambda x: x[mine], test_ssd.batch(k, BATCH))
        now, metrics = train_step(now, mesh_lib.to_global(batch, mesh))
        history.append({name: float(x) for name, x in jax.device_get(metrics).items()})
    states.append(jax.device_get((now.params, now.stats)))
    return history, states, train_step.as_text()


SPLITS = {
    # A group of four within a device, and over two; the processes' devices have one each.
    **{f"{n} devices": dict(parallel__devices=n) for n in (1, 8)},
    "4 micro-batches": dict(parallel__devices=1, train__accumulation=4),
}


def flat(tree):
    """Arrays as float32 by their paths, with slashes."""
    return {
        "/".join(str(getattr(k, "key", getattr(k, "idx", k))) for k in path): np.asarray(
            x, np.float32
        )
        for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]
    }


def main(folder, port="", rank="0", processes="1"):
    from tests import conftest  # noqa: F401  the compilation cache

    alone = processes == "1"
    jax.config.update("jax_num_cpu_devices", 8 if alone else 2)
    if not alone:
        jax.distributed.initialize(f"127.0.0.1:{port}", int(processes), int(rank))
    every = jax.device_count()
    arrays, metrics, program = {}, {}, ""
    for devices in (1, 2, 8) if alone else (every,):
        for group in GROUPS:
            arrays[f"norms {devices} {group}"] = run_norms(devices, group, np.float32)
    arrays[f"norms {every} 16 bfloat16"] = run_norms(every, 16, jax.numpy.bfloat16)
    for name, split in (SPLITS if alone else {"processes": dict(parallel__devices=every)}).items():
        metrics[name], arrays[name], text = run_losses(**split)
        if split["parallel__devices"] == 8:
            program = text
    if jax.process_index() == 0:
        (Path(folder) / "metrics.json").write_text(json.dumps(metrics))
        (Path(folder) / "program.txt").write_text(program)
        np.savez(Path(folder) / "arrays.npz", **flat(arrays))
    if not alone:
        jax.distributed.shutdown()


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main(*sys.argv[1:])
