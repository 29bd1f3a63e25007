"""What counts as the same detections."""

import numpy as np
import pytest

from jdet.data.segmentation import encode_part
from jdet.export import parity
from jdet.export.cuts import Cuts
from jdet.types import ImageDetections

THRESHOLDS = Cuts(lowest=np.array([0.3, 0.5]))


def found(*rows, masks=None):
    boxes, scores, labels = zip(*rows, strict=True) if rows else ((), (), ())
    return ImageDetections(
        id="a",
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array(scores, np.float32),
        labels=np.array(labels, np.int32),
        masks=masks,
    )


ONE, TWO = ((0, 0, 10, 10), 0.9, 0), ((5, 5, 30, 20), 0.8, 1)


def moved(row, pixels=0.0, score=0.0, label=0):
    box, old, kind = row
    return tuple(x + pixels for x in box), old + score, kind + label


@pytest.mark.parametrize(
    ("theirs", "within"),
    [
        ((TWO, ONE), True),  # in another order
        ((moved(ONE, 5e-4), TWO), True),
        ((moved(ONE, 5e-3), TWO), False),
        ((moved(ONE, 0, 5e-5), TWO), True),
        ((moved(ONE, 0, 5e-4), TWO), False),
        ((moved(ONE, label=1), TWO), False),
        ((ONE,), False),
        ((ONE, TWO, TWO), False),
        ((ONE, TWO, ((1, 1, 5, 5), 0.50005, 1)), True),  # at its threshold to rounding
        ((ONE, TWO, ((1, 1, 5, 5), 0.502, 1)), False),
    ],
)
def test_limits(theirs, within):
    apart = parity.difference(found(ONE, TWO), found(*theirs), THRESHOLDS)
    assert apart.within() is within, apart
    assert apart.objects == 2


OVER = ((0, 2, 10, 12), 0.85, 0)  # IoU with ONE: 80 / 120
UNDER = ((0, 4, 10, 14), 0.6, 0)  # with OVER: 80 / 120; with ONE: 60 / 140


@pytest.mark.parametrize(
    ("ours", "theirs", "cuts", "missing"),
    [
        # A threshold of 0 is no cut-off, whatever the score; that of the detector is one.
        ((ONE,), (ONE, moved(TWO, score=5e-5 - 0.8)), dict(lowest=(0, 0)), 1),
        ((ONE,), (ONE, moved(TWO, score=0.05 - 0.8)), dict(lowest=(0.05, 0.05)), 0),
        # The last of an image, or of a class, that has as many as it may have.
        ((ONE, TWO), (ONE, moved(TWO, 9, 5e-5)), dict(detections=2), 0),
        ((ONE, TWO), (ONE, moved(TWO, 9, 5e-5)), dict(detections=3), 2),
        ((ONE, TWO), (ONE, moved(TWO, 9, 5e-4)), dict(detections=2), 1),
        ((ONE, TWO), (ONE, moved(TWO, 9, 5e-5)), dict(per_class=1), 0),
        ((ONE, TWO), (ONE, moved(TWO, 9, 5e-5)), dict(per_class=2), 2),
        # Dropped for a box of both sides, at the threshold of NMS or not.
        ((ONE,), (ONE, OVER), dict(nms_iou=2 / 3), 0),
        ((ONE,), (ONE, OVER), dict(nms_iou=0.66), 1),
        ((ONE,), (ONE, OVER), dict(nms_iou=0.68), 1),
        ((ONE,), (ONE, moved(OVER, label=1)), dict(nms_iou=2 / 3), 1),
        # Of two with one score either may be kept, and so may what the other drops; not of two others.
        ((ONE,), (moved(OVER, score=0.05),), dict(nms_iou=0.6), 0),
        ((ONE,), (moved(OVER, score=0.045),), dict(nms_iou=0.6), 2),
        ((ONE, UNDER), (moved(OVER, score=0.05),), dict(nms_iou=0.6), 0),
        ((ONE, UNDER), (OVER,), dict(nms_iou=0.6), 3),
        ((ONE, UNDER), (moved(OVER, score=0.05),), dict(nms_iou=None), 3),
    ],
)
def test_what_rounding_explains(ours, theirs, cuts, missing):
    """The same the other way round."""
    lowest = np.array(cuts.pop("lowest", (0.3, 0.3)))
    for one, other in ((ours, theirs), (theirs, ours)):
        ends = Cuts(lowest, **cuts).ends(found(*ours))
        apart = parity.difference(found(*one), found(*other), Cuts(lowest, **cuts), ends=ends)
        assert apart.missing == missing, apart


def test_another_limit_of_boxes():
    apart = parity.difference(found(ONE), found(moved(ONE, pixels=0.005)), THRESHOLDS)
    assert not apart.within() and not apart.within(0.004) and apart.within(0.006)


def test_masks_may_differ_at_their_edges_alone():
    def mask(width):
        return encode_part(np.ones((20, width), bool), 2, 3, 64, 64)

    ours = found(ONE, masks=(mask(20),))
    assert parity.difference(ours, found(ONE, masks=(mask(20),)), THRESHOLDS).within()
    assert not parity.difference(ours, found(ONE, masks=(mask(21),)), THRESHOLDS).within()
    assert not parity.difference(ours, found(ONE), THRESHOLDS).within()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_no_match(value):
    for theirs in (((0, 0, 10, value), 0.9, 0), ((0, 0, 10, 10), value, 0)):
        apart = parity.difference(found(ONE), found(theirs), THRESHOLDS)
        assert not apart.within() and not parity.Difference().and_(apart).within()


def test_sums_over_images_keep_the_largest():
    first = parity.difference(found(ONE), found(moved(ONE, 5e-4)), THRESHOLDS)
    total = first.and_(parity.difference(found(TWO), found(TWO), THRESHOLDS))
    assert (total.images, total.objects) == (2, 2)
    assert total.pixels == pytest.approx(5e-4, rel=1e-2)
