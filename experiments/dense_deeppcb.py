"""Do dense detectors learn defects of circuit boards from scratch, as ScratchDet does?

    python -m jdet.main --config=experiments/dense_deeppcb.py:cpu,detector=fcos \
        --workdir=runs/fcos_deeppcb --config.data.root=DEEPPCB

Data and images as in ``scratchdet_deeppcb.py``: 1000 boards of 640×640 to train on, 500 to test, defects
of 20 to 60 pixels, all eight orientations. Levels of stride 8, 16 and 32 (4 to 32 in the CPU arm), norms
in backbone, pyramid and towers, those of the towers with statistics for every level.

    detector=retinanet   anchors from three strides on: every defect overlaps one by half
    detector=fcos        every defect falls to the finest level, whose distances reach eight strides
    detector=atss        one anchor of four strides at every place
    detector=reppoints_v2   points, first one place an object, then as atss; corners on all levels

``:cpu``  ResNet-18 at 3/8 width, pyramid and single-layer towers of 64 channels, 320-pixel input, batch 8,
    norms over all images of a step: for two CPU cores.
default   ResNet-34 at 640 pixels, batch 16: for an accelerator.

Source: ours; the models: Lin et al. 2017b, Tian et al. 2020, Zhang et al. 2020, Chen et al. 2020; the set:
    github.com/tangsanli5201/DeepPCB
Paper: –
Ours: ``:cpu`` COCO AP, AP50: retinanet 0.509, 0.826; fcos 0.466, 0.816; atss 0.508, 0.822; ScratchDet
    at the same length 0.542, 0.865 (one seed; docs/results.md); reppoints_v2 and the full arm not run by us
Cost: ``:cpu`` 1.6 (fcos, atss) to 2.0 (retinanet) GMAC an image, 1500 steps of 8, a quarter of an
    hour on two CPU cores; the full arm 6000 steps of 16
"""

from experiments.common import boards_on_cpu, boards_recipe, pick, voc
from experiments.common_dense import decay_without_norms, dense_model
from jdet.config import parse_arg

DETECTORS = {
    "retinanet": dict(anchor_scale=3.0),
    "fcos": {},
    "atss": dict(anchor_scale=4.0),
    "reppoints_v2": {},
}
"""Fields that fit the sizes of the defects."""


def get_config(arg=""):
    arg = parse_arg(arg, cpu=False, detector="retinanet", steps=0, lr=0.04, seed=0)
    pick("detector", arg.detector, DETECTORS)
    c = voc("data/deeppcb", "trainval", "test", arg.seed)
    boards_recipe(c, arg)
    decay_without_norms(c)

    if arg.cpu:
        c.input_size = 320
        size = dict(depth=18, width=0.375, channels=64, head_depth=1, taps=("c2", "c3", "c4", "c5"))
        if arg.detector == "reppoints_v2":
            size["corner_channels"] = 16
        boards_on_cpu(c, arg)
    else:
        c.input_size = 640
        size = dict(depth=34)
        c.train.steps = arg.steps or 6000
        c.train.ema = 0.999
    c.model = dense_model(
        arg.detector,
        norm="sync_batch" if arg.cpu else "batch",
        extra="none",
        **size,
        **DETECTORS[arg.detector],
    )
    c.train.eval_every = max(c.train.steps // 4, 1)
    return c
