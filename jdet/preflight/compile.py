"""Compiles the programs of a run ahead of time, for devices that need not be present."""

from __future__ import annotations

import contextlib
import functools
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
from jax import monitoring
from jax.interpreters import partial_eval
from ml_collections import ConfigDict

from jdet import build
from jdet import config as config_lib
from jdet.evaluation import loaders
from jdet.evaluation.detect import DetectFn
from jdet.parallel import mesh as mesh_lib
from jdet.preflight import collectives, hlo, traffic
from jdet.preflight.flops import count_macs
from jdet.train import optim, schedule, state
from jdet.train.step import make_train_step

PROGRAMS = ("train", "evaluate")

IMAGES = 1_000_000
"""Stands for the size of the training set, on which the length of the schedule depends, no shape."""


class Memory(NamedTuple):
    """Bytes of one device that a program needs.

    Attributes:
        arguments: state and batch.
        outputs: new state and metrics.
        aliased: outputs that take the place of arguments.
        temporaries: what lives only meanwhile, such as activations.
        code: the program itself, where it lies in the same memory.
    """

    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    code: int

    @property
    def peak(self) -> int:
        """All of it at once."""
        return self.arguments + self.outputs - self.aliased + self.temporaries + self.code


class Figures(NamedTuple):
    """Figures of a compiled program, for one device and one call.

    Attributes:
        program: "train" or "evaluate".
        devices: that run it together.
        images: images of one device.
        seconds: that tracing and compiling took, or reading the program back.
        cpu_seconds: of all cores together.
        cached: the program was read from JAX's cache, so that the times are not of compiling.
        fits: False where the compiler ran out of the device's memory.
        memory: needed; None where the compiler ran out of it.
        needed: bytes in all, as the compiler counts them where it ran out of memory.
        message: of the compiler, where it ran out of memory.
        flops: operations of convolutions and products of matrices, two for a multiply-accumulate; loops
            count as often as they run.
        xla_flops: all operations by XLA's count, loops once.
        memory_bytes: moved between the device and its main memory (``jdet.preflight.traffic``).
        xla_bytes: by XLA's count, loops once, memory on the chip included.
        collectives: what travels between devices.
        host_transfers: what travels to and from the host within the program.
    """

    program: str
    devices: int
    images: int
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    cached: bool = False
    fits: bool = True
    memory: Memory | None = None
    needed: int = 0
    message: str = ""
    flops: float = 0.0
    xla_flops: float = 0.0
    memory_bytes: int = 0
    xla_bytes: float = 0.0
    collectives: Sequence[collectives.Collective] = ()
    host_transfers: Sequence[str] = ()


def check(config: ConfigDict, devices: int) -> None:
    """Refuses a config that cannot be trained on this number of devices, before anything is compiled.

    Raises:
        ConfigError: batch, devices, accumulation and BatchNorm group do not divide.
    """
    schedule.resolve(config, IMAGES, devices=devices)


def measure(config: ConfigDict, program: str, devices: Sequence[Any]) -> Figures:
    """Compiles a program of a run for devices and returns its figures; nothing is run.

    Args:
        config: complete config with ``class_names``; nothing of its data is read.
        program: "train", the whole optimiser step, or "evaluate", the detection of one batch.
        devices: attached ones or those of a topology.

    Raises:
        ConfigError: as in ``check``, or a model that cannot be built.
    """
    config = build.with_frozen_stages(config)
    check(config, len(devices))
    start = time.perf_counter(), time.process_time()
    mesh = mesh_lib.make_mesh(config, devices=devices)
    detector = build.detector(config, config.class_names, axis_name="member")
    if program == "train":
        work = training(config, detector, mesh)
        traced = work.step.trace(work.state, work.batch)
        images = len(work.batch.real) // mesh.size
        flops = _flops(traced.jaxpr)
        compile_it = traced.lower().compile
    else:
        detect = DetectFn(detector, mesh)
        variables = detection_variables(config, detect, mesh)
        batch = loaders.eval_batch_size(config, mesh)
        images = batch // mesh.size
        shape = (batch, *build.resize(config).largest)
        flops = 2.0 * images * _forward_macs(config, detector)
        compile_it = functools.partial(detect.compile, variables, shape)
    found = Figures(program, mesh.size, images, flops=flops)
    try:
        with own_names(), _reads_from_cache() as reads:
            compiled = compile_it()
    except jax.errors.JaxRuntimeError as error:
        text = str(error)
        if "RESOURCE_EXHAUSTED" not in text and "Ran out of memory" not in text:
            raise
        return found._replace(
            fits=False,
            needed=_needed(text),
            message=" ".join(text.split())[:300],
            seconds=time.perf_counter() - start[0],
            cpu_seconds=time.process_time() - start[1],
        )
    module = hlo.parse(compiled.as_text())
    memory = memory_of(compiled)
    costs = compiled.cost_analysis() or {}
    return found._replace(
        memory=memory,
        needed=memory.peak,
        xla_flops=float(costs.get("flops", 0.0)),
        xla_bytes=float(costs.get("bytes accessed", 0.0)),
        memory_bytes=traffic.memory_bytes(module),
        collectives=collectives.find(module, "other" if program == "train" else "detections"),
        host_transfers=collectives.host_transfers(module),
        seconds=time.perf_counter() - start[0],
        cpu_seconds=time.process_time() - start[1],
        cached=bool(reads),
    )


@contextlib.contextmanager
def own_names() -> Iterator[None]:
    """Within it no program is read from the cache whose instructions have the names of another version.

    Otherwise JAX takes one that differs in names alone, and those are what parts of a program are told by.
    """
    name = "jax_compilation_cache_include_metadata_in_key"
    before = getattr(jax.config, name)
    jax.config.update(name, True)
    try:
        yield
    finally:
        jax.config.update(name, before)


@contextlib.contextmanager
def _reads_from_cache() -> Iterator[list[str]]:
    """Yields a list that gets an item for each program that is read from the cache within."""
    reads: list[str] = []

    def listen(event: str, **_: Any) -> None:
        if event == "/jax/compilation_cache/cache_hits":
            reads.append(event)

    monitoring.register_event_listener(listen)
    try:
        yield reads
    finally:
        monitoring.unregister_event_listener(listen)


def memory_of(compiled: Any) -> Memory:
    """Memory of a ``jax.stages.Compiled``, per device."""
    stats = compiled.memory_analysis()
    return Memory(
        stats.argument_size_in_bytes,
        stats.output_size_in_bytes,
        stats.alias_size_in_bytes,
        stats.temp_size_in_bytes,
        stats.generated_code_size_in_bytes,
    )


class Training(NamedTuple):
    """The training step of a config, as a run would compile it.

    Attributes:
        step: of ``make_train_step``, not compiled yet.
        optimizer: makes the optimiser's state.
        state: shapes of the state.
        batch: shapes of a batch, of all devices.
    """

    step: Any
    optimizer: Any
    state: Any
    batch: Any


def training(config: ConfigDict, detector: Any, mesh: Any) -> Training:
    """The jitted step of a run and its abstract arguments.

    Args:
        config: complete config, after ``build.with_frozen_stages``.
        detector: of the config, for the mesh.
        mesh: of the devices.
    """
    resolved = schedule.resolve(config, IMAGES, devices=mesh.size)
    rate = schedule.learning_rate(config.optimizer, resolved)
    params, _ = state.abstract_variables(detector, config, resolved.micro_batch)
    optimizer = optim.make_optimizer(config.optimizer, rate, params)
    begin = state.abstract_state(detector, optimizer, mesh, config)
    shape = build.resize(config).largest
    batch = jax.eval_shape(
        lambda: state.zero_batch(config, resolved.batch_size, shape, needs=detector.needs)
    )
    split = mesh_lib.batch_sharding(mesh)
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split), batch)
    step = make_train_step(detector, optimizer, rate, mesh, config)
    return Training(step, optimizer, begin, batch)


def detection_variables(config: ConfigDict, detect: DetectFn, mesh: Any) -> dict[str, Any]:
    """Shapes of the inputs of a detection besides images, on every device."""
    params, stats = state.abstract_variables(detect.detector, config)
    variables = jax.eval_shape(detect.fold, state.variables(params, stats))
    whole = mesh_lib.replicated(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), variables)


def _flops(closed: Any) -> float:
    """FLOPs of the traced step, without operations that the compiler removes as unused."""
    jaxpr, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    return 2.0 * sum(count_macs(jaxpr).values())


def _forward_macs(config: ConfigDict, detector: Any) -> int:
    """Multiply-accumulates of the network for one image."""
    params, stats = state.abstract_variables(detector, config)
    variables = state.variables(params, stats)
    kind = config_lib.image_kind(config)
    shape = (1, *build.resize(config).largest, kind.channels)
    images = jax.ShapeDtypeStruct(shape, kind.dtype)
    sizes = jax.ShapeDtypeStruct((1, 2), "int32")
    closed = jax.make_jaxpr(lambda *args: detector.apply(*args, method="detect"))(
        variables, images, sizes
    )
    return sum(count_macs(closed.jaxpr).values())


def _needed(message: str) -> int:
    """Bytes that the compiler wanted, by the forms of its message; 0 where it does not say."""
    found = re.search(r"[Uu]sed ([\d.]+)([KMGT]) of|temporaries \(([\d.]+)([KMGT])\)", message)
    if not found:
        return 0
    number, unit = (part for part in found.groups() if part)
    return int(float(number) * 2 ** (10 * " KMGT".index(unit)))
