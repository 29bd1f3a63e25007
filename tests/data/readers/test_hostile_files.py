"""Files made to do harm: more pixels than memory holds, code, devices, entities, other folders."""

import io
import os
import struct
import zipfile
import zlib

import pytest

from jdet.data.layouts.yolo_yaml import read_yaml
from jdet.data.readers import limits
from jdet.data.readers.header import header_of
from jdet.data.readers.read import read_stored
from jdet.data.readers.regular_file import open_regular
from jdet.data.readers.settings import ImageSettings
from jdet.data.sources.annotations import read_image_size
from jdet.data.sources.xml_file import read_xml
from jdet.types import ConfigError, DataError
from tests.data.readers import files

TOO_LARGE = limits.VARIABLE


def read(data, name="image"):
    return read_stored(data, name, ImageSettings())


def npy(shape, dtype="|u1", content=bytes(64)):
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header = header.ljust(117) + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + content


def npz(data, **claims):
    """An archive of one array, whose directory may claim other things of it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.npy", data)
        for key, value in claims.items():
            setattr(archive.filelist[0], key, value)
    return file.getvalue()


def png(width, height):
    def chunk(kind, data):
        whole = kind + data
        return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes(1 << 16)))
    return b"\x89PNG\r\n\x1a\n" + header + rows + chunk(b"IEND", b"")


def tiff(side):
    """Of one strip that claims to be a square of zeros."""
    tags = [(256, side), (257, side), (258, 16), (259, 8), (262, 1), (273, 200), (277, 1)]
    tags += [(278, side), (279, 100)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head.ljust(200, b"\0") + zlib.compress(bytes(1000)).ljust(100, b"\0")


@pytest.mark.parametrize(
    "data, said",
    [
        (png(100_000, 100_000), TOO_LARGE),
        (tiff(100_000), TOO_LARGE),
        (npy((100_000, 100_000)), "ends behind the file"),
        (npy((1 << 40, 1 << 40), "<f8"), "ends behind the file"),
        (npz(npy((100_000, 100_000))), "ends behind the file"),
        (npz(npy((100_000, 100_000)), file_size=1 << 40), TOO_LARGE),
        (files.dicom(files.values("int16", 1), Rows=60_000, Columns=60_000), TOO_LARGE),
        (npy((2, 2), "|O", b"cos\nsystem\n(S'false'\ntR."), "allow_pickle=False"),
        (npz(npy((2, 2), "|O", b"cos\nsystem\n(S'false'\ntR.")), "allow_pickle=False"),
        (npy((-1, 5)), "cannot be read"),
        (npy((2, 2)).replace(b"}", b" "), "cannot be read"),
        (npz(npy((2, 2)))[:60] + bytes(20), "cannot be read"),
    ],
)
def test_an_image_that_does_harm_is_refused(data, said):
    with pytest.raises(DataError, match=said):
        read(data)
    header_of(data)  # says something or nothing


def test_the_limit_is_openCVs_and_can_be_set(monkeypatch):
    array = files.values("uint8", 3)
    assert read(files.npz(image=array)).pixels.shape == array.shape
    monkeypatch.setenv(limits.VARIABLE, str(files.SIDE**2 - 1))
    with pytest.raises(DataError, match="or set the environment variable"):
        read(files.npz(image=array))
    monkeypatch.setenv(limits.VARIABLE, str(files.SIDE**2))
    assert read(files.npz(image=array)).pixels.shape == array.shape


def test_the_limit_has_the_units_of_openCV_and_no_others(monkeypatch):
    for given, pixels in {"3KB": 3 << 10, "3mb": 3 << 20, "3Mb": 3 << 20, "": 1 << 30}.items():
        monkeypatch.setenv(limits.VARIABLE, given)
        assert limits.most_pixels() == pixels
    for given in ("3GB", "3k", "1e9", " 3", "-1"):
        monkeypatch.setenv(limits.VARIABLE, given)
        with pytest.raises(ConfigError, match=f"{limits.VARIABLE}={given} is no number of pixels"):
            read(files.npz(image=files.values("uint8", 3)))


def test_what_lies_beside_the_array_of_an_archive_is_not_read():
    array = files.values("uint8", 3)
    for names, good in (("image meta", True), ("a meta", True), ("meta", False)):
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w") as archive:
            for name in names.split():
                if name == "meta":
                    archive.writestr("meta.json", "{}")
                else:
                    archive.writestr(f"{name}.npy", files.npy(array))
        if good:
            assert (read(held.getvalue()).pixels == array).all()
        else:
            with pytest.raises(DataError, match="a ZIP archive, not of NumPy arrays"):
                read(held.getvalue())


def test_devices_and_pipes_are_no_files(tmp_path):
    """The first has no end, the second waits for somebody to write."""
    pipe = str(tmp_path / "pipe.png")
    os.mkfifo(pipe)
    for path in ("/dev/zero", pipe):
        with pytest.raises(DataError, match="a device, pipe or socket, and no file"):
            read(path)
        assert header_of(path) is None
        with pytest.raises(DataError, match="no file"):
            read_image_size(path)
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    (tmp_path / "file").write_bytes(b"content")
    with open_regular(tmp_path / "file") as file:
        assert file.read() == b"content" and os.get_blocking(file.fileno())


def test_a_file_that_has_to_be_waited_for_is_waited_for(tmp_path, monkeypatch):
    """Leases of file servers and files on tape: opening them without waiting fails."""
    opened, pipe = os.open, tmp_path / "pipe"

    def leased(path, flags, *more):
        if flags & os.O_NONBLOCK:
            raise BlockingIOError(11, "Resource temporarily unavailable", path)
        return opened(path, flags, *more)

    os.mkfifo(pipe)
    (tmp_path / "file").write_bytes(b"content")
    monkeypatch.setattr(os, "open", leased)
    with open_regular(tmp_path / "file") as file:
        assert file.read() == b"content"
    with pytest.raises(BlockingIOError):
        open_regular(pipe)


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE a [<!ENTITY b "cc">]><annotation><filename>&b;</filename></annotation>',
        '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation>&b;</annotation>',
        '<!DOCTYPE a SYSTEM "http://127.0.0.1/a.dtd"><annotation/>',
        "<annotation>&b;</annotation>",
    ],
)
def test_entities_are_neither_expanded_nor_fetched(tmp_path, text):
    path = tmp_path / "a.xml"
    path.write_text(text)
    with pytest.raises(DataError, match="document type|undefined entity"):
        read_xml(path)


@pytest.mark.parametrize(
    "last", ["train: *l9", "names: {0: *l9}", "m: {<<: *m9}", "train: &r [*r]"]
)
def test_aliases_of_aliases_are_counted_before_they_are_written_out(tmp_path, last):
    """Nine times nine times nine …: some lines stand for a billion values."""
    lines = ["l0: &l0 x", "m0: &m0 {x: 1}"]
    for level in range(1, 10):
        lines.append(f"l{level}: &l{level} [{', '.join([f'*l{level - 1}'] * 9)}]")
        lines.append(f"m{level}: &m{level} {{<<: [{', '.join([f'*m{level - 1}'] * 9)}]}}")
    (tmp_path / "data.yaml").write_text("\n".join([*lines, last]))
    with pytest.raises(DataError, match="its aliases"):
        read_yaml(tmp_path / "data.yaml")


def test_a_name_that_leaves_the_folder_is_read_as_an_image_and_nothing_else(tmp_path):
    """Labels beside their images name them so; what is no image is refused, and named by its place."""
    content = {"inside.png": files.by_opencv(".png", files.values("uint8", 3))}
    (tmp_path / "secret").write_text("secret")
    source = files.coco(
        tmp_path / "set",
        content,
        records=[{"file_name": "../secret"}],
        on_error="raise",
    )
    with pytest.raises(DataError, match="secret: not an image"):
        read(source[0].image, source[0].image)
