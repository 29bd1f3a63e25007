"""The one function that an exported run computes: an image as it is stored in, what was found in it out."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jdet.data.transforms.resize import Resize
from jdet.evaluation.predictor import Predictor
from jdet.export import resize as resize_lib
from jdet.types import Detections, ImageKind

Outputs = dict[str, jax.Array]


class Program(NamedTuple):
    """Reading aside, all that ``jdet.predict`` does with an image, as a pure function.

    Attributes:
        detector: the module.
        resize: what the network sees of images.
        kind: of the images.
        invalid: the value that stands for "nothing measured"; None: there is none.
        neutral: what takes the place of invalid values, for every channel.
    """

    detector: Any
    resize: Resize
    kind: ImageKind
    invalid: float | None
    neutral: tuple[float, ...]

    @classmethod
    def of(cls, predictor: Predictor) -> Program:
        """That of a loaded run.

        Raises:
            ConfigError: its resize rule is a class of the user's.
        """
        resize_lib.check(predictor.resize)
        return cls(
            detector=predictor.detector,
            resize=predictor.resize,
            kind=predictor.images.decoder.kind,
            invalid=predictor.values.invalid,
            neutral=predictor.values.neutral,
        )

    def __call__(
        self, variables: Any, thresholds: jax.Array, image: jax.Array, size: jax.Array
    ) -> Outputs:
        """Finds objects in an image.

        Args:
            variables: weights and statistics of the detector.
            thresholds: float32 [K], lowest score to report of each class.
            image: [h, w, C] of the run's type, values as stored; h and w may be symbolic. What lies beside
                the image may be anything.
            size: int32 [2], height and width of the image in its upper left corner.

        Returns:
            ``boxes`` float32 [D, 4], x1 y1 x2 y2 in pixels of the image, clipped to it; ``scores`` float32
            [D], best first; ``labels`` int32 [D], 0 … K-1; ``valid`` bool [D], which rows are detections.
            Of a detector with masks also ``masks`` float32 [D, m, m], probabilities, and ``frames``
            float32 [D, 4], the boxes they lie in, not clipped.
        """

        branches = [
            functools.partial(self.seen_as, shape, variables, image, size)
            for shape in self.resize.shapes
        ]
        if len(branches) == 1:
            found, content = branches[0]()
        else:
            index = resize_lib.shape_of(self.resize, size[0], size[1])
            found, content = jax.lax.switch(index, branches)
        scale = (size.astype(jnp.float32) / content.astype(jnp.float32))[::-1]
        limit = size[::-1].astype(jnp.float32)
        frames = found.boxes * jnp.tile(scale, 2)
        boxes = jnp.clip(frames, 0, jnp.tile(limit, 2))
        valid = (
            found.valid
            & jnp.all(jnp.isfinite(boxes), -1)
            & jnp.isfinite(found.scores)
            & (found.scores >= jnp.take(thresholds, found.labels, mode="clip"))
            & jnp.all(boxes[:, :2] < boxes[:, 2:], -1)
        )
        outputs = {
            "boxes": jnp.where(valid[:, None], boxes, 0.0),
            "scores": jnp.where(valid, found.scores, 0.0),
            "labels": jnp.where(valid, found.labels, 0),
            "valid": valid,
        }
        if found.masks is not None:
            outputs["masks"] = found.masks.astype(jnp.float32)
            outputs["frames"] = frames
        return outputs

    def seen_as(
        self, shape: tuple[int, int], variables: Any, image: jax.Array, size: jax.Array
    ) -> tuple[Detections, jax.Array]:
        """What the network finds in an image, in pixels of an input of a shape, and the content's size.

        The other arguments are those of a call.
        """
        pixels, content = resize_lib.prepare(image, size, self.resize, shape, self._filled)
        found = self.detector.apply(variables, pixels[None], content[None], method="detect")
        return jax.tree.map(lambda x: x[0], found), content

    def _filled(self, image: jax.Array) -> jax.Array:
        """``jdet.data.invalid.filled``."""
        if self.kind.dtype != "float32" and self.invalid is None:
            return image
        colour = np.array(self.neutral, np.float64)
        valid = jnp.isfinite(image) if self.kind.dtype == "float32" else jnp.bool_(True)
        if self.kind.dtype != "float32":
            ends = np.iinfo(self.kind.dtype)
            colour = np.clip(np.rint(colour), ends.min, ends.max)
        if self.invalid is not None:
            valid = valid & (image.astype(jnp.float32) != np.float32(self.invalid))
        return jnp.where(valid, image, colour.astype(self.kind.dtype))


def single(thresholds: np.ndarray) -> np.ndarray:
    """Thresholds as float32 [K] such that float32 scores reach them exactly where they reach float64's."""
    lower = thresholds.astype(np.float32)
    return np.where(lower < thresholds, np.nextafter(lower, np.float32(np.inf)), lower)
