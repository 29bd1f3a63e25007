"""Examines a data set before a step is paid for.

    python -m jdet.doctor PATH [--out=DIR]
    python -m jdet.doctor --config=experiments/x.py [--out=DIR] [--strict]
    python -m jdet.doctor --run=WORKDIR [--out=DIR]

PATH is a folder of labelled images, all splits of which are examined. With ``--config`` it is the data of
that config, and limits and anchors of its detector count too; with ``--run`` the data of a run, whose
confident detections are held against the labels. Every finding has a severity, its consequence and a
remedy; ``--out`` gets ``doctor.json`` and ``doctor.html``, one file with thumbnails.

Exit codes: 0 where nothing is wrong, 1 with ``--strict`` where there are warnings, 2 after a user's
mistake, 3 where there are errors.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags, logging
from ml_collections import ConfigDict

from jdet import atomic_files, cli
from jdet import config as config_lib
from jdet.analyse.evaluated import evaluated_config, report_of
from jdet.doctor import examine as examine_lib
from jdet.doctor import page, report, splits
from jdet.evaluation.display import Display
from jdet.train.workdir import open_run
from jdet.types import ConfigError, ImageKind

WARNED, FAULTY = 1, 3
"""Exit codes beside 0 and that of a mistake, 2."""


def main() -> int:
    """The command; returns the exit code."""
    values = flags.FLAGS
    given = [name for name in ("path", "config") if values[name].value]
    if len(given) > 1:
        raise ConfigError(f"{values.path} and --config name two data sets; give one of them")
    run, config = None, values.config
    if values.run:
        opened = open_run(values.run, values.phase)
        run, config = opened.path, config or evaluated_config(opened.config, report_of(opened))
        given = given or ["run"]
    if not given:
        raise ConfigError(
            "name a folder of labelled images, --config=experiments/… or --run=WORKDIR"
        )
    if given[0] == "path":
        name = str(Path(values.path).absolute())
        config, examined = splits.of_folder(values.path)
    else:
        name = values.run or config_name(config)
        if given[0] == "config":
            config_lib.validate(config)
            config = config_lib.of_phase(config, values.phase)
        config_lib.validate(config)
        config, examined = splits.of_config(config)
    out = Path(values.out).expanduser() if values.out else None
    if out is not None:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"--out={out} cannot be made ({error.strerror}); name a folder"
            ) from error
        for split in examined:  # refuses bands that are not there before images are read
            Display.of(config, ImageKind.of(split.source))
    found = examine_lib.examine(
        name,
        config,
        examined,
        network=given[0] != "path",
        run=run,
        processes=values.processes,
        notify=logging.info,
    )
    report.print_examination(found)
    if out is not None:
        atomic_files.write_json(out / "doctor.json", examine_lib.as_json(found))
        atomic_files.write_text(out / "doctor.html", page.render(found))
        print(f"\n{out / 'doctor.html'} has examples")
    if found.count("error"):
        return FAULTY
    return WARNED if values.strict and found.count("warning") else 0


def config_name(config: ConfigDict) -> str:
    """What the data of a config are called: their folder, or the kind of their source."""
    train = config.data.train
    return str(train.get("root") or train.get("annotation_file") or train.name)


if __name__ == "__main__":
    flags.DEFINE_string("path", "", "Folder of labelled images, instead of --config.")
    flags.DEFINE_string("run", "", "Run whose confident detections are held against the labels.")
    flags.DEFINE_string("phase", "", "Phase of a config or run that has some; else its last.")
    flags.DEFINE_string("out", "", "Folder that gets doctor.json and doctor.html.")
    flags.DEFINE_bool("strict", False, "Exit with 1 where there are warnings.")
    flags.DEFINE_integer(
        "processes", 0, "That read images; 0: one per core, where it takes long.", 0
    )
    cli.start(main, operand="path")
