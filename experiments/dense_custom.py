"""RetinaNet, FCOS or ATSS on your own images: name a folder, the rest is read from the data.

    E=experiments/dense_custom.py
    python -m jdet.main --config=$E:root=PATH,detector=fcos --workdir=runs/mine
    python -m jdet.main --config=$E:root=PATH,detector=fcos,cpu --workdir=runs/mine

PATH and what is derived from it are as in ``scratchdet_custom.py``, but images keep their proportions:
the short side has ``size`` pixels, the long one five thirds of that at most. Where a tenth of the objects
would be under 24 pixels in a square image of that side, there is a level of stride 4 more.

    detector=atss | fcos | retinanet
    default  ResNet-50, levels to stride 128, group norms, short side 640
    cpu      ResNet-18 at half width, pyramid and single-layer towers of 64 channels, short side 160
    size=  batch=  steps=  lr=0.05  seed=0

Source: ours; the models: Lin et al. 2017b, Tian et al. 2020, Zhang et al. 2020
Paper: –
Ours: depends on the data; ``dense_deeppcb.py`` gives a feeling
Cost: depends on the data
"""

from experiments.retinanet_coco import decay_without_norms, dense_model
from experiments.scratchdet_custom import own_images, recipe
from experiments.scratchdet_voc import pick
from jdet import build
from jdet.config import parse_arg

DETECTORS = ("atss", "fcos", "retinanet")
SMALL = 24
"""Square root of the area, pixels, under which objects need a level of stride 4."""


def get_config(arg=""):
    arg = parse_arg(
        arg, root="", detector="atss", cpu=False, size=0, batch=0, steps=0, lr=0.05, seed=0
    )
    pick("detector", arg.detector, DETECTORS)
    c, source, smallest = own_images(arg, "dense_custom")
    keep_proportions(c, arg.size or (160 if arg.cpu else 640))
    c.model = model(arg.detector, arg.cpu, fine=smallest * c.input_size < SMALL)
    recipe(c, arg, len(source))
    decay_without_norms(c)
    return c


def keep_proportions(c, short):
    """Images by their short side, the long one five thirds of it at most."""
    c.input_size = short
    c.resize = build.group("resize", "keep_ratio", short=(short,), long=short * 5 // 3)


def model(name, cpu, fine):
    """A dense detector for an accelerator or for two CPU cores; ``fine``: from stride 4 on."""
    taps = ("c2", "c3", "c4", "c5")[not fine :]
    if not cpu:
        return dense_model(name, 50, "group", taps=taps)
    return dense_model(
        name, 18, "batch", width=0.5, channels=64, extra="conv_p5", head_depth=1, taps=taps
    )
