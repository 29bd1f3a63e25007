"""Published figures of accelerators: the table behind every bound that jdet computes.

Peaks are dense. TPUs compute float32 convolutions and products of matrices by one pass in bfloat16,
NVIDIA GPUs from Ampere on in TF32, both as XLA does by default.
"""

from __future__ import annotations

import re
from typing import NamedTuple

GIB = 2**30
GB = 1e9
TERA = 1e12


class Chip(NamedTuple):
    """Peak figures of one device, as JAX counts devices.

    Attributes:
        name: as people call it.
        kind: regular expression of the whole ``jax.Device.device_kind``.
        memory: bytes of device memory.
        bandwidth: of that memory, bytes a second.
        bfloat16: operations a second with bfloat16 operands.
        float32: operations a second with float32 operands at XLA's default precision.
        links: bytes a second that leave the device for others of its kind, all links together; as many
            arrive meanwhile.
        hop: seconds from a device to its neighbour; 0: unknown, left out of bounds.
        source: of these figures.
    """

    name: str
    kind: str
    memory: float
    bandwidth: float
    bfloat16: float
    float32: float
    links: float
    hop: float
    source: str

    def peak(self, precision: str) -> float:
        """Operations per second at ``config.precision``."""
        return self.bfloat16 if precision == "bfloat16" else self.float32


# About a microsecond a hop, by an order of magnitude: Austin et al. 2025, How to Scale Your Model,
# section 3. The vendor publishes no figure.
_HOP = 1e-6
_TPU = "docs.cloud.google.com/tpu/docs"
_NVIDIA = "NVIDIA data sheet"


def _tpu(name, kind, memory, bandwidth, tera, links, source) -> Chip:
    """Published link figures add up both directions."""
    flops = tera * TERA
    return Chip(
        name, kind, memory * GIB, bandwidth * GB, flops, flops, links / 2 * GB, _HOP, source
    )


def _gpu(name, kind, memory, bandwidth, bfloat16, tf32, links, source) -> Chip:
    peaks = bfloat16 * TERA, tf32 * TERA
    return Chip(name, kind, memory * GB, bandwidth * GB, *peaks, links / 2 * GB, 0.0, source)


CHIPS = (
    _tpu("TPU v4", "TPU v4", 32, 1200, 275, 600, f"{_TPU}/v4; links: Jouppi et al. 2023, Table 4"),
    _tpu("TPU v5e", "TPU v5 lite|TPU v5e", 16, 819, 197, 400, f"{_TPU}/v5e"),
    _tpu("TPU v5p", "TPU v5|TPU v5p", 95, 2765, 459, 1200, f"{_TPU}/v5p"),
    _tpu("TPU v6e", "TPU v6 lite|TPU v6e", 32, 1638, 918, 800, f"{_TPU}/v6e"),
    _gpu("A100 40GB", ".*A100.*40GB.*", 40, 1555, 312, 156, 600, f"{_NVIDIA} A100, SXM4"),
    _gpu("A100 80GB", ".*A100.*80GB.*", 80, 2039, 312, 156, 600, f"{_NVIDIA} A100, SXM4"),
    _gpu("H100 SXM5", ".*H100 80GB HBM3.*", 80, 3350, 989.4, 494.7, 900, f"{_NVIDIA} H100, SXM5"),
    _gpu("H200 SXM5", ".*H200.*", 141, 4800, 989.4, 494.7, 900, f"{_NVIDIA} H200, SXM"),
)
"""All chips with figures."""


def find(kind: str) -> Chip | None:
    """The chip of a ``jax.Device.device_kind``; None where the table has no figures."""
    return next((chip for chip in CHIPS if re.fullmatch(chip.kind, kind)), None)
