"""Which class of one data set is which of another, and class layers cut and re-ordered by that.

COCO → VOC is the classic: every VOC class is one of COCO's 80 under its own or another name, so a
detector trained on COCO can start as a VOC detector with all its outputs (ScratchDet, DSOD).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jdet.types import ClassLayer

SYNONYMS = {
    "aeroplane": "airplane",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "diningtable": "dining table",
    "sofa": "couch",
    "tvmonitor": "tv",
}
"""VOC's names of classes that COCO calls otherwise."""


def match_names(new: Sequence[str], old: Sequence[str]) -> tuple[int | None, ...]:
    """For every new class its position among the old ones, or None.

    The same name counts first, then the same but for case, spaces and punctuation, with the
    ``SYNONYMS`` of VOC and COCO; a name that two old classes answer to in this way answers to none.

    Args:
        new: class names of the new model, in label order.
        old: of the old model.
    """
    exact = {name: i for i, name in enumerate(old)}
    loose: dict[str, list[int]] = {}
    for i, name in enumerate(old):
        loose.setdefault(_plain(name), []).append(i)

    def find(name: str) -> int | None:
        if name in exact:
            return exact[name]
        plain = _plain(name)  # empty where a name is punctuation alone: like no other
        found = loose.get(plain, []) if plain else []
        return found[0] if len(found) == 1 else None

    return tuple(find(name) for name in new)


def _plain(name: str) -> str:
    def letters(text: str) -> str:
        return "".join(c for c in text.casefold() if c.isalnum())

    plain = letters(name)
    return letters(SYNONYMS.get(plain, plain))


def width_of(layer: ClassLayer, classes: int) -> int:
    """Length of the last axis of a class layer's parameters, for a number of classes."""
    return layer.slots * (layer.background + classes) * layer.width


def take_classes(
    initial: np.ndarray,
    stored: np.ndarray,
    layer: ClassLayer,
    positions: Sequence[int | None],
    old_classes: int,
) -> np.ndarray:
    """A class layer's parameter with the rows of the classes that the old one knows.

    Background stays background in every slot.

    Args:
        initial: [..., slots · (background + K) · width], kept where a class has no counterpart.
        stored: [..., slots · (background + old_classes) · width].
        layer: what the last axis means.
        positions: for each of the K classes its old position, or None.
        old_classes: number of classes of ``stored``.

    Returns:
        An array like ``initial``.
    """
    new = np.array(initial).reshape(*initial.shape[:-1], layer.slots, -1, layer.width)
    shape = (*stored.shape[:-1], layer.slots, layer.background + old_classes, layer.width)
    old = stored.reshape(shape)
    rows = [(k, k) for k in range(layer.background)]
    rows += [
        (layer.background + k, layer.background + position)
        for k, position in enumerate(positions)
        if position is not None
    ]
    here, there = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [])
    new[..., here, :] = old[..., there, :]
    return new.reshape(initial.shape)
