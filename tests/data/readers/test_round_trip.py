"""What is in a file is what the step gets: nothing clipped, nothing rescaled."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from jdet.data.pipeline import eval_batches, train_batches
from jdet.data.readers import tiff as tiff_lib
from jdet.data.readers.read import decode_any
from jdet.data.readers.settings import USUAL
from jdet.data.sources.annotations import read_image_size
from jdet.data.transforms.augment import Augment
from jdet.data.transforms.keep_ratio import KeepRatio
from jdet.data.transforms.multi_scale import View
from jdet.data.transforms.warp import Warp
from jdet.detectors.base import Detector
from jdet.types import DataError
from tests.data.readers.files import (
    SIDE,
    by_opencv,
    by_pillow,
    coco,
    dicom,
    npy,
    npz,
    tiff,
    values,
)

SETS = {}
"""By what they become and the settings: the files of a set, with the values that are in them."""


def case(name, data, expected, colour, **settings):
    dtype = str(expected.dtype) if expected.dtype in (np.uint8, np.uint16) else "float32"
    dtype = settings.get("dtype", dtype)
    key = f"{dtype}-{expected.shape[2]}-{colour}-{settings or ''}"
    kind = (expected.shape[2], colour, dtype)
    files = SETS.setdefault(key, (kind, settings, {}))[2]
    assert name not in files
    files[name] = data, expected


GREY_OR_RGB = {1: "gray", 3: "rgb"}
for dtype in ("uint8", "uint16"):
    for channels, colour in GREY_OR_RGB.items():
        array = values(dtype, channels)
        case(f"png-{dtype}-{channels}.png", by_opencv(".png", array), array, colour)
        suffix = ".pgm" if channels == 1 else ".ppm"
        case(f"pnm-{dtype}{suffix}", by_opencv(suffix, array), array, colour)
    array = values(dtype, 4)
    case(f"png-{dtype}-4.png", by_opencv(".png", array), array, "bands", channels="4")
    case(f"png-{dtype}-dropped.png", by_opencv(".png", array), array[..., :3], "rgb", alpha="drop")
for channels in (1, 3):
    array = values("uint8", channels)
    case(f"bmp-{channels}.bmp", by_pillow("BMP", array), array, GREY_OR_RGB[channels])
    smooth = np.full((SIDE, SIDE, channels), 96, np.uint8)  # JPEG keeps the values of such an image
    case(
        f"jpeg-{channels}.jpg",
        by_pillow("JPEG", smooth, quality=100),
        smooth,
        GREY_OR_RGB[channels],
    )
array = values("uint8", 3)
case("webp.webp", by_pillow("WEBP", array, lossless=True), array, "rgb")

for dtype in ("uint8", "uint16", "int16", "float16", "float32", "float64"):
    array = values(dtype, 1)
    case(f"tiff-{dtype}-1.tif", tiff(array[..., 0]), array, "gray")
    array = values(dtype, 3)
    case(f"tiff-{dtype}-rgb.tif", tiff(array, photometric="rgb"), array, "rgb")
    array = values(dtype, 5)
    pages, plain = np.moveaxis(array, 2, 0), {"photometric": "minisblack"}
    case(f"tiff-{dtype}-pages.tif", tiff(pages, **plain), array, "bands")
    case(f"tiff-{dtype}-bands.tif", tiff(array, planarconfig="contig", **plain), array, "bands")
    for layout, one in (("hwc", array), ("chw", pages), ("hw", array[..., 0])):
        shown = array[..., :1] if layout == "hw" else array
        case(f"npy-{dtype}-{layout}.npy", npy(one), shown, "gray" if layout == "hw" else "bands")
array = values("uint16", 1)
for name, options in {
    "tiled": dict(tile=(16, 16)),
    "lzw": dict(compression="lzw", predictor=True),
    "zlib": dict(compression="zlib", predictor=True),
    "zstd": dict(compression="zstd"),
    "big-endian": dict(byteorder=">"),
    "bigtiff": dict(bigtiff=True),
    "min-is-white": dict(photometric="miniswhite"),
}.items():
    case(f"tiff-{name}.tif", tiff(array[..., 0], **options), array, "gray")
array = values("uint16", 3)
planar = tiff(np.moveaxis(array, 2, 0), photometric="rgb", planarconfig="separate")
case("tiff-planar.tif", planar, array, "rgb")
for dtype in ("uint8", "uint16"):
    array = values(dtype, 4)
    for extra in ("unassalpha", "assocalpha"):
        data = tiff(array, photometric="rgb", extrasamples=[extra])
        case(f"tiff-{extra}.tif", data, array, "bands", channels="4")
        case(f"tiff-{extra}.tif", data, array[..., :3], "rgb", alpha="drop")
array = values("uint16", 5)
stack = tiff(np.moveaxis(array, 2, 0), imagej=True, metadata={"axes": "CYX"})
case("tiff-imagej.tif", stack, array, "bands")
case("tiff-chosen.tif", stack, array[..., [4, 0]], "bands", bands=(4, 0))
case("npz-only.npz", npz(x=array), array, "bands")
case("npz-named.npz", npz(image=array, mask=array[..., 0]), array, "bands")

array = values("uint16", 1)
case("dicom-uint16.dcm", dicom(array), array, "gray")
case("dicom-white.dcm", dicom(array, "MONOCHROME1"), 65535 - array, "gray")
array = values("int16", 1) // 16
units = dicom(array, bits=12, RescaleSlope=2, RescaleIntercept=-1024)
case("dicom-units.dcm", units, array * 2.0 - 1024, "gray")
case("dicom-signed.dcm", dicom(array), array, "gray")
array = values("uint8", 3)
case("dicom-rgb.dcm", dicom(array, "RGB"), array, "rgb")

image = Image.fromarray(values("uint8", 1)[..., 0], "L")
image.putpalette(np.roll(np.arange(768), 100) % 256)
for kind in ("PNG", "BMP", "TIFF"):
    file = io.BytesIO()
    image.save(file, kind)
    name, colours = f"palette.{kind.lower()}", np.asarray(image.convert("RGB"))
    case(name, file.getvalue(), values("uint8", 1), "gray", palette="indices")
    case(name, file.getvalue(), colours, "rgb", palette="colours")
array = values("uint8", 3)
for name, some in {
    "palette": Image.fromarray(array // 32 * 32).convert("P"),
    "colours": Image.fromarray(array),
}.items():
    file, colour = io.BytesIO(), some.getpixel((5, 0))
    some.save(file, "PNG", transparency=colour)
    clear = np.asarray(Image.open(io.BytesIO(file.getvalue())).convert("RGBA"))
    assert 0 in clear[..., 3] and 255 in clear[..., 3]
    case(f"clear-{name}.png", file.getvalue(), clear, "bands", channels="4")
    case(f"clear-{name}.png", file.getvalue(), clear[..., :3], "rgb", alpha="drop")
narrow = values("uint8", 1).astype(np.uint16)
case("eight-of-16.png", by_opencv(".png", narrow), narrow, "gray", dtype="uint8")
case("eight-as-16.png", by_opencv(".png", values("uint8", 1)), narrow, "gray", dtype="uint16")
deep = values("uint16", 3)
case("high-byte.png", by_opencv(".png", deep), (deep >> 8).astype(np.uint8), "rgb", high_byte=True)
case("float.png", by_opencv(".png", deep), deep, "rgb", dtype="float32")


@pytest.mark.parametrize("key", SETS)
def test_file_to_batch_to_step(tmp_path, key):
    kind, settings, files = SETS[key]
    source = coco(tmp_path, {name: data for name, (data, _) in files.items()}, **settings)
    assert source.image_kind[:3] == kind and not source.image_survey.strays
    step = Detector(num_classes=1, input_size=SIDE, mean=(0.0,), std=(1.0,))
    middle = np.float32(sum(source.image_kind.value_range) / 2)
    count, options = len(files), {"threads": 0, "prefetch": 1, "resize": Warp(SIDE)}
    train = {"augment": Augment(), "max_boxes": 2, "seed": 0}
    with (
        train_batches(source, batch_size=count, **train, **options) as trained,
        eval_batches(source, batch_size=count, **options) as evaluated,
    ):
        for batch in (next(trained), next(evaluated)):
            assert batch.images.dtype == kind[2] and batch.real.all()
            seen = step.normalised(batch.images)
            assert sorted(batch.index.tolist()) == list(range(count))
            for index, image, given in zip(batch.index, batch.images, seen, strict=True):
                name, (_, expected) = list(files.items())[index]
                expected = np.where(np.isnan(expected), middle, expected)  # what was not measured
                np.testing.assert_array_equal(image, expected.astype(kind[2]), name)
                np.testing.assert_array_equal(given, expected.astype(np.float32), name)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("subfile, first", [(1, False), (4, False), (1, True)])
def test_smaller_copies_and_masks_in_a_tiff_are_left_out(dtype, channels, subfile, first):
    array = values(dtype, channels)
    file, kind = io.BytesIO(), {1: "minisblack", 3: "rgb"}[channels]
    image = np.squeeze(array), {"photometric": kind}
    other = (array[..., 0] > 0, {}) if subfile == 4 else (np.squeeze(array[::2, ::2]), image[1])
    written = [(*image, 0), (*other, subfile)]
    with tifffile.TiffWriter(file) as writer:
        for page, options, type_ in reversed(written) if first else written:
            writer.write(page, **options, subfiletype=type_, metadata=None)
    stored = decode_any(file.getvalue(), "x.tif", USUAL)
    np.testing.assert_array_equal(stored.pixels, array)
    assert stored.colour == (channels == 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_tiff_is_turned_upright(orientation):
    """By whichever library: 8 bits and 16, float16, planes, pages; Pillow is the witness."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = io.BytesIO()
    grey = values("uint8", 1)[:9, ..., 0]
    Image.fromarray(grey).save(turned, "PNG", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(turned)))
    tag = dict(extratags=[(274, "H", 1, orientation, False)], metadata=None)
    for dtype in ("uint8", "uint16", "float16", "int64"):
        planes = np.repeat(grey[None].astype(dtype), 5, 0)
        for image, options in {
            "grey": (planes[0], {}),
            "planes": (planes, dict(planarconfig="separate", photometric="minisblack")),
            "pages": (planes[:2], dict(photometric="minisblack")),
        }.values():
            data = tiff(image, **options, **tag)
            stored = decode_any(data, "x.tif", USUAL).pixels
            assert read_image_size(data) == expected.shape == stored.shape[:2]
            np.testing.assert_array_equal(
                stored, np.broadcast_to(expected[..., None], stored.shape)
            )


def test_pages_that_are_turned_differently_are_refused():
    first_alone = dict(extratags=[(274, "H", 1, 6, True)], metadata=None)
    data = tiff(np.zeros((2, 8, 8), np.uint16), photometric="minisblack", **first_alone)
    with pytest.raises(DataError, match=r"x.tif: its 2 pages have different orientations \(1, 6\)"):
        decode_any(data, "x.tif", USUAL)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("extra, alpha", [("unspecified", False), ("unassalpha", True)])
def test_a_fourth_band_that_is_no_opacity_is_kept(dtype, extra, alpha):
    array = values(dtype, 4)
    data = tiff(array, photometric="rgb", extrasamples=[extra])
    stored = decode_any(data, "x.tif", USUAL)
    np.testing.assert_array_equal(stored.pixels, array)
    assert stored.alpha == alpha and tiff_lib.pages(data)[0].alpha == alpha


@pytest.mark.parametrize("dtype, channels", [("uint16", 1), ("float32", 5), ("uint8", 9)])
def test_padding_and_views_have_the_type_and_channels(tmp_path, dtype, channels):
    array = np.nan_to_num(values(dtype, channels))
    source = coco(tmp_path, {"a.npy": npy(array)}, channels=str(channels))
    resize = KeepRatio(short=(SIDE,), long=2 * SIDE, shapes=((SIDE, 2 * SIDE),))
    with eval_batches(source, resize=resize, batch_size=2, threads=0) as batches:
        batch = next(batches)
    assert batch.images.shape == (2, SIDE, 2 * SIDE, channels) and batch.images.dtype == dtype
    np.testing.assert_array_equal(batch.images[0, :, :SIDE], array)
    assert not batch.images[0, :, SIDE:].any() and not batch.images[1].any()
    views = (View((SIDE, SIDE)), View((SIDE, 2 * SIDE), resize))
    with eval_batches(source, views=views, batch_size=1, threads=0) as batches:
        batch = next(batches)
    assert [x.shape[1:] for x in batch.images] == [
        (SIDE, SIDE, channels),
        (SIDE, 2 * SIDE, channels),
    ]
    assert {str(x.dtype) for x in batch.images} == {dtype}


def test_several_files_are_one_image(tmp_path):
    rgb, depth = values("uint8", 3), np.nan_to_num(values("float32", 1))
    files = {"a_rgb.png": by_opencv(".png", rgb), "depth/a.tif": tiff(depth[..., 0])}
    expected = np.concatenate([rgb, depth], axis=2)
    pattern = "{stem}_rgb.png + depth/{stem}.tif"
    names = list(files)
    for number, (record, settings) in enumerate(
        (
            ({"file_name": "a_rgb.png"}, {"files": pattern}),
            ({"file_name": "a.png"}, {"files": pattern}),
            ({"file_name": "a_rgb.png", "files": names}, {}),
            ({"file_name": names}, {}),
            ({"file_name": " + ".join(names)}, {}),
        )
    ):
        source = coco(tmp_path / str(number), files, records=[record], **settings)
        assert source.image_kind[:3] == (4, "bands", "float32")
        with eval_batches(source, resize=Warp(SIDE), batch_size=1, threads=0) as batches:
            np.testing.assert_array_equal(next(batches).images[0], expected)
    chosen = coco(tmp_path / "0", files, records=[record], channels="gray", bands=(3,))
    with eval_batches(chosen, resize=Warp(SIDE), batch_size=1, threads=0) as batches:
        np.testing.assert_array_equal(next(batches).images[0], depth)
