"""The step of a run, compiled for devices that are or are not there, and what is read off it."""

import importlib.util
import json
import subprocess
import sys

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from jdet import describe
from jdet.parallel import mesh as mesh_lib
from jdet.preflight import collectives
from jdet.preflight import compile as compile_lib
from jdet.preflight import preflight as preflight_lib
from jdet.preflight import report as report_lib
from jdet.preflight import topology as topology_lib
from jdet.train import optim, schedule, state, step
from jdet.types import ConfigError
from tests.test_main import ROOT, jdet
from tests.train import fake

needs_libtpu = pytest.mark.skipif(
    not importlib.util.find_spec("libtpu"), reason='needs libtpu (pip install "jax[tpu]")'
)

# Per image: a 3×3 convolution of 3 channels to 8×8×4, and a dense layer from 256 to 6.
CONV, DENSE = 8 * 8 * 4 * 27, 256 * 6


@pytest.fixture
def small(monkeypatch):
    """A config whose detector is the fake one, with norms shared over devices."""
    monkeypatch.setattr(
        compile_lib.build, "detector", lambda *_, **__: fake.FakeDetector(norm="sync")
    )
    config = fake.config(parallel__devices=0)
    config.class_names = ("a", "b")
    return config


def by_hand(config, devices):
    """The compiled training step, put together as ``jdet.train.loop`` does."""
    detector = fake.FakeDetector(norm="sync")
    mesh = mesh_lib.make_mesh(config, devices=devices)
    resolved = schedule.resolve(config, 1000, devices=len(devices))
    rate = schedule.learning_rate(config.optimizer, resolved)
    params, _ = state.abstract_variables(detector, config, resolved.micro_batch)
    optimizer = optim.make_optimizer(config.optimizer, rate, params)
    begin = state.create_state(detector, optimizer, mesh, config)
    batch = mesh_lib.to_global(fake.batch(0, config.train.batch_size), mesh)
    return (
        step.make_train_step(detector, optimizer, rate, mesh, config).lower(begin, batch).compile()
    )


def test_the_training_step_is_the_one_that_training_runs(small):
    devices = jax.devices()[:4]
    found = compile_lib.measure(small, "train", devices)
    compiled = by_hand(small, devices)
    stats = compiled.memory_analysis()
    assert found.memory.arguments == stats.argument_size_in_bytes
    assert found.memory.outputs == stats.output_size_in_bytes
    assert found.memory.aliased == stats.alias_size_in_bytes > 0
    assert found.memory.temporaries == stats.temp_size_in_bytes
    assert found.needed == found.memory.peak == (
        stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
        + stats.temp_size_in_bytes + stats.generated_code_size_in_bytes
    )  # fmt: skip
    assert found.xla_flops == compiled.cost_analysis()["flops"]
    assert (found.devices, found.images, found.fits) == (4, 2, True)
    # Forward and gradient of the kernels; and of the dense layer's input, but not of the image.
    assert found.flops == 2 * 2 * (2 * CONV + 3 * DENSE)
    rows = collectives.summarise(found.collectives)
    assert {row.kind for row in rows} == {"all-reduce"} and {row.group_size for row in rows} == {4}
    # The gradients travel, under whichever name XLA kept when it merged neighbours.
    params, _ = state.abstract_variables(fake.FakeDetector(norm="sync"), small, 2)
    assert sum(row.bytes for row in rows) >= 4 * state.count_parameters(params)
    assert not found.host_transfers and found.memory_bytes > 0


def test_accumulation_costs_the_same_arithmetic_and_less_memory_for_activations(small):
    devices = jax.devices()[:1]
    small.train.batch_size = 32
    whole = compile_lib.measure(small, "train", devices)
    small.train.accumulation = 4
    cut = compile_lib.measure(small, "train", devices)
    assert cut.flops == whole.flops
    assert cut.xla_flops == pytest.approx(
        whole.xla_flops, rel=0.2
    )  # on CPUs the loop is written out
    assert cut.memory.temporaries < whole.memory.temporaries
    assert not whole.collectives


def test_groups_of_norms_show_in_the_collectives(small):
    small.parallel.bn_group_size = 4
    found = compile_lib.measure(small, "train", jax.devices()[:4])
    sizes = {each.group_size for each in found.collectives if "batch norm" in each.purpose}
    assert sizes == {2}


def test_the_evaluation_exchanges_nothing(small):
    small.eval.batch_size = 6  # brought up to a multiple of the devices
    found = compile_lib.measure(small, "evaluate", jax.devices()[:4])
    assert found.images == 2
    assert found.flops == 2 * 2 * (CONV + DENSE)
    assert not found.collectives


@pytest.mark.parametrize(
    "message",
    [
        "XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 20.50G of "
        "15.75G hbm. Exceeded hbm capacity by 4.75G.",
        "Ran out of memory on HBM, the total memory required for HLO temporaries (20.50G) exceeds "
        "available HBM (15.75G).",
    ],
)
def test_out_of_memory_is_a_figure(small, monkeypatch, message):
    class Lowered:
        def compile(self):
            raise jax.errors.JaxRuntimeError(f"RESOURCE_EXHAUSTED: {message}")

    class Traced:
        jaxpr = jax.make_jaxpr(lambda x: x)(1.0)
        lower = Lowered

    class Jitted:
        def trace(self, *_):
            return Traced()

    monkeypatch.setattr(compile_lib, "make_train_step", lambda *_: Jitted())
    found = compile_lib.measure(small, "train", jax.devices()[:1])
    assert not found.fits and found.memory is None
    assert found.needed == int(20.5 * 2**30)
    assert message in found.message


@pytest.fixture
def cache(tmp_path):
    """JAX keeps programs in a folder of its own, however fast they were compiled."""
    wanted = {
        "jax_compilation_cache_dir": str(tmp_path),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }

    def set_to(values):
        for name, value in values.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()

    before = {name: getattr(jax.config, name) for name in wanted}
    set_to(wanted)
    yield
    set_to(before)


def test_names_are_those_of_this_version_and_a_cached_program_is_said_to_be(
    small, cache, monkeypatch
):
    names = []

    def make(*_):
        def step(_, batch):
            with jax.named_scope(names[-1]):
                return batch.images.sum()

        return jax.jit(step)

    monkeypatch.setattr(compile_lib, "make_train_step", make)
    found = []
    for name in ("earlier", "later", "later"):
        names.append(name)
        found.append(compile_lib.measure(small, "train", jax.devices()[:2]))
    for name, figures in zip(names, found, strict=True):
        (each,) = figures.collectives
        assert f"/{name}/" in each.op_name
    assert [figures.cached for figures in found] == [False, False, True]


@pytest.mark.parametrize("limit", [0, 1, 5, 8, 9, 100, 255, 256, 300])
@pytest.mark.parametrize("multiple", [1, 4])
@pytest.mark.parametrize("bend", [1.0, 1.3])
def test_search_finds_the_last_batch_that_fits(limit, multiple, bend):
    sizes = list(range(multiple, 257, multiple))
    need = lambda n: 100.0 + 10.0 * n**bend  # noqa: E731
    capacity = need(limit)
    found = preflight_lib.largest_fitting(
        lambda n: (need(n) <= capacity, need(n)), sizes, sizes[len(sizes) // 3], capacity
    )
    fitting = [n for n in sizes if n <= limit]
    failing = [n for n in sizes if n > limit]
    assert found["largest"] == (max(fitting) if fitting else None)
    assert found["smallest_failing"] == (min(failing) if failing else None)
    tried = [n for n, _, _ in found["tried"]]
    assert len(set(tried)) == len(tried) <= 16
    if bend == 1.0 and multiple == 1 and limit in (100, 255):  # where needs are on a line, a few do
        assert len(tried) <= 6


@pytest.mark.parametrize(
    "names, batch, message",
    [
        (["cpu:0"], 8, "N in cpu:N"),
        (["gpu:3"], 8, r"gpu:3: JAX sees 0 GPU\(s\) here"),
        (["cpu:2", "cpu:3"], 8, "cpu:3: train.batch_size=8 does not divide by 3"),
        (["cpu:16"], 8, "cpu:16: train.batch_size=8 does not divide by 16"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_compiled(small, names, batch, message):
    small.train.batch_size = batch
    with pytest.raises(ConfigError, match=message):
        preflight_lib.preflight(small, names)
    with pytest.raises(ConfigError, match="--programs lacks train"):
        preflight_lib.preflight(small, ["cpu:4"], search=True, programs=["evaluate"])
    with pytest.raises(ConfigError, match="'trian' does not exist"):
        preflight_lib.preflight(small, ["cpu:4"], programs=["trian"])
    small.parallel.devices = 2
    with pytest.raises(ConfigError, match="parallel.devices=2"):
        preflight_lib.preflight(small, ["cpu:4"])


def test_without_libtpu_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        ConfigError, match=r"v5e:4x4 needs libtpu.*pip install --editable '\.\[tpu\]'"
    ):
        topology_lib.look("v5e:4x4")


def test_rings_of_slices():
    assert topology_lib.wrapped("v5e", (4, 4)) == (False, False, False)
    assert topology_lib.wrapped("v5e", (8, 16)) == (False, True, False)
    assert topology_lib.wrapped("v6e", (16, 16)) == (True, True, False)
    assert topology_lib.wrapped("v4", (4, 4, 8)) == (True, True, True)
    assert topology_lib.wrapped("v5p", (2, 2, 4)) == (False, False, False)


def test_report_on_the_command_line(tmp_path):
    config = tmp_path / "tiny.py"
    config.write_text(
        "from experiments import common, scratchdet_voc\n"
        "def get_config(arg=''):\n"
        "    c = scratchdet_voc.get_config('backbone=root_resnet18,norm=sync_batch,batch=4')\n"
        "    c = common.miniature(c, 100, 0.125, 4)\n"
        "    c.input_size = 64\n"
        "    c.class_names = ('cat', 'dog')\n"
        "    return c\n"
    )
    out = tmp_path / "report.json"
    done = jdet(
        "preflight", f"--config={config}", "--topology=cpu:2", "--programs=evaluate", f"--out={out}"
    )
    assert done.returncode == 0, done.stderr
    assert "cpu:2  2 × cpu, float32, input 64×64" in done.stdout
    assert "no published figures for 'cpu': no bound" in done.stdout
    report = json.loads(out.read_text())
    (part,) = report["topologies"]
    program = part["programs"]["evaluate"]
    assert part["devices"] == 2 and program["fits"] and not program["host_transfers"]
    assert part["memory_of_device"] == topology_lib.host_memory() / 2
    assert report["versions"]["jax"] == jax.__version__
    assert report["config"]["train"]["batch_size"] == 4


def test_a_topology_that_does_not_exist_ends_in_one_line():
    done = jdet("preflight", "--config=experiments/quickstart.py", "--topology=v9:2x2", "--jobs=1")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: topology")
    with pytest.raises(ConfigError, match="topology cpu:x: N in cpu:N must be a number"):
        topology_lib.look("cpu:x")


def made_up(count, limit="memory", serial=100.0):
    """A part of a report."""
    bound = dict(compute=0.01, memory=0.02, interconnect=0.005, limit=limit)
    bound |= dict(images_per_second=400.0, images_per_second_serial=serial)
    bound["images_per_second_all"] = 400.0 * count
    row = dict(kind="all-reduce", purpose="gradients", group_size=count, count=2, bytes=2**20)
    train = dict(
        images=8, fits=True, needed=4 * 2**30, flops=1.5e12, memory_bytes=12e9, seconds=100.0,
        memory=dict(arguments=2**28, outputs=2**28, aliased=2**28, temporaries=2**30, code=0, peak=2**31),
        cpu_seconds=160.0, cached=False, collectives=[row | dict(largest=2**20)], all_gathers=0,
        host_transfers=[], arithmetic_intensity=125.0, bound=bound,
    )  # fmt: skip
    return dict(
        topology=f"v5e:{count}", devices=count, device_kind="TPU v5 lite", batch_size=8 * count,
        memory_of_device=2**34, chip=dict(name="TPU v5e", source="a page"), programs=dict(train=train),
    )  # fmt: skip


def test_report_states_bound_limit_search_and_scaling(capsys):
    part = made_up(16)
    part["search"] = dict(largest=30, smallest_failing=31, tried=[[8, 1.0, True], [31, 2.0, False]])
    report = dict(
        config=dict(precision="float32"),
        shape=[300, 300],
        topologies=[part],
        weak_scaling=[made_up(4), made_up(16, serial=90.0)],
    )
    report_lib.print_report(report)
    said = capsys.readouterr().out
    for text in (
        "16 × TPU v5e, float32, input 300×300",
        "20.00 ms ← limit",
        "6,400 img/s",
        "30 images per device fit (batch 480), 31 do not; tried 8 fits, 31 does not",
        "90.0 %",
        "figures of the chip: a page",
    ):
        assert text in said
    assert "100 s, 160 s of cores" in said
    part["programs"]["train"]["cached"] = True
    report_lib.print_report(report | dict(weak_scaling=[]))
    assert "found in the cache" in (again := capsys.readouterr().out) and "s of cores" not in again
    lines = {line.split("  ")[0].strip(): line.split() for line in said.splitlines()}
    assert lines["all-gathers"][-1] == lines["host transfers"][-1] == "none"


def test_describe_predicts_the_memory_of_training(small, capsys):
    small.parallel.devices = 2
    found = describe.training_memory(small, ("a", "b"))
    stats = by_hand(small, jax.devices()[:2]).memory_analysis()
    assert found["temporaries"] == stats.temp_size_in_bytes
    assert (found["devices"], found["images"], found["fits"]) == (2, 4, True)
    describe.print_memory(found)
    said = capsys.readouterr().out
    assert "each of 2 cpu device(s), 4 image(s) on each" in said and "temporaries" in said
    describe.print_memory(found | dict(fits=False))
    assert "DOES NOT FIT" in capsys.readouterr().out


@needs_libtpu
def test_topologies_of_tpus():
    found = topology_lib.look("v5e:4x4")
    assert (found.count, found.kind, found.chip.name) == (16, "TPU v5 lite", "TPU v5e")
    assert found.hops[16] == 6  # from corner to corner
    assert topology_lib.look("v5e:16x16").hops[256] == 16  # half of either ring
    assert topology_lib.look("v4:2x2x1").count == 4  # two cores are one device
    assert topology_lib.look("v6e:1x1").count == 1
    for name in ("v9:2x2", "v5e:3x3", "v5e", "v5e:axb"):
        with pytest.raises(ConfigError, match=r"does not exist.*v5e: 1x1 2x2 .* 16x16; v5p: "):
            topology_lib.look(name)


@needs_libtpu
def test_more_than_a_tpu_holds_is_known_from_the_compiler(small):
    (device,) = topology_lib.devices("v5e:1x1")
    small.train.batch_size = 30_000_000  # 23 GB of images
    found = compile_lib.measure(small, "train", [device])
    assert not found.fits and found.memory is None and found.needed > 16 * 2**30


@needs_libtpu
def test_a_step_compiles_for_tpus_that_are_not_here(small):
    before = jax.devices()
    devices = topology_lib.devices("v5e:2x2")
    found = compile_lib.measure(small, "train", devices)
    assert (found.devices, found.images) == (4, 2)
    assert found.flops == 2 * 2 * (2 * CONV + 3 * DENSE)
    assert {each.kind for each in found.collectives} == {"all-reduce"}
    assert not found.host_transfers and found.memory.code > 0
    assert jax.devices() == before and before[0].platform == "cpu"


def test_looking_starts_no_backend():
    code = (
        "from jdet.preflight import topology as t\n"
        "assert t.look('cpu:8').count == 8\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge._backends"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
