"""A small run on disk, and images for it."""

import json

import jax
import jax.numpy as jnp
import numpy as np

from jdet import build
from jdet.config import get_defaults
from jdet.train.checkpoints.checkpoint import Checkpoints
from jdet.train.state import abstract_variables
from jdet.types import TrainState
from tests.tiny_backbone import TINY

NAMES = ("disc", "square", "star")


def save_run(folder):
    """A run that was saved before its first step and, as step 10, with other weights."""
    config = get_defaults()
    config.class_names = NAMES
    config.input_size = 64
    config.model = build.group(
        "detector",
        "ssd",
        backbone=build.group("backbone", TINY, stages=("c3", "c4")),
        neck=build.group("neck", "residual_extras", width=0.125),
        max_detections=20,
    )
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    detector = build.detector(config, NAMES)
    rng = np.random.default_rng(0)
    params, stats = jax.tree.map(  # random weights without compiling an initialisation
        lambda x: jnp.asarray(rng.normal(0.0, 0.05, x.shape), x.dtype),
        abstract_variables(detector, config),
    )
    stats = jax.tree.map(jnp.ones_like, stats)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        for step, metric in ((0, 0.5), (10, 0.4)):
            moved = jax.tree.map(lambda x, step=step: x + step * 0.01, params)
            state = TrainState(
                step=jnp.int32(step), params=moved, stats=stats, opt_state=(), ema=None
            )
            checkpoints.save(step, state, {"voc07/mAP": metric})


def rectangle(height, width, box, color=(255, 0, 0)):
    image = np.full((height, width, 3), 128, np.uint8)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = color
    return image


def kept_run(workdir, folder, **more):
    """The run with images that keep their proportions: 64×128, 128×64 or square inputs."""
    config = json.loads((workdir / "config.json").read_text())
    config["resize"] |= dict(name="keep_ratio", short=[64], long=128)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**config, **more}))
    (folder / "checkpoints").symlink_to(workdir / "checkpoints")
    return folder
