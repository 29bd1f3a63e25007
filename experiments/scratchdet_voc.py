"""ScratchDet300 on PASCAL VOC: can a detector trained from scratch beat a fine-tuned one?

    python data/get_voc.py --root data
    python -m jdet.main --config=experiments/scratchdet_voc.py --workdir=runs/scratchdet_voc
    python -m jdet.main --config=experiments/scratchdet_voc.py:train=07++12 --workdir=runs/scratchdet_voc12

Root-ResNet-34, residual extras, BatchNorm in backbone and head, 07+12 trainval, VOC07 test (recipe of
sec. 4: batch 128, lr 0.05, drops at 45k, 75k and 95k of 100k steps, momentum 0.9, weight decay 5e-4, no
warm-up). The paper normalises over 16 images per device; with 8 devices the default does the same.

    backbone=root_resnet34 | root_resnet18 | resnet18 | resnet18a | resnet18b | vgg16
    release=caffe | mmdetection  what was released instead of what was published: pre-activation blocks
                                 and predictions from the branches, 8892 boxes; or 8764 boxes
    norm=batch head_norm=batch   each none, batch, sync_batch, group, layer, frozen_batch, affine_batch
    gn       GroupNorm in backbone and head, batch 16, lr 0.03: the author's advice for one small device
    train=07+12  test=07test  root=data  lr=0.05  batch=128  seed=0
    tta=voc  multi-scale testing (ScratchDet300+) after training, or with --mode=evaluate

VOC12's test boxes are on a server; after train=07++12 the mAP on VOC07 test is one on training images.

Source: Zhu et al. 2019, Table 3
Paper: VOC07 mAP 80.4 (78.5 with root_resnet18), tta=voc 84.1; VOC12 test 78.5 with train=07++12, 83.6
    with tta=voc
Ours: not run by us
Cost: about 773 epochs of 16,551 images, 33.3 GMAC an image
"""

from experiments.common import SCRATCHDET, batch_and_rate, norms, scratchdet, voc
from jdet.config import parse_arg


def get_config(arg=""):
    arg = parse_arg(
        arg,
        root="data",
        train="07+12",
        test="07test",
        **SCRATCHDET,
        lr=0.0,
        batch=0,
        seed=0,
        tta="none",
    )
    c = voc(arg.root, arg.train, arg.test, arg.seed)
    c.data.workers = 2
    c.model = scratchdet(arg.backbone, arg.release, **norms(arg))
    c.train.steps = 100_000
    c.train.eval_every = 10_000
    c.optimizer.boundaries = (0.45, 0.75, 0.95)
    batch_and_rate(c, arg)
    c.eval.tta.preset = arg.tta
    return c
