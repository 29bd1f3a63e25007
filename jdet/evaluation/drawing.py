"""Drawn images: detections next to the ground truth, contact sheets."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jdet.data.image_io import write_image
from jdet.data.readers.decoder import Decoder
from jdet.evaluation.display import USUAL, Display
from jdet.evaluation.mask_drawing import draw_masks
from jdet.types import Example, ImageDetections

Color = tuple[int, int, int]

# Okabe & Ito, "Color Universal Design" (2008): distinguishable with any kind of colour vision.
_PALETTE: tuple[Color, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
    (0, 114, 178),
)
_BACKGROUND: Color = (24, 26, 30)
_WHITE: Color = (255, 255, 255)
_GREY: Color = (165, 170, 178)
_MIN_SIDE = 512  # the longer side of an image is enlarged to this
_MOST_TAGS = 150  # boxes of an image above which no classes and scores are written to hide objects
_MIN_PANEL = (160, 320)  # height and width that hold a header, however thin the image


class _Mark(NamedTuple):
    """A box to draw, in pixels of the enlarged panel, and the mask in those of the image."""

    box: np.ndarray  # [4]
    text: str
    color: Color
    dashed: bool
    mask: Any = None


def class_color(label: int) -> Color:
    """RGB of a class: seven colours safe for colour-blind eyes, then lighter and darker ones."""
    hue = np.array(_PALETTE[label % len(_PALETTE)], float)
    tone = label // len(_PALETTE) % 3
    if tone == 1:
        hue = hue * 0.5 + 127
    elif tone == 2:
        hue = hue * 0.6
    r, g, b = hue.round().astype(int).tolist()
    return r, g, b


def draw_detections(
    image: np.ndarray,
    detections: ImageDetections,
    class_names: Sequence[str],
    *,
    ground_truth: Example | None = None,
    score_threshold: float = 0.5,
) -> np.ndarray:
    """Draws boxes with class and score on an image, beside the ground truth where that is given.

    Masks, where there are any, are filled translucently below the boxes (``mask_drawing``). Small images
    are enlarged so that labels can be read, very thin ones get a dark margin.

    Args:
        image: uint8 [H, W, 3], RGB, the original image.
        detections: what was found in it, boxes in its pixels; those without area are not drawn.
        class_names: K names, in label order; one in a script that the font lacks is drawn as
            "class N", N its label.
        ground_truth: the objects of the image; ignored ones are dashed. None: the detections alone.
        score_threshold: lowest score drawn.

    Returns:
        uint8 [h, w, 3], RGB: one panel, or ground truth on the left and detections on the right, each
        under a line of text.
    """
    scale = max(1.0, _MIN_SIDE / max(image.shape[:2]))
    corners = np.asarray(detections.boxes).reshape(-1, 4)
    with_area = (corners[:, :2] < corners[:, 2:]).all(1)
    shown = np.flatnonzero(with_area & (np.asarray(detections.scores) >= score_threshold))
    several = len(class_names) > 1
    found = [
        _Mark(
            np.asarray(detections.boxes[i], float) * scale,
            f"{_shown_name(class_names, detections.labels[i])} " * several
            + f"{detections.scores[i]:.2f}",
            class_color(int(detections.labels[i])),
            False,
            None if detections.masks is None else detections.masks[i],
        )
        for i in shown[np.argsort(-np.asarray(detections.scores)[shown], kind="stable")]
    ]
    right = _draw_marks(image, scale, found)
    if ground_truth is None:
        return right

    left = draw_objects(image, ground_truth, class_names)
    left = with_header(left, "Ground truth", count_objects(ground_truth), ground_truth.id)
    right = with_header(right, "Detections", f"{len(found)} with score ≥ {score_threshold:.2f}", "")
    gutter = np.full((len(left), 8, 3), _BACKGROUND, np.uint8)
    return np.concatenate([left, gutter, right], axis=1)


def draw_objects(
    image: np.ndarray,
    example: Example,
    class_names: Sequence[str],
    *,
    side: int = 0,
    tags: bool = True,
) -> np.ndarray:
    """Draws the objects of an image: boxes, ignored ones dashed, and masks, with their classes.

    Args:
        image: uint8 [H, W, 3], RGB.
        example: its objects, boxes and masks in pixels of ``image``.
        class_names: as in ``draw_detections``.
        side: the longer side of the image in the result, pixels; 0: that of the image, or ``_MIN_SIDE``
            where it has less.
        tags: write the classes, where there are several.

    Returns:
        uint8 [h, w, 3], RGB; a very thin image has a dark margin.
    """
    longest = max(image.shape[:2])
    scale = side / longest if side else max(1.0, _MIN_SIDE / longest)
    named = tags and len(class_names) > 1
    objects = [
        _Mark(
            np.asarray(box, float) * scale,
            _shown_name(class_names, label) * named,
            class_color(int(label)),
            bool(ignore),
            mask,
        )
        for box, label, ignore, mask in zip(
            example.boxes,
            example.labels,
            example.ignore,
            example.masks or [None] * len(example.boxes),
            strict=True,
        )
    ]
    return _draw_marks(image, scale, objects)


def count_objects(example: Example) -> str:
    """How many objects an image has, and how many of them are ignored."""
    count = f"{len(example.boxes)} object{'s' * (len(example.boxes) != 1)}"
    ignored = int(np.sum(example.ignore))
    return count + (f", {ignored} ignored (dashed)" if ignored else "")


def write_images(
    folder: str | os.PathLike[str],
    pairs: Iterable[tuple[ImageDetections, Example]],
    class_names: Sequence[str],
    *,
    decoder: Decoder | None = None,
    display: Display = USUAL,
    score_threshold: float = 0.5,
) -> dict[str, np.ndarray]:
    """Writes one JPEG per image, ground truth on the left and detections on the right.

    Args:
        folder: where to, usually ``workdir/detections``; made if missing.
        pairs: detections and ground truth of images, ``SampleImages.pairs``; images are read here.
        class_names: K names, in label order.
        decoder: of the images; None: they are 8-bit RGB.
        display: makes images for people of them.
        score_threshold: lowest score drawn.

    Returns:
        What was drawn, uint8 [h, w, 3] RGB, by the names of the files without suffix: a number in the
        order of ``pairs`` and the image's id.

    Raises:
        DataError: an image cannot be read or written.
    """
    read = decoder or Decoder()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    images = {}
    for number, (detections, ground_truth) in enumerate(pairs):
        name = re.sub(r"[^\w.-]+", "_", ground_truth.id)[-80:]
        stem = f"{number:03d}_{name}"
        images[stem] = draw_detections(
            display(
                read(
                    ground_truth.image,
                    "" if isinstance(ground_truth.image, (str, tuple)) else ground_truth.id,
                )
            ),
            detections,
            class_names,
            ground_truth=ground_truth,
            score_threshold=score_threshold,
        )
        write_image(folder / f"{stem}.jpg", images[stem])
    return images


def _draw_marks(image: np.ndarray, scale: float, marks: Sequence[_Mark]) -> np.ndarray:
    """The enlarged image with boxes and, unless they are many, tags; ``marks`` best first, drawn last."""
    canvas = np.array(_resize(image, scale))
    worst_first = marks[::-1]
    draw_masks(
        canvas, [m.mask for m in worst_first], [m.color for m in worst_first], image.shape[:2]
    )
    height, width = canvas.shape[:2]
    top, left = max(0, _MIN_PANEL[0] - height) // 2, max(0, _MIN_PANEL[1] - width) // 2
    if top or left:
        margin = (top, max(0, _MIN_PANEL[0] - height - top))
        margin += (left, max(0, _MIN_PANEL[1] - width - left))
        canvas = cv2.copyMakeBorder(canvas, *margin, cv2.BORDER_CONSTANT, value=_BACKGROUND)
    side = max(canvas.shape[:2])
    line = max(2, round(side * 0.003))
    dash = 6.0 * line
    shift = np.array([left, top, left, top])

    halo = canvas.copy()
    for mark in marks:
        _outline(halo, mark.box + shift, (0, 0, 0), line + 2, dash * mark.dashed)
    canvas = cv2.addWeighted(halo, 0.6, canvas, 0.4, 0)
    for mark in reversed(marks):
        _outline(canvas, mark.box + shift, mark.color, line, dash * mark.dashed)
    if len(marks) > _MOST_TAGS:
        return canvas
    crowded = np.searchsorted([10, 30], len(marks))
    font = _font(max((13, 12, 11)[crowded], round(side * (0.022, 0.019, 0.016)[crowded])))
    return _draw_tags(canvas, [m._replace(box=m.box + shift) for m in marks if m.text], font, line)


def _outline(
    canvas: np.ndarray, box: np.ndarray, color: Color, thickness: int, dash: float
) -> None:
    """Draws an anti-aliased box, dashed if ``dash`` > 0, at sub-pixel positions in the canvas."""
    height, width = canvas.shape[:2]
    half = thickness / 2
    limit = np.array([width, height, width, height]) - half
    x1, y1, x2, y2 = np.clip(box, half, np.maximum(limit, half)) - 0.5  # to pixel centres
    corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2], [x1, y1]])
    bits = 4  # fractional bits of OpenCV's coordinates
    pieces = _dashes(corners, dash) if dash else [corners]
    points = [np.round(piece * 2**bits).astype(np.int32) for piece in pieces]
    cv2.polylines(canvas, points, False, color, thickness, cv2.LINE_AA, bits)


def _dashes(corners: np.ndarray, length: float) -> list[np.ndarray]:
    """Cuts the sides of a polygon [n, 2] into an odd number of pieces and keeps every other one."""
    pieces = []
    for a, b in zip(corners[:-1], corners[1:], strict=True):
        count = max(1, int(np.linalg.norm(b - a) / length)) | 1
        cuts = a + (b - a) * np.linspace(0, 1, count + 1)[:, None]
        pieces += [cuts[i : i + 2] for i in range(0, count, 2)]
    return pieces


def _draw_tags(
    canvas: np.ndarray, marks: Sequence[_Mark], font: ImageFont.FreeTypeFont, line: int
) -> np.ndarray:
    """Writes each mark's text on a tag of its colour, where it covers no better mark's tag."""
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    ascent, descent = font.getmetrics()
    pad = max(3, ascent // 4)
    tag_height = ascent + descent
    placed = np.zeros((0, 4))
    for mark in marks:
        size = np.array([font.getlength(mark.text) + 2 * pad, tag_height])
        tag = _place_tag(mark.box, size, placed, canvas.shape[:2], line / 2)
        placed = np.concatenate([placed, tag[None]])
    for mark, tag in zip(reversed(marks), placed[::-1], strict=True):
        x1, y1, x2, y2 = np.round(tag).astype(int).tolist()
        draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=mark.color)
        ink = (0, 0, 0) if _luminance(mark.color) > 0.18 else _WHITE
        draw.text((x1 + pad, (y1 + y2) / 2), mark.text, ink, font, anchor="lm")
    return np.array(image)


def _place_tag(
    box: np.ndarray, size: np.ndarray, placed: np.ndarray, shape: tuple[int, int], half: float
) -> np.ndarray:
    """The free place for a tag that reads best: above, inside, below; left before right."""
    (x1, y1, x2, y2), (w, h) = box + np.array([-half, -half, half, half]), size
    above, inside, bottom, below = y1 - h, y1, y2 - h, y2
    corners = np.array([[x, y] for y in (above, inside, bottom, below) for x in (x1, x2 - w)])
    room = np.maximum(np.array(shape[::-1]) - size, 0)
    # Sideways a tag may slide back into the image; up or down would part it from its box.
    corners[:, 0] = np.clip(corners[:, 0], 0, room[0])
    fits = (corners[:, 1] >= 0) & (corners[:, 1] <= room[1])
    corners[:, 1] = np.clip(corners[:, 1], 0, room[1])
    tags = np.concatenate([corners, corners + size], axis=1)
    shared = np.minimum(tags[:, None, 2:], placed[None, :, 2:])
    shared = shared - np.maximum(tags[:, None, :2], placed[None, :, :2])
    covered = np.clip(shared, 0, None).prod(-1).sum(-1) + 1e6 * ~fits
    return tags[covered.argmin()]


def with_header(panel: np.ndarray, title: str, note: str, aside: str) -> np.ndarray:
    """Puts a line of text above a panel, uint8 [h, w, 3]: bold title, grey note, right-aligned aside."""
    size = max(14, round(max(panel.shape[:2]) * 0.026))
    bold, plain = _font(size, bold=True), _font(size)
    width, height = panel.shape[1], round(size * 1.9)
    bar = Image.new("RGB", (width, height), _BACKGROUND)
    draw = ImageDraw.Draw(bar)
    x, middle = size * 0.6, height / 2
    draw.text((x, middle), title, _WHITE, bold, anchor="lm")
    x += bold.getlength(title) + size * 0.6
    note = _shorten(note, plain, width - x - size * 0.6)
    draw.text((x, middle), note, _GREY, plain, anchor="lm")
    x += plain.getlength(note) + size
    aside = _shorten(_escaped(aside), plain, width - x - size * 0.6)
    draw.text((width - size * 0.6, middle), aside, _GREY, plain, anchor="rm")
    return np.concatenate([np.asarray(bar), panel])


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Cuts the middle out of a text until it fits; nothing of it if not even three letters do."""
    if font.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 2, -1):
        short = text[: kept - kept // 2] + "…" + text[len(text) - kept // 2 :]
        if font.getlength(short) <= width:
            return short
    return ""


@functools.lru_cache(maxsize=32)
def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib, ``size`` pixels high."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(_font_file(name), size)


@functools.cache
def _characters() -> frozenset[int]:
    """Code points that the font has; it draws all others as the same empty box."""
    from matplotlib import ft2font  # not before something is drawn, which may be never

    return frozenset(ft2font.FT2Font(_font_file("DejaVuSans.ttf")).get_charmap())


def _shown_name(class_names: Sequence[str], label: int) -> str:
    """The name of a class in one line, or its label where the font lacks a character of it."""
    name = " ".join(str(class_names[label]).split())
    return name if name and _characters().issuperset(map(ord, name)) else f"class {label}"


def _escaped(text: str) -> str:
    """The text, characters that the font lacks as Python escapes them."""
    known = _characters()
    return "".join(
        c if ord(c) in known else c.encode("ascii", "backslashreplace").decode() for c in text
    )


def _font_file(name: str) -> str:
    import matplotlib

    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", name))


def _resize(image: np.ndarray, scale: float) -> np.ndarray:
    if scale == 1.0:
        return image
    size = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
    return cv2.resize(image, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)


def _luminance(color: Color) -> float:
    """Relative luminance of an sRGB colour, 0 … 1 (WCAG 2.1); black ink reads better above 0.18."""
    c = np.array(color) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
