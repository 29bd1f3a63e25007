"""Non-maximum suppression: 20 classes × 400 candidates, exact and greedy, fixed shapes.

    python -m benchmarks.nms [--peer-python PYTHON]

One JSON line. With a Python that has torch and torchvision, ``torchvision.ops.batched_nms`` (its
compiled kernel) suppresses the same boxes, and the ratio is added.
"""

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.inference import milliseconds

PEER = """
import json, os, sys, time, statistics, numpy as np, torch
sys.path.insert(0, sys.argv[2])
try:
    import tvcpu
except ImportError:
    pass
from torchvision.ops import batched_nms
data = np.load(sys.argv[1])
boxes = torch.from_numpy(data["boxes"]).reshape(-1, 4)
scores = torch.from_numpy(data["scores"]).reshape(-1)
classes = torch.arange(data["scores"].shape[0]).repeat_interleave(data["scores"].shape[1])
torch.set_num_threads(os.cpu_count())
times = []
for _ in range(10):
    start = time.perf_counter()
    kept = batched_nms(boxes, scores, classes, 0.45)
    times.append(1000 * (time.perf_counter() - start))
print(json.dumps({"ms": statistics.median(times[1:]), "kept": len(kept)}))
"""


def main():
    import jax
    import jax.numpy as jnp

    from jdet.ops.nms import nms

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--peer-python", default=os.environ.get("JDET_PEER_PYTHON", ""))
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 250, (20, 400, 2))
    boxes = np.concatenate([low, low + rng.uniform(10, 120, low.shape)], -1).astype(np.float32)
    scores = -np.sort(-rng.random((20, 400)).astype(np.float32), axis=1)
    suppress = jax.jit(lambda boxes, valid: nms(boxes, valid, 0.45))
    arrays = jnp.asarray(boxes), jnp.ones((20, 400), bool)
    result = {"what": "nms", "classes": 20, "candidates": 400, "kept": int(suppress(*arrays).sum())}
    result["ms"], result["min_ms"] = milliseconds(lambda: suppress(*arrays), 25)
    if args.peer_python:
        with tempfile.TemporaryDirectory() as folder:
            np.savez(f"{folder}/boxes.npz", boxes=boxes, scores=scores)
            tools = Path(__file__).resolve().parents[2] / "shared" / "peer"
            command = [args.peer_python, "-c", PEER, f"{folder}/boxes.npz", str(tools)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        theirs = json.loads(done.stdout.splitlines()[-1])
        result |= {"peer_ms": round(theirs["ms"], 2), "peer_kept": theirs["kept"]}
        result["times_peer"] = round(result["ms"] / theirs["ms"], 3)
    device = jax.devices()[0].device_kind
    print(json.dumps(result | {"device": device, "cores": os.cpu_count()}), flush=True)


if __name__ == "__main__":
    main()
