"""Does direct pre-training find defects of circuit boards better, at equal cost and with little data?

    python -m jdet.main --config=experiments/direct_deeppcb.py --workdir=runs/direct_deeppcb \
        --config.data.root=DEEPPCB

Data as in ``scratchdet_deeppcb.py``; RetinaNet with ResNet-18 at quarter width, norms in the backbone
alone. Small parts of boards first, whole boards of 192 pixels afterwards; both phases together see as many
pixels as `steps` of whole boards, which is what the scratch arm trains.

    arm=direct | scratch    scratch: whole boards from the beginning, nothing fixed
    side=128  batch=16      of the parts; share=0.5 of the pixels are seen in them
    pre=0                   steps of phase 1 whatever the share
    mode=fixed | affine | sync_batch      norms of phase 2
    load=backbone+neck      parts of the model that phase 2 takes; all by default
    data=1.0                share of the training boards
    steps=400  lr=0.01  seed=0

Source: ours, after Li et al. 2021, Tables 1, 2, 3, 5 and 9; the set: github.com/tangsanli5201/DeepPCB
Paper: –
Ours: not run by us
Cost: 400 steps of 8 boards of 192×192, some 7 minutes of one CPU core (estimated from 26 steps)
"""

from experiments.common import boards_recipe, voc
from experiments.common_dense import decay_without_norms
from experiments.common_direct import small_model, small_phases, small_settings


def get_config(arg=""):
    arg = small_settings(arg, side=128, steps=400, root="data/deeppcb")
    c = voc(arg.root, "trainval", "test", arg.seed)
    boards_recipe(c, arg)
    decay_without_norms(c)
    c.input_size = 192
    c.data.share = arg.data
    c.model = small_model("retinanet", width=0.25, channels=32, anchor_scale=2.0)
    c.train.batch_size, c.train.steps, c.train.ema = 8, arg.steps, 0.995
    c.parallel.cpu_devices = 2
    return small_phases(c, arg, arg.steps) if arg.arm == "direct" else c
