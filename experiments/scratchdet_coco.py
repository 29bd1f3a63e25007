"""ScratchDet300 on COCO from scratch.

    python data/get_coco.py --root data
    python -m jdet.main --config=experiments/scratchdet_coco.py --workdir=runs/scratchdet_coco

As ``scratchdet_voc.py``, with COCO's smaller default boxes (7 and 15 % of the side), crowds left out of
training, drops at 150k, 250k and 310k of 320k steps (Zhu et al. 2019, sec. 4.2).

Cost: about 346 epochs of 118,287 pictures.
Expect: COCO AP 32.7, AP50 52.0 on test-dev reported by the paper (Table 4); not run by us.
"""

from experiments.scratchdet_voc import scratchdet
from jdet import build
from jdet.config import get_defaults, parse_arg


def get_config(arg=""):
    arg = parse_arg(arg, root="data", backbone="root_resnet34", lr=0.05, batch=128, seed=0)
    c = get_defaults()
    c.seed = arg.seed
    c.data.root = arg.root
    for role, split in (("train", "train2017"), ("eval", "val2017")):
        file = c.data.get_ref("root") + f"/coco/annotations/instances_{split}.json"
        c.data[role] = build.group("source", "coco", annotation_file=file, keep_masks=False)
    c.data.max_boxes = 100
    c.data.workers = 2

    c.model = scratchdet(arg.backbone, first_ratio=0.07, min_ratio=0.15, train_ignored=False)

    c.train.batch_size = arg.batch
    c.train.steps = 320_000
    c.train.eval_every = 20_000
    c.optimizer.lr = arg.lr  # at batch 128; other batches scale linearly
    c.optimizer.boundaries = (150 / 320, 250 / 320, 310 / 320)
    c.eval.metrics = ("coco",)
    return c
