"""Trains or evaluates an experiment.

    python -m jdet.main --config=experiments/quickstart.py --workdir=runs/quickstart
    python -m jdet.main --config=… --workdir=… --mode=evaluate [--step=best]

Starting again in the same workdir resumes exactly where the run stopped.
"""

from __future__ import annotations

import sys

from absl import app, flags, logging
from ml_collections import config_flags

from jdet import environment
from jdet.types import ConfigError, DataError

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the command line."""
    config_flags.DEFINE_config_file(
        "config", help_string="Experiment: file.py, or file.py:key=value,… with its arguments."
    )
    flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    flags.DEFINE_enum("mode", "train", ["train", "evaluate"], "What to do.")
    flags.DEFINE_string("step", "", "Checkpoint to evaluate: a step, or 'best'; default: newest.")
    flags.DEFINE_bool("overwrite", False, "Discard the run that the workdir holds.")
    flags.mark_flag_as_required("config")


def main(_: list[str]) -> int:
    """Runs the command; what the user can mend ends in one clear line instead of a stack trace."""
    from jdet import run
    from jdet.train.checkpoint import CheckpointError

    logging.set_verbosity(logging.INFO)
    try:
        if FLAGS.mode == "evaluate":
            step = int(FLAGS.step) if FLAGS.step.isdigit() else FLAGS.step or None
            run.evaluate(FLAGS.workdir, step=step, config=FLAGS.config)
            return 0
        return run.train(FLAGS.config, FLAGS.workdir, overwrite=FLAGS.overwrite).exit_code
    except (ConfigError, DataError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    environment.tune()
    define_flags()
    app.run(main)
