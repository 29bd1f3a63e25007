"""Programs that train the tiny run: forked from one that has imported everything, or two of several."""

import contextlib
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np

from jdet import run
from jdet.parallel.mesh import split_cpu
from jdet.train.checkpoints import checkpoint
from jdet.types import ConfigError, DataError
from tests.harness import ROOT, child_environment
from tests.parallel.test_supervisor import free_port
from tests.soak import tiny

CLOCK = ("images_per_second", "data_wait")
QUICK = ("--lost_seconds=10", "--connect_seconds=60")
"""Options by which one of two processes does not wait for the other longer than a trial does."""


class Fork:
    """The run in a process of its own, which has imported all and started nothing."""

    def __init__(self, workdir, log, limit=0):
        """Begins to train; ``limit`` is of the size of any file, in bytes."""
        sys.stdout.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # JAX's: it has no threads yet
            self.pid = os.fork()
        if self.pid == 0:
            _train(workdir, log, limit)
        self.code = None

    def ended(self):
        """Whether it has ended by now."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None

    def signal(self, number):
        """Sends a signal; whether it still ran then."""
        if self.ended():
            return False
        os.kill(self.pid, number)
        return True


class Pair:
    """The run as two processes under their supervisors; signals go to one of them."""

    def __init__(self, workdir, log, chosen=0):
        """Begins to train; ``chosen`` is the process that signals go to."""
        port, self._chosen = free_port(), chosen
        command = [sys.executable, "-m", "jdet.main", f"--config={tiny.__file__}"]
        command += [f"--workdir={workdir}", f"--coordinator=127.0.0.1:{port}", "--num_processes=2"]
        environment = child_environment(JAX_PLATFORMS="cpu", JDET_ENVIRONMENT="off")
        self._log = log.open("a")
        self._processes = [
            subprocess.Popen(
                [*command, f"--process_id={index}", *QUICK],
                cwd=ROOT,
                env=environment,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            for index in range(2)
        ]
        self.code = None

    def ended(self):
        codes = [process.poll() for process in self._processes]
        if None not in codes:
            self.code = max(codes, key=abs)
            self._log.close()
        return self.code is not None

    def signal(self, number):
        """Sends a signal; whether the process still ran then."""
        with contextlib.suppress(ProcessLookupError):
            if self._processes[self._chosen].poll() is None:
                os.killpg(self._processes[self._chosen].pid, number)
                return True
        return False


def _train(workdir, log, limit):
    """The child: never returns."""
    code = 1
    try:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        if limit:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        config = tiny.get_config()
        split_cpu(config)
        code = run.train(config, workdir).exit_code
    except (ConfigError, DataError, checkpoint.CheckpointError) as error:
        print(f"error: {error}", flush=True)
        code = 2
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", flush=True)
    finally:
        os._exit(code)


def wait(program, seconds):
    """Waits for the end of a program; raises where it does not come."""
    deadline = time.monotonic() + seconds
    while not program.ended():
        if time.monotonic() > deadline:
            program.signal(9)
            raise TimeoutError(f"it has not ended after {seconds} seconds")
        time.sleep(0.01)
    return program.code


def steps_logged(workdir):
    """How many steps the log of a run has, as it is now."""
    with contextlib.suppress(OSError):
        return (workdir / "metrics.jsonl").read_bytes().count(b'"loss"')
    return 0


def outcome(workdir, where):
    """Writes what a finished run came to, in a process of its own: parent stays without threads.

    Args:
        workdir: of the run.
        where: file for its arrays; the log, without the clock, is written beside it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pid = os.fork()
    if pid:
        assert os.waitpid(pid, 0)[1] == 0, f"the result of {workdir} cannot be read"
        return
    try:
        path = Path(workdir) / checkpoint.FOLDER / str(tiny.STEPS)
        parts, about = checkpoint._load(path, {"model": None, "optimizer": None})
        arrays = {
            checkpoint.manifest.path_text(key): np.asarray(value)
            for key, value in checkpoint.jax.tree_util.tree_leaves_with_path(parts)
        }
        np.savez(where, allow_pickle=False, **arrays)
        lines = map(json.loads, (Path(workdir) / "metrics.jsonl").read_text().splitlines())
        lines = [{k: v for k, v in line.items() if k not in CLOCK} for line in lines]
        status = json.loads((Path(workdir) / "run.json").read_text())["status"]
        text = json.dumps([status, about["metrics"], lines])
        Path(where).with_suffix(".json").write_text(text)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        os._exit(1)
    os._exit(0)


def difference(where, expected):
    """How two outcomes differ, in words; "" where they are equal bit for bit."""
    with np.load(where) as ours, np.load(expected) as theirs:
        if sorted(ours) != sorted(theirs):
            return "other arrays"
        for name in ours:
            if ours[name].tobytes() != theirs[name].tobytes():
                return f"array {name}"
    ours, theirs = (json.loads(Path(x).with_suffix(".json").read_text()) for x in (where, expected))
    names = ("status", "metrics", "log")
    return next((name for name, a, b in zip(names, ours, theirs) if a != b), "")
