"""Positive and negative samples of a step: how unbalanced the batches are (MegDet, sec. 3 and Table 1)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jdet.parallel.mesh import AXES
from jdet.types import ConfigError

COLLECTION = "samples"
"""Where a detector leaves, for every image, float32 [B]: ``positives`` and ``negatives`` that its loss
counted and ``background``, all that could have been negatives; and ``objects``, ground truth among the
positives, where that is sampled too."""


def summarise(found: Any) -> dict[str, jax.Array]:
    """Statistics of all images of a step; runs inside ``shard_map``.

    Args:
        found: the collection of this device, arrays [B], or [micro-batches, B].

    Returns:
        Float32 scalars, the same on every device:

        * ``samples/positives``: per image;
        * ``samples/ratio``: Σ positives / Σ negatives of the batch, the ratio of MegDet's Table 1;
        * ``samples/ratio_mean``, ``samples/ratio_p10``, ``samples/ratio_min``: of the ratios of the
          images that have negatives: their mean, 10th percentile (the ratio that a tenth of them does
          not exceed) and minimum; 0 where no image has any;
        * ``samples/background_ratio``: Σ positives / Σ background, before negatives were picked;
        * ``samples/ratio_found``, where ground truth is sampled too: as ``ratio``, without it.

    Raises:
        ConfigError: the detector leaves no samples.
    """
    if not found:
        raise ConfigError(
            "train.sample_stats=True, but this detector counts no samples; set it to False"
        )
    fields = ("positives", "negatives", "background")
    if "objects" in found:
        fields += ("objects",)
    counts = _gather(jnp.stack([jnp.ravel(found[x]) for x in fields]))
    positives, negatives, background, *objects = counts
    counted = negatives > 0
    images = jnp.sum(counted)
    ratios = jnp.where(counted, positives / jnp.maximum(negatives, 1), jnp.inf)
    ranked = jnp.sort(ratios)
    tenth = ranked[jnp.maximum(jnp.ceil(0.1 * images).astype(jnp.int32) - 1, 0)]
    values = {
        "positives": jnp.mean(positives),
        "ratio": jnp.sum(positives) / jnp.maximum(jnp.sum(negatives), 1),
        "ratio_mean": jnp.sum(jnp.where(counted, ratios, 0)) / jnp.maximum(images, 1),
        "ratio_p10": jnp.where(images > 0, tenth, 0),
        "ratio_min": jnp.where(images > 0, ranked[0], 0),
        "background_ratio": jnp.sum(positives) / jnp.maximum(jnp.sum(background), 1),
    }
    if objects:
        own = jnp.sum(positives - objects[0])
        values["ratio_found"] = own / jnp.maximum(jnp.sum(negatives), 1)
    return {f"samples/{name}": jnp.asarray(value, jnp.float32) for name, value in values.items()}


def _gather(own: jax.Array) -> jax.Array:
    """Columns of all devices [k, n] side by side, known to be the same everywhere."""
    size = own.shape[1]
    whole = jnp.zeros((len(own), size * jax.lax.axis_size(AXES)), own.dtype)
    whole = jax.lax.dynamic_update_slice(
        jax.lax.pcast(whole, AXES, to="varying"), own, (0, jax.lax.axis_index(AXES) * size)
    )
    return jax.lax.psum(whole, AXES)
