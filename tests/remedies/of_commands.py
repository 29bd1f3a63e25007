"""Remedies of describe, browse, training, prediction and ensembles on the command line."""

import contextlib
import errno
import os
import re
import shlex
from types import SimpleNamespace
from unittest import mock

from absl import flags

from jdet import build, describe, main, predict
from jdet.browse import browse
from jdet.config import get_defaults
from jdet.convert import convert
from jdet.data import videos
from jdet.evaluation import ensemble, predictor
from jdet.evaluation.output_folder import OutputFolder
from jdet.types import ConfigError
from tests.remedies.rows import Elsewhere, of_config, row

ENSEMBLE, OUT = "jdet/evaluation/ensemble.py", "jdet/evaluation/output_folder.py"

RECORDS, PREDICT, DESCRIBE = (
    "jdet/analysis/landscape_records.py",
    "jdet/predict.py",
    "jdet/describe.py",
)


CONVERT, THRESHOLDS = "jdet/convert/convert.py", "jdet/analyse/thresholds.py"


def ensembled(folder, **given):
    options = {"iou_threshold": 0.5, "max_detections": 0} | given
    out = folder / options.pop("out", "new")
    for name in ("a", "b"):
        (folder / name).mkdir()
        for file in ("detections.json", "images.json"):
            (folder / name / file).write_text("[]")
    with mock.patch.object(ensemble, "read", side_effect=Reached):
        with contextlib.suppress(Reached):
            ensemble.ensemble([folder / "a", folder / "b"], out, **options)


class Reached(Exception):
    """The next stage is reached."""


def same(images):
    index = {"categories": [], "images": [{"id": 1, "file_name": "a.png"}]}
    other = {**index, "images": [{"id": 1, "file_name": name} for name in images]}
    ensemble._same("first", index, "second", other)


def output(folder, out, error=None, images=""):
    """A folder for results: a file, one that holds the images, or one that cannot be written."""
    (folder / "in" / "images").mkdir(parents=True)
    (folder / "file").write_text("mine")
    made = OutputFolder(folder / out, [folder / images] if images else [])
    if error and out == "full":
        raise made.refused(OSError(error, os.strerror(error)))
    made.check_writable()


def asked(config):
    predictor._measured(config, None, required=config.eval.use_ema)


def unread(precise_bn):
    """What is logged where the training data are not there."""
    config = get_defaults()
    config.eval.precise_bn = 3 if precise_bn else 0
    said = []
    with mock.patch.object(predictor.logging, "warning", lambda text, *_: said.append(text)):
        with mock.patch.object(predictor.build, "sources", side_effect=ConfigError("gone")):
            predictor._measured(config, None, required=False)
    return "\n".join(said)


def scored(score=0.3, images=("a.png",)):
    predict._check(score, images)


def film(folder, typed):
    """The folder of the message is one that the same command then reads."""
    (folder / "my film.mp4").write_bytes(b"")
    said = videos.remedy(folder / "my film.mp4")
    if not typed:
        return said
    make, given = re.search("(mkdir .*?) && .*--images=(.*)", said).groups()
    assert shlex.split(make)[1:] == shlex.split(given) == ["my film-frames"]
    return ""


def predicted(batch_size):
    with mock.patch.object(predict, "OutputFolder", side_effect=Reached):
        with mock.patch.object(predict.cli, "run", lambda work, *_: work()):
            with contextlib.suppress(Reached):
                predict.main(["--workdir=a", "--images=b", "--out=c", f"--batch_size={batch_size}"])


def trained(mode, step="latest", phase=""):
    values = SimpleNamespace(mode=mode, step=step, phase=phase, hosts="", coordinator="")
    with mock.patch.object(main, "FLAGS", values), mock.patch.object(main, "worker", REACHED):
        with contextlib.suppress(Reached):
            main.main()


REACHED = mock.Mock(is_assigned=mock.Mock(side_effect=Reached))


def shaped(shape, size=64, name="ssd"):
    config = get_defaults()
    config.input_size = size
    config.model = {"name": name}
    made = SimpleNamespace(
        any_input_size=False, image_kind=SimpleNamespace(channels=3, dtype="uint8")
    )
    with mock.patch.object(describe.build, "detector", lambda *_: made):
        with mock.patch.object(describe.state, "abstract_variables", side_effect=Reached):
            with contextlib.suppress(Reached):
                describe.describe(config, ("a",), shape)


def described(memory=False, shape=""):
    config = get_defaults()
    config.class_names = ("a",)
    values = SimpleNamespace(config=config, phase="", memory=memory, shape=shape, out="", depth=1)
    with mock.patch.object(flags, "FLAGS", values):
        with mock.patch.object(describe, "describe", side_effect=Reached):
            with mock.patch.object(describe.config_lib, "validate"):
                with contextlib.suppress(Reached):
                    describe.main()


def network(size):
    trained, config = get_defaults(), get_defaults()
    for one in (trained, config):
        one.model = {"name": "tests.own_detector:GridDetector"}
    config.input_size = size
    build.check_same_network(config, trained, "runs/x")


def converted(folder, out, splits=("train",), there=()):
    (folder / "file").write_text("mine")
    for name in there:
        (folder / name).write_text("mine")
    convert._targets(folder / out, splits)


def sheets(folder, out):
    """The folder for contact sheets, up to where data would be read for them."""
    (folder / "file").write_text("mine")
    config = mock.MagicMock()
    with contextlib.ExitStack() as stack:
        for name in ("build", "ImageKind", "Sheet", "Display"):
            stack.enter_context(mock.patch.object(browse, name))
        browse.build.sources.return_value = (mock.Mock(), mock.Mock())
        stack.enter_context(mock.patch.object(browse.loaders, "train_batches", side_effect=Reached))
        stack.enter_context(contextlib.suppress(Reached))
        browse.browse(config, folder / out)


IMAGES = SimpleNamespace(ids=["a"])


ROWS = [
    Elsewhere(
        "jdet/atomic_files.py",
        "make room there",
        "tests/train/checkpoints/test_checkpoint.py::test_full_disk_is_a_clear_error_and_nothing_is_lost",
        "too large",
    ),
    row(
        DESCRIBE,
        "takes inputs of config.input_size={} only; set that instead",
        shaped,
        {"shape": (96, 96)},
        {"shape": None, "size": 96},
    ),
    row(
        DESCRIBE,
        "such as 800x1280",
        lambda text: describe.parse_shape(text) and None,
        {"text": "800"},
        {"text": "800x1280"},
    ),
    row(
        DESCRIBE,
        "drop --shape, and set --config.input_size or",
        described,
        {"memory": True, "shape": "64x64"},
        {"shape": ""},
    ),
    row(
        ENSEMBLE,
        "must be above 0 and at most 1",
        ensembled,
        {"iou_threshold": 0.0},
        {"iou_threshold": 1.0},
    ),
    row(ENSEMBLE, "must be at least 0", ensembled, {"max_detections": -1}, {"max_detections": 0}),
    row(
        ENSEMBLE, "is one of the runs; name another folder", ensembled, {"out": "a"}, {"out": "new"}
    ),
    row(
        ENSEMBLE,
        "evaluate the runs on the same data",
        same,
        {"images": ["b.png"]},
        {"images": ["a.png"]},
    ),
    row(OUT, "is a file; name a folder", output, {"out": "file"}, {"out": "new"}),
    row(
        OUT,
        "--images={} lies in {}, where images",
        output,
        {"out": "in", "images": "in/images"},
        {"out": "in/predictions"},
    ),
    Elsewhere(
        OUT,
        "name another folder, such as --out=",
        "tests/evaluation/test_output_folder.py::test_drawn_images_never_come_among_others",
        "--out=(\\S+)",
    ),
    Elsewhere(
        OUT,
        "name a folder that can, such as --out=",
        "tests/evaluation/test_output_folder.py::test_a_folder_that_cannot_be_written_is_found_out_first",
        "name a folder that can",
    ),
    row(
        OUT,
        "or name another folder",
        output,
        {"out": "full", "error": errno.ENOSPC},
        {"out": "new"},
    ),
    of_config(
        "jdet/evaluation/predictor.py",
        "running statistics; leave it out",
        asked,
        {"eval__use_ema": True},
        {"eval__use_ema": False},
    ),
    row(
        "jdet/evaluation/predictor.py",
        "(--no-precise_bn) takes them without this warning",
        unread,
        {"precise_bn": True},
        {"precise_bn": False},
    ),
    row(
        "jdet/main.py",
        "names a checkpoint to evaluate; add --mode=evaluate",
        trained,
        {"mode": "train", "step": "3"},
        {"mode": "evaluate"},
        {"step": "latest"},
    ),
    row(
        "jdet/main.py",
        "names a phase to evaluate; add --mode=evaluate",
        trained,
        {"mode": "train", "phase": "low"},
        {"mode": "evaluate"},
        {"phase": ""},
    ),
    row(THRESHOLDS, "such as --score=0.3", scored, {"score": 30.0}, {"score": 0.3}),
    row(
        PREDICT,
        "is an address; fetch it first{}, and name the file",
        scored,
        {"images": ("https://host/a.jpg",)},
        {"images": ("a.jpg",)},
    ),
    row("jdet/data/videos.py", "then --images={}", film, {"typed": False}, {"typed": True}),
    row(
        PREDICT,
        "--batch_size={} must be at least 1",
        predicted,
        {"batch_size": 0},
        {"batch_size": 1},
    ),
    row(
        "jdet/build/same_network.py",
        "give the config the run was trained with, or leave it out",
        network,
        {"size": 64},
        {"size": get_defaults().input_size},
    ),
    row(
        CONVERT,
        "name a folder, such as --out={}",
        converted,
        {"out": "set.json", "splits": ("train", "val")},
        {"out": "set"},
    ),
    row(
        CONVERT,
        "name a folder, or a file that ends in .json",
        converted,
        {"out": "file"},
        {"out": "new"},
        {"out": "set.json"},
    ),
    row(
        CONVERT,
        "name another --out or delete it",
        converted,
        {"out": "set.json", "there": ("set.json",)},
        {"out": "other.json"},
        {"there": ()},
    ),
    row(
        "jdet/browse/browse.py",
        "no training image is called so",
        lambda name: browse._named(IMAGES, [name]) and None,
        {"name": "b"},
        {"name": "a"},
    ),
    row(
        "jdet/browse/browse.py",
        "cannot be made ({}); name a folder",
        sheets,
        {"out": "file"},
        {"out": "new"},
    ),
]
