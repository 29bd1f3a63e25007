"""Mesh layout, batches on devices, and the prefetching thread."""

import dataclasses
import itertools
import logging
import os
import subprocess
import sys
import threading
import time
from typing import NamedTuple

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdet.config import get_defaults
from jdet.config.ranges import RANGES
from jdet.parallel import mesh as mesh_lib
from jdet.parallel.prefetch import DevicePrefetcher
from jdet.types import ConfigError
from tests.train import fake


@pytest.mark.parametrize(
    "group_size, shape", [(0, (1, 4)), (1, (4, 1)), (2, (4, 1)), (4, (2, 2)), (8, (1, 4))]
)
def test_group_size_is_in_images(group_size, shape):
    mesh = mesh_lib.make_mesh(fake.config(parallel__devices=4, parallel__bn_group_size=group_size))
    assert mesh.axis_names == ("group", "member") and mesh.devices.shape == shape
    assert list(mesh.devices.flat) == jax.devices()[:4]


def test_accumulation_shrinks_what_a_device_sees():
    config = fake.config(parallel__devices=2, parallel__bn_group_size=4, train__accumulation=2)
    assert mesh_lib.make_mesh(config).devices.shape == (1, 2)


@pytest.mark.parametrize(
    "batch, overrides, fitting",
    [
        (
            8,
            dict(parallel__bn_group_size=3),
            r"=3 does not fit 4 .* 2 images .*; 1, 2, 4, 8 do \(0: all 8\)",
        ),
        (8, dict(parallel__bn_group_size=16), "1, 2, 4, 8 do"),
        (24, dict(parallel__bn_group_size=4), "see 6 images.*; 1, 2, 3, 6, 12, 24 do"),
        (24, dict(parallel__bn_group_size=8, train__accumulation=2), "see 3 .*; 1, 3, 6, 12 do"),
        (2, {}, "batch_size=2 does not divide by 4 .* without an image; .*parallel.devices"),
        (
            4,
            dict(train__accumulation=2),
            "batch_size=4 does not .*without an image.*multiple of 8",
        ),
        (6, {}, "batch_size=6 does not divide by 4.*multiple of 4"),
    ],
)
def test_what_does_not_fit_is_told_with_what_does(batch, overrides, fitting):
    config = fake.config(parallel__devices=4, train__batch_size=batch, **overrides)
    with pytest.raises(ConfigError, match=fitting):
        mesh_lib.make_mesh(config)
    # An evaluation does not mind.
    assert mesh_lib.make_mesh(config, training=False).size == 4


@given(st.integers(1, 24), st.integers(1, 12))
def test_every_size_that_is_offered_fits(micro_batch, devices):
    offered = mesh_lib.bn_group_sizes(micro_batch, devices)
    assert offered[0] == 1 and offered[-1] == micro_batch * devices
    for size in range(1, micro_batch * devices + 1):
        if size not in offered:
            with pytest.raises(ConfigError):
                mesh_lib.bn_layout(micro_batch, devices, size)
            continue
        teams, members = mesh_lib.bn_layout(micro_batch, devices, size)
        assert teams * members == devices and micro_batch * members % size == 0
        assert members == 1 or micro_batch * members == size


def test_processes_hold_consecutive_images():
    """Some platforms count devices across hosts; a process has consecutive rows of a batch."""

    @dataclasses.dataclass(frozen=True)
    class Device:
        id: int
        process_index: int

    devices = [Device(i, i // 2 % 2) for i in range(8)]  # 0 1 on the first, 2 3 on the second, …
    mesh = mesh_lib.make_mesh(fake.config(), devices=devices)
    assert [device.id for device in mesh.devices.flat] == [0, 1, 4, 5, 2, 3, 6, 7]


def test_too_many_devices():
    with pytest.raises(ConfigError, match="parallel.devices=9, but there are 4 cpu"):
        mesh_lib.make_mesh(fake.config(parallel__devices=9))
    most = RANGES["parallel.cpu_devices"].high
    for wanted in (most, most + 1):  # no more are promised than can be set
        with pytest.raises(ConfigError) as error:
            mesh_lib.make_mesh(fake.config(parallel__devices=wanted))
        offered = f"with parallel.cpu_devices={wanted}" in str(error.value)
        assert offered == (wanted == most)


class Device(NamedTuple):
    id: int
    process_index: int
    platform: str = "tpu"


def test_devices_of_a_process_stand_together(monkeypatch):
    """A TPU slice numbers its chips row by row, across the hosts that hold squares of them."""
    devices = [Device(i, i // 2 % 2) for i in range(8)]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    monkeypatch.setattr(jax, "process_count", lambda: 2)

    def picked(count):
        return [device.id for device in mesh_lib.pick_devices(fake.config(parallel__devices=count))]

    assert picked(0) == [0, 1, 4, 5, 2, 3, 6, 7]
    assert picked(4) == [0, 1, 2, 3]
    with pytest.raises(ConfigError, match="=3, but every one of the 2 processes must have equally"):
        picked(3)
    devices.pop()
    with pytest.raises(ConfigError, match="of the 7 devices they have 4, 3"):
        picked(0)


def test_rows_are_split_in_order():
    mesh = mesh_lib.make_mesh(fake.config(parallel__devices=4))
    batch = fake.batch(0)
    placed = mesh_lib.to_global(batch, mesh)
    jax.tree.map(np.testing.assert_array_equal, batch, jax.device_get(placed))
    for i, device in enumerate(mesh.devices.flat):
        shard = next(s for s in placed.index.addressable_shards if s.device == device)
        np.testing.assert_array_equal(shard.data, [2 * i, 2 * i + 1])


def test_prefetcher_keeps_order_and_stays_ahead_by_its_depth():
    mesh = mesh_lib.make_mesh(fake.config())
    made = []

    def stream():
        for k in itertools.count():
            made.append(k)
            yield fake.batch(k)

    with DevicePrefetcher(stream(), mesh, depth=2) as batches:
        for k in range(3):
            np.testing.assert_array_equal(next(batches).index, fake.batch(k).index)
        time.sleep(0.3)
        assert len(made) <= 3 + 2 + 1  # taken, queued, and one in the hand of the thread
    assert "prefetch" not in {thread.name for thread in threading.enumerate()}
    assert list(batches) == []


def test_prefetcher_ends_with_the_stream_and_raises_its_errors():
    mesh = mesh_lib.make_mesh(fake.config())
    assert len(list(DevicePrefetcher([fake.batch(0), fake.batch(1)], mesh))) == 2

    def broken():
        yield fake.batch(0)
        raise OSError("a.jpg")

    batches = DevicePrefetcher(broken(), mesh)
    next(batches)
    with pytest.raises(OSError, match="a.jpg"):
        next(batches)
    batches.close()


def test_waiting_has_a_limit():
    mesh, gate = mesh_lib.make_mesh(fake.config()), threading.Event()

    def slow():
        gate.wait()
        yield fake.batch(0)

    with DevicePrefetcher(slow(), mesh) as batches:
        assert not batches.wait(0.05)
        gate.set()
        assert batches.wait(10.0) and batches.wait(0.0)
        np.testing.assert_array_equal(next(batches).index, fake.batch(0).index)
        assert next(batches, None) is None


def test_split_cpu():
    program = (
        "from jdet.config import get_defaults; from jdet.parallel import mesh as mesh_lib\n"
        "c = get_defaults(); c.parallel.cpu_devices = 8; mesh_lib.split_cpu(c)\n"
        "print(mesh_lib.make_mesh(c).size)"
    )
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert run.stdout.strip() == "8", run.stderr


def test_split_cpu_too_late(caplog):
    config = get_defaults()
    config.parallel.cpu_devices = jax.local_device_count() + 1
    with caplog.at_level(logging.WARNING):
        mesh_lib.split_cpu(config)
    assert "comes too late" in caplog.text
    assert f"JAX_NUM_CPU_DEVICES={config.parallel.cpu_devices}" in caplog.text
