"""What the experiments with DSOD's models and recipes share."""

from experiments.common import miniature, pick, voc_or_folder
from jdet import build

ARGUMENTS = dict(
    root="data", train="", test="", mini=False, size=0, lr=0.0, batch=0, steps=0, seed=0
)
DSOD_ARGUMENTS = ARGUMENTS | dict(last_scale="2x2", bn_group=-1, coco="")


def dsod_on_voc(arg, name, head, body=()):
    """A model on VOC by the published recipe; ``arg`` has the keys of ``DSOD_ARGUMENTS``."""
    c = voc_or_folder(arg)
    boxes = dict(first_ratio=0.07, min_ratio=0.15) if arg.coco else {}
    c.model = dsod(name, head, last_scale=arg.last_scale, body=body, **boxes)
    share_statistics(c, arg)
    if arg.coco:
        c.init_from.path = arg.coco
    lr = 0.001 if arg.coco else 0.1
    if arg.train == "07++12":
        return recipe(c, arg, lr, 128, 110_000, (30_000, 50_000, 70_000, 90_000))
    return recipe(c, arg, lr, 128, 100_000, (20_000, 40_000, 60_000, 80_000))


def dsod(name="64-192-48-1", head="dense", *, last_scale="2x2", body=(), **values):
    """DSOD's model DS/``name`` = A-B-k-θ; ``body`` are further fields of the backbone."""
    dense = is_dense(head)
    first, bottleneck, growth, compression = name.split("-")
    sizes = dict(first=int(first), bottleneck=int(bottleneck), growth=int(growth))
    sizes |= dict(compression=float(compression), last_channels=256 if dense else 0)
    return build.group(
        "detector",
        "ssd",
        backbone=build.group("backbone", "dsod", **sizes, **dict(body)),
        neck=build.group("neck", "dense_prediction", dense=dense, last_scale=last_scale),
        l2norm_levels=-1,
        **values,
    )


def is_dense(head):
    """Whether the argument ``head`` asks for dense prediction layers."""
    pick("head", head, ("dense", "plain"))
    return head == "dense"


def share_statistics(c, arg):
    """BatchNorm over ``bn_group`` images: 4, or in miniature those of a device."""
    group = arg.bn_group if arg.bn_group >= 0 else 0 if arg.mini else 4
    if group:
        c.model.norm = c.model.head_norm = "sync_batch"
        c.parallel.bn_group_size = group


def recipe(c, arg, lr, batch, steps, drops):
    """The published optimisation (``lr`` belongs to ``batch``), or what two CPU cores can train."""
    c.train.batch_size = arg.batch or batch
    c.train.steps = arg.steps or steps
    c.train.eval_every = max(c.train.steps // 10, 1)
    c.optimizer.lr = arg.lr or lr
    c.optimizer.reference_batch = batch
    c.optimizer.boundaries = tuple(drop / steps for drop in drops)
    if arg.mini:
        miniature(c, arg.steps, width=0.25, batch=arg.batch)
        c.model.first_ratio, c.model.min_ratio = 0.15, 0.25  # fit BCCD's cells, not its platelets
    c.input_size = arg.size or c.input_size
    return c
