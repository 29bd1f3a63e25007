"""Copy-paste: objects of one image cut out and laid onto another."""

from __future__ import annotations

import numpy as np

from jdet.data.segmentation import decode, encode
from jdet.data.transforms.element import Element
from jdet.data.transforms.joined import Left, Place, laid, with_objects
from jdet.data.transforms.resample import Size


def pasted(first: Element, other: Element, place: Place, wanted: np.ndarray, left: Left) -> Element:
    """An image with objects of another one on it (Ghiasi et al. 2021, "Simple Copy-Paste", sec. 3).

    Objects are cut out by their masks where they have some, else by their boxes: then what lies around
    them in the box comes along. Of the objects below, masks lose what is covered and boxes become those
    around what is left of the masks; without masks boxes stay as they were. An object stays if enough of
    its mask, or of its box, is left.

    Args:
        first: with an image, which is the frame.
        other: with an image.
        place: of the other image on the frame.
        wanted: bool [n], which objects of the other are taken; those with ``ignore`` are not.
        left: which objects stay, of both images.
    """
    assert first.image is not None
    frame = first.image.shape[:2]
    assert other.image is not None
    marked = other._replace(labels=np.arange(len(other.labels), dtype=np.int32))
    part, seen = laid(marked, place, frame, left), place.seen(frame)
    take = np.flatnonzero(wanted[part.labels] & ~part.ignore)
    whose = part.labels[take]
    part = part._replace(
        boxes=part.boxes[take],
        labels=other.labels[whose],
        ignore=part.ignore[take],
        masks=part.masks and tuple(part.masks[i] for i in take),
    )
    cover, boxes, keep = np.zeros(frame, bool), part.boxes.copy(), []
    # A mask may reach a little beyond its image.
    inside = np.zeros(frame, bool)
    inside[seen.y0 : seen.y1, seen.x0 : seen.x1] = True
    for number in range(len(take)):
        own = _shown(part, number, frame) & inside
        if part.masks is not None and part.masks[number] is not None:
            cut = (seen.y1 - seen.y0, seen.x1 - seen.x0) != place.size
            whole = _pixels(other, int(whose[number]), place) if cut else 0
            if not own.any() or own.sum() < left.share * whole:
                continue
            boxes[number] = _around(own)
            if (boxes[number, 2:] - boxes[number, :2] < left.side).any():
                continue
        cover |= own
        keep.append(number)
    if not cover.any():
        return first
    part = part._replace(
        boxes=boxes[keep],
        labels=part.labels[keep],
        ignore=part.ignore[keep],
        masks=part.masks and tuple(part.masks[i] for i in keep),
    )
    image = first.image.copy()
    shown = cover[seen.y0 : seen.y1, seen.x0 : seen.x1]
    assert part.image is not None
    image[seen.y0 : seen.y1, seen.x0 : seen.x1][shown] = part.image[shown]
    own = laid(first, Place(frame, 0, 0), frame, Left(0.0, 0.0))
    return with_objects(first, image, [_covered(own, cover, left), part])


def _shown(element: Element, number: int, frame: Size) -> np.ndarray:
    """The pixels of an object on the frame, bool [H, W]: of its mask, or else of its box."""
    mask = element.masks[number] if element.masks is not None else None
    if mask is not None:
        return decode(mask, *frame).astype(bool)
    x0, y0, x1, y1 = (round(float(v)) for v in element.boxes[number])
    pixels = np.zeros(frame, bool)
    pixels[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] = True
    return pixels


def _pixels(element: Element, number: int, place: Place) -> int:
    """Pixels of an object's mask where nothing cuts it."""
    assert element.masks is not None
    one = element._replace(
        boxes=element.boxes[[number]],
        labels=element.labels[[number]],
        ignore=element.ignore[[number]],
        masks=(element.masks[number],),
    )
    alone = laid(one, place._replace(y=0, x=0), place.size, Left(0.0, 0.0))
    return int(_shown(alone, 0, place.size).sum()) if len(alone.boxes) else 0


def _around(pixels: np.ndarray) -> tuple[int, int, int, int]:
    """The box x1, y1, x2, y2 around some pixels, bool [H, W]."""
    rows, columns = (np.flatnonzero(pixels.any(axis=axis)) for axis in (1, 0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def _covered(element: Element, cover: np.ndarray, left: Left) -> Element:
    """The objects of an element on the frame under what covers them."""
    frame = cover.shape
    boxes, masks, keep = element.boxes.copy(), list(element.masks or ()), []
    for number in range(len(boxes)):
        x0, y0 = np.floor(boxes[number, :2]).astype(int)
        x1, y1 = np.ceil(boxes[number, 2:]).astype(int)
        if element.ignore[number] or not cover[y0:y1, x0:x1].any():
            keep.append(number)
            continue
        pixels = _shown(element, number, frame)
        rest = pixels & ~cover
        if not rest.any() or rest.sum() < left.share * pixels.sum():
            continue
        if masks and masks[number] is not None:
            if rest.sum() == pixels.sum():
                keep.append(number)
                continue
            boxes[number] = _around(rest)
            if (boxes[number, 2:] - boxes[number, :2] < left.side).any():
                continue
            masks[number] = encode(rest)
        keep.append(number)
    rows = np.array(keep, np.intp)
    return element._replace(
        boxes=boxes[rows],
        labels=element.labels[rows],
        ignore=element.ignore[rows],
        masks=tuple(masks[i] for i in keep) if element.masks is not None else None,
    )
