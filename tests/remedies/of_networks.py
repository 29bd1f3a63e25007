"""Remedies of backbones, necks, detectors, anchors and weights from elsewhere."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from jdet.build.groups import make
from jdet.config import get_defaults
from jdet.detectors.pyramid import PyramidDetector
from jdet.detectors.sparse_rcnn import SparseRCNN
from jdet.interop import torchvision
from jdet.nn.stages import stage_geometry
from jdet.ops import anchors
from jdet.ops.coverage import Objects
from jdet.train import presets
from tests.detectors import two_stage, wild
from tests.remedies.rows import Elsewhere, row, type_in

HYBRID, DSOD, TTA = "jdet/backbones/hybrid.py", "jdet/backbones/dsod.py", "jdet/evaluation/tta.py"

SSD, PYRAMID, SPARSE = (f"jdet/detectors/{x}.py" for x in ("ssd", "pyramid", "sparse_rcnn"))

MULTI, ANCHORS = "jdet/evaluation/multi_scale.py", "jdet/ops/anchors.py"

KEEP, TORCH = "jdet/data/transforms/keep_ratio.py", "jdet/interop/torchvision.py"


def backbone(name, **fields):
    make("backbone", {"name": name, **fields}, "config.model.backbone")


hybrid = functools.partial(backbone, "hybrid")

dsod = functools.partial(backbone, "dsod")


def neck(name, **fields):
    taps = fields.pop("taps", ("c3",))
    make("neck", {"name": name, **fields}, "config.model.neck", taps=taps, design_cells=2)


def stages(names, geometry):
    body = SimpleNamespace(stage_names=names)
    if geometry:
        body.stage_geometry = lambda size: {"fine": (4, size // 4)}
    stage_geometry(body, 64)


def too_small(side):
    """What SSD says of images below the size of its finest cell."""
    init = functools.partial(wild.make("ssd").init, train=False)
    jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, side, side, 3), jnp.uint8))


def crowded(proposals):
    objects = Objects(np.zeros((300, 4)), np.zeros(300, int), np.zeros(300, int))
    detector = SimpleNamespace(proposals=proposals, train_ignored=True)
    return SparseRCNN.start_warning(detector, lambda keep_ignored: objects, ("a",), None)


def sparse(heads):
    shapes = [(8, 8, 16)]
    SparseRCNN.check_design(
        SimpleNamespace(attention_heads=heads, input_size=64, map_shapes=lambda shape: shapes)
    )


def layout(cells):
    """A network that makes other levels than its anchors are for."""
    level = SimpleNamespace(boxes_per_location=1, boxes=16)
    PyramidDetector.check_design(
        SimpleNamespace(
            input_size=64,
            level_sizes=lambda: ((16,), cells),
            anchor_levels=lambda: [level],
            anchors=lambda shape: [level],
        )
    )


def weights(folder, save, name="weights"):
    """Numbers that NumPy saves under the name that is asked for, as the message says."""
    path = folder / f"{name}.npz"
    if save:
        np.savez(path, conv=np.zeros(3))
    torchvision.load(path)


def first_layer(channels):
    variables = {
        "params": {
            "backbone": {"stem": {"conv1": {"conv": {"kernel": jnp.zeros((7, 7, channels, 64))}}}}
        }
    }
    state = {"backbone.body.conv1.weight": np.zeros((64, 3, 7, 7), np.float32)}
    torchvision.from_torchvision(variables, state)


def strange(name):
    kernel = {"conv1": {"conv": {"kernel": jnp.zeros((7, 7, 3, 64))}}}
    state = {"backbone.body.conv1.weight": np.zeros((64, 3, 7, 7), np.float32)}
    torchvision.from_torchvision({"params": {"backbone": {name: kernel}}}, state)


def rate(lr, reference, name="adamw"):
    detector = SimpleNamespace(parts={"backbone": "backbone"}, backbone=SWIN)
    config = get_defaults()
    config.optimizer.name = name
    peak = lr * (config.train.batch_size / reference if reference else 1)
    return "\n".join(presets.warnings(config, detector, peak))


def rate_as_typed(typed):
    config = get_defaults()
    config.optimizer.lr, config.optimizer.reference_batch = 0.05, 128
    if typed:
        lr = presets.PRESETS["transformer"]["lr"]
        type_in(config, f"--config.optimizer.lr={lr} --config.optimizer.reference_batch=0")
    return rate(config.optimizer.lr, config.optimizer.reference_batch)


SWIN = SimpleNamespace(family="transformer", zero_init=False)


def levels(**given):
    fields = {"input_size": 64, "strides": (8, 16), "cells": (8, 4)} | given
    anchors.ssd_levels(**fields)


def columns(**given):
    anchors.replace_columns(anchors.ssd_levels(64, (8, 16), (8, 4)), **given)


ROWS = [
    row(
        "jdet/necks/fpn.py",
        "it must be odd, such as",
        lambda side: neck("fpn", lateral_kernel=side),
        {"side": 4},
        {"side": 5},
    ),
    row(
        "jdet/detectors/rpn.py",
        "give one side for each",
        lambda sides: two_stage.make(rpn=dict(anchor_sides=sides)),
        {"sides": (8.0,)},
        {"sides": (8.0, 16.0, 32.0)},
    ),
    row(DSOD, "such as (6, 8, 8, 8)", dsod, {"blocks": (6, 8)}, {"blocks": (6, 8, 8, 8)}),
    row(
        DSOD,
        "leaves a transition no channel: {}; use a larger one",
        dsod,
        {"compression": 0.001},
        {"compression": 1.0},
    ),
    row(
        HYBRID,
        "such as C2-C2-T12-T4",
        hybrid,
        {"spec": "C2-T3"},
        {"spec": "C2-C2-T12-T4"},
    ),
    row(
        HYBRID,
        "of 0 blocks; give it 1 or more",
        hybrid,
        {"spec": "C2-C0-T2-T4"},
        {"spec": "C2-C1-T2-T4"},
    ),
    row(HYBRID, "put the C stages first", hybrid, {"spec": "C2-T2-C2-T4"}, {"spec": "C2-C2-T2-T4"}),
    row(
        HYBRID,
        "give a factor for each of the four stages",
        hybrid,
        {"c_width_mult": (1.0,)},
        {"c_width_mult": (1.0, 1.0, 2.0, 1.0)},
    ),
    row(
        "jdet/backbones/resnet.py",
        "number above 0 for each convolution of the root block, or none",
        functools.partial(backbone, "resnet", depth=18),
        {"root": 3, "root_channels": (32,)},
        {"root_channels": (32, 32, 64)},
        {"root_channels": ()},
    ),
    row(
        "jdet/necks/bifpn.py",
        "set model.neck.extra to 1 or more",
        functools.partial(neck, "bifpn"),
        {"extra": 0},
        {"extra": 1},
    ),
    row(
        "jdet/nn/stages.py",
        "give it a method stage_geometry(size)",
        stages,
        {"names": ("fine",), "geometry": False},
        {"geometry": True},
        {"names": ("c2",)},
    ),
    row(
        ANCHORS,
        "use a larger input_size",
        levels,
        {"strides": (8,), "cells": (8,)},
        {"strides": (8, 16), "cells": (8, 4)},
    ),
    row(
        ANCHORS,
        "give one per level, or none to have them by the rule",
        columns,
        {"min_sizes": (8.0,)},
        {"min_sizes": (8.0, 16.0)},
        {"min_sizes": ()},
    ),
    row(
        "jdet/detectors/fcos.py",
        "give one bound fewer than levels",
        lambda bounds: wild.make("fcos", regress_bounds=bounds),
        {"bounds": (8.0,)},
        {"bounds": (8.0, 16.0, 32.0, 64.0)},
    ),
    row(
        "jdet/detectors/fcos.py",
        "leave model.regress_bounds=(), or set",
        functools.partial(wild.make, "fcos"),
        {"regress_bounds": (8.0, 16.0, 32.0, 64.0), "assignment": "simota"},
        {"regress_bounds": ()},
        {"assignment": "own"},
        {"assignment": "task_aligned"},
    ),
    row(
        PYRAMID,
        "set model.train_ignored=False",
        functools.partial(wild.make, "retinanet"),
        {"ignore_iof": 0.5, "train_ignored": True},
        {"train_ignored": False},
    ),
    row(PYRAMID, "check backbone, neck and taps", layout, {"cells": (2,)}, {"cells": (4,)}),
    row(
        "jdet/detectors/rcnn.py",
        "give each one number per stage",
        functools.partial(two_stage.make),
        {"stage_ious": (0.5, 0.6)},
        {"stage_ious": (0.5,)},
        {"stage_weights": (1.0, 0.5), "center_stds": (0.1, 0.05), "size_stds": (0.2, 0.1)},
    ),
    row(
        "jdet/detectors/retinanet.py",
        "give numbers above 0, one at least",
        functools.partial(wild.make, "retinanet"),
        {"aspect_ratios": ()},
        {"aspect_ratios": (1.0,)},
    ),
    row(SPARSE, "set it to a divisor of them", sparse, {"heads": 3}, {"heads": 8}),
    row(SPARSE, "has room", crowded, {"proposals": 100}, {"proposals": 600}),
    row(
        SSD,
        "the last serves all further levels",
        functools.partial(wild.make, "ssd"),
        {"head_kernels": (2,)},
        {"head_kernels": (3,)},
        {"head_kernels": (5, 3)},
    ),
    row(SSD, "take larger ones", too_small, {"side": 2}, {"side": 32}),
    Elsewhere(
        SSD,
        "with the same config measures this and",
        "tests/test_custom_experiment.py::test_default_boxes_fit_the_objects",
        "no anchor reaches an IoU",
    ),
    Elsewhere(
        "jdet/detectors/retinanet.py",
        "change the anchors",
        "tests/test_custom_experiment.py::test_anchors_fit_the_objects",
        "ribbon 100%",
    ),
    Elsewhere(
        "jdet/detectors/rcnn.py",
        "change the anchors",
        "tests/test_custom_experiment.py::test_anchors_of_an_rpn_fit_the_objects",
        "mended = detector.clone(rpn=detector.rpn.clone(",
    ),
    row(TORCH, "save a state dict there by numpy.savez", weights, {"save": False}, {"save": True}),
    row(
        TORCH,
        "compare with a model of config.data.image.channels='rgb'",
        first_layer,
        {"channels": 5},
        {"channels": 3},
    ),
    row(TORCH, "leave it out of the model", strange, {"name": "extra"}, {"name": "stem"}),
    row(
        "jdet/train/presets.py",
        "if the loss does not fall, take ",
        rate_as_typed,
        {"typed": False},
        {"typed": True},
    ),
    Elsewhere(
        "jdet/train/presets.py",
        "detectors trained from scratch take",
        "tests/train/test_presets.py::test_blocks_that_start_as_shortcuts_are_for_fine_tuning",
        "zero_init=False",
    ),
]
