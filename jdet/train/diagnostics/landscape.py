"""Records of the loss surface along a run: ``landscape.jsonl``, which ``jdet.analysis`` draws.

One JSON object a record, at every ``landscape.every``-th step:

    step              step it leads to, as in metrics.jsonl: the numbers belong to the parameters before
    lr                learning rate of the step
    loss              total training loss of the step's batch
    grad_norm         L2 norm of its gradient over the parameters that train, before decay, momentum and
                      clipping
    grad_norm/<m>     of one module: backbone, backbone/block1, … down to landscape.depth
    probe/<s>/<x>     every landscape.probe_every-th step, for each s of landscape.probe_steps: loss,
                      change, cosine and smoothness as ``jdet.train.step.make_probe`` says

A run that diverged ends with ``{"step": …, "event": "diverged", …}``. What is not finite is null.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from jdet.train.step import Metrics
from jdet.train.writers import JsonlWriter
from jdet.types import Batch, TrainState

Probe = Callable[[TrainState, Batch, float], Metrics]


class Landscape:
    """Keeps the records of one run; does nothing where ``landscape.every`` is 0."""

    def __init__(
        self,
        config: ConfigDict,
        make_probe: Callable[[], Probe],
        path: Path | None,
        keep_until: int | None = None,
    ):
        """Opens the file.

        Args:
            config: complete config.
            make_probe: builds the program of the probes; called only where there are any.
            path: of the file; None on all processes but one.
            keep_until: as in ``JsonlWriter``. A file of an earlier start is cut there, even if this
                one records nothing.
        """
        self._every, self._probe_every = config.landscape.every, config.landscape.probe_every
        self._lengths: Sequence[float] = config.landscape.probe_steps
        self._probe = make_probe() if self._probe_every else None
        self._file = None
        if path is not None and (self._every or path.exists()):
            self._file = JsonlWriter(path, keep_until)

    def probes(self, k: int) -> bool:
        """Whether the step that leads to k is to be probed."""
        return bool(self._probe_every) and k % self._probe_every == 0

    def probe(self, now: TrainState, batch: Batch, lr_scale: float = 1.0) -> dict[str, float]:
        """Probes the loss from a state along the gradient of a batch, and waits for the result.

        Args:
            now: the state.
            batch: of the step that comes next.
            lr_scale: factor of that step's learning rate.
        """
        assert self._probe is not None
        found = jax.device_get(self._probe(now, batch, lr_scale))
        return {
            f"probe/{float(length)!r}/{name}": x.item()
            for name, column in found.items()
            for length, x in zip(self._lengths, column, strict=True)
        }

    def record(self, k: int, values: Mapping[str, Any], probed: Mapping[str, float]) -> None:
        """Writes the record of a step if one is due.

        Args:
            k: the step it led to.
            values: its metrics; "lr", "loss" and all that begins with "grad_norm" are taken.
            probed: what ``probe`` found before it, or nothing.
        """
        if self._file is not None and self._every and k % self._every == 0:
            own = {x: values[x] for x in values if x in ("lr", "loss") or x.startswith("grad_norm")}
            self._file.scalars(k, {**own, **probed})

    def diverged(self, k: int, values: Mapping[str, Any]) -> None:
        """Records that the step to k had a loss or gradient that is not finite."""
        if self._file is not None and self._every:
            self._file.scalars(k, {"event": "diverged", **values})

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
