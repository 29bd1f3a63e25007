"""Remedies of phases and of the command line."""

from absl import flags

from jdet import cli
from jdet import config as config_lib
from jdet.config import complete_phase, get_defaults, of_phase, split_phases
from jdet.types import ConfigError
from tests.remedies.rows import Elsewhere, row
from tests.test_experiments import ROOT
from tests.test_phases import config as phased

PHASED, CLI, PARTS = "jdet/config/phased.py", "jdet/cli.py", "jdet/build/detector_parts.py"


def phases(names=("low", "high"), groups=(), phase=None):
    config = phased(names=names, groups=groups)
    if phase is not None:
        of_phase(config, phase)
    split_phases(config)


def plain(phase):
    of_phase(get_defaults(), phase)


def common_key(value, groups=("low", "high")):
    """``value``: of a key on the command line, or one of those that the message gives."""
    config = phased(groups={name: {"train": {"steps": 4}} for name in groups})
    if value == "common":
        config_lib.check_common(config, "train.steps")
    for key in (f"phase.{name}.train.steps" for name in groups):
        complete_phase(config, key)
        config_lib.check_common(config, key)
    split_phases(config)


def missing_key(key):
    """A key that none of the phases has, for each names an augmentation without it."""
    config = phased(groups={name: {"augment": {"name": "none"}} for name in ("low", "high")})
    if key:
        config_lib.check_common(config, key)


def first_phase(name):
    config = phased(names=("low", name))
    config.phase = {"low": {"seed": 1}, name: {"seed": 2}}
    split_phases(config)


def command(given):
    """Reads a command line as the commands do; what it prints, and exits with, is an error."""
    said, kept = [], (flags.FLAGS, cli.print_error)
    flags.FLAGS, cli.print_error = flags.FlagValues(), said.append
    try:
        cli._parse(["program", f"--config={ROOT}/experiments/quickstart.py", given])
    except SystemExit:
        raise ConfigError(said[0]) from None
    finally:
        flags.FLAGS, cli.print_error = kept


ROWS = [
    row(PHASED, "there are {}", phases, {"phase": "hihg"}, {"phase": "high"}, {"phase": ""}),
    row(PHASED, "has no phases; leave it out", plain, {"phase": "high"}, {"phase": ""}),
    row(
        PHASED,
        "set config.parallel.cpu_devices, for all phases",
        lambda common, own: split_phases(
            phased(
                groups={"high": {"parallel": {"cpu_devices": own}}},
                parallel__cpu_devices=common,
            )
        ),
        {"common": 1, "own": 4},
        {"common": 4},
    ),
    row(
        PHASED,
        "take small letters, digits and _, such as 'pretrain'",
        first_phase,
        {"name": "Pre-train"},
        {"name": "pretrain"},
    ),
    row(
        PHASED,
        "twice; give each phase its own name",
        phases,
        {"names": ("low", "low")},
        {"names": ("low", "high")},
    ),
    row(
        PHASED,
        "give the phase a group of the keys that it sets",
        phases,
        {"names": ("low", "high", "more")},
        {"groups": {"more": {"seed": 3}}},
    ),
    row(
        PHASED,
        "add its name there, in its place, or remove the group",
        phases,
        {"groups": {"more": {"seed": 3}}},
        {"names": ("low", "high", "more")},
        {"groups": ()},
    ),
    row(PHASED, "set {}", common_key, {"value": "common"}, {"value": "own"}),
    row(
        PHASED,
        "none of them has this key: leave it out",
        missing_key,
        {"key": "augment.expand"},
        {"key": ""},
    ),
    row(
        PHASED,
        "is no group, but a value such as",
        phases,
        {"groups": {"high": {"seed": {"a": 1}}}},
        {"groups": {"high": {"seed": 2}}},
    ),
    row(
        CLI,
        "is not an option; options look like --key=value",
        command,
        {"given": "train.steps=3"},
        {"given": "--config.train.steps=3"},
    ),
    row(
        CLI,
        ", did you mean {}?",
        command,
        {"given": "--config.train.stesp=3"},
        {"given": "--config.train.steps=3"},
    ),
    row(
        CLI,
        "is called config.{} now",
        command,
        {"given": "--config.eval.pictures=8"},
        {"given": "--config.eval.images=8"},
    ),
    Elsewhere(
        CLI,
        "--{}={}… is missing",
        "tests/test_main.py::test_a_missing_flag_is_named",
        "--config=experiments/… is missing",
    ),
]
