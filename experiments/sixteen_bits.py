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
Ours: AP50 0.807, 0.818 of uint16 in the cpu arm, 0.811 of float32, 0.000 of the high byte (docs/results.md)
Cost: as ``scratchdet_deeppcb.py``
"""

from experiments import scratchdet_deeppcb
from experiments.common import pick
from experiments.common_images import DTYPES, WRITTEN
from jdet import build
from jdet.config import parse_arg


def get_config(arg=""):
    arg = parse_arg(arg, cpu=False, dtype="uint16", steps=0, lr=0.05, seed=0)
    pick("dtype", arg.dtype, DTYPES)
    cpu = "cpu," * arg.cpu
    c = scratchdet_deeppcb.get_config(f"{cpu}steps={arg.steps},lr={arg.lr},seed={arg.seed}")
    for role in ("train", "eval"):
        c.data[role] = build.group(
            "source",
            "experiments.common_images:Rewritten",
            root=c.data.get_ref("root"),
            splits=c.data[role].splits,
            written=arg.dtype,
        )
    c.data.image.channels = "gray"
    if arg.dtype in WRITTEN:
        c.data.normalise.by = "data"
    else:
        c.model.mean, c.model.std = (127.5,), (64.0,)
    return c
