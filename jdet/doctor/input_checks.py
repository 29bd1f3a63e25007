"""What becomes of objects at the network's input: sizes, proportions, limits, reach of the anchors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jdet import build
from jdet.analysis import box_coverage
from jdet.doctor.findings import Case, Finding, share
from jdet.doctor.splits import Split

SIDES = (4, 8, 16)
"""Square roots of areas, pixels of the network input, under which objects are counted."""

LONG = 5.0
"""Longer side over the shorter one of a long object."""

_TINY, _SMALL, _LONG_SHARE = 0.02, 0.1, 0.05
_KEYS = {"max_boxes": "data.max_boxes", "max_detections": "model.max_detections"}


class Seen(NamedTuple):
    """The objects of a split at the network's input.

    Attributes:
        size: float [m], square roots of their areas, pixels; nan of ignored ones.
        ratio: float [m], longer side over the shorter one; nan likewise.
    """

    size: np.ndarray
    ratio: np.ndarray


def setting(config: ConfigDict) -> str:
    """The keys that decide how large the network sees images, with their values."""
    found = [build.resize(config).test_setting()]
    for key, group in (("data.tile.side", config.data.tile), ("eval.tile.side", config.eval.tile)):
        if group.side:
            found.append(f"config.{key}={group.side}")
    return ", ".join(found)


def seen(split: Split, config: ConfigDict) -> Seen:
    """Sizes of a split's objects as its images are shown without augmentation.

    Where they are shown in tiles (``data.tile`` in training, ``eval.tile`` in testing), those are resized
    and not the images, and an object that is larger than a tile counts as large as the tile.
    """
    objects, resize = split.objects, build.resize(config)
    side = config.data.tile.side if split.trained else config.eval.tile.side
    scale = np.full((len(objects.sizes), 2), np.nan)
    for index, (height, width) in enumerate(objects.sizes.tolist()):
        if height > 0 and width > 0:
            h, w = (min(int(length), side or int(length)) for length in (height, width))
            content = resize.content(h, w, resize.shapes[resize.shape_of(h, w)])
            scale[index] = content[1] / w, content[0] / h
    sides = np.minimum(objects.sides, side or np.inf) * scale[objects.image]
    low = np.maximum(sides.min(1, initial=np.inf), 1e-6)
    sides[objects.ignore] = np.nan  # a crowd is no object
    return Seen(np.sqrt(sides.prod(1)), sides.max(1, initial=0) / low)


def size_table(splits: Sequence[Split], config: ConfigDict) -> list[dict[str, Any]]:
    """By class, over all splits: objects, percentiles of their sizes, shares under ``SIDES``."""
    size = np.concatenate([seen(split, config).size for split in splits])
    labels = np.concatenate([split.objects.labels for split in splits])
    rows = []
    for label, name in enumerate(splits[0].source.class_names):
        own = size[(labels == label) & np.isfinite(size)]
        if len(own):
            rows.append(
                {
                    "class": name,
                    "objects": len(own),
                    "sizes": np.percentile(own, (10, 50, 90)).round(1).tolist(),
                    "under": {str(side): float((own < side).mean()) for side in SIDES},
                }
            )
    return rows


def findings(splits: Sequence[Split], config: ConfigDict, network: bool) -> Iterator[Finding]:
    """Everything that depends on the network and its input.

    Args:
        splits: of the set.
        config: with the resize and the tiles, and, where ``network`` says so, the detector.
        network: the config is one to train, not the defaults.
    """
    yield from _sizes(splits, config)
    yield from _long(splits, config)
    if network:
        yield from _limits(splits, config)
        yield from _anchors(splits, config)


def _sizes(splits: Sequence[Split], config: ConfigDict) -> Iterator[Finding]:
    sizes = [seen(split, config).size for split in splits]
    every = np.concatenate(sizes)
    every = every[np.isfinite(every)]
    if not len(every):
        return
    under = {side: float((every < side).mean()) for side in SIDES}
    if under[8] <= _TINY and under[16] <= _SMALL:
        return
    rows = [
        (size, number, row)
        for number, split in enumerate(sizes)
        for row, size in enumerate(split.tolist())
        if size < (8 if under[8] > _TINY else 16)
    ]
    cases = []
    for size, number, row in sorted(rows):
        split = splits[number]
        name = split.source.class_names[split.objects.labels[row]]
        place = split.place(split.objects.image[row], [row])
        cases.append(Case((place,), f"{name}, {size:.1f} pixels at the input"))
    tenth = float(np.percentile(every, 10))
    larger = ""
    if tenth < 16:
        larger = (
            f"; {16 / tenth:.2g} times the input shows nine tenths of them at 16 pixels or more"
        )
    shares = ", ".join(f"{share(under[s], 1)} under {s}" for s in SIDES)
    yield Finding.of(
        "small_objects",
        "warning" if under[8] > _TINY else "note",
        f"at {setting(config)} many objects are small: {shares} pixels (square root of the area)",
        cases,
        consequence="An object under 8 pixels is less than a cell of the finest map of most detectors, "
        "and few of them are found.",
        remedy=f"A larger input ({setting(config)} now){larger}; a level of stride 4 "
        "(config.model.taps), or tiles of large images.",
    )


def _long(splits: Sequence[Split], config: ConfigDict) -> Iterator[Finding]:
    ratios = [seen(split, config).ratio for split in splits]
    every = np.concatenate(ratios)
    every = every[np.isfinite(every)]
    long = float((every > LONG).mean()) if len(every) else 0.0
    if long <= _LONG_SHARE:
        return
    found = [
        (ratio, number, row)
        for number, some in enumerate(ratios)
        for row, ratio in enumerate(some.tolist())
        if ratio > LONG
    ]
    cases = []
    for ratio, number, row in sorted(found, reverse=True):
        split = splits[number]
        place = split.place(split.objects.image[row], [row])
        cases.append(Case((place,), f"{ratio:.1f} times as long as wide"))
    yield Finding.of(
        "long_objects",
        "note",
        f"{share(long, 1)} of the objects are more than {LONG:g} times as long as wide at the input",
        cases,
        consequence="Anchors of the usual proportions overlap them little, and a warped input may be "
        "what makes them so long.",
        remedy="Keep the proportions of images (config.resize.name=keep_ratio); longer anchors: "
        "python -m jdet.analysis.default_boxes --config=…",
    )


def _limits(splits: Sequence[Split], config: ConfigDict) -> Iterator[Finding]:
    """Images with more objects than fit."""
    for name, limit, consequence, remedy in (
        (
            "max_boxes",
            config.data.max_boxes,
            "Crowds, difficult ones and then the smallest objects are left out, and what they show is "
            "trained as background.",
            "--config.data.max_boxes={}",
        ),
        (
            "max_detections",
            config.model.get("max_detections", 0),
            "Even a perfect detector misses the rest, as it gives no more detections of an image.",
            "--config.model.max_detections={}, and as many where AP is taken "
            "(config.eval.coco.max_detections).",
        ),
    ):
        crowded = [
            (-count, number, index)
            for number, split in enumerate(splits)
            if split.trained or name == "max_detections"
            for index, count in enumerate(split.objects.counts.tolist())
            if limit and count > limit
        ]
        if crowded:
            most = -min(crowded)[0]
            lost = sum(-count - limit for count, _, _ in crowded)
            cases = [
                Case((splits[number].place(index, None),), f"{-count} objects")
                for count, number, index in sorted(crowded)
            ]
            yield Finding.of(
                f"more_than_{name}",
                "warning",
                f"images with more objects than config.{_KEYS[name]}={limit}: {len(cases):,}; "
                f"{lost:,} objects too many, up to {most:,} in an image",
                cases,
                consequence=consequence,
                remedy=remedy.format(int(2 ** np.ceil(np.log2(most)))),
            )


def _anchors(splits: Sequence[Split], config: ConfigDict) -> Iterator[Finding]:
    """Classes of which no anchor reaches many objects, in the detector's own words."""
    train = next(split for split in splits if split.trained)
    if not len(train.objects.labels):
        return
    detector, resize = build.detector(config, config.class_names), build.resize(config)
    objects = box_coverage.sampler(train.source, resize, tile=build.train_tile(config))
    text = detector.start_warning(objects, config.class_names, resize)
    if text:
        what, _, how = text.partition(". They")
        yield Finding(
            "objects_without_anchor",
            "warning",
            1,
            what,
            "They" + how if how else "They are learnt through a single anchor each, or not at all.",
            "python -m jdet.analysis.default_boxes --config=… proposes sizes to paste; detectors without "
            "anchors (fcos, atss, reppoints_v2) need none.",
        )
