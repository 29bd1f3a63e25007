"""Which folders can hold a run, and that no two processes train in one, with and without file locks."""

import errno
import os
import shlex

import pytest

from jdet.train import claim
from jdet.train.claim import Claim, check_name
from jdet.types import ConfigError


@pytest.mark.parametrize(
    "name, wrong",
    [
        ("r[1]", "[ "),
        ("a*/run", "* "),
        ("what?", "? "),
        ("a\\b", "\\ "),
        (os.fsdecode(b"caf\xe9"), "bytes that are not UTF-8"),
    ],
)
def test_a_name_that_checkpoints_do_not_survive_comes_with_one_that_does(tmp_path, name, wrong):
    with pytest.raises(ConfigError) as error:
        check_name(tmp_path / name)
    message = str(error.value)
    assert f"has {wrong}" in message.replace(" in its path", "  in its path")
    check_name(shlex.split(message)[-1].removeprefix("--workdir="))


@pytest.mark.parametrize("name", ["gs://bucket/run", "s3:/bucket", "https://host/run", "x/gs:/run"])
def test_addresses_are_no_folders(name):
    with pytest.raises(ConfigError, match="is an address.*mount the bucket"):
        check_name(name)


def test_other_names_are_left_alone(tmp_path):
    for name in ("größe 中", "a]b", "run (2)", "it's", "50%", "k=v", "a:b", "~x"):
        check_name(tmp_path / name)


@pytest.fixture(params=[errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def without_locks(request, monkeypatch):
    def flock(*_):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(claim.fcntl, "flock", flock)


def test_without_file_locks_the_owner_renews_its_claim(tmp_path, without_locks, monkeypatch):
    monkeypatch.setattr(claim, "BEAT_SECONDS", 0.01)
    said = []
    held = Claim(tmp_path, said.append)
    assert len(said) == 1 and "has no locks" in said[0]
    old = os.stat(tmp_path / claim.LOCK).st_mtime - 2 * claim.STALE_SECONDS
    for _ in range(100):
        os.utime(tmp_path / claim.LOCK, (old, old))
        if held._released.wait(0.02) or os.stat(tmp_path / claim.LOCK).st_mtime > old:
            break
    assert os.stat(tmp_path / claim.LOCK).st_mtime > old
    with pytest.raises(ConfigError, match=f"in use by process {os.getpid()}") as error:
        Claim(tmp_path)
    assert f"remove {tmp_path / claim.LOCK}" in str(error.value)
    held.release()
    Claim(tmp_path).release()
    assert {p.name for p in tmp_path.iterdir()} == {claim.LOCK}


@pytest.mark.parametrize("owner, age, lapsed", [
    ("7 elsewhere", 5, False),
    ("7 elsewhere", 100, True),
    (f"999999999 {claim.socket.gethostname()}", 5, True),
    ("", 5, True),
])  # fmt: skip
def test_a_claim_without_lock_lapses(tmp_path, without_locks, owner, age, lapsed):
    lock = tmp_path / claim.LOCK
    lock.write_text(owner)
    then = lock.stat().st_mtime - age
    os.utime(lock, (then, then))
    if not lapsed:
        with pytest.raises(ConfigError, match="process 7 on elsewhere; .* wait 60 s or remove"):
            Claim(tmp_path)
        lock.unlink()  # as the message says
    Claim(tmp_path).release()


def test_with_locks_only_a_held_one_means_in_use(tmp_path):
    said = []
    held = Claim(tmp_path, said.append)
    with pytest.raises(ConfigError, match=f"in use by process {os.getpid()} on ") as error:
        Claim(tmp_path)
    assert "remove" not in str(error.value) and not said
    held.release()
    Claim(tmp_path).release()
