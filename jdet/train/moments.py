"""The parts of an optimiser that have a state, written so that parameters and state are updated in place.

Their ``update`` takes ``finite``, a bool scalar: where it is False, the state comes back as it was. The
choice is made before the updates are computed from the state. Made afterwards, between all that is old and
all that is new, it would have new parameters and new state each read what the other overwrites, and XLA
copies both then, whole, in every step.

States are optax's, and so are the numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax


def scale_by_rate(schedule: Callable[[Any], Any]) -> optax.GradientTransformationExtraArgs:
    """Multiplies by the learning rate of the step, and by ``lr_scale`` where ``update`` is given one."""

    def update(updates, state, params=None, *, lr_scale=1.0, finite=True, **_):
        # The rate is multiplied, not the updates, so that a factor of 1 changes no last digit.
        scaled = optax.scale_by_schedule(lambda count: schedule(count) * lr_scale)
        updates, new = scaled.update(updates, state, params)
        return updates, keep(finite, new, state)

    return optax.GradientTransformationExtraArgs(optax.scale_by_schedule(schedule).init, update)


def trace(decay: float, nesterov: bool) -> optax.GradientTransformationExtraArgs:
    """Momentum, ``v ← g + decay · v``: v or, by Nesterov, ``g + decay · v``; as ``optax.trace``."""

    def update(updates, state, params=None, *, finite=True, **_):
        def add(g, v):
            return g + decay * v

        held = keep(finite, jax.tree.map(add, updates, state.trace), state.trace)
        updates = jax.tree.map(add, updates, held) if nesterov else held
        return updates, optax.TraceState(held)

    return optax.GradientTransformationExtraArgs(optax.trace(decay).init, update)


def adam(beta1: float, beta2: float, epsilon: float) -> optax.GradientTransformationExtraArgs:
    """The bias-corrected ``m̂ / (√v̂ + epsilon)`` of Adam; as ``optax.scale_by_adam``."""

    def update(updates, state, params=None, *, finite=True, **_):
        count = optax.safe_increment(state.count)
        new = optax.ScaleByAdamState(
            count=count,
            mu=optax.tree.update_moment(updates, state.mu, beta1, 1),
            nu=optax.tree.update_moment_per_elem_norm(updates, state.nu, beta2, 2),
        )
        held = keep(finite, new, state)
        mean = optax.tree.bias_correction(held.mu, beta1, count)
        square = optax.tree.bias_correction(held.nu, beta2, count)
        updates = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + epsilon), mean, square)
        return updates, held

    init = optax.scale_by_adam(beta1, beta2, epsilon).init
    return optax.GradientTransformationExtraArgs(init, update)


def keep(finite: Any, new: Any, old: Any) -> Any:
    """``new``, or ``old`` where ``finite`` is False; trees of the same form."""
    return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)
