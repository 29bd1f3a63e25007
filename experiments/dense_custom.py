"""RetinaNet, FCOS or ATSS on your own images: name a folder, the rest is read from the data.

    E=experiments/dense_custom.py
    python -m jdet.main --config=$E:root=PATH,detector=fcos --workdir=runs/mine
    python -m jdet.main --config=$E:root=PATH,detector=fcos,cpu --workdir=runs/mine

PATH and what is derived from it are as in ``scratchdet_custom.py``, but images keep their proportions:
the short side has ``size`` pixels, the long one five thirds of that at most. Where small objects would be
under 24 pixels, or are seen in tiles, there is a level of stride 4 more. RetinaNet's
anchors get another scale and other aspect ratios where many objects of a class would have none; the start
says so.

    detector=atss | fcos | retinanet
    default  ResNet-50, levels to stride 128, group norms, short side 640 to 800
    cpu      ResNet-18 at half width, pyramid and single-layer towers of 64 channels, short side 160 to 320
    size=  batch=  steps=  lr=0.05  seed=0

Source: ours; the models: Lin et al. 2017b, Tian et al. 2020, Zhang et al. 2020
Paper: –
Ours: depends on the data; ``dense_deeppcb.py`` gives a feeling
Cost: depends on the data
"""

from experiments.common import pick
from experiments.common_dense import (
    DETECTORS,
    decay_without_norms,
    fit_anchors,
    keep_proportions,
    sized_model,
)
from experiments.common_own import OWN, TILED, decide, own_images, own_recipe
from jdet.analysis.scales import small
from jdet.config import parse_arg

SMALL = 24
"""Square root of the area, pixels, under which objects need a level of stride 4."""


def get_config(arg=""):
    arg = parse_arg(arg, **OWN | TILED, detector="atss")
    pick("detector", arg.detector, DETECTORS)
    own = own_images(arg, "dense_custom")
    c, short = own.config, decide(own, arg, *((160, 320) if arg.cpu else (640, 800)))
    keep_proportions(c, short, long=short * 5 // 3)
    c.model = sized_model(
        arg.detector, arg.cpu, fine=small(own.objects) * short < SMALL or c.data.tile.side > 0
    )
    if arg.fit:
        fit_anchors(c, own.source)
    own_recipe(c, arg, own)
    decay_without_norms(c)
    return c
