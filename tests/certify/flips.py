"""One thing of a certified run is changed at random, and the certificate says which.

python -m tests.certify.flips --count=100 [--seed=0]
"""

import argparse
import json
import random
import re
import shutil
import tempfile
from pathlib import Path

import cv2

from jdet.certify import __main__ as certify_command
from jdet.certify import certificate as certificate_lib
from jdet.config import load
from jdet.train import provenance
from jdet.train.folders import CERTIFICATE
from jdet.verify import checks
from tests.certify import tiny_run

KINDS = ("pixel", "label", "config", "code", "checkpoint", "certificate")


class Certified:
    """A certified run, with a copy of jdet's code that can be changed."""

    def __init__(self, folder):
        self.run = tiny_run.train(folder)
        self.data = folder / "data"
        self.package = folder / "jdet"
        hidden = shutil.ignore_patterns("__pycache__")
        shutil.copytree(provenance.PACKAGE, self.package, ignore=hidden)
        self.file = self.run / CERTIFICATE
        assert certify_command.main([str(self.run), f"--licence={self.data}=CC0"]) == 0

    def wrong(self):
        """What the digests say is not as certified, as one text; "" where all holds."""
        certificate = certificate_lib.read(self.file)
        config = load(self.run / "config.json")
        found = [
            checks.of_itself(certificate),
            *checks.of_code(certificate, config, self.package),
            checks.of_config(certificate, self.run),
            checks.of_checkpoints(certificate, self.run),
            *checks.of_data(certificate, self.file, config),
        ]
        return "\n".join(line for check in found if not check.holds for line in check.said)


def flip(certified, kind, rng):
    """Changes one thing; returns the file, its content before and what the finding must name."""
    change = globals()[f"_flip_{kind}"]
    return change(certified, rng)


def _flip_pixel(certified, rng):
    path = rng.choice(sorted((certified.data / "JPEGImages").iterdir()))
    before, image = path.read_bytes(), cv2.imread(str(path))
    place = tuple(rng.randrange(side) for side in image.shape)
    image[place] ^= 1 << rng.randrange(8)
    cv2.imwrite(str(path), image)
    return path, before, f"{path.stem} ({path}) was changed"


def _flip_label(certified, rng):
    path = rng.choice(sorted((certified.data / "Annotations").iterdir()))
    text = path.read_text()
    places = [*re.finditer(r"<(xmin|ymin|xmax|ymax)>(\d+)|<name>(cat|dog)|<difficult>0", text)]
    one = rng.choice([x for x in places if x[2] != "1"])  # of a part, which nobody reads
    if one[1]:
        now = f"<{one[1]}>{int(one[2]) + rng.choice((-1, 1))}"
    else:
        now = {"<name>cat": "<name>dog", "<name>dog": "<name>cat"}.get(one[0], "<difficult>1")
    path.write_text(text[: one.start()] + now + text[one.end() :])
    return path, text.encode(), f"image {path.stem}"


def _flip_config(certified, rng):
    path = certified.run / "config.json"
    before = path.read_bytes()
    stored = json.loads(before)
    group = rng.choice([stored, stored["train"], stored["optimizer"], stored["eval"]])
    key = rng.choice([k for k, v in group.items() if isinstance(v, int | float)])
    group[key] = not group[key] if isinstance(group[key], bool) else group[key] + 1
    path.write_text(json.dumps(stored))
    return path, before, f"{key}: "


def _flip_code(certified, rng):
    path = rng.choice(sorted(certified.package.rglob("*.py")))
    while not path.read_text().strip():
        path = rng.choice(sorted(certified.package.rglob("*.py")))
    before = path.read_bytes()
    lines = before.decode().splitlines(keepends=True)
    place = rng.randrange(len(lines))
    lines[place] = rng.choice((lines[place].rstrip("\n") + " \n", "", "x = 1\n" + lines[place]))
    if "".join(lines) == before.decode():
        lines.append("\n")
    path.write_text("".join(lines))
    return path, before, f"{path.relative_to(certified.package)} was changed"


def _flip_checkpoint(certified, rng):
    files = [x for x in sorted((certified.run / "checkpoints").rglob("*")) if x.is_file()]
    path = rng.choice([x for x in files if x.stat().st_size])
    before = path.read_bytes()
    place = rng.randrange(len(before))
    flipped = bytes([before[place] ^ 1 << rng.randrange(8)])
    path.write_bytes(before[:place] + flipped + before[place + 1 :])
    step, *inner = path.relative_to(certified.run / "checkpoints").parts
    return path, before, f"step {step}: {'/'.join(inner)} was changed"


def _flip_certificate(certified, rng):
    path = certified.file
    before = path.read_text()
    one = rng.choice([*re.finditer(r'"[0-9a-f]{64}"', before)])
    place = rng.randrange(one.start() + 1, one.end() - 1)
    other = rng.choice([x for x in "0123456789abcdef" if x != before[place]])
    path.write_text(before[:place] + other + before[place + 1 :])
    return path, before.encode(), "it was changed"


def count_found(certified, count, seed):
    """How many of so many random changes are found and named; prints those that are not."""
    rng, found = random.Random(seed), 0
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        path, before, expected = flip(certified, kind, rng)
        wrong = certified.wrong()
        path.write_bytes(before)
        found += expected in wrong
        if expected not in wrong:
            print(f"{kind} {path}: {expected!r} is not in {wrong!r}")
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        certified = Certified(Path(folder))
        assert not certified.wrong()
        found = count_found(certified, args.count, args.seed)
        assert not certified.wrong()
    print(f"{found} of {args.count} changes found and named")


if __name__ == "__main__":
    main()
