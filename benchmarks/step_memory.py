"""Memory of a training step: what ``jdet.search_batch`` counts, and what the process takes when it runs.

    python -m jdet.search_batch --config=experiments/direct_deeppcb.py --memory=6GB --out=search.json
    python -m benchmarks.step_memory --config=experiments/direct_deeppcb.py --search=search.json

One JSON line for the setting that the search chose, or for ``--side`` and ``--batch``. The step is compiled
and run once on the devices here, on black images without objects, and then once more: what is resident
besides at most while it runs, with the state and the batch, is its memory. For Linux, and for CPU devices.
"""

import ctypes
import gc
import json
import time
from pathlib import Path

from absl import flags

from jdet import cli, search_batch
from jdet import config as config_lib


def resident(peak: bool = False) -> int:
    """Bytes of this process in memory, or the most since ``forget_peak``."""
    key = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def forget_peak() -> None:
    """Gives what is free back to the system, and lets the peak begin anew."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def compare(config, side: int, batch: int, remat: str) -> dict:
    """Counted and measured bytes of a step.

    Args:
        config: of one training, with ``class_names``.
        side: of the input.
        batch: images of a device.
        remat: as ``train.remat``.
    """
    import jax

    from jdet.parallel import mesh as mesh_lib
    from jdet.preflight import compile as compile_lib

    devices = mesh_lib.pick_devices(config)
    other = search_batch.resized(config, (side, batch), len(devices), remat)
    memory = compile_lib.measure(other, "train", devices).memory
    step, state, batch_here = search_batch.warm_step(other)
    arrays = [x for x in jax.tree.leaves((state, batch_here)) if isinstance(x, jax.Array)]
    held = sum(shard.data.nbytes for x in arrays for shard in x.addressable_shards)
    del arrays  # the step donates the state
    forget_peak()
    before, begin = resident(), time.perf_counter()
    jax.block_until_ready(step(state, batch_here))
    seconds = time.perf_counter() - begin
    measured = (held + resident(peak=True) - before) / len(devices)
    return {
        "what": "step_memory",
        "side": side,
        "batch": batch,
        "remat": remat,
        "counted_gb": round(memory.peak / 1e9, 3),
        "measured_gb": round(measured / 1e9, 3),
        "ratio": round(measured / memory.peak, 3),
        "seconds": round(seconds, 2),
    }


def main():
    from jdet import describe
    from jdet.parallel import mesh as mesh_lib

    values = flags.FLAGS
    config = values.config
    found = json.loads(Path(values.search).read_text()) if values.search else {}
    phase = found.get("phase", "") or (config.phases[0] if config.phases else "")
    config = config_lib.of_phase(config, phase).copy_and_resolve_references()
    config_lib.validate(config)
    mesh_lib.split_cpu(config)
    with config.unlocked():
        config.class_names = describe.class_names_of(config)
    chosen = found.get("chosen", {"side": values.side, "batch": values.batch, "remat": "none"})
    print(json.dumps(compare(config, chosen["side"], chosen["batch"], chosen["remat"])))


if __name__ == "__main__":
    flags.DEFINE_string("search", "", "File of jdet.search_batch --out.")
    flags.DEFINE_integer("side", 224, "Of the input, pixels, without --search.", lower_bound=32)
    flags.DEFINE_integer("batch", 8, "Images of a device, without --search.", lower_bound=1)
    cli.start(main)
