"""The commit of a checkout, and none of what is not one."""

import shutil
import subprocess

import pytest

from jdet.train import provenance


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not on PATH")
def test_the_commit_says_whether_files_were_changed(tmp_path):
    assert provenance.commit(tmp_path) == ""

    def git(*args):
        name = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", tmp_path, *name, *args], check=True, capture_output=True)

    git("init")
    assert provenance.commit(tmp_path) == ""  # nothing is committed
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-m", "one", "--no-gpg-sign")
    clean = provenance.commit(tmp_path)
    assert len(clean) == 12 and int(clean, 16) >= 0
    (tmp_path / "file").write_text("two")
    assert provenance.commit(tmp_path) == f"{clean}+"
    (tmp_path / "inner").mkdir()
    assert provenance.commit(tmp_path / "inner") == ""  # the checkout above is somebody else's


def test_stretches_are_joined_and_begin_where_something_differs(monkeypatch):
    def trained(before, start, devices=1):
        return provenance.stretches(before, start, {"jdet": "1"}, devices=devices)

    once = trained([], 0)
    assert [each["first"] for each in once] == [0] and trained(once, 20) == once
    twice = trained(once, 20, devices=2)
    assert [(x["first"], x["machine"]["devices"]) for x in twice] == [(0, 1), (20, 2)]
    assert trained(twice, 10) == once  # what came after is trained anew
    monkeypatch.setattr(provenance, "code", lambda: "other")
    assert [each["code"] for each in trained(once, 30)] == [once[0]["code"], "other"]


def test_the_digest_of_code_is_of_names_and_content(tmp_path):
    (tmp_path / "a.py").write_text("one")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_text("made")
    first = provenance.code_files(tmp_path)
    assert list(first) == ["a.py"]
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert provenance.digest_of(first) != provenance.digest_of(provenance.code_files(tmp_path))
