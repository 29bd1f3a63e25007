"""Trains or evaluates an experiment.

    python -m jdet.main --config=experiments/quickstart.py --workdir=runs/quickstart
    python -m jdet.main --config=… --workdir=… --mode=evaluate [--step=best]

Starting again in the same workdir resumes exactly where the run stopped.
"""

from __future__ import annotations

from absl import flags

from jdet import command, environment

FLAGS = flags.FLAGS


def define_flags() -> None:
    """The flags beside ``--config``."""
    flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    flags.DEFINE_enum("mode", "train", ["train", "evaluate"], "What to do.")
    flags.DEFINE_string("step", "latest", "Checkpoint to evaluate: a step, 'best' or 'latest'.")
    flags.DEFINE_bool("overwrite", False, "Discard the run that the workdir holds.")


def main() -> int:
    """Runs what the flags ask for; returns the exit code."""
    from jdet import run  # after the flags, so that --help needs no JAX

    if FLAGS.mode == "evaluate":
        run.evaluate(FLAGS.workdir, step=FLAGS.step, config=FLAGS.config)
        return 0
    return run.train(FLAGS.config, FLAGS.workdir, overwrite=FLAGS.overwrite).exit_code


if __name__ == "__main__":
    environment.tune()
    define_flags()
    command.start(main)
