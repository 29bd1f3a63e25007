"""The programs of a run that can be profiled, compiled for devices that are here or not."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from jdet import build
from jdet.evaluation import loaders
from jdet.evaluation.detect import DetectFn
from jdet.parallel import mesh as mesh_lib
from jdet.preflight import compile as compile_lib
from jdet.train import state
from jdet.types import Batch

PROGRAMS = ("train", "detect")
OBJECTS = 7
"""In each image that a step is timed with, as many as an image of COCO has on average."""


class Program(NamedTuple):
    """A compiled program.

    Attributes:
        text: of the compiled program.
        images: of all devices, in one call.
        start: makes what a call needs, and returns the function that starts one call and returns what to
            wait for; only where the devices are here.
    """

    text: str
    images: int
    start: Callable[[], Callable[[], Any]]


def compile_program(config: ConfigDict, what: str, devices: Sequence[Any]) -> Program:
    """Compiles the training step of a config, or its detection of a batch.

    Args:
        config: complete config with ``class_names``.
        what: "train" or "detect".
        devices: attached ones or those of a topology.

    Raises:
        ConfigError: the config does not suit the devices, or a model that cannot be built.
    """
    config = build.with_frozen_stages(config)
    compile_lib.check(config, len(devices))
    mesh = mesh_lib.make_mesh(config, devices=devices)
    detector = build.detector(config, config.class_names, axis_name="member")
    make = _train if what == "train" else _detect
    with compile_lib.own_names():
        return make(config, detector, mesh)


def _train(config: ConfigDict, detector: Any, mesh: Any) -> Program:
    work = compile_lib.training(config, detector, mesh)
    compiled = work.step.lower(work.state, work.batch).compile()

    def start() -> Callable[[], Any]:
        now = state.create_state(detector, work.optimizer, mesh, config)
        batch = mesh_lib.to_global(noise(work.batch, len(config.class_names)), mesh)

        def step() -> Any:
            nonlocal now
            now, metrics = compiled(now, batch)
            return metrics

        return step

    return Program(compiled.as_text(), len(work.batch.real), start)


def _detect(config: ConfigDict, detector: Any, mesh: Any) -> Program:
    function = DetectFn(detector, mesh)
    size = build.resize(config).largest
    count = loaders.eval_batch_size(config, mesh)
    shapes = compile_lib.detection_variables(config, function, mesh)
    compiled = function.compile(shapes, (count, *size))

    def start() -> Callable[[], Any]:
        variables = function.fold(state.create_variables(detector, mesh, config))
        variables = jax.device_put(variables, mesh_lib.replicated(mesh))
        black = jax.eval_shape(lambda: state.zero_batch(config, count, size))
        batch = noise(black, len(config.class_names))
        return functools.partial(function, variables, batch.images, batch.image_sizes)

    return Program(compiled.as_text(), count, start)


def noise(shapes: Batch, classes: int, seed: int = 0) -> Batch:
    """A batch of noise with up to ``OBJECTS`` objects in an image, on the host.

    Args:
        shapes: arrays or shapes of the batch.
        classes: K.
        seed: of the random numbers.
    """
    rng = np.random.default_rng(seed)
    count, height, width, _ = shapes.images.shape
    boxes = shapes.boxes.shape[1]
    dtype = np.dtype(shapes.images.dtype)
    if dtype.kind == "f":
        images = rng.random(shapes.images.shape, dtype)
    else:
        images = rng.integers(0, np.iinfo(dtype).max, shapes.images.shape, dtype, endpoint=True)
    side = np.array([width, height], np.float32)
    sides = rng.uniform(0.08, 0.5, (count, boxes, 2)) * side
    corners = rng.uniform(0, 1, sides.shape) * (side - sides)
    valid = np.broadcast_to(np.arange(boxes) < OBJECTS, (count, boxes)).copy()
    sizes = np.tile(np.array([height, width], np.int32), (count, 1))
    masks = None if shapes.masks is None else np.ones(shapes.masks.shape, np.uint8)
    return Batch(
        images=images,
        boxes=(np.concatenate([corners, corners + sides], -1) * valid[..., None]).astype(
            np.float32
        ),
        labels=(rng.integers(0, classes, valid.shape) * valid).astype(np.int32),
        valid=valid,
        ignore=np.zeros(valid.shape, bool),
        image_sizes=sizes,
        original_sizes=sizes,
        index=np.arange(count, dtype=np.int32),
        real=np.ones(count, bool),
        masks=masks,
    )
