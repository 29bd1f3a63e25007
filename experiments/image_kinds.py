"""What do images of other kinds lose when they are made 8-bit, and what do further channels add?

    python -m jdet.main --config=experiments/image_kinds.py:cpu,set=worms,view=both --workdir=runs/worms \
        --config.data.root=BBBC010

ATSS with norms over groups, learnt from nothing on images as they are stored, normalised by what is
measured on the training images; each set is a folder with ``annotations/instances_{train,val}.json``.

    set=worms     62 wells, two channels of 12 bits (BBBC010): view=both | w1 | w2; w1 is dim
    set=cells     50 fields in phase contrast, 16 bits (Usiigaci): view=all
    set=ships     72 satellite images of five bands, 16 bits (sen2ships), in tiles: view=all | visible
    set=axons     10 electron micrographs with up to 2,486 axons, in tiles: view=all; AP at 3,000 detections
    set=embryos   79 photographs of 2048×1570, two classes: view=all
    view=…_as_8   files of 16 bits by their high byte alone, as programs for 8-bit images take it
    steps=  lr=0.02  seed=0

``:cpu``  ResNet-18 at half width, pyramid and single-layer towers of 64 channels: for two CPU cores.
default   ResNet-50, twice the side and twice the images of a step: for an accelerator.

Source: ours; the sets: github.com/ oist/Usiigaci, ShipDetectionExperts/sen2ships, axondeepseg,
    risingmin/embryo_model_train; broadinstitute.org/bbbc
Paper: –
Ours: AP50 of worms 0.54 (w1 0.33, w2 0.43), axons 0.75, cells 0.40, embryos 0.53, ships 0.08
Cost: ``:cpu`` 400 steps of 4 images or tiles, 600 for ships
"""

from experiments.common import pick
from experiments.common_dense import decay_without_norms, dense_model, keep_proportions
from experiments.common_images import AS_8, SETS
from jdet import build
from jdet.config import get_defaults, parse_arg


def get_config(arg=""):
    arg = parse_arg(arg, cpu=False, set="worms", view="", steps=0, lr=0.02, seed=0)
    pick("set", arg.set, SETS)
    chosen = SETS[arg.set]
    view = arg.view or next(iter(chosen.views))
    cuts = ("", AS_8)[: 1 + chosen.sixteen]
    pick("view", view, [name + cut for name in chosen.views for cut in cuts])

    c = get_defaults()
    c.seed = arg.seed
    c.data.root = f"data/{arg.set}"
    for role, split in (("train", "train"), ("eval", "val")):
        file = c.data.get_ref("root") + f"/annotations/instances_{split}.json"
        c.data[role] = build.group("source", "coco", annotation_file=file, keep_masks=False)
    c.data.image.bands = bands = chosen.views[view.removesuffix(AS_8)]
    channels = len(bands) or chosen.channels
    named = {1: "gray"} if chosen.sixteen else {1: "gray", 3: "rgb"}
    c.data.image.channels = named.get(channels, str(channels))
    c.data.image.high_byte = view.endswith(AS_8)
    c.data.normalise.by = "data"
    c.data.max_boxes, c.data.workers = chosen.max_boxes, 1

    c.augment = build.group("augment", "intensity", expand=0.0, crop_scale=0.5, crop_share=0.25)
    c.augment.flip_vertical, c.augment.interpolation = 0.5, "linear"
    size = 1 if arg.cpu else 2
    keep_proportions(c, chosen.short * size, chosen.long * size)
    small = dict(depth=18, width=0.5, channels=64, head_depth=1) if arg.cpu else dict(depth=50)
    taps = ("c2", "c3", "c4", "c5")
    c.model = dense_model("atss", norm="group", taps=taps, extra="none", **small)
    c.model.max_detections, c.model.anchor_scale = chosen.detections, chosen.anchor
    if chosen.tile:
        c.data.tile.side = c.eval.tile.side = chosen.tile * size
        c.eval.tile.overlap, c.data.tile.objects = chosen.overlap, chosen.around
        c.eval.tile.max_detections = chosen.detections
        c.augment.crop, c.model.max_detections = False, min(chosen.detections, c.data.max_boxes)
    c.eval.metrics, c.eval.score_drawn = ("coco", "voc"), 0.3
    c.eval.coco.max_detections = (100, 1000, 3000) if chosen.detections > 100 else (1, 10, 100)
    c.eval.batch_size = chosen.batch
    c.train.batch_size = c.optimizer.reference_batch = chosen.batch * size
    c.train.steps = arg.steps or (chosen.steps if arg.cpu else 6000)
    c.train.eval_every = max(c.train.steps // 2, 1)
    c.train.ema = 0.99 if arg.cpu else 0.999
    c.optimizer.lr, c.optimizer.schedule, c.optimizer.clip_norm = arg.lr, "cosine", chosen.clip
    c.optimizer.warmup = min(100, c.train.steps // 10)
    decay_without_norms(c)
    c.parallel.cpu_devices = 2 if arg.cpu else 1
    return c
