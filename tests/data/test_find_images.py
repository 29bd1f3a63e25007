"""Which files of a folder are taken for images."""

from jdet.data.find_images import expanded, find_images


def test_hidden_files_and_thumbnails_are_no_images(tmp_path):
    for name in (
        "a.png",
        "sub/b.tif",
        "._a.png",
        ".ipynb_checkpoints/a-checkpoint.png",
        "__MACOSX/sub/._b.png",
        "sub/@eaDir/b.tif/SYNOPHOTO_THUMB_M.jpg",
        ".thumbnails/1.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [f.name for f in find_images(tmp_path)] == ["a.png", "sub/b.tif"]
    hidden = tmp_path / ".thumbnails"  # named, so it is meant
    assert [f.name for f in find_images(hidden)] == ["1.png"]


def test_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").touch()
    assert [f.path for f in find_images("~/pictures")] == [tmp_path / "pictures" / "a.png"]
    assert str(expanded("~nobody-of-this-name/a.png")) == "~nobody-of-this-name/a.png"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~").mkdir()
    assert str(expanded("~")) == "~"
