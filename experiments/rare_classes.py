"""What do repeat factors and class weights do for a class with a fiftieth of the objects of others?

    python -m jdet.main --config=experiments/rare_classes.py:arm=repeat --workdir=runs/rare_repeat

Synthetic shapes, rendered on the fly: discs and squares, and 50 times fewer triangles, in 2,000 images.
All classes are alike in the images of the evaluation, so that the AP of each stands on as many objects. The
network and the recipe are those of ``quickstart.py`` on images of 64 pixels.

    arm=none | weights | repeat | both
    threshold=0.5     data.repeat_threshold of ``repeat`` and ``both``
    beta=0.995        of the effective numbers by which ``weights`` and ``both`` weight
    steps=600  seed=0

Source: ours; Gupta et al. 2019 (LVIS), sec. 5.1; Cui et al. 2019, eq. 2
Paper: –
Ours: AP of the rare and the other classes: none 0.4, 53; weights 9.5, 46; repeat 10.7, 41; both 16.5, 36
Cost: 600 steps of 16 images of 64 pixels, about four minutes on a CPU core
"""

from experiments import quickstart
from experiments.common import pick
from jdet import build
from jdet.config import parse_arg

ARMS = ("none", "weights", "repeat", "both")


def get_config(arg=""):
    arg = parse_arg(arg, arm="none", threshold=0.5, beta=0.995, steps=600, seed=0)
    pick("arm", arg.arm, ARMS)
    c = quickstart.get_config(f"steps={arg.steps},seed={arg.seed}")
    c.input_size = 64
    scene = dict(size=64, num_classes=3, min_scale=0.3, max_objects=2, clutter=1.0)
    scene |= dict(occlusion=0.3, contrast=80.0)
    train = dict(split="train", count=2000, frequencies=(50.0, 50.0, 1.0))
    c.data.train = build.group("source", "shapes", **train, **scene)
    c.data.eval = build.group("source", "shapes", split="test", count=600, **scene)
    if arg.arm in ("repeat", "both"):
        c.data.repeat_threshold = arg.threshold
    if arg.arm in ("weights", "both"):
        c.train.class_weights.by = "effective_number"
        c.train.class_weights.beta = arg.beta
    c.train.eval_every = 0
    return c
