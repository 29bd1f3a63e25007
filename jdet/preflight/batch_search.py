"""Which resolution and batch fill the memory of a device: Equation 1 of direct pre-training.

With a fixed number of steps, the average precision of a detector rises with the side L of its square
input and with the images b of a device, and both are bounded by memory (Li et al. 2021, "Rethinking
Training from Scratch for Object Detection", sec. 3.2). The paper finds its setting, L = 448 and b = 8 on
11 GB, by training a grid; here memory is measured for few points by compiling the real step, and the
points that fit are ranked by what the paper found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jdet.types import ConfigError

SIDES = (224, 320, 448, 640)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
ANCHOR = (448, 8)
"""Side and images of a device that the paper settles on."""

USABLE = 0.9
"""Share of a device's memory that a step may take: the rest is for the program and the allocator."""

SLOWER = 1.3
"""Time of a step that computes its activations again, relative to one that keeps them (MegDet's 30 %)."""


class Point(NamedTuple):
    """A candidate.

    Attributes:
        side: L, pixels.
        batch: b, images of a device.
        memory: bytes of a device that a step needs.
        fits: it stays below the usable memory.
        remat: what the backward pass computes again.
    """

    side: int
    batch: int
    memory: float
    fits: bool
    remat: str = "none"

    @property
    def rank(self) -> float:
        """The higher, the better the average precision is expected to be.

        Pixels of a step count, relative to those of ``ANCHOR``; of side and batch each, what exceeds it
        counts with the fourth root, since the paper's curves flatten there (Fig. 2). A step that computes
        its activations again counts less, as fewer of them are taken in the same time.
        """
        side, batch = (self.side / ANCHOR[0]) ** 2, self.batch / ANCHOR[1]
        value = _flattened(side) * _flattened(batch)
        return value if self.remat == "none" else value / SLOWER


class Model(NamedTuple):
    """Bytes of a step: ``fixed + batch · (per_pixel · side² + per_image)``."""

    fixed: float
    per_pixel: float
    per_image: float

    def __call__(self, side: int, batch: int) -> float:
        """Bytes at a side and a batch."""
        return self.fixed + batch * (self.per_pixel * side**2 + self.per_image)


class Found(NamedTuple):
    """What a search found for one kind of rematerialisation.

    Attributes:
        model: fitted to the points that were measured.
        points: all that were measured.
        frontier: those that fit and that no other one exceeds in both side and batch, the best first.
    """

    model: Model
    points: tuple[Point, ...]
    frontier: tuple[Point, ...]


def search(
    memory: Callable[[int, int], float],
    limit: float,
    *,
    sides: Sequence[int] = SIDES,
    batches: Sequence[int] = BATCHES,
    remat: str = "none",
) -> Found:
    """Finds the largest batch that fits for every side, and ranks those that none exceeds.

    Memory grows with both, so that per side the batches are bisected, from where the fitted model expects
    the border, and no batch above that of a smaller side is looked at.

    Args:
        memory: bytes of a device that a step needs, of side and images; infinite where it cannot be
            compiled. Asked for every point at most once.
        limit: bytes of a device, of which ``USABLE`` is taken.
        sides: candidates, multiples of 32.
        batches: candidates, images of a device.
        remat: what ``memory`` computes again, for the record.

    Raises:
        ConfigError: no candidates, or not even the smallest fits.
    """
    sides, batches = sorted(set(sides)), sorted(set(batches))
    for what, values, example in (("--sizes", sides, "224,448"), ("--batches", batches, "2,4,8")):
        if not values or values[0] < 1:
            raise ConfigError(f"{what}={values} must be whole numbers from 1 on, such as {example}")
    if odd := [side for side in sides if side % 32]:
        raise ConfigError(
            f"--sizes={odd[0]} is no multiple of 32, the stride of the coarsest stage; take "
            f"{max(round(odd[0] / 32), 1) * 32}"
        )
    usable = USABLE * limit
    known: dict[tuple[int, int], float] = {}

    def needed(side: int, batch: int) -> float:
        if (side, batch) not in known:
            known[side, batch] = memory(side, batch)
        return known[side, batch]

    if needed(sides[0], batches[0]) > usable:
        raise ConfigError(
            f"--memory={limit / 1e9:.3g}GB: a step of {batches[0]} image(s) of {sides[0]}×{sides[0]} "
            f"pixels needs {known[sides[0], batches[0]] / 1e9:.3g} GB, and {USABLE:.0%} of the memory "
            "are used; take smaller --sizes or --batches, --remat, or a smaller model"
        )
    most, best = len(batches), []
    for place, side in enumerate(sides):
        low, high = -1, most  # batches[low] fits, batches[high] does not
        if place == 0:
            low = 0
        while high - low > 1:
            at = _expected(fit(known), side, batches, usable) if len(known) > 1 else low + 1
            at = min(max(at, low + 1), high - 1)
            low, high = (at, high) if needed(side, batches[at]) <= usable else (low, at)
        if low < 0:
            break
        most = low + 1
        best.append((side, batches[low]))
    points = tuple(
        Point(side, batch, value, value <= usable, remat)
        for (side, batch), value in sorted(known.items())
    )
    fitting = [point for point in points if (point.side, point.batch) in best]
    frontier = [point for point in fitting if not any(_exceeds(one, point) for one in fitting)]
    return Found(
        fit(known), points, tuple(sorted(frontier, key=lambda point: point.rank, reverse=True))
    )


def fit(known: dict[tuple[int, int], float]) -> Model:
    """The model that comes nearest to measured memories, by least squares without a negative part.

    Args:
        known: bytes by side and batch; infinite ones are left out.
    """
    rows = [(side, batch, value) for (side, batch), value in known.items() if value < float("inf")]
    matrix = np.array([[1.0, batch * side**2, batch] for side, batch, _ in rows])
    values, scale = np.array([value for *_, value in rows]), matrix.max(axis=0)
    found, used = np.zeros(3), [0, 1, 2]
    while used:
        solved = np.linalg.lstsq((matrix / scale)[:, used], values, rcond=None)[0]
        if solved.min() >= 0:
            found[used] = solved
            break
        used.pop(int(solved.argmin()))
    return Model(*(found / scale).tolist())


def best_of(found: Sequence[Found]) -> Point:
    """The point with the highest rank of several searches; of equals that of the first."""
    return max((each.frontier[0] for each in found), key=lambda point: point.rank)


def as_json(found: Found) -> dict[str, Any]:
    """Plain values for a file."""
    return {
        "model": found.model._asdict(),
        "points": [point._asdict() for point in found.points],
        "frontier": [{**point._asdict(), "rank": point.rank} for point in found.frontier],
    }


def parse_memory(text: str) -> float:
    """Bytes of "11GB" (10⁹), "11GiB" (2³⁰) or "900MB"; 0 of "auto".

    Raises:
        ConfigError: it is none of these.
    """
    if text == "auto":
        return 0.0
    units = {"GB": 1e9, "GiB": 2.0**30, "MB": 1e6, "MiB": 2.0**20}
    for unit, size in units.items():
        number = text.removesuffix(unit).strip()
        if number != text and number.replace(".", "", 1).isdecimal() and float(number) > 0:
            return float(number) * size
    raise ConfigError(
        f"--memory={text!r}; give the memory of a device, such as 11GB or 900MB, or auto"
    )


def _flattened(x: float) -> float:
    return x if x <= 1 else x**0.25


def _expected(model: Model, side: int, batches: Sequence[int], usable: float) -> int:
    """Place of the largest batch that the model expects to fit."""
    return max((i for i, batch in enumerate(batches) if model(side, batch) <= usable), default=0)


def _exceeds(one: Point, other: Point) -> bool:
    larger = one.side >= other.side and one.batch >= other.batch
    return larger and (one.side, one.batch) != (other.side, other.batch)
