"""VOC folders: counts of real sets, splits and unions, classes, boxes."""

import pickle
import re

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdet.data.sources.annotations import check_boxes
from jdet.data.sources.voc import VocSource, voc_to_xyxy
from jdet.data.sources.voc_files import VOC_CLASSES, parse_splits
from jdet.types import DataError, Source
from tests.harness import ROOT

SHARED = ROOT.parent / "shared" / "data"


def object_xml(name="cat", box=(10, 20, 30, 40), difficult=0):
    xmin, ymin, xmax, ymax = box
    return (
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{xmin}</xmin>"
        f"<ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox>"
        "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>"
    )


def annotation_xml(*objects, size=(50, 64), filename="x.jpg"):
    height, width = size
    dims = f"<size><width>{width}</width><height>{height}</height></size>" if size[0] else ""
    return f"<annotation><filename>{filename}</filename>{dims}{''.join(objects)}</annotation>"


def make_folder(root, splits, annotations, labels=None, extension=".jpg"):
    """A folder of VOC shape: split → ids, id → XML text."""
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / name).mkdir(parents=True)
    for split, ids in splits.items():
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{i}\n" for i in ids))
    for id, text in annotations.items():
        (root / "Annotations" / f"{id}.xml").write_text(text)
        cv2.imwrite(str(root / "JPEGImages" / f"{id}{extension}"), np.zeros((50, 64, 3), np.uint8))
    if labels:
        (root / "labels.txt").write_text("\n".join(labels) + "\n\n")
    return root


def simple(root, *objects, **kwargs):
    return make_folder(root, {"train": ["a"]}, {"a": annotation_xml(*objects)}, **kwargs)


# Real sets -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, split, images, counts",
    [
        # The README counts 2382 and 968 RBCs; two of them are single points.
        ("bccd", "train", 205, {"RBC": 2382 - 1, "WBC": 214, "Platelets": 209}),
        ("bccd", "val", 87, {"RBC": 968 - 1, "WBC": 87, "Platelets": 83}),
        ("bccd", "test", 72, {"RBC": 805, "WBC": 71, "Platelets": 69}),
        ("openimages5", "train", 469, dict(apple=279, bicycle=224, bird=283, boat=298, person=625)),
        ("openimages5", "val", 68, dict(apple=73, bicycle=46, bird=15, boat=50, person=145)),
        ("openimages5", "test", 135, dict(apple=123, bicycle=64, bird=97, boat=138, person=161)),
    ],
)
def test_counts_of_real_sets(name, split, images, counts):
    if not (SHARED / name).is_dir():
        pytest.skip(f"{SHARED / name} is absent")
    source = VocSource(SHARED / name, split)
    assert len(source) == images
    assert dict(zip(source.class_names, source.class_counts(), strict=True)) == counts
    labels = np.concatenate([source[i].labels for i in range(len(source))])
    assert np.bincount(labels).tolist() == list(counts.values())
    for i in range(0, len(source), 17):
        example, (height, width) = source[i], source.image_size(i)
        assert cv2.imread(example.image).shape[:2] == (height, width)
        boxes = example.boxes
        assert (boxes[:, 2:] > boxes[:, :2]).all() and (boxes >= 0).all()
        assert (boxes <= [width, height, width, height]).all()


def test_defects_of_bccd_are_the_listed_ones():
    if not (SHARED / "bccd").is_dir():
        pytest.skip(f"{SHARED / 'bccd'} is absent")
    listed = re.findall(r"(\w+): (\w+) (.*)", (SHARED / "bccd" / "DEFECTS.txt").read_text())
    source = VocSource(SHARED / "bccd", "train+val+test")
    assert len(source) == 364
    found = {(d.id, *d.detail.split(" in ")[0].split(" ", 1)) for d in source.defects}
    assert found == {(id, name, box.replace(",", ", ")) for id, name, box in listed}
    assert {d.what for d in source.defects} == {"empty"}
    assert "defects: 2 empty" in source.describe()


# Boxes -----------------------------------------------------------------------------------------


def test_box_conversion_by_hand():
    assert voc_to_xyxy(np.array([1, 1, 640, 480])).tolist() == [0, 0, 640, 480]
    assert voc_to_xyxy(np.array([[1.0, 1.0, 1.0, 1.0]])).tolist() == [[0, 0, 1, 1]]


@given(st.lists(st.tuples(*[st.integers(1, 5000)] * 4), max_size=5), st.sampled_from("if"))
def test_boxes_cover_the_pixels_they_name(boxes, kind):
    boxes = np.array(boxes, np.float32 if kind == "f" else np.int32).reshape(-1, 4)
    there = voc_to_xyxy(boxes)
    assert there.dtype == boxes.dtype
    sides = boxes[:, 2:] - boxes[:, :2]
    np.testing.assert_array_equal(there[:, 2:] - there[:, :2], sides + 1)
    np.testing.assert_array_equal(there[:, 2:], boxes[:, 2:])


@given(
    st.lists(st.tuples(*[st.floats(-50, 150)] * 4), max_size=6),
    st.integers(1, 100),
    st.integers(1, 100),
)
def test_kept_boxes_lie_in_their_image(boxes, height, width):
    boxes = np.array(boxes).reshape(-1, 4)
    clipped, keep, verdicts = check_boxes(boxes, np.array([height, width]))
    kept = clipped[keep]
    assert (kept[:, 2:] > kept[:, :2]).all()
    assert (kept >= 0).all() and (kept <= [width, height, width, height]).all()
    assert set(verdicts[~keep]) <= {"empty", "inverted", "outside"}
    assert set(verdicts[keep]) <= {"", "clipped"}
    unchanged = keep & (verdicts == "")
    np.testing.assert_allclose(clipped[unchanged], boxes[unchanged], atol=0.02)


def test_bad_boxes_are_dropped_or_clipped_and_listed(tmp_path):
    boxes = {
        "good": (1, 1, 64, 50),
        "point": (5, 5, 5, 5),
        "inverted": (30, 20, 10, 40),
        "outside": (70, 10, 80, 20),
        "clipped": (60, 0, 70, 20),
    }
    root = simple(tmp_path, *[object_xml("cat", box) for box in boxes.values()], labels=["cat"])
    source = VocSource(root, "train")
    assert source[0].boxes.tolist() == [[0, 0, 64, 50], [59, 0, 64, 20]]
    assert source[0].areas.tolist() == [3200, 100]
    assert [d.what for d in source.defects] == ["empty", "inverted", "outside", "clipped"]
    assert source.defects[1].detail == "cat 30, 20, 10, 40 in 64x50"
    assert {d.id for d in source.defects} == {"a"}
    assert source[0].official.xywh.tolist() == [
        [0, 0, 64, 50],
        [4, 4, 1, 1],
        [29, 19, -19, 21],
        [69, 9, 11, 11],
        [59, -1, 11, 21],
    ]
    assert source[0].official.areas.tolist()[:2] == [3200, 1] and source[0].official.rank == 0
    assert "2 objects (cat 2)" in source.describe()
    assert "defects: 1 clipped, 1 empty, 1 inverted, 1 outside" in source.describe()


# Records ---------------------------------------------------------------------------------------


def test_example(tmp_path):
    objects = object_xml("dog", (1, 2.5, 30, 40), 1), object_xml("cat", (11, 11, 20, 20))
    source = VocSource(simple(tmp_path, *objects), "train")
    assert isinstance(source, Source)
    example = source[0]
    assert example.id == "a" and example.image == str(tmp_path / "JPEGImages" / "a.jpg")
    assert source.class_names == ("cat", "dog")
    assert example.boxes.tolist() == [[0, 1.5, 30, 40], [10, 10, 20, 20]]
    assert example.labels.tolist() == [1, 0] and example.ignore.tolist() == [True, False]
    types = (np.float32, np.int32, bool, np.float32)
    assert tuple(a.dtype for a in example[2:6]) == types
    assert source.image_size(0) == (50, 64) and example.masks is None
    assert "1 of them ignored" in source.describe() and "defects: none" in source.describe()
    example.boxes[:] = 0  # a reader may work in place
    assert source[-1].boxes[1].tolist() == [10, 10, 20, 20]
    with pytest.raises(IndexError):
        source[1]
    assert pickle.loads(pickle.dumps(source))[0].labels.tolist() == [1, 0]


def test_difficult_objects_can_be_left_out(tmp_path):
    root = simple(tmp_path, object_xml("dog", difficult=1), object_xml("cat"))
    source = VocSource(root, "train", keep_difficult=False)
    assert source[0].labels.tolist() == [0] and source.class_names == ("cat", "dog")


def test_image_without_objects_is_kept(tmp_path):
    source = VocSource(simple(tmp_path), "train", ["cat"])
    assert len(source) == 1 and source[0].boxes.shape == (0, 4)
    assert "(cat 0)" in source.describe()


def test_size_is_read_from_the_image_where_the_file_does_not_say(tmp_path):
    text = annotation_xml(object_xml("cat", (1, 1, 90, 90)), size=(0, 0))
    source = VocSource(make_folder(tmp_path, {"train": ["a"]}, {"a": text}), "train")
    assert source.image_size(0) == (50, 64)
    assert source[0].boxes.tolist() == [[0, 0, 64, 50]]


@pytest.mark.parametrize("extension", [".jpeg", ".png", ".JPG"])
def test_image_extensions(tmp_path, extension):
    root = simple(tmp_path, object_xml(), extension=extension)
    assert VocSource(root, "train")[0].image.endswith("a" + extension)


def test_image_named_by_filename(tmp_path):
    root = simple(tmp_path, object_xml())
    (root / "JPEGImages" / "a.jpg").rename(root / "JPEGImages" / "x.jpg")
    assert VocSource(root, "train")[0].image.endswith("x.jpg")
    # The split's own name goes first.
    (root / "JPEGImages" / "a.png").write_bytes((root / "JPEGImages" / "x.jpg").read_bytes())
    assert VocSource(root, "train")[0].image.endswith("a.png")


# Splits ----------------------------------------------------------------------------------------


def test_split_grammar():
    assert parse_splits("train") == [("", "train")]
    assert parse_splits("2012:val") == [("2012", "val")]
    assert parse_splits("07test") == [("2007", "test")]
    seven_twelve = [("2007", "trainval"), ("2012", "trainval")]
    assert parse_splits("07+12") == seven_twelve
    assert parse_splits("2007:trainval + 2012:trainval") == seven_twelve
    assert parse_splits(("07", "12")) == seven_twelve
    assert sorted(parse_splits("07++12")) == sorted([*seven_twelve, ("2007", "test")])
    with pytest.raises(DataError, match="an item is empty"):
        parse_splits("train+")


@pytest.fixture
def devkit(tmp_path):
    def xml(*names):
        return annotation_xml(*[object_xml(name) for name in names])

    make_folder(
        tmp_path / "VOCdevkit" / "VOC2007",
        {
            "trainval": ["000001", "000002"],
            "test": ["000003"],
            "cat_train": ["000001 -1", "000002  1"],
        },
        {"000001": xml("dog"), "000002": xml("cat", "person"), "000003": xml("sofa")},
    )
    make_folder(
        tmp_path / "VOCdevkit" / "VOC2012",
        {"trainval": ["2008_000001"]},
        {"2008_000001": xml("train")},
    )
    return tmp_path


def test_unions_of_a_devkit(devkit):
    def ids(root, splits, **kwargs):
        source = VocSource(root, splits, **kwargs)
        assert source.class_names == VOC_CLASSES and len(VOC_CLASSES) == 20
        return [source[i].id for i in range(len(source))]

    parts = ["000001", "000002", "2008_000001"]
    assert ids(devkit, "07+12") == ids(devkit / "VOCdevkit", "07+12") == parts
    assert sorted(ids(devkit, "07++12")) == sorted([*parts, "000003"])
    assert ids(devkit, "07test") == ids(devkit, "test", year=2007) == ["000003"]
    assert ids(devkit / "VOCdevkit" / "VOC2007", "2007:test") == ["000003"]
    assert ids(devkit / "VOCdevkit" / "VOC2007", "test") == ["000003"]
    assert ids(devkit, "2007:cat_train") == ["000002"]
    assert VocSource(devkit, "07+12")[2].labels.tolist() == [VOC_CLASSES.index("train")]


def test_splits_that_do_not_fit(devkit):
    with pytest.raises(DataError, match='holds VOC2007, VOC2012; say which, as in "2007:trainval"'):
        VocSource(devkit, "trainval")
    with pytest.raises(DataError, match="is itself a VOC folder"):
        VocSource(devkit / "VOCdevkit" / "VOC2007", "07+12")
    with pytest.raises(DataError, match="no split 'tset', did you mean 'test'"):
        VocSource(devkit, "2007:tset")
    with pytest.raises(DataError, match="'000001' is listed twice"):
        VocSource(devkit, "07+2007:trainval")


def test_names_with_spaces(tmp_path):
    text = annotation_xml(object_xml())
    root = make_folder(
        tmp_path, {"train": ["frame 1", "frame 0"]}, {"frame 1": text, "frame 0": text}
    )
    source = VocSource(root, "train")
    assert [source[i].id for i in range(2)] == ["frame 1", "frame 0"]


# Classes ---------------------------------------------------------------------------------------


def test_class_lists(tmp_path):
    text = {"a": annotation_xml(object_xml("zebra")), "b": annotation_xml(object_xml("ape"))}
    root = make_folder(tmp_path, {"train": ["a"], "val": ["b"]}, text)
    # Scanned over all annotations: train and val agree on the labels.
    assert VocSource(root, "train").class_names == VocSource(root, "val").class_names
    assert VocSource(root, "train").class_names == ("ape", "zebra")
    (root / "labels.txt").write_text("zebra\nape\n")
    assert VocSource(root, "train").class_names == ("zebra", "ape")
    assert VocSource(root, "train", ("x", "zebra"))[0].labels.tolist() == [1]


def test_unknown_class(tmp_path):
    root = simple(tmp_path, object_xml("Cats"), labels=["dog", "cat"])
    with pytest.raises(DataError) as error:
        VocSource(root, "train", on_error="skip")  # a wrong list is not a bad image
    for part in ("a.xml", "'Cats'", "dog, cat", "did you mean 'cat'"):
        assert part in str(error.value)


def test_bad_class_lists(tmp_path):
    root = simple(tmp_path, object_xml("cat"))
    for classes, message in (("cat", "must be a list"), ([], "empty"), (["cat", "cat"], "twice")):
        with pytest.raises(DataError, match=message):
            VocSource(root, "train", classes)
    (root / "labels.txt").write_text("cat\ncat\n")
    with pytest.raises(DataError, match=r"labels.txt: classes named twice: 'cat'"):
        VocSource(root, "train")


def test_folders_must_agree_on_the_classes(devkit):
    (devkit / "VOCdevkit" / "VOC2012" / "labels.txt").write_text("train\n")
    with pytest.raises(DataError, match="have different classes"):
        VocSource(devkit, "07+12")
