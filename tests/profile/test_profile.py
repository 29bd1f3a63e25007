"""A step that is run and traced, one that is only compiled, sums and bounds, tables and bars."""

import json

import jax
import pytest
from rich.console import Console

from jdet.profile import output, peaks, programs, summary, trace
from jdet.profile import profile as profile_lib
from jdet.profile import report as report_lib
from jdet.profile.costs import Part
from jdet.profile.peaks import Peaks
from jdet.types import ConfigError
from tests.train import fake

# Per image: a 3×3 convolution of 3 channels to 8×8×4, and a dense layer from 256 to 6.
CONV, DENSE = 8 * 8 * 4 * 27, 256 * 6

# 1 GFLOP/s, 1 GB/s and 1 GB/s between devices.
SLOW = Peaks(1e9, 1e9, 1e9, "made up")


def part(name, kind="element-wise", module="a/b/c", flops=0.0, bytes=0, sent=0.0):
    return Part(name, kind, module, "forward", 1, flops, bytes, sent)


PARTS = [
    part("conv", "convolution", "a/b/c", flops=4e6, bytes=1_000_000),
    part("relu", module="a/b/d", bytes=3_000_000),
    part("sum", "collective", "gradients", bytes=1000, sent=2e6),
    part("tiny", module="", bytes=1000),
]


def test_without_times_the_bounds_stand_for_them():
    step = summary.step_of(PARTS, SLOW)
    assert step.whole == pytest.approx(4e-3 + 3e-3 + 2e-3 + 1e-6)
    found = {row.name: row for row in summary.rows(step, lambda each: summary.top(each.module, 2))}
    assert set(found) == {"a/b", "gradients", "(no module)"}
    both = found["a/b"]
    assert (both.count, both.flops, both.bytes, both.bound) == (2, 4e6, 4e6, "compute")
    assert both.seconds == both.least == pytest.approx(7e-3) and both.of_peak == 1
    assert found["gradients"].bound == "links"
    shares = summary.by_bound(summary.rows(step, lambda each: each.name))
    assert list(shares) == ["compute", "memory", "links"]
    assert sum(shares.values()) == pytest.approx(1)


def test_with_times_the_far_off_is_bound_by_neither_and_idle_is_a_row():
    times = {"conv": 5e-3, "relu": 3e-3, "sum": 2e-3, "tiny": 1e-3, trace.UNKNOWN: 1e-3}
    step = summary.step_of(PARTS, SLOW, times, 15e-3)
    found = {row.name: row for row in summary.rows(step, lambda each: each.name)}
    assert next(iter(found)) == "conv"
    assert found["conv"].bound == "compute" and found["conv"].of_peak == pytest.approx(0.8)
    assert found["tiny"].bound == summary.NEITHER
    assert found["idle"].seconds == pytest.approx(3e-3) and found["idle"].bound == "idle"
    assert found[trace.UNKNOWN].seconds == pytest.approx(1e-3)
    assert sum(row.share for row in found.values()) == pytest.approx(1)
    # Two devices that share the peaks of one machine take twice as long at them.
    # Two with peaks of their own do not; what they compute and move is that of both all the same.
    for shared, least in ((True, 8e-3), (False, 4e-3)):
        twice = summary.step_of(PARTS, SLOW, times, 15e-3, devices=2, shared=shared)
        conv = summary.rows(twice, lambda each: each.name)[0]
        assert (conv.flops, conv.bytes, conv.least) == (8e6, 2e6, pytest.approx(least))


@pytest.fixture
def small(monkeypatch):
    """A config whose detector is the fake one."""
    monkeypatch.setattr(programs.build, "detector", lambda *_, **__: fake.FakeDetector())
    config = fake.config()
    config.class_names = ("a", "b")
    config.eval.batch_size = 8
    return config


@pytest.fixture(scope="module")
def console():
    return Console(width=118, highlight=False, record=True)


@pytest.mark.parametrize("what", programs.PROGRAMS)
def test_steps_that_run(small, monkeypatch, capsys, tmp_path, what):
    monkeypatch.setattr(
        profile_lib.describe, "class_names_of", lambda config: tuple(config.class_names)
    )
    report = profile_lib.profile(small, what, steps=2, given="1e12,1e11", say=lambda _: None)
    images = 8
    expected = 2 * CONV + 3 * DENSE if what == "train" else CONV + DENSE
    assert (report["images"], report["flops"]) == (images, 2 * images * expected)
    modules = {row["name"]: row for row in report["by_module"]}
    assert {"backbone/conv", "head"} <= set(modules)
    assert ("optimizer" in modules) == (what == "train")
    for rows in ("by_kind", "by_module", "by_phase"):
        assert sum(row["seconds"] for row in report[rows]) == pytest.approx(
            report["traced_seconds"], rel=1e-6
        )
    # The instructions of the trace are those of the program.
    assert modules["backbone/conv"]["seconds"] > 0
    assert sum(report["by_bound"].values()) == pytest.approx(1)

    report_lib.print_report(report)
    text = capsys.readouterr().out
    assert "bound by" in text and "backbone/conv" in text and "idle" in text
    # A folder is made; what an earlier profile left there is replaced.
    name = str(tmp_path / "new" / "step.json")
    output.prepare(name).write(report)
    assert (tmp_path / "new" / "step.png").stat().st_size > 10_000
    output.prepare(name).report.unlink()
    with pytest.raises(ConfigError, match="step.png, which is not of an earlier profile"):
        output.prepare(name)
    json.dumps({key: value for key, value in report.items() if key != "config"}, allow_nan=False)


def test_noise_has_the_shapes_and_types_of_a_batch():
    whole = fake.batch(0)
    made = programs.noise(whole, 2)
    alike = jax.tree.map(lambda x, y: (x.shape, x.dtype) == (y.shape, y.dtype), whole, made)
    assert all(jax.tree.leaves(alike)) and made.valid.any()
    assert (made.boxes[..., 2:] <= fake.SIDE).all()
    deep = programs.noise(whole._replace(images=whole.images.astype("uint16")), 2)
    assert deep.images.max() > 255
    grey = programs.noise(whole._replace(images=whole.images[..., :1].astype("float32")), 2)
    assert 0 <= grey.images.min() < grey.images.max() <= 1


def test_sums_of_several_devices_say_so():
    report = {
        "seconds": 1.0,
        "images": 2,
        "measured": False,
        "flops": 8e9,
        "bytes": 2e9,
        "devices": 2,
    }
    report |= {"least_seconds": 0.5, "by_bound": {"compute": 1.0}}
    for shared, peaks_line in (
        (False, "peaks each: 0.001 TFLOP/s"),
        (True, "peaks: 0.001 TFLOP/s"),
    ):
        peaks = SLOW._asdict() | {"of_all_devices": shared}
        _, sums, line, _ = report_lib.facts(report | {"peaks": peaks})
        assert "2.000 GB of memory traffic, of all devices: at" in sums and peaks_line in line
    alone = report | {"devices": 1, "peaks": peaks}
    assert "of memory traffic: at" in report_lib.facts(alone)[1]


def test_many_modules_end_in_a_row_for_the_rest():
    step = summary.step_of([part(f"p{i}", module=f"m{i}", bytes=1000 + i) for i in range(9)], SLOW)
    rows = [
        row._asdict() | {"of_peak": row.of_peak} for row in summary.rows(step, lambda p: p.module)
    ]
    short = report_lib.shortened(rows, 4)
    assert [row["name"] for row in short] == ["m8", "m7", "m6", "6 others"]
    assert sum(row["bytes"] for row in short) == sum(row["bytes"] for row in rows)
    assert report_lib.shortened(rows, 9) == rows


def test_what_cannot_be_is_said_before_anything_is_compiled(small):
    with pytest.raises(ConfigError, match="--what=trian does not exist; there are train, detect"):
        profile_lib.profile(small, "trian")
    for text in ("1", "a,b", "0,1", "1,2,3"):
        with pytest.raises(ConfigError, match="such as --peaks=2.3e15,7.4e12"):
            peaks.parse(text)
    assert peaks.parse("2.3e15,7.4e12")[:2] == (2.3e15, 7.4e12)

    class Unknown:
        device_kind, platform = "TPU7x", "tpu"

    with pytest.raises(
        ConfigError, match="no published figures for 'TPU7x'.*--peaks=2.3e15,7.4e12"
    ):
        peaks.find(Unknown, "bfloat16", present=False)
    Unknown.device_kind = "TPU v5e"
    assert peaks.find(Unknown, "bfloat16", present=False).flops == 197e12


def test_figures_of_a_device_that_is_here_are_measured(monkeypatch):
    monkeypatch.setattr(peaks, "_SIDES", {"cpu": (64, 4096)})
    found = peaks.find(jax.devices()[0], "float32")
    assert found.flops > 0 and found.bandwidth > 0 and "64×64" in found.source
