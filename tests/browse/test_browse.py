"""Contact sheets: what the pipeline feeds, several draws of the same images, padding, any kind of image."""

import cv2
import numpy as np
import pytest

from jdet import build
from jdet.browse import sheets
from jdet.browse.browse import browse
from jdet.browse.sheets import STRIPES, Sheet, write_sheets
from jdet.config import get_defaults
from jdet.evaluation import loaders
from jdet.evaluation.display import Display
from jdet.evaluation.drawing import class_color
from jdet.evaluation.tiling import Tiling
from jdet.types import Batch, ConfigError, Example, ImageKind

NAMES = ("disc", "square")


class Bands:
    """Twelve images of two 16-bit channels; every third has no object."""

    class_names = NAMES
    ids = tuple(f"well{i}" for i in range(12))
    image_kind = ImageKind(2, "bands", "uint16", (0.0, 4095.0))

    def __len__(self):
        return 12

    def __getitem__(self, index):
        values = np.random.default_rng(index).integers(0, 4096, (30, 40, 2)).astype(np.uint16)
        boxes = np.array([[4.0, 5.0, 24.0, 25.0]] * (index % 3 > 0), np.float32).reshape(-1, 4)
        count = len(boxes)
        areas = np.full(count, 400.0, np.float32)
        return Example(
            id=self.ids[index],
            image=values,
            boxes=boxes,
            labels=np.zeros(count, np.int32),
            ignore=np.ones(count, bool),
            areas=areas,
        )


class Free(Bands):
    """The same without difficult objects."""

    def __getitem__(self, index):
        example = super().__getitem__(index)
        return example._replace(ignore=np.zeros_like(example.ignore))


def bands_config():
    c = get_defaults()
    c.input_size = 32
    for role in ("train", "eval"):
        c.data[role] = build.group("source", "tests.browse.test_browse:Bands")
    c.augment = build.group("augment", "intensity")
    c.resize = build.group("resize", "keep_ratio", short=(24,), long=64, shapes=((32, 64),))
    c.model = build.group("detector", "fcos", mean=(0.0, 0.0), std=(1000.0, 1000.0))
    c.train.batch_size, c.eval.batch_size, c.data.max_boxes = 4, 4, 2
    return c


def test_images_of_any_kind_are_drawn_from_both_streams(tmp_path):
    lines = browse(bands_config(), tmp_path / "out", images=6, draws=3, side=64, suffix="png")
    written = {path.stem: cv2.imread(str(path)) for path in (tmp_path / "out").iterdir()}
    assert set(written) == {"train_batches", "train_draws", "eval_batches"}
    text = "\n".join(lines)
    assert "first batch 4×32×64×2, uint16" in text
    assert "values 0 … 4, mean" in text  # by the std of the config
    assert f"{tmp_path / 'out' / 'train_draws.png'}: 18 images" in text


def test_draws_are_of_the_images_that_are_named_and_differ(tmp_path, monkeypatch):
    seen = []
    draw = Sheet.tile

    def tile(self, batch, row, source, part=None):
        seen.append((source[int(batch.index[row])].id, batch.images[row].tobytes()))
        return draw(self, batch, row, source, part)

    monkeypatch.setattr(Sheet, "tile", tile)
    browse(bands_config(), tmp_path, images=1, draws=3, only=("well7", "well2"), side=64)
    drawn = seen[1:-1]
    assert [name for name, _ in drawn] == ["well7"] * 3 + ["well2"] * 3
    assert len({pixels for name, pixels in drawn if name == "well7"}) == 3
    with pytest.raises(ConfigError, match="--only=well72.*did you mean 'well7'"):
        browse(bands_config(), tmp_path, images=1, only=("well72",))


def test_what_is_mixed_in_is_shown_and_comes_from_all_images(tmp_path, monkeypatch):
    """An image without objects, the only one to be drawn."""
    seen = []
    monkeypatch.setattr(Sheet, "tile", lambda self, batch, row, *rest: seen.append((batch, row)))
    monkeypatch.setattr("jdet.browse.browse.write_sheets", lambda *given, **more: [])
    c = bands_config()
    c.augment.crop, c.augment.expand = False, 0.0
    for c.data.mix.mosaic, shown in ((0.0, False), (1.0, True)):
        seen.clear()
        browse(c, tmp_path, images=0, draws=4, only=("well3",), side=64)
        assert any(batch.valid[row].any() for batch, row in seen) == shown


def test_tiles_are_drawn_of_both_streams_with_their_objects(tmp_path, monkeypatch):
    """Images of 30×40 in tiles of 20: two by three of them, that share 10 pixels."""
    seen = {}
    draw = Sheet.tile

    def tile(self, batch, row, source, part=None):
        name = source[int(batch.index[row])].id
        valid = batch.valid[row]
        found = batch.image_sizes[row].tolist(), batch.boxes[row][valid], batch.ignore[row][valid]
        seen.setdefault(part is not None, []).append((name, part, *found))
        return draw(self, batch, row, source, part)

    monkeypatch.setattr(Sheet, "tile", tile)
    c = bands_config()
    c.data.train = c.data.eval = build.group("source", "tests.browse.test_browse:Free")
    c.resize = build.group("resize", "keep_ratio", short=(20,), long=64, shapes=((32, 64),))
    c.augment.crop, c.augment.expand = False, 0.0
    c.data.tile.side, c.eval.tile.side, c.eval.tile.overlap = 20, 20, 5
    lines = browse(c, tmp_path, images=9, draws=2, side=64)
    assert {tuple(size) for _, _, size, _, _ in seen[False]} == {(20, 20)}  # of the training
    names, tiles, _, boxes, cut = zip(*seen[True])
    assert names == ("well0",) * 6 + ("well1",) * 3 and len(tiles) == 9
    corners = [(y, x) for y in (0, 10) for x in (0, 10, 20)]
    assert [tile[:2] for tile in tiles] == [*corners, *corners[:3]]
    # The object at x 4 … 24, y 5 … 25 of the second image.
    expected = [[4, 5, 20, 20], [0, 5, 14, 20], [0, 5, 4, 20]]
    np.testing.assert_array_equal(np.concatenate(boxes[6:]), expected)
    assert all(len(found) == 0 for found in boxes[:6]) and np.concatenate(cut).all()
    assert "9 images" in "\n".join(lines)


def test_an_object_that_lies_whole_in_a_tile_is_not_dashed(tmp_path, monkeypatch):
    c = bands_config()
    c.data.eval = build.group("source", "tests.browse.test_browse:Free")
    c.eval.tile.side, c.eval.tile.overlap = 26, 5
    tiling = Tiling.of(c.eval.tile)
    stream, rows, _ = loaders.tile_batches(c, Free(), None, tiling, objects=True)
    with stream:
        batches = list(stream)
    real, valid, ignore = (
        np.concatenate([getattr(b, name) for b in batches]) for name in ("real", "valid", "ignore")
    )
    assert real.sum() == sum(row.image >= 0 for row in rows) == 12 * 4
    first = [valid[i].sum() and not ignore[i, 0] for i, row in enumerate(rows) if row.image == 1]
    assert first == [True, False, True, False]  # rows 0 … 26 and 4 … 30 hold it alike


def batch(masks=None):
    images = np.full((2, 40, 60, 3), 128, np.uint8)
    one = Batch.of_images(images, np.array([[40, 60], [40, 30]]), max_boxes=2)
    one.boxes[:, 0], one.valid[:, 0] = (5, 5, 25, 35), True
    return one._replace(masks=masks, index=np.array([1, 2]))


def test_padding_is_hatched_and_content_is_not():
    plain, padded = (Sheet(NAMES, Display(), 240).tile(batch(), row, Bands()) for row in (0, 1))
    assert plain.shape == padded.shape
    beside = padded[60:-10, 140:300].reshape(-1, 3)
    light, dark = (np.abs(beside.astype(int) - colour).max(1) < 8 for colour in STRIPES)
    assert 0.3 < light.mean() < 0.7 and (light | dark).mean() > 0.6
    assert (plain[60:-10, 180:230] == 128).all()


def test_masks_are_filled_where_they_are_known():
    masks = np.zeros((2, 2, 14, 14), np.uint8)
    masks[0, 0, :7] = 1  # the upper half of its box
    known, unknown = (Sheet(NAMES, Display(), 240).tile(batch(masks), r, Bands()) for r in (0, 1))
    tint = 0.6 * 128 + 0.4 * np.array(class_color(0))
    known, unknown = (np.abs(tile - tint).max(2) < 6 for tile in (known, unknown))
    rows = np.flatnonzero(known.any(1)) - (len(known) - 160)  # below the line of text
    assert 18 <= rows.min() < 26 and 74 < rows.max() <= 82  # of the box at 20 … 140
    assert known.sum() > 60 * 60 and unknown.sum() < 100


@pytest.mark.parametrize(
    "id, image, shown",
    [
        ("189", "/set/part_0188.jpg", "189 part_0188.jpg"),
        ("189", "/set/189.jpg", "189"),
        ("train/a.png", "/set/train/a.png", "train/a.png"),
        ("189", np.zeros((4, 4, 3), np.uint8), "189"),
    ],
)
def test_numbers_are_shown_with_the_names_of_files(id, image, shown, monkeypatch):
    seen = []
    monkeypatch.setattr(sheets, "with_header", lambda *args: seen.append(args[-1]))
    source = [Bands()[0]._replace(id=id, image=image)] * 2
    Sheet(NAMES, Display(), 240).tile(batch()._replace(index=np.zeros(2, int)), 0, source)
    assert seen == [shown]


def test_sheets_break_and_keep_empty_places(tmp_path):
    tiles = [np.full((10 + i, 20, 3), 200, np.uint8) for i in range(3)]
    lines = write_sheets(tmp_path / "a.png", [tiles[0], None, *tiles[1:]], columns=2, rows=1)
    assert [line.split(": ")[1] for line in lines] == ["1 images", "2 images"]
    first, second = (cv2.imread(str(tmp_path / f"a_{i}.png")) for i in (0, 1))
    assert first.shape[0] == 10 + 16 and second.shape == (12 + 16, 2 * 20 + 24, 3)
