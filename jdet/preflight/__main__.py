"""Memory, communication and the fastest possible speed of a run, before a pod is paid for.

    python -m jdet.preflight --config=experiments/scratchdet_voc.py:norm=sync_batch --topology=v5e:16x16
        [--weak_scaling=v5e:2x2,v5e:4x4] [--search] [--out=FILE]

Compiles the training and the evaluation step of a config for devices that need not be there: any slice
of TPUs that libtpu describes, ``cpu:N``, or the GPUs of this machine. Nothing is run and no data is read.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from jdet import atomic_files, cli
from jdet import config as config_lib
from jdet.preflight import report as report_lib
from jdet.preflight.compile import PROGRAMS
from jdet.preflight.preflight import preflight
from jdet.types import ConfigError


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def main() -> None:
    """The command."""
    values = flags.FLAGS
    topologies = _names(values.topology)
    if not topologies:
        raise ConfigError("--topology names no topology; such as v5e:4x4, cpu:8 or gpu")
    out = Path(values.out) if values.out else None
    report = preflight(
        config_lib.of_phase(values.config, values.phase),
        topologies,
        weak_scaling=_names(values.weak_scaling),
        search=values.search,
        programs=_names(values.programs),
        jobs=values.jobs,
        save=lambda report: atomic_files.write_json(out, report) if out else None,
    )
    report_lib.print_report(report)


if __name__ == "__main__":
    flags.DEFINE_string(
        "topology", None, "What to compile for, comma-separated: v5e:4x4, cpu:8, gpu."
    )
    flags.DEFINE_string("phase", "", "Phase of a config that has some; else its last.")
    flags.DEFINE_string(
        "weak_scaling", "", "Topologies to train on with the first one's batch per device."
    )
    flags.DEFINE_bool("search", False, "Find the batch at which the training step stops fitting.")
    flags.DEFINE_string("programs", ",".join(PROGRAMS), "Which steps to compile.")
    flags.DEFINE_integer("jobs", 0, "Compilations at a time; 0: one per core.", lower_bound=0)
    flags.DEFINE_string("out", "", "JSON file that gets the report for programs.")
    flags.mark_flag_as_required("topology")
    cli.start(main)
