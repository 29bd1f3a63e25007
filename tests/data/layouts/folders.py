"""Folders of labelled images as tools write them; all hold the same three images and objects."""

import base64

from tests.data.layouts.yolo_folders import (
    GROUND_TRUTH,
    NAMES,
    SIZES,
    TRAIN,
    VAL,
    image,
    png,
    text,
    yolo_aliases,
    yolo_darknet,
    yolo_label_studio,
    yolo_labelimg,
    yolo_polygons,
    yolo_roboflow,
    yolo_ultralytics,
)


def coco(stems, name=lambda stem: f"{stem}.png", **more):
    annotations = [
        (number, category, box)
        for number, stem in enumerate(stems, 1)
        for category, box in GROUND_TRUTH[stem]
    ]
    return {
        "info": {},
        "licenses": [],
        "categories": [{"id": id, "name": name} for id, name in enumerate(NAMES, 1)],
        "images": [
            {"id": i, "file_name": name(s), "height": SIZES[s][0], "width": SIZES[s][1], **more}
            for i, s in enumerate(stems, 1)
        ],
        "annotations": [
            {
                "id": id,
                "image_id": owner,
                "category_id": 1 + NAMES.index(category),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 0,
                "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]],
            }
            for id, (owner, category, (x1, y1, x2, y2)) in enumerate(annotations, 1)
        ],
    }


def coco_roboflow(root):
    for split, stems in (("train", TRAIN), ("valid", VAL)):
        for stem in stems:
            image(root, f"{split}/{stem}.png")
        text(root, f"{split}/_annotations.coco.json", coco(stems))


def coco_cvat(root):
    for stem in SIZES:
        image(root, f"images/default/{stem}.png")
    text(root, "annotations/instances_default.json", coco(SIZES))


def coco_label_studio(root):
    for stem in SIZES:
        image(root, f"images/{stem}.png")
    text(root, "result.json", coco(SIZES, lambda stem: f"images\\{stem}.png"))


def coco_fiftyone(root):
    for split, stems in (("train", TRAIN), ("validation", VAL)):
        for stem in stems:
            image(root, f"{split}/data/{stem}.png")
        text(root, f"{split}/labels.json", coco(stems))


def coco_fiftyone_single(root):
    for stem in SIZES:
        image(root, f"data/{stem}.png")
    text(root, "labels.json", coco(SIZES))


def voc_xml(stem, filename=""):
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax>"
        f"<ymax>{y2}</ymax></bndbox></object>"
        for name, (x1, y1, x2, y2) in GROUND_TRUTH[stem]
    )
    return f"<annotation><filename>{filename or stem}.png</filename>{objects}</annotation>"


def voc_lists(root):
    for stem in SIZES:
        image(root, f"JPEGImages/{stem}.png")
        text(root, f"Annotations/{stem}.xml", voc_xml(stem))
    text(root, "ImageSets/Main/train.txt", "a\nb\n")
    text(root, "ImageSets/Main/val.txt", "c\n")


def voc_lists_above(root):
    voc_no_lists(root)
    text(root, "ImageSets/train.txt", "a\nb\n")
    text(root, "ImageSets/test.txt", "c\n")


def voc_no_lists(root):
    for stem in SIZES:
        image(root, f"JPEGImages/{stem}.png")
        text(root, f"Annotations/{stem}.xml", voc_xml(stem))


def voc_lower_case(root):
    """As most sets on Kaggle."""
    for stem in SIZES:
        image(root, f"images/{stem}.png")
        text(root, f"annotations/{stem}.xml", voc_xml(stem))


def voc_split_folders(root):
    for split, stems in (("train", TRAIN), ("val", VAL)):
        for stem in stems:
            image(root, f"{split}/images/{stem}.png")
            text(root, f"{split}/annotations/xmls/{stem}.xml", voc_xml(stem))


def cvat(root):
    images = []
    for number, stem in enumerate(SIZES):
        image(root, f"images/{stem}.png")
        height, width = SIZES[stem]
        shapes = ""
        for name, (x1, y1, x2, y2) in GROUND_TRUTH[stem]:
            if name == "cat":
                points = f"{x1:.2f},{y1:.2f};{x2:.2f},{y1:.2f};{x2:.2f},{y2:.2f};{x1:.2f},{y2:.2f}"
                shapes += f'<polygon label="cat" occluded="0" points="{points}" z_order="0"/>'
            else:
                shapes += (
                    f'<box label="dog" source="manual" occluded="0" xtl="{x1:.2f}" ytl="{y1:.2f}" '
                    f'xbr="{x2:.2f}" ybr="{y2:.2f}" z_order="0"><attribute name="x">1</attribute></box>'
                )
        shapes += '<points label="cat" points="3.0,4.0"/>'
        subset = "Train" if stem in TRAIN else "Validation"
        images.append(
            f'<image id="{number}" name="{stem}.png" subset="{subset}" task_id="1" width="{width}" '
            f'height="{height}">{shapes}</image>'
        )
    text(
        root,
        "annotations.xml",
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version><meta><job/></meta>'
        f"{''.join(images)}</annotations>",
    )


def labelme_json(stem, path=""):
    shapes = []
    for name, (x1, y1, x2, y2) in GROUND_TRUTH[stem]:
        corners = [[x1, y1], [x2, y2]]
        if name == "cat":
            corners = [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]
        kind = "polygon" if name == "cat" else "rectangle"
        shapes.append(
            {"label": name, "points": corners, "group_id": None, "shape_type": kind, "flags": {}}
        )
    height, width = SIZES[stem]
    return {
        "version": "5.4.1",
        "flags": {},
        "shapes": shapes,
        "imagePath": path or f"{stem}.png",
        "imageData": base64.b64encode(png(stem)).decode(),
        "imageHeight": height,
        "imageWidth": width,
    }


def labelme(root):
    for split, stems in (("train", TRAIN), ("val", VAL)):
        for stem in stems:
            image(root, f"{split}/{stem}.png")
            text(root, f"{split}/{stem}.json", labelme_json(stem))


def labelme_apart(root):
    for stem in SIZES:
        image(root, f"pictures/{stem}.png")
        text(root, f"labels/{stem}.json", labelme_json(stem, f"..\\pictures\\{stem}.png"))


def via_images(stems):
    found = {}
    for stem in stems:
        regions = []
        for name, (x1, y1, x2, y2) in GROUND_TRUTH[stem]:
            shape = {"name": "rect", "x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1}
            if name == "cat":
                points = {"all_points_x": [x1, x2, x2, x1], "all_points_y": [y1, y1, y2, y2]}
                shape = {"name": "polygon", **points}
            regions.append({"shape_attributes": shape, "region_attributes": {"class": name}})
        found[f"{stem}.png1234"] = {
            "filename": f"{stem}.png",
            "size": 1234,
            "regions": regions,
            "file_attributes": {},
        }
    return found


def via_project(root):
    for stem in SIZES:
        image(root, f"{stem}.png")
    metadata = via_images(SIZES)
    text(
        root,
        "via_project_2024.json",
        {"_via_settings": {}, "_via_img_metadata": metadata, "_via_attributes": {}},
    )


def via_annotations(root):
    """The first version: regions by number, a file for each split (as in Mask R-CNN's balloons)."""
    for split, stems in (("train", TRAIN), ("val", VAL)):
        found = via_images(stems)
        for one in found.values():
            one["regions"] = {str(number): region for number, region in enumerate(one["regions"])}
        for stem in stems:
            image(root, f"{split}/{stem}.png")
        text(root, f"{split}/via_region_data.json", found)


OPEN_IMAGES = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf"
)
IDS = {"cat": "/m/01yrx", "dog": "/m/0bt9lr"}


def open_images_table(stems):
    lines = [OPEN_IMAGES]
    for stem in stems:
        height, width = SIZES[stem]
        for name, (x1, y1, x2, y2) in GROUND_TRUTH[stem]:
            box = f"{x1 / width:.6f},{x2 / width:.6f},{y1 / height:.6f},{y2 / height:.6f}"
            lines.append(f"{stem},xclick,{IDS[name]},1,{box},0,0,0")
    return "\n".join(lines) + "\n"


def open_images(root):
    for split, stems in (("train", TRAIN), ("validation", VAL)):
        for stem in stems:
            image(root, f"{split}/{stem}.png")
        text(root, f"{split}-annotations-bbox.csv", open_images_table(stems))
    rows = "".join(f"{id},{name}\n" for name, id in IDS.items())
    text(root, "class-descriptions-boxable.csv", rows)


def open_images_fiftyone(root):
    for split, stems in (("train", TRAIN), ("validation", VAL)):
        for stem in stems:
            image(root, f"{split}/data/{stem}.png")
        text(root, f"{split}/labels/detections.csv", open_images_table(stems))
        rows = "".join(f"{id},{name}\n" for name, id in IDS.items())
        text(root, f"{split}/metadata/classes.csv", rows)


def csv_header(root):
    for split, stems in (("train", TRAIN), ("val", VAL)):
        lines = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
        for stem in stems:
            image(root, f"images/{split}/{stem}.png")
            height, width = SIZES[stem]
            for name, box in GROUND_TRUTH[stem]:
                lines.append(f"{stem}.png,{width},{height},{name},{','.join(map(str, box))}")
        text(root, f"{split}_labels.csv", "\n".join(lines))


def csv_headerless(root):
    lines = ["pictures/background_a.png,,,,,"]
    image(root, "pictures/background_a.png")
    for stem in SIZES:
        image(root, f"pictures/{stem}.png")
        for name, box in GROUND_TRUTH[stem]:
            lines.append(f"pictures/{stem}.png,{','.join(map(str, box))},{name}")
    text(root, "annotations.csv", "\n".join(lines))
    text(root, "classes.csv", "cat,0\ndog,1\n")


def csv_sides(root):
    """Semicolons, corner and size, and a column for the split."""
    lines = ["Image;Label;bbox_x;bbox_y;bbox_width;bbox_height;Split"]
    for stem in SIZES:
        image(root, f"{stem}.png")
        for name, (x1, y1, x2, y2) in GROUND_TRUTH[stem]:
            split = "train" if stem in TRAIN else "val"
            lines.append(f"{stem}.png;{name};{x1};{y1};{x2 - x1};{y2 - y1};{split}")
    text(root, "boxes.csv", "\n".join(lines))


def dota_lines(stem):
    lines = ["imagesource:GoogleEarth", "gsd:0.1463"]
    for name, (x1, y1, x2, y2) in GROUND_TRUTH[stem]:
        middle = (x1 + x2) / 2, (y1 + y2) / 2  # turned by 45 degrees, its hull is the box
        points = [middle[0], y1, x2, middle[1], middle[0], y2, x1, middle[1]]
        lines.append(" ".join(f"{value:.1f}" for value in points) + f" {name} 0")
    return "\n".join(lines) + "\n"


def dota(root):
    for split, stems in (("train", TRAIN), ("val", VAL)):
        for stem in stems:
            image(root, f"{split}/images/{stem}.png")
            text(root, f"{split}/labelTxt/{stem}.txt", dota_lines(stem))


GOOD = {
    "yolo": [
        *(yolo_roboflow, yolo_ultralytics, yolo_aliases, yolo_label_studio, yolo_labelimg),
        *(yolo_polygons, yolo_darknet),
    ],
    "coco": [coco_roboflow, coco_cvat, coco_label_studio, coco_fiftyone, coco_fiftyone_single],
    "voc": [voc_lists, voc_lists_above, voc_no_lists, voc_lower_case, voc_split_folders],
    "cvat": [cvat],
    "labelme": [labelme, labelme_apart],
    "via": [via_project, via_annotations],
    "open_images": [open_images, open_images_fiftyone],
    "csv": [csv_header, csv_headerless, csv_sides],
    "dota": [dota],
}
"""Layout → functions that write folders of it."""

CASES = [(layout, write) for layout, writers in GOOD.items() for write in writers]
