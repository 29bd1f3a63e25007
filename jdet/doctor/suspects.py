"""Labels that a finished run contradicts with confidence, from its ``analysis.json``."""

from __future__ import annotations

import json
import shlex
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from jdet.analyse import records
from jdet.doctor.findings import Case, Finding, Place
from jdet.doctor.splits import Split
from jdet.evaluation.results import IMAGES
from jdet.types import ConfigError, DataError

KINDS = {
    "unlabelled": ("objects that seem to carry no box", "Draw the missing boxes."),
    "wrong_class": ("objects that seem to carry the wrong class", "Correct the class."),
    "badly_placed": ("boxes that seem to lie beside their object", "Draw these boxes anew."),
    "nothing_there": ("boxes that seem to be around nothing", "Delete these boxes."),
}
"""By ``records.SUSPECTS``: what was found, and what to do."""


def findings(splits: Sequence[Split], folder: Path) -> Iterator[Finding]:
    """What the analysis of a run suspects.

    Args:
        splits: of the set; images are recognised by their names, which ``images.json`` of the run has.
        folder: of the run.

    Raises:
        ConfigError: the run was not analysed, or on none of these images.
        DataError: its analysis or its list of images cannot be read.
    """
    analysis = records.read(folder)
    if analysis is None:
        raise ConfigError(
            f"--run={folder} has no {records.FILE}; "
            f"`python -m jdet.analyse {shlex.quote(str(folder))}` makes it"
        )
    names = tuple(splits[0].source.class_names)
    name_of = _names(folder)
    split, places = _evaluated(splits, set(name_of.values()), folder)
    found = defaultdict(list)
    for one in analysis.label_suspects:
        index = places.get(name_of.get(one["image"], ""))
        if index is None:
            continue
        label = names.index(one["class"]) if one["class"] in names else 0
        place = Place(
            split.name,
            index,
            split.ids[index],
            split.files[index],
            (tuple(one["box"]),),
            (label,),
        )
        other = f", found {one['other']}" if one["other"] else ""
        found[one["kind"]].append(
            Case((place,), f"{one['class']}{other}, score {one['score']:.2f}")
        )
    for kind, (what, remedy) in KINDS.items():
        if cases := found[kind]:
            yield Finding.of(
                f"suspected_{kind}",
                "warning",
                f"{what}, by confident detections of the run: {len(cases):,}",
                cases,
                consequence="Where the detector is right, the numbers count it as wrong, and the training "
                "split has such labels too.",
                remedy=f"Look at them. {remedy}",
            )


def _names(folder: Path) -> dict[int | str, str]:
    """Names of the images that a run was evaluated on, by the ids that its files use.

    Raises:
        DataError: the file is missing or damaged.
    """
    path = folder / IMAGES
    try:
        images = json.loads(path.read_text(encoding="utf-8"))["images"]
        return {image["id"]: image["name"] for image in images}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); evaluate the run again: "
            f"python -c {shlex.quote(f'from jdet import run; run.evaluate({str(folder)!r})')}"
        ) from error


def _evaluated(
    splits: Sequence[Split], names: set[str], folder: Path
) -> tuple[Split, dict[str, int]]:
    """The split that holds the images a run was evaluated on, and the places of images in it by name.

    Raises:
        ConfigError: none holds one of them, or several hold equally many.
    """
    candidates = [split for split in splits if not split.trained] or list(splits)
    held = [len(names.intersection(split.ids)) for split in candidates]
    most = max(held)
    own = f"examine its own data: python -m jdet.doctor --run={shlex.quote(str(folder))}"
    if names and not most:
        raise ConfigError(f"--run={folder} was evaluated on other images than these; {own}")
    best = [split for split, count in zip(candidates, held) if count == most]
    if len(best) > 1:
        called = ", ".join(split.name for split in best)
        raise ConfigError(
            f"--run={folder} may have been evaluated on any of {called}, whose images have the same names; "
            f"{own}"
        )
    return best[0], {name: index for index, name in enumerate(best[0].ids)}
