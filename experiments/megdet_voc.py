"""How large may the mini-batch be? MegDet's recipe on ScratchDet's detector, from random weights.

    E=experiments/megdet_voc.py
    python -m jdet.main --config=$E:batch=256,bn=32 --workdir=runs/b256_bn32
    python -m jdet.main --config=$E:batch=256,bn=32,policy=long --workdir=runs/b256_bn32_long
    python -m jdet.main --config=$E:batch=128,bn=8,mini,root=BCCD --workdir=runs/b128_bn8_mini

ScratchDet300 with Root-ResNet-34 on 07+12 trainval, VOC07 test. The learning rate grows with the batch from
0.05 at 128; the warm-up climbs to it from the rate of 16 images, after every step, for 500 steps or an
epoch, whichever is longer. The policies drop at the published shares of a run (8, 10 of 11 and 11, 14, 17
of 18 epochs), each stretched twentyfold: starting from nothing takes longer than fine-tuning. The
published rows (FPN, ResNet-50 with ImageNet weights, COCO minival mmAP):

    batch    no norm                BN 2   BN 8   BN 16  BN 32  BN 32, long
    8                                      35.9
    16       36.2                   31.0          37.0          37.7 (BN 16)
    32       36.4 (at times fails)                       37.3   37.8
    64       fails, 36.0 at lr/2                  37.1   37.1   37.6
    128      fails, at lr/2 too                   37.0   37.1   37.6
    256                                           37.1   37.1   37.7

    batch=128        images per step; 8, 32, 128, 256, …
    bn=0             images that share statistics; 0: 32, or the batch where that is smaller
    norm=both | none  in backbone and head; without, the rate is 0.001 at 128
    warmup=true      false: the full rate from the first step
    policy=normal | long   epochs=0 (220, 360; mini: 66, 108)   steps=0 (in place of epochs)
    accumulation=1   micro-batches per step, where a batch does not fit; each has its own BN groups
    lr=0             at 128 images (mini: at 16); 0: as above
    mini             Root-ResNet-18 with a stem of stride 2, quarter width, 96 pixels, any folder of VOC
                     shape; the paper's rate of 0.02 at 16 images, without norms too; the warm-up is a
                     tenth of the run
    root=data  train=07+12  test=07test (mini: trainval, test)  seed=0

Source: Peng et al. 2018 (MegDet), Tables 2 and 3
Paper: COCO mmAP 37.1 with batch 256, 37.0 with 16; 37.7 with both by the long policy
Ours: mini on BCCD, VOC07 mAP of batches 8, 32, 128: 74.7, 65.8, 57.8 with the best group, 65.1, 58.3,
    57.0 with norms over 2; the full size not run by us
Cost: 220 (long: 360) epochs of 16,551 images an arm, 33.3 GMAC an image; mini 66 (108) epochs of 292
    images, 5 (8) minutes of a CPU core
"""

from experiments.common import MEGDET, STEMS, megdet, miniature, scratchdet, voc_or_folder
from jdet import build
from jdet.config import parse_arg


def get_config(arg=""):
    arg = parse_arg(arg, root="data", train="", test="", mini=False, **MEGDET)
    c = voc_or_folder(arg)
    c.model = scratchdet("root_resnet34")
    megdet(c, arg, lr=0.001 if arg.norm == "none" else 0.05, reference=128, stretch=20)
    if arg.mini:
        shrink(c, arg)
    return c


def shrink(c, arg):
    """What two CPU cores train in minutes, whatever the batch."""
    c.model.backbone = build.group("backbone", "root_resnet", depth=18, **STEMS["s2_root3"])
    c.model.neck = build.group("neck", "ssd_extras")
    c.model.taps = ("c2", "c3", "c4", "c5")
    miniature(c, arg.steps, width=0.25, batch=arg.batch)
    c.input_size = 96
    megdet(c, arg, lr=0.02, reference=16, stretch=6)
    # Of no consequence below a norm; without, images at their own scale blow up at any rate.
    c.model.std = (58.0, 57.0, 57.0)
    if arg.warmup:
        c.optimizer.warmup = arg.steps // 10
        c.optimizer.warmup_epochs = c.train.epochs / 10
    c.train.eval_every = 0
    c.parallel.cpu_devices = 2
    return c
