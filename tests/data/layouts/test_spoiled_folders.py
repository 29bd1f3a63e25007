"""Folders that something is wrong with: refused with file, value and a remedy, which is then done."""

import re

import pytest

from jdet import build
from jdet.data.discover import discover
from jdet.types import ConfigError, DataError
from tests.data.layouts import folders
from tests.data.layouts.test_good_folders import found


def read(root, layout="", **values):
    """The training images and their objects; anything wrong is an error."""
    shape, train, _ = discover(root, layout)
    group = build.folder_group(shape, str(root), train, **values)
    return found(build.source(group, "config.data.train"))


def edit(path, old, new):
    """A change to a text file."""

    def change(root):
        text = (root / path).read_text()
        assert old in text
        (root / path).write_text(text.replace(old, new))

    return change


def put(path, content):
    return lambda root: folders.text(root, path, content)


def delete(path):
    return lambda root: (root / path).unlink()


def draw(path):
    return lambda root: folders.image(root, path)


def move(old, new):
    def change(root):
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        (root / old).rename(root / new)

    return change


def both(*changes):
    return lambda root: [change(root) for change in changes]


A, YAML = "train/labels/a.txt", "data.yaml"
PIXELS = "0 20 30 20 20\n1 32 12.5 64 25\n"
RELATIVE = "filename,xmin,ymin,xmax,ymax,class\na.png,0.1,0.1,0.5,0.5,cat\nb.png,0,0,1,1,dog\n"


def shape_of_a(**changes):
    """LabelMe's file with other fields in its first shape."""
    data = folders.labelme_json("a")
    data["shapes"][0] |= changes
    return put("train/a.json", data)


def region_of_a(**changes):
    """VIA's file with other fields in its first region."""

    def change(root):
        data = folders.via_images(folders.SIZES)
        data["a.png1234"]["regions"][0] |= changes
        folders.text(root, "via_project_2024.json", {"_via_img_metadata": data})

    return change


def attributes(root):
    """Every region has two attributes, none of which is usual."""
    data = folders.via_images(folders.SIZES)
    for image in data.values():
        for region in image["regions"]:
            kind = region["region_attributes"].pop("class")
            region["region_attributes"] = {"age": "old", "kind": kind}
    folders.text(root, "via_project_2024.json", data)


SPOILED = {
    "a class that is not listed": (
        *(folders.yolo_roboflow, edit(A, "0 0.", "5 0.")),
        r"train/labels/a.txt, line 1: the class is 5, and there are 0 cat, 1 dog; .* names in .*data.yaml",
        both(
            edit(YAML, "nc: 2", "nc: 3"),
            edit(YAML, "'dog'", "'dog', 'cow'"),
            edit(A, "5 0.", "2 0."),
        ),
    ),
    "half a class": (
        *(folders.yolo_roboflow, edit(A, "0 0.", "0.5 0.")),
        r"a.txt, line 1: the class is 0.5; expected a whole number",
        edit(A, "0.5 0.", "0 0."),
    ),
    "pixels": (
        *(folders.yolo_roboflow, both(put(A, PIXELS), put("train/labels/b.txt", "1 10 15 10 20"))),
        r"a.txt, line 1: the coordinate 20 is not in 0 … 1 of the image; .* coordinates=edges",
        dict(coordinates="edges"),
    ),
    "a polygon of an odd count": (
        *(folders.yolo_polygons, put(A, "0 0.1 0.2 0.3 0.4 0.5 0.6 0.7")),
        r"a.txt, line 1: 7 coordinates follow the class; a box has 4",
        put(A, "0 0.1 0.2 0.3 0.4 0.5 0.6"),
    ),
    "confidences": (
        *(folders.yolo_roboflow, put(A, "0 0.5 0.5 0.1 0.1 0.93")),
        r"a.txt, line 1: 5 coordinates follow the class; .*leave out the confidence",
        put(A, "0 0.5 0.5 0.1 0.1"),
    ),
    "no number": (
        *(folders.yolo_roboflow, edit(A, "1 0.5", "1 nan 0.5")),
        r"a.txt, line 2 has 'nan', which is no number",
        edit(A, "1 nan 0.5", "1 0.5"),
    ),
    "labels without an image": (
        *(folders.yolo_roboflow, put("train/labels/x.txt", "0 0.5 0.5 0.1 0.1")),
        r"train/labels/x.txt: there is no image x.\* for it .*; put it there, or delete the file",
        delete("train/labels/x.txt"),
    ),
    "another number of names": (
        *(folders.yolo_roboflow, edit(YAML, "nc: 2", "nc: 3")),
        r"data.yaml: nc is 3, and names has 2: cat, dog; correct one of them",
        edit(YAML, "nc: 3", "nc: 2"),
    ),
    "no YAML": (
        *(folders.yolo_roboflow, edit(YAML, "['cat', 'dog']", "['cat', 'dog'")),
        r"data.yaml, line 7, column 1: not YAML: expected ',' or ']'",
        edit(YAML, "['cat', 'dog'", "['cat', 'dog']"),
    ),
    "code in YAML": (
        *(
            folders.yolo_roboflow,
            edit(YAML, "['cat', 'dog']", "!!python/object/apply:os.getcwd []"),
        ),
        r"data.yaml, line 6, column 8: not YAML: could not determine a constructor",
        edit(YAML, "!!python/object/apply:os.getcwd []", "[cat, dog]"),
    ),
    "an alias within itself": (
        *(folders.yolo_roboflow, edit(YAML, "['cat', 'dog']", "&all [cat, *all]")),
        r"data.yaml: its aliases never end",
        edit(YAML, "&all [cat, *all]", "[cat, dog]"),
    ),
    "a name twice": (
        *(folders.yolo_roboflow, edit(YAML, "'dog'", "'cat'")),
        r"data.yaml: names: classes named twice: 'cat'",
        edit(YAML, "['cat', 'cat']", "[cat, dog]"),
    ),
    "a folder that is not there": (
        *(folders.yolo_roboflow, edit(YAML, "../train/images", "../trian/pictures")),
        r"data.yaml: train is '../trian/pictures', .* such as train: images/train",
        edit(YAML, "../trian/pictures", "train/images"),
    ),
    "a folder without images": (
        *(folders.yolo_roboflow, edit(YAML, "../train/images", "train/labels")),
        r"data.yaml: train is .*/train/labels, which holds no images; correct it",
        edit(YAML, "train/labels", "train/images"),
    ),
    "two files of YOLO's form": (
        *(folders.yolo_ultralytics, put("more.yaml", "train: images\nnames: [a]")),
        r"several files of YOLO's form: more.yaml, pets.yaml; keep one .* call it data.yaml",
        move("pets.yaml", "data.yaml"),
    ),
    "two data sets": (
        folders.yolo_ultralytics,
        both(move("pets.yaml", "a/pets.yaml"), put("b/more.yaml", "train: images\nnames: [a]")),
        r"several data sets of YOLO's form: a, b; name one of them, such as root=.*/a",
        move("a/pets.yaml", "pets.yaml"),
    ),
    "lists of other classes": (
        *(folders.yolo_labelimg, put("more/classes.txt", "cow\n")),
        r"more/classes.txt and .*pictures/classes.txt list different classes; delete one",
        delete("more/classes.txt"),
    ),
    "two layouts": (
        *(folders.yolo_label_studio, put("images/a.json", folders.labelme_json("a"))),
        r"labels of 2 layouts: yolo \(labels/a.txt\), labelme \(images/a.json\). .* layout=yolo or",
        dict(layout="yolo"),
    ),
    "no images": (
        *(folders.yolo_labelimg, both(*(delete(f"pictures/{s}.PNG") for s in folders.SIZES))),
        r"pictures/a.txt: its image 'a' is nowhere below .*; there are no images at all",
        both(*(draw(f"pictures/{s}.png") for s in folders.SIZES)),
    ),
    "an empty image": (
        *(folders.dota, put("train/images/a.png", "")),
        r"train/images/a.png: cannot read the image's size: the file is empty",
        draw("train/images/a.png"),
    ),
    "classes that differ by case": (
        *(folders.csv_headerless, edit("annotations.csv", "15,25,dog", "15,25,Dog")),
        r"annotations.csv, line \d: the classes 'Dog' .* 'dog' .* by case .* classes=Dog\+cat\+dog",
        dict(classes=("Dog", "cat", "dog")),
    ),
    "a field that is no number": (
        *(folders.csv_headerless, edit("annotations.csv", "10,20,30", "10,2O,30")),
        r"annotations.csv, line 2: xmin, ymin, xmax, ymax has '2O', which is no number",
        edit("annotations.csv", "2O", "20"),
    ),
    "a table of relative boxes": (
        *(folders.csv_header, both(delete("val_labels.csv"), put("train_labels.csv", RELATIVE))),
        r"train_labels.csv: no coordinate is above 1; .* coordinates=relative",
        dict(coordinates="relative"),
    ),
    "an image that is missing": (
        *(folders.csv_headerless, delete("pictures/a.png")),
        r"annotations.csv, line 2: its image 'pictures/a.png' is nowhere .*, did you mean .*; put it",
        draw("pictures/a.png"),
    ),
    "labels of an image in two files": (
        *(folders.csv_headerless, put("more.csv", "pictures/a.png,1,2,3,4,cat")),
        r"more.csv, line 1: its image pictures/a.png has labels in .*annotations.csv, line 2 already",
        delete("more.csv"),
    ),
    "a column that is missing": (
        *(folders.csv_sides, edit("boxes.csv", "bbox_height", "tall")),
        r"boxes.csv has the columns Image, .* a table of boxes has filename, xmin, .*: call the columns so",
        edit("boxes.csv", "tall", "bbox_height"),
    ),
    "an odd point": (
        *(folders.cvat, edit("annotations.xml", "10.00,20.00;30.00,20.00", "10.00,20.00;30.00")),
        r"annotations.xml, image a.png, shape 1 \(polygon\) has 7 coordinates; a polygon is x y",
        edit("annotations.xml", "10.00,20.00;30.00", "10.00,20.00;30.00,20.00"),
    ),
    "XML that ends early": (
        *(folders.cvat, edit("annotations.xml", "</annotations>", "")),
        r"annotations.xml, line 2, column \d+: not XML: no element found",
        edit("annotations.xml", "</image><image", "</image>\n<image"),
    ),
    "a video": (
        *(folders.cvat, edit("annotations.xml", "<meta>", '<track id="0" label="cat"/><meta>')),
        r"annotations.xml holds tracks of a video; export it as 'CVAT for images 1.1'",
        edit("annotations.xml", '<track id="0" label="cat"/>', ""),
    ),
    "an object without a class": (
        *(folders.cvat, edit("annotations.xml", 'polygon label="cat"', 'polygon label=""')),
        r"annotations.xml, image a.png, shape 1 \(polygon\): a class has an empty name",
        edit("annotations.xml", 'polygon label=""', 'polygon label="cat"'),
    ),
    "a polygon of two points": (
        *(folders.labelme, shape_of_a(points=[[1, 2], [3, 4]])),
        r"train/a.json: shapes\[0\], a polygon, has 2 points, not 3; correct it or delete it",
        shape_of_a(points=[[1, 2], [3, 4], [5, 2]]),
    ),
    "a point of one number": (
        *(folders.labelme, shape_of_a(points=[[1, 2], [3], [5, 2]])),
        r"train/a.json: shapes\[0\] has the points .*; expected \[\[x, y\], \[x, y\], …\]",
        shape_of_a(points=[[1, 2], [3, 4], [5, 2]]),
    ),
    "JSON that ends early": (
        *(folders.labelme, put("train/a.json", '{"shapes": [], "imagePath": "a.png"')),
        r"train/a.json, line 1, column \d+: not JSON: Expecting ',' delimiter",
        put("train/a.json", '{"shapes": [], "imagePath": "a.png"}'),
    ),
    "JSON without an image": (
        *(folders.labelme, put("train/x.json", folders.labelme_json("a", "x.png"))),
        r"train/x.json: its image 'x.png' is nowhere below .*; put it there, or name .*image_root=",
        delete("train/x.json"),
    ),
    "x without y": (
        *(folders.via_project, edit("via_project_2024.json", "[20, 20, 40, 40]", "[20, 20, 40]")),
        r"via_project_2024.json, image a.png, regions\[0\]: the polygon has 4 and 3 x and y",
        edit("via_project_2024.json", "[20, 20, 40]", "[20, 20, 40, 40]"),
    ),
    "a region without a class": (
        *(folders.via_project, region_of_a(region_attributes={"class": ""})),
        r"image a.png, regions\[0\] has no class in region_attributes \(class\); give it one in VIA",
        region_of_a(region_attributes={"class": "cat"}),
    ),
    "several attributes": (
        *(folders.via_project, attributes),
        r"via_project_2024.json: any of the attributes age, kind .* --config.data.train.attribute=",
        dict(attribute="kind"),
    ),
    "a number of Open Images that is too large": (
        *(folders.open_images, edit("train-annotations-bbox.csv", "0.156250", "10")),
        r"train-annotations-bbox.csv, line 2: the coordinate 10 is not in 0 … 1 of the image",
        edit("train-annotations-bbox.csv", ",10,", ",0.15625,"),
    ),
    "three corners and a half": (
        *(folders.dota, edit("train/labelTxt/a.txt", "20.0 20.0 30.0 30.0 ", "20.0 20.0 30.0 ")),
        r"train/labelTxt/a.txt, line 3: '20.0 20.0 30.0 20.0 .*' has 9 fields|has 'cat', which is no num",
        edit("train/labelTxt/a.txt", "20.0 20.0 30.0 ", "20.0 20.0 30.0 30.0 "),
    ),
    "a class that the folder does not list": (
        *(folders.labelme, put("labels.txt", "cat\n")),
        r"train/a.json: class 'dog' is not in the list of 1 classes \(cat\)",
        put("labels.txt", "cat\ndog\n"),
    ),
    "images that may be meant": (
        *(
            folders.labelme_apart,
            both(draw("x/a.png"), edit("labels/a.json", "..\\\\pictures\\\\", "")),
        ),
        r"labels/a.json: 'a.png' may be any of pictures/a.png, x/a.png; write it with its folder",
        edit("labels/a.json", '"a.png"', '"pictures/a.png"'),
    ),
    "no folder for training": (
        *(folders.dota, move("train", "test")),
        r"is of the layout dota, .* of the splits test, val; none is 'train': put those .* called train",
        move("test", "train"),
    ),
    "a layout that is none": (
        *(folders.dota, lambda root: discover(root, "dotta")),
        r"layout=dotta does not exist, did you mean 'dota'\?; there are voc, coco, yolo",
        dict(layout="dota"),
    ),
    "another layout than it is": (
        *(folders.dota, lambda root: discover(root, "yolo")),
        r"holds 3 images, 3 .txt, and no labels of layout=yolo .*; yolo has data.yaml, or images/",
        dict(layout="dota"),
    ),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_folder_is_refused_until_its_remedy_is_done(tmp_path, name):
    write, spoil, message, remedy = SPOILED[name]
    write(tmp_path)
    with pytest.raises((DataError, ConfigError)) as error:
        spoil(tmp_path)
        read(tmp_path)
    assert re.search(message, str(error.value), re.DOTALL), str(error.value)
    if name == "XML that ends early":
        write(tmp_path)
    given = remedy if isinstance(remedy, dict) else remedy(tmp_path) and {}
    assert read(tmp_path, **(given or {})).keys() >= {"b"}
