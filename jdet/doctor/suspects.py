"""Labels that a finished run contradicts with confidence, from its ``analysis.json``."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from jdet.analyse import records
from jdet.doctor.findings import Case, Finding, Place
from jdet.doctor.splits import Split
from jdet.types import ConfigError

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
        splits: of the set; images are recognised by their names.
        folder: of the run.

    Raises:
        ConfigError: the run was not analysed, or on none of these images.
        DataError: its analysis cannot be read.
    """
    analysis = records.read(folder)
    if analysis is None:
        raise ConfigError(
            f"--run={folder} has no {records.FILE}; "
            f"`python -m jdet.analyse {shlex.quote(str(folder))}` makes it"
        )
    names = tuple(splits[0].source.class_names)
    evaluated = [split for split in splits if not split.trained] or list(splits)
    places: dict[str, tuple[Split, int]] = {}
    for split in evaluated:
        own = getattr(split.source, "image_ids", ()) or ()
        places |= {str(id): (split, index) for index, id in enumerate(own)}
        places |= {id: (split, index) for index, id in enumerate(split.ids)}
    found = defaultdict(list)
    for one in analysis.label_suspects:
        if str(one["image"]) not in places:
            continue
        split, index = places[str(one["image"])]
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
    if analysis.label_suspects and not found:
        raise ConfigError(
            f"--run={folder} was evaluated on other images than these; examine its own data: "
            f"python -m jdet.doctor --run={shlex.quote(str(folder))}"
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
