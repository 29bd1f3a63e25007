"""Do stages that refine regions find the edges of small defects better than dense detectors?

    python -m jdet.main --config=experiments/rcnn_deeppcb.py:cpu,detector=cascade_rcnn \
        --workdir=runs/cascade_deeppcb --config.data.root=DEEPPCB

Data, images, optimisation and backbone are those of ``dense_deeppcb.py``, and in the CPU arm the pyramid
and the views too, so that its rows compare: strides of 4 to 32, anchors of three strides. RoIs are
resampled to 7×7 cells.

    detector=faster_rcnn    one head of two fully connected layers, a box for every class
    detector=cascade_rcnn   three such heads at IoUs of 0.5, 0.6 and 0.7, one box for all classes
    detector=sparse_rcnn    no anchors, no NMS: 100 learnt proposals in six stages; trained by AdamW
    lr=0      for 16 images; 0: 0.04, of sparse_rcnn 0.0005 (0.0001 in the full arm)

``:cpu``  ResNet-18 at 3/8 width, pyramid of 64 channels, heads of 256, 320-pixel input, batch 8, 128 RoIs
    of 200 proposals (sparse_rcnn: 100), norms over all images of a step: for two CPU cores.
default   ResNet-34 at 640 pixels, batch 16: for an accelerator.

Source: ours; the models: Ren et al. 2015, Lin et al. 2017a, Cai & Vasconcelos 2018, Sun et al. 2021
Paper: –
Ours: not run by us
Cost: ``:cpu`` 1.6 (faster_rcnn) and 2.2 (cascade_rcnn) GMAC an image, 1500 steps of 8; the full arm
    6000 of 16
"""

from experiments.common import boards_on_cpu, boards_recipe, pick, voc
from experiments.common_dense import decay_without_norms
from experiments.common_rcnn import rcnn_model, sparse_model, sparse_recipe
from jdet.config import parse_arg

RATES = {"faster_rcnn": 0.04, "cascade_rcnn": 0.04, "sparse_rcnn": 1e-4}
"""Of the detectors, for 16 images."""

CPU_RPN = dict(pre_nms_train=400, pre_nms=200, proposals_train=200, proposals=200)


def get_config(arg=""):
    arg = parse_arg(arg, cpu=False, detector="faster_rcnn", steps=0, lr=0.0, seed=0)
    pick("detector", arg.detector, RATES)
    sparse = arg.detector == "sparse_rcnn"
    arg.lr = arg.lr or RATES[arg.detector] * (5 if sparse and arg.cpu else 1)
    c = voc("data/deeppcb", "trainval", "test", arg.seed)
    boards_recipe(c, arg)
    decay_without_norms(c)

    if arg.cpu:
        c.input_size = 320
        size = dict(depth=18, width=0.375, channels=64)
        rpn, box_head, more = dict(CPU_RPN), dict(fc_channels=256), dict(samples=128)
        boards_on_cpu(c, arg)
    else:
        c.input_size = 640
        size, rpn, box_head, more = dict(depth=34), {}, {}, {}
        c.train.steps = arg.steps or 6000
        c.train.ema = 0.999
    norm = "sync_batch" if arg.cpu else "batch"
    if sparse:
        few = dict(dynamic_channels=16, hidden=256) if arg.cpu else {}
        c.model = sparse_model(norm=norm, **size, **few)
        sparse_recipe(c, arg.lr)
    else:
        c.model = rcnn_model(
            arg.detector,
            norm=norm,
            head="2fc",
            agnostic=arg.detector == "cascade_rcnn",
            rpn=rpn | dict(anchor_scale=3.0),
            box_head=box_head,
            **size,
            **more,
        )
        c.model.neck.extra = "none"
    c.train.eval_every = max(c.train.steps // 4, 1)
    return c
