"""What does direct pre-training gain over parts of 640 pixels from beginning to end, as DropBlock trains?

    python data/get_coco.py --root data
    python -m jdet.main --config=experiments/direct_dropblock_coco.py --workdir=runs/direct_dropblock

Mask R-CNN of ``direct_mask_coco.py`` in one phase: parts of 640×640 pixels by the same resize, 8 images on
each of 8 devices, norms over all of them, three times 88,000 steps. No second phase, no blocks dropped: the
paper's comparison takes over the images alone. The other row of the table is ``direct_mask_coco.py:p=2``.

Where the rate drops is not printed: here as in any 3x schedule, after 28 and 34 of 36 parts.

    batch=64  side=640  lr=0.02 (for 16 images)  head=4conv1fc | 2fc  seed=0  root=data

Source: Li et al. 2021, "Rethinking Training from Scratch for Object Detection", Table 10, after Ghiasi et
    al. 2018, "DropBlock"
Paper: COCO val box and mask AP 39.8, 35.5 with 11.25 GB a device; direct pre-training 41.0, 36.6 with
    8.06 GB
Ours: not run by us
Cost: 264,000 steps of 64 images of 640×640, 258 GMAC each
"""

from experiments.common import coco
from experiments.common_dense import SCHEDULES, decay_without_norms, plain_images
from experiments.common_direct import PX, norms_in_backbone, pretrain_input
from experiments.common_rcnn import rcnn_model, with_masks
from jdet.config import parse_arg

ARGUMENTS = dict(batch=64, side=640, lr=0.02, head="4conv1fc", seed=0, root="data")


def get_config(arg=""):
    arg = parse_arg(arg, **ARGUMENTS)
    c = coco(arg.root, arg.seed)
    c.input_size, c.resize = arg.side, pretrain_input("fit", arg.side)
    plain_images(c)
    c.model = norms_in_backbone(rcnn_model("mask_rcnn", 50, "sync_batch", arg.head))
    decay_without_norms(c)
    epochs, *drops = SCHEDULES["3x"]
    c.train.batch_size, c.train.steps = arg.batch, 3 * PX
    c.train.eval_every = PX
    c.optimizer.lr, c.optimizer.reference_batch = arg.lr, 16
    c.optimizer.boundaries = tuple(drop / epochs for drop in drops)
    c.optimizer.warmup, c.optimizer.warmup_start = 500, 0.001
    return with_masks(c)
