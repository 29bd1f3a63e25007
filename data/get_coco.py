"""Puts COCO 2017 into ROOT/coco: python data/get_coco.py --root data."""

from __future__ import annotations

import sys

from _download import Archive, get_all, make_parser

HOST = "http://images.cocodataset.org"  # its certificate is for another name, hence no https

# Sizes as the server announces them; MD5 as published by several independent mirrors.
ARCHIVES = {
    "annotations": Archive(
        "annotations_trainval2017.zip",
        (f"{HOST}/annotations/annotations_trainval2017.zip",),
        252_907_541,
        "f4bbac642086de4f52a3fdda2de5fa2c",
        860_000_000,
        "annotations/instances_val2017.json",
    ),
    "val2017": Archive(
        "val2017.zip",
        (f"{HOST}/zips/val2017.zip",),
        815_585_330,
        "442b8da7639aecaf257c1dceb8ba8c80",
        820_000_000,
        "val2017",
    ),
    "train2017": Archive(
        "train2017.zip",
        (f"{HOST}/zips/train2017.zip",),
        19_336_861_798,
        "cced6f7f71b7629ddf16f17bbcfab6b2",
        19_400_000_000,
        "train2017",
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Runs the script; returns its exit status."""
    parser = make_parser(
        "Download, verify and unpack COCO 2017 (20 GB, twice that while unpacking)."
    )
    parser.add_argument("--parts", nargs="+", choices=tuple(ARCHIVES), default=list(ARCHIVES))
    args = parser.parse_args(argv)
    return get_all([ARCHIVES[part] for part in args.parts], args.root / "coco", args.keep_archives)


if __name__ == "__main__":
    sys.exit(main())
