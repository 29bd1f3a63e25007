"""How far do dense detectors get with 537 photographs of five everyday classes, in their proportions?

    python -m jdet.main --config=experiments/dense_openimages5.py:cpu,detector=atss \
        --workdir=runs/atss_openimages5 --config.data.root=OPENIMAGES5

Data, steps and rates as in ``scratchdet_openimages5.py``, the full SSD augmentation included; images are
not warped to squares, so that batches of landscapes and of portraits take turns.

    detector=atss | fcos | retinanet
    :cpu     ResNet-18 at half width, short side 192, long side up to 256: for two CPU cores
    default  ResNet-50, short side 480, long side up to 640, levels to stride 128: for an accelerator

Source: ours; the models: Lin et al. 2017b, Tian et al. 2020, Zhang et al. 2020; the images: Open Images
Paper: –
Ours: not run by us
Cost: ``:cpu`` 1400 steps of 16; the full arm 12,000 steps of 32
"""

from experiments import scratchdet_openimages5
from experiments.common import pick
from experiments.common_dense import DETECTORS, decay_without_norms, keep_proportions, sized_model
from jdet.config import parse_arg


def get_config(arg=""):
    arg = parse_arg(arg, cpu=False, detector="atss", steps=0, lr=0.05, seed=0)
    pick("detector", arg.detector, DETECTORS)
    c = scratchdet_openimages5.get_config(
        f"cpu={arg.cpu},steps={arg.steps},lr={arg.lr},seed={arg.seed}"
    )
    short = 192 if arg.cpu else 480
    keep_proportions(c, short, long=short * 4 // 3)
    c.model = sized_model(arg.detector, arg.cpu, fine=False)
    decay_without_norms(c)
    return c
