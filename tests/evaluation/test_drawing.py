import numpy as np
import pytest

from jdet.data.image_io import write_image
from jdet.data.readers.decoder import Decoder
from jdet.data.segmentation import encode
from jdet.evaluation import drawing
from jdet.evaluation.drawing import class_color, draw_detections, write_images
from jdet.types import DataError, Example, ImageDetections

NAMES = ("disc", "square", "étoile")
GREY = 128


def make_image(height, width):
    return np.full((height, width, 3), GREY, np.uint8)


def found(boxes, scores, labels, id="p"):
    return ImageDetections(
        id=id,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array(scores),
        labels=np.array(labels, int),
    )


def ground_truth(boxes, labels, ignore=None, id="p", image=""):
    n = len(labels)
    ignore = np.zeros(n, bool) if ignore is None else np.array(ignore)
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return Example(
        id=id,
        image=image,
        boxes=boxes,
        labels=np.array(labels, int),
        ignore=ignore,
        areas=np.ones(n, np.float32),
    )


def near(image, color, tolerance=40):
    return np.abs(image.astype(int) - color).max(-1) <= tolerance


def test_boxes_are_drawn_where_they_are_in_the_colour_of_their_class():
    image = make_image(600, 800)
    before = image.copy()
    drawn = draw_detections(image, found([[200, 150, 500, 450]], [0.9], [1]), NAMES)
    assert drawn.shape == image.shape and drawn.dtype == np.uint8
    np.testing.assert_array_equal(image, before)
    ink = near(drawn, class_color(1))
    for y, x in ((300, 200), (300, 500), (450, 350), (150, 400)):  # the middle of every side
        assert ink[y - 3 : y + 3, x - 3 : x + 3].any()
    assert (drawn[200:400, 250:450] == GREY).all()  # nothing inside
    assert (drawn[500:] == GREY).all() and (drawn[:, 600:] == GREY).all()


def test_low_scores_are_not_drawn():
    image = make_image(600, 600)
    boxes = found([[50, 50, 200, 200], [300, 300, 500, 500]], [0.5, 0.49], [0, 0])
    drawn = draw_detections(image, boxes, NAMES)
    assert near(drawn[:250, :250], class_color(0)).any()
    assert (drawn[280:, 280:] == GREY).all()
    np.testing.assert_array_equal(draw_detections(image, found([], [], []), NAMES), image)


def test_tags_do_not_hide_hundreds_of_objects():
    corner = np.array([[200 + 20 * (i % 15), 200 + 20 * (i // 15)] for i in range(151)], float)
    boxes = np.concatenate([corner, corner + 10], 1)

    def above(count):  # where tags of the first row would be
        given = found(boxes[:count], np.full(count, 0.9), np.zeros(count, int))
        return draw_detections(make_image(600, 600), given, NAMES)[185:196, 200:500]

    assert near(above(15), class_color(0)).any() and (above(151) == GREY).all()


def test_boxes_without_area_are_neither_drawn_nor_counted():
    image, labelled = make_image(600, 600), ground_truth([], [])
    flat = found([[50, 50, 50, 200], [300, 500, 400, 500]], [0.9, 0.8], [0, 0])
    drawn, empty = (
        draw_detections(image, boxes, NAMES, ground_truth=labelled)
        for boxes in (flat, found([], [], []))
    )
    np.testing.assert_array_equal(drawn, empty)


def test_small_images_are_enlarged_with_their_boxes():
    drawn = draw_detections(make_image(48, 64), found([[16, 12, 48, 36]], [0.9], [0]), NAMES)
    assert drawn.shape == (384, 512, 3)
    ink = near(drawn, class_color(0))
    assert ink[200, 126:131].any() and ink[200, 382:387].any()  # 16 · 8 and 48 · 8


def test_ground_truth_is_on_the_left_and_detections_on_the_right():
    image = make_image(512, 512)
    drawn = draw_detections(
        image,
        found([[300, 300, 400, 400]], [0.9], [1]),
        NAMES,
        ground_truth=ground_truth([[100, 100, 200, 200]], [0]),
    )
    height, width = drawn.shape[:2]
    assert width == 2 * 512 + 8 and height > 512
    left, right = drawn[height - 512 :, :512], drawn[height - 512 :, 520:]
    assert near(left, class_color(0)).any() and not near(left, class_color(1)).any()
    assert near(right, class_color(1)).any() and not near(right, class_color(0)).any()
    for header in (drawn[: height - 512, :512], drawn[: height - 512, 520:]):
        assert header.max() > 200 and header.min() < 40  # white text on dark ground


def test_ignored_objects_are_dashed():
    image = make_image(512, 512)

    def ink(ignore):
        drawn = draw_detections(
            image,
            found([], [], []),
            NAMES,
            ground_truth=ground_truth([[100, 100, 400, 400]], [0], [ignore]),
        )
        return near(drawn[:, 350:450], class_color(0)).sum()  # the right side, away from the tag

    assert 0.3 * ink(False) < ink(True) < 0.8 * ink(False)


@pytest.mark.parametrize("size", [(1, 1), (300, 1), (1, 300), (7, 2000)])
def test_thin_images_get_a_margin(size):
    height, width = size
    boxes = [[0, 0, width, height]]
    drawn = draw_detections(
        make_image(*size), found(boxes, [0.9], [2]), NAMES, ground_truth=ground_truth(boxes, [2])
    )
    assert drawn.shape[0] >= 160 and drawn.shape[1] >= 640
    assert near(drawn, class_color(2)).any()


def test_boxes_that_reach_beyond_the_image_are_drawn_along_its_edges():
    drawn = draw_detections(make_image(600, 600), found([[-80, 100, 300, 900]], [0.9], [1]), NAMES)
    ink = near(drawn, class_color(1))
    for y, x in ((350, 0), (350, 300), (599, 150), (100, 250)):  # the edges stand for what is cut
        assert ink[max(y - 3, 0) : y + 3, max(x - 3, 0) : x + 3].any()
    assert (drawn[:70] == GREY).all() and (drawn[:, 310:] == GREY).all()
    assert (drawn[150:590, 10:290] == GREY).all()


def test_the_best_of_a_crowd_is_drawn_on_top():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 300, (200, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(50, 300, (200, 2))], axis=1)
    boxes[7] = [150, 150, 450, 450]
    scores = np.full(200, 0.6)
    scores[7] = 0.9
    labels = np.where(np.arange(200) == 7, 0, 2)
    image = make_image(600, 600)
    crowded = draw_detections(image, found(boxes, scores, labels), NAMES)
    alone = draw_detections(image, found(boxes[7], [0.9], [0]), NAMES)
    line = near(alone, class_color(0), 10)[260:, :]  # below the tag
    assert line.sum() > 500
    # Tags of the others may lie over it, but no lines do.
    assert near(crowded, class_color(0), 10)[260:, :][line].mean() > 0.5
    bare = draw_detections(
        image, found(np.delete(boxes, 7, 0), scores[1:] * 0 + 0.6, [2] * 199), NAMES
    )
    assert near(bare, class_color(0), 10).sum() < 20


def test_tags_do_not_cover_each_other_where_there_is_room():
    placed = np.zeros((0, 4))
    for _ in range(6):  # six detections of one object
        tag = drawing._place_tag(
            np.array([200.0, 200, 350, 300]), np.array([60.0, 16]), placed, (600, 600), 1.0
        )
        placed = np.concatenate([placed, tag[None]])
    overlap = np.minimum(placed[:, None, 2:], placed[None, :, 2:]) - np.maximum(
        placed[:, None, :2], placed[None, :, :2]
    )
    covered = np.clip(overlap, 0, None).prod(-1)
    assert np.count_nonzero(covered - np.diag(np.diag(covered))) == 0


def test_palette_has_twenty_one_colours():
    assert len({class_color(i) for i in range(21)}) == 21
    assert class_color(21) == class_color(0)


def test_images_are_written_under_safe_names(tmp_path):
    write_image(tmp_path / "x.png", make_image(60, 80))
    pairs = [
        (
            found([], [], [], "a/b c"),
            ground_truth([], [], id="a/b c", image=str(tmp_path / "x.png")),
        ),
        (
            found([], [], [], "../../up"),
            ground_truth([], [], id="../../up", image=make_image(60, 80)),
        ),
    ]
    folder = tmp_path / "deep" / "detections"
    drawn = write_images(folder, pairs, NAMES)
    assert list(drawn) == ["000_a_b_c", "001_.._.._up"]
    assert sorted(p.name for p in folder.iterdir()) == [f"{name}.jpg" for name in drawn]
    for name, image in drawn.items():  # the file holds what was handed over, but for JPEG's losses
        read = Decoder()(folder / f"{name}.jpg").astype(int)
        assert read.shape == image.shape and read.shape[1] == 2 * 512 + 8
        assert np.abs(read - image).mean() < 3
    with pytest.raises(DataError, match="gone.jpg"):
        write_images(folder, [(pairs[0][0], ground_truth([], [], image="gone.jpg"))], NAMES)


@pytest.mark.parametrize(
    "name, shown",
    [
        ("étoile", "étoile"),
        ("猫", "class 1"),
        ("cat 猫", "class 1"),
        ("two\nlines\n", "two lines"),
        ("", "class 1"),
        (7, "7"),
    ],
)
def test_names_that_the_font_lacks_are_drawn_as_numbers(name, shown):
    """No box of the font's own stands for a character, in detections and ground truth."""
    names, boxes = ("disc", name), [(10, 60, 200, 200)]
    one, same = (
        draw_detections(
            make_image(256, 256),
            found(boxes, [0.9], [1]),
            classes,
            ground_truth=ground_truth(boxes, [1], id="猫"),
        )
        for classes in (names, ("disc", shown))
    )
    np.testing.assert_array_equal(one, same)


def test_ids_that_the_font_lacks_are_escaped():
    assert drawing._escaped("a·猫\udce9.jpg") == r"a·\u732b\udce9.jpg"


def test_masks_are_filled_translucently_with_an_outline():
    """Of polygons as of run-length encodings, holes stay open, and the ground truth has its own."""
    image = make_image(600, 800)
    ring = np.zeros((600, 800), bool)
    ring[150:451, 200:501] = True
    ring[250:351, 300:401] = False
    boxes, color = [[200, 150, 501, 451]], np.array(class_color(1))
    some = found(boxes, [0.9], [1])._replace(masks=(encode(ring),))
    drawn = draw_detections(image, some, NAMES)
    filled = np.round(0.6 * GREY + 0.4 * color)
    inner = ring.copy()
    inner[145:256], inner[345:456] = False, False  # away from box, tag and outlines
    inner[:, :210], inner[:, 290:] = False, False
    assert inner.any() and near(drawn[inner], filled, 2).all()
    assert near(drawn[260:340, 310:390], [GREY] * 3, 2).all()
    assert near(drawn[300, 296:304], color).any()  # the outline of the hole
    polygon = [[200, 150, 501, 150, 501, 451, 200, 451]]
    labelled = ground_truth(boxes * 2, [1, 0])._replace(masks=(polygon, None))
    both = draw_detections(image, found([], [], []), NAMES, ground_truth=labelled)
    header = both.shape[0] - 600
    assert near(both[header + 260 : header + 440, 250:450], filled, 2).all()
    empty = some._replace(masks=(encode(np.zeros((600, 800))),))
    assert near(draw_detections(image, empty, NAMES)[300, 300], [GREY] * 3, 2)


def test_masks_of_small_images_are_enlarged_with_them():
    mask = np.zeros((32, 64), bool)
    mask[8:24, 16:48] = True
    some = found([[16, 8, 48, 24]], [0.9], [1])._replace(masks=(encode(mask),))
    drawn = draw_detections(make_image(32, 64), some, NAMES)
    top = (drawn.shape[0] - 256) // 2
    filled = np.round(0.6 * GREY + 0.4 * np.array(class_color(1)))
    assert drawn.shape[1] == 512 and near(drawn[top + 140 : top + 180, 140:370], filled, 2).all()
