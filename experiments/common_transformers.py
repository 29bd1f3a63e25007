"""What the studies of "Training Object Detectors from Scratch" (2022) share: models and recipes."""

from experiments.common import coco, pick
from experiments.common_dense import EXTRA, FCOS_PLAIN, plain_images
from experiments.common_rcnn import with_masks
from jdet import build
from jdet.build.table import HYBRIDS
from jdet.train import presets
from jdet.types import ConfigError

IMAGES = 118_287
"""Of train2017, for the number of steps in an epoch."""

RECIPES = ("r24", "sat", "sota", "sota-swin-aug")

SCRATCH = dict(root="data", recipe="r24", init="he", calibrate=False, batch=16, lr=0.0, seed=0)
"""Arguments of all studies: where COCO is, recipe, initialisation and its calibration, batch, rate (0: the
recipe's)."""

DETECTORS = (
    "fcos",
    "atss",
    "swin_reppoints_v2",
    "faster_rcnn",
    "cascade_mask_rcnn",
    "sparse_rcnn",
)

LEVELS = {
    **EXTRA,
    "swin_reppoints_v2": {},
    "faster_rcnn": dict(extra="pool"),
    "cascade_mask_rcnn": dict(extra="pool"),
    "sparse_rcnn": dict(extra="none"),
}
"""Levels above the backbone's."""

FROM_C2 = ("faster_rcnn", "cascade_mask_rcnn", "sparse_rcnn")
"""Detectors whose levels begin at stride 4."""

SWIN_CASCADE = dict(box_loss="giou", box_weight=10.0)
"""Boxes of Cascade Mask R-CNN in the Swin recipes: one for every class, by GIoU."""


def pattern(backbone):
    """The group of a named backbone, or of a pattern such as "C2-T2-T8-T3" of 96 channels."""
    if "-" in backbone:
        return build.group("backbone", "hybrid", spec=backbone)
    pick("backbone", backbone, ("resnet50", *HYBRIDS, "swin_t_dsod"))
    if backbone == "resnet50":
        return build.group("backbone", "resnet", depth=50)
    return build.group("backbone", backbone)


def transformer_model(detector, backbone, init, dense_neck=False, **fields):
    """A detector on a backbone of any kind, as this study has it.

    BatchNorm over all images in convolutional stages and the heads of Cascade Mask R-CNN, group norm in
    the towers of dense detectors, none in Faster R-CNN's heads; FCOS as first published; RepPointsV2 as
    Swin's authors have it; 300 proposals in Sparse R-CNN. With ``init="he"`` every kernel of backbone,
    pyramid and towers is He's. The mask heads have the norm of the box heads, 3,072 parameters more than
    those of the Swin paper.
    """
    pick("detector", detector, DETECTORS)
    pick("init", init, ("he", "swin"))
    group, he = pattern(backbone), init == "he"
    group.kernel_init = init if "spec" in group else "he" if he else "kaiming"
    name = "bifpn" if detector == "swin_reppoints_v2" else "fpn"
    levels = LEVELS[detector]
    if dense_neck:
        name, levels = "dense_half", {}
    neck = build.group("neck", name, **levels, kernel_init="he" if he else "xavier")
    if detector == "faster_rcnn":
        head = dict(rpn=build.group("rpn", "rpn"), box_head=build.group("box_head", "2fc"))
        head |= dict(head_norm="none")
    elif detector == "cascade_mask_rcnn":
        head = dict(rpn=build.group("rpn", "cascade_rpn"), **SWIN_CASCADE)
        head |= dict(box_head=build.group("box_head", "4conv1fc"), head_norm="sync_batch")
        head |= dict(mask_head=build.group("mask_head", "fcn", use_norm=False))
    elif detector == "sparse_rcnn":
        head = dict(proposals=300)
    else:
        head = dict(head_norm="group", tower_init="he" if he else "gaussian")
        head |= FCOS_PLAIN if detector == "fcos" else {}
    if detector in FROM_C2:
        head |= dict(taps=("c2", "c3", "c4", "c5"))
    if detector != "sparse_rcnn":
        head |= dict(nms_iou=0.6)
    more = dict(norm="sync_batch", **head, **fields)
    return build.group("detector", detector, backbone=group, neck=neck, **more)


def recipe(c, arg, detector):
    """Images, AdamW and the length of the run; images are resized and mirrored, nothing else.

    * r24: short side 800, 24 epochs, rate divided by 10 after 22.
    * sat: the same images; a constant rate, for 20 epochs at least, until AP has not risen by 0.1 points in
      5 evaluations, one an epoch, then a tenth of it until that happens again; 300 epochs at most.
    * sota: as ``sat``, with short sides 480, 512, … 800.
    * sota-swin-aug: what the pre-trained rows of Table 5 had: these sides, half of the images cut before,
      36 epochs, rate divided by 10 after 27 and 33; RepPointsV2 had sides of 480, 512, … 960, uncut.
    """
    pick("recipe", arg.recipe, RECIPES)
    swin, points = arg.recipe == "sota-swin-aug", detector == "swin_reppoints_v2"
    sides = tuple(range(480, 801, 32)) if "sota" in arg.recipe else (800,)
    c.input_size = 800
    c.resize = build.group("resize", "keep_ratio", short=sides, long=1333)
    plain_images(c)
    if swin and points:
        c.resize.short, c.resize.test_short = tuple(range(480, 961, 32)), 800
    elif swin:
        c.augment = build.group("augment", "detr")
    presets.apply(c.optimizer, "transformer")
    c.optimizer.lr = arg.lr or c.optimizer.lr
    c.train.batch_size = arg.batch
    c.train.eval_every = IMAGES // arg.batch
    if arg.recipe == "r24":
        c.train.epochs, c.optimizer.boundaries = 24.0, (22 / 24,)
        return
    if swin:
        c.train.epochs, c.optimizer.boundaries = 36.0, (27 / 36, 33 / 36)
        return
    c.train.epochs = 300.0
    c.optimizer.schedule = "constant"
    saturation = c.train.saturation
    saturation.patience, saturation.delta, saturation.minimum = 5, 0.001, 20


def study(arg, detector, backbone, **model):
    """The config of one arm.

    Args:
        arg: with the keys of ``SCRATCH``.
        detector: one of ``DETECTORS``.
        backbone: of ``pattern``.
        **model: further arguments of ``transformer_model``.
    """
    c = coco(arg.root, arg.seed)
    recipe(c, arg, detector)
    if detector == "sparse_rcnn":
        c.optimizer.clip_norm = 1.0
    c.calibration.iterations = int(arg.calibrate)
    c.model = transformer_model(detector, backbone, arg.init, **model)
    return with_masks(c) if "mask" in detector else c


def shrink(c):
    """Makes a pattern small enough for CPU cores: two blocks a stage, a sixth of the width."""
    body = c.model.backbone
    if "spec" not in body:
        raise ConfigError(
            "cpu is for patterns of stages; give backbone=c2c2t6t2, swin_t or another"
        )
    body.spec = "-".join(f"{stage[0]}{min(int(stage[1:]), 2)}" for stage in body.spec.split("-"))
    body.channels, body.head_channels, body.window, body.drop_path = 16, 8, 4, 0.0
    c.model.neck.channels = c.model.head_channels = 64
    c.model.head_depth = 1
