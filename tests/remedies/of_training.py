"""Remedies of config checks, lengths of a training, learning rates, batches and their devices."""

import functools

import jax
import numpy as np

from jdet import config as config_lib
from jdet.nn.remat import Remat
from jdet.parallel import mesh
from jdet.train import early_stop, optim, saturation, schedule
from jdet.train.checkpoints.select import check_metric, parse_step
from tests.remedies.rows import Elsewhere, Untyped, of_config, row
from tests.train import fake

CHECKS, SCHEDULE = "jdet/config/checks.py", "jdet/train/schedule.py"
SATURATION, MESH, REMAT = "jdet/train/saturation.py", "jdet/parallel/mesh.py", "jdet/nn/remat.py"
OPTIM, SELECT = "jdet/train/optim.py", "jdet/train/checkpoints/select.py"


def resolve(config):
    return schedule.resolve(config, 20)


def split(devices):
    return lambda config: mesh.split_batch(config, devices)


def remat(known):
    return lambda config: Remat(config.train.remat, config.train.remat_parts).check(known)


def metric(config):
    return check_metric(config.train.best_metric, ["voc07/mAP"])


def without(key=""):
    config = fake.config()
    if key:
        del config[key]
    return config_lib.validate(config)


def optimizer(config):
    array = jax.ShapeDtypeStruct((3, 3), np.float32)
    params = {"stem": {"kernel": array, "mixing": array}}
    optim.make_optimizer(config.optimizer, lambda step: 0.1, params)


settings = functools.partial(of_config, SCHEDULE)

ROWS = [
    of_config(
        CHECKS,
        "set that as well, to",
        config_lib.validate,
        {"landscape__probe_every": 20},
        {"landscape__every": 20},
        {"landscape__every": 5},
    ),
    of_config(
        CHECKS,
        "such as (0.5, 1.0, 2.0, 4.0)",
        config_lib.validate,
        {"landscape__probe_steps": (2, 1)},
        {"landscape__probe_steps": (0.5, 1.0, 2.0, 4.0)},
    ),
    of_config(
        CHECKS,
        "set that to 'range', or the range to ()",
        config_lib.validate,
        {"data__normalise__range": (0.0, 9.0)},
        {"data__normalise__by": "range"},
        {"data__normalise__range": ()},
    ),
    of_config(
        CHECKS,
        "such as (-1000.0, 400.0)",
        config_lib.validate,
        {"data__normalise__by": "range"},
        {"data__normalise__range": (-1000.0, 400.0)},
    ),
    row(CHECKS, "start from jdet.config.get_defaults()", without, {"key": "seed"}, {"key": ""}),
    of_config(
        "jdet/types.py",
        "did you mean",
        config_lib.validate,
        {"train__remat": "ful"},
        {"train__remat": "full"},
    ),
    settings(
        "set both, or train.length='fixed_iters'",
        resolve,
        {"train__length": "fixed_samples", "optimizer__reference_batch": 0},
        {"optimizer__reference_batch": 16},
        {"train__length": "fixed_iters"},
    ),
    settings(
        "shorten it or train longer",
        resolve,
        {"optimizer__warmup": 9},
        {"optimizer__warmup": 2},
        {"train__steps": 99},
    ),
    settings(
        "set optimizer.warmup or optimizer.warmup_epochs",
        resolve,
        {"optimizer__warmup_lr": 0.001},
        {"optimizer__warmup": 1},
        {"optimizer__warmup_epochs": 0.5},
    ),
    settings(
        "; leave it at {}",
        resolve,
        {"optimizer__schedule": "cosine", "optimizer__factors": (0.5,)},
        {"optimizer__factors": ()},
    ),
    settings(
        "at the end of the run, such as 0.01",
        resolve,
        {"optimizer__schedule": "exponential", "optimizer__end_factor": 0.0},
        {"optimizer__end_factor": 0.01},
    ),
    settings(
        "lets the rate fall from step 0; set one of them",
        resolve,
        {"optimizer__schedule": "cosine", "optimizer__hold": 2, "optimizer__from_start": True},
        {"optimizer__hold": 0},
        {"optimizer__from_start": False},
    ),
    settings(
        "for the rate to fall; shorten it or train longer",
        resolve,
        {"optimizer__schedule": "cosine", "optimizer__hold": 9},
        {"optimizer__hold": 2},
        {"train__steps": 99},
    ),
    settings(
        "train longer",
        resolve,
        {"optimizer__schedule": "normal", "train__steps": 99, "optimizer__warmup": 80},
        {"train__steps": 999},
    ),
    settings(
        "such as (0.5, 0.8)",
        resolve,
        {"optimizer__boundaries": ("a",)},
        {"optimizer__boundaries": (0.5, 0.8)},
    ),
    row(
        SCHEDULE,
        "the training set holds no images; check data.train",
        lambda images: schedule.resolve(fake.config(), images),
        {"images": 0},
        {"images": 20},
    ),
    settings(
        "set one of them, leave the other 0",
        resolve,
        {"train__steps": 3, "train__epochs": 3.0},
        {"train__steps": 0},
        {"train__epochs": 0.0},
    ),
    of_config(
        SATURATION,
        "is for train.{}.patience above 0",
        saturation.from_config,
        {"train__saturation__minimum": 2},
        {"train__saturation__patience": 2, "train__eval_every": 2},
    ),
    of_config(
        "jdet/train/early_stop.py",
        "one of them decides when a run ends; set the other to 0",
        early_stop.policy_of,
        {
            "train__eval_every": 2,
            "train__saturation__patience": 2,
            "train__early_stop__patience": 3,
        },
        {"train__saturation__patience": 0},
        {"train__early_stop__patience": 0, "train__saturation__reductions": 0},
    ),
    of_config(
        CHECKS,
        "set the overlap to {} or less, or the side to {} or more",
        config_lib.validate,
        {"eval__tile__side": 100, "eval__tile__overlap": 60},
        {"eval__tile__overlap": 50},
        {"eval__tile__side": 120},
    ),
    of_config(
        CHECKS,
        "tiles are shown at one size; set one of them to 0 or 'none'",
        config_lib.validate,
        {"eval__tile__side": 100, "eval__tile__overlap": 10, "eval__tta__preset": "flip"},
        {"eval__tile__side": 0},
        {"eval__tta__preset": "none"},
    ),
    of_config(
        SATURATION,
        "set it to some steps",
        saturation.from_config,
        {"train__saturation__patience": 2, "train__eval_every": 0},
        {"train__eval_every": 2},
    ),
    of_config(
        SATURATION,
        "must be above 0 and below 1",
        saturation.from_config,
        {
            "train__saturation__patience": 2,
            "train__eval_every": 2,
            "train__saturation__factor": 1.0,
        },
        {"train__saturation__factor": 0.5},
    ),
    of_config(
        MESH,
        "take a multiple of",
        split(4),
        {"train__batch_size": 6},
        {"train__batch_size": 8},
    ),
    of_config(
        MESH,
        "train.accumulation={}{}; {}",
        split(4),
        {"train__batch_size": 6},
        {"train__batch_size": 8},
    ),
    of_config(
        MESH,
        "a smaller train.accumulation",
        split(1),
        {"train__accumulation": 16},
        {"train__accumulation": 2},
        {"train__batch_size": 32},
    ),
    row(
        MESH,
        "fewer devices (parallel.devices)",
        lambda devices: mesh.split_batch(fake.config(train__batch_size=2), devices),
        {"devices": 4},
        {"devices": 2},
    ),
    of_config(
        MESH,
        "use 0 for all of them",
        mesh.pick_devices,
        {"parallel__devices": 9},
        {"parallel__devices": 0},
    ),
    Elsewhere(
        MESH,
        "or use the CPU as {} with parallel.cpu_devices=",
        "tests/parallel/test_mesh.py::test_split_cpu",
        "c.parallel.cpu_devices = 8; mesh_lib.split_cpu(c)",
    ),
    Untyped(
        MESH,
        "set the environment variable JAX_NUM_CPU_DEVICES",
        "JAX reads the variable as its process starts",
    ),
    of_config(
        REMAT,
        "does not exist; there are",
        lambda config: Remat(config.train.remat),
        {"train__remat": "ful"},
        {"train__remat": "full"},
    ),
    of_config(
        REMAT,
        "train.remat_parts names",
        remat(["c2"]),
        {"train__remat": "full", "train__remat_parts": ("c9",)},
        {"train__remat_parts": ("c2",)},
    ),
    of_config(
        REMAT,
        "set train.remat to one of",
        remat(["c2"]),
        {"train__remat_parts": ("c2",)},
        {"train__remat": "full"},
        {"train__remat": "convs"},
    ),
    of_config(
        REMAT,
        "take train.remat=none",
        remat([]),
        {"train__remat": "full"},
        {"train__remat": "none"},
    ),
    of_config(
        OPTIM,
        "let some parameters have another factor",
        optimizer,
        {"optimizer__rules": ((".*", 0.0, 1.0),)},
        {"optimizer__rules": ((".*", 0.1, 1.0),)},
    ),
    of_config(
        OPTIM,
        "such as 1e-8",
        optimizer,
        {"optimizer__name": "adamw", "optimizer__epsilon": 0.0, "optimizer__decay_mask": "all"},
        {"optimizer__epsilon": 1e-8},
    ),
    of_config(
        OPTIM,
        "add one to optimizer.rules, such as",
        optimizer,
        {"optimizer__decay_mask": "caffe"},
        {"optimizer__rules": (("stem/mixing", 1.0, 1.0),)},
    ),
    of_config(
        SELECT,
        "is no metric of the evaluation",
        metric,
        {"train__best_metric": "voc/mAP"},
        {"train__best_metric": "voc07/mAP"},
        {"train__best_metric": ""},
    ),
    row(
        SELECT,
        "give a number, 'best' or 'latest'",
        lambda step: parse_step(step) and None,
        {"step": "last"},
        {"step": "3"},
        {"step": "best"},
        {"step": "latest"},
    ),
    of_config(
        "jdet/parallel/mesh.py",
        "train.batch_size={} does not divide by",
        split(3),
        {"train__batch_size": 8},
        {"train__batch_size": 9},
    ),
    Elsewhere(
        "jdet/train/loop.py",
        "give `evaluate`, or leave out `policy`, train.saturation.patience and",
        "tests/train/test_policy.py::test_nonsense_is_refused",
        "decides from evaluations, but there are none",
    ),
    Elsewhere(
        "jdet/train/budget.py",
        "minutes or more",
        "tests/train/test_budget.py::test_too_little_time_is_refused_and_what_is_asked_for_is_enough",
        "give 1.4 minutes or more",
    ),
    Elsewhere(
        "jdet/train/budget.py",
        "Set train.steps=1000",
        "tests/train/test_budget.py::test_a_length_that_is_said_otherwise_is_refused",
    ),
]
