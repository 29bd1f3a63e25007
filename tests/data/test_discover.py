"""What folders hold: which files are for training and for evaluation, and the sizes of objects."""

import json
import logging
import subprocess

import pytest

from jdet.data.discover import Found, discover
from jdet.data.layouts.words import split_of
from jdet.data.sources.voc import VocSource
from jdet.types import DataError
from tests.data.sources.test_coco import annotation, content
from tests.data.sources.test_voc import annotation_xml, make_folder, object_xml

CAPTIONS = {"images": [], "annotations": [{"id": 1, "image_id": 1, "caption": "a cat"}]}


def detections(first):
    """Thirty images with an object each; those of different ``first`` are different."""
    ids = range(first, first + 30)
    return content(
        *(annotation(i, image_id=i, category_id=1 + 2 * (i % 2)) for i in ids), images=ids
    )


def write(root, files):
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    "files, train, evaluation",
    [
        # As COCO is unpacked: other tasks on the same images lie beside the boxes.
        (
            {
                "annotations/captions_train2017.json": CAPTIONS,
                "annotations/captions_val2017.json": CAPTIONS,
                "annotations/instances_train2017.json": detections(0),
                "annotations/instances_val2017.json": detections(100),
                "annotations/person_keypoints_train2017.json": detections(200),
                "annotations/person_keypoints_val2017.json": detections(300),
            },
            "annotations/instances_train2017.json",
            "annotations/instances_val2017.json",
        ),
        # Roboflow: the folder names the split.
        (
            {
                "test/_annotations.coco.json": detections(200),
                "train/_annotations.coco.json": detections(0),
                "valid/_annotations.coco.json": detections(100),
            },
            "train/_annotations.coco.json",
            "valid/_annotations.coco.json",
        ),
        ({"instances_trainval.json": detections(0)}, "instances_trainval.json", None),
        ({"train_latest.json": detections(0)}, "train_latest.json", None),
        ({"boxes.json": detections(0)}, "boxes.json", None),
        (
            {"trainval.json": detections(0), "my-test.json": detections(100)},
            "trainval.json",
            "my-test.json",
        ),
        # "val" is a part of "trainval", and evaluating on it would flatter.
        ({"trainval.json": detections(0), "val.json": detections(0)}, "trainval.json", None),
        # Files that hold no boxes, or none at all.
        (
            {
                "info_train.json": {"images": [], "annotations": []},
                "train.json": detections(0),
                "train_results.json": {"images": [], "bbox": []},
                "val.json": CAPTIONS,
            },
            "train.json",
            None,
        ),
    ],
)
def test_annotation_files_are_told_apart(tmp_path, files, train, evaluation):
    write(tmp_path, files)
    assert discover(tmp_path) == Found("coco", train, evaluation)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_split_in_which_nothing_is_to_be_found(tmp_path, encoding):
    """It is evaluated on, not left out in favour of a part of the training images."""
    write(tmp_path, {"train.json": detections(0)})
    (tmp_path / "val.json").write_text(json.dumps(content(images=(7, 8))), encoding=encoding)
    assert discover(tmp_path) == Found("coco", "train.json", "val.json")


def test_masks_without_boxes_are_detections(tmp_path):
    data = content({"image_id": 7, "category_id": 1, "segmentation": [[0, 0, 5, 0, 5, 5]]})
    write(tmp_path, {"instances_default.json": data})
    assert discover(tmp_path) == Found("coco", "instances_default.json", None)


def test_what_is_left_out_is_told(tmp_path, caplog):
    write(
        tmp_path,
        {
            "instances_train.json": detections(0),
            "more/train.json": detections(50),
            "others.json": detections(100),
            "val.json": CAPTIONS,
            "captions_val.json": CAPTIONS,
            ".ipynb_checkpoints/val-checkpoint.json": detections(200),
            "__MACOSX/._val.json": detections(200),
        },
    )
    with caplog.at_level(logging.WARNING):
        assert discover(tmp_path) == Found("coco", "instances_train.json", None)
    told = sorted(record.getMessage().replace(f"{tmp_path}/", "") for record in caplog.records)
    assert told == [
        "more/train.json is not used: instances_train.json is the file of 'train'",
        "others.json is not used: neither its name nor its folder says 'train', 'val' or 'test'",
        "val.json is not used: it holds no boxes in COCO's form",
    ]


def test_a_file_that_git_lfs_has_not_fetched(tmp_path):
    write(tmp_path, {"train.json": detections(0)})
    (tmp_path / "val.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    with pytest.raises(DataError, match="val.json is a Git LFS pointer, .*git lfs pull"):
        discover(tmp_path)


def test_files_that_name_no_split_are_not_guessed(tmp_path):
    write(tmp_path, {"latest.json": detections(0), "intervals.json": detections(100)})
    with pytest.raises(DataError, match="'train' and 'val' as words"):
        discover(tmp_path)


@pytest.mark.parametrize(
    "lists, found",
    [
        (["train", "val", "trainval", "test"], ("trainval", "test")),
        (["train", "val", "test"], ("train", "test")),
        (["train", "val"], ("train", "val")),
        (["trainval", "val"], ("trainval", None)),
        (["train"], ("train", None)),
        (["default"], ("default", None)),
        (["default", "cat_default", "dog_default"], ("default", None)),
        (["train", "val", "train_train", "train_val"], ("train", "val")),
        (["Training", "Validation"], ("Training", "Validation")),
    ],
)
def test_splits_of_a_voc_folder(tmp_path, lists, found):
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    for name in lists:
        (tmp_path / "ImageSets" / "Main" / f"{name}.txt").touch()
    assert discover(tmp_path) == Found("voc", *found)


def voc_folder(root, lists):
    (root / "Annotations").mkdir(parents=True)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for name in lists:
        (root / "ImageSets" / "Main" / f"{name}.txt").touch()


@pytest.mark.parametrize(
    "folders, found",
    [
        ({"VOCdevkit/VOC2007": ["trainval", "test"]}, ("trainval", "test")),
        ({"VOC2007": ["train"]}, ("train", None)),
        ({"my_set": ["train", "val"]}, ("train", "val")),
        (
            {"VOCdevkit/VOC2007": ["trainval", "test"], "VOCdevkit/VOC2012": ["train", "trainval"]},
            ("2007:trainval+2012:trainval", "2007:test"),
        ),
        (
            {"VOC2007": ["train", "val"], "VOC2012": ["train", "val"]},
            ("2007:train+2012:train", "2007:val+2012:val"),
        ),
        ({"VOC2007": ["trainval"], "VOC2012": ["trainval"]}, ("2007:trainval+2012:trainval", None)),
    ],
)
def test_folders_of_voc_shape_below(tmp_path, folders, found, monkeypatch):
    for name, lists in folders.items():
        voc_folder(tmp_path / name, lists)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert discover(tmp_path) == discover("~") == Found("voc", *found)


def test_folders_that_hold_several_sets(tmp_path):
    voc_folder(tmp_path / "a", ["train"])
    voc_folder(tmp_path / "b", ["train"])
    with pytest.raises(DataError, match="holds several data sets: .*/a, .*/b; name one of them"):
        discover(tmp_path)
    write(tmp_path, {"train.json": detections(0)})
    assert discover(tmp_path).shape == "coco"
    voc_folder(tmp_path / "years" / "VOC2007", ["train"])
    voc_folder(tmp_path / "years" / "VOC2012", ["val"])
    with pytest.raises(DataError, match="VOC2007, VOC2012, which have no lists .* in common"):
        discover(tmp_path / "years")


@pytest.mark.parametrize("empty", [True, False])
def test_a_voc_folder_without_lists(tmp_path, empty):
    xml = annotation_xml(object_xml())
    make_folder(tmp_path, {}, {"a": xml, "b": xml})
    if not empty:
        (tmp_path / "ImageSets" / "Main").rmdir()
    assert discover(tmp_path) == Found("voc", ".", None)
    assert VocSource(tmp_path, ".").ids == ("a", "b")


def test_lists_that_name_no_split_and_what_to_type(tmp_path):
    root = tmp_path / "a set"
    xml = annotation_xml(object_xml())
    make_folder(root, {"monday": "a", "tuesday": "b"}, {"a": xml, "b": xml})
    with pytest.raises(DataError, match="no train.txt or trainval.txt; of monday, .*re") as error:
        discover(root)
    subprocess.run(str(error.value).split("`")[1], shell=True, check=True)
    assert discover(root) == Found("voc", "train", None)
    assert VocSource(root, "train").ids == ("a", "b")


@pytest.mark.parametrize(
    "folders, found, images",
    [
        (["train", "valid", "test"], ("train", "valid"), (1, 1)),
        (["train", "valid"], ("train", "valid"), (1, 1)),
        (["train"], ("train", None), (1,)),
        (["monday", "tuesday"], (".", None), (2,)),
        ([""], (".", None), (1,)),
    ],
)
def test_xml_files_beside_their_images(tmp_path, folders, found, images):
    """As Roboflow and LabelImg leave them; all splits know the same classes."""
    for place, folder in enumerate(folders):
        name = ("dog", "cat", "cow")[place]
        root = make_folder(tmp_path / "made" / name, {}, {"a": annotation_xml(object_xml(name))})
        (tmp_path / "set" / folder).mkdir(parents=True, exist_ok=True)
        for file in ("Annotations/a.xml", "JPEGImages/a.jpg"):
            (root / file).rename(tmp_path / "set" / folder / file.split("/")[1])
    root = tmp_path / "set"
    assert discover(root) == Found("voc", *found)
    sources = [VocSource(root, split) for split in found if split]
    assert tuple(map(len, sources)) == images
    assert sources[0].class_names == tuple(sorted(("dog", "cat", "cow")[: len(folders)]))
    assert sources[0][0].image == str(root / sources[0].ids[0]) + ".jpg"
    with pytest.raises(DataError, match="has no XML files in a folder 'trian'"):
        VocSource(root, "trian")


def test_json_in_a_folder_called_annotations(tmp_path):
    write(tmp_path, {"Annotations/instances_train.json": detections(0)})
    assert discover(tmp_path).shape == "coco"


@pytest.mark.parametrize(
    "name, content, hint",
    [
        (
            "my/a.xml",
            "<svg/>",
            "a.xml begins with <svg>; VOC's files begin with <annotation>, CVAT's",
        ),
        ("set.yaml", "train: images", "set.yaml is near to YOLO's data.yaml: it lacks names"),
        ("x.json", '{"images": [{}]}', "x.json has no annotations, categories in COCO's form"),
        (
            "x.json",
            '{"a": 1}',
            "x.json holds no boxes .*a record of a; COCO has images, annotations",
        ),
        ("x.json", "{,}", "x.json, line 1, column 2: not JSON"),
        (
            "x.csv",
            "photo,lat,lon\na,1,2",
            "x.csv has the columns photo, lat, lon; .* has filename, x",
        ),
        ("x.zip", "PK", "x.zip is an archive; unpack it there"),
        ("x.mat", "", "x.mat is not read; export the labels in COCO's form"),
        ("x.md", "", "There are no images and no labels below it"),
    ],
)
def test_what_the_nearest_layout_lacks(tmp_path, name, content, hint):
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    with pytest.raises(DataError, match=f"holds 1 .*no labels of any layout .*{hint}"):
        discover(tmp_path)


def test_images_without_labels_are_for_prediction(tmp_path):
    (tmp_path / "a.jpg").touch()
    with pytest.raises(
        DataError, match="1 images and no labels: .*jdet.predict --workdir=RUN --im"
    ):
        discover(tmp_path)
    with pytest.raises(DataError, match=f"{tmp_path}/nowhere is missing"):
        discover(tmp_path / "nowhere")


def test_words_of_splits(tmp_path):
    for path, split in (
        ("instances_train2017.json", "train"),
        ("valid/_annotations.coco.json", "val"),
        ("train/test_annotations.json", "test"),  # the file's own name counts first
        ("train_val.json", "trainval"),
        ("latest.json", ""),
    ):
        assert split_of(tmp_path.relative_to(tmp_path) / path) == split
