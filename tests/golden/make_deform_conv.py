"""Makes ``deform_conv.npz``: ``ops.deform_conv2d`` of torchvision 0.28.0 with its gradients, on a CPU.

Not part of the suite, which needs neither torch nor torchvision::

    python tests/golden/make_deform_conv.py tests/golden/deform_conv.npz
"""

import sys

import numpy as np
import torch
from torchvision import ops


def main(path):
    """Offsets of up to ten cells in maps of 6×7, which many taps leave; an eighth are whole numbers."""
    rng = torch.Generator().manual_seed(30)

    def draw(*shape, scale=1.0):
        return torch.randn(shape, generator=rng) * scale

    x, weight = draw(2, 4, 6, 7), draw(5, 4, 3, 3, scale=0.2)
    offset = draw(2, 18, 6, 7, scale=3.0).clamp(-10, 10)
    whole = torch.rand(offset.shape, generator=rng) < 1 / 8
    offset = torch.where(whole, offset.round(), offset)
    leaves = [leaf.requires_grad_() for leaf in (x, offset, weight)]
    out = ops.deform_conv2d(x, offset, weight, padding=1)
    cotangent = draw(*out.shape)
    gradients = torch.autograd.grad((out * cotangent).sum(), leaves)
    arrays = dict(x=x, offset=offset, weight=weight, out=out, cotangent=cotangent)
    arrays |= dict(zip(("grad_x", "grad_offset", "grad_weight"), gradients, strict=True))
    np.savez(path, **{name: array.detach().numpy() for name, array in arrays.items()})


if __name__ == "__main__":
    main(sys.argv[1])
