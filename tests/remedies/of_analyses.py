"""Remedies of analyses of runs and gradients, and of studies."""

import contextlib
import re
from types import SimpleNamespace
from unittest import mock

import numpy as np

from experiments.studies import miniature, runs
from jdet.analysis import gradients, landscape, landscape_records, lr_range
from jdet.config import get_defaults
from tests.analysis.test_landscape import constant, write
from tests.remedies.rows import Elsewhere, Untyped, row, type_in
from tests.test_miniature import record as recorded

LR_RANGE = "jdet/analysis/lr_range.py"
GRADIENTS, LANDSCAPE = "jdet/analysis/gradients.py", "jdet/analysis/landscape.py"

RECORDS = "jdet/analysis/landscape_records.py"

STUDIES = "experiments/studies"


def checked(sizes=(8, 16), draws=8, group=8, norms="batch"):
    gradients._check(sizes, draws, group, norms)


def by_argparse(function, *arguments):
    """What a parser of options says before it ends the program."""
    said = []
    with mock.patch("argparse.ArgumentParser.error", lambda self, text: said.append(text)):
        with contextlib.suppress(NameError):  # an error ends the real program there
            function(list(arguments))
    return "\n".join(said)


def records_of(folder, **given):
    options = {
        "steps": 9,
        "labels": (),
        "out": "out",
        "smooth": "cubic",
        "align": False,
        "every": 1,
    }
    options |= given
    first = write(folder / "a", constant(options["steps"], 1.0, lambda k: k))
    second = write(folder / "b", constant(9, 1.0, lambda k: k, options["every"]))
    (folder / "file").write_text("mine")
    found, _ = landscape_records.on_one_grid(
        [landscape_records.read_run(x, x.name) for x in (first, second)], options["align"]
    )
    for one in found:
        landscape.smoothed_fluctuation(one, options["smooth"], 5)


def compared(folder, labels, out):
    """All but the figures, which come after what is refused."""
    run = write(folder / "a", constant(9, 1.0, lambda k: k))
    (folder / "file").write_text("mine")
    with mock.patch.object(landscape, "landscape_figures", mock.Mock()):
        with mock.patch.object(landscape, "_write", lambda *_: None):
            landscape.compare([run, run], folder / out, labels=labels)


def read_run(folder, name):
    write(folder / "a", constant(9, 1.0, lambda k: k))
    (folder / "plain").mkdir()
    landscape_records.read_run(folder / name, "a")


class Reached(Exception):
    """The next stage is reached."""


def studied(*arguments):
    said = []

    def error(self, text):
        said.append(text)
        raise Reached

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch("argparse.ArgumentParser.error", error))
        stack.enter_context(mock.patch("sys.argv", ["miniature", "dsod", *arguments]))
        stack.enter_context(mock.patch.object(miniature, "Runner", mock.Mock()))
        stack.enter_context(mock.patch.object(miniature.signal, "signal"))
        stack.enter_context(mock.patch.object(miniature, "other_length", side_effect=Reached))
        stack.enter_context(contextlib.suppress(Reached))
        miniature.main()
    return "\n".join(said)


def again(folder, steps, other=False):
    (one,) = runs.plan("dsod", folder, [0], only="dense")
    recorded(one, steps=40)
    if other:
        (one,) = runs.plan("dsod", folder / "other", [0], only="dense")
    return runs.other_length([one], "root", steps)


def suggested_rate(typed):
    """The key of the message gives the rate of the message."""
    said = suggested()
    if not typed:
        return said
    config = type_in(get_defaults(), re.search(r"--config\S+", said)[0])
    scale = config.train.batch_size / (config.optimizer.reference_batch or config.train.batch_size)
    assert abs(config.optimizer.lr * scale - 0.1) < 0.01
    return ""


def ranged(folder, out="new", low=1e-5, high=1.0):
    (folder / "run").mkdir()
    (folder / "run" / "config.json").write_text("{}")
    with mock.patch.object(lr_range.config_lib, "validate", side_effect=Reached):
        with contextlib.suppress(Reached):
            lr_range.analyse(get_defaults(), folder / out, low=low, high=high)


def suggested(diverged=True, rate=0.1, lr=1.0):
    """What is said of a test of rates up to ``lr``, and the remedy as a command line has it."""
    rates = np.geomspace(1e-3, lr, 9)
    found = SimpleNamespace(rates=rates, smoothed=np.ones(9), diverged=diverged)
    return lr_range.describe(get_defaults(), found, rate)


ROWS = [
    row(LR_RANGE, "--low, --high", ranged, {"low": 1.0, "high": 0.1}, {"low": 0.1, "high": 1.0}),
    row(
        LR_RANGE, "is the folder of a run; name another one", ranged, {"out": "run"}, {"out": "new"}
    ),
    row(LR_RANGE, "looks on", suggested, {"diverged": False}, {"diverged": True}),
    row(
        LR_RANGE,
        "begin lower (--low), or take more steps (--steps)",
        suggested,
        {"rate": None},
        {"rate": 0.1},
    ),
    row(
        LR_RANGE, "is a peak rate to begin with", suggested_rate, {"typed": False}, {"typed": True}
    ),
    Elsewhere(
        LR_RANGE,
        "try it with",
        "tests/analysis/test_lr_range.py::test_a_first_loss_that_is_not_finite_is_told",
    ),
    Elsewhere(
        LR_RANGE,
        "no --low helps",
        "tests/analysis/test_lr_range.py::test_a_first_loss_that_is_not_finite_is_told",
    ),
    Elsewhere(
        "jdet/analysis/default_boxes.py",
        "name data with boxes",
        "tests/analysis/test_default_boxes.py::test_analysis_is_printed_with_what_to_paste",
        "analyse(small_objects(tmp_path)",
    ),
    Elsewhere(
        "jdet/analysis/gradient_noise.py",
        "draws; take a multiple of",
        "tests/analysis/test_gradients.py::test_refusals",
        "--draws=10; take a multiple of 4",
    ),
    row(
        GRADIENTS, "give two sizes or more, from 1 on", checked, {"sizes": (8,)}, {"sizes": (8, 16)}
    ),
    row(GRADIENTS, "--draws={}; take a multiple of", checked, {"draws": 10}, {"draws": 8}),
    row(
        GRADIENTS,
        "give images that share statistics, or 0",
        checked,
        {"group": -1},
        {"group": 8},
    ),
    row(
        GRADIENTS,
        "take multiples of {} above it, another --group, or --norms=running",
        checked,
        {"sizes": (8, 12)},
        {"sizes": (8, 16)},
        {"group": 4},
        {"norms": "running"},
    ),
    Untyped(
        GRADIENTS,
        "take an earlier checkpoint with --step",
        "needs a run whose gradient ceases to be finite between two checkpoints",
    ),
    row(
        GRADIENTS,
        "give whole numbers, such as 1,2,4,8",
        lambda sizes: by_argparse(gradients.main, "run", "--out=o", f"--batches={sizes}"),
        {"sizes": "two"},
        {"sizes": "1,2,4,8"},
    ),
    row(
        LANDSCAPE,
        "Take --smooth=window, or record more often",
        records_of,
        {"steps": 4, "align": True},
        {"smooth": "window"},
        {"steps": 9},
    ),
    row(
        LANDSCAPE,
        "are not all different; give --labels=",
        compared,
        {"labels": (), "out": "new"},
        {"labels": ("a", "b")},
    ),
    row(
        LANDSCAPE,
        "is a file; name a folder for the results",
        compared,
        {"labels": ("a", "b"), "out": "file"},
        {"out": "new"},
    ),
    row(
        LANDSCAPE,
        "--window={} is no number of steps",
        lambda window: by_argparse(landscape.main, "run", "--out=o", f"--window={window}"),
        {"window": -1},
        {"window": 5},
    ),
    row(RECORDS, "name the workdir of a run", read_run, {"name": "nowhere"}, {"name": "a"}),
    row(
        RECORDS,
        "train with --config.landscape.every=1",
        read_run,
        {"name": "plain"},
        {"name": "a"},
    ),
    row(
        RECORDS,
        "Record all with the same config.landscape",
        records_of,
        {"every": 3},
        {"every": 1},
    ),
    row(
        RECORDS,
        "or give --align to leave the rest out",
        records_of,
        {"every": 2, "smooth": "window"},
        {"align": True},
    ),
    row(
        f"{STUDIES}/miniature.py",
        "it must be at least 1",
        lambda jobs: studied(f"--jobs={jobs}"),
        {"jobs": 0},
        {"jobs": 1},
    ),
    Elsewhere(
        f"{STUDIES}/miniature.py",
        "failed with code {}, see",
        "tests/test_miniature.py::test_a_failure_is_not_hidden_by_an_older_record",
        "failed with code",
    ),
    row(
        f"{STUDIES}/miniature.py",
        "--only={} finds none of",
        lambda only: studied(f"--only={only}"),
        {"only": "nothing"},
        {"only": "dense"},
    ),
    row(
        f"{STUDIES}/runs.py",
        "give the same --steps as then, or another folder with --runs",
        again,
        {"steps": 50},
        {"steps": 40},
        {"other": True},
    ),
]
