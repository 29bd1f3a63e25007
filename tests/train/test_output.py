"""Nothing that is printed ends a run: odd encodings, readers that go away, full disks, closed streams."""

import io
import os
import subprocess
import sys

import pytest

from jdet.train.output import Lenient, lenient
from jdet.train.progress import Progress
from tests.harness import child_environment

TEXT = "AP · 猫 \udce9 ok"


class Failing(io.StringIO):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error


@pytest.mark.parametrize(
    "encoding, shown",
    [
        ("ascii", "AP \\xb7 \\u732b \\udce9 ok"),
        ("latin-1", "AP \xb7 \\u732b \\udce9 ok"),
        ("utf-8", "AP · 猫 \\udce9 ok"),
    ],
)
def test_characters_that_a_terminal_lacks_are_escaped(encoding, shown):
    raw = io.BytesIO()
    text = io.TextIOWrapper(raw, encoding)
    stream = Lenient(text, "standard output")
    print(TEXT, file=stream, flush=True)
    assert raw.getvalue().decode(encoding) == f"{shown}\n"
    raw = io.BytesIO()
    wrapped = io.TextIOWrapper(raw, encoding)
    Progress(3, file=wrapped).say(TEXT)
    assert raw.getvalue().decode(encoding) == f"{shown}\n"
    wrapped.close()


@pytest.mark.parametrize(
    "error", [BrokenPipeError(32, "Broken pipe"), OSError(28, "No space left"), OSError(5, "I/O")]
)
def test_a_stream_that_cannot_be_written_is_let_go_and_told_once(error):
    told = io.StringIO()
    stream = Lenient(Failing(error), "standard output", told)
    for _ in range(3):
        print("a", file=stream, flush=True)
    said = f"standard output cannot be written ({error.strerror}); going on without it\n"
    assert told.getvalue() == said
    closed = io.StringIO()
    closed.close()
    print("a", file=Lenient(closed, "standard output"), flush=True)
    Progress(3, file=Failing(error)).say("a")


def test_a_pipe_that_is_full_for_a_moment_is_kept():
    told = io.StringIO()
    held = Failing(BlockingIOError(11, "again"))
    stream = Lenient(held, "standard output", told)
    print("lost", file=stream, flush=True)
    held.error = BrokenPipeError(32, "Broken pipe")
    assert not told.getvalue()
    print("lost", file=stream, flush=True)
    assert told.getvalue()


def test_streams_are_as_before_outside(monkeypatch, capsys):
    before = sys.stdout, sys.stderr
    with lenient():
        assert isinstance(sys.stdout, Lenient) and sys.stdout.encoding == before[0].encoding
        inner = sys.stdout
        with lenient():
            assert sys.stdout is inner
        print("inside")
    assert (sys.stdout, sys.stderr) == before and capsys.readouterr().out == "inside\n"
    monkeypatch.setattr(sys, "stderr", None)
    with lenient():
        print("nowhere", file=sys.stderr, flush=True)
    assert sys.stderr is None


CODE = """
import sys
from jdet import cli
def work():
    for _ in range(20000):
        print("· 猫")
        print("· 猫", file=sys.stderr)
    open(sys.argv[1], "w").write("done")
sys.exit(cli.run(work))
"""


@pytest.mark.parametrize("shell", ["{} | head -n 1", "{} > /dev/full", "{} >&- 2>&-", "{} 2>&-"])
def test_a_command_goes_on_to_its_end(tmp_path, shell):
    environment = child_environment(PYTHONIOENCODING="ascii")
    script, done = tmp_path / "script.py", tmp_path / "done"
    script.write_text(CODE)
    command = shell.format(f"{sys.executable} {script} {done}")
    ended = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0 and done.read_text() == "done"
    if "head" in shell or "full" in shell:
        assert ended.stderr.count("standard output cannot be written") == 1
    assert "Traceback" not in ended.stderr and "Exception" not in ended.stderr
    assert os.path.getsize(done) == 4
