"""Remedies of image files, of what a set of them is, and of images that a run was not trained on."""

import os
import re
from types import SimpleNamespace
from unittest import mock

import numpy as np

from jdet.config import get_defaults
from jdet.data.image_io import check_size, write_image
from jdet.data.readers import limits
from jdet.data.readers.decoder import Decoder
from jdet.data.readers.file_pattern import FilePattern
from jdet.data.readers.read import decode_any
from jdet.data.readers.settings import USUAL, ImageSettings
from jdet.data.statistics import ImageStatistics
from jdet.evaluation.image_kind import ImageCheck, check, of_run
from tests.data.readers import files
from tests.data.readers.files import by_opencv, coco, dicom, npy, npz, tiff, values
from tests.data.readers.test_bad_files import STACK, TIFF, private
from tests.evaluation.test_image_kind import TRAINED, config_of, image_of
from tests.remedies.rows import Elsewhere, Untyped, row, type_in

READERS = "jdet/data/readers"
DECODER, SURVEY, TIFFS = (f"{READERS}/{x}.py" for x in ("decoder", "survey", "tiff"))
IO, KIND, STATISTICS = (
    "jdet/data/image_io.py",
    "jdet/evaluation/image_kind.py",
    "jdet/data/statistics.py",
)
TYPED = "tests/remedies/test_of_data.py::test_an_image_that_is_refused_is_read_by_each_remedy"
TOLD = "tests/remedies/test_of_data.py::test_what_is_told_of_a_set_is_gone_by_its_remedy"
GREY, RGB = values("uint16", 1), values("uint8", 3)


def read(data):
    decode_any(data, "x.dat", USUAL)


def turned(*orientations):
    """Pages of one file, the first with a tag of its own."""
    tag = dict(extratags=[(274, "H", 1, orientations[0], True)], metadata=None)
    pages = np.zeros((2, 8, 8), np.uint16)
    read(tiff(pages, photometric="minisblack", **(tag if orientations[0] != 1 else {})))


def typed_band(folder, typed):
    """The bands of the message, in a shell and on a command line."""
    data = {"a.dat": npy(values("uint8", 5))}
    config = get_defaults()
    source = coco(folder / "before", data, channels="rgb")
    try:
        return Decoder.of(source)(source[0].image) is None
    except ValueError as error:
        if not typed:
            raise
        type_in(config, re.search("--config.data.image.bands='.*?'", str(error))[0])
    source = coco(folder / "after", data, channels="rgb", bands=config.data.image.bands)
    assert Decoder.of(source)(source[0].image).shape[2] == 3


def size_of(labelled):
    check_size(np.zeros((40, 60, 3), np.uint8), labelled, "a.jpg")


def written(folder, name):
    write_image(folder / name, RGB)


def trained_on(given, name="12 bits"):
    """An image read as prediction reads it, by a run of 12-bit images."""
    image = image_of(TRAINED[given])
    ImageCheck(config_of(TRAINED[name])).read(
        by_opencv(".png", image) if image.dtype != np.float32 else npy(image), "x"
    )


def as_array(given, name="12 bits", times=1):
    image = image_of(TRAINED[given])
    ImageCheck(config_of(TRAINED[name])).check(image * np.asarray(times, image.dtype), "x")


def evaluated(folder, trained):
    source = coco(folder / "set", {"a.dat": npy(image_of(TRAINED["12 bits"]))})
    check(config_of(TRAINED[trained]), source, "eval data")


def measured(valid=(9,), std=(1.0,), invalid=None):
    found = SimpleNamespace(valid=valid, std=std, images=3, minimum=(0.0,))
    ImageStatistics.check(found, "train data", invalid)


def other_settings(channels):
    config = get_defaults()
    config.data.image.channels = channels
    of_run(config, config_of(TRAINED["12 bits"]), "runs/x")


def most_pixels(given):
    with mock.patch.dict(os.environ, {limits.VARIABLE: given}):
        limits.most_pixels()


def bands(given):
    ImageSettings(bands=given)


ROWS = [
    Elsewhere(
        "jdet/data/readers/limits.py",
        "or set the environment variable",
        "tests/data/readers/test_hostile_files.py::test_the_limit_is_openCVs_and_can_be_set",
    ),
    row(
        "jdet/data/readers/limits.py",
        "set it to digits, such as 4000000000, with KB or MB",
        most_pixels,
        {"given": "2GB"},
        {"given": "4000000000"},
        {"given": "4000MB"},
    ),
    Untyped(
        "jdet/data/image_formats.py",
        "fetch the images with `git lfs pull`",
        "needs a Git LFS server",
    ),
    row(
        "jdet/data/image_formats.py",
        "a video, not an image; extract its frames first",
        read,
        {"data": b"\0\0\0\x20ftypisom" + b"\0" * 40},
        {"data": by_opencv(".png", RGB)},
    ),
    row(
        "jdet/data/image_formats.py",
        "convert it to JPEG or PNG",
        read,
        {"data": b"\0\0\0\x20ftypheic" + b"\0" * 40},
        {"data": by_opencv(".jpg", RGB)},
        {"data": by_opencv(".png", RGB)},
    ),
    row(
        IO,
        "label them so, correct the label file, or",
        size_of,
        {"labelled": (60, 40)},
        {"labelled": (40, 60)},
    ),
    row(
        IO,
        "put back the image that was labelled, or correct the label file",
        size_of,
        {"labelled": (10, 10)},
        {"labelled": (40, 60)},
    ),
    row(
        IO,
        "use .jpg or .png",
        written,
        {"name": "a.xyz"},
        {"name": "a.jpg"},
        {"name": "a.png"},
    ),
    row(
        DECODER,
        "give it as {}, or train again on such images",
        trained_on,
        {"given": "bands"},
        {"given": "12 bits"},
        {"name": "bands"},
    ),
    row(DECODER, "takes the first", typed_band, {"typed": False}, {"typed": True}),
    Elsewhere(
        DECODER, "leave it out, or say what all are: --config", TYPED, "['channels', 'bands']"
    ),
    row(
        DECODER,
        "in the unit of training, or train again on such images",
        trained_on,
        {"given": "gray"},
        {"given": "12 bits"},
        {"name": "gray"},
    ),
    Elsewhere(DECODER, "leave it out, take all as --config.data.image.dtype=", TYPED, "['dtype']"),
    Elsewhere(DECODER, "by their high byte alone, --config", TYPED, "['dtype', 'high_byte']"),
    row(
        f"{READERS}/dicom.py",
        "without pixels ({}); leave it out",
        read,
        {"data": dicom(GREY, PixelData=None)},
        {"data": dicom(GREY)},
    ),
    row(
        f"{READERS}/dicom.py",
        "an image is one: save each as a file of its own",
        read,
        {"data": dicom(GREY, NumberOfFrames=3)},
        {"data": dicom(GREY)},
    ),
    Elsewhere(
        f"{READERS}/dicom.py",
        "to read it, pip install --editable '.[dicom]' in the clone",
        "tests/data/readers/test_bad_files.py::test_an_extra_that_is_not_installed_is_named",
        "pydicom",
    ),
    row(
        f"{READERS}/file_pattern.py",
        "each with {stem} once, such as {stem}_rgb.png + {stem}_depth.png",
        lambda text: FilePattern(text) and None,
        {"text": "rgb.png"},
        {"text": "{stem}_rgb.png + {stem}_depth.png"},
    ),
    row(
        f"{READERS}/numpy_file.py",
        "call the one that is the image 'image', or save it alone",
        read,
        {"data": npz(a=GREY, b=GREY)},
        {"data": npz(image=GREY, b=GREY)},
        {"data": npz(a=GREY)},
    ),
    row(
        f"{READERS}/range_check.py",
        "give images in the unit of training, or train again",
        as_array,
        {"given": "12 bits", "times": 9},
        {"times": 1},
    ),
    Elsewhere(
        f"{READERS}/read.py",
        "drop it with --config.data.image.alpha=drop",
        TYPED,
        "['alpha', 'channels']",
    ),
    row(
        f"{READERS}/settings.py",
        "such as (2, 1, 0)",
        bands,
        {"given": (1, 1)},
        {"given": (2, 1, 0)},
    ),
    Elsewhere(SURVEY, "--config.data.image.channels=gray takes one", TOLD, "LOW"),
    Elsewhere(SURVEY, "--config.data.image.dtype=uint8 takes the same", TOLD, "(LOW, {})"),
    Elsewhere(SURVEY, "--config.data.image.high_byte=True takes the same", TOLD, "(LOW * 257, {})"),
    row(
        TIFFS,
        "pages differ in size ({}); save each image as a file of its own",
        read,
        {"data": files.pages(np.zeros((8, 8), np.uint16), np.zeros((9, 9), np.uint16))},
        {"data": files.pages(np.zeros((8, 8), np.uint16))},
    ),
    row(
        TIFFS,
        "save all turned alike",
        lambda first: turned(first),
        {"first": 6},
        {"first": 1},
    ),
    row(
        TIFFS,
        "an image has two and channels: save each plane as a file",
        read,
        {"data": STACK},
        {"data": tiff(np.zeros((9, 9), np.uint16), compression="zstd")},
    ),
    row(
        TIFFS,
        "images of different sizes or types; save each as a file of its own",
        read,
        {"data": files.pages(GREY[..., 0], np.float32(GREY[..., 0]), compression="zstd")},
        {"data": files.pages(GREY[..., 0])},
    ),
    row(
        TIFFS,
        "save it uncompressed, or compressed by LZW",
        read,
        {"data": private(TIFF)},
        {"data": TIFF},
        {"data": tiff(GREY[..., 0], compression="lzw")},
    ),
    Elsewhere(
        TIFFS,
        "to read it, pip install --editable '.[tiff]' in the clone",
        "tests/data/readers/test_bad_files.py::test_an_extra_that_is_not_installed_is_named",
        "tifffile",
    ),
    row(
        STATISTICS,
        "there is nothing to see. Correct the files",
        measured,
        {"std": (0.0,)},
        {"std": (1.0,)},
    ),
    row(
        STATISTICS,
        ". Correct the files",
        measured,
        {"valid": (0,)},
        {"valid": (9,)},
    ),
    row(
        STATISTICS,
        "or leave config.data.image.invalid out",
        measured,
        {"valid": (0,), "invalid": 0.0},
        {"valid": (9,), "invalid": None},
    ),
    row(
        KIND,
        "set these as the run has them",
        other_settings,
        {"channels": "rgb"},
        {"channels": "auto"},
    ),
    row(
        KIND,
        "evaluate on images as were trained on, or train again on such as these",
        evaluated,
        {"trained": "rgb"},
        {"trained": "12 bits"},
    ),
    row(
        KIND,
        "give such images, or train again on images like this one",
        as_array,
        {"given": "rgb"},
        {"given": "12 bits"},
        {"name": "rgb"},
    ),
]
