"""What the command line says of one's own images is known while the experiment reads them."""

import json

import pytest
from absl import flags

from jdet import build, cli
from tests.data.readers.files import coco, npy, values
from tests.data.test_discover import detections
from tests.test_custom_experiment import make
from tests.test_experiments import ROOT


def read(monkeypatch, root, *arguments, experiment="scratchdet_custom", **given):
    """The config of a command line, in this process."""
    monkeypatch.setattr(flags, "FLAGS", flags.FlagValues())
    arg = "".join(f",{key}={value}" for key, value in given.items())
    path = f"{ROOT}/experiments/{experiment}.py:root={root},cpu{arg}"
    cli._parse(["program", f"--config={path}", *arguments])
    return flags.FLAGS.config


def refusal(monkeypatch, capsys, *arguments, **given):
    with pytest.raises(SystemExit, match="2"):
        read(monkeypatch, *arguments, **given)
    return capsys.readouterr().err


def spoilt(first, count=30):
    """``detections`` with boxes as text in the first ``count`` images."""
    data = detections(first)
    for one in data["annotations"][:count]:
        one["bbox"] = "1 2 3 4"
    return data


def test_reasons_are_shown(monkeypatch, capsys, tmp_path):
    make(tmp_path, {"train.json": detections(0), "val.json": detections(100)})
    (tmp_path / "train.json").write_text(json.dumps(spoilt(0)))
    said = refusal(monkeypatch, capsys, tmp_path)
    assert "train.json: none of its 30 images can be used: 0: annotation 0 has the bbox" in said
    assert "'1 2 3 4'" in said and "; and 27 more" in said
    said = refusal(monkeypatch, capsys, tmp_path, "--config.data.on_error=raise")
    assert f"{tmp_path}/train.json: image 0: annotation 0 has the bbox '1 2 3 4'" in said


@pytest.mark.parametrize(
    "given", [("--config.data.on_error=raise",), ("--config.data.on_error", "raise")]
)
def test_one_bad_image_of_many_is_left_out_or_refused(monkeypatch, capsys, tmp_path, given):
    make(tmp_path, {"train.json": spoilt(0, 1), "val.json": detections(100)})
    assert len(build.sources(read(monkeypatch, tmp_path))[0]) == 29
    assert "image 0: annotation 0" in refusal(monkeypatch, capsys, tmp_path, *given)


def test_images_in_a_folder_of_their_own(monkeypatch, capsys, tmp_path):
    """The setting that the error names, as an argument and on the command line."""
    make(tmp_path / "set", {"train.json": detections(0), "val.json": detections(100)})
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for file in (tmp_path / "set").glob("*.jpg"):
        file.rename(elsewhere / file.name)
    said = refusal(monkeypatch, capsys, tmp_path / "set")
    assert "image_root=PATH of the experiments" in said
    assert "--config.data.train.image_root" in said
    config = read(monkeypatch, tmp_path / "set", image_root=elsewhere)
    assert config.data.train.image_root == config.data.eval.image_root == str(elsewhere)
    typed = [f"--config.data.{role}.image_root={elsewhere}" for role in ("train", "eval")]
    for found in (config, read(monkeypatch, tmp_path / "set", *typed)):
        assert list(map(len, build.sources(found))) == [30, 30]


def test_the_root_on_the_command_line(monkeypatch, tmp_path):
    make(tmp_path, {"train.json": detections(0), "val.json": detections(100)})
    config = read(
        monkeypatch, "nowhere", f"--config.data.root={tmp_path}", "--config.data.max_boxes=3"
    )
    assert config.data.train.annotation_file == f"{tmp_path}/train.json"
    assert config.data.max_boxes == 3


def test_classes_are_given(monkeypatch, capsys, tmp_path):
    make(tmp_path, {"train.json": detections(0), "val.json": detections(100)})
    own = list(build.sources(read(monkeypatch, tmp_path))[0].class_names)
    (tmp_path / "names.txt").write_text("\n".join(["more", *own[::-1]]) + "\n", "utf-16")
    for classes in ("+".join(["more", *own[::-1]]), tmp_path / "names.txt"):
        found = build.sources(read(monkeypatch, tmp_path, classes=classes))
        assert [list(source.class_names) for source in found] == [["more", *own[::-1]]] * 2
    said = refusal(monkeypatch, capsys, tmp_path, classes=own[0])
    assert "classes=a+b of the experiments" in said
    said = refusal(monkeypatch, capsys, tmp_path, coordinates="edges")
    assert "source 'coco' has no field 'coordinates'" in said


def test_images_of_many_channels_are_taken_as_they_are(monkeypatch, tmp_path):
    bands = {f"{i}.npy": npy(values("uint16", 5, seed=i)) for i in range(3)}
    coco(tmp_path, bands)
    text = (tmp_path / "set.json").read_text()
    for name in ("train.json", "val.json"):
        (tmp_path / name).write_text(text)
    (tmp_path / "set.json").unlink()
    c = read(monkeypatch, tmp_path, experiment="dense_custom")
    assert (c.data.image.channels, c.data.normalise.by) == ("auto", "data")
    kinds = [source.image_kind for source in build.sources(c)]
    assert kinds[0] == kinds[1] and kinds[0][:3] == (5, "bands", "uint16")
