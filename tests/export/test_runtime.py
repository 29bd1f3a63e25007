"""The file that users copy: what it does around the network is what jdet does."""

import importlib.util
import json
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from jdet.data import tiles
from jdet.data.readers.decoder import Decoder
from jdet.data.readers.settings import USUAL, ImageSettings
from jdet.evaluation.detect import Moved
from jdet.evaluation.masks import paste_masks
from jdet.evaluation.tiling import Tiling
from jdet.export import manifest
from jdet.export.onnx.environment import RUNTIME
from jdet.types import ImageDetections, ImageKind

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def runtime():
    """The file with a stand-in for onnxruntime, in which jdet may not be imported."""
    text = Path(RUNTIME).read_text()
    assert len(text.splitlines()) <= 200 and "import jdet" not in text and "from jdet" not in text
    spec = importlib.util.spec_from_file_location("jdet_runtime", RUNTIME)
    module = importlib.util.module_from_spec(spec)
    kept = sys.modules.get("onnxruntime")
    sys.modules["onnxruntime"] = types.ModuleType("onnxruntime")
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules["onnxruntime"]
        if kept:
            sys.modules["onnxruntime"] = kept
    return module


def detector_of(runtime, about, find):
    """A detector whose network is ``find(image, size)``, all outputs by name."""
    made = runtime.Detector.__new__(runtime.Detector)
    made.about, made.names = about, about["classes"]
    made._outputs = about["outputs"]
    made._session = types.SimpleNamespace(
        run=lambda _, given: [find(given["image"], given["size"])[n] for n in about["outputs"]]
    )
    return made


GREY = {"channels": 1, "dtype": "uint8", "colour": "gray", "reading": ""}
RGB = {**GREY, "channels": 3, "colour": "rgb"}


def test_tiles_are_cut_and_merged_as_in_evaluation(runtime):
    rng = np.random.default_rng(0)
    tiling = Tiling(side=100, overlap=30, iou_threshold=0.5, max_detections=40)
    about = {"classes": ["a", "b"], "image": GREY, "tile": tiling._asdict()}
    about["outputs"] = ["boxes", "scores", "labels", "valid"]
    corners = rng.uniform(-20, 110, (60, 2, 2)).astype(np.float32)
    boxes = np.clip(np.sort(corners, 1).reshape(60, 4), 0, 100)
    scores, labels = rng.random(60).astype(np.float32), rng.integers(0, 2, 60).astype(np.int32)

    def find(image, size):
        """Every tile has boxes of its own, some doubled from a neighbour's place."""
        turn = int(image[0, 0, 0])
        moved = np.roll(boxes, turn, 0) * np.float32(min(size) / 100)
        valid = np.arange(60) % 7 != turn % 7
        return {"boxes": moved, "scores": np.roll(scores, turn), "labels": labels, "valid": valid}

    for height, width in ((230, 170), (90, 300), (60, 60)):
        image = rng.integers(0, 50, (height, width, 1)).astype(np.uint8)
        parts = []
        for tile in tiling.tiles(height, width):
            cut = tile.cut(image)
            found = find(cut, cut.shape[:2])
            keep = found["valid"]
            one = ImageDetections("", *(found[k][keep] for k in ("boxes", "scores", "labels")))
            parts.append((tile, Moved(one, one.boxes, None, cut.shape[:2])))
        ours = tiling.merge(parts, (height, width), "").image
        theirs = detector_of(runtime, about, find)(image)
        np.testing.assert_array_equal(theirs["boxes"], ours.boxes)
        np.testing.assert_array_equal(theirs["scores"], ours.scores)
        np.testing.assert_array_equal(theirs["labels"], ours.labels)
        assert theirs["names"] == [about["classes"][i] for i in ours.labels]
    for length in (1, 99, 100, 101, 555):
        assert runtime.starts(length, 100, 30) == tiles.starts(length, 100, 30)


def test_masks_are_pasted_as_in_evaluation(runtime):
    rng = np.random.default_rng(0)
    masks = rng.random((5, 14, 14)).astype(np.float32)
    frames = np.array(
        [[3, 4, 30, 25.5], [-9, -7, 20, 60], [5, 5, 5, 9], [10.2, 3.7, 12, 4.4], [0, 0, 40, 30]],
        np.float32,
    )
    shape = (30, 40)
    about = {"classes": ["a"], "image": GREY, "tile": None}
    about["outputs"] = ["boxes", "scores", "labels", "valid", "masks", "frames"]
    plain = np.zeros(5, np.float32), np.zeros(5, np.int32)

    def find(image, size):
        values = (frames, *plain, np.arange(5) != 2, masks, frames)
        return dict(zip(about["outputs"], values, strict=True))

    found = detector_of(runtime, about, find)(np.zeros((*shape, 1), np.uint8))["masks"]
    valid = [0, 1, 3, 4]
    expected = [coco_mask.decode(x) for x in paste_masks(masks[valid], frames[valid], *shape)]
    np.testing.assert_array_equal(found, np.array(expected, bool))
    for mask in (*found, np.ones((3, 4), bool), np.zeros((2, 2), bool)):
        counts = coco_mask.frPyObjects(runtime.runs(mask), *mask.shape)
        np.testing.assert_array_equal(coco_mask.decode(counts), mask)


def test_other_images_are_refused(runtime):
    about = {"classes": ["a"], "image": GREY, "tile": None, "outputs": []}
    made = detector_of(runtime, about, lambda *_: {})
    for wrong in (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 1), np.uint16)):
        with pytest.raises(ValueError, match="the detector takes uint8"):
            made(wrong)


def test_files_are_read_as_they_are(runtime, tmp_path):
    rng = np.random.default_rng(0)
    deep = rng.integers(0, 65536, (9, 7)).astype(np.uint16)
    colour = rng.integers(0, 256, (9, 7, 3)).astype(np.uint8)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(colour).save(tmp_path / "colour.png")
    Image.fromarray(colour).convert("RGBA").save(tmp_path / "alpha.png")
    np.save(tmp_path / "deep.npy", deep)
    sixteen = {**GREY, "channels": 2, "dtype": "uint16", "colour": "bands"}
    both = runtime.read([tmp_path / "deep.png", tmp_path / "deep.npy"], sixteen)
    np.testing.assert_array_equal(both, np.stack([deep, deep], 2))
    assert both.dtype == np.uint16
    for name in ("colour.png", "alpha.png"):
        np.testing.assert_array_equal(runtime.read(tmp_path / name, RGB), colour)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_eight_bit_files_become_what_training_reads(runtime, tmp_path, mode):
    rng = np.random.default_rng(0)
    made = Image.fromarray(rng.integers(0, 256, (9, 7, 4)).astype(np.uint8)).convert(mode)
    made.save(tmp_path / "a.png")
    for kind in (RGB, GREY) if mode in ("1", "L", "LA") else (RGB,):
        decoder = Decoder(ImageKind(kind["channels"], kind["colour"]))
        found = runtime.read(tmp_path / "a.png", kind)
        np.testing.assert_array_equal(found, decoder(tmp_path / "a.png"))
        assert found.dtype == np.uint8


def test_files_of_more_than_eight_bits_are_not_cut_down(runtime, tmp_path):
    rng = np.random.default_rng(0)
    deep = rng.integers(0, 65536, (9, 7, 3)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "colour.png"), deep)
    Image.fromarray(deep[..., 0]).save(tmp_path / "deep.png")
    Image.fromarray(deep[..., 0].astype(np.float32)).save(tmp_path / "float.tif")
    about = {"classes": ["a"], "image": RGB, "tile": None, "outputs": []}
    made = detector_of(runtime, about, lambda *_: {})
    for name in ("colour.png", "deep.png", "float.tif"):
        with pytest.raises(runtime.Unlike, match="16 bits|the detector takes uint8"):
            made(tmp_path / name)


def test_files_that_training_reads_in_a_way_of_its_own_are_refused(runtime, tmp_path):
    settings = ImageSettings(bands=(2, 1, 0), alpha="refuse")
    reading = manifest._unusual(settings)
    assert reading == "alpha='refuse', bands=(2, 1, 0)" and manifest._unusual(USUAL) == ""
    np.save(tmp_path / "a.npy", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(runtime.Unlike, match="give an array read in this way"):
        runtime.read(tmp_path / "a.npy", {**RGB, "reading": reading})


def test_a_file_may_have_a_plus_in_its_name(runtime, tmp_path, monkeypatch, capsys):
    asked = []

    def detect(files):
        asked.append(files)
        return {"boxes": np.zeros((0, 4)), "masks": None}

    monkeypatch.setattr(runtime, "Detector", lambda _: detect)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a+b.png").write_bytes(b"")
    monkeypatch.setattr(sys, "argv", ["jdet_runtime.py", "a.onnx", "a+b.png", "c.png+d.png"])
    runtime.main()
    assert asked == ["a+b.png", ["c.png", "d.png"]]
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize("about", [None, {"format": 2}])
def test_files_of_other_versions_are_refused(runtime, monkeypatch, about):
    metadata = {"jdet": json.dumps(about)} if about else {}
    session = types.SimpleNamespace(
        get_modelmeta=lambda: types.SimpleNamespace(custom_metadata_map=metadata)
    )
    fake = types.SimpleNamespace(
        SessionOptions=types.SimpleNamespace, InferenceSession=lambda *_: session
    )
    monkeypatch.setattr(runtime, "onnxruntime", fake)
    with pytest.raises(ValueError, match="is no detector of format 1"):
        runtime.Detector("a.onnx")
