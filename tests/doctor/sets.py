"""Small data sets in COCO's form, clean until something is done to them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np

CLASSES = ("cell", "seed")
HEIGHT, WIDTH = 120, 160


@dataclasses.dataclass
class LabelledImage:
    """An image of a set.

    Attributes:
        name: of its file.
        pixels: [H, W, 3] or [H, W], written as they are; None: the file is missing.
        objects: class, and x y width height as the label file has them.
        size: height and width in the label file.
    """

    name: str
    pixels: np.ndarray | None
    objects: list
    size: tuple[int, int] = (HEIGHT, WIDTH)


def texture(seed, height=HEIGHT, width=WIDTH):
    """An image like no other, uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(9, 12, 3)).astype(np.float32)
    fine = rng.normal(size=(height, width, 3))
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * 40 + fine * 8 + 128
    return np.clip(image, 0, 255).astype(np.uint8)


def labelled_image(name, seed):
    """An image with two objects of each class, well inside and apart."""
    x, y = np.random.default_rng(seed).integers(0, 6, 2).tolist()
    boxes = [(10 + x, 10 + y, 30, 28), (70 + x, 14 + y, 36, 30), (20 + x, 70 + y, 30, 30)]
    boxes.append((100 + x, 66 + y, 28, 36))
    labels = ("cell", "seed", "seed", "cell")
    return LabelledImage(name, texture(seed), list(zip(labels, boxes)))


class DataSet:
    """Two splits, by name lists of images."""

    def __init__(self, train=10, val=5):
        words = "ash bay cod dew elk fig gum hay ice jay keg lime moss nut oak".split()
        names = [f"{word}.png" for word in words]
        self.classes = list(CLASSES)
        self.train = [labelled_image(names[i], i) for i in range(train)]
        self.val = [labelled_image(names[train + i], 100 + i) for i in range(val)]

    def write(self, root: Path):
        """Writes label files below a folder, and the images that are not there yet."""
        for split in ("train", "val"):
            labelled = getattr(self, split)
            folder = root / split
            folder.mkdir(parents=True, exist_ok=True)
            for one in labelled:
                if one.pixels is not None and not (folder / one.name).exists():
                    stored = one.pixels[..., ::-1] if one.pixels.ndim == 3 else one.pixels
                    cv2.imwrite(str(folder / one.name), stored)
            images = [
                {"id": i + 1, "file_name": p.name, "height": p.size[0], "width": p.size[1]}
                for i, p in enumerate(labelled)
            ]
            annotations = [
                {"image_id": i + 1, "category_id": 1 + self.classes.index(label), "bbox": list(box)}
                for i, p in enumerate(labelled)
                for label, box in p.objects
            ]
            for number, annotation in enumerate(annotations):
                box = annotation["bbox"]
                annotation |= {"id": number + 1, "iscrowd": 0, "area": box[2] * box[3]}
            categories = [{"id": i + 1, "name": name} for i, name in enumerate(self.classes)]
            labels = {"images": images, "annotations": annotations, "categories": categories}
            (root / f"instances_{split}.json").write_text(json.dumps(labels))
        return root
