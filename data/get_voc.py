"""Puts PASCAL VOC 2007 and 2012 into ROOT/VOCdevkit: python data/get_voc.py --root data."""

from __future__ import annotations

import sys

from _download import Archive, get_all, make_parser

HOSTS = ("http://host.robots.ox.ac.uk/pascal/VOC/voc{year}/", "https://data.pjreddie.com/files/")


def _archive(year: int, name: str, size: int, md5: str, makes: str) -> Archive:
    urls = tuple(host.format(year=year) + name for host in HOSTS)
    return Archive(name, urls, size, md5, size, f"VOCdevkit/VOC{year}/{makes}")


# Sizes as the servers announce them; MD5 as torchvision and others check them.
ARCHIVES = {
    2007: (
        _archive(
            2007,
            "VOCtrainval_06-Nov-2007.tar",
            460_032_000,
            "c52e279531787c972589f7e41ab4ae64",
            "ImageSets/Main/trainval.txt",
        ),
        _archive(
            2007,
            "VOCtest_06-Nov-2007.tar",
            451_020_800,
            "b6e924de25625d8de591ea690078ad9f",
            "ImageSets/Main/test.txt",
        ),
    ),
    2012: (
        _archive(
            2012,
            "VOCtrainval_11-May-2012.tar",
            1_999_639_040,
            "6cd6e144f989b92b3379bac3b3de84fd",
            "ImageSets/Main/trainval.txt",
        ),
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Runs the script; returns its exit status."""
    parser = make_parser("Download, verify and unpack PASCAL VOC (2.9 GB for both years).")
    parser.add_argument("--years", type=int, nargs="+", choices=(2007, 2012), default=[2007, 2012])
    args = parser.parse_args(argv)
    archives = [archive for year in args.years for archive in ARCHIVES[year]]
    return get_all(archives, args.root, args.keep_archives)


if __name__ == "__main__":
    sys.exit(main())
