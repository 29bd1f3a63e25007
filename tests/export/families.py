"""Every family of detectors, with random weights: do the exported files find what the run finds?

``python -m tests.export.families [NAME …] [--images 3] [--onnx_python PATH] [--formats onnx,stablehlo]``
prints a line for each family and file: seconds to make it, its size, and the largest differences. Weights
are drawn wide enough that scores and boxes differ from place to place; images are the made-up ones of a
config's defaults. The line before them says how far the run is from itself once its weights are moved by
one rounding of single precision; differences of that size say nothing against a file.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jdet import build
from jdet.config import get_defaults
from jdet.evaluation.predictor import Predictor
from jdet.export import export, manifest, parity
from jdet.export.cuts import Cuts
from jdet.export.onnx import environment
from jdet.export.program import Program
from jdet.train.checkpoints.checkpoint import Checkpoints
from jdet.train.state import abstract_variables
from jdet.types import TrainState
from tests.tiny_backbone import TINY

CLASSES = tuple("abcde")
SIZE = 96

ROUNDING = 2.0**-24
"""Half the distance between 1 and the next number in single precision."""

DENSE = dict(head_channels=16, head_depth=1)
FEW = dict(pre_nms_train=60, pre_nms=60, proposals_train=30, proposals=30, samples=32)
SETS = dict(proposals=12, stages=2, attention_heads=2, dynamic_channels=4, hidden=16, roi_size=3)
SWIN = dict(spec="C1-T2-T2-T1", channels=32, head_channels=16, window=4)


def _body(name=TINY, **fields):
    return build.group("backbone", name, **fields)


def _fpn(extra="none", channels=16):
    return build.group("neck", "fpn", extra=extra, channels=channels)


def _dense(name, *, body=None, neck=None, **fields):
    return build.group(
        "detector", name, backbone=body or _body(), neck=neck or _fpn(), **DENSE, **fields
    )


def _stages(name, rpn="rpn", head="2fc", **fields):
    few = FEW if rpn == "rpn" else {k: v for k, v in FEW.items() if k != "samples"}
    return build.group(
        "detector",
        name,
        backbone=_body(stages=("c2", "c3", "c4")),
        neck=_fpn("pool", 8),
        rpn=build.group("rpn", rpn, channels=8, **few),
        box_head=build.group("box_head", head, fc_channels=16, conv_channels=8),
        **(dict(samples=16, roi_size=3, finest_scale=8.0, head_norm="none") | fields),
    )


def _ssd(body, neck, **fields):
    return build.group("detector", "ssd", backbone=body, neck=neck, max_detections=50, **fields)


FAMILIES = {
    "ssd": lambda: _ssd(
        _body(stages=("c3", "c4")), build.group("neck", "residual_extras", width=0.125)
    ),
    "dsod": lambda: _ssd(
        _body("dsod", width=0.125, blocks=(1, 2, 1), last_channels=256),
        build.group("neck", "dense_prediction", width=0.125),
        l2norm_levels=-1,
    ),
    "retinanet": lambda: _dense("retinanet"),
    "fcos": lambda: _dense("fcos"),
    "atss": lambda: _dense("atss"),
    "reppoints_v2": lambda: _dense("reppoints_v2", corner_channels=8),
    "swin": lambda: _dense("fcos", body=_body("hybrid", **SWIN)),
    "bifpn": lambda: _dense(
        "swin_reppoints_v2",
        body=_body("hybrid", **SWIN),
        neck=build.group("neck", "bifpn", channels=32),
        corner_channels=8,
    ),
    "faster_rcnn": lambda: _stages("faster_rcnn"),
    "cascade_rcnn": lambda: _stages("cascade_rcnn", "cascade_rpn", "4conv1fc"),
    "mask_rcnn": lambda: _stages(
        "mask_rcnn", mask_head=build.group("mask_head", "fcn", convs=1, channels=8), mask_size=14
    ),
    "sparse_rcnn": lambda: build.group(
        "detector",
        "sparse_rcnn",
        backbone=_body(stages=("c2", "c4")),
        neck=_fpn(channels=8),
        taps=("c2",),
        max_detections=20,
        box_layers=1,
        **SETS,
    ),
}
"""The group ``config.model`` of each."""


def config_of(name):
    """A whole config."""
    c = get_defaults()
    c.class_names, c.input_size = CLASSES, SIZE
    c.model = FAMILIES[name]()
    # Of pixels as large as they are stored, scores would all be 0 or 1, and equal ones have no order.
    c.model.mean, c.model.std = (128.0,) * 3, (64.0,) * 3
    if c.model.name != "ssd":
        c.resize = build.group("resize", "keep_ratio", short=(SIZE,), long=SIZE)
    return c


def weights(detector, config, seed=0):
    """Parameters and statistics such that activations keep their size from layer to layer."""
    rng = np.random.default_rng(seed)

    def draw(path, x):
        kind = path[-1].key
        if kind in ("scale", "var"):
            value = rng.uniform(0.5, 1.5, x.shape)
        elif x.ndim > 1:
            value = rng.normal(0, np.sqrt(2 / np.prod(x.shape[:-1])), x.shape)
        else:
            value = rng.normal(0, 0.1, x.shape)
        return jnp.asarray(value, x.dtype)

    return jax.tree_util.tree_map_with_path(draw, abstract_variables(detector, config))


def save(folder, name):
    """The folder of a run of a family that was saved once."""
    config = config_of(name)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    params, stats = weights(build.detector(config, CLASSES), config)
    state = TrainState(step=jnp.int32(0), params=params, stats=stats, opt_state=(), ema=None)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(0, state, {})


def compared(folder, form, count, score, python=""):
    """Seconds that a file takes to make, its size, and how it differs from its run."""
    predictor = Predictor(folder, batch_size=1)
    lowest = np.full(len(CLASSES), score)
    told = manifest.describe(predictor, lowest, "", 0)
    ready = export.Ready(predictor, Program.of(predictor), lowest, told)
    kind, started = export.FORMS[form], time.monotonic()
    data = kind.make(ready)(ready.manifest)
    seconds = time.monotonic() - started
    with kind.opened(data, python) as detect:
        images, _ = parity.images_of(predictor, (), count)
        return seconds, len(data), parity.compare(predictor, lowest, detect, images, print)


def from_itself(folder, count, score):
    """How a run differs from the same run whose weights are moved by a rounding, up, down or not at all."""
    predictor = Predictor(folder, batch_size=1)
    lowest = np.full(len(predictor.class_names), score)
    images = list(parity.images_of(predictor, (), count)[0])
    before = {name: parity.of_run(predictor, image, name, lowest) for name, image in images}
    cuts = Cuts.of(predictor.detector, lowest, tiled=False)
    rng = np.random.default_rng(1)

    def moved(x):
        return (x * (1 + rng.choice([-ROUNDING, 0, ROUNDING], x.shape))).astype(x.dtype)

    predictor.variables = jax.tree.map(moved, jax.device_get(predictor.variables))
    total = parity.Difference()
    for name, image in images:
        _, after = parity.of_run(predictor, image, name, lowest)
        every, reported = before[name]
        total = total.and_(parity.difference(reported, after, cuts, ends=cuts.ends(every)))
    return total


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(FAMILIES)}; default: all")
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--score", type=float, default=0.05)
    parser.add_argument("--formats", default=",".join(export.FORMS))
    parser.add_argument("--onnx_python", default="")
    args = parser.parse_args()
    for name in args.names or FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            save(Path(folder), name)
            own = from_itself(Path(folder), args.images, args.score)
            print(f"{name:14} {'itself':9} {'':18} {own}", flush=True)
            for form in args.formats.split(","):
                python = environment.python(args.onnx_python) if form == "onnx" else ""
                seconds, size, found = compared(Path(folder), form, args.images, args.score, python)
                print(
                    f"{name:14} {form:9} {seconds:5.1f} s {size / 1e6:6.2f} MB  {found}", flush=True
                )


if __name__ == "__main__":
    main()
