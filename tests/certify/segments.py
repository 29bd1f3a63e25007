"""Every step of a run is a segment, and each is trained again: python -m tests.certify.segments."""

import sys
import tempfile
from pathlib import Path

from jdet import run
from jdet.certify import __main__ as certify_command
from jdet.verify import __main__ as verify_command
from tests.certify import tiny_run

STEPS = 20


def main():
    with tempfile.TemporaryDirectory() as folder:
        config = tiny_run.config(tiny_run.make_data(Path(folder) / "data"))
        config.train.steps = config.train.keep = STEPS
        config.train.save_every = 1
        run.train(config, Path(folder) / "run")
        assert certify_command.main([f"{folder}/run"]) == 0
        certificate = f"{folder}/run/certificate.json"
        return verify_command.main([certificate, f"--segments={STEPS}", "--from_start"])


if __name__ == "__main__":
    sys.exit(main())
