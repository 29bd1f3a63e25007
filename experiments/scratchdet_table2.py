"""Does resolution in the first layers, and a root of small convolutions, help detection?

    python -m jdet.main --config=experiments/scratchdet_table2.py:stem=s1_root3 --workdir=runs/s1_root3
    python -m jdet.main --config=experiments/scratchdet_table2.py:stem=s2_7x7,mini,root=BCCD \
        --workdir=runs/s2_7x7_mini

ResNet-18 with other first layers, SSD's extra levels, norms in backbone and head, VOC07 mAP:

    stem        first convolution         stride 1, pool 2   stem       stride 2, pool 2
    s1_7x7      7×7 (ResNet-18-B)         77.6               s2_7x7     73.1 (ResNet-18)
    s1_root1    3×3                       77.8               s2_root1   73.2
    s1_root2    two 3×3                   78.1               s2_root2   74.9
    s1_root3    three (Root-ResNet-18)    78.5               s2_root3   75.4
    s1_root4    four                      78.4               s2_nopool  75.3 (ResNet-18-A: 7×7, no pool)
    s1_root5    five                      78.5

    norm=batch | sync_batch | group   in backbone and head
    mini     width 0.25, 128 pixels, stride-4 finest level, batch 16, 600 steps, any folder of VOC shape
    boards   the miniature on circuit boards (DeepPCB), whose defects are small: 192 pixels, 800 steps,
             cosine, fitting boxes, all eight orientations, nothing recoloured, zoomed or cropped
    root=data  train=07+12  test=07test (mini: trainval, test)  lr=0.05  batch=128 (mini: 16)  steps=0
    seed=0

Source: Zhu et al. 2019, Table 2 and Fig. 3
Paper: VOC07 mAP 73.1 (s2_7x7) to 78.5 (s1_root3)
Ours: full arms not run by us; in miniature (boards, two seeds) 53.2 (s2_7x7), 69.1 (s1_root3), of small
    defects COCO AP 28.5 and 45.0: docs/studies.md
Cost: about 773 epochs of 16,551 images an arm, 3.6 (s2_root1) to 26.6 (s1_root5) GMAC an image;
    mini 0.76 CPU seconds a step (s1_root3), boards 2.1
"""

from experiments.common import STEMS, boards, miniature, pick, voc_or_folder
from jdet import build
from jdet.config import parse_arg


def get_config(arg=""):
    data = dict(root="data", train="", test="", mini=False, boards=False, steps=0, seed=0)
    arg = parse_arg(arg, stem="s1_root3", norm="batch", lr=0.05, batch=0, **data)
    pick("stem", arg.stem, STEMS)
    arg.mini |= arg.boards
    c = voc_or_folder(arg)
    c.model = build.group(
        "detector",
        "ssd",
        backbone=build.group("backbone", "root_resnet", depth=18, **STEMS[arg.stem]),
        neck=build.group("neck", "ssd_extras"),
        norm=arg.norm,
        head_norm=arg.norm,
    )
    c.train.batch_size = arg.batch or 128
    c.train.steps = arg.steps or 100_000
    c.train.eval_every = max(c.train.steps // 10, 1)
    c.optimizer.lr = arg.lr
    c.optimizer.boundaries = (0.45, 0.75, 0.95)
    if arg.mini:
        miniature(c, arg.steps or (800 if arg.boards else 600), width=0.25, batch=arg.batch)
        # Stem stride 2 and pool leave c2 to stage 1, and one stage more above it.
        deep = arg.stem.startswith("s2") and arg.stem != "s2_nopool"
        c.model.taps = ("c2", "c3", "c4", "c5") if deep else ("c2", "c3", "c4")
    if arg.boards:
        boards(c)
        c.input_size = 192
        c.optimizer.schedule, c.optimizer.warmup = "cosine", c.train.steps // 10
        c.model.first_ratio, c.model.min_ratio, c.model.max_ratio = 0.05, 0.08, 0.5
    return c
