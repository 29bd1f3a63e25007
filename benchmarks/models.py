"""The models as the experiments configure them, their inputs, and how cases are run and compared."""

import argparse
import importlib
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from benchmarks import clock

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT.parent / "shared" / "peer"  # may hold tvcpu, see torch_peer
OBJECTS = 7
CLASSES = 20
PRECISIONS = ("float32", "bfloat16")


PEER_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "1000000000",
}
"""Makes glibc keep freed memory: PyTorch's training steps on CPUs are up to 30 % faster, and use more."""


class Model(NamedTuple):
    """Which network an entry stands for.

    Attributes:
        experiment: file.
        argument: of the experiment.
        peer: name of the same network in PyTorch (``torch_peer``); "": it has none.
        classes: K.
        changes: keys of the experiment's config with other values.
    """

    experiment: str
    argument: str
    peer: str = ""
    classes: int = CLASSES
    changes: Mapping[str, Any] = MappingProxyType({})


TORCHVISION = {
    "input_size": 320,
    "model.neck.use_norm": False,
    "model.neck.extra": "conv_p5",
    "model.neck.extra_relu": True,
    "model.head_norm": "none",
    # Untrained scores lie below any threshold; this way 1,000 candidates of each level enter NMS.
    "model.score_threshold": 0.0,
    "model.nms_iou": 0.5,
}
"""Settings of dense detectors as in torchvision, without norms in pyramid and towers."""

ANCHORS = TORCHVISION | {"model.torchvision_anchors": True, "model.low_quality": "anchor"}
SQUARES = TORCHVISION | {
    "model.head_norm": "group",
    "model.head_bias": True,
    "model.level_scales": False,
    "model.score": "root",
}
POINTS = SQUARES | {"model.torchvision_anchors": True}
TWO_STAGES = {
    "input_size": 320,
    "model.neck.use_norm": False,
    "model.head_norm": "none",
    "model.rpn.torchvision_anchors": True,
    "model.rpn.padding_anchors": True,
    "model.rpn.low_quality": "anchor",
    "model.rpn.min_pos_iou": 0.0,
    "model.rpn.box_loss": "smooth_l1",
    "model.rpn.proposals_train": 2000,
    "model.rpn.clamp_below": False,
    "model.rpn.min_side": 1e-3,
    "model.box_loss": "smooth_l1",
    "model.smooth_l1_beta": 1 / 9,
    "model.roi_aligned": False,
    "model.clamp_below": False,
    "model.min_side": 1e-2,
    # Untrained scores lie below any threshold; this way 100 detections get masks. Of all 80,000 pairs of a
    # RoI and a class torchvision takes every one to NMS, jdet the 5,000 best.
    "model.score_threshold": 0.0,
    "model.nms_iou": 0.5,
}
"""Settings of two-stage detectors as in torchvision."""

MASKS = TWO_STAGES | {"model.low_quality": "none", "model.binary_masks": False}

SWIN = {"input_size": 320, "model.score_threshold": 0.0}
"""As the others above, images of one size and candidates whatever their scores."""

MODELS = {
    "root_resnet18": Model("scratchdet_voc", "backbone=root_resnet18", "root_resnet18"),
    "root_resnet34": Model("scratchdet_voc", "backbone=root_resnet34"),
    "ssd300_vgg16": Model("ssd300_voc", "", "ssd300_vgg16"),
    "ssd300s_resnet101": Model("ssd300s_resnet101_voc", ""),
    "dsod300": Model("dsod_voc", ""),
    "retinanet_r50": Model("retinanet_coco", "norm=batch,warp", "retinanet_r50", 80, ANCHORS),
    "fcos_r50": Model("fcos_coco", "norm=batch,warp", "fcos_r50", 80, POINTS),
    "atss_r50": Model("atss_coco", "norm=batch,warp", "atss_r50", 80, SQUARES),
    "faster_rcnn_r50": Model(
        "faster_rcnn_coco", "norm=batch,warp,head=2fc", "faster_rcnn_r50", 80, TWO_STAGES
    ),
    "mask_rcnn_r50": Model(
        "mask_rcnn_coco", "norm=batch,warp,head=2fc", "mask_rcnn_r50", 80, MASKS
    ),
    "swin_t_faster_rcnn": Model("transformers_table1", "backbone=swin_t", "", 80, SWIN),
    # Images keep their proportions: layers mask the padding, though there is none here.
    "retinanet_r50_padded": Model("retinanet_coco", "norm=batch", "retinanet_r50", 80, ANCHORS),
}


class Case(NamedTuple):
    """One measurement; ``size`` 0 is the experiment's own."""

    model: str
    precision: str
    batch: int
    size: int = 0
    accumulation: int = 1
    remat: str = "none"


def config(case):
    """The experiment's config for a case, on one device."""
    model = MODELS[case.model]
    c = importlib.import_module(f"experiments.{model.experiment}").get_config(model.argument)
    c.update_from_flattened_dict(model.changes)
    c.input_size = case.size or c.input_size
    if c.resize.name == "keep_ratio":
        c.resize.short, c.resize.long = (c.input_size,), c.input_size
    c.precision = case.precision
    c.train.batch_size = case.batch
    c.train.accumulation, c.train.remat = case.accumulation, case.remat
    c.parallel.devices = 1
    return c


def class_names(model):
    return tuple(map(str, range(MODELS[model].classes)))


def random_batch(c, classes, mask_size=0):
    """A batch of noise with ``OBJECTS`` objects per image, on the host; masks [M, M] fill their boxes."""
    from jdet import types

    batch, size, count = c.train.batch_size, c.input_size, c.data.max_boxes
    rng = np.random.default_rng(0)
    sides = rng.uniform(0.08, 0.5, (batch, count, 2)) * size
    corners = rng.uniform(0, 1, (batch, count, 2)) * (size - sides)
    zeros = np.zeros((batch, 2), np.int32)
    return types.Batch(
        images=rng.integers(0, 256, (batch, size, size, 3), np.uint8),
        boxes=np.concatenate([corners, corners + sides], -1).astype(np.float32),
        labels=rng.integers(0, classes, (batch, count), np.int32),
        valid=np.broadcast_to(np.arange(count) < OBJECTS, (batch, count)).copy(),
        ignore=np.zeros((batch, count), bool),
        image_sizes=zeros + size,
        original_sizes=zeros + size,
        index=np.arange(batch, dtype=np.int32),
        real=np.ones(batch, bool),
        masks=np.ones((batch, count, mask_size, mask_size), np.uint8) if mask_size else None,
    )


def parser(description, batches):
    """Arguments that the benchmarks of models share."""
    result = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    add = result.add_argument
    names = (*MODELS, "all")
    add("--model", nargs="+", default=["root_resnet18"], choices=names, metavar="MODEL",
        help=f"one or more of {', '.join(names)}")  # fmt: skip
    add("--precision", nargs="+", default=["float32"], choices=PRECISIONS)
    add("--batch", nargs="+", type=int, default=batches, help="images, one or more sizes")
    add("--size", type=int, default=0, help="pixels; 0: the experiment's")
    add("--steps", type=int, default=10, help="samples of each side")
    add("--roofline", action="store_true", help="how near to the peaks of the device")
    add("--compile-only", action="store_true",
        help="compile, into JAX_COMPILATION_CACHE_DIR where that is set, and time nothing")  # fmt: skip
    add("--markdown", action="store_true", help="rows for RESULTS.md after the JSON lines")
    add("--peer-python", default=os.environ.get("JDET_PEER_PYTHON", ""),
        help="Python with torch; default: environment variable JDET_PEER_PYTHON")  # fmt: skip
    add("--peer-compile", action="store_true", help="torch.compile")
    add("--peer-plain", action="store_true", help="plain PyTorch where torchvision has the model")
    return result


def cases(args):
    """The cases that the arguments select."""
    names = list(MODELS) if "all" in args.model else dict.fromkeys(args.model)
    training = getattr(args, "accumulation", [1]), getattr(args, "remat", ["none"])
    several = itertools.product(names, args.precision, args.batch, [args.size], *training)
    return [Case(*one) for one in several]


def run(module, args, measure):
    """Measures each case and prints it; several cases get a process each, so that memory is their own.

    Returns:
        Exit status: 1 where a case or its peer failed.
    """
    results, asked = [], cases(args)
    for case in asked:
        result = measure(case, args) if len(asked) == 1 else _apart(module, case, args)
        print(json.dumps(result), flush=True)
        results.append(result)
    done = [result for result in results if "ms" in result]
    if args.markdown and done:
        print("\n".join(table(done)), flush=True)
    return int(any({"error", "peer_error"} & result.keys() for result in results))


def _apart(module, case, args):
    command = [sys.executable, "-m", module, "--model", case.model, "--precision", case.precision]
    command += ["--batch", str(case.batch), "--size", str(case.size), "--steps", str(args.steps)]
    if "remat" in args:
        command += ["--accumulation", str(case.accumulation), "--remat", case.remat]
    command += ["--peer-python", args.peer_python]
    command += ["--peer-compile"] * args.peer_compile + ["--peer-plain"] * args.peer_plain
    command += ["--roofline"] * args.roofline + ["--compile-only"] * args.compile_only
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=_environment())
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        return about(module.rpartition(".")[2], case) | {"error": f"exit status {done.returncode}"}
    return json.loads(lines[-1])


def _environment():
    paths = [str(ROOT), *([str(TOOLS)] if TOOLS.is_dir() else []), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def prepare():
    """Leaves some of the accelerator's memory to the peer. To be called before JAX starts."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def about(what, case):
    """First columns of every line."""
    return {"what": what, **case._asdict()}


def machine():
    """Last columns of every line."""
    import jax

    device = jax.devices()[0].device_kind
    where = {"device": device, "cores": os.cpu_count(), "machine": platform.machine()}
    return where | {"jax": jax.__version__}


def peak_mib():
    """Peak memory so far: of the accelerator, or of this process if there is none."""
    import jax

    stats = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"] // 2**20
    return clock.peak_rss_mib()


def roofline(compiled, precision, milliseconds):
    """Columns of a compiled program at the peaks of the device, published ones where there are any.

    ``bound_ms`` is the longer of all arithmetic and of all traffic with the memory, ``of_bound`` its share
    of the measured time; ``each_ms`` adds up the longer of both of every instruction by itself.
    """
    import jax

    from jdet.profile import costs, peaks

    found = peaks.find(jax.devices()[0], precision)
    parts = costs.parts(compiled.as_text())
    flops, size = sum(part.flops for part in parts), sum(part.bytes for part in parts)
    each = sum(max(p.flops / found.flops, p.bytes / found.bandwidth) for p in parts)
    compute, memory = flops / found.flops, size / found.bandwidth
    bound = 1000 * max(compute, memory)
    return {
        "gflop": round(flops / 1e9, 2),
        "gbytes": round(size / 1e9, 3),
        "bound": "compute" if compute > memory else "memory",
        "bound_ms": round(bound, 3),
        "each_ms": round(1000 * each, 3),
        "of_bound": round(bound / milliseconds, 4),
        "peaks": found.source,
    }


def peer(case, args, work, detector, batch, parameters):
    """The peer's result; empty if there is no peer, with "error" if it failed.

    It must have the same number of parameters, otherwise it is another network.
    """
    import jax

    from jdet.ops import anchors

    if not (args.peer_python and MODELS[case.model].peer):
        return {}
    levels, (_, cells) = detector.anchor_levels(), detector.level_sizes()
    priors = anchors.default_boxes(levels, [(side, side) for side in cells], None)
    with tempfile.TemporaryDirectory() as folder:
        inputs = f"{folder}/inputs.npz"
        np.savez(
            inputs,
            images=batch.images,
            boxes=batch.boxes,
            labels=batch.labels,
            priors=np.asarray(priors, np.float32),
            cells=cells,
            per_cell=[level.boxes_per_location for level in levels],
            classes=MODELS[case.model].classes,
            objects=OBJECTS,
        )
        device = "cuda" if jax.default_backend() == "gpu" else "cpu"
        command = [args.peer_python, "-m", "benchmarks.torch_peer", inputs]
        command += ["--model", MODELS[case.model].peer]
        command += ["--work", work, "--precision", case.precision, "--device", device]
        command += ["--samples", str(args.steps)]
        command += ["--compile"] * args.peer_compile + ["--plain"] * args.peer_plain
        environment = PEER_ENVIRONMENT | _environment()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode:
        return {"error": f"exit status {done.returncode}"}
    found = json.loads(done.stdout.splitlines()[-1])
    if found["parameters"] != parameters:
        return {"error": f"{found['parameters']} parameters, jdet has {parameters}"}
    return found


def compared(result, theirs, key):
    """Adds the peer's columns to a line."""
    if not theirs:
        return result
    if "error" in theirs:
        return result | {"peer_error": theirs["error"]}
    summary = clock.summary(theirs[key])
    result = result | {"peer": theirs["name"]}
    result |= {f"peer_{name}": value for name, value in summary.items()}
    result["peer_images_per_second"] = round(1000 * result["batch"] / summary["ms"], 2)
    result["peer_peak_mib"] = theirs["peak_mib"]
    result["times_peer"] = round(result["ms"] / summary["ms"], 3)
    result["times_peer_min"] = round(result["min_ms"] / summary["min_ms"], 3)
    return result


COLUMNS = ("model", "precision", "batch × size", "jdet ms (min)", "images/s", "peak MiB", "peer",
           "peer ms (min)", "images/s", "peak MiB", "ratio (min)")  # fmt: skip


def table(results):
    """Lines of a Markdown table of results of one benchmark."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "| --- " * len(COLUMNS) + "|"]
    return lines + ["| " + " | ".join(row(result)) + " |" for result in results]


def row(result):
    """Cells of a result, one for each of ``COLUMNS``."""

    def side(prefix=""):
        ms = f"{_short(result[prefix + 'ms'])} ({_short(result[prefix + 'min_ms'])})"
        return ms, _short(result[prefix + "images_per_second"]), str(result[prefix + "peak_mib"])

    ms, *rest = side()
    if "postprocess_ms" in result:
        ms += f", post-processing {_short(result['postprocess_ms'])}"
    shape = f"{result['batch']}×{result['size']}²"
    if result["accumulation"] > 1:
        shape += f" in {result['accumulation']} parts"
    if result["remat"] != "none":
        shape += f", remat {result['remat']}"
    cells = [result["model"], result["precision"], shape, ms, *rest]
    if "peer" not in result:
        return [*cells, "–", "", "", "", ""]
    ratio = f"{result['times_peer']:.2f} ({result['times_peer_min']:.2f})"
    their_ms, *theirs = side("peer_")
    if "peer_rest_ms" in result:
        their_ms += f", all but the network {_short(result['peer_rest_ms'])}"
    return [*cells, result["peer"], their_ms, *theirs, ratio]


def _short(value):
    """Three significant digits; whole numbers in full."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
