"""Where the time of a training step or of a detection goes, by module and kind of operation.

    python -m jdet.profile --config=experiments/retinanet_coco.py [--what=train|detect] [--steps=3]
        [--topology=v5e:2x2] [--peaks=197e12,819e9] [--depth=2] [--out=profile.json]

Runs some steps of the config on the devices here under JAX's profiler, on noise, and says of every part how
long it takes, what it computes and moves, and what bounds it. With --topology nothing is run: the step is
compiled for devices that need not be there, and times are those at their peaks.
"""

from __future__ import annotations

from absl import flags

from jdet import cli, cpu_allocator
from jdet import config as config_lib
from jdet.profile import output as output_lib
from jdet.profile import report as report_lib
from jdet.profile.profile import profile
from jdet.profile.programs import PROGRAMS


def main() -> None:
    """The command."""
    values = flags.FLAGS
    output = output_lib.prepare(values.out) if values.out else None
    report = profile(
        config_lib.of_phase(values.config, values.phase),
        values.what,
        steps=values.steps,
        topology=values.topology,
        given=values.peaks,
        depth=values.depth,
    )
    report_lib.print_report(report)
    if output:
        output.write(report)


def define_flags() -> None:
    """The flags beside ``--config``."""
    flags.DEFINE_enum("what", "train", list(PROGRAMS), "The step to profile.")
    flags.DEFINE_integer("steps", 3, "Steps to time, and as many to trace.", lower_bound=1)
    flags.DEFINE_string("topology", "", "Compile for these devices, such as v5e:2x2; run nothing.")
    flags.DEFINE_string(
        "peaks", "", "Operations and bytes a second of a device; else published or measured."
    )
    flags.DEFINE_integer("depth", 2, "Parts of a module's path that make a row.", lower_bound=1)
    flags.DEFINE_string("phase", "", "Phase of a config that has some; else its last.")
    flags.DEFINE_string("out", "", "FILE.json for programs; beside it the bars, FILE.png.")


if __name__ == "__main__":
    cpu_allocator.tune()
    define_flags()
    cli.start(main)
