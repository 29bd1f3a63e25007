"""Initialisers of kernels, and the names by which a config selects them."""

from __future__ import annotations

import flax.linen as nn

caffe_xavier = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
"""Caffe's "xavier": uniform in ±sqrt(3 / fan_in)."""

xavier = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
"""Glorot & Bengio 2010, eq. 16: uniform in ±sqrt(6 / (fan_in + fan_out))."""

he = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""He et al. 2015, eq. 14: normal with variance 2 / fan_out."""

INITIALISERS = {"caffe_xavier": caffe_xavier, "kaiming": he}
"""Initialisers that a config can name (``kaiming`` as in PyTorch and MMDetection)."""
