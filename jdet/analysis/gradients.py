"""Measures on a run whether the gradient's variance falls as one over the batch size (MegDet's argument).

    python -m jdet.analysis.gradients runs/mine --batches=1,2,4,8,16,32 --out=gradients

At the weights of a checkpoint, gradients of the training loss are drawn at every batch size; their
variance is plotted against 1/N in ``gradients.png``; ``gradients.csv`` and ``gradients.md`` hold the
numbers. docs/large_batches.md says what they mean and what each option holds fixed.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jdet import build, cli
from jdet import config as config_lib
from jdet.analysis.gradient_figures import draw, markdown, table
from jdet.analysis.gradient_noise import TEAM, Law, Noise, fit, measure
from jdet.atomic_files import write_text
from jdet.data import pipeline
from jdet.train import schedule, state
from jdet.train.gradient import call_losses, step_key
from jdet.train.workdir import open_run
from jdet.types import Batch, ConfigError, Source

NORMS = {
    "batch": "statistics of the images of a gradient, in the run's groups, as in training",
    "running": "the run's running statistics, so that no image depends on another",
}
NORMALISERS = {
    "batch": "objects matched in the images of a gradient, as in training",
    "fixed": "as many as so many images have on average, so that the loss is a mean over images",
}
ORDERS = {
    "independent": "images drawn with replacement from the whole set, each augmented on its own",
    "training": "the run's own epochs, in which no image comes twice",
}


class Drawn:
    """A source whose images are drawn from another with replacement.

    Attributes:
        class_names: of the source.

    Args:
        source: to draw from.
        count: images to draw.
        seed: of the drawing.
    """

    def __init__(self, source: Source, count: int, seed: Sequence[int]):
        self.class_names = source.class_names
        self._source = source
        self._index = np.random.default_rng(seed).integers(0, len(source), count)

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int):
        return self._source[int(self._index[index])]


def batches(
    config: ConfigDict,
    source: Source,
    size: int,
    count: int,
    *,
    order: str,
    seed: int,
    needs: Sequence[str] = (),
) -> Iterator[Batch]:
    """The batches whose gradients are measured, on the device.

    Args:
        config: of the run.
        source: its training data.
        size: images per batch.
        count: batches.
        order: one of ``ORDERS``.
        seed: with "independent": of the drawing, and of the augmentation, which is thus not the run's;
            each size has draws of its own. "training" is what the run's seed says.
        needs: optional fields that the detector reads.
    """
    if order == "independent":
        source = Drawn(source, size * count, [seed, size])
        seed = int(np.random.SeedSequence([seed, size]).generate_state(1)[0])
    else:
        seed = config.seed
    keys = ("max_boxes", "workers", "threads", "prefetch", "on_error")
    with pipeline.train_batches(
        source,
        resize=build.resize(config),
        augment=build.augment(config),
        batch_size=size,
        seed=seed,
        mask_size=config.data.mask_size if "masks" in needs else 0,
        tile=build.train_tile(config),
        mix=build.train_mix(config),
        **{key: config.data[key] for key in keys},
    ) as stream:
        yield from (jax.device_put(batch) for batch in itertools.islice(stream, count))


def make_gradient(
    detector: Any, *, norms: str, weights: dict[str, float] | None
) -> Callable[[Any, Batch], Any]:
    """The gradient of a batch's loss by all parameters.

    Args:
        detector: with ``losses``.
        norms: one of ``NORMS``; with "running" there is no dropout either.
        weights: what each loss part is divided by, per image; None: its own weight in the batch.

    Returns:
        Variables ("params" and, where there are any, "batch_stats") and a batch to a tree like the
        parameters. Random numbers of the network follow from the images' indices.
    """

    def loss(params: Any, rest: Any, batch: Batch) -> jax.Array:
        key = step_key(0, jnp.sum(batch.index))
        means, _ = call_losses(
            detector, {"params": params, **rest}, batch, key, train=norms == "batch"
        )
        parts = []
        for name, mean in means.items():
            weight = jnp.maximum(jax.lax.stop_gradient(mean.weight), 1.0)
            if weights is not None:
                weight = weights[name] * len(batch.images)
            parts.append(mean.total / weight)
        return jnp.sum(jnp.stack(parts))

    def gradient(variables: Any, batch: Batch) -> Any:
        rest = {name: value for name, value in variables.items() if name != "params"}
        return jax.grad(loss)(variables["params"], rest, batch)

    return gradient


def average_weights(detector: Any, variables: Any, draws: Iterator[Batch]) -> dict[str, float]:
    """Mean weight of every loss part per image (0 counts as 1 over all images)."""

    @jax.jit
    def weigh(variables: Any, batch: Batch) -> dict[str, jax.Array]:
        means, _ = call_losses(detector, variables, batch, step_key(0, 0), train=False)
        return {name: mean.weight for name, mean in means.items()}

    images, sums = 0, {}
    for batch in draws:
        images += len(batch.images)
        for name, weight in jax.device_get(weigh(variables, batch)).items():
            sums[name] = sums.get(name, 0.0) + float(weight)
    return {name: max(total, 1.0) / images for name, total in sums.items()}


def analyse(
    run: str | Path,
    out: str | Path,
    sizes: Sequence[int],
    *,
    step: int | str = "latest",
    draws: int = 32,
    norms: str = "batch",
    group: int = 0,
    normaliser: str = "batch",
    order: str = "independent",
    seed: int = 0,
) -> tuple[list[Noise], Law]:
    """Measures, draws and tabulates the gradient's variance at a checkpoint of a run.

    Args:
        run: folder of the run.
        out: folder for the results; made if it is not there.
        sizes: of the batches.
        step: of the checkpoint; "latest", "best" or a number. The weights are those that train, not
            their moving average.
        draws: gradients at each size, a multiple of four.
        norms: one of ``NORMS``.
        group: images that share statistics; 0: as in the run. A smaller batch is one group.
        normaliser: one of ``NORMALISERS``.
        order: one of ``ORDERS``.
        seed: see ``batches``.

    Returns:
        What was measured, by size, and the fit.

    Raises:
        ConfigError: a value that cannot be, or no run there.
        DataError: the run's training data is missing.
        jdet.train.checkpoints.checkpoint.CheckpointError: no readable checkpoint.
    """
    opened, out = open_run(run), Path(out)
    sizes = sorted(set(sizes))
    run, config = opened.path, opened.config
    source, _ = build.sources(config)
    group = group or _group_of(config, opened.record, len(source))
    _check(sizes, draws, group, norms)
    with config.unlocked():
        for which, kind in config_lib.norms(config).items():
            if kind == "batch":
                config.model[which] = "sync_batch"  # the same network, with groups of a given size
        synced = "sync_batch" in config_lib.norms(config).values()
        config.parallel.bn_group_size = group if synced else 0
        config.train.remat, config.train.remat_parts = "none", ()
    detector = build.detector(config, config.class_names)
    found = opened.weights(step)
    variables = jax.device_put(state.variables(found.params, found.stats))

    stream = functools.partial(
        batches, config, source, order=order, seed=seed, needs=detector.needs
    )
    weights = None
    if normaliser == "fixed":
        weights = average_weights(detector, variables, stream(sizes[-1], -(-256 // sizes[-1])))
    points = []
    for size in sizes:
        gradient = make_gradient(detector, norms=norms, weights=weights)
        point = measure(gradient, variables, stream(size, draws), size)
        print(f"batch {size}: variance {point.variance:.4g} ± {point.error:.2g}", flush=True)
        if not np.isfinite(point.variance):
            raise ConfigError(
                f"{run}: the gradient of {size} images is not finite at step {found.step}; take an "
                "earlier checkpoint with --step"
            )
        if point.variance <= 0:
            raise ConfigError(f"{run}: gradients of {size} images do not differ; nothing to fit")
        points.append(point)
    law = fit(points)
    statistics = NORMS[norms]
    if norms == "batch" and synced:
        statistics += f" ({group} images)"
    notes = [
        f"Run {run.name}, step {found.step}; {draws} gradients at each size, by all parameters.",
        f"Norms: {statistics if synced else 'none that batches share'}.",
        f"Loss divided by: {NORMALISERS[normaliser]}.",
        f"Images: {ORDERS[order]}; seed {seed if order == 'independent' else config.seed}.",
    ]
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "gradients.csv", table(points))
    text = markdown(points, law, notes)
    write_text(out / "gradients.md", text)
    draw(points, law).savefig(out / "gradients.png", dpi=120)
    print(text)
    return points, law


def _group_of(config: ConfigDict, record: dict[str, Any], images: int) -> int:
    """Images that shared statistics in the run."""
    resolved = schedule.resolve(config, images, devices=record.get("devices", 1))
    synced = "sync_batch" in config_lib.norms(config).values()
    return resolved.bn_group if synced else resolved.micro_batch


def _check(sizes: Sequence[int], draws: int, group: int, norms: str) -> None:
    if len(sizes) < 2 or sizes[0] < 1:
        raise ConfigError(
            f"--batches={','.join(map(str, sizes))}; give two sizes or more, from 1 on"
        )
    if draws % TEAM or draws < 2 * TEAM:
        raise ConfigError(f"--draws={draws}; take a multiple of {TEAM}, {2 * TEAM} at least")
    if group < 0:
        raise ConfigError(f"--group={group}; give images that share statistics, or 0")
    odd = [size for size in sizes if size > group and size % group]
    if norms == "batch" and odd:
        raise ConfigError(
            f"--batches: {odd[0]} images do not divide into groups of {group} that share statistics; "
            f"take multiples of {group} above it, another --group, or --norms=running"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m jdet.analysis.gradients",
        description="Measures the variance of a run's gradient against the batch size.",
    )
    parser.add_argument("run", metavar="RUN", help="folder of a training run")
    parser.add_argument("--batches", required=True, help="sizes, comma-separated, such as 1,2,4,8")
    parser.add_argument("--out", required=True, help="folder for figure and tables")
    parser.add_argument("--step", default="latest", help="checkpoint: latest, best or a number")
    parser.add_argument("--draws", type=int, default=32, help="gradients at each size")
    parser.add_argument("--norms", choices=list(NORMS), default="batch", help=_help(NORMS))
    parser.add_argument(
        "--group", type=int, default=0, help="images that share statistics; 0: as in the run"
    )
    parser.add_argument(
        "--normaliser", choices=list(NORMALISERS), default="batch", help=_help(NORMALISERS)
    )
    parser.add_argument("--order", choices=list(ORDERS), default="independent", help=_help(ORDERS))
    parser.add_argument("--seed", type=int, default=0, help="of the independent draws")
    args = parser.parse_args(argv)
    try:
        sizes = [int(size) for size in args.batches.split(",")]
    except ValueError:
        parser.error(f"--batches={args.batches}; give whole numbers, such as 1,2,4,8")
    options = {
        key: value for key, value in vars(args).items() if key not in ("run", "out", "batches")
    }
    return cli.run(lambda: analyse(args.run, args.out, sizes, **options), OSError)


def _help(choices: dict[str, str]) -> str:
    return "; ".join(f"{name}: {text}" for name, text in choices.items())


if __name__ == "__main__":
    sys.exit(main())
