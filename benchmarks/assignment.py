"""Assignment and losses of dense detectors at full resolution: time and additional memory.

    python -m benchmarks.assignment [--batch 1] [--shape 800 1344] [--objects 100]

One JSON line per detector: RetinaNet has 201,600 anchors at 800×1344 pixels, FCOS and ATSS 22,400 points;
80 classes. ``temporary_mib`` is the memory that the compiler allocates for assignment, losses and their
gradients with respect to the predictions, which take ``predictions_mib`` themselves; ``focal_only_*`` is
the same for the focal loss alone with everything background: the difference is the cost of assignment and
of the other losses. ``matrix_mib`` is one float per pair of anchor and object; the usual implementations
allocate several such arrays.
"""

import argparse
import functools
import json
import os

import numpy as np

from benchmarks.inference import milliseconds
from jdet import cpu_allocator

NAMES = ("retinanet", "fcos", "atss")
CLASSES = 80


def measure(name, batch, shape, objects):
    """The result of one detector."""
    import importlib

    import jax
    import jax.numpy as jnp

    from jdet import build
    from jdet.detectors.dense_detector import Predictions

    c = importlib.import_module(f"experiments.{name}_coco").get_config()
    detector = build.detector(c, tuple(map(str, range(CLASSES))))
    maps = [tuple(-(-side // stride) for side in shape) for stride in detector.level_sizes()[0]]
    priors = detector.priors(maps, shape)
    rng = np.random.default_rng(0)

    def random(*columns):
        return [
            jnp.asarray(rng.normal(-3, 1, (batch, len(level), *columns)), jnp.float32)
            for level in priors
        ]

    found = {"offsets": random(4), "logits": random(CLASSES)}
    if name != "retinanet":
        found["centerness"] = random()
    sides = rng.uniform(8, 400, (batch, objects, 2))
    low = rng.uniform(0, 1, sides.shape) * (np.array(shape[::-1]) - sides)
    boxes = jnp.asarray(np.concatenate([low, low + sides], -1), jnp.float32)
    labels = jnp.asarray(rng.integers(0, CLASSES, (batch, objects)), jnp.int32)
    valid, sizes = jnp.ones((batch, objects), bool), jnp.broadcast_to(jnp.array(shape), (batch, 2))

    def losses(found, boxes, labels, valid):
        means = detector.loss_terms(Predictions(found, priors), boxes, labels, valid, sizes)
        return sum(mean.total / jnp.maximum(mean.weight, 1) for mean in means.values())

    def focal_only(found, boxes, labels, valid):
        logits = jnp.concatenate(found["logits"], axis=1)
        background = jnp.full(logits.shape[1], -1)
        return jnp.sum(jax.vmap(lambda x: detector.focal_loss(x, background))(logits)) / batch

    count = sum(map(len, priors))
    result = {"what": "assignment", "detector": name, "batch": batch, "shape": list(shape)}
    result |= {"places": count, "objects": objects, "classes": CLASSES}
    result["predictions_mib"] = sum(x.nbytes for x in jax.tree.leaves(found)) >> 20
    result["matrix_mib"] = 4 * batch * count * objects >> 20
    arrays = found, boxes, labels, valid
    for prefix, function in (("", losses), ("focal_only_", focal_only)):
        program = jax.jit(jax.value_and_grad(function)).lower(*arrays).compile()
        result[f"{prefix}temporary_mib"] = program.memory_analysis().temp_size_in_bytes >> 20
        run = functools.partial(program, *arrays)
        result[f"{prefix}ms"], result[f"{prefix}min_ms"] = milliseconds(run)
    device = jax.devices()[0].device_kind
    return result | {"device": device, "cores": os.cpu_count(), "jax": jax.__version__}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--shape", type=int, nargs=2, default=(800, 1344))
    parser.add_argument("--objects", type=int, default=100)
    args = parser.parse_args()
    for name in NAMES:
        print(json.dumps(measure(name, args.batch, tuple(args.shape), args.objects)), flush=True)


if __name__ == "__main__":
    cpu_allocator.tune()
    main()
