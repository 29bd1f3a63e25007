"""Training step of ScratchDet300 with Root-ResNet-18, beside the same network in plain PyTorch.

    python -m benchmarks.train_step [--batch 8] [--size 300] [--precision float32]
        [--peer-python PYTHON]

One JSON line. The step is the one that training runs: normalisation of uint8 pictures, network,
matching, hard negatives, gradients, momentum SGD and the check for non-finite values. The root ends in
a 3×3 max-pool, as in the peer's network. With a Python that has torch (``--peer-python`` or the
environment variable JDET_PEER_PYTHON) the peer's step is timed in between under the same environment
variables, and the ratio of the medians is added.

A sample counts where other processes took less than a twentieth of the machine meanwhile; where too
few are left, all count. ``others`` is their median share.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import time

from benchmarks.inference import PEER
from jdet import environment

OBJECTS = 7


def make_step(batch, size, precision):
    """The compiled step, its first state and a batch on the device."""
    import numpy as np

    from experiments import scratchdet_voc
    from jdet import build, types
    from jdet.train import optim, schedule, sharding, state, step

    config = scratchdet_voc.get_config(f"backbone=root_resnet18,batch={batch}")
    config.input_size, config.precision = size, precision
    config.model.backbone.pool = 3
    detector = build.detector(config, tuple(map(str, range(20))), axis_name="member")
    mesh = sharding.make_mesh(config)
    lr = schedule.learning_rate(config.optimizer, schedule.resolve(config, 10 * batch))
    params, _ = state.abstract_variables(detector, config, batch)
    optimizer = optim.make_optimizer(config.optimizer, lr, params)
    begin = state.create_state(detector, optimizer, mesh, config)

    rng = np.random.default_rng(0)
    count = config.data.max_boxes
    sides = rng.uniform(0.08, 0.5, (batch, count, 2)) * size
    corners = rng.uniform(0, 1, (batch, count, 2)) * (size - sides)
    valid = np.broadcast_to(np.arange(count) < OBJECTS, (batch, count))
    zeros = np.zeros((batch, 2), np.int32)
    pictures = types.Batch(
        images=rng.integers(0, 256, (batch, size, size, 3), np.uint8),
        boxes=np.concatenate([corners, corners + sides], -1).astype(np.float32),
        labels=rng.integers(0, 20, (batch, count), np.int32),
        valid=valid.copy(),
        ignore=np.zeros((batch, count), bool),
        image_sizes=zeros + size,
        original_sizes=zeros + size,
        index=np.arange(batch, dtype=np.int32),
        real=np.ones(batch, bool),
    )
    train_step = step.make_train_step(detector, optimizer, lr, mesh, config)
    return train_step, begin, sharding.to_global(pictures, mesh)


def busy_seconds():
    """Processor time that the whole machine has spent working; 0 off Linux."""
    try:
        with open("/proc/stat") as file:
            ticks = [int(word) for word in file.readline().split()[1:9]]
    except OSError:
        return 0.0
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def sample(train_step, now, batch, count):
    """Runs steps; returns the state and (milliseconds, processor milliseconds, others' share)."""
    import jax

    samples = []
    for _ in range(count):
        machine, own, start = busy_seconds(), time.process_time(), time.perf_counter()
        now, _ = jax.block_until_ready(train_step(now, batch))
        wall, own = time.perf_counter() - start, time.process_time() - own
        others = max(0.0, busy_seconds() - machine - own) / (wall * os.cpu_count())
        samples.append((1000 * wall, 1000 * own, others))
    return now, samples


def peer(python, script, batch, size, precision):
    """The peer's result: channels-last, which is its fastest layout."""
    command = [python, str(script), "--channels-last", "--infer", "none", "--dtype", precision]
    command += ["--train", f"{batch}x{size}", "--threads", str(os.cpu_count()), "--iters", "7"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=300)
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--peer-python", default=os.environ.get("JDET_PEER_PYTHON", ""))
    parser.add_argument("--peer-script", default=str(PEER) if PEER.exists() else "")
    args = parser.parse_args()
    case = args.batch, args.size, args.precision

    import jax

    train_step, now, batch = make_step(*case)
    parameters = sum(x.size for x in jax.tree.leaves(now.params))
    start = time.perf_counter()
    now, _ = sample(train_step, now, batch, 1)
    compile_seconds = time.perf_counter() - start
    now, samples = sample(train_step, now, batch, 2 + args.steps // 2)
    samples = samples[2:]  # the allocator is still growing
    theirs = {}
    if args.peer_python and args.peer_script:
        theirs = peer(args.peer_python, args.peer_script, *case)
    now, more = sample(train_step, now, batch, args.steps - len(samples))
    samples += more

    quiet = [one for one in samples if one[2] < 0.05]
    times, own, _ = zip(*(quiet if len(quiet) >= 3 else samples))
    result = dict(zip(("batch", "size", "precision"), case))
    result = {"what": "train_step", "model": "scratchdet root_resnet18", **result}
    result |= {"parameters": parameters, "compile_s": round(compile_seconds, 1)}
    result |= {"ms": round(statistics.median(times)), "min_ms": round(min(times))}
    result |= {"cpu_ms": round(statistics.median(own)), "quiet": f"{len(quiet)}/{len(samples)}"}
    result["others"] = round(statistics.median(share for *_, share in samples), 3)
    result["images_per_second"] = round(1000 * args.batch / result["ms"], 2)
    result["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    if theirs:
        result |= {"peer_ms": round(theirs["train_ms"]), "peer_min_ms": round(theirs["train_min"])}
        result["peer_cpu_ms"] = round(theirs["train_cpu_ms"])
        result |= {"peer_quiet": f"{theirs['train_clean']}/{theirs['train_n']}"}
        result["times_peer"] = round(result["ms"] / theirs["train_ms"], 3)
        result["times_peer_min"] = round(result["min_ms"] / theirs["train_min"], 3)
    result |= {"device": jax.devices()[0].device_kind, "cores": os.cpu_count()}
    print(json.dumps(result | {"machine": platform.machine(), "jax": jax.__version__}), flush=True)


if __name__ == "__main__":
    environment.tune()
    main()
