"""Remedies of preflight and of the search for a batch."""

import contextlib
from types import SimpleNamespace
from unittest import mock

from absl import flags

from jdet import search_batch
from jdet.config import get_defaults
from jdet.preflight import __main__ as preflight_main
from jdet.preflight import batch_search, topology
from jdet.profile import __main__ as profile_main
from jdet.profile import peaks
from tests.remedies.rows import Elsewhere, Untyped, row

SEARCH, BATCHES = "jdet/search_batch.py", "jdet/preflight/batch_search.py"

TOPOLOGY, PREFLIGHT = "jdet/preflight/topology.py", "jdet/preflight/preflight.py"

PEAKS, OUTPUT = "jdet/profile/peaks.py", "jdet/profile/output.py"

SEARCHED = "tests/remedies/test_of_data.py::test_the_search_for_a_batch"

REFUSED = (
    "tests/preflight/test_preflight.py::test_what_cannot_be_is_said_before_anything_is_compiled"
)


class Reached(Exception):
    """The next stage is reached."""


def topologies(text):
    values = SimpleNamespace(
        topology=text, out="", config=get_defaults(), phase="", weak_scaling="", search=False,
        programs="train", jobs=0,
    )  # fmt: skip
    with mock.patch.object(flags, "FLAGS", values):
        with mock.patch.object(preflight_main, "preflight", side_effect=Reached):
            with contextlib.suppress(Reached):
                preflight_main.main()


def tpu(name, installed=True):
    with mock.patch.object(topology.importlib.util, "find_spec", lambda _: installed or None):
        with mock.patch.object(topology, "_describe", lambda _: []):
            topology.devices(name)


def tpu_name(name):
    """Up to where the library for TPUs is asked."""
    with mock.patch.object(topology, "quiet", side_effect=Reached):
        with contextlib.suppress(Reached):
            topology._describe(name)


def profiled(folder, out):
    """Up to where the step would be compiled."""
    (folder / "mine.json").write_text('{"what": "a list"}')
    values = SimpleNamespace(config=get_defaults(), phase="", what="train", steps=1, topology="",
                             peaks="", depth=2, out=str(folder / out))  # fmt: skip
    with mock.patch.object(flags, "FLAGS", values):
        with mock.patch.object(profile_main, "profile", side_effect=Reached):
            with contextlib.suppress(Reached):
                profile_main.main()


def figures(kind="TPU7x", given=""):
    """The figures of a device that is not here."""
    peaks.find(SimpleNamespace(device_kind=kind, platform="tpu"), "bfloat16", given, present=False)


def searched(**given):
    """The command, up to where steps would be measured."""
    options = dict(
        memory="11GB", topology="", proxy=0.0, time_budget=0.0, time_steps=0, phase="", remat=False,
        sizes="64", batches="1", out="",
    )  # fmt: skip
    options |= given
    config = get_defaults()
    config.class_names, config.train.steps = ("a",), options.pop("steps", 3600)
    values = SimpleNamespace(config=config, **options)
    point = SimpleNamespace(side=64, batch=1, remat="none", rank=1.0)
    found = [("train", SimpleNamespace(frontier=(point,)))]
    row = {"steps": config.train.steps, "rank": 1.0}
    patches = {
        "search": lambda *_, **__: found,
        "facts": lambda *_: dict(row),
        "step_seconds": lambda _: 1.0,
        "images_of": lambda _: 9,
        "resized": lambda *_: config,
        "print_report": lambda _: None,
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(flags, "FLAGS", values))
        for name, value in patches.items():
            stack.enter_context(mock.patch.object(search_batch, name, value))
        for name, value in {"prepare": lambda _: None, "memory": lambda _: 0.0}.items():
            stack.enter_context(mock.patch.object(search_batch.topology_lib, name, value))
        stack.enter_context(mock.patch.object(batch_search, "as_json", lambda _: {}))
        stack.enter_context(mock.patch.object(search_batch.config_lib, "validate"))
        search_batch.main()


ROWS = [
    row(
        "jdet/preflight/__main__.py",
        "such as v5e:4x4, cpu:8 or gpu",
        topologies,
        {"text": ","},
        {"text": "v5e:4x4"},
        {"text": "cpu:8"},
        {"text": "gpu"},
    ),
    Elsewhere(BATCHES, "such as 11GB or 900MB, or auto", SEARCHED),
    Elsewhere(BATCHES, "is no multiple of 32", SEARCHED, "multiple of 32"),
    Elsewhere(BATCHES, "take smaller --sizes or --batches", SEARCHED),
    Elsewhere(BATCHES, "must be whole numbers from 1 on, such as", SEARCHED, "such as 2,4,8"),
    Elsewhere(PREFLIGHT, "--programs lacks train", REFUSED),
    Elsewhere(
        PREFLIGHT, "config.parallel.devices={}; set that to 0", REFUSED, "parallel.devices=2"
    ),
    Elsewhere(PREFLIGHT, "--programs: {} does not exist", REFUSED, "'trian' does not exist"),
    Untyped(PREFLIGHT, "try --jobs=1", "needs a machine that runs out of memory"),
    row(
        TOPOLOGY,
        "must be a number, such as {}",
        topology.look,
        {"name": "cpu:x"},
        {"name": "cpu:2"},
    ),
    row(
        TOPOLOGY,
        "needs libtpu, the compiler for TPUs, which is not installed: pip install --editable",
        tpu,
        {"name": "v5e:4x4", "installed": False},
        {"installed": True},
        {"name": "cpu:2"},
    ),
    row(TOPOLOGY, "such as v5e:4x4", tpu_name, {"name": "v5e"}, {"name": "v5e:4x4"}),
    Untyped(TOPOLOGY, "and JAX for them: pip install --editable '.[cuda]'", "needs a GPU"),
    row(
        TOPOLOGY,
        "before it starts",
        topology.devices,
        {"name": "cpu:9"},
        {"name": "cpu:4"},
    ),
    Elsewhere(
        "jdet/profile/profile.py",
        "--what={} does not exist",
        "tests/profile/test_profile.py::test_what_cannot_be_is_said_before_anything_is_compiled",
        "--what=trian does not exist",
    ),
    row(
        OUTPUT,
        "which is not of an earlier profile; name another file or delete it",
        profiled,
        {"out": "mine.png"},
        {"out": "new.json"},
    ),
    row(
        OUTPUT,
        "cannot be written ({}); name a file in another folder",
        profiled,
        {"out": "mine.json/step.json"},
        {"out": "new/step.json"},
    ),
    row(
        PEAKS,
        "such as --peaks=2.3e15,7.4e12",
        figures,
        {"given": "1"},
        {"given": "2.3e15,7.4e12"},
    ),
    row(
        PEAKS,
        "give operations and bytes a second, such as",
        figures,
        {"kind": "TPU7x"},
        {"given": "2.3e15,7.4e12"},
    ),
    Elsewhere(
        SEARCH,
        "search with 'fit_crop' or 'warp', or name the phase",
        SEARCHED,
        "search with 'fit_crop' or 'warp'",
    ),
    row(
        SEARCH, "is not known; give --memory=11GB", searched, {"memory": "auto"}, {"memory": "11GB"}
    ),
    row(
        SEARCH,
        "run steps; leave out --topology",
        searched,
        {"topology": "cpu:2", "time_steps": 3},
        {"topology": ""},
    ),
    row(
        SEARCH,
        "ends in time; give more, or train for fewer steps",
        searched,
        {"time_budget": 0.5},
        {"time_budget": 2.0},
        {"steps": 900},
    ),
    Elsewhere(SEARCH, "give whole numbers, such as 224,448", SEARCHED),
]
