"""Shows how uneven the gradients of a detector's layers are at its initial weights, and after calibration.

    python -m jdet.analysis.calibrate --config=experiments/x.py [--config.calibration.alpha=…]
        [--phase=NAME] [--out=FILE]

Measures on the first batch of the training data, by layer and by kind of layer, what
``config.calibration`` goes by, and applies it; nothing is trained. docs/transformers.md says what it means.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from jdet import atomic_files, build, cli
from jdet import config as config_lib
from jdet.evaluation import loaders
from jdet.parallel import mesh as mesh_lib
from jdet.train import state
from jdet.train.init.calibrate import Calibration, Report, by_kind, spread


def analyse(config: ConfigDict) -> tuple[Calibration, Any]:
    """Calibrates the initial weights of a config.

    Args:
        config: complete config; with ``calibration.iterations`` 0 one pass is made. Not changed.

    Returns:
        The transform, which has its report, and the shapes of the parameters.

    Raises:
        ConfigError: the config is invalid, or there is nothing to calibrate.
        DataError: the data is missing, or the batch has no object.
    """
    config = config.copy_and_resolve_references()
    config_lib.validate(config)
    config.calibration.iterations = config.calibration.iterations or 1
    mesh_lib.split_cpu(config)
    source, _ = build.sources(config)
    build.look_at_images(config, source)
    build.normalise.settle(config, source)
    build.settle_class_weights(config, source)
    detector = build.detector(config, source.class_names, axis_name="member")
    mesh = mesh_lib.make_mesh(config)
    initial = jax.jit(
        lambda: state.init_variables(detector, config), out_shardings=mesh_lib.replicated(mesh)
    )
    batches = functools.partial(loaders.train_batches, config, source, needs=detector.needs)
    transform = Calibration(detector, mesh, config, batches)
    params, stats = initial()
    transform(params, stats)
    return transform, jax.eval_shape(lambda: params)


def table(report: Report, params: Any) -> list[str]:
    """Lines of text: kinds of layers with their gradients before and after, then the layers."""
    wide = max(len(path) for path in report.layers)
    lines = [f"{'kind':{wide}}  {'layers':>6}  {'log10 C':>15}  {'after':>15}"]
    for kind, places in by_kind(report, params).items():
        cells = [_moments(values[places]) for values in (report.before, report.after)]
        lines.append(f"{kind:{wide}}  {len(places):6}  {cells[0]:>15}  {cells[1]:>15}")
    cells = [_moments(values) for values in (report.before, report.after)]
    lines += [f"{'all':{wide}}  {len(report.layers):6}  {cells[0]:>15}  {cells[1]:>15}", ""]
    lines.append(f"{'layer':{wide}}  {'log10 C':>8}  {'after':>8}  {'kernel ×':>8}")
    for row in zip(report.layers, report.before, report.after, report.multipliers):
        before, after = (f"{np.log10(x):8.2f}" if x > 0 else f"{'none':>8}" for x in row[1:3])
        lines.append(f"{row[0]:{wide}}  {before}  {after}  {row[3]:8.3f}")
    return lines


def _moments(sizes: np.ndarray) -> str:
    """Mean and deviation of log10 over the layers with a gradient."""
    known = sizes[sizes > 0]
    return f"{np.log10(known).mean():.2f} ± {spread(known):.2f}" if len(known) else "none"


def main() -> None:
    """The command."""
    values = flags.FLAGS
    first = values.config.phases[0] if values.config.phases else ""
    transform, params = analyse(config_lib.of_phase(values.config, values.phase or first))
    assert transform.report is not None
    print("\n".join([*table(transform.report, params), "", transform.describe()]))
    if flags.FLAGS.out:
        report = transform.report
        values = {name: getattr(report, name).tolist() for name in ("before", "after")}
        atomic_files.write_json(flags.FLAGS.out, {**transform.record(), **values})


if __name__ == "__main__":
    flags.DEFINE_string("phase", "", "Phase of a config that has some; else its first.")
    flags.DEFINE_string("out", "", "JSON file that gets the same numbers for programs.")
    cli.start(main)
