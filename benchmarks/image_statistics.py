"""Statistics of image values over 10,000 images of 512 x 512 beside a plain float64 pass of NumPy.

    python -m benchmarks.image_statistics [--images 10000] [--dtype uint16] [--channels 1] [--processes 0]

The images are files in a temporary folder, made first: a few hundred different ones, each under many names,
so that every name is opened, decoded and counted. One JSON line per pass: seconds and images per second; of
ours on the first ``--plain`` images also the largest relative difference from NumPy's mean and standard
deviation. The plain pass reads the same files with the same reader in one process and adds up sums and
squares in float64, which is all it gives; ours adds percentiles, extremes and counts of invalid values. The
ratio is that of the times an image of our whole pass and the plain one takes. A last pass finds the result.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from jdet.data.measure import measure
from jdet.data.reader import Reader
from jdet.types import Example, ImageKind

DIFFERENT = 256


class Files:
    """Image files without objects."""

    class_names = ("object",)

    def __init__(self, paths, kind):
        self.paths, self.image_kind = paths, kind

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        nothing = np.zeros((0, 4), np.float32)
        labels, ignore, areas = np.zeros(0, np.int32), np.zeros(0, bool), np.zeros(0, np.float32)
        return Example(
            id=str(index),
            image=self.paths[index],
            boxes=nothing,
            labels=labels,
            ignore=ignore,
            areas=areas,
        )


def make(folder, count, dtype, channels):
    """Paths of ``count`` images: smooth fields with noise, PNG or, of floats, TIFF."""
    rng, paths = np.random.default_rng(0), []
    suffix = ".tif" if dtype == "float32" else ".png"
    for index in range(min(count, DIFFERENT)):
        coarse = rng.gamma(2.0, 1.0, (16, 16, channels)).astype(np.float32)
        field = cv2.resize(coarse, (512, 512), interpolation=cv2.INTER_CUBIC)
        field = field.reshape(512, 512, channels) + rng.normal(0, 0.05, (512, 512, channels))
        if dtype == "float32":
            image = (0.25 + 1e-3 * field).astype(np.float32)
        else:
            top = np.iinfo(dtype).max
            image = np.clip(top / 16 * (1 + field), 0, top).astype(dtype)
        paths.append(os.path.join(folder, f"{index}{suffix}"))
        cv2.imwrite(paths[-1], image)
    for index in range(len(paths), count):
        paths.append(os.path.join(folder, f"{index}{suffix}"))
        os.link(paths[index % DIFFERENT], paths[-1])
    return paths


def plain(source):
    """Mean and standard deviation per channel by sums in float64."""
    reader, count, total, squares = Reader(source, len(source), "raise"), 0, 0.0, 0.0
    shift = None
    for index in range(len(source)):
        image = reader[index].image
        values = image.reshape(-1, image.shape[-1])
        values = values.astype(np.float64)
        shift = values[0].copy() if shift is None else shift
        values -= shift
        count += len(values)
        total = total + values.sum(0)
        squares = squares + (values**2).sum(0)
    mean = total / count
    return shift + mean, np.sqrt(squares / count - mean**2)


def timed(call):
    """Seconds and result."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def report(name, seconds, images, **more):
    """One JSON line."""
    line = {"pass": name, "s": round(seconds, 1), "images_per_s": round(images / seconds), **more}
    print(json.dumps(line), flush=True)


def main():
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--dtype", default="uint16", choices=("uint8", "uint16", "float32"))
    parser.add_argument("--channels", type=int, default=1, choices=(1, 3))
    parser.add_argument("--plain", type=int, default=2000, help="images of the plain pass")
    parser.add_argument("--processes", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder, "images")
        images.mkdir()
        paths = make(images, args.images, args.dtype, args.channels)
        kind = ImageKind(
            channels=args.channels,
            colour={1: "gray", 3: "rgb"}[args.channels],
            dtype=args.dtype,
        )
        source, few = Files(paths, kind), Files(paths[: args.plain], kind)
        numpy, (mean, std) = timed(lambda: plain(few))
        report("numpy float64", numpy, len(few))
        some, found = timed(lambda: measure(few, cache=folder, processes=1))
        apart = max(abs(np.array(found.mean) / mean - 1).max(), abs(found.std / std - 1).max())
        report("jdet, one process", some, len(few), difference=float(apart))
        ours, found = timed(lambda: measure(source, cache=folder, processes=args.processes))
        ratio = round((ours / len(source)) / (numpy / len(few)), 2)
        report("jdet", ours, len(source), ratio=ratio)
        again, cached = timed(lambda: measure(source, cache=folder))
        report("jdet, cached", again, len(source), equal=cached == found)


if __name__ == "__main__":
    main()
