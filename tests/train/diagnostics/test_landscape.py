"""Records of the loss surface: exact on a quadratic, silent on the training, whole after a resume."""

import json
import signal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.config import get_defaults, validate
from jdet.parallel import mesh as mesh_lib
from jdet.train import loop, optim, schedule, state, step
from jdet.types import ConfigError, Mean
from tests.train import fake

CURVATURE = {"flat": np.float32([0.5, 2.0]), "steep": np.float32([8.0])}
START = {"flat": np.float32([3.0, -1.0]), "steep": np.float32([0.25])}


class Valley(nn.Module):
    name_in_table: str

    @nn.compact
    def __call__(self):
        w = self.param("kernel", lambda _: jnp.asarray(START[self.name_in_table]))
        return 0.5 * jnp.sum(CURVATURE[self.name_in_table] * w**2)


class Quadratic(nn.Module):
    """The same paraboloid for every image: half the sum of curvature times squared parameter."""

    def setup(self):
        self.flat, self.steep = Valley("flat"), Valley("steep")

    def losses(self, batch, *, train=True):
        count = jnp.sum(batch.real.astype(jnp.float32))
        return {name: Mean(getattr(self, name)() * count, count) for name in ("flat", "steep")}


def probe_of(detector, k=0, **overrides):
    config = fake.config(landscape__every=1, landscape__probe_every=1, **overrides)
    mesh = mesh_lib.make_mesh(config)
    rate = schedule.learning_rate(config.optimizer, schedule.resolve(config, 100))
    params, _ = state.abstract_variables(detector, config)
    optimizer = optim.make_optimizer(config.optimizer, rate, params)
    now = state.create_state(detector, optimizer, mesh, config)
    probe = step.make_probe(detector, rate, mesh, config)
    before = jax.device_get(now)
    found = jax.device_get(probe(now, mesh_lib.to_global(fake.batch(k), mesh)))
    jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(now))
    return found


@pytest.mark.parametrize("overrides", [{}, dict(parallel__devices=4), dict(train__accumulation=2)])
def test_probe_of_a_quadratic_is_its_formula(overrides):
    lengths, lr = np.array([0.25, 1.0, 3.0]), 0.02
    found = probe_of(Quadratic(), landscape__probe_steps=tuple(lengths), **overrides)
    a, w = (np.concatenate([t["flat"], t["steep"]]).astype(float) for t in (CURVATURE, START))
    g = a * w
    ways = lengths * lr
    there = w - ways[:, None] * g
    np.testing.assert_allclose(found["loss"], 0.5 * (a * there**2).sum(1), rtol=1e-5)
    np.testing.assert_allclose(found["change"], ways * np.linalg.norm(a * g), rtol=1e-5)
    gradients = a * there
    cosine = gradients @ g / np.linalg.norm(gradients, axis=1) / np.linalg.norm(g)
    np.testing.assert_allclose(found["cosine"], cosine, rtol=1e-5)
    curvature = np.linalg.norm(a * g) / np.linalg.norm(g)  # of A along g: the same at any length
    np.testing.assert_allclose(found["smoothness"], np.full(3, curvature), rtol=1e-4)


def test_smoothness_along_an_axis_is_the_curvature_of_the_axis(monkeypatch):
    monkeypatch.setitem(START, "flat", np.zeros(2, np.float32))
    found = probe_of(Quadratic(), landscape__probe_steps=(0.5, 4.0))
    np.testing.assert_allclose(found["smoothness"], [8.0, 8.0], rtol=1e-4)


def test_probe_is_the_same_on_four_devices():
    one = probe_of(fake.FakeDetector("sync"))
    four = probe_of(fake.FakeDetector("sync"), parallel__devices=4)
    assert {name: x.shape for name, x in one.items()} == dict.fromkeys(
        ("loss", "change", "cosine", "smoothness"), (4,)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), one, four)


def test_probe_sees_what_the_step_sees():
    """Tiny steps lose lr · ‖g‖² each: the probe's gradient is that of the loss in training mode."""
    detector = fake.FakeDetector("batch", dropout=0.5)
    settings = dict(landscape__probe_steps=(0.01, 0.1), optimizer__lr=1e-3)
    found = probe_of(detector, **settings)
    config = fake.config(landscape__every=1, **settings)
    mesh = mesh_lib.make_mesh(config)
    params, _ = state.abstract_variables(detector, config)
    optimizer = optim.make_optimizer(config.optimizer, lambda _: 1e-3, params)
    now = state.create_state(detector, optimizer, mesh, config)
    take = step.make_train_step(detector, optimizer, lambda _: 1e-3, mesh, config)
    _, metrics = take(now, mesh_lib.to_global(fake.batch(0), mesh))
    expected = metrics["loss"] - 1e-3 * metrics["grad_norm"] ** 2 * np.array([0.01, 0.1])
    np.testing.assert_allclose(found["loss"], expected, rtol=2e-5)
    assert found["cosine"][0] > 0.99


def test_module_norms_go_down_to_the_depth():
    tree = {"a": {"b": {"w": np.float32([3.0])}, "c": {"w": np.float32([4.0])}}, "w": np.float32(2)}
    assert step.module_norms(tree, 0) == {}
    one = {name: float(x) for name, x in step.module_norms(tree, 1).items()}
    assert one == {"grad_norm/a": 5.0, "grad_norm/w": 2.0}
    two = {name: float(x) for name, x in step.module_norms(tree, 2).items()}
    assert two == one | {"grad_norm/a/b": 3.0, "grad_norm/a/c": 4.0}
    assert set(step.module_norms(tree, 9)) == {*step.module_norms(tree, 3)}


# A run and its file.

ON = dict(
    landscape__every=2,
    landscape__depth=2,
    landscape__probe_every=4,
    landscape__probe_steps=(0.5, 2.0),
)


def train(workdir, detector=None, stream=fake.stream, **kwargs):
    return loop.train(
        fake.config(**fake.TWELVE | kwargs),
        workdir,
        detector=detector or fake.FakeDetector("batch"),
        train_stream=stream,
        num_examples=20,
    )


def lines(workdir, name="landscape.jsonl"):
    return [json.loads(line) for line in (workdir / name).read_text().splitlines()]


def timeless(workdir):
    clock = ("images_per_second", "data_wait")
    return [
        {k: v for k, v in line.items() if k not in clock}
        for line in lines(workdir, "metrics.jsonl")
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    return train(workdir, **ON), workdir


def test_records_of_a_run(whole):
    _, workdir = whole
    records = lines(workdir)
    assert [record["step"] for record in records] == [2, 4, 6, 8, 10, 12]
    modules = {"grad_norm/backbone", "grad_norm/backbone/conv", "grad_norm/backbone/norm"}
    modules |= {"grad_norm/head", "grad_norm/head/kernel", "grad_norm/head/bias"}
    plain = {"step", "lr", "loss", "grad_norm", *modules}
    quantities = ("loss", "change", "cosine", "smoothness")
    probed = plain | {f"probe/{s}/{x}" for s in ("0.5", "2.0") for x in quantities}
    for record in records:
        assert set(record) == (probed if record["step"] % 4 == 0 else plain)
        squares = record["grad_norm/backbone"] ** 2 + record["grad_norm/head"] ** 2
        assert record["grad_norm"] == pytest.approx(squares**0.5, rel=1e-5)
    metrics = {line["step"]: line for line in lines(workdir, "metrics.jsonl")}
    for record in records:
        shared = ("lr", "loss", "grad_norm")
        assert {x: record[x] for x in shared} == {x: metrics[record["step"]][x] for x in shared}
        assert not any(name.startswith("grad_norm/") for name in metrics[record["step"]])


def test_training_is_the_same_bit_for_bit(whole, tmp_path):
    result, workdir = whole
    plain = train(tmp_path)
    jax.tree.map(
        np.testing.assert_array_equal, jax.device_get(plain.state), jax.device_get(result.state)
    )
    assert timeless(tmp_path) == timeless(workdir)
    assert not (tmp_path / "landscape.jsonl").exists()


def test_records_go_on_where_a_run_goes_on(whole, tmp_path):
    result, workdir = whole

    def stream(start):
        for k, batch in enumerate(fake.stream(start), start):
            if k == 7:
                signal.raise_signal(signal.SIGTERM)
            yield batch

    cut = train(tmp_path, stream=stream, **ON)
    assert cut.status == "interrupted" and cut.step < 12
    with (tmp_path / "landscape.jsonl").open("a") as file:  # of steps that were never saved
        file.write('{"step": 11, "loss": 1.0}\n{"step": 12, "los')
    resumed = train(tmp_path, **ON)
    jax.tree.map(
        np.testing.assert_array_equal, jax.device_get(resumed.state), jax.device_get(result.state)
    )
    assert lines(tmp_path) == lines(workdir)


def test_records_may_be_switched_on_and_off_when_a_run_goes_on(whole, tmp_path):
    _, workdir = whole

    def stream(start):
        for k, batch in enumerate(fake.stream(start), start):
            if k == start + 4:
                signal.raise_signal(signal.SIGTERM)
            yield batch

    first = train(tmp_path, stream=stream).step
    second = train(tmp_path, stream=stream, **ON).step
    with (tmp_path / "landscape.jsonl").open("a") as file:
        file.write('{"step": 12, "loss": 1.0}\n')
    train(tmp_path)
    assert 0 < first < second < 12
    expected = [record for record in lines(workdir) if first < record["step"] <= second]
    assert lines(tmp_path) == expected


def test_nothing_is_compiled_twice(tmp_path, monkeypatch):
    made = []

    def recording(make):
        return lambda *args: made.append(make(*args)) or made[-1]

    for name in ("make_train_step", "make_probe"):
        monkeypatch.setattr(loop, name, recording(getattr(step, name)))
    train(tmp_path / "on", **ON)
    programs = [getattr(program, "args", [program])[0] for program in made]
    assert [program._cache_size() for program in programs] == [1, 1]
    made.clear()
    train(tmp_path / "off")
    assert len(made) == 1, "the probe was built although it is off"


def test_divergence_is_recorded(tmp_path):
    """Image 35 is in batch 4: the fifth step fails."""
    detector = fake.FakeDetector("batch", bad_index=35)
    result = train(tmp_path, detector, landscape__every=1, landscape__probe_every=1)
    assert result.status == "diverged"
    *records, event = lines(tmp_path)
    assert [record["step"] for record in records] == [1, 2, 3, 4]
    assert (event["step"], event["event"], event["loss"]) == (5, "diverged", None)


@pytest.mark.parametrize(
    "values, message",
    [
        (dict(probe_every=10), "probe_every=10, but config.landscape.every=0"),
        (dict(every=4, probe_every=10), "probe_every=10 is not a multiple of .*every=4"),
        (dict(every=-1), "config.landscape.every=-1"),
        (dict(depth=-1), "config.landscape.depth=-1"),
        (dict(probe_steps=()), r"probe_steps=\(\)"),
        (dict(probe_steps=(0.0, 1.0)), "rising from above 0"),
        (dict(probe_steps=(2.0, 1.0)), "rising from above 0"),
        (dict(probe_steps=(1.0, float("nan"))), "rising from above 0"),
        (dict(probe_steps=("half",)), "rising from above 0"),
    ],
)
def test_wrong_settings_are_refused(values, message):
    config = get_defaults()
    with config.ignore_type():
        config.landscape.update(values)
    with pytest.raises(ConfigError, match=message):
        validate(config)
