"""NMS (non-maximum suppression) in fixed shapes, exact and greedy.

    python -m benchmarks.nms [--peer-python PYTHON]

Two JSON lines: SSD's 20 classes × 400 candidates each; and a dense detector's 5,000 candidates of 80
classes in any order, of which the best 100 detections are wanted, plain and soft. With a Python that has
torch and torchvision, ``torchvision.ops.batched_nms`` (its compiled kernel) takes the same boxes, and
the ratio is added.
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
data, device = np.load(sys.argv[1]), sys.argv[3]
finish = torch.cuda.synchronize if device == "cuda" else lambda: None
boxes, scores, classes = (torch.from_numpy(data[key]).to(device) for key in ("boxes", "scores", "labels"))
classes, threshold = classes.long(), float(data["threshold"])
torch.set_num_threads(os.cpu_count())
times = []
for _ in range(10):
    finish()
    start = time.perf_counter()
    kept = batched_nms(boxes, scores, classes, threshold)[: int(data["keep"])]
    finish()
    times.append(1000 * (time.perf_counter() - start))
print(json.dumps({"ms": statistics.median(times[1:]), "kept": len(kept)}))
"""


def report(result, peer_python, **arrays):
    """Prints a result, with the peer's where there is one."""
    import jax

    if peer_python:
        with tempfile.TemporaryDirectory() as folder:
            np.savez(f"{folder}/boxes.npz", **arrays)
            tools = Path(__file__).resolve().parents[2] / "shared" / "peer"
            backend = "cuda" if jax.default_backend() == "gpu" else "cpu"
            command = [peer_python, "-c", PEER, f"{folder}/boxes.npz", str(tools), backend]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        theirs = json.loads(done.stdout.splitlines()[-1])
        result |= {"peer_ms": round(theirs["ms"], 2), "peer_kept": theirs["kept"]}
        result["times_peer"] = round(result["ms"] / theirs["ms"], 3)
    device = jax.devices()[0].device_kind
    print(json.dumps(result | {"device": device, "cores": os.cpu_count()}), flush=True)


def ssd(peer_python):
    """All survivors of lists per class that are sorted already."""
    import jax
    import jax.numpy as jnp

    from jdet.ops.nms import nms

    rng = np.random.default_rng(0)
    low = rng.uniform(0, 250, (20, 400, 2))
    boxes = np.concatenate([low, low + rng.uniform(10, 120, low.shape)], -1).astype(np.float32)
    scores = -np.sort(-rng.random((20, 400)).astype(np.float32), axis=1)
    run = jax.jit(lambda boxes, valid: nms(boxes, valid, 0.45))
    arrays = jnp.asarray(boxes), jnp.ones((20, 400), bool)
    result = {"what": "nms", "classes": 20, "candidates": 400, "kept": int(run(*arrays).sum())}
    result["ms"], result["min_ms"] = milliseconds(lambda: run(*arrays), 25)
    labels = np.repeat(np.arange(20), 400)
    flat = dict(boxes=boxes.reshape(-1, 4), scores=scores.reshape(-1), labels=labels)
    report(result, peer_python, **flat, threshold=0.45, keep=8000)


def dense(peer_python):
    """The best 100 of candidates in any order, as a dense detector has them."""
    import jax
    import jax.numpy as jnp

    from jdet.ops.nms import SOFT, candidates_nms

    rng = np.random.default_rng(0)
    low = rng.uniform(0, 1000, (5000, 2))
    boxes = np.concatenate([low, low + rng.uniform(10, 300, low.shape)], -1).astype(np.float32)
    scores, labels = rng.random(5000).astype(np.float32), rng.integers(0, 80, 5000)
    arrays = jnp.asarray(boxes), jnp.asarray(scores), jnp.asarray(labels, jnp.int32)
    result = {"what": "candidates_nms", "classes": 80, "candidates": 5000, "keep": 100}
    for soft in reversed(SOFT):
        run = jax.jit(
            lambda *a, soft=soft: candidates_nms(
                *a, iou_threshold=0.5, keep=100, soft=soft, min_score=0.05
            )
        )
        result["kept"] = int(run(*arrays).valid.sum())
        result["ms"], result["min_ms"] = milliseconds(lambda run=run: run(*arrays), 25)
        if soft != "none":
            result[f"{soft}_ms"] = result["ms"]
    candidates = dict(boxes=boxes, scores=scores, labels=labels)
    report(result, peer_python, **candidates, threshold=0.5, keep=100)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--peer-python", default=os.environ.get("JDET_PEER_PYTHON", ""))
    peer_python = parser.parse_args().peer_python
    ssd(peer_python)
    dense(peer_python)


if __name__ == "__main__":
    main()
