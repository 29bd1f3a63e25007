"""What is left of images whose information lies below the high byte, once they are cut to eight bits?

    python -m jdet.main --config=experiments/sixteen_bits.py:cpu,dtype=uint16 --workdir=runs/sixteen \
        --config.data.root=DEEPPCB

The boards of ``scratchdet_deeppcb.py``, written anew while they are read: grey value g becomes
30000 + 200 g / 255 of 65535, or 0.25 + g / 255 / 1000 of 1, as in a microscope's or a depth camera's files.
A program that keeps the high byte, or cuts 0 … 1 into 256 steps, makes every image one grey.

    dtype=uint16 | float32   trained as they are, normalised by what is measured on them
    dtype=uint16_as_8 | float32_as_8   reduced as such programs do; one grey cannot be measured, so the
        constants are those of all 8-bit images
    dtype=uint8   the boards as they are stored, for comparison
    cpu  steps=  lr=0.05  seed=0   as there

Source: ours; the set: github.com/tangsanli5201/DeepPCB
Paper: –
Ours: not run by us
Cost: as ``scratchdet_deeppcb.py``
"""

import numpy as np

from experiments import scratchdet_deeppcb
from experiments.common import pick
from jdet import build
from jdet.config import parse_arg
from jdet.data.readers.decoder import Decoder
from jdet.data.readers.settings import USUAL
from jdet.data.sources.voc import VocSource
from jdet.types import ImageKind

WRITTEN = {
    "uint8": lambda g: g,
    "uint16": lambda g: (30000 + np.round(g * (200 / 255))).astype(np.uint16),
    "float32": lambda g: (0.25 + g * (1e-3 / 255)).astype(np.float32),
}
"""Grey values 0 … 255 as each type of file would hold them."""

REDUCED = {
    "uint16": lambda v: (v >> 8).astype(np.uint8),
    "float32": lambda v: np.minimum(v * 256, 255).astype(np.uint8),
}
"""Values as programs for 8-bit images take them."""

KINDS = {
    "uint8": ImageKind(channels=1, colour="gray"),
    "uint16": ImageKind(channels=1, colour="gray", dtype="uint16", value_range=(0.0, 32767.0)),
    "float32": ImageKind(channels=1, colour="gray", dtype="float32", value_range=(0.25, 0.251)),
}
DTYPES = (*WRITTEN, *(f"{name}_as_8" for name in REDUCED))


class Rewritten(VocSource):
    """A VOC folder of 8-bit images as if its files held other values.

    Args:
        root: as in ``VocSource``.
        splits: as in ``VocSource``.
        written: one of ``DTYPES``.
        on_error: as in ``VocSource``.
        image_settings: as in ``VocSource``.
    """

    image_kind = KINDS["uint8"]
    image_survey = None

    def __init__(self, root, splits, written="uint16", *, on_error="raise", image_settings=USUAL):
        super().__init__(root, splits, on_error=on_error, image_settings=image_settings)
        self._type, _, self._reduced = written.partition("_as_")
        if not self._reduced:
            self.image_kind = KINDS[self._type]

    def __getitem__(self, index):
        example = super().__getitem__(index)
        grey = Decoder()(example.image, example.id)[..., :1]
        image = WRITTEN[self._type](grey)
        return example._replace(image=REDUCED[self._type](image) if self._reduced else image)


def get_config(arg=""):
    arg = parse_arg(arg, cpu=False, dtype="uint16", steps=0, lr=0.05, seed=0)
    pick("dtype", arg.dtype, DTYPES)
    cpu = "cpu," * arg.cpu
    c = scratchdet_deeppcb.get_config(f"{cpu}steps={arg.steps},lr={arg.lr},seed={arg.seed}")
    for role in ("train", "eval"):
        c.data[role] = build.group(
            "source",
            "experiments.sixteen_bits:Rewritten",
            root=c.data.get_ref("root"),
            splits=c.data[role].splits,
            written=arg.dtype,
        )
    c.data.image.channels = "gray"
    if arg.dtype in WRITTEN:
        c.data.normalise.by = "data"
    return c
