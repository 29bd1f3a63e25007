"""The detector contract: two verbs, and what else the rest of jdet may ask of a detector."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jdet.nn import padding
from jdet.nn.checked import Checked
from jdet.ops.anchors import LevelAnchors
from jdet.types import Batch, Detections, HeadLayout, ImageKind, Mean


class Detector(Checked):
    """Base class of all detectors: one stage, two stages or queries.

    A detector implements ``losses`` and ``detect``. Everything else is an optional capability with a
    default, declared by overriding a class attribute or a method: nothing outside guesses from the fields
    of a detector. The fields of a subclass are what its config group can set; a subclass whose fields
    have no default is written ``class Mine(Detector, kw_only=True)``.

    ``jdet.build`` fills in, where a class has such a field: its nested groups (``parts``), ``num_classes``,
    ``input_size``, ``image_kind``, ``dtype``, ``remat``, ``norm`` (of backbone and neck), ``head_norm``,
    ``padded_inputs`` (whether images may be smaller than the network input) and ``class_weights`` (of
    ``train.class_weights``, K floats or (); a detector with this field multiplies the classification loss
    of what it assigns to an object of class k by number k, ``jdet.ops.losses.class_weight``).

    Attributes:
        num_classes: K, without background.
        input_size: side of the square network input that the model is laid out for, pixels.
        mean: of every image channel, subtracted from the values as stored.
        std: of every image channel, divisor after that.
        dtype: of activations; losses and boxes are float32.
        image_kind: what the images are whose values ``losses`` and ``detect`` take.
    """

    num_classes: int
    input_size: int
    mean: tuple[float, ...] = (127.5, 127.5, 127.5)
    std: tuple[float, ...] = (64.0, 64.0, 64.0)
    dtype: Any = jnp.float32
    image_kind: ImageKind = ImageKind()

    parts: ClassVar[Mapping[str, str]] = {}
    """Nested config groups, in the order in which they are made: field → kind of ``jdet.build``'s table."""

    finest_stride: ClassVar[int] = 8
    """Least stride of a backbone stage that is a level where the config's ``taps`` names none."""

    needs: ClassVar[tuple[str, ...]] = ()
    """Optional fields of ``Batch`` that ``losses`` reads, such as ``masks``."""

    test_fields: ClassVar[tuple[str, ...]] = ()
    """Fields that may differ between training and evaluation, such as the thresholds of NMS."""

    @property
    def remat_parts(self) -> tuple[str, ...]:
        """Segments of its own that ``train.remat_parts`` can name, besides those of its nested groups."""
        return ()

    @property
    def any_input_size(self) -> bool:
        """Whether ``detect`` takes images of other heights and widths than ``input_size``."""
        return False

    @property
    def knows_padding(self) -> bool:
        """Whether padding beside an image's content is kept out of losses and detections."""
        return False

    @property
    def positive_iou(self) -> float | None:
        """IoU from which an anchor is positive; None where something else decides."""
        return None

    def losses(self, batch: Batch, *, train: bool = True) -> dict[str, Mean]:
        """The training forward pass.

        Args:
            batch: images and objects; the fields of ``needs`` are there, other optional ones may be None.
            train: use and update batch statistics.

        Returns:
            Named parts of the loss, each a sum and a weight. The training step adds both over devices and
            micro-batches before it divides. Images without objects add zero, except for what a detector
            without a background class learns from them.
        """
        raise NotImplementedError(
            f"{type(self).__name__} does not implement losses(batch, *, train)"
        )

    def detect(self, images: jax.Array, image_sizes: jax.Array) -> Detections:
        """Detections of a batch, NMS included, on the device and of fixed size.

        Args:
            images: [B, H, W, C], values as stored.
            image_sizes: int32 [B, 2], height and width of each image's content, pixels.

        Returns:
            ``Detections`` with boxes in pixels of the network input, best first.
        """
        raise NotImplementedError(
            f"{type(self).__name__} does not implement detect(images, image_sizes)"
        )

    def head_layout(self) -> HeadLayout | None:
        """What the outputs mean, so that another training can start from these weights.

        None: layers that belong to classes or boxes cannot be told from others, and ``init_from`` takes
        weights by name and shape alone.
        """
        return None

    def anchors(self, shape: tuple[int, int]) -> tuple[LevelAnchors, ...] | None:
        """The anchors of every level at a network input of this height and width; None: there are none."""
        del shape
        return None

    def check_design(self) -> None:
        """Refuses, before anything is compiled, a layout that contradicts itself.

        Raises:
            ConfigError: names the key of the config and a remedy.
        """

    def start_warning(
        self, objects: Callable[..., Any], class_names: Sequence[str], resize: Any
    ) -> str:
        """What to say at the start of a training that will go badly with this data; "" where nothing.

        Args:
            objects: ``objects(keep_ignored=…)`` reads a sample of the training objects
                (``jdet.ops.coverage.Objects``), in pixels of the network input.
            class_names: in label order.
            resize: what the network sees of images (``jdet.data.transforms.resize``).
        """
        del objects, class_names, resize
        return ""

    def normalised(self, images: jax.Array, image_sizes: jax.Array | None = None) -> jax.Array:
        """Images as the network takes them, the one place where values are normalised.

        Args:
            images: [B, H, W, C], values as stored.
            image_sizes: int32 [B, 2], height and width of each image's content, beside which the result
                is zero; None: images fill the input.

        Returns:
            ``(images - mean) / std``, [B, H, W, C] of ``dtype``.
        """
        x = (images.astype(jnp.float32) - jnp.asarray(self.mean)) / jnp.asarray(self.std)
        with padding.content(image_sizes, (images.shape[1], images.shape[2])):
            return padding.cleared(x).astype(self.dtype)

    def count_samples(
        self,
        positives: jax.Array,
        negatives: jax.Array,
        background: jax.Array,
        objects: jax.Array | None = None,
    ) -> None:
        """Leaves the numbers that ``train.sample_stats`` logs (``jdet.train.diagnostics.sample_stats``).

        Args:
            positives: float32 [B], samples of each image that the loss counts as objects.
            negatives: float32 [B], samples that it counts as background.
            background: float32 [B], samples that could have been negatives.
            objects: float32 [B], positives that are ground-truth boxes themselves, not found by the
                detector; None: there are no such samples.
        """
        if self.scope is None or self.is_initializing():  # nowhere to leave anything
            return
        counts = {"positives": positives, "negatives": negatives, "background": background}
        if objects is not None:
            counts["objects"] = objects
        for name, count in counts.items():
            self.sow("samples", name, count, reduce_fn=lambda _, new: new)
