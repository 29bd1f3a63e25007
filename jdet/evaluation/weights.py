"""The variables that a state of a run is evaluated with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from jdet.config import norms
from jdet.data import pipeline
from jdet.parallel import mesh as mesh_lib
from jdet.train import precise_bn, state
from jdet.types import ConfigError


def make_weights(
    config: ConfigDict,
    detector: Any,
    mesh: Any,
    train_batches: Callable[[], pipeline.BatchStream],
) -> Callable[[Any], dict[str, Any]]:
    """``weights(state)``: the variables to evaluate, on the mesh, by ``eval.use_ema`` and ``precise_bn``.

    Args:
        config: complete config.
        detector: with the mesh's axis name in its norms.
        mesh: of the run.
        train_batches: opens the training stream at its first batch.

    Raises:
        ConfigError: ``eval.precise_bn`` without batch norms; from ``weights``, what the stream raises.
    """
    wanted = config.eval.precise_bn

    def on_mesh(trained: Any) -> dict[str, Any]:
        variables = state.eval_variables(trained, config.eval.use_ema)
        return jax.device_put(variables, mesh_lib.replicated(mesh))

    if not wanted:
        return on_mesh
    kinds = norms(config)
    if kinds and not set(kinds.values()) & {"batch", "sync_batch"}:
        chosen = ", ".join(f"config.model.{key} is {kind}" for key, kind in kinds.items())
        raise ConfigError(
            f"config.eval.precise_bn={wanted} measures the statistics of batch norms; {chosen}: set it "
            "to 0"
        )
    measure = precise_bn.make_precise_bn(detector, mesh, config)

    def weights(trained: Any) -> dict[str, Any]:
        logging.info("statistics of batch norms from the first %d training batches", wanted)
        with train_batches() as batches:
            return measure(on_mesh(trained), batches)

    return weights
