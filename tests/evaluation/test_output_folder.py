"""Where predictions go: never among other images, never mixed with older ones, known to be writable."""

import errno
import json
import os
import re
import shlex

import pytest

from jdet import predict
from jdet.atomic_files import write_json
from jdet.data import find_images as find_lib
from jdet.data.find_images import ImageFile, find_images
from jdet.evaluation import output_folder
from jdet.evaluation.output_folder import OutputFolder, drawn_names
from jdet.types import ConfigError, DataError
from tests import test_predict
from tests.evaluation.saved_run import rectangle
from tests.test_predict import files, results, run, save

pixels, workdir = test_predict.pixels, test_predict.workdir  # fixtures

BOX = (0, 0, 16, 16)


def image_file(path):
    return save(path, rectangle(64, 64, BOX))


@pytest.mark.parametrize("images, out", [("a", "a"), ("a/b", "a"), ("a", "a/b/c"), (".", "a")])
def test_results_beside_above_and_below_the_images(
    workdir, tmp_path, pixels, capsys, monkeypatch, images, out
):
    monkeypatch.chdir(tmp_path)
    image_file(tmp_path / "a" / "b" / "x.png")
    for _ in range(2):  # results of the first are no images of the second
        assert run(workdir, images, out) == 0
        assert "1 of 1 images done" in capsys.readouterr().out


@pytest.mark.parametrize("images", ["in/images", "in", "other"])
def test_drawn_images_never_come_among_others(
    workdir, tmp_path, pixels, capsys, monkeypatch, images
):
    monkeypatch.chdir(tmp_path)
    mine = image_file(tmp_path / "in" / "images" / "x.png")
    image_file(tmp_path / "other" / "x.png")
    before = mine.read_bytes()
    assert run(workdir, images, "in") == 2
    error = capsys.readouterr().err
    assert "in/images" in error and mine.read_bytes() == before and len(files(tmp_path / "in")) == 1
    (remedy,) = re.findall(r"--out=(\S+)", error)  # as typed
    assert run(workdir, images, remedy) == 0


def test_images_of_an_older_prediction_go(workdir, tmp_path, pixels, capsys):
    out = tmp_path / "out"
    for name in ("a.png", "sub/b.png"):
        image_file(tmp_path / "in" / name)
    assert run(workdir, tmp_path / "in", out) == 0
    (out / "images" / "mine.txt").write_text("kept")
    (tmp_path / "in" / "sub" / "b.png").rename(tmp_path / "in" / "c.png")
    index = json.loads((out / "images.json").read_text())
    del index["drawn"]  # as an earlier version wrote it
    write_json(out / "images.json", index)
    assert run(workdir, tmp_path / "in", out) == 0
    assert files(out / "images") == ["a.png", "c.png", "mine.txt"]
    assert not (out / "images" / "sub").exists()


def test_a_list_that_leads_outside_removes_nothing(tmp_path):
    (tmp_path / "precious.txt").write_text("kept")
    index = {"info": {"description": "jdet.predict"}, "drawn": ["../../precious.txt", "/etc/no"]}
    (tmp_path / "out").mkdir()
    write_json(tmp_path / "out" / "images.json", index)
    OutputFolder(tmp_path / "out", []).begin(["a.png"])
    assert (tmp_path / "precious.txt").exists()


@pytest.mark.parametrize(
    "number, says",
    [
        (errno.EROFS, r"cannot be written \(Read-only file system\); name a folder that can"),
        (errno.EACCES, r"cannot be written \(Permission denied\); name a folder that can"),
        (errno.ENOSPC, "had no room|is full"),
        (errno.EDQUOT, "the quota of .* is used up: make room there, or name another folder"),
    ],
)
def test_a_folder_that_cannot_be_written_is_found_out_first(
    workdir, tmp_path, pixels, capsys, monkeypatch, number, says
):
    def refuse(**_):
        raise OSError(number, os.strerror(number))

    image_file(tmp_path / "in" / "a.png")
    with monkeypatch.context() as patch:
        patch.setattr(output_folder.tempfile, "TemporaryFile", refuse)
        patch.setattr(predict, "Predictor", None)  # nothing is loaded
        assert run(workdir, tmp_path / "in", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert re.search(says, error) and error.count("\n") == 1
    for remedy in re.findall(r"--out=(\S+)$", error.strip()):
        OutputFolder(shlex.split(remedy)[0], []).check_writable()


def broken_at(monkeypatch, name, error):
    write = predict.write_image

    def write_image(path, image):
        if path.name == name:
            if isinstance(error, OSError):
                raise DataError(f"{path}: cannot be written") from error
            raise error
        write(path, image)

    monkeypatch.setattr(predict, "write_image", write_image)


def test_a_folder_that_fills_up_ends_the_prediction_once(
    workdir, tmp_path, pixels, capsys, monkeypatch
):
    for i in range(5):
        image_file(tmp_path / "in" / f"{i}.png")
    broken_at(monkeypatch, "2.png", OSError(errno.ENOSPC, "No space left on device"))
    assert run(workdir, tmp_path / "in", tmp_path / "out", "--batch_size=1") == 2
    assert capsys.readouterr().err.count("error: --out") == 1
    records, index = results(tmp_path / "out")
    assert [r["file_name"] for r in records] == ["0.png", "1.png", "2.png"]
    assert len(index["images"]) == 3


def test_a_signal_leaves_the_results_of_the_finished_images(
    workdir, tmp_path, pixels, capsys, monkeypatch
):
    for i in range(5):
        image_file(tmp_path / "in" / f"{i}.png")
    broken_at(monkeypatch, "2.png", KeyboardInterrupt())
    assert run(workdir, tmp_path / "in", tmp_path / "out", "--batch_size=1") == 130
    error = capsys.readouterr().err
    assert error.startswith("error: stopped by SIGINT; 3 of 5 images done, results in")
    records, index = results(tmp_path / "out")
    assert [r["file_name"] for r in records] == [i["file_name"] for i in index["images"]]
    assert len(records) == 3


@pytest.mark.parametrize("suffix, letter", [(".png", "x"), (".tif", "x"), (".tif", "é")])
def test_the_longest_names_keep_their_detections(workdir, tmp_path, pixels, capsys, suffix, letter):
    name = letter * ((255 - len(suffix)) // len(letter.encode())) + suffix
    image_file(tmp_path / "in" / name)
    assert run(workdir, tmp_path / "in", tmp_path / "out") == 0
    records, _ = results(tmp_path / "out")
    assert [r["file_name"] for r in records] == [name] and not capsys.readouterr().err
    assert len(files(tmp_path / "out" / "images")) == 1


def test_long_names_stay_different():
    names = drawn_names(
        ["x" * 251 + ".tif", "x" * 250 + ".tif", "d/" + "x" * 251 + ".tif", "a.bmp"]
    )
    assert len(set(names)) == 4 and names[-1] == "a.bmp.jpg"
    assert all(len(name.rpartition("/")[2]) <= 255 for name in names)
    twins = drawn_names([f"{'x' * 251}.png", f"{'X' * 251}.png"])
    assert len({name.lower() for name in twins}) == 2 and all(len(n) <= 255 for n in twins)


def test_an_image_that_cannot_be_drawn_keeps_its_detections(
    workdir, tmp_path, pixels, capsys, monkeypatch
):
    image_file(tmp_path / "in" / "a.png")
    broken_at(monkeypatch, "a.png", OSError(errno.ENAMETOOLONG, "File name too long"))
    assert run(workdir, tmp_path / "in", tmp_path / "out") == 0
    assert "detected in a.png, but not drawn: " in capsys.readouterr().err
    assert len(results(tmp_path / "out")[0]) == 1


def test_folders_that_may_not_be_read_are_reported(tmp_path, monkeypatch):
    image_file(tmp_path / "open" / "a.png")
    closed = tmp_path / "closed"
    closed.mkdir()
    scan = os.scandir

    def scandir(path):
        if str(path) == str(closed):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(find_lib.os, "scandir", scandir)
    found = find_images(tmp_path)
    assert found == [ImageFile(closed, "closed"), ImageFile(tmp_path / "open/a.png", "open/a.png")]
    assert find_images(closed) == [ImageFile(closed, "closed")]


def test_patterns_in_folders_that_look_like_patterns(tmp_path):
    image_file(tmp_path / "set [1]" / "a.png")
    assert [f.name for f in find_images(f"{tmp_path}/set [1]/*.png")] == ["a.png"]
    assert [f.name for f in find_images(f"{tmp_path}/set [1]")] == ["a.png"]


@pytest.mark.parametrize("address", ["https://host/a.jpg", "rtsp://camera", "s3://bucket/a.png"])
def test_addresses_and_scores_are_refused_before_a_run_is_loaded(address, tmp_path):
    with pytest.raises(ConfigError, match=f"{address} is an address; fetch it first"):
        predict.predict("/nowhere", address)
    for score in (30, -0.1, float("nan")):
        with pytest.raises(ConfigError, match="must be in 0 … 1"):
            predict.predict("/nowhere", tmp_path, score=score)


def test_a_video_says_how_to_make_images_of_it(workdir, tmp_path, pixels, capsys):
    film = tmp_path / "in" / "my film.mp4"
    film.parent.mkdir()
    film.write_bytes(b"\0\0\0\x20ftypisom")
    for images in (film, film.parent):
        assert run(workdir, images, tmp_path / "out") == 2
        error = capsys.readouterr().err
        assert "mkdir 'my film-frames' && ffmpeg -i " in error
        assert "then --images='my film-frames'" in error
