"""A run becomes a file that finds what the run finds, or no file."""

import contextlib
import errno
import io
import json
import os
import zipfile

import numpy as np
import pytest

pytest.importorskip("flatbuffers", reason="JAX serialises programs with it (the extra export)")

import jax.numpy as jnp
from PIL import Image

from jdet import build
from jdet.evaluation.predictor import Predictor
from jdet.export import artifact, export, parity
from jdet.export.__main__ import main
from jdet.export.cuts import Cuts
from jdet.export.onnx import environment
from jdet.types import DataError
from tests.evaluation.pixel_detector import MaskDetector
from tests.evaluation.saved_run import NAMES, kept_run, rectangle, save_run


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    save_run(folder)
    return folder


class Known(MaskDetector):
    """Finds red rectangles, with masks."""

    input_size = 64
    dtype = jnp.float32


@pytest.fixture(scope="module")
def known():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "detector", lambda *_: Known())
        yield


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i, (height, width) in enumerate(((50, 80), (130, 70), (64, 64))):
        pixels = rectangle(height, width, (10 + i, 15, 41, 37 - i))
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def command(workdir, out, images, *more):
    return main([str(workdir), f"--out={out}", f"--images={images}", "--score=0.1", *more])


def test_a_small_ssd(workdir, images, tmp_path, capsys):
    assert command(workdir, tmp_path / "ssd", images, "--step=best") == 0
    said = capsys.readouterr().out
    assert "3 of the 3 images given" in said and "0 found by one alone" in said
    assert [x.name for x in tmp_path.iterdir()] == ["ssd.stablehlo"]


@pytest.fixture(scope="module")
def made(workdir, images, known, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "detector"
    kept = kept_run(workdir, out.parent / "kept")
    assert command(kept, out, images, "--step=10") == 0
    return kept, out.with_suffix(".stablehlo")


def test_the_file_finds_what_the_run_finds(made, images):
    """With resizing that keeps proportions, in two of its shapes, and masks."""
    kept, path = made
    detector = artifact.load(path)
    assert detector.class_names == NAMES
    predictor = Predictor(kept, step=10, batch_size=1)
    given = [np.asarray(Image.open(file)) for file in sorted(images.iterdir())]
    for one, ours in zip(given, predictor(given), strict=True):
        theirs = detector(one)
        assert len(ours.scores) == len(theirs.masks) == 1
        assert parity.difference(ours, theirs, Cuts(np.full(3, 0.1))).within()


def test_the_file_says_what_it_is(made):
    manifest = artifact.load(made[1]).manifest
    assert manifest["classes"] == list(NAMES) and manifest["thresholds"] == [0.1] * 3
    assert manifest["run"]["step"] == 10 and len(manifest["run"]["config_sha256"]) == 64
    assert manifest["image"]["dtype"] == "uint8" and manifest["resize"]["name"] == "keep_ratio"
    assert manifest["parity"]["images"] == 3 and manifest["parity"]["missing"] == 0


def test_other_images_are_refused(made):
    detector = artifact.load(made[1])
    for wrong in (np.zeros((20, 20, 1), np.uint8), np.zeros((20, 20, 3), np.uint16)):
        with pytest.raises(DataError, match="the run was trained on uint8 .*: give such images"):
            detector(wrong)


def changed(path, members=(), compression=zipfile.ZIP_STORED, **manifest):
    """The bytes of an export whose manifest or members have other values; None: without the member."""
    out = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w", compression) as new:
        for name in old.namelist():
            data = dict(members).get(name, old.read(name))
            if name == artifact.MANIFEST:
                data = json.dumps(json.loads(data) | manifest).encode()
            if data is not None:
                new.writestr(name, data)
    return out.getvalue()


def weights(**arrays):
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def boasting():
    """Weights whose header tells of more than there is."""
    out, header = io.BytesIO(), io.BytesIO()
    told = {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)}
    np.lib.format.write_array_header_1_0(header, told)
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("0.npy", header.getvalue())
    return out.getvalue()


def test_what_is_no_export_is_refused(made, tmp_path):
    data = made[1].read_bytes()
    cases = {
        "absent": (None, "cannot be read"),
        "torn": (data[: len(data) // 2], "no export of jdet"),
        "text": (b"hello", "no export of jdet"),
        "newer": (changed(made[1], format=2), "format 2, .* export the run again"),
        "packed": (changed(made[1], compression=zipfile.ZIP_DEFLATED), "is compressed"),
        "no zip": (changed(made[1], [(artifact.WEIGHTS, b"hello")]), "BadZipFile"),
        "without": (changed(made[1], [(artifact.WEIGHTS, None)]), "KeyError: 'weights.npz'"),
        "boasting": (changed(made[1], [(artifact.WEIGHTS, boasting())]), "an array float32"),
        "others": (changed(made[1], [(artifact.WEIGHTS, weights(a=np.ones(3)))]), "'0.npy'"),
        "more": (
            changed(made[1], [(artifact.WEIGHTS, weights(**{"0": np.ones(3)}))]),
            "not of one run",
        ),
        "pickled": (
            changed(made[1], [(artifact.WEIGHTS, weights(**{"0": np.array([{}])}))]),
            "an array object",
        ),
        "program": (changed(made[1], [(artifact.PROGRAM, b"\0" * 64)]), "no export of jdet"),
        "classes": (changed(made[1], classes=["one"]), "not of one run"),
        "no classes": (changed(made[1], classes=None), "TypeError"),
        "tile": (changed(made[1], tile={"sides": 4}), "unexpected keyword argument"),
        "thresholds": (changed(made[1], thresholds="high"), "no export of jdet"),
    }
    for name, (content, message) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=message):
            artifact.load(tmp_path / name)


def test_long_images_need_no_square(made, monkeypatch):
    """Which of 1,000 by 20,000 pixels would have a billion."""
    detector, shapes = artifact.load(made[1]), []

    def call(weights, thresholds, canvas, size):
        shapes.append(canvas.shape)
        return {k: np.zeros((0, 4), int) for k in ("boxes", "scores", "labels", "valid")}

    monkeypatch.setattr(detector, "_call", call)
    for size in ((300, 4000), (4097, 20), (1, 256)):
        detector._whole(np.zeros((*size, 3), np.uint8), "")
    assert shapes == [(512, 4096, 3), (8192, 256, 3), (256, 256, 3)]


def test_a_file_that_is_there_is_kept(workdir, tmp_path, images, capsys):
    (tmp_path / "a.stablehlo").write_text("mine")
    assert command(workdir, tmp_path / "a", images) == 2
    assert "exists" in capsys.readouterr().err
    assert (tmp_path / "a.stablehlo").read_text() == "mine"


def test_a_run_without_checkpoints_is_a_mistake(workdir, tmp_path, images, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text((workdir / "config.json").read_text())
    assert command(tmp_path / "run", tmp_path / "a", images) == 2
    assert "error:" in capsys.readouterr().err and not (tmp_path / "a.stablehlo").exists()


class TestWithoutANetwork:
    """What happens to the file; the program is the one that was made."""

    @pytest.fixture(autouse=True)
    def _program(self, made, monkeypatch):
        with zipfile.ZipFile(made[1]) as file:
            program = file.read(artifact.PROGRAM)
        monkeypatch.setattr(artifact, "make", lambda *_: program)
        monkeypatch.setattr(parity, "compare", lambda *_: self.found)

    found = parity.Difference(images=1, objects=1)

    def test_a_larger_limit_lets_rounding_through(self, made, tmp_path, images, capsys):
        self.found = parity.Difference(images=1, objects=1, pixels=0.005)
        assert command(made[0], tmp_path / "a", images) == 1
        assert "--pixels=0.01 lets that through" in capsys.readouterr().out
        assert command(made[0], tmp_path / "a", images, "--pixels=0.01") == 0
        assert artifact.load(tmp_path / "a.stablehlo").manifest["parity"]["limit"] == 0.01

    def test_an_export_unlike_its_run_is_not_written(self, made, tmp_path, images, capsys):
        self.found = parity.Difference(images=1, objects=1, pixels=0.5)
        assert command(made[0], tmp_path / "a", images) == 1
        assert "a.stablehlo is not written" in capsys.readouterr().out
        assert not list(tmp_path.iterdir())

    def test_an_export_that_was_compared_on_nothing_is_not_written(
        self, made, tmp_path, images, capsys
    ):
        self.found = parity.Difference(images=3)
        assert command(made[0], tmp_path / "a", images) == 2
        assert "nothing was compared: the run finds no object in 3 of" in capsys.readouterr().err
        assert not list(tmp_path.iterdir())
        self.found = parity.Difference(images=3, objects=1)
        assert command(made[0], tmp_path / "a", images, "--score=0.01") == 0

    def test_no_room(self, made, tmp_path, images, monkeypatch, capsys):
        def full(path, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(export, "write_bytes", full)
        assert command(made[0], tmp_path / "a", images) == 2
        assert "a.stablehlo cannot be written" in capsys.readouterr().err
        assert not list(tmp_path.iterdir())

    def test_both_files(self, made, tmp_path, images, monkeypatch):
        """ONNX Runtime is not here to run it."""
        monkeypatch.setattr(environment, "python", lambda *_: "python")
        monkeypatch.setattr(environment, "Runner", lambda *_: contextlib.nullcontext())
        assert command(made[0], tmp_path / "a.onnx", images, "--format=both") == 0
        assert sorted(x.name for x in tmp_path.iterdir()) == ["a.onnx", "a.stablehlo"]
        data = (tmp_path / "a.onnx").read_bytes()
        manifest = data[data.rindex(b'{"format"') :].decode()
        assert json.loads(manifest)["classes"] == list(NAMES)
        for name in (b"image", b"size", b"boxes", b"scores", b"labels", b"valid", b"masks"):
            assert name in data

    def test_force_replaces_a_file(self, made, tmp_path, images):
        (tmp_path / "a.stablehlo").write_text("mine")
        assert command(made[0], tmp_path / "a.stablehlo", images, "--force") == 0
        assert artifact.load(tmp_path / "a.stablehlo").class_names == NAMES


def test_without_the_runs_data_images_are_random(made, monkeypatch):
    def gone(config):
        raise DataError("the folder is gone")

    monkeypatch.setattr(build, "sources", gone)
    predictor = Predictor(made[0], batch_size=1)
    images, which = parity.images_of(predictor, [], 3)
    images = list(images)
    assert "random" in which and len(images) == 3
    assert all(image.dtype == np.uint8 and image.std() > 20 for _, image in images)
