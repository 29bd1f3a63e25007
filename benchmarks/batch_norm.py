"""Cost of batch norm over devices: bytes sent, and the time of a step relative to local norms.

    python -m benchmarks.batch_norm [--devices 8] [--per-device 4] [--size 96] [--rounds 10]

One JSON line per group size, from the images of one device up to all. The network is the ScratchDet of
``experiments/quickstart.py`` with norms over groups of images; bytes and number of sums are read from
the compiled step. All programs take a step in turn, round after round; ``times_local`` is the median
over rounds of a step's time divided by that of local norms in the same round. The devices share one CPU, so
that the time is that of XLA's threads exchanging data in memory, not over a network.
"""

import argparse
import json
import os
import platform
import statistics
import time

from jdet import cpu_allocator


def prepare(devices, per_device, size, group):
    """The compiled step with norms over so many images, its state and a batch."""
    from benchmarks.train_step import make_step
    from experiments import quickstart

    config = quickstart.get_config()
    config.input_size = size
    config.model.norm = config.model.head_norm = "sync_batch"
    config.parallel.devices = devices
    config.parallel.bn_group_size = group
    config.train.batch_size = devices * per_device
    train_step, now, _, _, batch = make_step(config, tuple("abc"))
    return train_step.lower(now, batch).compile(), now, batch


def sent(program):
    """Sums over devices in a step and their bytes: of norms, and of everything else."""
    from jdet.preflight import collectives

    rows = collectives.summarise(collectives.find(program.as_text()))
    norms = [row for row in rows if row.purpose.startswith("batch norm")]
    others = [row for row in rows if row not in norms]
    return {
        "norm_sums": sum(row.count for row in norms),
        "norm_bytes": sum(row.bytes for row in norms),
        "other_sums": sum(row.count for row in others),
        "other_bytes": sum(row.bytes for row in others),
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--per-device", type=int, default=4)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()

    import jax

    jax.config.update("jax_num_cpu_devices", args.devices)
    from jdet.parallel import mesh as mesh_lib

    sizes = [
        size
        for size in mesh_lib.bn_group_sizes(args.per_device, args.devices)
        if size >= args.per_device
    ]
    arms = {size: prepare(args.devices, args.per_device, args.size, size) for size in sizes}
    states = {size: arm[1] for size, arm in arms.items()}
    times = {size: [] for size in sizes}
    for number in range(args.rounds + 2):
        for size, (program, _, batch) in arms.items():
            start = time.perf_counter()
            states[size], _ = jax.block_until_ready(program(states[size], batch))
            if number >= 2:  # the allocator is still growing
                times[size].append(1000 * (time.perf_counter() - start))

    local = times[args.per_device]
    common = {"devices": args.devices, "batch": args.devices * args.per_device, "size": args.size}
    common |= {"kind": jax.devices()[0].device_kind, "cores": os.cpu_count()}
    common |= {"machine": platform.machine(), "jax": jax.__version__}
    for size in sizes:
        ratios = [a / b for a, b in zip(times[size], local)]
        result = {"what": "batch_norm", "group": size, **sent(arms[size][0])}
        result |= {"ms": round(statistics.median(times[size])), "min_ms": round(min(times[size]))}
        result |= {"times_local": round(statistics.median(ratios), 3)}
        result |= {"times_local_min": round(min(times[size]) / min(local), 3)}
        print(json.dumps(result | common), flush=True)


if __name__ == "__main__":
    cpu_allocator.tune()
    main()
