"""Draws what the network of a config is really fed, as contact sheets, before a step is paid for.

    python -m jdet.browse --config=experiments/x.py [--out=browse] [--images=16] [--draws=5] [--only=a,b]

writes into ``--out``: ``train_batches`` (the first images of the training stream, as the run's first steps
take them), ``train_draws`` (some images, several draws of each in a row, so that the randomness is seen)
and ``eval_batches`` (the first images of the evaluation stream). Everything comes out of the run's own
input pipeline: augmented, resized, padded, boxes and masks moved along. Nothing is compiled.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from jdet import cli
from jdet import config as config_lib
from jdet.browse.browse import browse


def main() -> None:
    """The command."""
    values = flags.FLAGS
    config_lib.validate(values.config)
    config = config_lib.of_phase(values.config, values.phase)
    config_lib.validate(config)
    only = [name.strip() for name in values.only.split(",") if name.strip()]
    lines = browse(
        config,
        Path(values.out),
        images=values.images,
        draws=values.draws,
        only=only,
        side=values.side,
        suffix=values.format,
    )
    for line in lines:
        print(line)


if __name__ == "__main__":
    flags.DEFINE_string("out", "browse", "Folder that gets the sheets.")
    flags.DEFINE_integer("images", 16, "Images of each stream.", 1, 400)
    flags.DEFINE_integer("draws", 5, "Draws of each image of train_draws; 0: no such sheet.", 0, 50)
    flags.DEFINE_string("only", "", "Names of the images of train_draws; else some, evenly.")
    flags.DEFINE_integer("side", 320, "Longer side of each image on the sheets, pixels.", 64, 2048)
    flags.DEFINE_enum("format", "jpg", ["jpg", "png"], "Of the sheets.")
    flags.DEFINE_string("phase", "", "Phase of a config that has some; else its last.")
    cli.start(main)
