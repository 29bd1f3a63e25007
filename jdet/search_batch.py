"""Finds the resolution and batch that fill the memory of a device, for direct pre-training.

    python -m jdet.search_batch --config=experiments/direct_retinanet_coco.py --memory=11GB [--remat]
        [--topology=v5e:1x1] [--proxy=0.05] [--time_budget=24] [--out=FILE]

Compiles the training step of the config's first phase (or of ``--phase``) for some sides of the input and
images of a device, and ranks those that fit (``jdet.preflight.batch_search``). With each that none exceeds
come the learning rate by the linear rule, the passes over the data, and, where ``--time_budget`` or
``--time_steps`` asks for it, the time of a step that is run on the devices here. With ``--proxy`` each is
trained for a share of the run's length, all phases, and the main metric of the evaluation ranks them.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
from absl import flags
from ml_collections import ConfigDict

from jdet import atomic_files, build, cli, describe, run
from jdet import config as config_lib
from jdet.data import balance
from jdet.parallel import mesh as mesh_lib
from jdet.preflight import batch_search
from jdet.preflight import compile as compile_lib
from jdet.preflight import topology as topology_lib
from jdet.preflight.batch_search import Point
from jdet.train import schedule, state
from jdet.types import Batch, ConfigError, DataError

TIMED = 3
"""Steps that are timed, after one that is not."""


def resized(config: ConfigDict, point: tuple[int, int], devices: int, remat: str) -> ConfigDict:
    """The config of one training at another side and batch of a device.

    Norms that measure groups of images measure those of a device.

    Raises:
        ConfigError: its inputs do not follow ``input_size``.
    """
    side, batch = point
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.input_size, config.train.batch_size = side, batch * devices
        config.train.remat = remat
        if config.parallel.bn_group_size:
            config.parallel.bn_group_size = batch
    if build.resize(config).largest != (side, side):
        raise ConfigError(
            f"config.resize.name={config.resize.name!r} makes inputs of other sizes than "
            "config.input_size; search with 'fit_crop' or 'warp', or name the phase that has one of them "
            "with --phase"
        )
    return config


def search(
    config: ConfigDict,
    devices: list[Any],
    limit: float,
    *,
    sides: tuple[int, ...] = batch_search.SIDES,
    batches: tuple[int, ...] = batch_search.BATCHES,
    remats: tuple[str, ...] = ("none",),
    say: Any = lambda line: print(line, file=sys.stderr, flush=True),
) -> list[tuple[str, batch_search.Found]]:
    """Searches by compiling the training step for devices, once for each kind of rematerialisation.

    Args:
        config: of one training, with ``class_names``; not changed.
        devices: attached ones, or those of a topology.
        limit: bytes of one of them.
        sides: candidates.
        batches: candidates, images of a device.
        remats: values of ``train.remat``.
        say: told of every step that is compiled.

    Returns:
        What was found, by those of ``remats`` with which something fits.

    Raises:
        ConfigError: the config cannot be searched, or nothing fits with any of ``remats``.
    """

    def memory_of(remat: str):
        def memory(side: int, batch: int) -> float:
            other = resized(config, (side, batch), len(devices), remat)
            figures = compile_lib.measure(other, "train", devices)
            needed = float(figures.needed) if figures.fits else float("inf")
            say(f"{side}×{side}, {batch} images, remat {remat}: {needed / 1e9:.2f} GB")
            return needed

        return memory

    found = []
    for remat in remats:
        try:
            each = batch_search.search(
                memory_of(remat), limit, sides=sides, batches=batches, remat=remat
            )
        except ConfigError:
            if remat == remats[-1] and not found:
                raise
            continue
        found.append((remat, each))
    return found


def warm_step(config: ConfigDict) -> tuple[Any, state.TrainState, Batch]:
    """The training step on the devices here, compiled and run once.

    Args:
        config: of one training, with ``class_names``.

    Returns:
        The step, the state after it, and a batch of black images without objects.
    """
    config = build.with_frozen_stages(config)
    mesh = mesh_lib.make_mesh(config)
    detector = build.detector(config, config.class_names, axis_name="member")
    work = compile_lib.training(config, detector, mesh)
    now = state.create_state(detector, work.optimizer, mesh, config)
    shape = build.resize(config).largest
    black = state.zero_batch(config, len(work.batch.real), shape, needs=detector.needs)
    batch = jax.device_put(black, mesh_lib.batch_sharding(mesh))
    now, _ = jax.block_until_ready(work.step(now, batch))
    return work.step, now, batch


def step_seconds(config: ConfigDict) -> float:
    """Mean time of ``TIMED`` steps on the devices here.

    Args:
        config: of one training, with ``class_names``.
    """
    step, now, batch = warm_step(config)
    begin = time.perf_counter()
    for _ in range(TIMED):
        now, _ = step(now, batch)
    jax.block_until_ready(now)
    return (time.perf_counter() - begin) / TIMED


def facts(config: ConfigDict, point: Point, devices: int, images: int | None) -> dict[str, Any]:
    """What a training at a point comes to: rate, steps, and passes over ``images`` where known."""
    other = resized(config, (point.side, point.batch), devices, point.remat)
    resolved = schedule.resolve(other, images or compile_lib.IMAGES, devices=devices)
    return {
        **point._asdict(),
        "rank": point.rank,
        "batch_size": resolved.batch_size,
        "bn_group_size": other.parallel.bn_group_size,
        "lr": resolved.peak_lr,
        "steps": resolved.steps,
        "data_passes": resolved.epochs if images else None,
    }


def proxy(config: ConfigDict, phase: str, point: Point, devices: int, share: float) -> float:
    """Main metric after a training of all phases for a share of their length, with a point in one of them.

    Args:
        config: whole config, with or without phases.
        phase: that the search is for; "" without phases.
        point: side and batch of it.
        devices: of the machine.
        share: of the steps.
    """
    config = config.copy_and_resolve_references()
    images = images_of(config) or 1
    wholes = {each.name: each.config for each in config_lib.split_phases(config)} if phase else {}
    with config.unlocked():
        for name, whole in (wholes or {"": config}).items():
            group = config.phase[name] if name else config
            for part in ("train", "optimizer", "parallel"):
                if part not in group:
                    group[part] = ConfigDict()
            own = name == phase
            batch = point.batch * devices if own else whole.train.batch_size
            group.train.update(short_length(whole, share, batch, images))
            group.optimizer.update(shortened(whole, share))
            if own:
                group.input_size, group.train.batch_size = point.side, batch
                group.train.remat = point.remat
                if whole.parallel.bn_group_size:
                    group.parallel.bn_group_size = point.batch
    with tempfile.TemporaryDirectory() as folder:
        result = run.train(config, Path(folder) / "run")
    if result.status != "completed" or not result.metrics:
        return 0.0
    main_metric = result.metrics.get(config_lib.of_phase(config).train.best_metric)
    return next(iter(result.metrics.values())) if main_metric is None else main_metric


def short_length(config: ConfigDict, share: float, batch: int, images: int) -> dict[str, Any]:
    """Steps and epochs for a share of a training: two steps at least, one more than the warm-up.

    Args:
        config: of the training or of a phase.
        share: of its length.
        batch: images of a step then.
        images: to train on.
    """
    train, optimizer = config.train, config.optimizer
    if not train.steps:
        policy = schedule.POLICIES.get(optimizer.schedule)
        epochs = train.epochs or (policy.epochs if policy else 0)
        return {"epochs": max(epochs * share, 2 * batch / images)}
    reference = optimizer.reference_batch if train.length == "fixed_samples" else 0
    fewest = math.ceil(2 * batch / reference) if reference else 2
    return {"steps": max(int(train.steps * share), fewest)}


def shortened(config: ConfigDict, share: float) -> dict[str, Any]:
    """The optimiser's settings that count steps or epochs, for a share of a training.

    A warm-up keeps one step at least, for its rate may be set; drops at fractions of the run stay.
    """
    optimizer = config.optimizer
    return {
        "warmup": max(int(optimizer.warmup * share), 1) if optimizer.warmup else 0,
        "warmup_epochs": optimizer.warmup_epochs * share,
        "hold": int(optimizer.hold * share),
        "boundaries": tuple(
            mark if mark <= 1 else max(int(mark * share), 2) for mark in optimizer.boundaries
        ),
    }


def images_of(config: ConfigDict) -> int | None:
    """Images to train on; None where the data are not here."""
    try:
        return balance.epoch_length(build.sources(config)[0])
    except DataError:
        return None


def numbers(text: str, flag: str) -> tuple[int, ...]:
    """Whole numbers of a flag, comma-separated.

    Raises:
        ConfigError: one is none.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--{flag}={text}; give whole numbers, such as 224,448") from error


def main() -> None:
    """The command."""
    values = flags.FLAGS
    whole, limit = values.config, batch_search.parse_memory(values.memory)
    config_lib.validate(whole)
    phase = values.phase or (whole.phases[0] if whole.phases else "")
    config = config_lib.of_phase(whole, phase).copy_and_resolve_references()
    config_lib.validate(config)
    here = not values.topology
    if here:
        mesh_lib.split_cpu(config)
    else:
        topology_lib.prepare(values.topology)
    with config.unlocked():
        config.class_names = describe.class_names_of(config)
    devices = mesh_lib.pick_devices(config) if here else topology_lib.devices(values.topology)
    limit = limit or topology_lib.memory(devices[0])
    if not limit:
        raise ConfigError(
            f"the memory of {devices[0].device_kind} is not known; give --memory=11GB"
        )
    if (values.proxy or values.time_budget or values.time_steps) and not here:
        raise ConfigError("--proxy, --time_budget and --time_steps run steps; leave out --topology")
    remats = ("none", "full") if values.remat else ("none",)
    found = search(
        config,
        devices,
        limit,
        sides=numbers(values.sizes, "sizes"),
        batches=numbers(values.batches, "batches"),
        remats=remats,
    )
    images, count = images_of(config), len(devices)
    points = [point for _, each in found for point in each.frontier]
    rows = [facts(config, point, count, images) for point in points]
    for row, point in zip(rows, points):
        if values.time_budget or values.time_steps:
            other = resized(config, (point.side, point.batch), count, point.remat)
            row["hours"] = step_seconds(other) * row["steps"] / 3600
            row["in_time"] = not values.time_budget or row["hours"] <= values.time_budget
        if values.proxy and row.get("in_time", True):
            row["metric"] = proxy(whole, phase, point, count, values.proxy)
    able = [row for row in rows if row.get("in_time", True)]
    if not able:
        raise ConfigError(
            f"--time_budget={values.time_budget:g} hours: none of {len(rows)} settings that fit ends in "
            "time; give more, or train for fewer steps"
        )
    chosen = max(able, key=lambda row: (row.get("metric", 0.0), row["rank"]))
    report = {
        "device_kind": devices[0].device_kind,
        "devices": count,
        "memory": limit,
        "usable": batch_search.USABLE * limit,
        "phase": phase,
        "images": images,
        "searches": {kind: batch_search.as_json(each) for kind, each in found},
        "settings": rows,
        "chosen": chosen,
    }
    if values.out:
        atomic_files.write_json(values.out, report)
    print_report(report)


def print_report(report: dict[str, Any]) -> None:
    """Prints the settings that fit, best first, and how to train with the chosen one."""
    for row in sorted(report["settings"], key=lambda row: -row["rank"]):
        passes = f"{row['data_passes']:.1f} data passes" if row["data_passes"] else "unknown passes"
        more = f", {row['hours']:.1f} h" if "hours" in row else ""
        more += f", metric {row['metric']:.4f}" if "metric" in row else ""
        print(
            f"{row['side']}×{row['side']}, {row['batch']} images on each of {report['devices']} device(s), "
            f"remat {row['remat']}: {row['memory'] / 1e9:.2f} GB, lr {row['lr']:g}, {row['steps']} steps, "
            f"{passes}{more}, rank {row['rank']:.3f}{'  ← chosen' if row is report['chosen'] else ''}"
        )
    row, phase = report["chosen"], report["phase"]
    key = f"--config.phase.{phase}." if phase else "--config."
    more = f" {key}train.remat={row['remat']}" if row["remat"] != "none" else ""
    if row["bn_group_size"]:
        more += f" {key}parallel.bn_group_size={row['bn_group_size']}"
    print(
        f"of {report['memory'] / 1e9:.2f} GB, {report['usable'] / 1e9:.2f} are used: "
        f"{key}input_size={row['side']} {key}train.batch_size={row['batch_size']}{more}"
    )


if __name__ == "__main__":
    flags.DEFINE_string("memory", "auto", "Of a device: 11GB, 900MB, or auto, that of the devices.")
    flags.DEFINE_string(
        "topology", "", "Compile for these devices, such as v5e:1x1; else those here."
    )
    flags.DEFINE_string("phase", "", "Phase of a config that has some; else its first.")
    flags.DEFINE_string("sizes", ",".join(map(str, batch_search.SIDES)), "Sides of the input.")
    flags.DEFINE_string("batches", ",".join(map(str, batch_search.BATCHES)), "Images of a device.")
    flags.DEFINE_bool("remat", False, "Search with rematerialisation too.")
    flags.DEFINE_bool("time_steps", False, "Run steps and tell how long a training takes.")
    flags.DEFINE_float("time_budget", 0.0, "Longest training, hours; 0: any.", lower_bound=0.0)
    flags.DEFINE_float(
        "proxy", 0.0, "Rank by trainings of this share of the steps; 0: none.", lower_bound=0.0
    )
    flags.DEFINE_string("out", "", "JSON file that gets the report for programs.")
    cli.start(main)
