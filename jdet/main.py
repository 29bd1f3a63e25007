"""Trains or evaluates an experiment, alone or as one process of several.

    python -m jdet.main --config=experiments/quickstart.py --workdir=runs/quickstart
    python -m jdet.main --config=… --workdir=… --mode=evaluate [--step=best]
    python -m jdet.main --config=… --workdir=… --hosts=auto    # on every host of a pod; docs/pods.md

Starting again in the same workdir resumes exactly where the run stopped.
"""

from __future__ import annotations

import re
import signal
import sys

from absl import flags

from jdet import cli, cpu_allocator
from jdet.parallel import cluster, supervisor, worker
from jdet.train import program_cache
from jdet.types import ConfigError

FLAGS = flags.FLAGS


def define_flags() -> None:
    """The flags beside ``--config``."""
    flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    flags.DEFINE_enum("mode", "train", ["train", "evaluate"], "What to do.")
    flags.DEFINE_string("step", "latest", "Checkpoint to evaluate: a step, 'best' or 'latest'.")
    flags.DEFINE_string(
        "phase", "", "Phase to evaluate of a run that has some; else the last that is finished."
    )
    flags.DEFINE_bool("overwrite", False, "Discard the run that the workdir holds.")
    flags.DEFINE_integer(
        "stopped_exit_code",
        0,
        "Exit code after SIGTERM or SIGHUP, for schedulers to start the run again.",
    )
    define_host_flags()


def define_host_flags() -> None:
    """The flags that make this one process of several."""
    flags.DEFINE_string(
        "hosts", "", "'auto': as the cluster's environment says; or all hosts: a,b,c or @FILE."
    )
    flags.DEFINE_string("coordinator", "", "HOST:PORT where process 0 listens for the others.")
    flags.DEFINE_integer("num_processes", None, "Processes of the run.", lower_bound=1)
    flags.DEFINE_integer("process_id", None, "Which of them this is.", lower_bound=0)
    flags.DEFINE_float("connect_seconds", 300.0, "Time for all processes to meet.", lower_bound=1.0)
    flags.DEFINE_float(
        "lost_seconds", 30.0, "Silence after which a process is taken for lost.", lower_bound=5.0
    )


def main() -> int:
    """Runs what the flags ask for; returns the exit code.

    Raises:
        ConfigError: a checkpoint is named for a training run.
    """
    if FLAGS.mode != "evaluate" and FLAGS.step != "latest":
        raise ConfigError(
            f"--step={FLAGS.step} names a checkpoint to evaluate; add --mode=evaluate, or leave it out: "
            "training goes on from the latest"
        )
    if FLAGS.mode != "evaluate" and FLAGS.phase:
        raise ConfigError(
            f"--phase={FLAGS.phase} names a phase to evaluate; add --mode=evaluate, or leave it out: all "
            "phases are trained, one after the other"
        )
    here = None
    if not worker.is_assigned():
        here = cluster.find(FLAGS.hosts, FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
    if here is not None:
        program_cache.leave()
        return supervisor.supervise(
            here,
            FLAGS.workdir,
            connect_seconds=FLAGS.connect_seconds,
            timeout_seconds=FLAGS.lost_seconds,
        )
    with worker.joined() as session:
        return session.returns(_work())


def _work() -> int:
    from jdet import run  # after the flags, so that --help needs no JAX

    if FLAGS.mode == "evaluate":
        run.evaluate(FLAGS.workdir, step=FLAGS.step, config=FLAGS.config, phase=FLAGS.phase)
        return 0
    try:
        result = run.train(FLAGS.config, FLAGS.workdir, overwrite=FLAGS.overwrite)
    except KeyboardInterrupt as error:
        error.add_note("; the same command goes on from the last checkpoint, if there is one")
        raise
    if result.status == "interrupted":
        return result.exit_code or FLAGS.stopped_exit_code
    return result.exit_code


def sigterm_code() -> int:
    """Exit code after a SIGTERM that came before the steps, perhaps before the flags were parsed."""
    given = " ".join(sys.argv)
    if re.search(r"-mode[= ]evaluate", given):
        return 128 + signal.SIGTERM
    codes = re.findall(r"-stopped_exit_code[= ](\d+)", given)
    return int(codes[-1]) if codes else 0


if __name__ == "__main__":
    cpu_allocator.tune()
    define_flags()
    cli.start(main, sigterm_code)
