"""How large may the mini-batch be? MegDet's recipe on its own detector, FPN on COCO, from random weights.

    E=experiments/megdet_fpn_coco.py R=runs/megdet_fpn_r50
    python -m jdet.main --config=$E:batch=256,bn=32 --workdir=${R}_b256_bn32
    python -m jdet.main --config=$E:batch=256,bn=16,policy=long --workdir=${R}_b256_bn16_long
    python -m jdet.main --config=$E:batch=16,norm=none --workdir=${R}_b16_nobn

Faster R-CNN on P2 to P6. The rate grows with the batch from 0.02 at 16; the warm-up climbs to it from that
of 16 images for 500 steps or an epoch, whichever is longer. Policies as in ``megdet_voc.py``, stretched
sixfold: starting from nothing takes longer than fine-tuning. The published rows (ResNet-50 with ImageNet
weights, COCO minival mmAP; 31.0 for 16 images with norms over 2):

    batch        2     4     8     16    32    64    128   256
    norm=none                      36.2  36.4  36.0              64 at half the rate; fails at the whole
    bn=batch     31.5  34.9  35.9  37.0  37.3  35.3
    bn=32                                37.3  37.1  37.1  37.1  long: 37.8 (32), 37.6, 37.6, 37.7
    bn=16                          37.0        37.1  37.0  37.1  long: 37.7 (16), 37.7 (256)

Positives over negatives among the sampled RoIs, Table 1, are logged as ``samples/ratio``
(docs/large_batches.md): 5.58 % in epoch 1 with 16 images, 9.82 % with 256; 16.59 and 16.91 % in epoch 12.

    batch=16         images per step; 2, 4, …, 256
    bn=0             images that share statistics; 0: 32, or the batch where that is smaller
    scope=all        norms in backbone, pyramid and a box head of four convolutions; backbone: there alone,
                     and two layers in the head, which the paper's numbers of parameters suggest
    norm=both | none   none (nobn): nowhere, at a fiftieth of the rate; with weights of another run
                     (docs/init_from.md) lr=0.02 as published, and --config.model.norm=frozen_batch
    policy=normal | long   epochs=0 (66, 108)   steps=0 (in place of epochs)   warmup=true
    lr=0             at 16 images; 0: as above   accumulation=1   depth=50  size=800  seed=0  root=data

Source: Peng et al. 2018 (MegDet), Tables 1, 2 and 3; Lin et al. 2017a
Paper: COCO mmAP 37.1 with batch 256, 37.0 with 16; 37.7 with both by the long policy
Ours: not run by us
Cost: 66 (long: 108) epochs of 118,287 images an arm, 321 GMAC an image of 800×1280 (206 with
    scope=backbone)
"""

from experiments.common import MEGDET, coco, megdet, pick
from experiments.common_dense import decay_without_norms, keep_proportions, plain_images
from experiments.common_rcnn import rcnn_model
from jdet.config import parse_arg

HEADS = {"all": "4conv1fc", "backbone": "2fc"}


def get_config(arg=""):
    fpn = dict(batch=16, scope="all", depth=50, size=800, root="data")
    arg = parse_arg(arg, **MEGDET | fpn)
    pick("scope", arg.scope, HEADS)
    c = coco(arg.root, arg.seed)
    keep_proportions(c, arg.size, arg.size * 5 // 3)
    plain_images(c)
    decay_without_norms(c)
    everywhere = arg.scope == "all" and arg.norm == "both"
    norm = "sync_batch" if everywhere else "none"
    c.model = rcnn_model("faster_rcnn", arg.depth, norm, HEADS[arg.scope])
    megdet(c, arg, lr=0.0004 if arg.norm == "none" else 0.02, reference=16, stretch=6)
    if not everywhere:
        c.model.head_norm = "none"
    if arg.norm == "none":
        c.optimizer.rules = ()  # there are no norms to leave out
    c.train.sample_stats = True
    c.train.eval_every = 20_000
    return c
