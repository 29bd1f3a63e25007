"""Learning-rate range test: how the loss behaves while the rate rises (Smith 2017, sec. 3.3).

    python -m jdet.analysis.lr_range --config=experiments/x.py [--low=1e-6] [--high=10] [--steps=100]
        [--phase=NAME] [--out=lr_range]

Trains from the config's initial weights with the training's own step, on its own batches, at a rate
that rises by the same factor from step to step; warm-up, schedule and moving average are left out. It ends
early where the loss diverges. ``lr_range.png`` and ``lr_range.json`` in ``--out`` hold the curve; the
weights are thrown away, and no run is touched. docs/adapting.md says how to read it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from jdet import build, cli
from jdet import config as config_lib
from jdet.analysis.curves import COLORS
from jdet.atomic_files import write_json
from jdet.evaluation import loaders
from jdet.parallel import mesh as mesh_lib
from jdet.parallel.prefetch import DevicePrefetcher
from jdet.train import optim, state
from jdet.train.folders import CONFIG
from jdet.train.init import init_from
from jdet.train.init.calibrate import Calibration
from jdet.train.init.transforms import InitTransform
from jdet.train.step import make_train_step
from jdet.types import Batch, ConfigError, require

SMOOTHING = 0.9
"""Decay of the moving average of the losses, which is corrected for its start."""

DIVERGED = 4.0
"""The test ends where the smoothed loss exceeds its lowest value by this factor."""

FEWEST = 5
"""Steps before the test may end so, and points that a suggestion needs."""


class Sweep(NamedTuple):
    """What a range test saw.

    Attributes:
        rates: learning rate of every step, float64 [n].
        losses: before that step, float64 [n]; the last is nan where it was not finite.
        smoothed: the same, smoothed.
        diverged: the loss ended the test.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    diverged: bool


def smooth(losses: Sequence[float]) -> np.ndarray:
    """Moving average of losses, each value of those up to it; float64 [n]."""
    average, found = 0.0, []
    for count, loss in enumerate(losses, 1):
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        found.append(average / (1 - SMOOTHING**count))
    return np.array(found)


def suggest(found: Sweep) -> float | None:
    """The rate at which the smoothed loss falls fastest over the logarithm of the rate.

    None where it falls nowhere: the lowest loss is among the first steps.
    """
    finite = np.flatnonzero(np.isfinite(found.smoothed))
    if not len(finite):
        return None
    lowest = int(finite[np.argmin(found.smoothed[finite])])
    if lowest < FEWEST:
        return None
    part = slice(0, lowest + 1)
    slopes = np.gradient(found.smoothed[part], np.log(found.rates[part]))
    return float(found.rates[int(np.argmin(slopes))])


def sweep(
    config: ConfigDict,
    detector: Any,
    batches: Callable[[], Iterable[Batch]],
    mesh: Any,
    *,
    low: float,
    high: float,
    steps: int,
    transforms: Sequence[InitTransform] = (),
) -> Sweep:
    """Trains while the rate rises from ``low`` to ``high``, or until the loss diverges.

    Args:
        config: complete config; not changed.
        detector: of it, with ``axis_name="member"``.
        batches: opens the training stream; closed at the end where it has a ``close``.
        mesh: of the devices.
        low: rate of the first step, the peak rate that a training would have (after linear scaling).
        high: rate of the last.
        steps: how many.
        transforms: change the initial weights, as in a training.

    Raises:
        ConfigError: the first loss, or its gradient, is not finite.
    """
    config = config.copy_and_resolve_references()
    config.train.ema, config.landscape.every = 0.0, 0
    config.train.sample_stats = False

    def rate(step: Any) -> jax.Array:
        done = jnp.asarray(step, jnp.float32) / (steps - 1)
        return jnp.float32(low) * jnp.exp(done * jnp.float32(math.log(high / low)))

    params, _ = state.abstract_variables(detector, config)
    optimizer = optim.make_optimizer(config.optimizer, rate, params)
    now = state.create_state(detector, optimizer, mesh, config, transforms)
    step = make_train_step(detector, optimizer, rate, mesh, config)
    rates: list[float] = []
    losses: list[float] = []
    diverged = False
    with DevicePrefetcher(batches(), mesh) as stream:
        for _ in range(steps):
            now, values = step(now, next(stream))
            values = {name: float(values[name]) for name in ("loss", "lr", "finite")}
            rates.append(values["lr"])
            losses.append(values["loss"] if values["finite"] else math.nan)
            if len(losses) == 1 and not values["finite"]:
                raise ConfigError(_not_finite(config))
            smoothed = smooth(losses)
            # Not so where it is nan.
            fine = smoothed[-1] <= DIVERGED * np.nanmin(smoothed)
            diverged = not values["finite"] or (len(losses) > FEWEST and not fine)
            if diverged:
                break
    return Sweep(np.array(rates), np.array(losses), smooth(losses), diverged)


def _not_finite(config: ConfigDict) -> str:
    """What to say where there is nothing to begin with."""
    others = []
    if config.precision != "float32":
        others.append("--config.precision=float32")
    if config.init_from.path:
        others.append("--config.init_from.path=''")
    remedy = (
        f"try it with {' and '.join(others)}"
        if others
        else "the cause is in the detector's losses or the values of the images"
    )
    return (
        "the loss or its gradient is not finite at the first step, before any update, so that no --low "
        f"helps; {remedy}"
    )


def analyse(
    config: ConfigDict, out: str | Path, *, low: float = 1e-6, high: float = 10.0, steps: int = 100
) -> tuple[Sweep, float | None]:
    """The range test of a config, with its files in ``out``.

    Returns:
        What was seen, and the rate that is suggested, as a peak rate; None where there is none.

    Raises:
        ConfigError: the config or a setting is invalid, ``out`` is the folder of a run, or the first loss
            is not finite.
        DataError: the data are missing.
    """
    out = Path(out).expanduser()
    require(
        0 < low < high < 1e6, "--low, --high", (low, high), "two rates with 0 < low < high < 1e6"
    )
    require(2 * FEWEST <= steps <= 10**6, "--steps", steps, f"in {2 * FEWEST} … 1000000")
    if (out / CONFIG).exists():
        raise ConfigError(f"--out={out} is the folder of a run; name another one")
    config = config.copy_and_resolve_references()
    config_lib.validate(config)
    mesh_lib.split_cpu(config)
    source, _ = build.sources(config)
    build.look_at_images(config, source)
    with config.unlocked():
        config.class_names = tuple(source.class_names)
    build.normalise.settle(config, source)
    build.settle_class_weights(config, source)
    config = build.with_frozen_stages(config)
    detector = build.detector(config, config.class_names, axis_name="member")
    mesh = mesh_lib.make_mesh(config)
    batches = functools.partial(loaders.train_batches, config, source, needs=detector.needs)
    make = functools.partial(build.detector, class_names=config.class_names)
    plan = init_from.prepare(
        config, out, detector, *state.abstract_variables(detector, config), build=make
    )
    transforms: list[InitTransform] = [plan] if plan else []
    if config.calibration.iterations:
        transforms.append(Calibration(detector, mesh, config, batches))
    found = sweep(
        config, detector, batches, mesh, low=low, high=high, steps=steps, transforms=transforms
    )
    suggested = suggest(found)
    out.mkdir(parents=True, exist_ok=True)
    lowest = int(np.nanargmin(found.smoothed))
    scale = _scale(config)
    write_json(
        out / "lr_range.json",
        {
            "suggested": suggested,
            "optimizer.lr": suggested and suggested / scale,
            "lowest_loss_at": float(found.rates[lowest]),
            "diverged_at": float(found.rates[-1]) if found.diverged else None,
            "batch_size": config.train.batch_size,
            "rates": found.rates.tolist(),
            "losses": found.losses.tolist(),
            "smoothed": found.smoothed.tolist(),
        },
    )
    draw(found, suggested).savefig(out / "lr_range.png", dpi=120)
    return found, suggested


def _scale(config: ConfigDict) -> float:
    """The peak rate of a training over its ``optimizer.lr``."""
    reference = config.optimizer.reference_batch
    return config.train.batch_size / reference if reference else 1.0


def draw(found: Sweep, suggested: float | None) -> Figure:
    """Losses over the rate, which is logarithmic."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(
        found.rates, found.losses, ".", color=COLORS[5], markersize=3, label="loss of a batch"
    )
    axes.plot(found.rates, found.smoothed, color=COLORS[0], label="smoothed")
    if suggested is not None:
        axes.axvline(suggested, color=COLORS[1], label=f"falls fastest at {suggested:.2g}")
    axes.set_xscale("log")
    axes.set_xlabel("learning rate (peak, after linear scaling)")
    axes.set_ylabel("training loss")
    smoothed = found.smoothed[np.isfinite(found.smoothed)]
    axes.set_ylim(0, DIVERGED * smoothed.min() if found.diverged else 1.2 * smoothed.max())
    axes.legend(loc="best", frameon=False)
    return figure


def describe(config: ConfigDict, found: Sweep, suggested: float | None) -> str:
    """What to do about it, in a few lines."""
    lowest = found.rates[int(np.nanargmin(found.smoothed))]
    end = (
        f"the loss diverges at {found.rates[-1]:.2g}"
        if found.diverged
        else f"it does not diverge up to {found.rates[-1]:.2g}: --high={10 * found.rates[-1]:.2g} looks on"
    )
    lines = [f"{len(found.rates)} steps: the smoothed loss is lowest at {lowest:.2g}, and {end}."]
    if suggested is None:
        lines.append("It falls nowhere: begin lower (--low), or take more steps (--steps).")
    else:
        key = suggested / _scale(config)
        lines.append(
            f"It falls fastest at {suggested:.2g} with {config.train.batch_size} images a step: "
            f"--config.optimizer.lr={key:.2g} is a peak rate to begin with."
        )
    return "\n".join(lines)


def main() -> None:
    """The command."""
    values = flags.FLAGS
    first = values.config.phases[0] if values.config.phases else ""
    config = config_lib.of_phase(values.config, values.phase or first)
    options = dict(low=values.low, high=values.high, steps=values.steps)
    found, suggested = analyse(config, values.out, **options)
    print(describe(config, found, suggested))
    print(f"{values.out}: lr_range.png, lr_range.json")


if __name__ == "__main__":
    flags.DEFINE_string("phase", "", "Phase of a config that has some; else its first.")
    flags.DEFINE_float("low", 1e-6, "Rate of the first step.")
    flags.DEFINE_float("high", 10.0, "Rate of the last step.")
    flags.DEFINE_integer("steps", 100, "Steps.")
    flags.DEFINE_string("out", "lr_range", "Folder for the figure and the numbers.")
    cli.start(main)
