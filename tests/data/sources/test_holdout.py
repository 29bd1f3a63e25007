import numpy as np
import pytest

from jdet.data.sources.annotations import Defect
from jdet.data.sources.holdout import Holdout
from jdet.types import DataError, Example, ImageKind


class Names:
    class_names = ("a",)

    def __init__(self, names):
        self.names = names

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        empty = np.zeros((0,), np.int32)
        return Example(self.names[index], "", np.zeros((0, 4)), empty, empty > 0, empty)


def ids(source):
    return {source[i].id for i in range(len(source))}


def test_sides_are_disjoint_complete_and_about_the_right_size():
    source = Names([f"image{i}" for i in range(1000)])
    rest, held_out = Holdout(source, 10, False), Holdout(source, 10, True)
    assert ids(rest) | ids(held_out) == set(source.names) and not ids(rest) & ids(held_out)
    assert 70 <= len(held_out) <= 130


def test_an_image_stays_on_its_side_when_others_come():
    few = Names([f"image{i}" for i in range(100)])
    many = Names([f"image{i}" for i in range(100)] + [f"new{i}" for i in range(50)])
    assert ids(Holdout(few, 5, True)) == ids(Holdout(many, 5, True)) & set(few.names)


def test_an_empty_side_is_an_error():
    with pytest.raises(DataError, match="config.data.holdout=1000"):
        Holdout(Names(["a", "b"]), 1000, True)


class Labelled(Names):
    """Knows names and sizes without handing out an image, as sources with label files do."""

    category_ids = (7,)

    @property
    def image_ids(self):
        return tuple(1000 + i for i in range(len(self)))

    @property
    def ids(self):
        return tuple(self.names)

    @property
    def defects(self):
        return [Defect(name, "clipped", "a 1, 1, 9, 9 in 5x5") for name in [*self.names, "skipped"]]

    def image_size(self, index):
        return 10 + index, 20

    def describe(self):
        return "COCO pets.json: 40 images"


def test_what_the_source_tells_is_passed_on():
    source = Labelled([f"image{i}" for i in range(40)])
    rest, held_out = Holdout(source, 4, False), Holdout(source, 4, True)
    for side in (rest, held_out):
        assert side.category_ids == (7,)
        assert side.describe().startswith(f"{len(side)} of 40 images")
        assert side.describe().endswith("COCO pets.json: 40 images")
        for i in range(len(side)):
            position = source.names.index(side[i].id)
            assert side.image_size(i) == source.image_size(position)
            assert side.image_ids[i] == source.image_ids[position]
    told = [{defect.id for defect in side.defects} for side in (rest, held_out)]
    assert told[0] | told[1] == {*source.names, "skipped"} and not told[0] & told[1]
    assert ids(held_out) <= told[1]


def test_names_are_asked_for_without_reading_images():
    class Closed(Labelled):
        def __getitem__(self, index):
            raise AssertionError("an image was read")

    Holdout(Closed([f"image{i}" for i in range(40)]), 4, True)


def test_a_source_that_tells_nothing():
    side = Holdout(Names([f"image{i}" for i in range(40)]), 4, True)
    assert side.image_size(0) is None and side.defects == []
    assert side.category_ids == side.image_ids == ()
    assert "of 40 images, split by name, of Names" in side.describe()


def test_images_are_of_the_kind_of_the_source_and_else_8_bit_rgb():
    source = Names([f"image{i}" for i in range(100)])
    assert Holdout(source, 5, True).image_kind == ImageKind.of(source) == ImageKind(3, "rgb")
    source.image_kind = ImageKind(5, "bands", "uint16", (0.0, 4095.0))
    assert Holdout(source, 5, False).image_kind == source.image_kind
    assert str(source.image_kind) == "5 bands, uint16, values 0 … 4095"
