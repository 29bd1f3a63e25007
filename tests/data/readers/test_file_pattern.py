from pathlib import Path

import pytest

from jdet.data.find_images import find_images, together
from jdet.data.readers.file_pattern import FilePattern, derived
from jdet.types import ConfigError


@pytest.mark.parametrize("text", ["", "a.png", "{stem}.png + {stem}.png", "{stem}_{stem}.png + b"])
def test_patterns_that_are_none(text):
    with pytest.raises(ConfigError, match="config.data.image.files="):
        FilePattern(text)


@pytest.mark.parametrize("name", ["a1_rgb.png", "depth/a1.tif", "a1", "a1.png"])
def test_any_name_of_an_image_leads_to_its_files(name):
    pattern = FilePattern("{stem}_rgb.png + depth/{stem}.tif")
    assert pattern.names(name) == ("a1_rgb.png", "depth/a1.tif")


@pytest.mark.parametrize(
    "name", ["a.png", "a_depth.png", "a", "scan_1.5mm", "scan_1.5mm_depth.png"]
)
def test_the_shortest_stem_counts_and_only_suffixes_of_images_are_cut(name):
    stem = name.removesuffix(".png").removesuffix("_depth")
    pattern = FilePattern("{stem}.png + {stem}_depth.png")
    assert pattern.names(name) == (f"{stem}.png", f"{stem}_depth.png")


@pytest.mark.parametrize(
    "files, pattern",
    [
        (
            [("A01_w1.png", "A01_w2.png"), ("B2_w1.png", "B2_w2.png")],
            "{stem}_w1.png + {stem}_w2.png",
        ),
        ([("x_1_r.png", "x_1_g.png")], "{stem}_r.png + {stem}_g.png"),
        ([("a1.png", "a2.png"), ("b1.png", "b2.png")], "{stem}1.png + {stem}2.png"),
        ([("a_1.png", "a_2.png"), ("b_1.png", "c_2.png")], ""),
        ([("a_1.png", "a_2.png"), ("b_1.png", "b_2.png", "b_3.png")], ""),
        ([("a.png",)], ""),
        ([], ""),
    ],
)
def test_names_that_follow_a_pattern(files, pattern):
    assert derived(files) == pattern
    if pattern:
        assert all(FilePattern(pattern).names(names[0]) == tuple(names) for names in files)


def test_files_of_a_folder_are_put_together(tmp_path):
    for name in ("a_w1.png", "a_w2.png", "sub/b_w2.png", "other.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    found = together(find_images(tmp_path), "{stem}_w1.png + {stem}_w2.png")
    parts = {
        file.name: [Path(p).relative_to(tmp_path).as_posix() for p in file.parts] for file in found
    }
    assert parts == {
        "a_w1.png": ["a_w1.png", "a_w2.png"],
        "other.png": [],
        "sub/b_w2.png": ["sub/b_w1.png", "sub/b_w2.png"],  # the missing one is told when it is read
    }
