"""Faster R-CNN on COCO from random weights: do two stages need a pre-trained backbone?

    python data/get_coco.py --root data
    python -m jdet.main --config=experiments/faster_rcnn_coco.py --workdir=runs/faster_rcnn_coco

ResNet-50, pyramid P2 to P6, norms in backbone, pyramid and the four convolutions of the box head, nothing
frozen. Recipe of the from-scratch runs of MMDetection's zoo (`6x`: 73 epochs, drops after 65 and 71,
warm-up of 500 steps from a tenth, decay 1e-4, none on norms) at 0.02 for 16 images; other batches scale it.
Images as in ``retinanet_coco.py``.

    schedule=6x | 3x | 2x | 20e | 1x   36, 24, 20 and 12 epochs, the usual drops, warm-up from a thousandth
    schedule=lsj100 | lsj200 | lsj400   so many epochs of large-scale jitter in squares of 1024 pixels: 64
                                 images, lr=0.025, bn=64, two convolutions in the RPN, decay 4e-5
    norm=group                   sync_batch: statistics over bn=16 images; batch: those of a device
    head=4conv1fc | 2fc          convolutions with norms, or two fully connected layers
    multiscale                   the short side drawn from 0.8 of `size` to `size` in training
    warp                         images warped to squares of `size` pixels instead
    depth=50  size=800  batch=16  lr=0.02  bn=16  seed=0  root=data

Source: Ren et al. 2015, Lin et al. 2017a; schedule and head as He et al. 2019, "Rethinking ImageNet
    Pre-training"; jitter Ghiasi et al. 2021, "Simple Copy-Paste"
Paper: MMDetection's zoo: COCO val AP 40.7 (6x, group norms, from scratch); ImageNet-initialised 37.4 (1x)
Ours: not run by us
Cost: 73 epochs of 118,287 images, 321 GMAC an image of 800×1280 (206 with 2fc)
"""

from experiments.common_rcnn import rcnn_model, rcnn_run, rcnn_settings


def get_config(arg=""):
    arg = rcnn_settings(arg, head="4conv1fc")
    return rcnn_run(arg, rcnn_model("faster_rcnn", arg.depth, arg.norm, arg.head))
