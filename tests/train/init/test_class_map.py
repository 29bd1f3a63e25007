"""Classes of one data set found in another by name, and layers cut accordingly."""

import numpy as np
import pytest

from jdet.data.sources.voc_files import VOC_CLASSES
from jdet.train.init.class_map import match_names, take_classes, width_of
from jdet.types import ClassLayer

COCO_CLASSES = tuple(
    """person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light,
    fire hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear,
    zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball,
    kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup,
    fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza,
    donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote,
    keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors,
    teddy bear, hair drier, toothbrush""".replace("\n", " ")
    .replace("    ", "")
    .split(", ")
)

# Position + 1 in COCO's list of 80, background being 0, for VOC's classes in their order: what the
# converters of SSD and RefineDet copy.
COCO_OF_VOC = (5, 2, 15, 9, 40, 6, 3, 16, 57, 20, 61, 17, 18, 4, 1, 59, 19, 58, 7, 63)


def test_voc_in_coco_is_the_published_table():
    assert len(COCO_CLASSES) == 80
    assert match_names(VOC_CLASSES, COCO_CLASSES) == tuple(i - 1 for i in COCO_OF_VOC)


def test_coco_in_voc_is_its_inverse():
    back = match_names(COCO_CLASSES, VOC_CLASSES)
    assert sum(position is not None for position in back) == 20
    assert all(back[i - 1] == voc for voc, i in enumerate(COCO_OF_VOC))


@pytest.mark.parametrize(
    "new, old, positions",
    [
        (("b", "a"), ("a", "b"), (1, 0)),
        (("Red Cell", "platelet"), ("red_cell", "other"), (0, None)),
        (("cat",), ("Cat", "cat", "CAT"), (1,)),  # the same name before similar ones
        (("c.a.t",), ("Cat", "cat"), (None,)),  # two answer: none is meant
        (("sofa", "couch"), ("couch",), (0, 0)),
        (("+", "-"), ("-", "*"), (None, 0)),
        ((), ("a",), ()),
    ],
)
def test_names(new, old, positions):
    assert match_names(new, old) == positions


@pytest.mark.parametrize(
    "layer", [ClassLayer("", 3, 1), ClassLayer("", 2, 0), ClassLayer("", 1, 1, 4)]
)
def test_rows_by_slot(layer):
    """Every number says where it came from: slot, class, coordinate."""
    rng = np.random.default_rng(0)
    old = rng.normal(size=(3, 3, 5, width_of(layer, 4))).astype(np.float32)
    new = rng.normal(size=(3, 3, 5, width_of(layer, 3))).astype(np.float32)
    before = new.copy()
    taken = take_classes(new, old, layer, (2, None, 0), 4)
    np.testing.assert_array_equal(new, before)
    assert taken.shape == new.shape and taken.dtype == new.dtype
    for slot in range(layer.slots):
        for k in range(layer.background + 3):
            for coordinate in range(layer.width):

                def column(array, classes, k, slot=slot, coordinate=coordinate):
                    entry = slot * (layer.background + classes) + k
                    return array[..., entry * layer.width + coordinate]

                source = (2, None, 0)[k - layer.background] if k >= layer.background else None
                if k < layer.background:
                    expected = column(old, 4, k)
                elif source is None:
                    expected = column(new, 3, k)
                else:
                    expected = column(old, 4, layer.background + source)
                np.testing.assert_array_equal(column(taken, 3, k), expected)
