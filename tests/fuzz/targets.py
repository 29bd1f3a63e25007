"""What reads files: for each reader good files to begin with, and what reading them may raise."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jdet import build
from jdet import config as config_lib
from jdet.certify import certificate
from jdet.config import get_defaults
from jdet.data.discover import discover
from jdet.data.image_io import orientation
from jdet.data.readers.header import header_of, scientific, size_of
from jdet.data.readers.read import read_stored
from jdet.data.readers.settings import ImageSettings
from jdet.train.checkpoints import checkpoint, manifest
from jdet.train.folders import phase_names
from jdet.train.policy import read_evaluations
from jdet.train.workdir import open_run
from jdet.types import ConfigError, DataError, TrainState
from jdet.verify import checks, moved
from tests.data.layouts import folders
from tests.data.readers import files as image_files

CLEAR = (ConfigError, DataError, checkpoint.CheckpointError)
"""What a user reads in one line."""


LABELS = "**/*[!g]"
"""Pattern of label files: all but the images, which are PNG."""


class Target(NamedTuple):
    """A reader.

    Attributes:
        name: of the target.
        write: makes a folder of good files, anew in each that it is given.
        spoilt: pattern of those that are changed.
        read: reads the folder; raises ``CLEAR`` or nothing.
    """

    name: str
    write: Callable[[Path], None]
    spoilt: str
    read: Callable[[Path], None]


def _layout(name, write):
    return Target(f"{name}-{write.__name__}", write, LABELS, functools.partial(_read_layout, name))


def _read_layout(name, folder):
    shape, train, evaluation = discover(folder, name)
    for side in filter(None, (train, evaluation)):
        group = build.folder_group(shape, str(folder), side)
        source = build.source(group, "config.data.train")
        for index in range(len(source)):
            example = source[index]
            assert np.isfinite(example.boxes).all() and len(example.labels) == len(example.boxes)


IMAGES = {
    "png": lambda: image_files.by_opencv(".png", image_files.values("uint8", 3)),
    "png16": lambda: image_files.by_opencv(".png", image_files.values("uint16", 1)),
    "jpeg": lambda: image_files.by_opencv(".jpg", image_files.values("uint8", 3)),
    "webp": lambda: image_files.by_opencv(".webp", image_files.values("uint8", 3)),
    "bmp": lambda: image_files.by_opencv(".bmp", image_files.values("uint8", 3)),
    "gif": lambda: image_files.by_pillow("GIF", image_files.values("uint8", 1)),
    "tiff": lambda: image_files.tiff(image_files.values("uint16", 1)),
    "tiff_pages": lambda: image_files.pages(*[image_files.values("float32", 1)] * 2),
    "tiff_lzw": lambda: image_files.by_opencv(".tiff", image_files.values("uint8", 3)),
    "npy": lambda: image_files.npy(image_files.values("float32", 2)),
    "npz": lambda: image_files.npz(image=image_files.values("uint8", 3)),
    "dicom": lambda: image_files.dicom(image_files.values("int16", 1), RescaleSlope=2),
}


def _image(name, encoded):
    return Target(f"image-{name}", lambda folder: _put(folder, encoded()), "*", _read_image)


def _put(folder, data):
    (folder / "image").write_bytes(data)


def _read_image(folder):
    path = folder / "image"
    data = path.read_bytes()
    header_of(path)
    header_of(data)
    orientation(data)
    if scientific(data):
        _allowed(lambda: size_of(data, "image"))
    for settings in (ImageSettings(), ImageSettings(palette="indices", channels="auto")):
        _allowed(lambda settings=settings: read_stored(str(path), "image", settings))


def _allowed(read):
    """Of several readers each may refuse."""
    try:
        read()
    except CLEAR:
        pass


def _write_run(folder):
    c = get_defaults()
    c.class_names = ("cat", "dog")
    (folder / "config.json").write_text(c.to_json())
    record = {"status": "completed", "num_examples": 4, "stretches": [], "metrics": {"a": 1.0}}
    (folder / "run.json").write_text(json.dumps(record))
    lines = [{"step": 1, "loss": 2.0, "lr": 0.1}, {"step": 2, "voc07/mAP": 0.5}]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))


def _read_config(folder):
    config = config_lib.load(folder / "config.json")
    config_lib.validate(config)


def _read_run(folder):
    opened = open_run(folder)
    opened.record.get("status")
    read_evaluations(folder / "metrics.jsonl", 10)


def _write_phases(folder):
    text = json.dumps({"phases": [{"name": "low", "status": "completed"}, {"name": "high"}]})
    (folder / "phases.json").write_text(text)
    for name in ("low", "high"):
        (folder / name).mkdir()
        _write_run(folder / name)


def _read_phases(folder):
    phase_names(folder)
    open_run(folder)


def _state():
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}
    return TrainState(np.array(2, np.int32), arrays, {}, {"m": arrays["a"]}, None)


def _write_checkpoint(folder):
    with checkpoint.Checkpoints(folder / "checkpoints") as kept:
        kept.save(2, _state())


def _read_checkpoint(folder):
    checkpoint.load_for_inference(folder, notify=lambda text: None)


def _read_resealed(folder):
    """Whoever changes a checkpoint may give it a manifest that fits."""
    path = folder / "checkpoints" / "2"
    try:
        about = manifest.read(path)
        (path / manifest.ABOUT).unlink()
        manifest.seal(path, about)
    except manifest.Damaged:
        return
    checkpoint.load_like(path, _state())


def _write_certificate(folder):
    _write_run(folder)
    _write_checkpoint(folder)
    c = _of_shapes()
    (folder / "config.json").write_text(c.to_json())
    (folder / "LICENSE").write_text("MIT")
    made, data = certificate.certify(folder)
    licence = {"folder": str(folder), "licence": "MIT", "source": str(folder / "LICENSE")}
    made["licences"] = [{**licence, "sha256": "0" * 64}]
    versions = {"jax": "1", "commit": "c"}
    made["stretches"] = [{"first": 0, "code": "c", "versions": versions, "machine": {}}]
    made["began_with"] = [{"name": "init_from", "run": "runs/x", "step": 2}]
    made["code"] = {"a.py": "0" * 64}
    certificate.write({**made, "id": certificate.digest(made)}, data, folder / "certificate.json")


@functools.cache
def _of_shapes():
    c = get_defaults()
    c.class_names = ("disc", "square")
    c.data.train = c.data.eval = build.group(
        "source", "shapes", size=32, count=2, num_classes=2, min_scale=0.2
    )
    return c


def _read_certificate(folder):
    path = folder / "certificate.json"
    found = certificate.read(path)
    run = moved.run_of(found, path, "")
    _allowed(lambda: moved.run_of(found, folder / "elsewhere" / "certificate.json", ""))
    done = [
        checks.of_itself(found),
        *checks.of_code(found, _of_shapes(), folder / "checkpoints"),
        checks.of_config(found, run),
        checks.of_checkpoints(found, run),
        checks.of_licences(found),
        *checks.of_data(found, path, _of_shapes()),
    ]
    "\n".join([*certificate.doubts(found), *map(str, done)]).encode()


RUNS = [
    Target("config", _write_run, "config.json", _read_config),
    Target("run", _write_run, "*.json*", _read_run),
    Target("phases", _write_phases, "**/*.json", _read_phases),
    Target("checkpoint", _write_checkpoint, "checkpoints/**/*", _read_checkpoint),
    Target("manifest", _write_checkpoint, "checkpoints/2/about.json", _read_checkpoint),
    Target("resealed", _write_checkpoint, "checkpoints/2/model/**/*", _read_resealed),
    Target("certificate", _write_certificate, "certificate.*", _read_certificate),
]

TARGETS = {
    each.name: each
    for each in [
        *(_layout(*case) for case in folders.CASES),
        *(_image(*item) for item in IMAGES.items()),
        *RUNS,
    ]
}
