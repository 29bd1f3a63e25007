"""Writes a folder of labelled images, of whatever layout, as COCO's annotation files.

    python -m jdet.convert FOLDER --out=FILE.json
    python -m jdet.convert FOLDER --out=FOLDER/annotations

One file for each split; images stay where they are. Nothing is overwritten. Layouts: docs/your_data.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from jdet import cli
from jdet.convert.convert import convert
from jdet.data.layouts.known import NAMES

FIELDS = ("classes", "image_root", "coordinates", "attribute")
"""Options that are fields of the source."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 2 for a user's mistake."""
    parser = argparse.ArgumentParser(
        prog="python -m jdet.convert", description="Writes labels of any layout in COCO's form."
    )
    parser.add_argument("folder", help="of labelled images")
    parser.add_argument("--out", required=True, help="file that ends in .json, or folder")
    parser.add_argument(
        "--layout", default="", help=f"where a folder has several: {', '.join(NAMES)}"
    )
    parser.add_argument("--classes", help="all classes in their order, such as cat+dog")
    parser.add_argument("--image_root", help="folder of the images, where they lie elsewhere")
    parser.add_argument("--coordinates", help="how boxes count: edges, from_0, from_1 or relative")
    parser.add_argument("--attribute", help="VIA: which attribute of the regions is the class")
    parser.add_argument(
        "--on_error",
        default="raise",
        choices=("raise", "skip"),
        help="skip: leave images out whose labels or files are wrong, and count them",
    )
    args = parser.parse_args(argv)

    def work() -> None:
        fields = {key: getattr(args, key) for key in FIELDS if getattr(args, key) is not None}
        if "classes" in fields:
            fields["classes"] = tuple(fields["classes"].split("+"))
        written = convert(
            args.folder, args.out, layout=args.layout, on_error=args.on_error, **fields
        )
        for one in written:
            skipped = f", {one.skipped} images left out" if one.skipped else ""
            print(
                f"{one.path}: {one.images} images, {one.objects} objects of {one.classes} classes, "
                f"{one.masks} with masks{skipped}"
            )
            print(f"  {one.told}")

    return cli.run(work)


if __name__ == "__main__":
    sys.exit(main())
