import numpy as np
import pytest

from jdet.analyse.compute import analyse
from jdet.analyse.scored import ScoredImage
from jdet.types import ImageDetections, OfficialObjects

NAMES = ("cat", "dog")
BOX = np.array([10.0, 20, 40, 30])


def image(id, objects, found):
    """Objects (label, xywh) and detections (label, xywh, score)."""
    boxes = np.array([box for _, box, _ in found], float).reshape(-1, 4)
    xywh = np.array([box for _, box in objects], float).reshape(-1, 4)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    return ScoredImage(
        id=id,
        name=str(id),
        file=f"{id}.png",
        place=(id, str(id)),
        found=ImageDetections(
            id=str(id),
            boxes=corners.astype(np.float32),
            scores=np.array([score for *_, score in found], np.float32),
            labels=np.array([label for label, *_ in found], np.int32),
        ),
        ground_truth=OfficialObjects(
            xywh=xywh,
            labels=np.array([label for label, _ in objects], np.int32),
            ignore=np.zeros(len(objects), bool),
            areas=xywh.prod(1),
            rank=id,
        ),
    )


def good(count=40):
    """Images in which all is right."""
    return [image(i, [(i % 2, BOX)], [(i % 2, BOX, 0.9)]) for i in range(100, 100 + count)]


def moved(x):
    return BOX + [x, 0, 0, 0]


PLANTED = {
    "unlabelled": ([], [(0, BOX, 0.95)], "cat", None),
    "wrong_class": ([(1, BOX)], [(0, BOX, 0.95), (1, BOX, 0.1)], "dog", "cat"),
    "badly_placed": ([(0, moved(25))], [(0, BOX, 0.95)], "cat", None),
    "nothing_there": ([(1, moved(200))], [(1, BOX, 0.05)], "dog", None),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_error_is_suspected_and_nothing_else(kind):
    objects, found, label, other = PLANTED[kind]
    (one,) = analyse([*good(), image(1, objects, found)], NAMES).label_suspects
    assert one["kind"] == kind and one["class"] == label and one["other"] == other
    assert (one["image"], one["file"]) == (1, "1.png")
    x, y, width, height = objects[0][1] if objects else BOX
    assert one["box"] == pytest.approx([x, y, x + width, y + height])
    expected = 0.95 if kind != "nothing_there" else 20 / 21  # of the dogs that are found
    assert one["score"] == pytest.approx(expected)


def test_right_labels_are_not_suspected():
    unsure = image(1, [(0, BOX)], [(0, BOX, 0.9), (0, moved(100), 0.2), (1, BOX, 0.3)])
    twice = image(2, [(0, BOX)], [(0, BOX, 0.9), (0, moved(3), 0.85)])
    assert analyse([*good(), unsure, twice], NAMES).label_suspects == []


def test_a_detector_that_is_mostly_wrong_accuses_nobody():
    wrong = [image(i, [(0, BOX)], [(0, moved(100), 0.9)]) for i in range(50)]
    assert analyse([*good(10), *wrong], NAMES).label_suspects == []
