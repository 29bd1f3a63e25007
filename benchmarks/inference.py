"""Inference of every model: network, post-processing, and both together.

    python -m benchmarks.inference [--model MODEL … | all] [--precision float32 bfloat16] [--batch 1 8 …]
        [--size PIXELS] [--peer-python PYTHON] [--peer-compile] [--roofline] [--compile-only] [--markdown]
    python -m benchmarks.inference --tta voc [--backbone root_resnet18] [--size 300]

One JSON line per case; ``ms`` is the whole, from uint8 images on the device to detections, with a
synchronisation after every call. ``postprocess`` is softmax, decoding and class-wise NMS of
all default boxes × 21 classes on untrained logits, of which nearly all pass the score threshold of many
models: the worst case. Of dense detectors it is decoding and NMS of the best 1,000 (anchor, class)
pairs of every level, regardless of their scores, on both sides. Two-stage detectors are timed as a
whole. ``found`` is the number of detections per
image. With a Python that has torch (``--peer-python`` or the environment variable JDET_PEER_PYTHON) the
same network in PyTorch detects on the same images, and the ratio is added; ``peer_rest_ms`` is the time it
needs for everything but its network.

``--tta`` measures multi-scale testing instead, mapping and merging included, and one size; with untrained
logits every pass yields its full number of boxes to merge: the worst case.
"""

import functools
import json
import os
import statistics
import sys
import time

from benchmarks import clock, models
from jdet import cpu_allocator


def milliseconds(function, repeat=9):
    """Median and minimum duration of a call, including the wait for its result."""
    import jax

    jax.block_until_ready(function())
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        jax.block_until_ready(function())
        times.append(1000 * (time.perf_counter() - start))
    return round(statistics.median(times), 2), round(min(times), 2)


def measure(case, args):
    """The result of one case."""
    models.prepare()
    import jax
    import jax.numpy as jnp

    from jdet import build
    from jdet.detectors.pyramid import Predictions
    from jdet.detectors.rcnn import RCNN
    from jdet.evaluation.detect import DetectFn
    from jdet.train.state import count_parameters

    c = models.config(case)
    classes = models.class_names(case.model)
    detector = build.detector(c, classes)
    drawn = models.random_batch(c, len(classes))
    images, sizes = jnp.asarray(drawn.images), jnp.asarray(drawn.image_sizes)
    initialise = jax.jit(functools.partial(detector.init, method="detect"))
    variables = initialise(jax.random.key(0), images[:1], sizes[:1])
    parameters = count_parameters(variables["params"])
    variables = DetectFn(detector).fold(variables)
    priors = []

    whole = isinstance(detector, RCNN)  # its second stage begins with what the first one found

    def network(variables, images, sizes):
        if hasattr(detector, "by_level"):
            found = detector.apply(variables, images, sizes, train=False, method="by_level")
            priors.append(found.priors)
            return (found.outputs,)
        *outputs, boxes = detector.apply(variables, images, train=False)
        priors.append(boxes)
        return outputs

    def postprocess(sizes, *outputs):
        if hasattr(detector, "by_level"):
            outputs = Predictions(*outputs, priors[0]), sizes
        else:
            outputs = *outputs, priors[0]
        return detector.apply({}, *outputs, method="postprocess")

    def detect(variables, images, sizes):
        return detector.apply(variables, images, sizes, method="detect")

    network, postprocess, detect = map(jax.jit, (network, postprocess, detect))
    half = max(1, args.steps // 2)
    compiled = detect.lower(variables, images, sizes).compile()
    result = models.about("inference", case._replace(size=c.input_size))
    if args.compile_only:
        if not whole:
            jax.block_until_ready(postprocess(sizes, *network(variables, images, sizes)))
        return result | models.machine()

    def times(function, *arguments, count=args.steps, warmup=2):
        def call():
            jax.block_until_ready(function(*arguments))

        return clock.samples(call, lambda: None, count, warmup)

    result["parameters"] = parameters
    parts = {}
    if not whole:
        outputs = jax.block_until_ready(network(variables, images, sizes))
        parts["network"] = times(network, variables, images, sizes)
        parts["postprocess"] = times(postprocess, sizes, *outputs)
    found = times(compiled, variables, images, sizes, count=half)
    peak = models.peak_mib()
    theirs = models.peer(case, args, "detect", detector, drawn, parameters)
    found += times(compiled, variables, images, sizes, count=max(1, args.steps - half), warmup=0)

    for name, samples in parts.items():
        short = clock.summary(samples)
        result |= {f"{name}_ms": short["ms"], f"{name}_min_ms": short["min_ms"]}
    if parts:
        result["postprocess_share"] = round(result["postprocess_ms"] / result["network_ms"], 3)
    result |= clock.summary(found)
    result["images_per_second"] = round(1000 * case.batch / result["ms"], 2)
    result["peak_mib"] = peak
    result["found"] = round(float(compiled(variables, images, sizes).valid.sum()) / case.batch, 1)
    if args.roofline:
        result |= models.roofline(compiled, case.precision, result["ms"])
    result = models.compared(result, theirs, "detect")
    if "found" in theirs:
        result["peer_found"] = theirs["found"]
    if "network" in theirs:
        result["peer_network_ms"] = clock.summary(theirs["network"])["ms"]
        result["peer_rest_ms"] = round(result["peer_ms"] - result["peer_network_ms"], 2)
    return result | models.machine()


def measure_tta(backbone, batch, preset, size):
    """One result: a batch of images once, and at all scales with merging."""
    import jax
    import numpy as np

    from experiments import scratchdet_voc
    from jdet import build
    from jdet.data.transforms.multi_scale import prepare_views
    from jdet.data.transforms.warp import Warp
    from jdet.evaluation import tta
    from jdet.evaluation.detect import DetectFn, to_images
    from jdet.evaluation.multi_scale import MultiScale
    from jdet.types import Batch

    config = scratchdet_voc.get_config(f"backbone={backbone},tta={preset}")
    config.input_size = size
    detector = build.detector(config, tuple(map(str, range(20))))
    rng = np.random.default_rng(0)
    originals = rng.integers(0, 256, (batch, 375, 500, 3)).astype(np.uint8)
    settings = tta.settings(config.eval.tta)
    detect = DetectFn(detector)
    multi = MultiScale(detect, settings, Warp(size))
    columns = zip(*(prepare_views(original, multi.views) for original in originals), strict=True)
    images, sizes = (tuple(map(np.stack, zip(*column, strict=True))) for column in columns)
    variables = jax.jit(functools.partial(detector.init, train=False))(
        jax.random.key(0), images[0][:1]
    )
    variables = detect.fold(variables)
    multi.prepare(variables, batch)
    ids, original = [""] * batch, np.full((batch, 2), (375, 500))
    whole = Batch.of_images(None, original)
    first = [view.shape for view in multi.views].index((size, size))

    def one():
        found = detect(variables, images[first], sizes[first])
        return [p.boxes for p in to_images(found, whole._replace(image_sizes=sizes[first]), ids)]

    def many():
        found = multi.detect(variables, images, sizes)
        return [p.boxes for p in multi.to_images(found, whole._replace(image_sizes=sizes), ids)]

    result = {"what": "tta", "preset": preset, "backbone": backbone, "batch": batch, "size": size}
    for name, call in (("one", one), ("tta", many)):
        result[f"{name}_ms"], result[f"{name}_min_ms"] = milliseconds(call, repeat=3)
    result |= {
        "passes": multi.passes_per_image,
        "times": round(result["tta_ms"] / result["one_ms"], 1),
    }
    device = jax.devices()[0]
    return result | {"device": device.device_kind, "cores": os.cpu_count(), "jax": jax.__version__}


def main():
    parser = models.parser(__doc__, batches=[1, 8])
    parser.add_argument("--tta", default="", help="preset of multi-scale testing, alone")
    parser.add_argument("--backbone", default="root_resnet18", help="for --tta")
    args = parser.parse_args()
    if args.tta:
        print(json.dumps(measure_tta(args.backbone, 1, args.tta, args.size or 300)), flush=True)
        return
    sys.exit(models.run("benchmarks.inference", args, measure))


if __name__ == "__main__":
    cpu_allocator.tune()
    main()
