"""The state of a run: made on the mesh, counted, and turned into variables to evaluate."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jdet.config import image_kind
from jdet.nn import randomness
from jdet.parallel.mesh import replicated
from jdet.train.init.transforms import InitTransform
from jdet.types import Batch, TrainState


def zero_batch(
    config: ConfigDict,
    batch_size: int,
    shape: tuple[int, int] | None = None,
    *,
    needs: Sequence[str] = (),
) -> Batch:
    """A batch of black images without objects, with the shapes that the config implies.

    Args:
        config: complete config; ``input_size`` and ``data.max_boxes`` count.
        batch_size: B.
        shape: height and width of the network input; None: the square ``input_size``.
        needs: optional fields that the detector reads.
    """
    shape = shape or (config.input_size, config.input_size)
    kind = image_kind(config)
    images = jnp.zeros((batch_size, *shape, kind.channels), kind.dtype)
    mask_size = config.data.mask_size if "masks" in needs else 0
    batch = Batch.of_images(images, max_boxes=config.data.max_boxes, mask_size=mask_size)
    return jax.tree.map(jnp.asarray, batch)


def init_variables(detector: Any, config: ConfigDict, batch_size: int = 1) -> tuple[Any, Any]:
    """Initial parameters and statistics, which depend on ``config.seed`` alone; to be jitted.

    Args:
        detector: Linen module with ``losses``.
        config: complete config.
        batch_size: images to trace with; must suit the BatchNorm groups of the detector.

    Returns:
        ``params`` and ``stats``, nested dicts; ``stats`` is empty where no layer has any.
    """
    return _init(detector, config.seed, _first_batch(detector, config, batch_size))


def _first_batch(detector, config: ConfigDict, batch_size: int) -> Batch:
    return zero_batch(config, batch_size, needs=getattr(detector, "needs", ()))


def _init(detector, seed: int, batch: Batch) -> tuple[Any, Any]:
    key = jax.random.key(seed)
    rngs = {"params": key, **randomness.streams(key)}
    made = detector.init(rngs, batch, train=True, method="losses")
    return made["params"], made.get("batch_stats", {})


def abstract_variables(detector: Any, config: ConfigDict, batch_size: int = 1) -> tuple[Any, Any]:
    """Shapes of what ``init_variables`` returns, without computing anything."""
    batch = jax.eval_shape(lambda: _first_batch(detector, config, batch_size))
    leaves, structure = jax.tree.flatten(batch)
    try:
        found = _shapes_of_variables(detector, structure, *leaves)
    except TypeError:  # an own detector may have a field that cannot be hashed
        found = _trace_variables(detector, structure, *leaves)
    return jax.tree.map(lambda leaf: leaf, found)  # a copy


def _trace_variables(detector, structure, *leaves: jax.ShapeDtypeStruct) -> tuple[Any, Any]:
    batch = jax.tree.unflatten(structure, leaves)
    return jax.eval_shape(functools.partial(_init, detector, 0), batch)


_shapes_of_variables = functools.lru_cache(maxsize=64)(_trace_variables)
"""Traced once: the start of a run asks several times, and tracing a large network takes seconds."""


def create_state(
    detector: Any,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    config: ConfigDict,
    transforms: Sequence[InitTransform] = (),
) -> TrainState:
    """The state before the first step, on every device of the mesh.

    Args:
        detector: Linen module with ``losses``.
        optimizer: optax transformation.
        mesh: of the run.
        config: complete config.
        transforms: change the initial parameters and statistics, in order; optimiser and moving
            average begin with what comes out.

    Raises:
        ValueError: a transform returns other parameters or shapes than it was given.
    """
    once = functools.partial(_once, mesh)
    if not transforms:
        return once(functools.partial(_create, detector, optimizer, mesh, config))
    weights = once(functools.partial(_initial_variables, detector, mesh, config))
    for transform in transforms:
        given, weights = _shapes(weights), transform(*weights)
        if _shapes(weights) != given:
            raise ValueError(f"{transform.name} returns other arrays or shapes than it was given")
    return once(functools.partial(_begin, optimizer, config), *weights)


def create_variables(detector: Any, mesh: Mesh, config: ConfigDict) -> dict[str, Any]:
    """What a detector's ``apply`` takes before the first step, on every device of the mesh."""
    make = functools.partial(_initial_variables, detector, mesh, config)
    return variables(*_once(mesh, make))


def abstract_state(
    detector: Any, optimizer: optax.GradientTransformation, mesh: Mesh, config: ConfigDict
) -> TrainState:
    """Shapes and shardings of ``create_state``, to restore a checkpoint into."""
    weights = abstract_variables(detector, config, _micro_batch(mesh, config))
    shapes = jax.eval_shape(functools.partial(_begin, optimizer, config), *weights)
    sharding = replicated(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)


def _once(mesh: Mesh, function: Any, *args: Any) -> Any:
    """Runs a program that runs once, on every device of the mesh.

    Random numbers for every parameter are slow to optimise: 19 s or 2 s for an SSD on a CPU, where the
    compiler is the slowest.
    """
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    options = {"xla_backend_optimization_level": 0} if on_cpu else None
    jitted = jax.jit(function, out_shardings=replicated(mesh), compiler_options=options)
    return jitted(*args)


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


def _create(detector, optimizer, mesh: Mesh, config: ConfigDict) -> TrainState:
    return _begin(optimizer, config, *_initial_variables(detector, mesh, config))


def _initial_variables(detector, mesh: Mesh, config: ConfigDict) -> tuple[Any, Any]:
    return init_variables(detector, config, _micro_batch(mesh, config))


def _micro_batch(mesh: Mesh, config: ConfigDict) -> int:
    return config.train.batch_size // (mesh.size * config.train.accumulation)


def _begin(optimizer, config: ConfigDict, params, stats) -> TrainState:
    # A copy: the step donates its state, and no buffer can be donated twice.
    ema = jax.tree.map(jnp.copy, {"params": params, "stats": stats}) if config.train.ema else None
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        stats=stats,
        opt_state=optimizer.init(params),
        ema=ema,
        finite=jnp.ones((), bool),
    )


def count_parameters(params: Any) -> int:
    """Numbers in a tree of arrays or shapes."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(params))


def variables(params: Any, stats: Any) -> dict[str, Any]:
    """What a detector's ``apply`` takes: "params", and "batch_stats" unless the model has none."""
    return {"params": params, "batch_stats": stats} if stats else {"params": params}


def eval_variables(state: Any, use_ema: bool) -> dict[str, Any]:
    """What ``detector.apply`` takes to evaluate.

    Args:
        state: anything with ``params``, ``stats`` and ``ema``.
        use_ema: take the moving average where there is one, of the parameters and of the running
            statistics: those of the parameters as they are describe another network.

    Returns:
        As ``variables``.
    """
    params, stats = state.params, state.stats
    if use_ema and state.ema is not None:
        params, stats = state.ema["params"], state.ema["stats"]
    return variables(params, stats)
