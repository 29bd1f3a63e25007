"""Remedies of weights to start from, frozen ones, calibration and statistics of norms."""

import ast
import re
from types import SimpleNamespace
from unittest import mock

import jax.numpy as jnp
import numpy as np

from jdet.evaluation import weights
from jdet.train.diagnostics import sample_stats
from jdet.train.init import from_scratch, init_from, layer_gradients
from jdet.types import ClassLayer, HeadLayout
from tests.remedies.rows import Elsewhere, of_config, row
from tests.train import fake

CLAIM, FOLDERS, INIT = (
    "jdet/train/claim.py",
    "jdet/train/folders.py",
    "jdet/train/init/init_from.py",
)

CALIBRATE, CLUSTER = "jdet/train/init/calibrate.py", "jdet/parallel/cluster.py"

START = "tests/train/init/test_init_from.py"

LAYOUT = HeadLayout((ClassLayer("head/cls/.*", background=1),), "head/loc/.*", {})


def parameters(classes, width):
    def layer(inputs, outputs):
        return {"kernel": np.zeros((3, 3, inputs, outputs), np.float32)}

    return {
        "backbone": {"conv": layer(3, 8)},
        "neck": {"conv": layer(8, width)},
        "head": {"cls": layer(width, len(classes) + 1), "loc": layer(width, 4)},
    }


def begin(classes=("a", "b"), source=("a", "b"), width=4, layout=LAYOUT, **given):
    """Starting from a run whose neck has four channels, without anything on disk."""
    there = fake.config(class_names=source)
    arrays = init_from._flat(parameters(source, 4))
    stored = init_from.Stored("runs/other", 3, False, there, arrays)
    config = fake.config(class_names=classes, init_from__path="runs/other")
    config.init_from.update(given)
    detector = SimpleNamespace(head_layout=lambda: layout)
    with mock.patch.object(init_from, "_read", lambda *_: stored):
        init_from.prepare(config, "runs/new", detector, parameters(classes, width), {})


def as_said(first, **typed):
    """The pattern of the message."""
    try:
        begin(**first)
    except ValueError as error:
        if not typed:
            raise
        pattern = re.search(r"init_from.exclude=(\(.*\))", str(error))[1]
    begin(**first, exclude=ast.literal_eval(pattern))


def part_of_another(parts):
    begin(width=8, parts=parts, strict=False)


def frozen(rules=((".*", 0.0, 1.0),), allow="refuse"):
    config = fake.config(optimizer__rules=rules, init_from__random_frozen=allow)
    params = {"backbone": {"conv": {"kernel": jnp.zeros((3, 3, 3, 4))}}}
    from_scratch.check(config, params, {}, None)


def signal(reference):
    config = fake.config(calibration__reference_signal=reference)
    with mock.patch.object(layer_gradients, "make_gradient"):
        layer_gradients.make_statistic(fake.FakeDetector(), None, config)


def counted(config):
    if config.train.sample_stats:
        sample_stats.summarise({})


def measured_norms(config):
    config.model = {"norm": "group", "head_norm": "none"}
    weights.make_weights(config, None, None, None) if config.eval.precise_bn else None


ROWS = [
    row(
        INIT,
        "leave the patterns at their defaults",
        begin,
        {"parts": ("neck",), "include": ("backbone/.*",)},
        {"include": (".*",)},
    ),
    row(
        INIT,
        "leave nothing to load; leave init_from.path empty",
        begin,
        {"exclude": (".*",)},
        {"exclude": ()},
    ),
    row(
        INIT,
        "and set init_from.class_map='none'",
        begin,
        {"layout": None, "classes": ("c", "b")},
        {"class_map": "none", "exclude": ("head/cls/.*",)},
    ),
    row(
        INIT,
        "leave the class layers as initialised with",
        as_said,
        {"first": {"classes": ("c", "d")}},
        {"typed": True},
    ),
    row(
        INIT,
        "Name them in init_from.exclude, or leave all such as initialised with",
        begin,
        {"width": 8},
        {"strict": False},
        {"exclude": ("neck/.*", "head/.*")},
    ),
    row(
        INIT,
        "Leave the name out to keep it as initialised",
        part_of_another,
        {"parts": ("backbone", "neck")},
        {"parts": ("backbone",)},
    ),
    Elsewhere(
        INIT,
        "give the workdir of a run, which holds",
        "tests/train/init/test_init_run.py::test_what_does_not_fit_leaves_no_trace",
        "give the workdir of a run",
    ),
    Elsewhere(
        INIT,
        "but init_from.step={}; set one of them",
        f"{START}::test_which_checkpoint",
        "but init_from.step=",
    ),
    Elsewhere(
        INIT,
        "take another --workdir",
        "tests/train/init/test_init_run.py::test_the_source_is_never_discarded",
        "is the workdir of this very run",
    ),
    Elsewhere(
        INIT,
        "or name the box layers in init_from.exclude",
        f"{START}::test_other_default_boxes_are_warned_of_where_box_layers_are_loaded",
        "head/loc.*",
    ),
    Elsewhere(
        CALIBRATE,
        "take another, or --config.calibration.iterations=0",
        "tests/remedies/test_of_data.py::test_layers_to_calibrate",
    ),
    Elsewhere(
        CALIBRATE,
        "take another config.seed or a larger config.train.batch_size",
        "tests/train/init/test_calibrate.py::test_what_cannot_be_is_refused",
        "take another config.seed",
    ),
    row(
        INIT,
        "is it a run of another model?",
        begin,
        {"width": 8, "include": ("neck/.*",)},
        {"width": 4},
    ),
    Elsewhere(
        CALIBRATE,
        "set --config.calibration.iterations=0 and see where",
        "tests/train/init/test_calibrate.py::test_run_begins_with_it_and_goes_on_exactly",
        "calibration__iterations=1",
    ),
    Elsewhere(
        CALIBRATE,
        "config.calibration.iterations=0 leaves them so",
        "tests/remedies/test_of_data.py::test_layers_to_calibrate",
        "--config.calibration.iterations=0",
    ),
    Elsewhere(
        CALIBRATE,
        "config.calibration.scope=scale_invariant does",
        "tests/train/init/test_calibrate.py::test_normalised_layers_need_half_the_spread_and_compute_the_same",
        "scale_invariant",
    ),
    row(
        "jdet/train/init/from_scratch.py",
        "let them train, or keep them so with",
        frozen,
        {},
        {"rules": ()},
        {"allow": "allow"},
    ),
    row(
        "jdet/train/init/layer_gradients.py",
        "take 'loss'",
        signal,
        {"reference": "gaussian"},
        {"reference": "loss"},
    ),
    of_config(
        "jdet/train/diagnostics/sample_stats.py",
        "but this detector counts no samples; set it to False",
        counted,
        {"train__sample_stats": True},
        {"train__sample_stats": False},
    ),
    of_config(
        "jdet/evaluation/weights.py",
        "measures the statistics of batch norms; {}: set it",
        measured_norms,
        {"eval__precise_bn": 3},
        {"eval__precise_bn": 0},
    ),
    Elsewhere(
        "jdet/train/precise_bn.py",
        "has none; set it to 0",
        "tests/train/test_precise_bn.py::test_what_cannot_be_measured",
        "has none; set it to 0",
    ),
    Elsewhere(
        "jdet/train/step_memory.py",
        "image(s) on each would, --config.train.batch_size=",
        "tests/train/test_step_memory.py::test_it_is_told_with_a_batch_that_fits",
        "--config.train.batch_size=8",
    ),
    Elsewhere(
        "jdet/train/step_memory.py",
        "--config.train.accumulation and --config.train.remat need less",
        "tests/train/test_step_memory.py::test_it_is_told_with_a_batch_that_fits",
        "not even one image would",
    ),
]
