"""Writes ``tide.json``: what tidecv 1.0.1 says of sets that ``tests.analyse.random_set`` makes.

Without equal scores, which tidecv takes in another order, and of sets that reach no recall at which its
list of recalls is rounded otherwise than pycocotools'.

pip install --no-deps --target FOLDER tidecv==1.0.1 appdirs
PYTHONPATH=.:FOLDER python tests/golden/make_tide.py
"""

import json
import sys
import types
from pathlib import Path

from tests.analyse.random_set import NAMES, random_set, xywh

SETS = [
    {"seed": seed, "crowds": crowds, "absent": 0, "ties": False}
    for seed, crowds in ((14, 0.0), (40, 0.1))
]


def main():
    sys.modules["tidecv.plotting"] = plotting = types.ModuleType("plotting")  # it wants seaborn
    plotting.Plotter = object
    from tidecv import TIDE, Data

    values = []
    for options in SETS:
        ground_truth, found = Data("ground truth"), Data("found")
        for label, name in enumerate(NAMES):
            ground_truth.add_class(label, name)
        for image in random_set(**options):
            ground_truth.add_image(image.id, image.name)
            there = image.ground_truth
            for box, label, ignore in zip(there.xywh, there.labels, there.ignore, strict=True):
                add = ground_truth.add_ignore_region if ignore else ground_truth.add_ground_truth
                add(image.id, int(label), box.tolist())
            boxes = xywh(image.found.boxes)
            for box, label, score in zip(
                boxes, image.found.labels, image.found.scores, strict=True
            ):
                found.add_detection(image.id, int(label), float(score), box.tolist())
        tide = TIDE()
        run = tide.evaluate(ground_truth, found, mode=TIDE.BOX)
        errors = tide.get_main_errors()["found"]
        values.append({"ap": float(run.ap), **{k: float(v) for k, v in errors.items()}})
    Path(__file__).with_name("tide.json").write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main()
