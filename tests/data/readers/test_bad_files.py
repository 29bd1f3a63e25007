"""Files that are no images, not whole, or not like the others of their set."""

import builtins
import logging

import numpy as np
import pytest
from PIL import Image

from jdet.data.first_look import first_look
from jdet.data.pipeline import eval_batches
from jdet.data.readers.read import decode_any, read_stored
from jdet.data.readers.settings import USUAL, ImageSettings
from jdet.data.readers.survey import declared
from jdet.data.sources.coco import CocoSource
from jdet.data.transforms.warp import Warp
from jdet.types import DataError, ImageKind
from tests.data.readers.files import SIDE, by_opencv, coco, dicom, npy, npz, tiff, values

GREY16 = values("uint16", 1)
TIFF = tiff(GREY16[..., 0])


BANDS = tiff(values("uint16", 5), photometric="minisblack", planarconfig="contig")
STACK = tiff(
    np.zeros((4, 5, 9, 9), np.uint16), metadata={"axes": "TZYX"}, ome=True, compression="zstd"
)


def private(data):
    """The TIFF with a compression that no one knows."""
    tag = data.index(b"\x03\x01\x03\x00\x01\x00\x00\x00")  # 259, SHORT, one value
    return data[: tag + 8] + (65123).to_bytes(2, "little") + data[tag + 10 :]


@pytest.mark.parametrize(
    "data, words",
    [
        (private(TIFF), "private compression 65123, which nothing here unpacks; save it uncomp"),
        (TIFF[: len(TIFF) // 2], "truncated TIFF"),
        (tiff(np.moveaxis(values("uint16", 5), 2, 0), photometric="minisblack")[:-900], "TIFF"),
        (STACK, "its axes are T 4, Z 5, Y 9, X 9"),
        (b"II*\0" + b"\0" * 20, "corrupt or truncated TIFF"),
        (npy(GREY16)[:-20], "a NumPy file that cannot be read"),
        (npy(GREY16.astype(complex)), "dtype complex128 is no image"),
        (npy(np.zeros((2, 3, 4, 5))), r"shape \(2, 3, 4, 5\)"),
        (npz(a=GREY16, b=GREY16), "2 arrays .a, b.; call the one that is the image 'image'"),
        (npz(a=GREY16)[:90], "a NumPy file that cannot be read"),
        (dicom(GREY16, PixelData=None), "a DICOM file without pixels .CT.; leave it out"),
        (dicom(GREY16, NumberOfFrames=3), "of 3 frames; an image is one"),
        (dicom(GREY16)[:-300], "the pixels of a DICOM file cannot be read"),
        (dicom(GREY16)[:140], "DICOM"),
    ],
)
def test_each_is_an_error_that_says_what_it_is(data, words):
    with pytest.raises(DataError, match=f"^x.dat: .*{words}"):
        decode_any(data, "x.dat", USUAL)


@pytest.mark.parametrize(
    "module, extra, data",
    [("tifffile", "tiff", BANDS), ("pydicom", "dicom", dicom(GREY16))],
)
def test_an_extra_that_is_not_installed_is_named(monkeypatch, module, extra, data):
    def missing(name, *rest):
        if name.split(".")[0] == module:
            raise ImportError(f"No module named {name!r}")
        return real(name, *rest)

    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(DataError, match=rf"pip install --editable '\.\[{extra}\]' in the clone"):
        decode_any(data, "x", USUAL)
    assert decode_any(TIFF, "x", USUAL).pixels.dtype == np.uint16  # OpenCV can


RGB, RGB16 = by_opencv(".png", values("uint8", 3)), by_opencv(".png", values("uint16", 3))
GREY, FIVE = by_opencv(".png", values("uint8", 1)), npy(values("uint8", 5))
RGBA = by_opencv(".png", values("uint8", 4))
FLOAT = tiff(values("float32", 3), photometric="rgb")


@pytest.mark.parametrize(
    "stray, words, settings",
    [
        (RGB16, "its values are uint16, those of the set are uint8", {}),
        (FLOAT, "its values are float32, those of the set are uint8", {}),
        (FIVE, "it has 5 channels, those of the set are uint8 .H, W, 3., RGB", {}),
        (FIVE, "it has 5 channels, config.data.image.channels=.rgb. asks", {"channels": "rgb"}),
    ],
)
def test_files_of_another_kind_are_listed(tmp_path, caplog, stray, words, settings):
    files = {"a.png": RGB, "b.png": RGB, "stray.png": stray, "d.png": RGB}
    source = coco(tmp_path, files, **settings)
    assert source.image_kind[:3] == (3, "rgb", "uint8")
    message = f"eval data: 1 of 4 images are not .*stray.png.*{words}.*; leave it out"
    with pytest.raises(DataError, match=message):
        first_look(source, "eval data", on_error="raise", min_usable=0.5)
    with caplog.at_level(logging.WARNING):
        found = first_look(source, "eval data", on_error="skip", min_usable=0.5)
    assert "stray.png" in caplog.text and list(found.problems) == ["3"]
    with eval_batches(
        source, resize=Warp(SIDE), batch_size=4, threads=0, on_error="skip"
    ) as batches:
        batch = next(batches)
        assert batch.real.tolist() == [True, True, False, True]
        assert "stray.png" in batches.report().skipped["3"]


def kinds(folder, *files, **settings):
    return coco(folder, {f"{i}.png": data for i, data in enumerate(files)}, **settings)


def test_grey_and_colour_together_are_rgb_and_it_is_told(tmp_path):
    source = kinds(tmp_path, GREY, GREY, RGB)
    assert source.image_kind[:3] == (3, "rgb", "uint8") and not source.image_survey.strays
    assert "2 of 3 images are grey and get three equal channels" in source.image_survey.notes[0]
    source = kinds(tmp_path / "grey", GREY, RGB, channels="gray")
    assert source.image_kind[:3] == (1, "gray", "uint8")
    assert "1 of 2 images are coloured: their brightness counts" in source.image_survey.notes[0]
    source = kinds(tmp_path / "rgb", GREY, GREY, channels="rgb")
    assert source.image_kind[:3] == (3, "rgb", "uint8")
    assert "channels=gray takes one" in source.image_survey.notes[0]


def read(source, index=0):
    stream = eval_batches(source, resize=Warp(SIDE), batch_size=len(source), threads=0)
    with stream as batches:
        return next(batches).images[index]


def test_an_alpha_channel_goes_only_where_that_is_said_or_it_says_nothing(tmp_path):
    opaque = values("uint8", 4)
    opaque[..., 3] = 255
    source = kinds(tmp_path / "a", by_opencv(".png", opaque))
    np.testing.assert_array_equal(read(source), opaque[..., :3])
    source = kinds(tmp_path / "b", RGBA)
    with pytest.raises(
        DataError, match="0.png: it has an alpha channel that is not opaque; drop it"
    ):
        read(source)
    source = kinds(tmp_path / "c", RGBA, alpha="drop")
    np.testing.assert_array_equal(read(source), values("uint8", 4)[..., :3])
    assert source.image_survey.notes == ("1 of 1 images have an alpha channel, which is left out",)
    grey = tmp_path / "grey.png"
    levels = values("uint8", 1)[..., 0]
    Image.merge("LA", [Image.fromarray(levels), Image.fromarray(levels)]).save(grey)
    source = kinds(tmp_path / "d", grey.read_bytes(), alpha="drop")
    np.testing.assert_array_equal(read(source)[..., 0], levels)


def test_alpha_of_a_turned_image_stays_with_its_pixels(tmp_path):
    pixels = values("uint8", 4)[:10]
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    Image.fromarray(pixels, "RGBA").save(path, exif=exif)
    stored = decode_any(path.read_bytes(), "x", USUAL)
    np.testing.assert_array_equal(stored.pixels, np.rot90(pixels, -1))


def test_16_bit_files_that_use_8_are_told(tmp_path):
    small = values("uint8", 1).astype(np.uint16)
    for number, (array, words) in enumerate(
        (
            (small, "16-bit images that use 8 bits (largest value 255)"),
            (small * 257, "16-bit images that carry 8 bits"),
            (small << 8, "16-bit images that carry 8 bits"),
        )
    ):
        found = kinds(tmp_path / str(number), by_opencv(".png", array)).image_survey
        assert found.notes[0].startswith(words) and "--config.data.image." in found.notes[0]
    found = kinds(tmp_path / "12", by_opencv(".png", small * 16 + 3)).image_survey
    assert not found.notes and found.kind.value_range == (0, 4095)


def test_a_saturated_pixel_does_not_count_as_usual(tmp_path):
    array = np.tile(np.uint16([[100, 700]]), (32, 32))[..., None]
    array[3, 3] = 9000
    found = kinds(tmp_path, npy(array)).image_survey
    assert found.measured == (100, 700) and found.least_span == 600
    assert found.kind.value_range == (0, 2**14 - 1)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_values_outside_the_range_of_the_config_are_counted(tmp_path, dtype):
    array = np.full((4, 4, 1), 50, dtype)
    array[0, :3] = 250
    limits = (0.0, 100.0)
    found = kinds(tmp_path, npy(array), channels="auto", value_range=limits).image_survey
    assert found.kind.value_range == limits
    (note,) = (note for note in found.notes if "outside" in note)
    assert note.startswith("3 of 16 values of 1 images looked at (18.75%) lie outside")
    assert "config.data.image.value_range=(0.0, 100.0)" in note and "values are 50 … 250" in note
    array[0, :3] = 100
    found = kinds(tmp_path / "inside", npy(array), channels="auto", value_range=limits).image_survey
    assert not any("outside" in note for note in found.notes)


def test_images_without_a_header_reader_are_known_by_decoding_them(tmp_path):
    found = kinds(tmp_path, npz(a=values("uint8", 5)), channels="rgb").image_survey
    assert found.known == len(found.strays) > 0


def test_declared_values_keep_their_range_in_another_type():
    def bounds(kind, **settings):
        return declared(kind, ImageSettings(**settings)).value_range

    deep = ImageKind(3, "rgb", "uint16", (0.0, 4095.0))
    assert bounds(ImageKind(), dtype="float32") == (0, 255)
    assert bounds(deep, dtype="float32") == (0, 4095)
    assert bounds(deep, high_byte=True) == (0, 255)
    assert bounds(deep, dtype="float32", value_range=(1, 9)) == (1, 9)


def test_an_array_in_memory_has_its_channels_last():
    array = values("uint16", 3)[:2]
    np.testing.assert_array_equal(read_stored(array, "x", USUAL).pixels, array)


def test_a_missing_band_and_files_of_different_sizes(tmp_path):
    files = {"a_1.png": GREY, "a_2.png": GREY, "b_1.png": GREY}
    records = [{"file_name": "a_1.png"}, {"file_name": "b_1.png"}]
    pattern = "{stem}_1.png + {stem}_2.png"
    with pytest.raises(DataError, match=r"b_2\.png is missing"):
        coco(tmp_path / "a", files, records=records, files=pattern)
    source = coco(tmp_path / "a", files, records=records, files=pattern, on_error="skip")
    assert len(source) == 1 and "b_2.png" in source.defects[0].detail
    files["b_2.png"] = by_opencv(".png", values("uint8", 1)[:9])
    source = coco(tmp_path / "b", files, records=records, files=pattern)
    with pytest.raises(DataError, match=r"differ in size \(.*b_1.png 16x16, .*b_2.png 16x9\)"):
        read(source)


def test_bands_that_are_not_there(tmp_path):
    source = kinds(tmp_path, RGB, bands=(0, 5), channels="2")
    with pytest.raises(DataError, match=r"bands=\(0, 5\), but the image has 3 channels"):
        read(source)


@pytest.mark.parametrize("dtype, array", [("uint8", GREY16), ("float32", np.int32([[2**24 + 1]]))])
def test_values_are_never_cut_to_fit(tmp_path, dtype, array):
    source = coco(tmp_path, {"a.npy": npy(array)}, dtype=dtype)
    with pytest.raises(
        DataError, match=r"a.npy: its (values are uint16|int32 values are too large)"
    ):
        first_look(source, "data", on_error="raise", min_usable=0.5)


def test_the_folder_of_images_with_a_plus_in_their_names_is_found(tmp_path):
    coco(tmp_path, {"a + b.png": GREY})
    (tmp_path / "images").mkdir()
    (tmp_path / "a + b.png").rename(tmp_path / "images" / "a + b.png")
    source = CocoSource(tmp_path / "set.json", image_settings=ImageSettings(channels="gray"))
    assert source[0].image == str(tmp_path / "images" / "a + b.png")
