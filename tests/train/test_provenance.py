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
