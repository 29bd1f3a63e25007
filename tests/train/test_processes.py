"""Two processes with one device each train, stop and are resumed like one process with one."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jdet.train import checkpoint, loop, state
from tests.train import fake

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import json, signal, sys
import jax

port, rank, workdir = sys.argv[1], int(sys.argv[2]), sys.argv[3]
settings = json.loads(sys.argv[4])
jax.config.update("jax_num_cpu_devices", 1)
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=rank)

from jdet.train import loop
from tests.train import fake

def rows(start):
    for k, batch in enumerate(fake.stream(start), start):
        if k == 3 and rank == 1:
            signal.raise_signal(signal.SIGTERM)
        yield jax.tree.map(lambda x: x[4 * rank : 4 * rank + 4], batch)

result = loop.train(
    fake.config(parallel__devices=0, **settings),
    workdir,
    detector=fake.FakeDetector("sync"),
    train_stream=rows,
    num_examples=20,
)
print("RESULT", result.status, result.step, flush=True)
jax.distributed.shutdown()
"""


def run_both(workdir, settings):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-c", SCRIPT),
                *(str(port), str(rank), str(workdir), json.dumps(settings)),
            ],
            env=environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in (0, 1)
    ]
    try:
        texts = [process.communicate(timeout=600)[0].decode() for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, text in zip(processes, texts, strict=True):
        assert process.returncode == 0, text
    return texts


def train_alone(workdir, **settings):
    return loop.train(
        fake.config(**settings),
        workdir,
        detector=fake.FakeDetector("sync"),
        train_stream=fake.stream,
        num_examples=20,
    )


def records(workdir):
    return [json.loads(line) for line in (workdir / "landscape.jsonl").read_text().splitlines()]


def test_two_processes_agree_on_stopping_and_one_goes_on(tmp_path):
    """From the weights of another run, with records and probes of the loss surface."""
    source = tmp_path / "source"
    trained = train_alone(source, seed=5, train__steps=2).state
    settings = dict(fake.TWELVE, init_from__path=str(source))
    settings |= dict(landscape__every=1, landscape__probe_every=2)
    texts = run_both(tmp_path / "two", settings)  # only the second gets a signal
    ends = {line for text in texts for line in text.splitlines() if line.startswith("RESULT")}
    assert len(ends) == 1, texts
    _, status, stopped = ends.pop().split()
    assert status == "interrupted" and 2 <= int(stopped) <= 6
    assert "step 1/12" in texts[0] and "step 1/12" not in texts[1]
    assert f"from {source} step 2" in texts[0] and "statistics from" not in texts[1]
    assert [record["step"] for record in records(tmp_path / "two")] == [*range(1, int(stopped) + 1)]

    one = train_alone(tmp_path / "one", **settings)
    shutil.rmtree(source)
    with (tmp_path / "two" / "landscape.jsonl").open("a") as file:  # of a step that was not saved
        file.write('{"step": 12, "loss": 1.0}\n')
    two = train_alone(tmp_path / "two", **settings)
    assert two.status == "completed" and two.step == 12
    for step in (int(stopped), 12):
        runs = (checkpoint.load_for_inference(tmp_path / run, step)[1:] for run in ("one", "two"))
        assert_close(*runs)
    assert_close(jax.device_get(one.state), jax.device_get(two.state))
    for a, b in zip(records(tmp_path / "one"), records(tmp_path / "two"), strict=True):
        assert a == pytest.approx(b, rel=1e-2)
    begun = (json.loads((tmp_path / run / "run.json").read_text()) for run in ("one", "two"))
    first, second = (record["init_from"] for record in begun)
    assert first == second and first["parameters"] == [state.count_parameters(trained.params)] * 2


def assert_close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5), a, b)
