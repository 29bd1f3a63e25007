"""Inference: the network, the post-processing, and both together, of ScratchDet300.

    python -m benchmarks.inference [--backbone root_resnet18] [--peer-python PYTHON]
    python -m benchmarks.inference --tta voc

One JSON line per batch size. ``postprocess`` is softmax, decoding and class-wise suppression of
8732 boxes × 21 classes on untrained logits, of which nearly all pass the score threshold: the worst
case. With a Python that has torch (``--peer-python`` or the environment variable JDET_PEER_PYTHON) the
plain PyTorch network of the same shape runs in the same environment, and its ratio is added.

``--tta`` measures multi-scale testing instead, mapping and merging included, beside one size; of
untrained logits every look brings its full number of boxes to merge: the worst case.
"""

import argparse
import functools
import json
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path

from jdet import environment

PEER = Path(__file__).resolve().parents[2] / "shared" / "peer" / "bench_scratchdet_torch.py"


def milliseconds(function, repeat=9):
    """Median and minimum of a call that ends when its result is there."""
    import jax

    jax.block_until_ready(function())
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        jax.block_until_ready(function())
        times.append(1000 * (time.perf_counter() - start))
    return round(statistics.median(times), 2), round(min(times), 2)


def measure(backbone, batch):
    """One result for a batch size."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from experiments import scratchdet_voc
    from jdet import build

    config = scratchdet_voc.get_config(f"backbone={backbone}")
    detector = build.detector(config, tuple(map(str, range(20))))
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (batch, 300, 300, 3)), jnp.uint8)
    sizes = jnp.full((batch, 2), 300)
    initialise = jax.jit(functools.partial(detector.init, train=False))
    variables = initialise(jax.random.key(0), images[:1])
    priors = []

    def network(variables, images):
        *outputs, boxes = detector.apply(variables, images, train=False)
        priors.append(boxes)
        return outputs

    def postprocess(offsets, logits):
        return detector.apply({}, offsets, logits, priors[0], method="postprocess")

    def detect(variables, images):
        return detector.apply(variables, images, sizes, method="detect")

    network, postprocess, detect = map(jax.jit, (network, postprocess, detect))
    outputs = jax.block_until_ready(network(variables, images))
    result = {"what": "inference", "backbone": backbone, "batch": batch, "size": 300}
    for name, call in (
        ("network", lambda: network(variables, images)),
        ("postprocess", lambda: postprocess(*outputs)),
        ("detect", lambda: detect(variables, images)),
    ):
        result[f"{name}_ms"], result[f"{name}_min_ms"] = milliseconds(call)
    result["postprocess_share"] = round(result["postprocess_ms"] / result["network_ms"], 3)
    device = jax.devices()[0]
    result |= {"device": device.device_kind, "cores": os.cpu_count(), "jax": jax.__version__}
    return result | {"machine": platform.machine()}


def measure_tta(backbone, batch, preset, size):
    """One result: a batch of pictures once, and at all scales with merging."""
    import jax
    import numpy as np

    from experiments import scratchdet_voc
    from jdet import build
    from jdet.data.views import prepare_views
    from jdet.evaluation import tta
    from jdet.evaluation.runner import DetectFn, to_pictures
    from jdet.types import Batch

    config = scratchdet_voc.get_config(f"backbone={backbone},tta={preset}")
    config.input_size = size
    detector = build.detector(config, tuple(map(str, range(20))))
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (batch, 375, 500, 3)).astype(np.uint8)
    settings = tta.settings(config.eval.tta)
    looking = tta.MultiScale(DetectFn(detector), settings, size)
    columns = zip(*(prepare_views(picture, looking.views) for picture in pictures), strict=True)
    images, sizes = (tuple(map(np.stack, zip(*column, strict=True))) for column in columns)
    variables = jax.jit(functools.partial(detector.init, train=False))(
        jax.random.key(0), images[0][:1]
    )
    looking.prepare(variables, batch)
    ids, original = [""] * batch, np.full((batch, 2), (375, 500))
    whole = Batch(*[None] * 9)._replace(original_sizes=original, real=np.ones(batch, bool))
    detect, first = DetectFn(detector), looking.views.index((size, size))

    def one():
        found = detect(variables, images[first], sizes[first])
        return [p.boxes for p in to_pictures(found, whole._replace(image_sizes=sizes[first]), ids)]

    def many():
        found = looking.detect(variables, images, sizes)
        return [p.boxes for p in looking.to_pictures(found, whole._replace(image_sizes=sizes), ids)]

    result = {"what": "tta", "preset": preset, "backbone": backbone, "batch": batch, "size": size}
    for name, call in (("one", one), ("tta", many)):
        result[f"{name}_ms"], result[f"{name}_min_ms"] = milliseconds(call, repeat=3)
    result |= {"looks": looking.looks, "times": round(result["tta_ms"] / result["one_ms"], 1)}
    device = jax.devices()[0]
    return result | {"device": device.device_kind, "cores": os.cpu_count(), "jax": jax.__version__}


def peer(python, script):
    """The peer's inference times by batch size, channels-last float32."""
    command = [python, str(script), "--channels-last", "--train", "2x300", "--infer", "1x300,8x300"]
    command += ["--iters", "5", "--budget", "30"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {case["batch"]: case for line in lines for case in line.get("infer", [])}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--backbone", default="root_resnet18")
    parser.add_argument("--tta", default="", help="preset of multi-scale testing, alone")
    parser.add_argument("--tta-size", type=int, default=300, help="input size for --tta")
    parser.add_argument("--peer-python", default=os.environ.get("JDET_PEER_PYTHON", ""))
    parser.add_argument("--peer-script", default=str(PEER) if PEER.exists() else "")
    args = parser.parse_args()
    if args.tta:
        print(json.dumps(measure_tta(args.backbone, 1, args.tta, args.tta_size)), flush=True)
        return
    theirs = {}
    if args.peer_python and args.peer_script and args.backbone == "root_resnet18":
        theirs = peer(args.peer_python, args.peer_script)
    for batch in (1, 8):
        result = measure(args.backbone, batch)
        if batch in theirs:
            result["peer_detect_ms"] = theirs[batch]["infer_ms"]
            result["peer_network_ms"] = theirs[batch]["net_only_ms"]
            result["times_peer"] = round(result["detect_ms"] / theirs[batch]["infer_ms"], 3)
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    environment.tune()
    main()
