"""Where the time of a step goes: measured on the devices here, or bounded for devices that are not."""

from __future__ import annotations

import datetime
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from jdet import __version__, build, describe
from jdet import config as config_lib
from jdet.parallel import mesh as mesh_lib
from jdet.preflight import topology as topology_lib
from jdet.profile import costs, peaks, programs, summary, trace
from jdet.types import ConfigError

LARGEST = 20
"""Instructions that the report lists one by one."""


def profile(
    config: ConfigDict,
    what: str = "train",
    *,
    steps: int = 3,
    topology: str = "",
    given: str = "",
    depth: int = 2,
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> dict[str, Any]:
    """Compiles a program of a run, runs some steps of it under the profiler, and adds up what they cost.

    The steps are those of a run, on images of noise with objects; no data is read and no run is touched.

    Args:
        config: of one training; not changed.
        what: "train", the whole optimiser step, or "detect", the detection of one batch.
        steps: that are timed, and as many again that are traced.
        topology: devices to compile for, as in ``jdet.preflight.topology``; nothing is run then. "": the
            devices here.
        given: operations and bytes a second of a device; "": published or measured ones.
        depth: parts of a module's path that make a row.
        say: told what is being done.

    Returns:
        The report as ``--out`` writes it: plain values, bytes and seconds. Operations and bytes are of all
        devices together, seconds of the step.

    Raises:
        ConfigError: an unknown program, topology or config; no figures for its devices.
    """
    if what not in programs.PROGRAMS:
        raise ConfigError(f"--what={what} does not exist; there are {', '.join(programs.PROGRAMS)}")
    config = config.copy_and_resolve_references()
    config_lib.validate(config)
    with config.unlocked():
        config.class_names = describe.class_names_of(config)
    if topology:
        topology_lib.prepare(topology)
        devices = topology_lib.devices(topology)
    else:
        mesh_lib.split_cpu(config)
        devices = mesh_lib.pick_devices(config)
    # The devices of a CPU are threads of one machine, whose figures are those of all of them.
    who = {"devices": len(devices), "shared": devices[0].platform == "cpu"}
    present = not topology or topology.startswith(("cpu", "gpu"))
    figures = peaks.find(devices[0], config.precision, given, present=present)
    say(f"compiling the {what} step for {len(devices)} × {devices[0].device_kind}")
    start = time.perf_counter()
    program = programs.compile_program(config, what, devices)
    compiled = time.perf_counter() - start
    parts = costs.parts(program.text)
    report: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "versions": {"jdet": __version__, "jax": jax.__version__},
        "config": config.to_dict(),
        "what": what,
        "device_kind": devices[0].device_kind,
        "devices": len(devices),
        "precision": config.precision,
        "shape": list(build.resize(config).largest),
        "images": program.images,
        "compile_seconds": compiled,
        "peaks": {**figures._asdict(), "of_all_devices": who["shared"]},
        "measured": not topology,
    }
    if topology:
        step = summary.step_of(parts, figures, **who)
        return report | {"seconds": step.whole} | _rows(step, depth)
    say(f"running {steps} step(s), then {steps} under the profiler")
    call = program.start()
    times = _times(call, steps)
    found = trace.capture(call, steps, {part.name for part in parts})
    step = summary.step_of(parts, figures, found.seconds, found.wall, **who)
    report |= {
        "seconds": statistics.median(times),
        "traced_seconds": found.wall,
        "steps": steps,
        "idle_seconds": found.idle,
        "cores_busy": found.cores,
    }
    return report | _rows(step, depth)


def _times(call: Callable[[], Any], steps: int) -> list[float]:
    """Seconds of every step, after two that warm up."""
    for _ in range(2):
        jax.block_until_ready(call())
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return times


def _rows(step: summary.Step, depth: int) -> dict[str, Any]:
    """Sums of a report."""
    parts = {part.name: part for part in step.parts}
    each = summary.rows(step, lambda part: part.name)
    ranked = summary.rows(step, lambda part: summary.top(part.module, depth))
    by_kind = summary.rows(step, lambda part: part.kind)
    crossed = summary.rows(step, lambda part: f"{summary.top(part.module, depth)}\n{part.kind}")
    largest = [
        _plain(row) | {"kind": parts[row.name].kind, "module": parts[row.name].module}
        for row in each
        if row.name in parts
    ]
    return {
        "flops": sum(row.flops for row in by_kind),
        "bytes": sum(row.bytes for row in by_kind),
        "least_seconds": sum(row.least for row in each),
        "by_bound": summary.by_bound(each),
        "by_kind": _list(by_kind),
        "by_module": _list(ranked),
        "by_phase": _list(summary.rows(step, lambda part: part.phase)),
        "by_module_and_kind": [
            _plain(row) | dict(zip(("module", "kind"), row.name.partition("\n")[::2]))
            for row in crossed
        ],
        "largest": largest[:LARGEST],
    }


def _list(rows: Sequence[summary.Row]) -> list[dict[str, Any]]:
    return [_plain(row) for row in rows]


def _plain(row: summary.Row) -> dict[str, Any]:
    return {**row._asdict(), "of_peak": row.of_peak}
