"""A detector whose answer is known."""

import jax.numpy as jnp

from jdet.types import Detections

FOLDING = 1
"""Traces of a predictor's start, by shapes alone: which batch norms can be folded (``DetectFn.fold``)."""


class PixelDetector:
    """Finds the bounding box of the red pixels, exactly; its score is the mean of the image."""

    traces = 0
    input_size = 64

    def apply(self, variables, images, image_sizes, *, method):
        assert method == "detect"
        self.traces += 1
        red = (images[..., 0] > 200) & (images[..., 1] < 50)

        def span(hit):  # [B, n] -> first and last + 1
            return jnp.argmax(hit, 1), hit.shape[1] - jnp.argmax(hit[:, ::-1], 1)

        (x1, x2), (y1, y2) = span(red.any(1)), span(red.any(2))
        box = jnp.stack([x1, y1, x2, y2], axis=1).astype(jnp.float32) + variables.get("shift", 0.0)
        score = images.mean((1, 2, 3)).astype(jnp.float32) / 255
        found = red.any((1, 2))
        nothing = jnp.zeros_like(score)
        return Detections(
            boxes=jnp.stack([box, jnp.zeros_like(box)], axis=1),
            scores=jnp.stack([score, nothing], axis=1),
            labels=jnp.zeros((len(images), 2), jnp.int32),
            valid=jnp.stack([found, jnp.zeros_like(found)], axis=1),
        )


class MaskDetector(PixelDetector):
    """Beside its box, that all of the box is the object."""

    def apply(self, variables, images, image_sizes, *, method):
        found = super().apply(variables, images, image_sizes, method=method)
        return found._replace(masks=jnp.ones((*found.scores.shape, 8, 8)))


class AnySize(PixelDetector):
    """Takes inputs of every size, and says so."""

    any_input_size = True
