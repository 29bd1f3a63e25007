"""What the benchmarks of models measure, hand to the peer and print; nothing is timed."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import pytest

from benchmarks import accelerator_report, clock, models, residuals, step_memory
from experiments import retinanet_coco
from jdet import build, search_batch
from jdet.ops import anchors
from jdet.parallel import mesh
from jdet.preflight import compile as compile_lib

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = [(10.0, 20.0, 0.0), (12.0, 24.0, 0.01), (14.0, 28.0, 0.02), (90.0, 30.0, 0.6)]
RESULT = models.about("train_step", models.Case("root_resnet18", "float32", 8, 300)) | {
    "ms": 1234.56,
    "min_ms": 1200.0,
    "images_per_second": 6.4802,
    "peak_mib": 2000,
}
PEER = """#!{python}
import json, sys
import numpy as np
inputs = np.load(sys.argv[3])
boxes = int((inputs["cells"] ** 2 * inputs["per_cell"]).sum())
assert len(inputs["priors"]) == boxes, (inputs["priors"].shape, boxes)
print("a warning")
print(json.dumps({{"parameters": 5, "boxes": boxes, "arguments": sys.argv[4:]}}))
"""


def parse(*words):
    return models.parser("", [8]).parse_args(words)


def test_all_cases_in_order():
    args = parse("--model", "all", "--precision", "float32", "bfloat16", "--batch", "1", "8")
    cases = models.cases(args)
    assert len(cases) == 4 * len(models.MODELS)
    assert cases[:2] == [models.Case("root_resnet18", "float32", batch) for batch in (1, 8)]
    assert [case.model for case in cases[::4]] == list(models.MODELS)


def test_defaults_and_repeated_models():
    assert models.cases(parse()) == [models.Case("root_resnet18", "float32", 8)]
    assert len(models.cases(parse("--model", "dsod300", "dsod300"))) == 1


def test_micro_batches_and_rematerialisation_reach_the_config():
    case = models.Case("root_resnet18", "float32", 8, 64, accumulation=4, remat="full")
    config = models.config(case)
    assert (config.train.accumulation, config.train.remat) == (4, "full")
    assert models.row({**RESULT, "accumulation": 4, "remat": "full"})[2] == (
        "8×300² in 4 parts, remat full"
    )


def test_unknown_model_is_refused(capsys):
    with pytest.raises(SystemExit):
        parse("--model", "ssd300")
    assert "dsod300" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "boxes"),
    [
        ("root_resnet18", 8732),
        ("root_resnet34", 8732),
        ("ssd300_vgg16", 8732),
        ("ssd300s_resnet101", 7308),
        ("dsod300", 8744),
        ("retinanet_r50", 19_206),
        ("fcos_r50", 2134),
        ("atss_r50", 2134),
        ("faster_rcnn_r50", 25_575),
        ("mask_rcnn_r50", 25_575),
        ("swin_t_faster_rcnn", 25_575),
        ("retinanet_r50_padded", 19_206),
    ],
)
def test_models_are_the_experiments(name, boxes):
    model = models.MODELS[name]
    module = importlib.import_module(f"experiments.{model.experiment}")
    expected = module.get_config(model.argument)
    expected.update_from_flattened_dict(model.changes)
    config = models.config(models.Case(name, "bfloat16", 4))
    assert (config.precision, config.train.batch_size) == ("bfloat16", 4)
    assert config.input_size == (320 if model.changes else 300)
    assert config.model.to_dict() == expected.model.to_dict()
    assert config.optimizer.to_dict() == expected.optimizer.to_dict()
    detector = build.detector(config, models.class_names(name))
    cells = detector.level_sizes()[1]
    maps = [(side, side) for side in cells]
    assert len(anchors.default_boxes(detector.anchor_levels(), maps, None)) == boxes


def test_images_have_objects_inside():
    config = models.config(models.Case("ssd300_vgg16", "float32", 2, 64))
    batch = models.random_batch(config, 20)
    assert batch.images.shape == (2, 64, 64, 3)
    assert batch.valid.sum() == 2 * models.OBJECTS
    assert (batch.boxes[..., 2:] > batch.boxes[..., :2]).all() and batch.boxes.max() <= 64
    assert batch.labels.max() < 20


def test_peer_gets_what_jdet_has(tmp_path):
    python = tmp_path / "python"
    python.write_text(PEER.format(python=sys.executable))
    python.chmod(0o755)
    case = models.Case("ssd300_vgg16", "bfloat16", 1)
    config = models.config(case)
    detector = build.detector(config, models.class_names("ssd300_vgg16"))
    batch = models.random_batch(config, 20)
    args = parse("--peer-python", str(python), "--peer-plain")
    found = models.peer(case, args, "train", detector, batch, 5)
    assert found["boxes"] == 8732
    assert {"--plain", "bfloat16", "train", "cpu"} <= set(found["arguments"])
    assert "--compile" not in found["arguments"]
    another = models.peer(case, args, "train", detector, batch, 6)
    assert another == {"error": "5 parameters, jdet has 6"}
    alone = case._replace(model="dsod300")
    assert models.peer(alone, args, "train", detector, batch, 5) == {}
    assert models.peer(case, parse("--peer-python", ""), "train", detector, batch, 5) == {}
    broken = parse("--peer-python", "/bin/false")
    assert models.peer(case, broken, "train", detector, batch, 5) == {"error": "exit status 1"}


def test_what_waits_for_the_backward_pass():
    """Of an image four times as large four times as much, but for what levels of few cells round."""
    config = retinanet_coco.get_config("depth=18,size=64,norm=batch")
    small, large = (residuals.kept(config, ("a",), (n, n)) for n in (128, 256))
    assert 3.5 * small < large < 4 * small
    # Stem, blocks, pyramid and towers keep at least their inputs in the first, largest maps.
    assert large > 4 * (128 * 128 * 64 + 64 * 64 * 64 * 4 + 2 * 4 * 32 * 32 * 256)
    config.train.remat = "full"
    assert residuals.kept(config, ("a",), (256, 256)) < 0.3 * large


def test_disturbed_samples_do_not_count_where_enough_are_left():
    result = clock.summary(SAMPLES)
    assert (result["ms"], result["min_ms"], result["quiet"]) == (12, 10, "3/4")
    assert clock.summary(SAMPLES[2:])["ms"] == 52


def test_short_calls_share_a_sample(monkeypatch):
    events = []

    def call():
        events.append("call")

    def finish():
        events.append("finish")

    monkeypatch.setattr(clock, "LEAST", 1.0)
    found = clock.samples(call, finish, 3, 1)
    assert len(found) == 3 and all(one.ms > 0 and one.others >= 0 for one in found)
    # A warm-up and a call that sets the length are finished apart; a sample is finished once.
    assert events[:4] == ["call", "finish"] * 2
    assert events[4:].count("finish") == 3 and events[4:].count("call") > 3
    events.clear()
    monkeypatch.setattr(clock, "LEAST", 0.0)
    assert len(clock.samples(call, finish, 3, 0)) == 3
    assert events == ["call", "finish"] * 3


def test_rows():
    theirs = {"name": "PyTorch 2", "peak_mib": 3000, "train": SAMPLES}
    both = models.compared(RESULT, theirs, "train")
    assert both["times_peer"] == 102.88 and both["peer_images_per_second"] == 666.67
    alone = RESULT | {"postprocess_ms": 4.2041}
    head, line, first, second = models.table([both, alone])
    cells = [cell.strip() for cell in first.strip("|").split("|")]
    assert head.count("|") == line.count("|") == first.count("|") == second.count("|")
    assert cells[:6] == ["root_resnet18", "float32", "8×300²", "1235 (1200)", "6.48", "2000"]
    assert cells[6:] == ["PyTorch 2", "12 (10)", "667", "3000", "102.88 (120.00)"]
    assert "1235 (1200), post-processing 4.2 |" in second and "| – |" in second
    assert models.row(both | {"peer_rest_ms": 3.0})[7] == "12 (10), all but the network 3"


def test_a_failure_shows_and_leaves_the_rest(capsys):
    args = parse("--markdown")
    failed = models.compared(RESULT, {"error": "exit status 1"}, "train")
    assert models.run("", args, lambda case, args: failed) == 1
    line, *rows = capsys.readouterr().out.splitlines()
    assert json.loads(line)["peer_error"] == "exit status 1" and len(rows) == 3
    assert models.run("", args, lambda case, args: RESULT) == 0
    capsys.readouterr()
    two = parse("--batch", "1", "2")
    assert models.run("benchmarks.no_such_module", two, None) == 1
    lines = list(map(json.loads, capsys.readouterr().out.splitlines()))
    assert [line["batch"] for line in lines] == [1, 2]
    assert all(line["error"] == "exit status 1" for line in lines)


def test_the_script_for_an_accelerator_removes_its_own_files_only(tmp_path):
    """Without time nothing is measured, and without a Python nothing is reported."""
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "thesis.tex").write_text("mine")
    command = ["bash", "benchmarks/accelerator.sh", str(folder)]
    environment = {**os.environ, "BUDGET": "0", "PYTHON": "true", "MODELS": "ssd300_vgg16"}

    def run():
        return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)

    refused = run()
    assert refused.returncode == 2 and "are not of this script" in refused.stderr
    assert (folder / "thesis.tex").read_text() == "mine"

    outside = tmp_path / "outside.log"
    outside.write_text("mine")
    earlier = ("record.jsonl", "record.log", "compile_inference_a.log", "profile.png")
    for name in earlier:
        (folder / name).write_text("earlier")
    (folder / "parts.tsv").write_text("record\t7\t0\n../outside\t7\t0\n")
    assert run().returncode == 0 and outside.exists()
    left = {path.name for path in folder.iterdir()}
    assert left == {"thesis.tex", "parts.tsv", "machine.txt", "RESULTS.md"}
    parts = (folder / "parts.tsv").read_text().splitlines()
    assert "record\t0\tno time left" in parts and len(parts) > 5


def test_the_report_on_an_accelerator_takes_what_there_is(tmp_path):
    bound = {"gflop": 120.5, "gbytes": 1.5, "bound": "memory", "bound_ms": 600.0}
    bound |= {"each_ms": 700.0, "of_bound": 0.486}
    alone = RESULT | bound | {"images_per_second": 153.0}
    beside = alone | {"peer": "PyTorch 2", "peer_ms": 2000.0, "peer_images_per_second": 4.0}
    written = {
        "train_step_a": [alone],
        "train_step_a_peer": [beside | {"times_peer": 0.62}],
        "train_step_b": [alone | {"precision": "bfloat16"}],
        "train_step_b_peer": [alone | {"precision": "bfloat16", "peer_error": "exit status 1"}],
        "record": [alone | {"model": "retinanet_r50"}],
        "operations_nms": [{"what": "nms", "classes": 20, "candidates": 400, "ms": 4.25}],
        "input": [
            {"what": "stage", "stage": "total", "images_per_second_per_core": 51},
            {"what": "summary", "images_per_second": 100.2, "source": "640x480", "size": 300, "cores": 2},
        ],
    }  # fmt: skip
    parts = [f"{name}\t7\t0" for name in written] + ["inference_a\t60\tlonger than its limit"]
    parts += ["profile\t3\t2", "late\t0\tno time left"]
    for name, rows in written.items():
        text = "a warning\n" + "\n".join(map(json.dumps, rows)) + '\n{"cut'
        (tmp_path / f"{name}.jsonl").write_text(text)
    (tmp_path / "parts.tsv").write_text("\n".join(parts) + "\n")
    (tmp_path / "machine.txt").write_text("one chip\n")
    (tmp_path / "profile.log").write_text("…\nerror: no such option\n")
    text = "\n".join(accelerator_report.report(tmp_path))
    rows = [line for line in text.splitlines() if line.startswith("| root_resnet18")]
    assert len(rows) == 2 and "| float32 (TF32) | 8×300² | 1234.56 | 153.0 |" in rows[0]
    assert rows[0].endswith("| 600.00 (700.00) | 49% | memory | 2000.00 | 4.0 | 0.62 |")
    assert "exit status 1" in rows[1]
    assert "**153 images/s**, 76% of 200, 50% of the 306" in text
    assert "| nms | 20 × 400 | 4.25 | – |  |" in text
    assert "100 images/s of 640x480" in text and "153 images/s take 3.0 cores" in text
    assert "* inference_a: longer than its limit, after 60 s" in text
    assert "* profile: exit status 2, after 3 s: `error: no such option`" in text
    assert "* no time left: late" in text and text.count("Nothing was measured.") == 2


def test_the_memory_of_a_step_is_measured_after_it_was_compiled(monkeypatch):
    order, arrays = [], jnp.zeros((4, 250_000))
    memory = SimpleNamespace(memory=SimpleNamespace(peak=8_000_000))

    def resident(peak=False):
        order.append("peak" if peak else "before")
        return 5_000_000 if peak else 1_000_000

    def step(state, batch):
        order.append("step")
        return state, batch

    def warm(_):
        order.append("compile")
        return step, {"weights": arrays}, {"images": arrays}

    monkeypatch.setattr(search_batch, "resized", lambda *_: None)
    monkeypatch.setattr(search_batch, "warm_step", warm)
    monkeypatch.setattr(mesh, "pick_devices", lambda _: [None, None])
    monkeypatch.setattr(compile_lib, "measure", lambda *_: memory)
    monkeypatch.setattr(step_memory, "resident", resident)
    monkeypatch.setattr(step_memory, "forget_peak", lambda: order.append("forget"))
    found = step_memory.compare(None, 64, 2, "none")
    assert order == ["compile", "forget", "before", "step", "peak"]
    assert (found["counted_gb"], found["measured_gb"]) == (0.008, 0.006)  # 4 + 8 MB, of two
