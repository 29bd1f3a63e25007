"""Gradient calibration of initial weights ("Training Object Detectors from Scratch", 2022, Algorithm 1).

The mean square C_k of the gradient is measured in every layer k on one batch, and every kernel multiplied
by ``(C_k / C̄)^alpha``, C̄ being the geometric mean, in one pass with alpha 0.25. Where a norm follows, or in
plain chains of layers, that multiplies the spread of log C by 1 − 2·alpha: a larger kernel has a smaller
gradient. In a residual branch of two layers a larger kernel raises the gradient of the other, so that
repeating the pass does not converge on transformers; scope "scale_invariant" takes the layers for which it
does (Krähenbühl et al. 2016 is where the rule comes from; it scales by relative sizes of gradients).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jdet.nn import observe
from jdet.parallel.mesh import replicated, to_global
from jdet.train import state
from jdet.train.checkpoints.manifest import path_text
from jdet.train.init.layer_gradients import make_statistic, mean_squares
from jdet.types import ConfigError, DataError

NAME = "calibration"


class Report(NamedTuple):
    """What a calibration did.

    Attributes:
        layers: paths of the kernels in its scope.
        before: statistic of each at the given weights, float64; 0: no gradient, left out.
        after: at the weights that were kept.
        multipliers: of each kernel, over all passes that were kept.
        spreads: standard deviation of log10 of the statistic, before and after each pass.
        kept: passes that were kept.
    """

    layers: tuple[str, ...]
    before: np.ndarray
    after: np.ndarray
    multipliers: np.ndarray
    spreads: tuple[float, ...]
    kept: int


class Calibration:
    """The transform of initial weights (``jdet.train.init.transforms``).

    Args:
        detector: Linen module with ``losses``.
        mesh: of the run.
        config: complete config, of which the group ``calibration`` says what to do.
        train_batches: opens the training stream, of which the first batch is measured on.
    """

    name = NAME
    loads = False

    def __init__(
        self, detector: Any, mesh: Mesh, config: ConfigDict, train_batches: Callable[[], Any]
    ) -> None:
        self._detector, self._mesh, self._config = detector, mesh, config
        self._train_batches = train_batches
        self.report: Report | None = None

    def __call__(self, params: Any, stats: Any) -> tuple[Any, Any]:
        """Scales the kernels.

        Raises:
            ConfigError: the scope has no layer, or none with a gradient.
            DataError: the batch has no object.
        """
        settings = self._config.calibration
        with self._train_batches() as stream:
            batch = to_global(next(iter(stream)), self._mesh)
        if not int(jax.jit(lambda x: x.sum())(batch.valid)):
            raise DataError(
                "config.calibration measures gradients on the first batch of the run, in which no image "
                "has an object; take another config.seed or a larger config.train.batch_size"
            )
        statistic = make_statistic(self._detector, self._mesh, self._config)
        weights = jax.jit(mean_squares)
        layers = scope(self._detector, self._config, params)

        def measure(params: Any) -> np.ndarray:
            found = jax.device_get(statistic(params, stats, batch))
            sizes = np.array([found[name] for name in layers], np.float64)
            if settings.normalize_by_weight:
                squares = jax.device_get(weights(params))
                sizes = sizes / np.array([squares[name] for name in layers], np.float64)
            return sizes

        scale = jax.jit(_scale, out_shardings=replicated(self._mesh))
        before = measured = measure(params)
        if not np.isfinite(before).all():
            raise ConfigError(
                "config.calibration: the gradient at the initial weights is not finite; set "
                "--config.calibration.iterations=0 and see where it comes from"
            )
        if not (before > 0).any():
            raise ConfigError(
                f"config.calibration.scope={settings.scope!r}: none of its {len(layers)} layers has a "
                "gradient at the initial weights"
            )
        spreads, kept, total = [spread(before)], 0, np.ones(len(layers))
        for _ in range(settings.iterations):
            factors = multipliers(measured, settings.alpha)
            changed = scale(params, dict(zip(layers, factors.astype(np.float32))))
            after = measure(changed)
            spreads.append(spread(after))
            rose = not spreads[-1] < spreads[-2]
            if settings.guard and rose and settings.iterations > 1:
                break
            params, measured, kept, total = changed, after, kept + 1, total * factors
        self.report = Report(tuple(layers), before, measured, total, tuple(spreads), kept)
        return params, stats

    def describe(self) -> str:
        """Spreads and range of the multipliers, and a warning where the spread did not fall."""
        assert self.report is not None
        settings, report = self._config.calibration, self.report
        silent = int((report.before == 0).sum())
        lines = [
            f"gradient calibration, alpha {settings.alpha:g}, {settings.statistic}: {len(report.layers)} "
            f"layers ({settings.scope}), deviation of log10 of the gradients' mean square "
            f"{' → '.join(f'{x:.2f}' for x in report.spreads)}, kernels × {report.multipliers.min():.3g} … "
            f"{report.multipliers.max():.3g}"
            + (f"; {silent} layers without gradient are left as they are" if silent else "")
        ]
        if self._config.init_from.path:
            lines.append(
                "  WARNING: these kernels are those of config.init_from.path where it has them, no longer "
                "as they were trained; config.calibration.iterations=0 leaves them so"
            )
        if settings.guard and report.kept < len(report.spreads) - 1:
            lines.append(
                f"  pass {len(report.spreads) - 1} did not narrow them and is undone; {report.kept} kept"
            )
        elif settings.guard and not report.spreads[-1] < report.spreads[0] and report.kept:
            lines.append(
                "  WARNING: that did not narrow them, as in branches of transformers, where a larger "
                "kernel raises its neighbour's gradient; config.calibration.scope=scale_invariant does"
            )
        return "\n".join(lines)

    def record(self) -> Mapping[str, Any]:
        """Settings, spreads and the multiplier of every kernel."""
        assert self.report is not None
        return {
            **self._config.calibration.to_dict(),
            "spreads": list(self.report.spreads),
            "kept": self.report.kept,
            "multipliers": dict(zip(self.report.layers, self.report.multipliers.tolist())),
        }


def scope(detector: Any, config: ConfigDict, params: Any) -> list[str]:
    """Paths of the kernels that ``config.calibration.scope`` names, in the order of the parameters.

    Raises:
        ConfigError: there are none.
    """
    chosen = config.calibration.scope
    layers = list(jax.eval_shape(mean_squares, params))
    if chosen == "backbone":
        fields = [field for field, kind in detector.parts.items() if kind == "backbone"]
        found = [path for path in layers if path.split("/")[0] in fields]
    elif chosen == "all":
        layout = detector.head_layout()
        classes = [layer.pattern for layer in layout.classes] if layout else []
        last = [*classes, layout.boxes, *layout.outputs] if layout else []
        found = [path for path in layers if not any(re.fullmatch(p, path) for p in last)]
    else:
        with observe.scale_invariant() as invariant:  # of a trace of its own
            jax.eval_shape(lambda: state.init_variables(detector, config))
        found = [path for path in layers if path in invariant]
    if not found:
        raise ConfigError(
            f"config.calibration.scope={chosen!r} names no layer of config.model.name="
            f"{config.model.name!r}; take another, or --config.calibration.iterations=0"
        )
    return found


def multipliers(sizes: np.ndarray, alpha: float) -> np.ndarray:
    """Factors ``(C / geometric mean)^alpha``; 1 for layers without a gradient, which are left out.

    Their product is 1. With alpha 0.25, sizes (1, 16, 0) give (0.7071, 1.4142, 1).

    Args:
        sizes: statistic of every layer, at least one above 0.
        alpha: 0 … 0.5.
    """
    known = sizes > 0
    logs = np.log(np.where(known, sizes, 1.0))
    logs = np.where(known, logs - logs[known].mean(), 0.0)
    return np.exp(alpha * logs)


def spread(sizes: np.ndarray) -> float:
    """Standard deviation of log10 of the statistic over the layers that have a gradient.

    nan where that of some layer is not finite.
    """
    if not np.isfinite(sizes).all():
        return float("nan")
    return float(np.std(np.log10(sizes[sizes > 0])))


def by_kind(report: Report, params: Any) -> dict[str, list[int]]:
    """Places in the report by kind of layer: "convolution", or the name of a dense layer."""
    shapes = {
        path_text(path): leaf.ndim for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    found = defaultdict(list)
    for i, path in enumerate(report.layers):
        found["convolution" if shapes[path] == 4 else path.split("/")[-2]].append(i)
    return dict(found)


def _scale(params: Any, factors: Mapping[str, Any]) -> Any:
    """Parameters with kernels multiplied by their factors."""
    return jax.tree_util.tree_map_with_path(
        lambda path, x: x * factors[name] if (name := path_text(path)) in factors else x, params
    )
