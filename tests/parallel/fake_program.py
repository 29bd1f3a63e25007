"""``python -m jdet.main`` for tests of several processes: the flags and agents are real, the model is fake.

A child that finds ``KILL_AT`` (process:batch) in its environment dies there, once a checkpoint of step 4
is on disk; with ``STOP_AT`` it gets SIGTERM. Both happen in runs that start from the beginning only.
"""

import os
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from jdet import cli, main  # noqa: E402


def train(config, workdir, *, overwrite=False):
    import jax

    from jdet.train import loop
    from tests.train import fake

    index, count = jax.process_index(), jax.process_count()
    share = 8 // count

    def rows(start):
        for k, batch in enumerate(fake.stream(start), start):
            if start == 0 and os.environ.get("STOP_AT") == f"{index}:{k}":
                os.kill(os.getppid(), signal.SIGTERM)  # the agent
            if start == 0 and "STOP_AT" in os.environ and k >= 4:
                time.sleep(1.0)  # it takes a while until all know
            if start == 0 and os.environ.get("KILL_AT") == f"{index}:{k}":
                while not (Path(workdir) / "checkpoints" / "4").exists():
                    time.sleep(0.05)
                os.kill(os.getpid(), signal.SIGKILL)
            yield jax.tree.map(lambda x: x[index * share : (index + 1) * share], batch)

    steps = dict(train__steps=16, train__save_every=2, train__keep=9, train__log_every=1)
    return loop.train(
        fake.config(parallel__devices=0, **steps),
        workdir,
        detector=fake.FakeDetector("sync"),
        train_stream=rows,
        num_examples=20,
        overwrite=overwrite,
    )


real_work = main._work


def work():
    from jdet import run

    run.train = train
    return real_work()


if __name__ == "__main__":
    if sys.argv[1:3] == ["-m", "jdet.main"]:  # called in place of Python itself
        del sys.argv[1:3]
    main._work = work
    main.define_flags()
    cli.start(main.main)
