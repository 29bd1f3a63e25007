"""Memory kept for the backward pass of a training step, by policy of rematerialisation, per image.

    python -m benchmarks.residuals --config=experiments/retinanet_coco.py:norm=batch [--shape=800x1344]

One JSON line per policy: MiB of one image, without parameters and the image itself, as counted by JAX,
before the compiler fuses operations. Everything is traced, nothing computed. ``jdet.preflight`` and
``jdet.describe --memory`` report what a device needs in all.
"""

import contextlib
import io
import json
import math
import re

from absl import flags

from jdet import cli
from jdet import config as config_lib
from jdet.nn.remat import POLICIES

LINE = re.compile(r"(\w+)\[([\d,]*)\]")


def kept(config, class_names, shape):
    """Bytes of one image."""
    import jax
    import numpy as np
    from jax.ad_checkpoint import print_saved_residuals

    from jdet import build
    from jdet.nn import randomness
    from jdet.train import state

    detector = build.detector(config, class_names)
    params, stats = state.abstract_variables(detector, config)
    batch = jax.eval_shape(lambda: state.zero_batch(config, 1, shape, needs=detector.needs))
    rngs = randomness.streams(jax.random.key(0))

    def loss(params, stats, batch):
        variables = {"params": params, "batch_stats": stats} if stats else {"params": params}
        means, _ = detector.apply(
            variables, batch, train=True, method="losses", mutable=["batch_stats"], rngs=rngs
        )
        return sum(mean.total for mean in means.values())

    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        print_saved_residuals(loss, params, stats, batch)
    total = 0
    for line in text.getvalue().splitlines():
        found = LINE.match(line)
        if found and " from the argument " not in line:
            kind = {"f32": "float32", "i32": "int32", "u8": "uint8"}.get(found[1], found[1])
            size = 2 if kind in ("bf16", "bfloat16") else np.dtype(kind).itemsize
            total += size * math.prod(map(int, filter(None, found[2].split(","))))
    return total


def main():
    from jdet import build
    from jdet.describe import class_names_of, parse_shape

    config = flags.FLAGS.config
    config_lib.validate(config)
    shape = parse_shape(flags.FLAGS.shape) or build.resize(config).largest
    for policy in POLICIES:
        config.train.remat = policy
        size = kept(config, class_names_of(config), shape)
        result = {"what": "residuals", "remat": policy, "shape": list(shape)}
        print(json.dumps(result | {"precision": config.precision, "mib": round(size / 2**20)}))


if __name__ == "__main__":
    flags.DEFINE_string(
        "shape", "", "Height and width of the input, as 800x1344; else the config's."
    )
    cli.start(main)
