"""Training step of every model, compared with the same network in PyTorch if there is one.

    python -m benchmarks.train_step [--model MODEL … | all] [--precision float32 bfloat16] [--batch 8 …]
        [--size PIXELS] [--accumulation 1 …] [--remat none …] [--peer-python PYTHON] [--peer-compile]
        [--roofline] [--compile-only] [--markdown]

One JSON line per case. The step is the one that training runs: normalisation of uint8 images, network,
matching, hard negatives, gradients, momentum SGD and the check for non-finite values, of the
experiment's config on one device. With a Python that has torch (``--peer-python`` or the environment
variable JDET_PEER_PYTHON) PyTorch's step is timed between two halves of ours, on the same images, boxes
and default boxes, with an allocator that keeps freed memory, and the ratio of the medians is added. Dense
and two-stage detectors (80 classes, 320 pixels unless --size says otherwise) have torchvision's as peer;
``atss_r50`` has its FCOS with the assignment of ATSS, ``benchmarks.torch_atss``.

Several short steps are timed together, with one synchronisation at the end. ``compile_s`` is tracing and
compiling; if JAX_COMPILATION_CACHE_DIR names a folder with the program in it, nothing is compiled.
``--roofline`` adds how near to the peaks of the device the step comes. Peak
memory is the accelerator's, tuning of kernels included, or on CPUs what is resident in the process.
"""

import sys
import time

from benchmarks import clock, models
from jdet import cpu_allocator


def make_step(c, classes):
    """The compiled step, its first state, the detector, and a batch on the host and on the device."""
    from jdet import build
    from jdet.parallel import mesh as mesh_lib
    from jdet.train import optim, schedule, state, step

    detector = build.detector(c, classes, axis_name="member")
    mesh = mesh_lib.make_mesh(c)
    batch = c.train.batch_size
    lr = schedule.learning_rate(c.optimizer, schedule.resolve(c, 10 * batch))
    params, _ = state.abstract_variables(detector, c, batch)
    optimizer = optim.make_optimizer(c.optimizer, lr, params)
    begin = state.create_state(detector, optimizer, mesh, c)
    mask_size = c.data.mask_size if "masks" in detector.needs else 0
    images = models.random_batch(c, len(classes), mask_size)
    train_step = step.make_train_step(detector, optimizer, lr, mesh, c)
    return train_step, begin, detector, images, mesh_lib.to_global(images, mesh)


def measure(case, args):
    """The result of one case."""
    models.prepare()
    import jax

    from jdet.train.state import count_parameters

    c = models.config(case)
    train_step, now, detector, images, batch = make_step(c, models.class_names(case.model))
    parameters = count_parameters(now.params)
    result = models.about("train_step", case._replace(size=c.input_size))
    start = time.perf_counter()
    compiled = train_step.lower(now, batch).compile()
    compile_seconds = time.perf_counter() - start
    if args.compile_only:
        return result | {"compile_s": round(compile_seconds, 1)} | models.machine()

    def call():
        nonlocal now
        now, _ = compiled(now, batch)

    def finish():
        jax.block_until_ready(now)

    # Two calls do not count: the allocator is still growing.
    half = max(1, args.steps // 2)
    found = clock.samples(call, finish, half, warmup=2)
    peak = models.peak_mib()
    theirs = models.peer(case, args, "train", detector, images, parameters)
    found += clock.samples(call, finish, max(1, args.steps - half), warmup=0)

    result |= {"parameters": parameters, "compile_s": round(compile_seconds, 1)}
    result |= clock.summary(found)
    result["images_per_second"] = round(1000 * case.batch / result["ms"], 2)
    result["peak_mib"] = peak
    if args.roofline:
        result |= models.roofline(compiled, case.precision, result["ms"])
    return models.compared(result, theirs, "train") | models.machine()


def main():
    parser = models.parser(__doc__, batches=[8])
    parser.add_argument(
        "--accumulation",
        nargs="+",
        type=int,
        default=[1],
        help="micro-batches, one or more numbers; the peer has none",
    )
    parser.add_argument(
        "--remat",
        nargs="+",
        default=["none"],
        choices=("none", "convs", "full", "stages"),
        help="what is computed again, one or more policies; the peer: nothing",
    )
    sys.exit(models.run("benchmarks.train_step", parser.parse_args(), measure))


if __name__ == "__main__":
    cpu_allocator.tune()
    main()
