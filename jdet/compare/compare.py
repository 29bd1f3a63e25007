"""Compares runs that were evaluated on the same images: differences of AP with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jdet.analyse.compute import in_official_order
from jdet.analyse.evaluated import EvaluatedRun
from jdet.compare.bootstrap import average_precisions, draws, mean_curve, rank
from jdet.types import ConfigError

SAMPLES = 1000
CONFIDENCE = 0.95

METRICS = ("AP", "AP50", "AP75")
_SHOWN = 3
"""Names in a message."""


class Difference(NamedTuple):
    """A metric of a run, and how far it is from that of the first run.

    Attributes:
        metric: "AP", "AP50", "AP75", of all classes or of one.
        class_name: of the class; None: mean over all.
        value: of the run, 0 … 1; None where there are no objects.
        difference: to the first run; None of the first run itself.
        low: lower end of the interval of the difference that holds ``CONFIDENCE`` of the draws.
        high: upper end.
        p_value: twice the share of draws on the other side of 0 (one more is counted, so that it is not 0).
        significant: the interval does not hold 0.
    """

    metric: str
    class_name: str | None
    value: float | None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    significant: bool | None = None


class Comparison(NamedTuple):
    """Recipes in the order they were given; the first is what the others are compared with.

    Attributes:
        runs: folders, of each recipe those of its seeds.
        images: how many were evaluated.
        samples: draws.
        seed: of the draws.
        rows: of each recipe its ``Difference`` records: all classes first, then each.
        curves: of each recipe the mean precision over classes at IoU 0.50, at 101 recalls.
    """

    runs: tuple[tuple[str, ...], ...]
    images: int
    samples: int
    seed: int
    rows: tuple[tuple[Difference, ...], ...]
    curves: tuple[list[float], ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        rows = [[row._asdict() for row in rows] for rows in self.rows]
        return {**self._asdict(), "rows": rows}


def check_same(recipes: Sequence[Sequence[EvaluatedRun]]) -> None:
    """Refuses runs whose numbers cannot be compared.

    Raises:
        ConfigError: fewer than two recipes, or runs differ in classes, images or objects; what differs is
            named.
    """
    runs = [run for seeds in recipes for run in seeds]
    if len(recipes) < 2:
        raise ConfigError("one run has nothing to be compared with; name two or more")
    first = runs[0]
    for other in runs[1:]:
        if other.class_names != first.class_names:
            raise ConfigError(
                f"{first.path} has the classes {', '.join(first.class_names)}, {other.path} "
                f"{', '.join(other.class_names)}; only runs of the same classes can be compared"
            )
        ours, theirs = ({image.name: image for image in run.images} for run in (first, other))
        lacking = [
            f"{len(names)} that {run.path} lacks ({', '.join(names[:_SHOWN])}"
            f"{' …' if len(names) > _SHOWN else ''})"
            for run, names in (
                (other, [name for name in ours if name not in theirs]),
                (first, [name for name in theirs if name not in ours]),
            )
            if names
        ]
        if lacking:
            raise ConfigError(
                f"{first.path} was evaluated on {len(ours)} images and {other.path} on {len(theirs)}, "
                f"among them {' and '.join(lacking)}; evaluate both on the same set (--config.data.eval…, "
                "--config.eval.max_images)"
            )
        labelled = [
            name
            for name, image in ours.items()
            if not all(
                np.array_equal(
                    getattr(image.ground_truth, field), getattr(theirs[name].ground_truth, field)
                )
                for field in ("xywh", "labels", "ignore")
            )
        ]
        if labelled:
            raise ConfigError(
                f"the objects of {len(labelled)} images are not the same in the evaluation sets of "
                f"{first.path} and {other.path} ({', '.join(labelled[:_SHOWN])}); compare runs on one set "
                "of labels"
            )


def compare(
    recipes: Sequence[Sequence[EvaluatedRun]], samples: int = SAMPLES, seed: int = 0
) -> Comparison:
    """Compares every recipe with the first, by a paired bootstrap over images.

    Args:
        recipes: two or more, of each one run or several seeds. The value of several is their mean, and each
            draw of images also draws as many of the seeds, with replacement.
        samples: draws.
        seed: of the draws.

    Raises:
        ConfigError: as in ``check_same``.
    """
    check_same(recipes)
    first_run = recipes[0][0]
    names, count = first_run.class_names, len(first_run.images)
    place = {image.name: i for i, image in enumerate(in_official_order(first_run.images))}
    weights = np.concatenate([np.ones((1, count), np.int32), draws(count, samples, seed)])
    rng = np.random.default_rng([seed, 1])
    rows: list[tuple[Difference, ...]] = []
    curves = []
    first: dict[tuple[str, str | None], np.ndarray] = {}
    for seeds in recipes:
        of_seeds, of_curves = [], []
        for run in seeds:
            ranked = rank(sorted(run.images, key=lambda image: place[image.name]), len(names))
            whole = average_precisions(ranked, weights[:1])  # by itself, to agree in the last digit
            precisions = np.concatenate([whole, average_precisions(ranked, weights[1:])])
            of_seeds.append(_metrics(precisions, names))
            of_curves.append(mean_curve(ranked))
        chosen = rng.integers(0, len(seeds), (samples, len(seeds)))
        found = {key: _mean_of([one[key] for one in of_seeds], chosen) for key in of_seeds[0]}
        rows.append(tuple(_difference(key, value, first.get(key)) for key, value in found.items()))
        first = first or found
        curves.append(np.mean(of_curves, axis=0).tolist())
    return Comparison(
        runs=tuple(tuple(str(run.path) for run in seeds) for seeds in recipes),
        images=count,
        samples=samples,
        seed=seed,
        rows=tuple(rows),
        curves=tuple(curves),
    )


def _mean_of(values: Sequence[np.ndarray], chosen: np.ndarray) -> np.ndarray:
    """A metric of several seeds, float64 [1 + samples], from that of each and int [samples, seeds]."""
    every = np.stack(values)
    drawn = every[chosen, np.arange(1, every.shape[1])[:, None]].mean(1)
    return np.concatenate([[every[:, 0].mean()], drawn])


def _metrics(
    precisions: np.ndarray, names: Sequence[str]
) -> dict[tuple[str, str | None], np.ndarray]:
    """Of every metric its value and that of each draw, float64 [1 + samples], from [1 + samples, K, 10]."""
    by_metric = {"AP": precisions.mean(2), "AP50": precisions[..., 0], "AP75": precisions[..., 5]}
    found: dict[tuple[str, str | None], np.ndarray] = {}
    for metric in METRICS:
        defined = ~np.isnan(by_metric[metric])
        total = np.where(defined, by_metric[metric], 0.0).sum(1)
        number = defined.sum(1)
        mean = np.divide(total, number, out=np.full(len(total), np.nan), where=number > 0)
        found[metric, None] = mean
    for label, name in enumerate(names):
        for metric in METRICS:
            found[metric, name] = by_metric[metric][:, label]
    return found


def _difference(
    key: tuple[str, str | None], values: np.ndarray, first: np.ndarray | None
) -> Difference:
    metric, name = key
    if np.isnan(values[0]):
        return Difference(metric=metric, class_name=name, value=None)
    if first is None:
        return Difference(metric=metric, class_name=name, value=float(values[0]))
    drawn = (values - first)[1:]
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return Difference(
            metric=metric,
            class_name=name,
            value=float(values[0]),
            difference=float(values[0] - first[0]),
        )
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail])
    side = (min((drawn <= 0).sum(), (drawn >= 0).sum()) + 1) / (len(drawn) + 1)
    return Difference(
        metric=metric,
        class_name=name,
        value=float(values[0]),
        difference=float(values[0] - first[0]),
        low=float(low),
        high=float(high),
        p_value=float(min(1.0, 2 * side)),
        significant=bool(low > 0 or high < 0),
    )
