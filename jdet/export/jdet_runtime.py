"""Finds objects with a detector that ``python -m jdet.export --format=onnx`` wrote. Copy this file.

    detector = Detector("detector.onnx")
    found = detector("image.jpg")  # or an array [h, w, C] of the type that the detector was trained on
    found["boxes"], found["scores"], found["names"]

    python jdet_runtime.py detector.onnx image.jpg …  # JSON, a line per image

Needs onnxruntime and NumPy; Pillow to read images of files other than .npy.
"""

import argparse
import json
import os

import numpy as np
import onnxruntime

FORMAT = 1


class Unlike(ValueError):
    """An image that is unlike those of the training."""


class Detector:
    """A detector in a file; ``about`` is what the file says of itself, ``names`` are its classes."""

    def __init__(self, path, providers=("CPUExecutionProvider",), threads=0):
        """Reads a file; ``threads`` of the CPU, 0: all. ValueError: no detector of this format."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        self._session = onnxruntime.InferenceSession(str(path), options, list(providers))
        about = self._session.get_modelmeta().custom_metadata_map.get("jdet")
        self.about = json.loads(about) if about else {}
        if self.about.get("format") != FORMAT:
            why = f"{path} is no detector of format {FORMAT} but of {self.about.get('format')}"
            raise ValueError(f"{why}; take the jdet_runtime.py of the jdet that wrote it")
        self.names = self.about["classes"]
        self._outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, image):
        """Finds objects.

        Args:
            image: an array [h, w, C], values as stored, or a file, or several whose channels make it;
                ValueError where it has other channels or another type than those of the training.

        Returns:
            ``boxes`` float32 [n, 4], x1 y1 x2 y2 in pixels; ``scores`` float32 [n], best first;
            ``labels`` int32 [n]; ``names`` [n]; ``masks`` bool [n, h, w], or None.
        """
        kind = self.about["image"]
        image = image if isinstance(image, np.ndarray) else read(image, kind)
        if image.ndim != 3 or image.shape[2] != kind["channels"] or image.dtype != kind["dtype"]:
            raise Unlike(
                f"the image is {image.dtype} {list(image.shape)}; the detector takes {kind['dtype']} "
                f"[h, w, {kind['channels']}], {kind['colour']}"
            )
        found = self._tiles(image) if self.about["tile"] else self._whole(image)
        names = [self.names[label] for label in found["labels"]]
        shown = np.zeros((len(found["boxes"]), *image.shape[:2]), bool)
        pairs = zip(found.pop("masks", ()), found.pop("frames", ()))
        for out, (mask, frame) in zip(shown, pairs):
            paste(out, mask.astype(np.float64), frame.astype(np.float64))
        return {**found, "names": names, "masks": shown if "masks" in self._outputs else None}

    def _whole(self, image):
        size = np.array(image.shape[:2], np.int32)
        outputs = self._session.run(None, {"image": np.ascontiguousarray(image), "size": size})
        found = dict(zip(self._outputs, outputs))
        valid = found.pop("valid")
        return {name: values[valid] for name, values in found.items()}

    def _tiles(self, image):
        """Tile by tile; an object that two of them see is taken once (jdet/evaluation/tiling.py)."""
        tile, (height, width) = self.about["tile"], image.shape[:2]
        side, overlap = tile["side"], tile["overlap"]
        rows, columns = starts(height, side, overlap), starts(width, side, overlap)
        tiles, parts = [], []
        for y, x in [(y, x) for y in rows for x in columns]:
            tiles.append((x, y, min(x + side, width), min(y + side, height)))
            found = self._whole(image[y : y + side, x : x + side])
            for name in {"boxes", "frames"} & found.keys():
                found[name] = found[name] + np.array([x, y, x, y], np.float32)
            parts.append(found)
        owner = np.repeat(np.arange(len(parts)), [len(part["boxes"]) for part in parts])
        found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        rows = merged(found, owner, np.array(tiles, np.float32), (height, width), tile)
        return {name: values[rows] for name, values in found.items()}


def starts(length, side, overlap):
    """Where tiles begin along one side of an image: evenly spread, the last at its end."""
    last = max(-((overlap - length) // (side - overlap)) - 1, 0)
    return [round(i * (length - side) / last) for i in range(last + 1)] if last else [0]


def merged(found, owner, tiles, size, settings):
    """Rows to keep of detections of tiles [n, 4]: whole ones, each once, best first."""
    boxes, labels = found["boxes"], found["labels"]
    near = np.maximum(1.0, 0.01 * np.tile(tiles[:, 2:] - tiles[:, :2], 2))
    outer = tiles == np.array([0, 0, size[1], size[0]], np.float32)

    def inside(margin):
        low = np.where(outer[:, :2], -np.inf, tiles[:, :2] + margin[:, :2])
        high = np.where(outer[:, 2:], np.inf, tiles[:, 2:] - margin[:, 2:])
        return ((boxes[:, None, :2] > low) & (boxes[:, None, 2:] < high)).all(2)

    own = inside(near)[np.arange(len(owner)), owner]
    rows = np.flatnonzero(own | ~inside(2 * near).any(1))
    rows = rows[np.argsort(-found["scores"][rows], kind="stable")]
    reached = (boxes[:, None, :2] <= tiles[:, 2:]) & (boxes[:, None, 2:] >= tiles[:, :2])
    several = reached.all(2).sum(1) > 1
    area, stays = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), np.ones(len(boxes), bool)
    for place, row in enumerate(rows):
        if not (stays[row] and several[row]):
            continue
        later = rows[place + 1 :]
        later = later[several[later] & stays[later] & (labels[later] == labels[row])]
        later = later[owner[later] != owner[row]]
        low = np.maximum(boxes[row, :2], boxes[later, :2])
        high = np.minimum(boxes[row, 2:], boxes[later, 2:])
        both = np.prod(np.maximum(high - low, 0), axis=1)
        stays[later[both > settings["iou_threshold"] * (area[row] + area[later] - both)]] = False
    return rows[stays[rows]][: settings["max_detections"] or None]


def paste(out, mask, frame):
    """Sets the pixels of ``out`` [h, w] where a mask [m, m], resized into its box, reaches 0.5."""
    x1, y1, x2, y2 = frame
    if x2 > x1 and y2 > y1:
        top, along_y = taps(y1, y2, len(mask), out.shape[0])
        left, along_x = taps(x1, x2, len(mask), out.shape[1])
        part = along_y @ mask @ along_x.T >= 0.5
        out[top : top + part.shape[0], left : left + part.shape[1]] = part


def taps(low, high, cells, limit):
    """The first pixel along one axis that a mask reaches, and the weights of its cells [n, cells]."""
    reach = 0.5 * (high - low) / cells
    first, end = np.clip([np.floor(low - reach), np.ceil(high + reach)], 0, limit).astype(int)
    places = (np.arange(first, end) + 0.5 - low) / (high - low) * cells - 0.5
    return first, np.clip(1 - np.abs(places[:, None] - np.arange(cells)), 0, None)


def read(files, kind):
    """An image [h, w, C] of a file, or of several, channel by channel; ``Unlike``: not as in training."""
    if kind["reading"]:
        raise Unlike(f"training reads files by {kind['reading']}; give an array read in this way")
    parts = [stored(f, kind) for f in (files if isinstance(files, (list, tuple)) else [files])]
    image = np.concatenate([part.reshape(*part.shape[:2], -1) for part in parts], axis=2)
    if image.dtype == np.int32 and kind["dtype"] == "uint16":  # as older versions of Pillow have it
        image = np.clip(image, 0, 65535).astype(np.uint16)
    return np.repeat(image, 3, 2) if kind["colour"] == "rgb" and image.shape[2] == 1 else image


def stored(file, kind):
    """Values of a .npy file, or of what Pillow reads or has opened; over 8 bits they stay as they are."""
    if str(file).endswith(".npy"):
        return np.load(file, allow_pickle=False)
    from PIL import Image, ImageOps

    opened = file if isinstance(file, Image.Image) else Image.open(file)
    if ";16" in str(getattr(opened, "tile", "")) and opened.mode[0] != "I":
        opened.close()
        raise Unlike(f"{file}: Pillow reads 8 of its 16 bits; give an array or a .npy file")
    modes = {"1": "L", "LA": "L", "P": "RGB", "PA": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}
    modes |= {"RGBA": "RGB"} if kind["channels"] != 4 else {}
    opened = ImageOps.exif_transpose(opened)
    opened.info.pop("transparency", None)
    return np.asarray(opened.convert(modes.get(opened.mode, opened.mode)))


def runs(mask):
    """A mask as COCO's counts: pixels column by column, turn by turn outside and inside."""
    flat = mask.T.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[:1].any() else counts}


def main():
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("detector")
    parser.add_argument("images", nargs="+", help="files; join those that make one image with +")
    args = parser.parse_args()
    detector = Detector(args.detector)
    for name in args.images:
        found = detector(name if os.path.exists(name) else name.split("+"))
        masks = found.pop("masks")
        record = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in found.items()}
        if masks is not None:
            record["masks"] = [runs(mask) for mask in masks]
        print(json.dumps({"image": name, **record}), flush=True)


if __name__ == "__main__":
    main()
