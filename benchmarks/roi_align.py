"""RoIAlign and RoIPool on a feature pyramid, forward and backward.

    python -m benchmarks.roi_align [--rois 512] [--images 1] [--peer-python PYTHON]

One JSON line per operation: 512 RoIs of 16 to 640 pixels, 7×7 bins, 256 channels, on P2 to P5 of an image
of 800×1344 pixels, float32. ``both_ms`` is the forward and the backward pass. With a Python that has torch
and torchvision, its compiled kernels take the same RoIs on maps of the same shape: ``MultiScaleRoIAlign``,
and ``roi_pool`` level by level as it does; the ratio is of forward and backward together.
"""

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.inference import milliseconds

STRIDES = (4, 8, 16, 32)
SIZE = (800, 1344)
CHANNELS = 256
PEER = """
import json, os, sys, time, statistics, collections, numpy as np, torch
sys.path.insert(0, sys.argv[3])
try:
    import tvcpu
except ImportError:
    pass
from torchvision.ops import MultiScaleRoIAlign, roi_pool
torch.set_num_threads(os.cpu_count())
device = sys.argv[4]
finish = torch.cuda.synchronize if device == "cuda" else lambda: None
data = np.load(sys.argv[1])
rois = torch.from_numpy(data["rois"]).to(device)
size, strides = data["size"].tolist(), data["strides"].tolist()
maps = collections.OrderedDict(
    (str(i), torch.randn(
        len(rois), int(data["channels"]), size[0] // s, size[1] // s, device=device, requires_grad=True
    ))
    for i, s in enumerate(strides)
)
pool = MultiScaleRoIAlign(list(maps), 7, 2)
levels = torch.from_numpy(data["levels"]).to(device)

def align():
    return pool(maps, list(rois), [tuple(size)] * len(rois))

def largest():
    return torch.cat([
        roi_pool(maps[str(i)], [r[l == i] for r, l in zip(rois, levels)], 7, 1 / s)
        for i, s in enumerate(strides)
    ])

run = {"roi_align": align, "roi_pool": largest}[sys.argv[2]]
times = []
for _ in range(6):
    finish()
    start = time.perf_counter()
    out = run()
    finish()
    middle = time.perf_counter()
    out.backward(torch.ones_like(out))
    finish()
    times.append((1000 * (middle - start), 1000 * (time.perf_counter() - middle)))
    for level in maps.values():
        level.grad = None
forward, backward = (statistics.median(t) for t in zip(*times[1:]))
print(json.dumps({"forward": forward, "backward": backward}))
"""


def draw(images, rois):
    """RoIs [images, rois, 4] with sides evenly spread in the logarithm, cut to the image."""
    rng = np.random.default_rng(0)
    side = np.exp(rng.uniform(np.log(16), np.log(640), (images, rois, 1)))
    shape = np.exp(rng.uniform(-0.35, 0.35, (images, rois, 1)))
    center = rng.uniform(0, 1, (images, rois, 2)) * SIZE[::-1]
    half = np.concatenate([side * shape, side / shape], -1) / 2
    corners = np.concatenate([center - half, center + half], -1)
    return np.clip(corners, 0, SIZE[::-1] * 2).astype(np.float32)


def measure(name, rois, peer_python):
    """The result of one operation."""
    import jax
    import jax.numpy as jnp

    from jdet.ops import roi_align, roi_pool, roi_tiles

    operation = {"roi_align": roi_align.roi_align, "roi_pool": roi_pool.roi_pool}[name]
    keys = jax.random.split(jax.random.key(0), len(STRIDES))
    maps = [
        jax.random.normal(key, (len(rois), SIZE[0] // s, SIZE[1] // s, CHANNELS))
        for key, s in zip(keys, STRIDES)
    ]
    corners = jnp.asarray(rois)

    def forward(maps):
        return operation(maps, corners, strides=STRIDES, output=7)

    run = jax.jit(forward)

    @jax.jit
    def both(maps, cotangent):
        found, transpose = jax.vjp(forward, maps)
        return found, transpose(cotangent)

    ones = jnp.ones(run(maps).shape)
    result = {"what": name, "rois": rois.shape[1], "images": len(rois), "channels": CHANNELS}
    result["forward_ms"], result["forward_min_ms"] = milliseconds(lambda: run(maps), 5)
    result["both_ms"], result["both_min_ms"] = milliseconds(lambda: both(maps, ones), 5)
    result |= {
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "jax": jax.__version__,
    }
    if not peer_python:
        return result
    levels = np.asarray(roi_tiles.roi_levels(corners, len(STRIDES)))
    with tempfile.TemporaryDirectory() as folder:
        settings = dict(size=SIZE, strides=STRIDES, channels=CHANNELS)
        np.savez(f"{folder}/rois.npz", rois=rois, levels=levels, **settings)
        tools = Path(__file__).resolve().parents[2] / "shared" / "peer"
        device = "cuda" if jax.default_backend() == "gpu" else "cpu"
        command = [peer_python, "-c", PEER, f"{folder}/rois.npz", name, str(tools), device]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    theirs = json.loads(done.stdout.splitlines()[-1])
    result |= {f"peer_{key}_ms": round(value, 2) for key, value in theirs.items()}
    result["times_peer"] = round(result["both_ms"] / sum(theirs.values()), 3)
    return result


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rois", type=int, default=512)
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--peer-python", default=os.environ.get("JDET_PEER_PYTHON", ""))
    args = parser.parse_args()
    rois = draw(args.images, args.rois)
    for name in ("roi_align", "roi_pool"):
        print(json.dumps(measure(name, rois, args.peer_python)), flush=True)


if __name__ == "__main__":
    main()
