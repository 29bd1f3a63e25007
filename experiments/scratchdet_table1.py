"""Where must norms be for SSD to train from scratch, and which learning rate do they allow?

    python -m jdet.main --config=experiments/scratchdet_table1.py:norm=both,lr=0.05 --workdir=runs/both
    python -m jdet.main --config=experiments/scratchdet_table1.py:norm=none,lr=0.05,mini,root=BCCD \
        --workdir=runs/none_mini

SSD300 with VGG-16, no L2 normalisation, batch 128, VOC07 mAP (columns without ImageNet weights):

    norm          lr=0.001   lr=0.01   lr=0.05
    none          67.6       diverges  diverges
    head          71.0       75.6      diverges
    backbone      72.8       77.8      78.0      (the extra levels included)
    both          71.8       77.3      78.7

The paper's curves drop at 80k of 120k steps for 0.001, at 50k for 0.01; later drops are SSD's. 0.05 has
the schedule of sec. 4, 45k, 75k, 95k of 100k. A cell that diverges is a result: the run ends at once,
``run.json`` says ``"status": "diverged"``, the last lines of ``metrics.jsonl`` name the step and the
gradient norms, and the exit code is 1.

    kind=batch | sync_batch | group   which norm
    mini     width 0.25, 128 pixels, boxes from 19 pixels, batch 16, 600 steps, any folder of VOC shape
    root=data  train=07+12  test=07test (mini: trainval, test)  steps=0  batch=128 (mini: 16)  seed=0

Source: Zhu et al. 2019, Table 1
Paper: VOC07 mAP 67.6 (none, 0.001), 71.0, 75.6 (head), 72.8, 77.8, 78.0 (backbone), 71.8, 77.3, 78.7 (both)
Ours: full arms not run by us; in miniature (BCCD, two seeds) none diverges at 0.01 and 0.05, best 61.2
    (backbone, 0.01), 57.3 (both, 0.01), 24.7 (head, 0.001), 17.1 (none, 0.001): docs/studies.md
Cost: 773 to 928 epochs of 16,551 images per arm, 31.4 GMAC per image; mini 0.75 CPU seconds a step
"""

from experiments.common import miniature, pick, voc_or_folder
from jdet import build
from jdet.config import parse_arg

PLACES = {"none": (False, False), "head": (False, True)}
PLACES |= {"backbone": (True, False), "both": (True, True)}
SCHEDULES = {
    0.001: (120_000, (80 / 120, 100 / 120)),
    0.01: (120_000, (50 / 120, 80 / 120, 100 / 120)),
    0.05: (100_000, (0.45, 0.75, 0.95)),
}


def get_config(arg=""):
    data = dict(root="data", train="", test="", mini=False, steps=0, seed=0)
    arg = parse_arg(arg, norm="both", lr=0.05, kind="batch", batch=0, **data)
    pick("norm", arg.norm, PLACES)
    pick("lr", arg.lr, SCHEDULES)
    c = voc_or_folder(arg)
    backbone, head = PLACES[arg.norm]
    c.model = build.group(
        "detector",
        "ssd",
        backbone=build.group("backbone", "vgg16"),
        neck=build.group("neck", "ssd_extras"),
        norm=arg.kind if backbone else "none",
        head_norm=arg.kind if head else "none",
    )
    c.train.batch_size = arg.batch or 128
    steps, c.optimizer.boundaries = SCHEDULES[arg.lr]
    c.train.steps = arg.steps or steps
    c.train.eval_every = max(c.train.steps // 10, 1)
    c.optimizer.lr = arg.lr
    if arg.mini:
        miniature(c, arg.steps, width=0.25, batch=arg.batch)
        # Without norms shallow layers still have the images' scale, and a level of stride 4 blows up;
        # boxes of 19 pixels on the usual levels fit the cells of BCCD, not its platelets.
        c.model.first_ratio, c.model.min_ratio = 0.15, 0.25
    return c
