"""Input pipeline: images per second with the full SSD augmentation, by stage and in steady state.

    python -m benchmarks.input_pipeline [--images DIR] [--peer-python PYTHON]

One JSON line per measurement. With a Python that has torch (``--peer-python`` or the environment
variable JDET_PEER_PYTHON) the peer script runs in turns with ours, over the same images and boxes,
and the last line gives the ratios of the best settings. Rates are medians over all rounds; start-up
of workers is not counted on either side.
"""

import argparse
import glob
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np

from jdet.data.image_io import write_image
from jdet.data.pipeline import train_batches
from jdet.data.readers.decoder import Decoder
from jdet.data.stream import collate
from jdet.data.transforms.element import Element
from jdet.data.transforms.finish import Finish
from jdet.data.transforms.photometric import NO_DISTORTION
from jdet.data.transforms.ssd import SSDAugment
from jdet.data.transforms.warp import Warp
from jdet.types import Example

SHARED = Path(__file__).resolve().parents[2] / "shared"
SETTINGS = ((0, 0), (0, 1), (0, 2), (1, 1), (2, 1))  # workers, threads
OURS = "uint8 HWC: normalised inside the jitted step"
PEER = "float32 CHW in 0 … 1"


class Folder:
    """JPEGs of a folder with the seeded boxes of the peer script."""

    class_names = ("object",)

    def __init__(self, folder, count):
        self.paths = sorted(glob.glob(os.path.join(folder, "*.jp*g")))[:count]
        height, width = Decoder()(self.paths[0]).shape[:2]
        rng, self.boxes = np.random.default_rng(0), []
        for _ in self.paths:
            number = int(rng.integers(2, 12))
            sides = (0.08 + 0.35 * rng.random((number, 2))) * (width, height)
            corner = rng.random((number, 2)) * ((width, height) - sides)
            self.boxes.append(np.concatenate([corner, corner + sides], 1).astype(np.float32))
            rng.integers(1, 4, number)  # labels, which the peer draws too

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        boxes = self.boxes[index]
        labels = np.zeros(len(boxes), np.int32)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        return Example(
            id=str(index),
            image=self.paths[index],
            boxes=boxes,
            labels=labels,
            ignore=labels > 0,
            areas=areas,
        )


def render_folder(folder, count):
    """Writes ``count`` images of 640x480 with structure at several scales."""
    rng = np.random.default_rng(0)
    for index in range(count):
        image = np.zeros((480, 640, 3), np.float32)
        for cells in (4, 16, 64, 160):
            coarse = rng.standard_normal((cells * 3 // 4, cells, 3)).astype(np.float32)
            image += cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC) / cells**0.5
        image = np.clip(128 + 60 * image, 0, 255).astype(np.uint8)
        write_image(os.path.join(folder, f"{index:04}.jpg"), image)


def stages(source, size):
    """CPU milliseconds per image of each stage: the median of three passes over the folder."""
    augment, resize = SSDAugment(), Warp(size)
    chain = augment.operations(resize)
    finish = Finish(resize, 64, augment.fill)
    rounds = defaultdict(list)
    for seed in range(3):
        rng, spent, rows = np.random.default_rng(seed), defaultdict(float), []
        for index in range(len(source)):
            example, marks = source[index], [time.thread_time()]
            with open(example.image, "rb") as file:
                data = file.read()
            marks.append(time.thread_time())
            image = Decoder()(data)
            marks.append(time.thread_time())
            labels, ignore = example.labels, example.ignore
            element = Element(
                index=index,
                id=example.id,
                image=image,
                boxes=example.boxes,
                labels=labels,
                ignore=ignore,
            )
            for operation in chain.values():
                element = operation(element, rng)
            marks.append(time.thread_time())
            finish(element._replace(distortion=NO_DISTORTION))
            marks.append(time.thread_time())
            rows.append(finish(element))
            marks.append(time.thread_time())
            read, decode, draw, render, distorted = np.diff(marks)
            for name, seconds in (
                ("read", read),
                ("decode", decode),
                ("draw and sample crops", draw),
                ("resize and pad", render),
                ("photometric", distorted - render),
            ):
                spent[name] += 1000 * seconds / len(source)
        start = time.thread_time()
        for first in range(0, len(rows), 8):
            collate(rows[first : first + 8])
        spent["batch"] = 1000 * (time.thread_time() - start) / len(source)
        for name, milliseconds in spent.items():
            rounds[name].append(milliseconds)
    return {name: statistics.median(values) for name, values in rounds.items()}


def steady(source, size, batch_size, workers, threads, passes=2):
    """Images per second of a running stream, once per pass over the folder."""
    batches = -(-len(source) // batch_size)
    with train_batches(
        source,
        resize=Warp(size),
        augment=SSDAugment(),
        max_boxes=64,
        batch_size=batch_size,
        seed=0,
        workers=workers,
        threads=threads,
    ) as stream:
        for _ in range(batches):
            next(stream)
        rates = []
        for _ in range(passes):
            start = time.perf_counter()
            for _ in range(batches):
                next(stream)
            rates.append(batches * batch_size / (time.perf_counter() - start))
    return rates


def peer(python, script, folder, count, size, batch_size, passes=2):
    """Images per second of torchvision v2 and albumentations, by pipe and workers."""
    command = [python, script, "--images", folder, "--n", count, "--size", size]
    command += ["--batch", batch_size, "--epochs", passes, "--workers", 0, 1, 2]
    command += ["--pipes", "tv_pil", "albu"]
    output = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
    for line in map(json.loads, output.stdout.splitlines()):
        if "error" in line:
            raise RuntimeError(f"peer {line['pipe']}: {line['error']}")
        yield (line["pipe"], line["workers"]), [line["worst"], line["img_s"], line["best"]]


def say(**values):
    print(json.dumps({"benchmark": "input_pipeline", **values}, ensure_ascii=False), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    bccd, script = SHARED / "data/bccd/JPEGImages", SHARED / "peer/bench_input.py"
    parser.add_argument("--images", default=str(bccd) if bccd.is_dir() else "")
    parser.add_argument("--n", type=int, default=300, help="images")
    parser.add_argument("--size", type=int, default=300, help="side of the output")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2, help="turns of ours and the peer")
    parser.add_argument("--peer-python", default=os.environ.get("JDET_PEER_PYTHON", ""))
    parser.add_argument("--peer-script", default=str(script) if script.is_file() else "")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if not args.images:
            render_folder(scratch, args.n)
        measure(args, args.images or scratch)


def measure(args, folder):
    source = Folder(folder, args.n)
    height, width = Decoder()(source.paths[0]).shape[:2]
    about = {"images": len(source), "source": f"{width}x{height}", "size": args.size}
    about |= {"batch": args.batch, "cores": os.cpu_count()}
    milliseconds = stages(source, args.size)
    milliseconds["total"] = sum(milliseconds.values())
    for name, value in milliseconds.items():
        per_second = round(1000 / value)
        say(
            what="stage",
            stage=name,
            ms=round(value, 3),
            images_per_second_per_core=per_second,
            **about,
        )
    rates, peers = defaultdict(list), defaultdict(list)
    compare = bool(args.peer_python and args.peer_script)
    for _ in range(args.rounds):
        for workers, threads in SETTINGS:
            rates[workers, threads] += steady(source, args.size, args.batch, workers, threads)
        if compare:
            arguments = (folder, args.n, args.size, args.batch)
            for key, values in peer(args.peer_python, args.peer_script, *arguments):
                peers[key] += values
    for (workers, threads), values in rates.items():
        summary = {"images_per_second": round(statistics.median(values), 1)}
        summary |= {"best": round(max(values), 1), "worst": round(min(values), 1)}
        say(what="steady", workers=workers, threads=threads, **summary, output=OURS, **about)
    for (pipe, workers), values in peers.items():
        summary = {"images_per_second": round(statistics.median(values), 1)}
        summary |= {"best": round(max(values), 1), "worst": round(min(values), 1)}
        say(what="peer", pipe=pipe, workers=workers, **summary, output=PEER, **about)
    ours = max(map(statistics.median, rates.values()))
    ratios = {}
    for pipe in sorted({pipe for pipe, _ in peers}):
        theirs = max(statistics.median(v) for (name, _), v in peers.items() if name == pipe)
        ratios[f"times_{pipe}"] = round(ours / theirs, 2)
    say(what="summary", images_per_second=round(ours, 1), **ratios, output=OURS, **about)


if __name__ == "__main__":
    main()
