"""How the synthetic shapes look: outlines, poses, anti-aliased masks, colours and textures."""

from __future__ import annotations

import functools

import cv2
import numpy as np

CLUTTER = ("blob", "shard", "arc", "bar", "corner")
SUPERSAMPLING = 4  # per axis: edges get 16 levels


def _arc(start: float, end: float, points: int = 31) -> np.ndarray:
    """Points on the unit circle from one angle to the other, in turns."""
    angles = 2 * np.pi * np.linspace(start, end, points)
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def _circle(points: int = 40, start: float = 0.0) -> np.ndarray:
    return _arc(start, start + 1, points + 1)[:-1]


@functools.cache
def outlines() -> dict[str, list[np.ndarray]]:
    """Contours of each class, y down, at any scale; an inner contour is a hole."""
    arm = 0.34
    cross = [(-arm, -1), (arm, -1), (arm, -arm), (1, -arm), (1, arm), (arm, arm)]
    cross += [(-x, -y) for x, y in cross]
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    lobes = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    # The unit circle and one of radius 0.8 around (0.35, 0) meet at these angles, in turns.
    back, front = _arc(0.129, 0.871), _arc(0.180, 0.820)[::-1]
    contours = {
        "disc": [_circle()],
        "square": [[(-1, -1), (1, -1), (1, 1), (-1, 1)]],
        "triangle": [[(0, -1), (1, 1), (-1, 1)]],
        "star": [_circle(10, -0.25) * np.where(np.arange(10) % 2, 0.45, 1.0)[:, None]],
        "cross": [cross],
        "ring": [_circle(), 0.55 * _circle()],
        "heart": [np.stack([16 * np.sin(t) ** 3, -lobes], axis=-1)],
        "arrow": [[(-1, -0.4), (0, -0.4), (0, -1), (1, 0), (0, 1), (0, 0.4), (-1, 0.4)]],
        "crescent": [np.concatenate([back, 0.8 * front + [0.35, 0]])],
    }
    return {name: [np.array(c, float) for c in parts] for name, parts in contours.items()}


def clutter(rng: np.random.Generator) -> list[np.ndarray]:
    """Contours of something that is none of the classes."""
    kind = CLUTTER[rng.integers(len(CLUTTER))]
    if kind == "blob":
        angles = 2 * np.pi * np.arange(40) / 40
        waves = [  # three lobes and more: two would make hearts
            a * np.cos(k * angles + rng.uniform(0, 7)) for k, a in ((3, 0.28), (4, 0.18), (5, 0.12))
        ]
        return [_circle() * (1 + np.sum(waves, axis=0))[:, None]]
    if kind == "shard":
        points = int(rng.integers(5, 8))
        angles = (np.arange(points) + rng.uniform(-0.35, 0.35, points)) * 2 * np.pi / points
        corners = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
        return [corners * rng.uniform(0.35, 1, (points, 1))]
    if kind == "arc":
        arc = _arc(0, rng.uniform(0.2, 0.5))
        return [np.concatenate([arc, rng.uniform(0.5, 0.75) * arc[::-1]])]
    if kind == "bar":
        thin = rng.uniform(0.08, 0.2)
        return [np.array([(-1, -thin), (1, -thin), (1, thin), (-1, thin)])]
    thick = rng.uniform(0.4, 0.7)
    return [
        np.array(
            [(-1, -1), (1, -1), (1, thick - 1), (thick - 1, thick - 1), (thick - 1, 1), (-1, 1)]
        )
    ]


def pose(
    rng: np.random.Generator, contours: list[np.ndarray], scale: float, rotation: float
) -> list[np.ndarray]:
    """Stretches, mirrors and turns contours.

    Args:
        rng: source of the pose.
        contours: the first one is the outer one.
        scale: square root of the area of the box around the result, in pixels.
        rotation: largest angle in radians.

    Returns:
        Contours in pixels whose smallest coordinates lie in 0 … 1.
    """
    stretch = np.exp(rng.uniform(-0.25, 0.25))
    angle = rng.uniform(-rotation, rotation)
    mirror = 1 if rng.random() < 0.5 else -1
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.array([[cos, sin], [-sin, cos]]) * [[mirror * stretch], [1 / stretch]]
    turned = [contour @ matrix for contour in contours]
    low, high = turned[0].min(axis=0), turned[0].max(axis=0)
    factor = scale / np.sqrt((high - low).prod())
    offset = rng.random(2) - low * factor
    return [contour * factor + offset for contour in turned]


def coverage(contours: list[np.ndarray]) -> np.ndarray:
    """Share of every pixel that lies inside, float32 [h, w] in 0 … 1, cut to the contours."""
    width, height = np.ceil(contours[0].max(axis=0)).astype(int).tolist()
    fine = np.zeros((height * SUPERSAMPLING, width * SUPERSAMPLING), np.uint8)
    shift = 4  # fractional bits; OpenCV counts from the centre of the first pixel
    points = [((c * SUPERSAMPLING - 0.5) * 2**shift).round().astype(np.int32) for c in contours]
    cv2.fillPoly(fine, points, 255, shift=shift)
    mask = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)
    return mask.astype(np.float32) * np.float32(1 / 255)


def colour(rng: np.random.Generator, saturation: float) -> np.ndarray:
    """A random RGB colour, at most so saturated, float32 [3] in 0 … 255."""
    hue, value, tint = rng.random(3).tolist()
    value, grey = 40 + 215 * value, 1 - saturation * tint
    channels = [min(max(abs((hue * 6 + phase) % 6 - 3) - 1, 0), 1) for phase in (0, 4, 2)]
    return np.array([value * (grey + (1 - grey) * c) for c in channels], np.float32)


def texture(rng: np.random.Generator, height: int, width: int, octaves: int) -> np.ndarray:
    """Cloudy noise, a gradient or stripes, float32 [height, width] in about -1 … 1."""
    kind = rng.random()
    if kind < 0.6:
        field = np.zeros((1, 1), np.float32)
        for octave in range(octaves):
            cells = 2 << octave
            field = cv2.resize(field, (cells, cells), interpolation=cv2.INTER_CUBIC)
            field += (2 * rng.random((cells, cells), np.float32) - 1) / np.float32(1.6**octave)
        return cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC)
    angle = rng.uniform(0, 2 * np.pi)
    x = (np.arange(width, dtype=np.float32) * (2 / width) - 1) * np.float32(np.cos(angle))
    y = (np.arange(height, dtype=np.float32) * (2 / height) - 1) * np.float32(np.sin(angle))
    field = x + y[:, None]
    if kind < 0.8:
        return field
    return np.sin(field * np.float32(rng.uniform(4, 25)) + np.float32(rng.uniform(0, 7)))


def background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Two textures over a muted colour, float32 [height, width, 3]."""
    base, first, second = (colour(rng, 0.5) for _ in range(3))
    canvas = np.empty((height, width, 3), np.float32)
    canvas[:] = base
    for other, octaves, strength in ((first, 4, 0.4), (second, 5, 0.25)):
        field = texture(rng, height, width, octaves) * np.float32(rng.uniform(0.2, 1) * strength)
        canvas += field[..., None] * (other - base)
    return canvas


def paint(rng: np.random.Generator, canvas: np.ndarray, mask: np.ndarray, contrast: float) -> None:
    """Blends a textured colour into a part of the image, in place.

    Args:
        rng: source of colour and texture.
        canvas: float32 [h, w, 3].
        mask: float32 [h, w], the weight of the new colour.
        contrast: RGB distance that the colour should have from the mean of what it covers.
    """
    below = np.array(cv2.mean(canvas, (mask > 0.5).view(np.uint8))[:3], np.float32)
    for _ in range(12):
        fill = colour(rng, 0.9)
        if ((fill - below) ** 2).sum() >= contrast**2:
            break
    field = texture(rng, *mask.shape, octaves=2)
    field *= np.float32(rng.uniform(0, 0.3))
    field += 1
    layer = field[..., None] * fill
    layer -= canvas
    layer *= mask[..., None]
    canvas += layer
