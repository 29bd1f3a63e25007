"""Does direct pre-training find nuclei and their masks better than training from scratch, at equal cost?

    python -m jdet.main --config=experiments/direct_nuclei.py --workdir=runs/direct_nuclei \
        --config.data.root=DSB2018

Data and Mask R-CNN are those of ``mask_nuclei.py:cpu`` at half its width, with 64 RoIs and norms in the
backbone alone. Small parts of images first, whole images of 256 pixels afterwards; both phases together see
as many pixels as `steps` of whole images, which is what the scratch arm trains.

    arm=direct | scratch    scratch: whole images from the beginning, nothing fixed
    side=160  batch=16      of the parts; share=0.5 of the pixels are seen in them
    pre=0                   steps of phase 1 whatever the share
    mode=fixed | affine | sync_batch      norms of phase 2
    load=backbone+neck+rpn+box_head+mask_head      parts of the model that phase 2 takes; all by default
    data=1.0                share of the training images
    steps=250  lr=0.01  seed=0

Source: ours, after Li et al. 2021, Tables 3 and 5; the set: Caicedo et al. 2019, Data Science Bowl 2018
Paper: –
Ours: not run by us
Cost: 250 steps of 8 images of 256×256, some 13 minutes of one CPU core (estimated from 13 steps)
"""

from experiments import mask_nuclei
from experiments.common_direct import norms_in_backbone, small_phases, small_settings


def narrow(model):
    """Halves the width, so that a step takes a sixth of the time."""
    model.backbone.width, model.samples, model.box_head.fc_channels = 0.25, 64, 128
    for part in ("neck", "rpn", "mask_head"):
        model[part].channels = 32


def get_config(arg=""):
    arg = small_settings(arg, side=160, steps=250, root="data/dsb2018_nuclei")
    c = mask_nuclei.get_config(f"cpu,norm=none,steps={arg.steps},lr={arg.lr},seed={arg.seed}")
    c.data.root, c.data.share = arg.root, arg.data
    narrow(norms_in_backbone(c.model))
    c.train.eval_every = 0
    return small_phases(c, arg, arg.steps) if arg.arm == "direct" else c
