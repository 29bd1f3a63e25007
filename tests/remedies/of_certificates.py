"""Remedies of certificates and of what verifies them."""

import contextlib
import io
import json
from unittest import mock

import numpy as np

from jdet import build
from jdet.certify import __main__ as certify_command
from jdet.certify import certificate, licences
from jdet.train.checkpoints.checkpoint import Checkpoints
from jdet.types import TrainState
from jdet.verify import __main__ as verify_command
from jdet.verify import checks, moved
from tests.certify import tiny_run
from tests.certify.test_form import certificate_made
from tests.remedies.rows import Elsewhere, Untyped, row
from tests.train import fake

CERTIFY, VERIFY = "jdet/certify/__main__.py", "jdet/verify/__main__.py"
CARD, CERTIFICATE = "jdet/certify/card.py", "jdet/certify/certificate.py"
LICENCES, CHECKS = "jdet/certify/licences.py", "jdet/verify/checks.py"
MOVED = "jdet/verify/moved.py"

TESTS = "tests/certify/test_certificate.py"


def make_run(folder, steps=(2,)):
    """A folder like that of a run that was trained, with arrays of no detector."""
    run = folder / "run"
    run.mkdir(parents=True, exist_ok=True)
    c = fake.config()
    c.data.train = c.data.eval = build.group(
        "source", "shapes", size=32, count=2, num_classes=2, min_scale=0.2
    )
    c.class_names = ("disc", "square")
    (run / "config.json").write_text(c.to_json())
    arrays = {"a": np.ones(3, np.float32)}
    with Checkpoints(run / "checkpoints") as checkpoints:
        for step in steps:
            state = TrainState(np.array(step, np.int32), arrays, {}, {"m": arrays["a"]}, None)
            checkpoints.save(step, state)
    return run


def certify(
    folder, steps=(2,), damaged=False, classes=None, there=False, out="c.json", force=False, card=""
):
    """What the command says of a run made for it."""
    run = make_run(folder, steps)
    if damaged:
        (run / "checkpoints" / "2" / "about.json").write_text("{}")
    if classes:
        stored = json.loads((run / "config.json").read_text())
        stored["class_names"] = classes
        (run / "config.json").write_text(json.dumps(stored))
    (folder / "a_file").write_text("mine")
    if there:
        (folder / "c.json").write_text("mine")
    given = [
        str(run),
        f"--out={folder / out}",
        f"--card={folder / card if card else folder / 'card'}",
    ]
    return said(certify_command.main, [*given, *(["--force"] if force else [])])


def said(main, arguments):
    """What a command prints."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        main(arguments)
    return text.getvalue()


def read(folder, content):
    """Reads a file with some content as a certificate."""
    texts = {
        "none": "[1]",
        "torn": '{"format"',
        "older": '{"format": 0}',
        "part": '{"format": 1}',
        "whole": json.dumps(certificate_made()),
    }
    (folder / "c.json").write_text(texts[content])
    certificate.read(folder / "c.json")


def with_images(folder, absent=False):
    """Certifies a run on files, of which one may be gone."""
    run = make_run(folder)
    c = tiny_run.config(tiny_run.make_data(folder / "data"))
    c.class_names = ("cat", "dog")
    (run / "config.json").write_text(c.to_json())
    data = certificate.read_data(c)
    if absent:
        gone = data.leaves["train"][0]._replace(image="absent")
        data.leaves["train"][0] = gone
    with mock.patch.object(certificate, "read_data", return_value=data):
        certificate.certify(run)


def of_config(folder, text):
    """Reads the config of a run after it was certified, torn or put back."""
    run = make_run(folder, ())
    made = {"config": json.loads((run / "config.json").read_text())}
    (run / "config.json").write_text(text or fake.config().to_json())
    checks.of_config(made, run)


def config_of_run(folder, torn):
    """Certifies a run whose config is torn between its opening and its copy."""
    run = make_run(folder)
    opened = certificate.open_run(run)
    if torn:
        (run / "config.json").write_text("{")
    with mock.patch.object(certificate, "open_run", return_value=opened):
        certificate.certify(run)


def verify(folder, **given):
    run = make_run(folder)
    certify_command.main([str(run)])
    file = run / "certificate.json"
    typed = [f"--{name}={value}" for name, value in given.items() if value is not True]
    typed += [f"--{name}" for name, value in given.items() if value is True]
    with mock.patch.object(verify_command.segments, "retrain", side_effect=AssertionError):
        try:
            return said(verify_command.main, [str(file), *typed])
        except AssertionError:  # a segment is begun
            return ""


def data_moved(folder, **given):
    (folder / "new").mkdir()
    given = [each.format(folder=folder) for each in given["data"]]
    c = fake.config()
    c.data.root = "data"
    moved.with_data(c, moved.parse(given))


def run_moved(folder, run):
    make_run(folder)
    moved.run_of(
        {"run": {"path": str(folder / "gone")}}, folder / "c.json", run and str(folder / run)
    )


def stated(folder, of):
    held = str(folder / "data" / "images")
    licences.of_folders([held], [], {str(folder / of): "CC0"})


ROWS = [
    row(
        CERTIFY,
        "or replace it with --force",
        certify,
        {"there": True},
        {"force": True},
        {"out": "d"},
    ),
    row(CERTIFY, "name another with --card=FILE", certify, {"card": "a_file/x"}, {"card": "x.md"}),
    Elsewhere(
        CERTIFY,
        "state it with ",
        f"{TESTS}::test_nothing_is_replaced_unasked",
        "no licence is known of",
    ),
    Untyped(CARD, "say little about images of another kind", "is advice to people"),
    Elsewhere(
        CARD,
        "python -m jdet.verify {}",
        f"{TESTS}::test_it_holds_and_a_segment_is_trained_again_bit_for_bit",
        "--segments=1",
    ),
    row(CERTIFICATE, "train it first, or", certify, {"steps": ()}, {"steps": (2,)}),
    row(CERTIFICATE, "put back a copy of it, or", certify, {"damaged": True}, {"damaged": False}),
    row(CERTIFICATE, "put back a copy", config_of_run, {"torn": True}, {"torn": False}),
    row(
        CERTIFICATE, "name another file with --out=FILE", certify, {"out": "a_file/c"}, {"out": "d"}
    ),
    row(
        CERTIFICATE,
        "put the class list back",
        certify,
        {"classes": ["cat", "dog"]},
        {"classes": None},
    ),
    row(CERTIFICATE, "put the images back that", with_images, {"absent": True}, {"absent": False}),
    row(
        CERTIFICATE,
        "name a certificate of jdet.certify",
        read,
        {"content": "torn"},
        {"content": "whole"},
    ),
    row(
        CERTIFICATE, "is no certificate; name one", read, {"content": "none"}, {"content": "whole"}
    ),
    row(
        CERTIFICATE,
        "use the version that made it",
        read,
        {"content": "older"},
        {"content": "whole"},
    ),
    row(
        CERTIFICATE,
        "has no usable {}; name one that",
        read,
        {"content": "part"},
        {"content": "whole"},
    ),
    row(
        LICENCES,
        "write --licence=FOLDER=TEXT",
        licences.parse,
        {"given": ["data"]},
        {"given": ["data=CC-BY-4.0"]},
    ),
    row(
        LICENCES,
        "no image of the run lies there",
        stated,
        {"of": "other"},
        {"of": "data/images"},
        {"of": "data"},
    ),
    Untyped(
        LICENCES, "state the licence with --licence", "needs a file that its owner may not read"
    ),
    row(CHECKS, "put back a copy", of_config, {"text": "{"}, {"text": ""}),
    Elsewhere(
        CHECKS, "is said by --data=OLD=NEW", f"{TESTS}::test_moved_data_and_a_moved_run", "--data="
    ),
    row(VERIFY, "--from_start trains from", verify, {}, {"from_start": True}),
    row(VERIFY, "give numbers from 0 on", verify, {"segments": -1}, {"segments": 0}),
    row(MOVED, "name the folder of the run that", run_moved, {"run": ""}, {"run": "run"}),
    row(
        MOVED,
        "write --data=OLD=NEW",
        data_moved,
        {"data": ["data"]},
        {"data": ["data={folder}/new"]},
    ),
    row(
        MOVED,
        "name where the data are now",
        data_moved,
        {"data": ["data=/no/such"]},
        {"data": ["data={folder}/new"]},
    ),
    row(
        MOVED,
        "so write --data={}=NEW",
        data_moved,
        {"data": ["x={folder}/new"]},
        {"data": ["data={folder}/new"]},
    ),
]
