"""Labels of any layout as COCO's: the same images, objects and masks come out again."""

import json
import posixpath

import numpy as np
import pytest

from jdet import build
from jdet.convert.__main__ import main
from jdet.convert.convert import convert
from jdet.data.discover import all_splits, discover
from jdet.types import ConfigError
from tests.data.layouts import folders


def sources(root, shape, side):
    group = build.folder_group(shape, str(root), side, keep_masks=True)
    return build.source(group, "here")


@pytest.mark.parametrize("layout, write", folders.CASES, ids=lambda c: getattr(c, "__name__", ""))
def test_what_is_written_is_what_was_read(tmp_path, layout, write):
    write(tmp_path / "set")
    shape, sides = all_splits(tmp_path / "set")
    assert shape == layout
    written = convert(tmp_path / "set", tmp_path / "out")
    again, found = all_splits(tmp_path / "out")
    assert again == "coco" and len(found) == len(sides) == len(written)
    for one, side in zip(written, sides.values(), strict=True):
        before = sources(tmp_path / "set", shape, side)
        after = sources(tmp_path / "out", "coco", one.path.name)
        assert (one.images, one.objects) == (len(before), int(before.class_counts().sum()))
        assert after.class_names == before.class_names and len(after) == len(before)
        masks = 0
        for index in range(len(before)):
            a, b = before[index], after[index]
            assert posixpath.realpath(a.image) == posixpath.realpath(b.image)
            for column in ("boxes", "labels", "ignore", "areas"):
                np.testing.assert_array_equal(getattr(a, column), getattr(b, column))
            assert [*(a.masks or ())] == [*(b.masks or ())]
            masks += sum(mask is not None for mask in a.masks or ())
            assert before.image_size(index) == after.image_size(index)
        assert one.masks == masks


def test_into_the_folder_itself(tmp_path, capsys):
    folders.yolo_ultralytics(tmp_path)
    assert main([str(tmp_path), f"--out={tmp_path}/annotations"]) == 0
    said = capsys.readouterr().out
    assert "instances_train.json: 3 images, 3 objects of 2 classes, 0 with masks" in said
    assert discover(tmp_path) == (
        "coco",
        *(f"annotations/instances_{s}.json" for s in ("train", "val")),
    )
    data = json.loads((tmp_path / "annotations" / "instances_val.json").read_text())
    assert data["images"][0]["file_name"] == "images/val/c.png"
    assert not list(tmp_path.rglob("*.tmp"))
    assert main([str(tmp_path), f"--out={tmp_path}/annotations"]) == 2
    assert "instances_train.json exists, and is not overwritten" in capsys.readouterr().err


def test_one_file(tmp_path, capsys):
    folders.csv_headerless(tmp_path / "set")
    assert main([str(tmp_path / "set"), f"--out={tmp_path}/all.json"]) == 0
    folders.csv_header(tmp_path / "sets")
    assert main([str(tmp_path / "sets"), f"--out={tmp_path}/both.json"]) == 2
    said = capsys.readouterr().err
    assert f"the splits train, val; name a folder, such as --out={tmp_path}/both" in said
    assert main([str(tmp_path / "sets"), f"--out={tmp_path}/both"]) == 0


def test_images_without_labels(tmp_path):
    folders.image(tmp_path, "set/a.png")
    (written,) = convert(tmp_path / "set", tmp_path / "a.json", classes=("cat",))
    assert (written.images, written.objects, written.classes) == (1, 0, 1)


def test_what_is_wrong_is_refused_or_left_out(tmp_path, capsys):
    folders.voc_lists(tmp_path)
    (tmp_path / "JPEGImages" / "a.png").unlink()
    assert main([str(tmp_path), f"--out={tmp_path}/out"]) == 2
    assert "names 'a', but" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True
    assert main([str(tmp_path), f"--out={tmp_path}/out", "--on_error=skip"]) == 0
    assert (
        "1 images, 1 objects of 2 classes, 0 with masks, 1 images left out"
        in capsys.readouterr().out
    )
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file is a file; name a folder"):
        convert(tmp_path, tmp_path / "file")
