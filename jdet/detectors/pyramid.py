"""What detectors with anchors on the levels of a neck share: layout, its check, coverage of the data."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jdet.detectors.base import Detector
from jdet.nn.stages import stage_geometry
from jdet.ops import anchors, coverage
from jdet.ops.anchors import LevelAnchors
from jdet.types import ConfigError

MISSED_SHARE = 0.15
"""Share of a class's objects without an anchor at the threshold that is worth a warning."""

FEWEST_OBJECTS = 10
"""Objects of a class below which such a share says little."""


class Predictions(NamedTuple):
    """Predictions at the anchors of a pyramid, level by level, finest first.

    Attributes:
        outputs: arrays [B, A, …] of every level by the name that the head gives them, such as "offsets"
            [B, A, 4], "logits" [B, A, K] and "centerness" [B, A]. What they mean is the detector's.
        priors: float32 [A, 4] of every level, cx cy w h in pixels of the network input.
    """

    outputs: dict[str, list[Any]]
    priors: list[np.ndarray]

    def joined(self) -> tuple[dict[str, jax.Array], np.ndarray]:
        """The arrays of all levels one after the other, [B, A, …], and the priors [A, 4]."""
        whole = {name: jnp.concatenate(levels, axis=1) for name, levels in self.outputs.items()}
        return whole, np.concatenate(self.priors)


class PyramidDetector(Detector, kw_only=True):
    """A detector that predicts from the levels that a neck makes of a backbone's stages.

    Attributes:
        backbone: module from normalised images [B, H, W, C] to named stages.
        neck: module from stages to levels, finest first; its ``taps`` are the stages it starts from.
        train_ignored: objects with ``ignore`` (VOC's difficult ones, COCO's crowds) are trained on; False:
            they are dropped.
    """

    backbone: Any
    neck: Any
    train_ignored: bool = False

    parts: ClassVar[dict[str, str]] = {"backbone": "backbone", "neck": "neck"}
    anchor_remedy: ClassVar[str] = ""
    """What can be done about objects that no anchor matches; ends the sentence of ``start_warning``."""

    def level_sizes(self) -> tuple[list[int], list[int]]:
        """Nominal stride and map size (cells a side) of each level at ``input_size``."""
        geometry = stage_geometry(self.backbone, self.input_size)
        strides = [geometry[tap][0] for tap in self.neck.taps]
        cells = [geometry[tap][1] for tap in self.neck.taps]
        for size in self.neck.extra_sizes(cells[-1]):
            strides.append(strides[-1] * self.extra_stride(size, cells[-1]))
            cells.append(size)
        return strides, cells

    def extra_stride(self, size: int, below: int) -> int:
        """Stride of a level of ``size`` cells a side that the neck adds on a map of ``below`` cells."""
        return 2 if size < below else 1

    def anchor_levels(self) -> tuple[Any, ...]:
        """What boxes are predicted from, one entry per level (``jdet.ops.anchors``)."""
        raise NotImplementedError

    @property
    def steps_from_maps(self) -> bool:
        """Steps of anchors follow from the sizes of image and maps, as torchvision's; not from strides."""
        return False

    def priors(self, shapes: Sequence[tuple[int, ...]], image: tuple[int, ...]) -> list[np.ndarray]:
        """Anchors float32 [h·w·A, 4] of each level, cx cy w h in pixels.

        Args:
            shapes: height and width of each level's map, cells.
            image: height and width of the network input, pixels.
        """
        found = []
        for level, (height, width) in zip(self.anchor_levels(), shapes, strict=True):
            if self.steps_from_maps:
                level = level._replace(step=(image[0] // height, image[1] // width))
            found.append(anchors.default_boxes([level], [(height, width)]))
        return found

    def levels(self, images: jax.Array, *, train: bool) -> list[jax.Array]:
        """Maps [B, h, w, C] of all levels, finest first, of normalised images [B, H, W, C]."""
        return self.neck(self.backbone(images, train=train), train=train)

    def anchors(self, shape: tuple[int, int]) -> tuple[LevelAnchors, ...]:
        """The anchors of every level at a network input of this height and width."""
        # Levels of a small image may vanish, the coarsest first.
        return tuple(
            LevelAnchors(level, (height, width))
            for level, (height, width, _) in zip(self.anchor_levels(), self.map_shapes(shape))
        )

    def map_shapes(self, shape: tuple[int, int]) -> list[tuple[int, int, int]]:
        """Height, width and channels of the maps of all levels at a network input of this height and width.

        They are those of the network itself, by abstract evaluation.
        """
        network: Any = self
        # Detectors that differ elsewhere share them.
        if type(self).levels is PyramidDetector.levels:
            network = _Levels(self.backbone, self.neck, parent=None)
        channels = len(self.mean)
        try:
            return _map_shapes(network, (*shape, channels))
        except TypeError:  # fields that cannot be hashed
            return _map_shapes.__wrapped__(network, (*shape, channels))

    def check_design(self) -> None:
        """Holds the levels that the network really makes against the layout of the anchors."""
        try:
            _, cells = self.level_sizes()
            per_location = [level.boxes_per_location for level in self.anchor_levels()]
        except ValueError as error:
            raise ConfigError(f"config.model: {error}") from error
        expected = sum(side * side * count for side, count in zip(cells, per_location))
        made = sum(level.boxes for level in self.anchors((self.input_size, self.input_size)))
        if made != expected:
            raise ConfigError(
                f"config.model makes {made} anchors at config.input_size={self.input_size}, its levels "
                f"{'/'.join(map(str, cells))} call for {expected}; check backbone, neck and taps"
            )

    def start_warning(
        self, objects: Callable[..., Any], class_names: Sequence[str], resize: Any
    ) -> str:
        """Names the classes of which many objects have no anchor at the positive threshold."""
        if self.positive_iou is None:
            return ""
        # A square that every input lies in: anchors beside the image are not the best of any object.
        side = max(max(shape) for shape in resize.shapes)
        design = self.clone(input_size=side)
        found = objects(keep_ignored=self.train_ignored)
        clip = side if getattr(self, "clip_boxes", False) else 0
        best = coverage.best_iou(found, design.anchor_levels(), design.level_sizes()[1], clip)
        missed = best < self.positive_iou
        scale = np.sqrt(np.prod(found.boxes[:, 2:] - found.boxes[:, :2], axis=-1))
        parts = []
        for label, name in enumerate(class_names):
            own = found.labels == label
            if own.sum() >= FEWEST_OBJECTS and missed[own].mean() > MISSED_SHARE:
                parts.append(
                    f"{name} {missed[own].mean():.0%} ({missed[own].sum()} of {own.sum()} sampled, "
                    f"median size of those {np.median(scale[own & missed]):.0f} pixels)"
                )
        if not parts:
            return ""
        return (
            f"no anchor reaches an IoU of {self.positive_iou:g} with many objects at "
            f"{resize.test_setting()}: {'; '.join(parts)}. They are trained all the same, "
            f"{self.anchor_remedy}"
        )


class _Levels(nn.Module):
    """What the levels of a detector follow from."""

    backbone: Any
    neck: Any

    def levels(self, images: jax.Array, *, train: bool) -> list[jax.Array]:
        """As ``PyramidDetector.levels``."""
        return self.neck(self.backbone(images, train=train), train=train)


@functools.lru_cache(maxsize=128)  # tracing takes seconds, and more than one asks
def _map_shapes(network: nn.Module, shape: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    """Shapes of the maps of all levels at a network input [H, W, C] of this shape, without B."""
    maps = jax.eval_shape(
        lambda key, x: network.init_with_output(key, x, train=False, method="levels")[0],
        jax.random.key(0),
        jax.ShapeDtypeStruct((1, *shape), jnp.float32),
    )
    return [x.shape[1:] for x in maps]


def check_ignored(module: Any) -> None:
    """Raises ValueError where ``ignore_iof`` is for objects that a detector trains on."""
    if module.ignore_iof and module.train_ignored:
        raise ValueError(
            f"model.ignore_iof={module.ignore_iof} leaves out what lies in objects that are not trained "
            "on, but model.train_ignored=True trains on them; set model.train_ignored=False"
        )


def inside(priors: np.ndarray | jax.Array, image_sizes: jax.Array) -> jax.Array:
    """Which anchors [A, 4] are centred on each image's content [B, 2]; bool [B, A]."""
    y, x = jnp.asarray(priors[:, 1]), jnp.asarray(priors[:, 0])
    return (y < image_sizes[:, :1]) & (x < image_sizes[:, 1:])


def check_choice(
    module: nn.Module, name: str, allowed: Sequence[str], where: str = "model"
) -> None:
    """Raises ValueError where a field of a detector, or of its part ``where``, is none of these names."""
    if getattr(module, name) not in allowed:
        raise ValueError(
            f"{where}.{name}={getattr(module, name)!r}; it can be one of {', '.join(allowed)}"
        )
