"""The same image twice, or nearly, also mirrored; and images of one original in two splits."""

import cv2
import numpy as np
import pytest

from jdet.doctor import hashes
from jdet.doctor.sequences import group_of, number_of, stem_of
from tests.doctor.sets import DataSet, LabelledImage, labelled_image, texture
from tests.doctor.test_findings import examined, names


def test_the_same_pixels_are_found_whatever_their_file(tmp_path):
    data = DataSet()
    data.val[3].pixels = data.train[6].pixels
    data.train[1].pixels, data.train[1].name = data.train[0].pixels, "copy.bmp"
    found = examined(data, tmp_path)
    assert {name: f.severity for name, f in found.items()} == {
        "same_image_across_splits": "error",
        "same_image_twice": "warning",
    }
    assert names(found["same_image_across_splits"]) == [(("train", "7"), ("val", "4"))]
    assert names(found["same_image_twice"]) == [(("train", "1"), ("train", "2"))]


def brighter(image):
    return np.clip(image * 0.7 + 50, 0, 255).astype(np.uint8)


def compressed(image):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], 1)


def shifted(image):
    return np.roll(image, (2, 3), (0, 1))


@pytest.mark.parametrize("change", [brighter, compressed, shifted])
def test_nearly_the_same_is_found(tmp_path, change):
    data = DataSet()
    data.val[3].pixels = change(data.train[6].pixels)
    found = examined(data, tmp_path)
    assert set(found) == {"near_duplicates_across_splits"}
    assert names(found["near_duplicates_across_splits"]) == [(("train", "7"), ("val", "4"))]


@pytest.mark.parametrize(
    "turn, how",
    [
        (lambda x: x[:, ::-1], "mirrored"),
        (lambda x: x[::-1], "mirrored top to bottom"),
        (lambda x: x[::-1, ::-1], "upside down"),
    ],
)
def test_mirrored_copies_are_found(tmp_path, turn, how):
    data = DataSet()
    data.train[8].pixels = np.ascontiguousarray(turn(data.train[2].pixels))
    found = examined(data, tmp_path)
    assert set(found) == {"near_duplicates"}
    (case,) = found["near_duplicates"].cases
    assert case.note.partition(", ")[2] == how


@pytest.mark.parametrize(
    "quarter, how", [(-1, "turned clockwise"), (1, "turned counter-clockwise")]
)
def test_a_turned_copy_is_found(tmp_path, quarter, how):
    data = DataSet()
    square = texture(7, 128, 128)
    objects = labelled_image("", 7).objects
    data.train[8] = LabelledImage("a.png", square, objects, (128, 128))
    turned = np.ascontiguousarray(np.rot90(square, quarter))
    data.train[9] = LabelledImage("b.png", turned, objects, (128, 128))
    (case,) = examined(data, tmp_path)["near_duplicates"].cases
    assert case.note.partition(", ")[2] == how
    assert [place.image for place in case.places] == ["9", "10"]


def test_hashes_of_all_orientations_are_those_of_the_turned_images():
    patch = cv2.resize(texture(3), (32, 32), interpolation=cv2.INTER_AREA)[..., 0]
    turned = [hashes.oriented(patch, number) for number in range(8)]
    assert len({image.tobytes() for image in turned}) == 8
    made = hashes.hashes(np.stack([patch, *turned]))
    differ = np.bitwise_count(made[:, 0] ^ made[0, 1:])
    assert differ.max() <= 2  # of rounding alone


def test_close_hashes_are_those_of_a_search_over_all_pairs():
    rng = np.random.default_rng(0)
    first = rng.integers(0, 1 << 63, 300, dtype=np.uint64)
    second = first.copy()
    for row, bits in enumerate(rng.integers(0, 20, 300)):
        for bit in rng.permutation(63)[:bits]:
            second[row] ^= np.uint64(1 << int(bit))
    upright = np.concatenate([first, second])
    made = np.stack([upright, *rng.integers(0, 1 << 63, (7, 600), dtype=np.uint64)])
    found = hashes.close_pairs(made)
    i, j = np.triu_indices(600, 1)
    expected = {
        (o, a, b)
        for o in range(8)
        for a, b in zip(
            *(x[np.bitwise_count(made[o][i] ^ upright[j]) <= 11].tolist() for x in (i, j))
        )
    }
    assert len(expected) > 100
    assert expected == set(
        zip(*(x.tolist() for x in (found.orientation, found.first, found.second)))
    )


def test_of_many_alike_only_some_are_kept():
    same = np.full((8, 500), 12345, np.uint64)
    same[1:] = ~same[0]
    found = hashes.close_pairs(same)
    assert len(found.first) == sum(min(hashes.NEIGHBOURS, 499 - i) for i in range(500))
    assert np.array_equal(found.cut, np.arange(500) < 499 - hashes.NEIGHBOURS)


def test_the_frames_of_a_camera_that_does_not_move_are_not_compared_all_with_all(monkeypatch):
    rng = np.random.default_rng(0)
    count, compared = 1000, []
    monkeypatch.setattr(hashes, "_CROWD", 2 * hashes.NEIGHBOURS)
    flips = rng.random((count, 64)) < 0.01
    scene = np.uint64(0x3A5C96E1D2874BF0)
    upright = scene ^ np.packbits(flips, axis=1).view(">u8").ravel().astype(np.uint64)
    upright[-2:] = rng.integers(0, 1 << 63, dtype=np.uint64)  # two of another scene
    bits = np.bitwise_count
    monkeypatch.setattr(np, "bitwise_count", lambda x: compared.append(len(x)) or bits(x))
    found = hashes.close_pairs(upright[None])
    assert sum(compared) < 4 * 2 * hashes.NEIGHBOURS * count  # all with all: 500,000
    pairs = set(zip(found.first.tolist(), found.second.tolist()))
    assert (count - 2, count - 1) in pairs
    assert {(i, j) for i in range(count - 12, count - 2) for j in range(i + 1, count - 2)} <= pairs
    assert (np.bincount(found.first, minlength=count)[: count - 30] == hashes.NEIGHBOURS).all()
    assert found.cut[: count - 30].all() and not found.cut[-12:].any()


def test_frames_that_are_all_alike_are_told(tmp_path):
    data = DataSet(train=0, val=0)
    scene = texture(1)
    for i in range(hashes.NEIGHBOURS + 6):
        pixels = scene.copy()
        pixels[i, i] ^= 1
        data.train.append(LabelledImage(f"{i}.png", pixels, labelled_image("", 1).objects))
    data.val = [labelled_image("other.png", 50)]
    found = examined(data, tmp_path)
    assert found["look_alikes_not_compared"].count == 5
    assert found["look_alikes_not_compared"].severity == "note"


@pytest.mark.parametrize(
    "file, group, says_so, number",
    [
        ("a/frame_00012.png", "frame", False, 12),
        ("slide3_x512_y1024.tif", "slide3", True, 1024),
        ("slide3_0_2.tif", "slide3", False, 2),
        ("slide_tile_12.png", "slide", True, 12),
        ("cat-7_jpg.rf.0123456789abcdef.jpg", "cat-7", True, 123456789),
        ("Copy of dog (3).jpg", "dog", True, 3),
        ("000000139.jpg", "", False, 139),
        ("sunflower.jpg", "sunflower", False, None),
    ],
)
def test_names_are_taken_apart(file, group, says_so, number):
    stem = stem_of("id", file)
    assert group_of(stem) == (group, says_so) and (number is None) == (number_of(stem) is None)


def test_copies_and_tiles_in_two_splits_are_believed(tmp_path):
    data = DataSet()
    data.train[0].name, data.val[0].name = (
        "elm_jpg.rf.0123456789ab.png",
        "elm_jpg.rf.ba9876543210.png",
    )
    data.train[1].name, data.val[1].name = "oak_x0_y0.png", "oak_x0_y512.png"
    found = examined(data, tmp_path)
    assert set(found) == {"groups_across_splits"}
    assert names(found["groups_across_splits"]) == [
        (("train", "1"), ("val", "1")),
        (("train", "2"), ("val", "2")),
    ]


def patches(tmp_path, alike):
    """Five originals cut into patches, the last of each held out; or images that are only called so."""
    data = DataSet(train=0, val=0)
    for slide in range(5):
        original = texture(slide, 480, 160)
        for part in range(4):
            # Neighbouring patches overlap, as those of most tools do.
            cut = original[part * 20 : part * 20 + 120] if alike else texture(50 + 4 * slide + part)
            one = labelled_image(f"slide{slide}_{part}.png", 10 * slide + part)
            one.pixels = cut
            (data.val if part == 3 else data.train).append(one)
    return examined(data, tmp_path)


def test_patches_of_one_original_in_two_splits_are_found_by_name_and_looks(tmp_path):
    found = patches(tmp_path, alike=True)
    assert found["groups_across_splits"].count == 5
    assert "slide0…: 3 in train, 1 in val" in found["groups_across_splits"].cases[0].note
    assert patches(tmp_path / "second", alike=False) == {}


def test_a_film_that_was_split_frame_by_frame_is_found(tmp_path):
    data = DataSet(train=0, val=0)
    film = np.concatenate([texture(i, 120, 160) for i in range(12)], axis=1)
    film = cv2.GaussianBlur(film, (0, 0), 9)
    for frame in range(40):
        one = labelled_image(f"frame_{frame:05d}.png", frame)
        start = frame * 40
        one.pixels = np.ascontiguousarray(film[:, start : start + 160])
        (data.val if frame % 4 == 3 else data.train).append(one)
    found = examined(data, tmp_path)
    assert "film_across_splits" in found
    numbers = [[int(p.file[-9:-4]) for p in c.places] for c in found["film_across_splits"].cases]
    assert len(numbers) >= 5 and all(abs(a - b) <= 2 for a, b in numbers)
