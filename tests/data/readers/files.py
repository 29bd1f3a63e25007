"""Image files of every kind, and COCO sets of them."""

import io
import json

import cv2
import numpy as np
import pydicom
import tifffile
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from jdet.data.readers.settings import ImageSettings
from jdet.data.sources.coco import CocoSource

SIDE = 16


def values(dtype, channels, seed=0):
    """[SIDE, SIDE, channels] over the whole range of the type; of floats one is NaN."""
    rng = np.random.default_rng([seed, channels])
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        found = rng.normal(0.25, 1e-3, (SIDE, SIDE, channels)).astype(dtype)
        found[3, 4, 0] = np.nan
        return found
    ends = np.iinfo(dtype)
    found = rng.integers(ends.min, ends.max, (SIDE, SIDE, channels), endpoint=True, dtype=dtype)
    found[0, 0], found[0, 1] = ends.min, ends.max
    return found


def by_opencv(suffix, array, *options):
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[array.shape[2]]
    return cv2.imencode(suffix, np.squeeze(array[..., order]), options)[1].tobytes()


def by_pillow(kind, array, **options):
    file = io.BytesIO()
    Image.fromarray(np.squeeze(array)).save(file, kind, **options)
    return file.getvalue()


def tiff(array, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def pages(*arrays, **options):
    """A TIFF of several pages, each of its own size and type."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for array in arrays:
            writer.write(array, photometric="minisblack", metadata=None, **options)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(**arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def dicom(array, kind="MONOCHROME2", bits=None, **fields):
    """A CT slice; ``fields`` such as RescaleSlope; one that is None is left out."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header = pydicom.Dataset()
    header.file_meta = meta
    header.SOPClassUID, header.SOPInstanceUID = meta[0x20002].value, meta[0x20003].value
    header.Modality = "CT"
    header.Rows, header.Columns = array.shape[-3:-1]
    header.SamplesPerPixel = array.shape[-1]
    if array.shape[-1] == 3:
        header.PlanarConfiguration = 0
    header.PhotometricInterpretation = kind
    header.BitsAllocated = array.dtype.itemsize * 8
    header.BitsStored = bits or header.BitsAllocated
    header.HighBit = header.BitsStored - 1
    header.PixelRepresentation = int(array.dtype.kind == "i")
    header.PixelData = array.tobytes()
    for key, value in fields.items():
        if value is None:
            delattr(header, key)
        else:
            setattr(header, key, value)
    file = io.BytesIO()
    header.save_as(file, enforce_file_format=True)
    return file.getvalue()


def coco(folder, data, *, records=None, on_error="raise", **settings):
    """A COCO set of files, one image each unless ``records`` have their names; no objects but one."""
    folder.mkdir(exist_ok=True)
    for name, content in data.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(content)
    records = [{"file_name": name} for name in data] if records is None else records
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 3, 4, 5]}
    text = {
        "images": [
            {"id": i, "width": SIDE, "height": SIDE, **record}
            for i, record in enumerate(records, 1)
        ],
        "annotations": [annotation],
        "categories": [{"id": 1, "name": "thing"}],
    }
    path = folder / "set.json"
    path.write_text(json.dumps(text))
    settings = ImageSettings(**{"channels": "auto", "alpha": "refuse", **settings})
    return CocoSource(path, folder, on_error=on_error, image_settings=settings)
