"""A run of a few seconds with steps, saves and evaluations: the experiment that is killed."""

from jdet import build
from jdet.config import get_defaults

STEPS = 12


def get_config(arg=""):
    c = get_defaults()
    c.input_size = 32
    shapes = dict(size=32, num_classes=2, min_scale=0.3, max_objects=2)
    c.data.train = build.group("source", "shapes", count=12, split="train", **shapes)
    c.data.eval = build.group("source", "shapes", count=4, split="test", **shapes)
    c.data.max_boxes = 4
    c.data.threads = 1
    c.augment = build.group("augment", "none")
    c.model = build.group("detector", "tests.own_detector:GridDetector", width=8)
    c.train.batch_size = c.eval.batch_size = 4
    c.train.steps = STEPS
    c.train.ema = 0.9
    c.train.log_every = 1
    c.train.save_every = 2
    c.train.eval_every = 4
    c.eval.images = 1
    c.eval.analyse = False
    c.optimizer.lr = 0.01
    return c
