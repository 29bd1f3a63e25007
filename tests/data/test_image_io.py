"""Odd and broken images. Pillow makes and judges them, so the decoder is not its own witness."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from jdet.data.image_io import write_image
from jdet.data.readers.decoder import Decoder
from jdet.data.readers.settings import ImageSettings
from jdet.types import DataError, ImageKind

read_image = Decoder(ImageKind(), ImageSettings(high_byte=True))


def make_image(height=48, width=64):
    """Smooth colours that differ between channels and corners."""
    coarse = np.random.default_rng(0).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def encode(image, kind, **options):
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


RGB = make_image()
PIL = Image.fromarray(RGB)
ALPHA = np.linspace(0, 255, RGB.shape[0] * RGB.shape[1]).reshape(RGB.shape[:2]).astype(np.uint8)
RGBA = Image.fromarray(np.dstack([RGB, ALPHA]))
FRAMES = [Image.fromarray(np.roll(RGB, 9 * k, axis=0)) for k in range(3)]
ANIMATION = {"save_all": True, "append_images": FRAMES[1:]}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encode(PIL, "JPEG", quality=95), id="jpeg"),
        pytest.param(encode(PIL, "JPEG", quality=95, progressive=True), id="progressive"),
        pytest.param(encode(PIL.convert("L"), "JPEG"), id="grey-jpeg"),
        pytest.param(encode(PIL.convert("CMYK"), "JPEG", quality=95), id="cmyk-jpeg"),
        pytest.param(encode(PIL, "JPEG") + b"\0" * 99, id="jpeg-with-trailer"),
        pytest.param(encode(PIL.convert("L"), "PNG"), id="grey-png"),
        pytest.param(encode(PIL.convert("LA"), "PNG"), id="grey-alpha-png"),
        pytest.param(encode(PIL.convert("1"), "PNG"), id="one-bit-png"),
        pytest.param(encode(PIL.convert("P"), "PNG"), id="palette-png"),
        pytest.param(encode(PIL.convert("P"), "PNG", transparency=3), id="transparent-palette"),
        pytest.param(encode(RGB[:, :1], "PNG"), id="one-pixel-wide"),
        pytest.param(encode(RGB[:1, :1], "JPEG"), id="one-pixel"),
        pytest.param(encode(FRAMES[0], "GIF", **ANIMATION), id="animated-gif"),
        pytest.param(encode(FRAMES[0], "WEBP", lossless=True, **ANIMATION), id="animated-webp"),
        pytest.param(encode(PIL, "BMP"), id="bmp"),
        pytest.param(encode(PIL, "TIFF", compression="tiff_lzw"), id="tiff"),
        pytest.param(encode(PIL.convert("L"), "TIFF"), id="grey-tiff"),
        pytest.param(encode(PIL.convert("1"), "TIFF"), id="one-bit-tiff"),
        pytest.param(encode(PIL.convert("P"), "TIFF"), id="palette-tiff"),
        pytest.param(encode(PIL.convert("CMYK"), "TIFF"), id="cmyk-tiff"),
    ],
)
def test_decodes_like_pillow(data):
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    image = read_image(data)
    assert image.dtype == np.uint8 and image.shape == expected.shape
    # CMYK: the two multiply with different roundings.
    assert np.abs(image.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("options", [{"format": "PNG"}, {"format": "WEBP", "lossless": True}])
def test_alpha_is_dropped(options):
    data = io.BytesIO()
    RGBA.save(data, exact=True, **options)  # exact: colours under full transparency are kept
    np.testing.assert_array_equal(read_image(data.getvalue()), RGB)


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_png_keeps_the_high_byte(channels):
    shape = (16, 20) if channels == 1 else (16, 20, 3)
    deep = np.random.default_rng(1).integers(0, 65536, shape).astype(np.uint16)
    data = cv2.imencode(".png", deep[..., ::-1] if channels == 3 else deep)[1].tobytes()
    expected = deep if channels == 3 else np.repeat(deep[..., None], 3, axis=2)
    np.testing.assert_array_equal(read_image(data), expected >> 8)
    np.testing.assert_array_equal(read_image(deep), expected >> 8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_images_are_turned_upright(kind):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    data = encode(PIL, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    stored = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(read_image(data), np.rot90(stored, -1))


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (RGB, RGB),
        (np.asarray(RGBA), RGB),
        (RGB[..., 0], np.repeat(RGB[..., :1], 3, axis=2)),
        (RGB[..., :1], np.repeat(RGB[..., :1], 3, axis=2)),
    ],
    ids=["rgb", "rgba", "grey", "grey-channel"],
)
def test_arrays(array, expected):
    np.testing.assert_array_equal(read_image(array), expected)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (RGB.astype(np.float32), "values are float32"),
        (RGB[..., :2], "2 channels"),
        (RGB[:0], "shape"),
        (np.zeros((2, 2, 2, 3), np.uint8), "shape"),
    ],
    ids=["float", "two-channels", "empty", "four-axes"],
)
def test_arrays_that_are_no_images(array, words):
    with pytest.raises(DataError, match=words):
        read_image(array, "x.png")


NOISE = np.random.default_rng(2).integers(0, 256, (120, 160, 3)).astype(np.uint8)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["JPEG", "progressive", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_truncated_files(tmp_path, kind, share, capfd):
    progressive = {"progressive": True} if kind == "progressive" else {}
    data = encode(NOISE, "JPEG" if progressive else kind, **progressive)
    path = tmp_path / "broken.image"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError, match=r"broken\.image.*truncated"):
        read_image(path)
    printed = [line for line in capfd.readouterr().err.splitlines() if "libpng" not in line]
    assert not printed  # what OpenCV would say is in the error


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_only_a_jpeg_without_a_part_of_its_image_is_truncated(options):
    """Decoders fill missing rows with grey; a download filled up with zeros looks whole."""
    data = encode(NOISE, "JPEG", **options)
    half = data[: len(data) // 2]
    for broken in (half, half + b"\0" * 5000, data[:-9], half + b"\xff\xd9"[:1]):
        with pytest.raises(DataError, match="truncated JPEG"):
            read_image(broken)
    for missing in (data[:-2], data[:-1], data[:-2] + b"\0" * 500, data + b"\0" * 5000):
        np.testing.assert_array_equal(read_image(missing), read_image(data))


def test_an_image_that_ends_in_zero_bytes_is_whole_without_its_marker():
    data = encode(np.full((100, 100, 3), 128, np.uint8), "JPEG", quality=90)
    assert data[-3] == 0
    np.testing.assert_array_equal(read_image(data[:-2]), read_image(data))


def test_thumbnail_markers_do_not_hide_a_truncation():
    data, thumbnail = encode(NOISE, "JPEG"), encode(RGB, "JPEG")
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    whole = data[:2] + b"\xff" + segment + data[2:]  # with a padding byte before the marker
    read_image(whole + b"\0")
    with pytest.raises(DataError, match="truncated JPEG"):
        read_image(whole[:-500])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (b"<html>not found</html>", "not an image"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "corrupt or truncated PNG"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "a Git LFS pointer"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 50, "not an image in a format that is read, but HEIC"),
        (b"\0\0\0\x18ftypisom" + b"\0" * 50, "a video"),
        (b"PK\3\4" + b"\0" * 50, "a NumPy file that cannot be read"),
    ],
    ids=["empty", "text", "png-header", "lfs", "heic", "video", "zip"],
)
def test_files_that_are_no_images(tmp_path, data, words):
    path = tmp_path / "x.jpg"
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"x\.jpg: {words}"):
        read_image(str(path))
    with pytest.raises(DataError, match=rf"^number 7: {words}"):
        read_image(data, "number 7")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match=r"gone\.jpg: cannot be read \(No such file"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(DataError, match="cannot be read"):
        read_image(tmp_path)


def test_write_and_read_back(tmp_path):
    path = tmp_path / "grüße.png"  # not every OpenCV opens such names itself
    write_image(path, RGB)
    np.testing.assert_array_equal(read_image(path), RGB)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), RGB)  # channels in order
    with pytest.raises(DataError, match=r"use \.jpg or \.png"):
        write_image(tmp_path / "x.unknown", RGB)
    with pytest.raises(DataError, match="cannot be written"):
        write_image(tmp_path / "no" / "x.png", RGB)
