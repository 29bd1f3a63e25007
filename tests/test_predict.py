import json
import os
import weakref

import numpy as np
import pytest
from PIL import Image

from jdet import build, predict
from jdet.analyse import records
from jdet.data.find_images import find_images, unique_name
from jdet.data.readers.decoder import Decoder
from jdet.evaluation.image_kind import ImageCheck
from jdet.evaluation.predictor import Predictor
from jdet.types import ConfigError
from tests.analyse.test_records import EMPTY
from tests.evaluation.pixel_detector import FOLDING, PixelDetector
from tests.evaluation.saved_run import NAMES, kept_run, rectangle, save_run


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    save_run(folder)
    return folder


@pytest.fixture
def pixels(monkeypatch):
    """Predicts with a detector that finds red rectangles exactly."""
    detector = PixelDetector()
    monkeypatch.setattr(build, "detector", lambda *_: detector)
    return detector


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)
    return path


def run(workdir, images, out, *more):
    return predict.main([f"--workdir={workdir}", f"--images={images}", f"--out={out}", *more])


def results(out):
    read = [json.loads((out / name).read_text()) for name in ("detections.json", "images.json")]
    return read[0], read[1]


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_a_small_ssd_from_folder_to_files(workdir, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for i in range(3):
        save(tmp_path / "in" / f"{i}.png", rng.integers(0, 255, (40 + i, 60, 3), np.uint8))
    out = tmp_path / "out"
    assert run(workdir, tmp_path / "in", out, "--step=best", "--score=0.05", "--batch_size=2") == 0
    assert "3 of 3 images done" in capsys.readouterr().out
    records, index = results(out)
    assert len(index["images"]) == 3 and index["failed"] == []
    assert [c["name"] for c in index["categories"]] == list(NAMES)
    sizes = {image["id"]: (image["width"], image["height"]) for image in index["images"]}
    assert len(records) > 5 and {r["image_id"] for r in records} <= set(sizes)
    for record in records:
        x, y, w, h = record["bbox"]
        width, height = sizes[record["image_id"]]
        assert record["score"] >= 0.05 and w > 0 and h > 0
        assert x >= 0 and y >= 0 and x + w <= width + 1e-2 and y + h <= height + 1e-2
        assert NAMES[record["category_id"] - 1] == record["category_name"]
    assert files(out / "images") == [f"{i}.png" for i in range(3)]

    found = list(predict.predict(workdir, tmp_path / "in", step="best", score=0.05, batch_size=2))
    assert [p.id for p in found] == [f"{i}.png" for i in range(3)]
    for one in found:
        own = [r["score"] for r in records if r["file_name"] == one.id]
        np.testing.assert_allclose(own, one.scores, atol=1e-4)


def test_images_that_keep_their_proportions(workdir, tmp_path, pixels, capsys):
    """Wide, high, square and panoramic ones mixed in a batch: in order, in their own pixels."""
    copy = kept_run(workdir, tmp_path / "run")
    sizes = [(64, 128), (128, 64), (64, 64), (128, 256), (300, 30), (96, 64)]
    for i, (height, width) in enumerate(sizes):
        box = (width // 4, height // 4, width // 2, height // 2)
        save(tmp_path / "in" / f"{i}.png", rectangle(height, width, box))
    assert run(copy, tmp_path / "in", tmp_path / "out", "--batch_size=4", "--score=0.01") == 0
    records, _ = results(tmp_path / "out")
    assert [r["file_name"] for r in records] == [f"{i}.png" for i in range(6)]
    for record, (height, width) in zip(records, sizes, strict=True):
        expected = [width // 4, height // 4, width // 2 - width // 4, height // 4]
        pixel = max(1.0, height / 128, width / 128)  # of the network, in those of the image
        np.testing.assert_allclose(record["bbox"], expected, atol=2 * pixel)
    assert pixels.traces == FOLDING + 2  # shapes


def test_pycocotools_reads_the_results(workdir, tmp_path, pixels, capsys):
    from pycocotools.coco import COCO

    save(tmp_path / "in" / "a.png", rectangle(64, 128, (32, 16, 64, 48)))
    assert run(workdir, tmp_path / "in", tmp_path / "out") == 0
    coco = COCO(str(tmp_path / "out" / "images.json"))
    (record,) = coco.loadRes(str(tmp_path / "out" / "detections.json")).anns.values()
    assert record["bbox"] == [32, 16, 32, 32] and coco.cats[record["category_id"]]["name"] == "disc"


def test_categories_keep_the_ids_of_the_training_data(workdir, tmp_path, pixels, capsys):
    config = json.loads((workdir / "config.json").read_text())
    copy = tmp_path / "run"
    copy.mkdir()
    (copy / "checkpoints").symlink_to(workdir / "checkpoints")
    (copy / "config.json").write_text(json.dumps({**config, "category_ids": [7, 9, 90]}))
    save(tmp_path / "in" / "a.png", rectangle(64, 128, (32, 16, 64, 48)))
    assert run(copy, tmp_path / "in", tmp_path / "out") == 0
    (record,), index = results(tmp_path / "out")
    assert (record["category_id"], record["category_name"]) == (7, "disc")
    named = [{"id": i, "name": name} for i, name in zip((7, 9, 90), NAMES)]
    assert index["categories"] == named


def test_odd_images_work_and_broken_ones_are_reported(workdir, tmp_path, pixels, capfd):
    folder, box = tmp_path / "in", (16, 16, 48, 32)
    plain = rectangle(64, 64, box)
    good = save(folder / "plain.JPG", plain, quality=100, subsampling=0)
    save(folder / "sub" / "deep" / "plain.JPG", plain, quality=95)
    save(folder / "rgba.png", np.dstack([plain, np.full((64, 64), 90, np.uint8)]))
    save(folder / "grey.png", plain[..., 0])
    Image.fromarray(plain).convert("CMYK").save(folder / "cmyk.jpg", quality=100)
    Image.fromarray(plain[..., 0].astype(np.uint16) * 257).save(folder / "deep16.png")
    save(folder / "thin.png", rectangle(200, 1, (0, 20, 1, 60)))
    save(folder / "dot.png", plain[:1, :1])
    save(folder / "größe und.png", plain)
    save(folder / "scan.tif", plain)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right by a quarter to see it upright
    turned = rectangle(64, 128, (16, 8, 48, 24))
    save(folder / "turned.jpg", turned, quality=100, subsampling=0, exif=exif)
    (folder / "cut.jpg").write_bytes(good.read_bytes()[:500])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("not an image")
    (folder / "notes.txt").write_text("left alone")
    (folder / "folder.png").mkdir()
    latin = os.fsencode(folder) + b"/\xe9.png"
    save(folder / "x.png", plain).rename(os.fsdecode(latin))

    assert run(workdir, folder, tmp_path / "out") == 0
    log = capfd.readouterr()
    records, index = results(tmp_path / "out")
    broken = ("cut.jpg", "deep16.png", "empty.png", "text.jpg")  # 16 bits are another kind
    assert {f["file_name"] for f in index["failed"]} == set(broken)
    assert "11 of 15 images done" in log.out and "4 failed" in log.out
    for name in broken:
        assert f"cannot use {name}: " in log.err
    boxes = {r["file_name"]: r["bbox"] for r in records}
    for name in ("plain.JPG", "sub/deep/plain.JPG", "rgba.png", "cmyk.jpg", "größe und.png"):
        np.testing.assert_allclose(boxes[name], [16, 16, 32, 16], atol=1.5), name
    assert "grey.png" not in boxes  # read, and nothing red in it
    assert boxes["thin.png"] == pytest.approx([0, 20, 1, 40], abs=4)
    # x' = height - y: the box of the upright image, 64 wide and 128 high
    np.testing.assert_allclose(boxes["turned.jpg"], [40, 16, 16, 32], atol=1.5)
    (turned_info,) = [i for i in index["images"] if i["file_name"] == "turned.jpg"]
    assert (turned_info["width"], turned_info["height"]) == (64, 128)
    written = files(tmp_path / "out" / "images")
    assert len(written) == 11 and "sub/deep/plain.JPG" in written and "scan.tif.jpg" in written


def test_equal_names_do_not_overwrite_each_other(workdir, tmp_path, pixels, capsys):
    a = save(tmp_path / "a" / "x.png", rectangle(64, 64, (0, 0, 16, 16)))
    b = save(tmp_path / "b" / "x.png", rectangle(64, 64, (0, 0, 32, 32)))
    out = tmp_path / "out"
    assert run(workdir, f"{a},{b}", out, "--images", f"{tmp_path}/a", f"{tmp_path}/?/*.png") == 0
    records, _ = results(out)
    assert {r["file_name"]: r["bbox"][2] for r in records} == {"x.png": 16, "x_2.png": 32}
    assert files(out / "images") == ["x.png", "x_2.png"]
    assert Decoder()(out / "images" / "x.png").shape == (512, 512, 3)


def test_results_inside_the_input_folder_are_not_read_again(workdir, tmp_path, pixels, capsys):
    save(tmp_path / "x.png", rectangle(64, 64, (0, 0, 16, 16)))
    for _ in range(2):
        assert run(workdir, tmp_path, tmp_path / "out") == 0
        assert "1 of 1 images done" in capsys.readouterr().out


def test_exit_code_is_two_if_nothing_worked(workdir, tmp_path, pixels, capsys):
    (tmp_path / "bad.jpg").write_bytes(b"nonsense")
    assert run(workdir, tmp_path / "bad.jpg", tmp_path / "out") == 2
    assert run(workdir, tmp_path / "missing.jpg", tmp_path / "out") == 2
    assert "missing.jpg: " in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert run(workdir, tmp_path / "empty", tmp_path / "out") == 2
    assert "no images in" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, message",
    [
        (["--workdir=/nowhere"], "/nowhere holds no run"),
        (["--step=11"], r"no checkpoint of step 11; it has [0, 10]"),
        (["--step=last"], "step='last': give a number, 'best' or 'latest'"),
        (["--batch_size=0"], "--batch_size=0 must be at least 1"),
        (["--score=30"], "--score=30.0 must be in 0 … 1"),
        (["--score=best"], "or one of auto, precision"),
        (["--score=precision"], "has no analysis.json; make it: python -m jdet.analyse"),
    ],
)
def test_mistakes_are_explained_in_a_line(workdir, tmp_path, capsys, options, message):
    save(tmp_path / "x.png", rectangle(64, 64, (0, 0, 16, 16)))
    assert run(workdir, tmp_path / "x.png", tmp_path / "out", *options) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and "Traceback" not in error


def test_each_class_has_the_threshold_of_the_run(workdir, tmp_path, pixels, capsys):
    copy, file = (
        kept_run(workdir, tmp_path / "run"),
        save(tmp_path / "a.png", rectangle(64, 64, (0, 0, 16, 16))),
    )
    (found,) = predict.predict(copy, file, score=0.0)
    (score,) = found.scores  # of class 0
    for best, number in ((score - 0.01, 1), (score + 0.01, 0)):
        at = score - 0.02 if number else None
        threshold = {"best_f1": {"score": float(best)}, "at_precision": at and {"score": float(at)}}
        nothing = {"best_f1": None, "at_precision": None}
        classes = [{"class": n, "objects": 0, "threshold": nothing} for n in NAMES]
        classes[0] |= {"objects": 9, "threshold": threshold}
        records.write(copy, EMPTY._replace(classes=list(NAMES), per_class=classes))
        for asked in ([], ["--score=auto"], ["--score=precision"]):
            out = tmp_path / f"out{number}"
            assert run(copy, file, out, *asked) == 0
            held, index = results(out)
            assert len(held) == number and "threshold" in index["info"]["description"]
        assert run(copy, file, tmp_path / "plain", "--score=0.2") == 0
        assert len(results(tmp_path / "plain")[0]) == 1
    assert f"{NAMES[1]} 0.3 (not measured)" in capsys.readouterr().out


def test_one_compilation_for_any_number_of_images(workdir, tmp_path, pixels):
    for i in range(7):
        save(tmp_path / f"{i}.png", rectangle(64, 64, (0, 0, 16 + i, 16)))
    found = list(predict.predict(workdir, tmp_path, batch_size=3))
    assert pixels.traces == FOLDING + 1
    widths = [float(p.boxes[0, 2] - p.boxes[0, 0]) for p in found]
    assert widths == [16 + i for i in range(7)]


def test_images_with_numbers_for_names_have_these_as_ids(workdir, tmp_path, pixels, capsys):
    """As COCO's, so that results on its test images can be submitted."""
    for name in ("000000000139.png", "000000000285.png"):
        save(tmp_path / "in" / name, rectangle(64, 64, (0, 0, 16, 16)))
    assert run(workdir, tmp_path / "in", tmp_path / "out") == 0
    records, index = results(tmp_path / "out")
    assert [r["image_id"] for r in records] == [i["id"] for i in index["images"]] == [139, 285]
    save(tmp_path / "in" / "other.png", rectangle(64, 64, (0, 0, 16, 16)))
    assert run(workdir, tmp_path / "in", tmp_path / "out") == 0
    assert [r["image_id"] for r in results(tmp_path / "out")[0]] == [1, 2, 3]


def test_multi_scale_from_the_command_line_and_from_python(workdir, tmp_path, pixels, capsys):
    save(tmp_path / "in" / "a.png", rectangle(64, 128, (32, 16, 64, 48)))
    save(tmp_path / "in" / "b.png", rectangle(128, 64, (16, 32, 48, 64)))
    options = (tmp_path / "in", tmp_path / "out", "--batch_size=2")
    assert run(workdir, *options, "--tta=voc") == 2
    assert "PixelDetector takes inputs of config.input_size only" in capsys.readouterr().err
    pixels.any_input_size = True
    with pytest.raises(SystemExit, match="2"):
        run(workdir, *options, "--tta=vok")
    assert "choose from none, flip, voc, coco, run" in capsys.readouterr().err.replace("'", "")
    assert run(workdir, *options, "--tta=flip") == 0
    records, _ = results(tmp_path / "out")
    expected = {"a.png": [32, 16, 32, 32], "b.png": [16, 32, 32, 32]}
    assert {r["file_name"]: r["bbox"] for r in records} == expected

    pixels.traces = 0
    passes = ((2.0, 1.0, True, 0, 0), (1.0, 1.0, False, 0, 0))
    found = predict.predict(
        workdir, tmp_path / "in", batch_size=2, tta={"preset": "custom", "passes": passes}
    )
    boxes = {p.id: p.boxes.round(3).tolist() for p in found}
    assert boxes == {"a.png": [[32, 16, 64, 48]], "b.png": [[16, 32, 48, 64]]}
    assert pixels.traces == FOLDING + 3
    (plain, _) = predict.predict(
        workdir, tmp_path / "in", batch_size=2, tta="run"
    )  # off in this run
    np.testing.assert_array_equal(plain.boxes, [[32, 16, 64, 48]])


def test_multi_scale_of_kept_proportions(workdir, tmp_path, pixels):
    """A landscape, a portrait and a square image in one batch, in two shapes."""
    folder = kept_run(workdir, tmp_path / "kept")
    pixels.any_input_size = True
    save(tmp_path / "in" / "a.png", rectangle(64, 128, (32, 16, 64, 48)))
    save(tmp_path / "in" / "b.png", rectangle(128, 64, (16, 32, 48, 64)))
    save(tmp_path / "in" / "c.png", rectangle(64, 64, (16, 0, 48, 32)))
    expected = {"a.png": [32, 16, 64, 48], "b.png": [16, 32, 48, 64], "c.png": [16, 0, 48, 32]}
    passes = ((1.0, 1.0, True, 0, 0), (2.0, 2.0, False, 0, 0))
    for how in ("none", "flip", {"preset": "custom", "passes": passes}):
        pixels.traces = 0
        found = predict.predict(folder, tmp_path / "in", batch_size=3, tta=how, score=0.1)
        boxes = {p.id: p.boxes.round(3).tolist() for p in found}
        assert boxes == {name: [box] for name, box in expected.items()}
        assert pixels.traces == FOLDING + (4 if isinstance(how, dict) else 2)


def test_predict_reports_errors_to_the_caller(workdir, tmp_path, pixels):
    good = save(tmp_path / "good.png", rectangle(64, 64, (0, 0, 16, 16)))
    seen = []
    found = predict.predict(
        workdir, [tmp_path / "no.png", good], on_error=lambda name, error: seen.append(name)
    )
    assert [p.id for p in found] == ["good.png"] and seen == ["no.png"]
    with pytest.raises(ConfigError, match="holds no run"):
        predict.predict("/nowhere", good)


def test_find_images(tmp_path):
    for name in ("b.JPEG", "a.png", "sub/a.png", "sub/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [f.name for f in find_images(tmp_path)] == ["a.png", "b.JPEG", "sub/a.png"]
    pattern = [f.name for f in find_images(f"{tmp_path}/**/*.txt")]
    assert pattern == ["c.txt"]  # a pattern takes what it says
    both = find_images([tmp_path / "sub", tmp_path / "a.png", tmp_path])
    assert [f.name for f in both] == ["a.png", "a_2.png", "b.JPEG"]
    assert [f.name for f in find_images("no*where.png")] == ["no*where.png"]


def test_unique_names_differ_on_any_file_system():
    taken = set()
    names = [unique_name(n, taken) for n in ("A.jpg", "a.jpg", "a_2.jpg", "d/a.jpg", "a.jpg")]
    assert names == ["A.jpg", "a_2.jpg", "a_2_2.jpg", "d/a.jpg", "a_3.jpg"]


def test_many_images_stream_through_few_in_memory(workdir, tmp_path, pixels, monkeypatch):
    for number in range(200):
        save(tmp_path / f"{number}.png", rectangle(64, 64, (8, 8, 40, 40)))
    held, most = 0, 0
    read = ImageCheck.read

    def gone():
        nonlocal held
        held -= 1

    def watched(self, path):
        nonlocal held, most
        image = read(self, path)
        held += 1
        most = max(most, held)
        weakref.finalize(image, gone)
        return image

    monkeypatch.setattr(ImageCheck, "read", watched)
    predictor = Predictor(kept_run(workdir, tmp_path / "kept"), batch_size=4)
    images, lowest = find_images([tmp_path]), np.zeros(len(NAMES))
    count = sum(1 for _ in predict.detect_files(predictor, images, lowest, pytest.fail))
    assert count == 200
    # Eight are read ahead, by two threads; three batches are collected, detected and handed out.
    assert most <= 8 + 2 + 3 * 4 + 1
