"""Is direct pre-training as good as ImageNet weights on a small set? Faster R-CNN on PASCAL VOC.

    python data/get_voc.py --root data
    python -m jdet.main --config=experiments/direct_faster_voc.py --workdir=runs/direct_faster_voc

The model and phase 1 are those of ``direct_faster_coco.py``, with 93,000 steps; the paper prints no more
of it. Phase 2 is MMDetection's recipe for VOC: short side 600, 12 passes of 16 images, the rate of 0.01
divided by 10 after 9, no warm-up.

    steps=93000  side=448  batch=8  gpus=8      of phase 1, images of a device
    mode=fixed | affine | sync_batch  load=backbone+neck+rpn      norms and parts of phase 2
    head=4conv1fc | 2fc  form=fit | square | stitcher  length=fixed_iters | fixed_samples
    seed=0  root=data

Source: Li et al. 2021, "Rethinking Training from Scratch for Object Detection", Table 9
Paper: VOC07 mAP 72.0; ImageNet-initialised 79.5
Ours: not run by us
Cost: 93,000 steps of 64 images of 448×448, 165 GMAC each, 360 passes over 16,551 images; 12,413 of 16
"""

from ml_collections import ConfigDict

from experiments.common import pick, voc
from experiments.common_dense import decay_without_norms, keep_proportions, plain_images
from experiments.common_direct import DIRECT, FORMS, MODES, norms_in_backbone, two_phases
from experiments.common_rcnn import rcnn_model
from jdet.config import parse_arg

LENGTHS = dict(p=1, ft="1x", ms=False)
"""Arguments on COCO, which set what VOC has otherwise."""

ARGUMENTS = {key: value for key, value in DIRECT.items() if key not in LENGTHS}
ARGUMENTS |= dict(head="4conv1fc", steps=93_000)


def get_config(arg=""):
    arg = parse_arg(arg, **ARGUMENTS)
    pick("mode", arg.mode, MODES)
    pick("form", arg.form, FORMS)
    c = voc(arg.root, "07+12", "07test", arg.seed)
    c.data.max_boxes, c.data.workers = 64, 2
    keep_proportions(c, 600, 1000)
    plain_images(c)
    c.model = norms_in_backbone(rcnn_model("faster_rcnn", 50, "sync_batch", arg.head))
    decay_without_norms(c)
    two_phases(c, ConfigDict({**arg, **LENGTHS}), lr=0.02)
    c.phase.pretrain.train.steps = arg.steps
    c.phase.finetune.train.epochs = 12.0
    c.phase.finetune.optimizer.update(lr=0.01, warmup=0, boundaries=(9 / 12,))
    return c
