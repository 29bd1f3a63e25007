"""How often each class is there, and in which split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from jdet.doctor.findings import Case, Finding, plural
from jdet.doctor.splits import Split

FEWEST = 10
"""Training objects of a class below which little can be learnt."""

UNEQUAL = 20
"""Most frequent over rarest class of the training objects, from which on it is worth a word."""


def class_counts(splits: Sequence[Split]) -> np.ndarray:
    """Objects of each class in each split that are not ignored, int [splits, K]."""
    classes = len(splits[0].source.class_names)
    return np.array(
        [
            np.bincount(split.objects.labels[~split.objects.ignore], minlength=classes)
            for split in splits
        ]
    )


def findings(splits: Sequence[Split]) -> Iterator[Finding]:
    """Classes that are missing, rare, or far more frequent than others."""
    names, counts = splits[0].source.class_names, class_counts(splits)
    trained = counts[[split.trained for split in splits]].sum(0)
    if not counts.sum():
        return
    tested = counts[[not split.trained for split in splits]].sum(0)
    unknown = [k for k in range(len(names)) if tested[k] and not trained[k]]
    if unknown:
        yield Finding.of(
            "classes_not_trained",
            "error",
            f"{_listed(names, unknown)} {_is(unknown)} evaluated and never trained",
            [_case(splits, names, k, tested[k]) for k in unknown],
            consequence="These classes cannot be found: each counts as an AP of 0 in every mean.",
            remedy="Put images with them into the training set, or name the classes that you want: "
            "--config.data.train.classes and --config.data.eval.classes.",
        )
    unused = [k for k in range(len(names)) if not tested[k] and not trained[k]]
    if unused:
        yield Finding.of(
            "classes_without_objects",
            "warning",
            f"{_listed(names, unused)} {_has(unused)} no object in any split",
            [Case((), names[k]) for k in unused],
            consequence="The network has outputs for them that never learn anything.",
            remedy="Leave them out of the list of classes, unless you will label some.",
        )
    untested = [k for k in range(len(names)) if trained[k] and not tested[k]]
    if untested and len(splits) > 1:
        yield Finding.of(
            "classes_not_evaluated",
            "warning",
            f"{_listed(names, untested)} {_is(untested)} trained and never evaluated",
            [_case(splits, names, k, trained[k]) for k in untested],
            consequence="No number says how well they are found.",
            remedy="Put images with them into the evaluation set.",
        )
    rare = [k for k in range(len(names)) if 0 < trained[k] < FEWEST]
    if rare:
        yield Finding.of(
            "rare_classes",
            "warning",
            f"{_listed(names, rare)} {_has(rare)} fewer than {FEWEST} objects to train on",
            [_case(splits, names, k, trained[k]) for k in rare],
            consequence="So few objects can be learnt by heart, but hardly recognised elsewhere.",
            remedy="Label more of them, or join them to a class like them.",
        )
    some = trained[trained > 0]
    if len(some) > 1 and some.max() >= UNEQUAL * some.min():
        ratio = some.max() / some.min()
        order = [int(k) for k in np.argsort(trained, kind="stable") if trained[k]]
        yield Finding(
            "unequal_classes",
            "warning" if ratio >= 5 * UNEQUAL else "note",
            len(some),
            f"{names[order[-1]]} has {ratio:,.0f} times the training objects of {names[order[0]]}",
            "The frequent classes make nearly all of the loss, and rare ones are found late or never.",
            "Show images with rare classes more often, --config.data.repeat_threshold=0.05, or weigh "
            "classes, --config.train.class_weights.by=effective_number (docs/adapting.md).",
            tuple(Case((), f"{names[k]}: {plural(trained[k], 'object')}") for k in order),
        )


def _case(splits: Sequence[Split], names: Sequence[str], label: int, count: int) -> Case:
    """A class with an image that shows it."""
    for split in splits:
        rows = np.flatnonzero((split.objects.labels == label) & ~split.objects.ignore)
        if len(rows):
            place = split.place(split.objects.image[rows[0]], rows[:1])
            return Case((place,), f"{names[label]}: {plural(count, 'object')}")
    return Case((), names[label])


def _listed(names: Sequence[str], labels: Sequence[int]) -> str:
    """The first of some classes, and how many more there are."""
    shown = ", ".join(names[label] for label in labels[:5])
    return shown + (f" and {len(labels) - 5} more classes" if len(labels) > 5 else "")


def _is(labels: Sequence[int]) -> str:
    return "is" if len(labels) == 1 else "are"


def _has(labels: Sequence[int]) -> str:
    return "has" if len(labels) == 1 else "have"
