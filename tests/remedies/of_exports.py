"""Remedies of exports."""

from pathlib import Path
from unittest import mock

import numpy as np

from jdet.data.transforms.warp import Warp
from jdet.export import __main__ as command
from jdet.export import accuracy, artifact, export, manifest, parity, resize
from jdet.export.onnx import environment, model
from jdet.export.onnx.table import Unsupported
from jdet.types import EIGHT_BIT_RGB, ConfigError
from tests.remedies.rows import Elsewhere, row

EXPORT, ARTIFACT = "jdet/export/export.py", "jdet/export/artifact.py"
ACCURACY = "jdet/export/accuracy.py"
ENVIRONMENT, MODEL = "jdet/export/onnx/environment.py", "jdet/export/onnx/model.py"


class Own(Warp):
    """A rule of the user's."""


def free(folder, name, force=False):
    (folder / "a").write_text("mine")
    (folder / "folder").mkdir()
    export._check_free(folder / name, force)


def compared(objects):
    """As many as the run finds in the images given, or above the threshold given."""
    export._check_compared(Path("a"), parity.Difference(images=3, objects=objects), "3 images")


def numbered(format):
    manifest.check({"format": format}, "detector")


def installed(flatbuffers):
    work = mock.Mock(side_effect=None if flatbuffers else ImportError("flatbuffers"))
    artifact._with_flatbuffers(work)


def shown(channels):
    detector = artifact.Artifact.__new__(artifact.Artifact)
    detector.manifest = {"image": {"channels": 3, "dtype": "uint8"}}
    detector._tiling = None
    detector._whole = mock.Mock()
    detector(np.zeros((4, 4, channels), np.uint8))


def checked(check=16, pixels=0.001, calibrate=32):
    said = []
    with mock.patch.object(command, "export", lambda *_, **__: 0):
        with mock.patch.object(command.cli, "run", lambda work, *_: _said(work, said)):
            options = (f"--check={check}", f"--pixels={pixels}", f"--calibrate={calibrate}")
            command.main(["run", "--out=a", *options])
    return "\n".join(said)


def _said(work, said):
    try:
        return work()
    except ConfigError as error:
        said.append(str(error))


def evaluated(here=True, ap_images=-1):
    """What is read of an evaluation split where AP is measured on it."""
    ready = export.Ready(mock.Mock(), mock.Mock(), np.zeros(1), {})
    read = {} if here else {"side_effect": ConfigError("no such folder")}
    with (
        mock.patch.object(accuracy.build, "sources", **(read or {"return_value": ([], [])})),
        mock.patch.object(accuracy, "metrics", lambda *_: {}),
        mock.patch.object(export, "_onnx", lambda _: lambda _: b""),
        mock.patch.dict(export.FORMS, onnx=export.FORMS["onnx"]._replace(opened=mock.MagicMock())),
    ):
        export._lowered(ready, "", "float16", 1, (), ap_images, lambda _: None)


def calibrated(folder, here=False, name=""):
    """Of a training split that is here or not, or of a folder."""
    for each in ("empty", "full"):
        (folder / each).mkdir()
    (folder / "full" / "a.png").write_bytes(b"")
    predictor = mock.Mock(tiling=None)
    predictor.images.files = ""
    read = {"return_value": ([mock.Mock()], [])}
    with mock.patch.object(
        accuracy.build, "sources", **(read if here else {"side_effect": ConfigError("gone")})
    ):
        list(accuracy.training_images(predictor, [str(folder / name)] if name else [], 1))


def looked_at(folder, name):
    for each in ("empty", "full"):
        (folder / each).mkdir()
    (folder / "full" / "a.png").write_bytes(b"")
    predictor = mock.Mock()
    predictor.images.files = ""
    parity.images_of(predictor, [str(folder / name)], 1)


def interpreted(folder, given="", there=False, network=True):
    """An interpreter that has onnxruntime or not, and where it is made what pip then says."""
    answers = {given: there, "made": False}
    failed = mock.Mock(returncode=0 if network else 1, stderr="no network")
    with (
        mock.patch.dict("os.environ", XDG_CACHE_HOME=str(folder)),
        mock.patch.object(environment.importlib.util, "find_spec", lambda _: None),
        mock.patch.object(environment.venv, "create"),
        mock.patch.object(environment.subprocess, "run", lambda *_, **__: failed),
        mock.patch.object(environment, "_has_it", lambda name: answers.get(name, False)),
    ):
        environment.python(given, lambda _: None)


def as_onnx(form, dtype=np.float32):
    program = mock.Mock(detector=mock.Mock(dtype=dtype), kind=EIGHT_BIT_RGB)
    lost = Unsupported("the operation fft")
    with (
        mock.patch.object(model.convert, "convert", side_effect=lost),
        mock.patch.object(artifact, "make", lambda *_: b""),
    ):
        ready = mock.Mock(program=program, thresholds=np.zeros(1))
        ready.predictor.variables = {}
        export.FORMS[form].make(ready)


ROWS = [
    row(
        ENVIRONMENT,
        "install them there ({} -m pip install onnxruntime numpy), or leave it out",
        interpreted,
        {"given": "/a/python"},
        {"there": True},
        {"given": ""},
    ),
    row(
        ENVIRONMENT,
        "connect to the network, or give an interpreter that has it: --onnx_python=PATH",
        interpreted,
        {"network": False},
        {"network": True},
        {"given": "/a/python", "there": True},
    ),
    row(
        MODEL,
        "has no such convolutions on CPUs; export the run with --format=stablehlo",
        as_onnx,
        {"form": "onnx", "dtype": "bfloat16"},
        {"form": "stablehlo"},
    ),
    row(
        MODEL,
        "cannot be written as ONNX; export the run with --format=stablehlo",
        as_onnx,
        {"form": "onnx"},
        {"form": "stablehlo"},
    ),
    row(
        "jdet/export/parity.py",
        "name files or folders that have some with --images=",
        looked_at,
        {"name": "empty"},
        {"name": "full"},
        {"name": "full/a.png"},
    ),
    Elsewhere(
        "jdet/export/export.py",
        "--pixels=0.01 lets that through",
        "tests/export/test_export.py::test_a_larger_limit_lets_rounding_through",
    ),
    Elsewhere(
        "jdet/export/jdet_serve.py",
        "too many requests at a time; try again",
        "tests/export/test_serve.py::test_one_too_many_is_told_to_come_again",
        "[200] * 3 + [503] * 5",
    ),
    Elsewhere(
        "jdet/export/jdet_runtime.py",
        "take the jdet_runtime.py of the jdet that wrote it",
        "tests/export/test_runtime.py::test_files_of_other_versions_are_refused",
        "is no detector of format 1",
    ),
    Elsewhere(
        "jdet/export/jdet_runtime.py",
        "give an array read in this way",
        "tests/export/test_runtime.py::test_files_that_training_reads_in_a_way_of_its_own_are_refused",
    ),
    Elsewhere(
        "jdet/export/jdet_runtime.py",
        "Pillow reads 8 of its 16 bits; give an array or a .npy file",
        "tests/export/test_runtime.py::test_files_of_more_than_eight_bits_are_not_cut_down",
        "16 bits",
    ),
    row(
        EXPORT,
        "name images that have some with --images=, or a lower threshold, such as --score=0.01",
        compared,
        {"objects": 0},
        {"objects": 1},
    ),
    row(
        EXPORT,
        "exists; name another file with --out=, or replace it with --force",
        free,
        {"name": "a"},
        {"name": "b"},
        {"force": True},
    ),
    row(EXPORT, "is a folder; name a file with --out=", free, {"name": "folder"}, {"name": "b"}),
    row(
        "jdet/export/manifest.py",
        "export the run again, or read it with the version that wrote it",
        numbered,
        {"format": 2},
        {"format": 1},
    ),
    row(
        ARTIFACT,
        "pip install flatbuffers",
        installed,
        {"flatbuffers": False},
        {"flatbuffers": True},
    ),
    row(ARTIFACT, "give such images", shown, {"channels": 1}, {"channels": 3}),
    row(
        "jdet/export/resize.py",
        "train with one of these to export",
        resize.check,
        {"resize": Own(input_size=8)},
        {"resize": Warp(input_size=8)},
    ),
    row(
        ACCURACY,
        "bring it back, or go without with --ap_images=0",
        evaluated,
        {"here": False},
        {"here": True},
        {"here": False, "ap_images": 0},
    ),
    row(
        ACCURACY,
        "bring them back, or name others with --calibrate_on=PATH",
        calibrated,
        {"here": False},
        {"here": True},
        {"name": "full"},
    ),
    row(
        ACCURACY,
        "name files or folders that have some with --calibrate_on=PATH",
        calibrated,
        {"name": "empty"},
        {"name": "full"},
    ),
    row(
        EXPORT,
        "is for ONNX files alone; ask for one with --format=onnx",
        export._check_precision,
        {"form": "both", "precision": "int8"},
        {"form": "onnx", "precision": "int8"},
    ),
    row(
        "jdet/export/__main__.py",
        "--calibrate={} must be at least 1, such as --calibrate=32",
        checked,
        {"calibrate": 0},
        {"calibrate": 32},
    ),
    row(
        "jdet/export/__main__.py",
        "--check={} must be at least 1, such as --check=16",
        checked,
        {"check": 0},
        {"check": 16},
    ),
    row(
        "jdet/export/__main__.py",
        "--pixels={} must be 0 or more, such as --pixels=0.01",
        checked,
        {"pixels": float("nan")},
        {"pixels": 0.01},
    ),
]
