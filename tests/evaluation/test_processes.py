"""Two processes evaluate: each reads its share, every image counts once, the numbers are those of one.

The same two find out what they were started differently with.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jdet.data.pipeline import eval_batches
from jdet.data.transforms.warp import Warp
from jdet.evaluation import detect
from jdet.evaluation import evaluate as evaluate_lib
from jdet.evaluation.gather import SampleImages
from jdet.evaluation.multi_scale import MultiScale
from jdet.parallel import mesh as mesh_lib
from jdet.types import ConfigError
from tests.evaluation.pixel_detector import AnySize, MaskDetector, PixelDetector
from tests.evaluation.test_detect import SIDE, Outlined, Record, mesh
from tests.evaluation.test_multi_scale import KEPT
from tests.evaluation.test_tta import custom
from tests.parallel.test_supervisor import free_port

ROOT = Path(__file__).resolve().parents[2]
COUNT = 37  # more than is gathered at once, and no whole number of batches

SCRIPT = """
import json, sys
import jax

port, rank, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=rank)

from jdet.data.sources import fingerprint
from jdet.parallel import broadcast, consistency
from jdet.parallel import mesh as mesh_lib
from jdet.train import workdir
from tests.evaluation import test_processes as here
from tests.train import fake

config = fake.config(parallel__devices=0)
told = here.evaluated(mesh_lib.make_mesh(config), process_index=rank, process_count=2)
consistency.check({"same": [1, 2]})
digest = fingerprint.fingerprint(here.Outlined(4 + rank))
told["differ"] = here.refused(
    consistency.check, {"config.train.batch_size": 8 + 8 * rank, "digest": digest, "same": 1}
)
told["main"] = here.refused(broadcast.from_main, here.main_only)
told["folder"] = here.refused(workdir.open_together, f"{folder}/{rank}", config, 20, False, print)
told["odd"] = here.refused(mesh_lib.make_mesh, fake.config(parallel__devices=3))
print("TOLD", json.dumps(told), flush=True)
jax.distributed.shutdown()
"""


class Watched(Outlined):
    """Rectangles that remember which were asked for."""

    def __init__(self, count):
        super().__init__(count)
        self.read = set()

    def __getitem__(self, index):
        self.read.add(int(index))
        return super().__getitem__(index)


def refused(action, *arguments):
    try:
        action(*arguments)
    except ConfigError as error:
        return str(error)


def main_only():
    assert jax.process_index() == 0
    raise ConfigError("what only process 0 can know")


def evaluated(over, **share):
    """Metrics, images kept and images read, at one input size; and the metrics at several."""
    variables = jax.device_put({"shift": np.float32(0)}, mesh_lib.replicated(over))
    source, keep = Watched(COUNT), SampleImages(3, COUNT)

    def walk(inputs, detect, extra, **options):
        evaluators = evaluate_lib.make_evaluators(("voc", "coco"), source.class_names)
        with eval_batches(source, **inputs, batch_size=4, threads=1, **share) as batches:
            return evaluate_lib.evaluate_stream(
                detect, variables, batches, source, [*evaluators, *extra], **options
            )

    metrics = walk({"resize": Warp(SIDE)}, detect.DetectFn(PixelDetector(), over), [keep, Record()])
    kept = [(found.id, np.asarray(ground_truth.image).shape) for found, ground_truth in keep.pairs]
    read = sorted(source.read)
    passes = custom((1, 1, True, 0, 0), (2, 1, False, 0, 0))
    framed = custom((1, 1, True, 0, 0), (2, 2, False, 0, 0))
    more = {}
    for name, how, resize in (("several", passes, Warp(SIDE)), ("framed", framed, KEPT)):
        multi = MultiScale(detect.DetectFn(AnySize(), over), how, resize)
        more[name] = walk({"views": multi.views}, multi.detect, [], to_images=multi.to_images)
    segm = evaluate_lib.make_evaluators(("coco_segm",), source.class_names)
    detector = detect.DetectFn(MaskDetector(), over)
    more["masks"] = walk({"resize": Warp(SIDE)}, detector, segm)
    return {"metrics": metrics, "kept": kept, "read": read, **more}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What each of two processes had to tell."""
    folder, port = tmp_path_factory.mktemp("two"), free_port()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(port), str(rank), str(folder)],
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        texts = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(process.returncode == 0 for process in processes), texts
    lines = [line for text in texts for line in text.splitlines() if line.startswith("TOLD")]
    return [json.loads(line.removeprefix("TOLD")) for line in lines]


def test_every_image_counts_once_and_is_read_where_it_is_due(told):
    alone = evaluated(mesh(1, 1))
    for process in told:
        for name in ("metrics", "several", "framed", "masks"):
            np.testing.assert_equal(process[name], alone[name])
    assert alone["masks"]["coco_segm/AP"] > 0.99
    assert told[0]["metrics"]["images"] == COUNT
    shares = [{k for k in range(COUNT) if k % 4 // 2 == rank} for rank in (0, 1)]
    assert set(told[1]["read"]) == shares[1]
    drawn = {
        int(name[1:]) for name, _ in told[0]["kept"]
    }  # process 0 reads those again to draw them
    assert set(told[0]["read"]) == shares[0] | drawn and len(drawn) == 3
    assert told[0]["kept"] == json.loads(json.dumps(alone["kept"])) and not told[1]["kept"]


def test_what_differs_is_named_with_who_has_it(told):
    here = socket.gethostname()
    for process in told:
        text = process["differ"]
        assert f"config.train.batch_size: 8 on process 0 (host {here}); 16 on process 1" in text
        assert "digest: " in text and "same" not in text.replace("the same", "")
        assert process["main"] == "what only process 0 can know"
        assert "parallel.devices=3, but every one of the 2 processes" in process["odd"]


def test_a_workdir_that_is_not_shared_is_refused(told):
    for process in told:
        assert f"process 1 (host {socket.gethostname()}) cannot see" in process["folder"]
