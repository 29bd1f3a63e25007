"""What is found, false and missed: by hand, and at every threshold against matching anew."""

import numpy as np

from jdet.html_report import matching
from tests.evaluation.records import detections, example

BOX, FAR = [0, 0, 10, 10], [50, 50, 60, 60]


def test_outcomes_of_one_image():
    ground_truth = example("a", [BOX, [20, 0, 30, 10], FAR], [0, 1, 0], ignore=[False, False, True])
    found = detections(
        "a",
        [BOX, [1, 0, 10, 10], [20, 0, 30, 10], [22, 0, 40, 10], [90, 90, 95, 95], [52, 52, 58, 58]],
        [0, 0, 0, 1, 0, 0],
        [0.9, 0.8, 0.7, 0.6, 0.5, 0.4],
    )
    held = matching.match(found, ground_truth, 0.5)
    assert held.outcome.tolist() == [
        0,
        matching.DUPLICATE,
        matching.WRONG_CLASS,
        matching.BADLY_PLACED,
        matching.BACKGROUND,
        matching.IGNORED,
    ]
    assert held.counts(0.5) == (1, 4, 1) and held.counts(0.95) == (0, 0, 2)
    assert held.f1(0.5) == 2 / (2 + 4 + 1)
    nothing = matching.match(detections("b", [], [], []), example("b", [], []), 0.5)
    assert nothing.f1(0.3) == 1.0 and nothing.counts(0.0) == (0, 0, 0)


def test_one_matching_holds_for_every_threshold():
    rng = np.random.default_rng(0)
    images = []
    for number in range(12):
        corner = rng.uniform(0, 60, (8, 2))
        ground_truth = example(
            str(number),
            np.hstack([corner, corner + 20]),
            rng.integers(0, 2, 8),
            ignore=rng.random(8) < 0.2,
        )
        moved = corner[rng.integers(0, 8, 30)] + rng.normal(0, 4, (30, 2))
        boxes = np.hstack([moved, moved + 20])
        found = detections(str(number), boxes, rng.integers(0, 2, 30), rng.random(30))
        images.append((found, ground_truth))
    matched = [matching.match(*each, 0.5) for each in images]
    sums = matching.totals(matched)
    for level in (0, 17, 50, 83, 100):
        some = [
            matching.match(found.select(found.scores >= level / 100), ground_truth, 0.5).counts(0)
            for found, ground_truth in images
        ]
        assert (sums.found[level], sums.false[level]) == tuple(np.sum(some, 0)[:2])
        assert [image.counts(level / 100) for image in matched] == some
    f1 = [2 * f / (f + w + sums.objects) for f, w in zip(sums.found, sums.false)]
    assert f1[sums.best()] == max(f1)
