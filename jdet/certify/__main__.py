"""The birth certificate of a run: digests of every image, label, setting, file of code and checkpoint.

    python -m jdet.certify RUN [--licence=FOLDER=TEXT …] [--out=FILE] [--card=FILE] [--force]
        [--phase=NAME]

Writes ``certificate.json`` into the run's folder, the leaves of its Merkle trees beside it, and a model
card in Markdown. ``python -m jdet.verify`` checks it. Nothing is replaced without ``--force``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jdet import cli
from jdet.atomic_files import write_text
from jdet.certify import card, certificate, licences
from jdet.train.folders import CERTIFICATE, run_folder
from jdet.types import ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code, 2 for a user's mistake."""
    parser = argparse.ArgumentParser(prog="python -m jdet.certify", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("run", help="folder of the run")
    parser.add_argument(
        *("--licence", "--license"),
        action="append",
        default=[],
        metavar="FOLDER=TEXT",
        help="licence of the images in a folder; else that of a LICENSE file there",
    )
    parser.add_argument("--out", default="", help="certificate; else certificate.json in the run")
    parser.add_argument("--card", default="", help="model card; else beside the certificate, .md")
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    parser.add_argument("--phase", default="", help="of a run with phases; else the last finished")
    args = parser.parse_args(argv)

    def work() -> None:
        stated = licences.parse(args.licence)
        folder = run_folder(args.run, args.phase)
        out = Path(args.out).expanduser() if args.out else folder / CERTIFICATE
        beside = Path(args.card).expanduser() if args.card else out.with_suffix(".md")
        for path in (out, certificate.leaves_file(out), beside):  # before minutes of reading
            if path.exists() and not args.force:
                raise ConfigError(
                    f"{path} exists; name other files with --out=FILE and --card=FILE, or replace it with "
                    "--force"
                )
        made, data = certificate.certify(args.run, phase=args.phase, licences=stated)
        certificate.write(made, data, out)
        try:
            write_text(beside, card.render(made, str(out)))
        except OSError as error:
            raise ConfigError(
                f"{beside} cannot be written ({error.strerror}); name another with --card=FILE"
            ) from error
        for line in summary(made):
            print(line)
        print(f"{out} and {beside} are written")

    return cli.run(work)


def summary(made: dict) -> list[str]:
    """What a certificate is about and what it lacks, in lines."""
    lines = [f"certificate {made['id']}"]
    for role, each in made["data"].items():
        lines.append(
            f"{role}: {each['images']} images, {each['objects']} objects, root {each['root']}"
        )
    lines.append(f"checkpoints of steps {', '.join(made['checkpoints'])}")
    for each in made["licences"]:
        if each["licence"] is None:
            lines.append(
                f"no licence is known of {each['folder']}; state it with "
                f"--licence={each['folder']}=TEXT"
            )
    lines += certificate.doubts(made)
    return lines


if __name__ == "__main__":
    sys.exit(main())
