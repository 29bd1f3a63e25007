"""Compilations for topologies, each in a process of its own, and the report that they come to.

Not in ``__main__``: processes that are spawned look up what they run by its module's name.
"""

from __future__ import annotations

import concurrent.futures
import datetime
import importlib.metadata
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ml_collections import ConfigDict

from jdet import __version__, build, describe
from jdet import config as config_lib
from jdet.preflight import collectives, roofline
from jdet.preflight import topology as topology_lib
from jdet.preflight.compile import PROGRAMS, Figures, check, measure
from jdet.preflight.topology import Topology
from jdet.types import ConfigError

LARGEST = 4096
"""Images of one device up to which the search looks."""

Key = tuple[str, int, str]
"""A compilation: topology, images of a step, program."""


def preflight(
    config: ConfigDict,
    topologies: Sequence[str],
    *,
    weak_scaling: Sequence[str] = (),
    search: bool = False,
    programs: Sequence[str] = PROGRAMS,
    jobs: int = 0,
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
    save: Callable[[dict[str, Any]], None] = lambda report: None,
) -> dict[str, Any]:
    """Compiles a config for topologies, each in a process of its own.

    Args:
        config: a whole config; not changed. ``train.batch_size`` is that of every topology.
        topologies: names as in ``jdet.preflight.topology``.
        weak_scaling: topologies that train with as many images per device as the first of
            ``topologies``.
        search: also find the batch at which the training step stops fitting.
        programs: of "train" and "evaluate".
        jobs: compilations at a time; 0: as many as there are cores.
        say: told of every compilation that is done.
        save: given the report after every compilation, with what there is so far.

    Returns:
        The report as ``--out`` writes it: plain values, bytes and seconds.

    Raises:
        ConfigError: an unknown topology, or one whose devices do not divide the batch.
    """
    config = config.copy_and_resolve_references()
    config_lib.validate(config)
    for name in programs:
        if name not in PROGRAMS:
            raise ConfigError(
                f"--programs: {name!r} does not exist; there are {', '.join(PROGRAMS)}"
            )
    if search and "train" not in programs:
        raise ConfigError(
            "--search looks for the batch of the training step; --programs lacks train"
        )
    with config.unlocked():
        config.class_names = describe.class_names_of(config)
    found = {name: topology_lib.look(name) for name in dict.fromkeys(topologies)}
    others = {name: topology_lib.look(name) for name in dict.fromkeys(weak_scaling)}
    batch = config.train.batch_size
    for each in found.values():
        _check(config, each, batch)
    per_device = batch // next(iter(found.values())).count
    for each in others.values():
        _check(config, each, per_device * each.count)

    wanted = [(name, batch, program) for name in found for program in programs]
    wanted += [(name, per_device * each.count, "train") for name, each in others.items()]
    jobs = jobs or os.cpu_count() or 1
    report: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "versions": _versions(),
        "cores": os.cpu_count(),
        "jobs": jobs,
        "config": config.to_dict(),
        "shape": list(build.resize(config).largest),
    }
    searched = found if search else {}
    for results, searches in _compile(config, wanted, searched, jobs, say):
        report["topologies"] = [
            _part(results, each, batch, programs, config)
            | ({"search": searches[name]} if name in searches else {})
            for name, each in found.items()
        ]
        report["weak_scaling"] = [
            _part(results, each, per_device * each.count, ("train",), config)
            for each in others.values()
        ]
        save(report)
    return report


def largest_fitting(
    fits: Callable[[int], tuple[bool, float]],
    sizes: Sequence[int],
    start: int,
    capacity: float,
) -> dict[str, Any]:
    """Bisects for the largest batch that fits.

    Tried next is where a line through the needs of the two largest batches so far meets the capacity;
    every third time, the middle of the interval that is left.

    Args:
        fits: from images of one device to whether they fit and the bytes they need, 0 if unknown.
        sizes: images of one device that are possible, rising.
        start: one of them, tried first.
        capacity: bytes of a device.

    Returns:
        ``largest`` that fits (None where none does), ``smallest`` that does not (None where all do), and
        ``tried``, one ``[images, bytes, fits]`` for each compilation.
    """
    low, high = -1, len(sizes)
    tried: list[list[Any]] = []
    at = sizes.index(start)
    while high - low > 1:
        ok, needed = fits(sizes[at])
        tried.append([sizes[at], needed, ok])
        low, high = (at, high) if ok else (low, at)
        if high - low <= 1:
            break
        middle = 2 * low + 1 if high == len(sizes) else (low + high) // 2
        known = sorted((size, need) for size, need, _ in tried if need)[-2:]
        at = middle
        if len(known) == 2 and len(tried) % 3:
            (a, need_a), (b, need_b) = known
            slope = (need_b - need_a) / (b - a)
            if slope > 0:
                target = b + (capacity - need_b) / slope
                at = max((i for i, size in enumerate(sizes) if size <= target), default=0)
        at = min(max(at, low + 1), high - 1)
    return {
        "largest": sizes[low] if low >= 0 else None,
        "smallest_failing": sizes[high] if high < len(sizes) else None,
        "tried": tried,
    }


def _compile(config, wanted, searched, jobs, say):
    """Runs compilations in processes; after each, yields figures by key and searches by topology."""
    results: dict[Key, Figures] = {}
    searches: dict[str, dict[str, Any]] = {}
    pool = concurrent.futures.ProcessPoolExecutor(
        jobs, multiprocessing.get_context("spawn"), max_tasks_per_child=1
    )
    wanted = sorted(dict.fromkeys(wanted), key=lambda key: (key[2] != "train", -key[1]))
    with pool:
        waiting: dict[Any, Any] = {pool.submit(_work, config, key): key for key in wanted}
        while waiting:
            done, _ = concurrent.futures.wait(waiting, return_when="FIRST_COMPLETED")
            for future in done:
                key = waiting.pop(future)
                try:
                    result = future.result()
                except concurrent.futures.process.BrokenProcessPool as error:
                    raise ConfigError(
                        f"compiling for {key} took its process down, most likely for want of memory "
                        "on this machine; try --jobs=1"
                    ) from error
                if isinstance(key, str):
                    searches[key] = result
                    say(f"{key}: searched {len(result['tried'])} batches")
                else:
                    results[key] = result
                    name, batch, program = key
                    made = "found in the cache" if result.cached else "compiled"
                    say(f"{name}: {program} step of {batch} {made} in {result.seconds:.0f} s")
                    if program == "train" and name in searched and batch == config.train.batch_size:
                        waiting[pool.submit(_search, config, searched[name], result)] = name
                yield results, searches


def _work(config: ConfigDict, key: Key) -> Figures:
    """One compilation, in its own process."""
    name, batch, program = key
    topology_lib.prepare(name)
    with config.unlocked():
        config.train.batch_size = batch
    return measure(config, program, topology_lib.devices(name))


def _search(config: ConfigDict, topology: Topology, first: Figures) -> dict[str, Any]:
    """Bisects the batch of one topology, in its own process."""
    topology_lib.prepare(topology.name)
    devices = topology_lib.devices(topology.name)

    def resized(images: int) -> ConfigDict:
        other = config.copy_and_resolve_references()
        with other.unlocked():
            other.train.batch_size = images * topology.count
        return other

    def possible(images: int) -> bool:
        try:
            check(resized(images), topology.count)
        except ConfigError:
            return False
        return True

    def fits(images: int) -> tuple[bool, float]:
        figures = first
        if images != first.images:
            figures = measure(resized(images), "train", devices)
            ok = "fits" if fitting(figures, topology) else "does not fit"
            # From a process of its own: each takes minutes, and results are shown as they arrive.
            print(f"{topology.name}: batch {images * topology.count} {ok}", flush=True)
        return fitting(figures, topology), figures.needed

    sizes = [images for images in range(1, LARGEST + 1) if possible(images)]
    return largest_fitting(fits, sizes, first.images, topology.memory)


def fitting(figures: Figures, topology: Topology) -> bool:
    """Whether a program fits: decided by the compiler for TPUs, elsewhere by the memory it needs."""
    return figures.fits and (not topology.memory or figures.needed <= topology.memory)


def _check(config: ConfigDict, topology: Topology, batch: int) -> None:
    if config.parallel.devices not in (0, topology.count):
        raise ConfigError(
            f"topology {topology.name} has {topology.count} device(s), but "
            f"config.parallel.devices={config.parallel.devices}; set that to 0"
        )
    other = config.copy_and_resolve_references()
    with other.unlocked():
        other.train.batch_size = batch
    try:
        check(other, topology.count)
    except ConfigError as error:
        raise ConfigError(f"topology {topology.name}: {error}") from error


def _part(results, topology: Topology, batch: int, programs, config) -> dict[str, Any]:
    """The report on a topology, with the programs that are compiled so far."""
    chip = topology.chip
    return {
        "topology": topology.name,
        "devices": topology.count,
        "device_kind": topology.kind,
        "memory_of_device": topology.memory,
        "chip": chip._asdict() if chip else None,
        "batch_size": batch,
        "programs": {
            program: _program(results[topology.name, batch, program], topology, config)
            for program in programs
            if (topology.name, batch, program) in results
        },
    }


def _program(figures: Figures, topology: Topology, config: ConfigDict) -> dict[str, Any]:
    """Figures of a program and the bound that follows, as plain values."""
    rows = collectives.summarise(figures.collectives)
    plain = figures._asdict() | {
        "fits": fitting(figures, topology),
        "memory": figures.memory and {**figures.memory._asdict(), "peak": figures.memory.peak},
        "collectives": [row._asdict() for row in rows],
        "every_collective": [each._asdict() for each in figures.collectives],
        "all_gathers": sum(row.count for row in rows if row.kind == "all-gather"),
        "host_transfers": list(figures.host_transfers),
    }
    if figures.memory_bytes:
        plain["arithmetic_intensity"] = figures.flops / figures.memory_bytes
    if topology.chip and figures.memory:
        bound = roofline.bound(
            topology.chip,
            flops=figures.flops,
            memory_bytes=figures.memory_bytes,
            collectives=figures.collectives,
            images=figures.images,
            precision=config.precision,
            hops=lambda size: topology.hops.get(size, 0),
        )
        plain["bound"] = bound._asdict() | {
            "images_per_second_all": bound.images_per_second * topology.count
        }
    return plain


def _versions() -> dict[str, str]:
    found = {"jdet": __version__}
    for name in ("jax", "jaxlib", "libtpu"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
