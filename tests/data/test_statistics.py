"""Statistics of image values against NumPy in float64, their merging, the pass over a set and its cache."""

import json
import math

import numpy as np
import pytest

from jdet.data import measure as measure_lib
from jdet.data.image_io import write_image
from jdet.data.invalid import filled
from jdet.data.measure import measure
from jdet.data.quantiles import POINTS, Counter, summarise
from jdet.data.readers.settings import ImageSettings
from jdet.data.statistics import RANKS, ImageStatistics
from jdet.data.tally import restored, tally
from jdet.types import ConfigError, DataError, Example, ImageKind

NONE = np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool), np.zeros(0)


class Arrays:
    """Images in memory as a source."""

    class_names = ("thing",)

    def __init__(self, images):
        self.images = images
        if images and isinstance(images[0], np.ndarray):
            self.image_kind = ImageKind(images[0].shape[2], dtype=images[0].dtype.name)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return Example(f"image{index}", self.images[index], *map(np.copy, NONE))


def made(dtype, count=9, channels=3, seed=0):
    """Images of different sizes with a distribution of its own in each channel."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        shape = (int(rng.integers(20, 60)), int(rng.integers(20, 60)), channels)
        image = rng.gamma(2.0, 10.0 + 5 * np.arange(channels), shape)
        if dtype == "uint8":
            image = np.minimum(image, 255)
        elif dtype == "uint16":
            image = 30_000 + 40 * image
        else:
            image = 0.25 + 1e-4 * image  # a small spread far from zero
        images.append(image.astype(dtype))
    return images


def added(images, **settings):
    whole = tally(images[0], **settings)
    for image in images[1:]:
        whole.add(tally(image, **settings))
    return whole


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_equal_to_numpy_in_float64(dtype):
    images = made(dtype)
    values = np.concatenate([image.reshape(-1, 3) for image in images]).astype(np.float64)
    found = ImageStatistics.of(added(images))
    assert (found.dtype, found.images, found.valid) == (dtype, 9, (len(values),) * 3)
    np.testing.assert_allclose(found.mean, values.mean(0), rtol=1e-9)
    np.testing.assert_allclose(found.std, values.std(0), rtol=1e-6)
    np.testing.assert_array_equal((found.minimum, found.maximum), (values.min(0), values.max(0)))
    exact = np.percentile(values, RANKS, axis=0)
    rtol = 1e-12 if dtype != "float32" else 2e-5  # between two points of a summary
    np.testing.assert_allclose(found.percentiles, exact, rtol=rtol)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_any_grouping_and_a_file_between_give_the_same(dtype, tmp_path):
    images = made(dtype)
    whole, halves = added(images), added(images[:4])
    np.savez(tmp_path / "half.npz", **halves.arrays())
    with np.load(tmp_path / "half.npz", allow_pickle=False) as stored:
        halves = restored(dict(stored))
    halves.add(added(images[4:]))
    one, two = ImageStatistics.of(whole), ImageStatistics.of(halves)
    for name, value in one._asdict().items():
        if isinstance(value, tuple):
            np.testing.assert_allclose(value, getattr(two, name), rtol=1e-12, err_msg=name)
        else:
            assert value == getattr(two, name)


@pytest.mark.parametrize("dtype, invalid", [("uint16", 0), ("float32", -9999.0), ("float32", None)])
def test_invalid_values_are_left_out_and_counted(dtype, invalid):
    images = made(dtype, channels=2)
    mark = math.nan if invalid is None else invalid
    rng = np.random.default_rng(1)
    masks = [rng.random(image.shape) < 0.2 for image in images]
    valid = [
        np.concatenate([image[..., c][~mask[..., c]] for image, mask in zip(images, masks)])
        for c in range(2)
    ]
    for image, mask in zip(images, masks):
        image[mask] = mark
    if dtype == "float32":
        images[0][0, 0, 0], images[0][0, 1, 0] = np.inf, -np.inf
        masks[0][0, :2, 0] = True
        valid[0] = np.concatenate(
            [image[..., 0][~mask[..., 0]] for image, mask in zip(images, masks)]
        )
    images.append(np.full((5, 5, 2), mark, dtype))
    found = ImageStatistics.of(added(images, invalid=invalid))
    lost = [sum(int(mask[..., c].sum()) for mask in masks) + 25 for c in range(2)]
    assert found.invalid == tuple(lost) and found.empty == 1
    for c in range(2):
        np.testing.assert_allclose(found.mean[c], valid[c].mean(dtype=np.float64), rtol=1e-9)
        np.testing.assert_allclose(found.std[c], valid[c].astype(float).std(), rtol=1e-6)
    (line, blank) = found.warnings()
    assert f"{sum(lost):,} of " in line and "invalid" in line
    assert "1 of 10 images have no valid value" in blank


def test_limits_constant_images_and_channels():
    image = np.array([[0, 5], [10, 20]], np.uint16)[..., None]
    flat = np.full((2, 2, 1), 7, np.uint16)
    for dtype in ("uint16", "float32"):
        found = ImageStatistics.of(added([image.astype(dtype), flat.astype(dtype)], limits=(5, 10)))
        assert found.outside == (2,) and found.constant == 1 and found.images == 2
        assert any("2 of 8 values (25.00%) lie outside" in line for line in found.warnings())
    pair = np.concatenate([image, np.full_like(image, 3)], axis=2)
    found = ImageStatistics.of(tally(pair))
    assert found.scales[1] == 1 and found.levels == ((0.0, 3.0), (20.0, 4.0)) or found.levels
    assert any("channel 1 is 3 in all images" in line for line in found.warnings())
    found.check("set")
    with pytest.raises(DataError, match="set: all values of all 1 images are equal, 7"):
        ImageStatistics.of(tally(flat)).check("set")
    empty = tally(np.full((2, 2, 1), np.nan, np.float32))
    with pytest.raises(DataError, match="none of the 1 images has a valid value: all are NaN"):
        ImageStatistics.of(empty).check("set")
    with pytest.raises(DataError, match="leave config.data.image.invalid out"):
        ImageStatistics.of(tally(flat, invalid=7)).check("set", 7)
    assert ImageStatistics.of(empty).levels == ((0.0,), (1.0,))


def test_percentiles_of_a_long_stream_keep_their_rank():
    """Of 600 parts that differ, so that no part is like the whole; more are merged than are kept."""
    rng, counter, parts = np.random.default_rng(0), Counter(), []
    for place in range(600):
        part = (place / 100 + rng.standard_normal(1500)).astype(np.float32)
        parts.append(part)
        counter.add(summarise(part, 500))
    assert sum(len(s.values) for held in counter.levels.values() for s in held) < 40 * POINTS
    ordered = np.sort(np.concatenate(parts))
    ranks = np.array([0.0, 0.1, 1, 10, 50, 90, 99, 99.9, 100])
    found = counter.percentiles(ranks)
    reached = 100 * np.searchsorted(ordered, found) / len(ordered)
    np.testing.assert_allclose(reached, ranks, atol=100 * (1 / 1000 + 3 / (2 * POINTS)))
    assert np.isnan(Counter().percentiles([50])).all()


def test_the_pass_is_cached_by_what_the_images_are(tmp_path, monkeypatch):
    images = made("uint8", count=5)
    first = measure(Arrays(images), cache=tmp_path)
    monkeypatch.setattr(measure_lib, "tally", lambda *_: pytest.fail("measured again"))
    assert measure(Arrays(images), cache=tmp_path) == first
    monkeypatch.undo()
    other = [image.copy() for image in images]
    other[3][0, 0, 0] += 100
    assert measure(Arrays(other), cache=tmp_path) != first
    assert measure(Arrays(images), invalid=images[0][0, 0, 0], cache=tmp_path).invalid != (0, 0, 0)
    assert len(list(tmp_path.iterdir())) == 3
    for file in tmp_path.iterdir():
        file.write_text('{"dtype": ')  # of a machine that stopped, on a file system without order
    assert measure(Arrays(images), cache=tmp_path) == first


def test_what_becomes_of_the_files_is_part_of_the_caches_name(tmp_path):
    source, image = Arrays([]), np.zeros((8, 8, 2), np.uint8)
    source.images, source.image_kind = [image + np.uint8([7, 90])], ImageKind(1, "gray")
    for band, mean in ((0, 7), (1, 90), (0, 7)):
        source.image_settings = ImageSettings(channels="gray", bands=(band,))
        assert measure(source, cache=tmp_path).mean == (mean,)


def test_an_interrupt_while_a_chunk_is_added_loses_no_image(tmp_path, monkeypatch):
    monkeypatch.setattr(measure_lib, "CHUNK", 1)
    images, real = made("uint8", count=3), measure_lib._add
    expected = measure(Arrays(images), cache=tmp_path / "whole")

    def interrupted(whole, more, name):
        real(whole, more, name)
        raise KeyboardInterrupt

    monkeypatch.setattr(measure_lib, "_add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure(Arrays(images), cache=tmp_path / "cut", processes=1)
    monkeypatch.setattr(measure_lib, "_add", real)
    assert measure(Arrays(images), cache=tmp_path / "cut") == expected


def test_a_replaced_file_is_measured_again(tmp_path):
    paths = [str(tmp_path / f"{i}.png") for i in range(40)]
    for path in paths:
        write_image(path, np.full((8, 8, 3), 50, np.uint8))
    source = Arrays(paths)
    before = measure_lib.identity(source)
    assert before == measure_lib.identity(source)
    write_image(
        paths[33], np.full((9, 8, 3), 200, np.uint8)
    )  # not among those that are looked into
    assert measure_lib.identity(source) != before


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_pass_goes_on_where_it_was_interrupted(dtype, tmp_path, monkeypatch):
    images = made(dtype, count=20)
    monkeypatch.setattr(measure_lib, "CHUNK", 4)
    expected = measure(Arrays(images), cache=tmp_path / "whole")
    real, seen = measure_lib.tally, []

    def counted(image, *settings):
        seen.append(image)
        if len(seen) == 14:
            raise KeyboardInterrupt
        return real(image, *settings)

    monkeypatch.setattr(measure_lib, "tally", counted)
    with pytest.raises(KeyboardInterrupt):
        measure(Arrays(images), cache=tmp_path)
    assert [path.suffix for path in tmp_path.iterdir() if path.is_file()] == [".partial"]
    said = []
    assert measure(Arrays(images), cache=tmp_path, notify=said.append) == expected
    assert len(seen) == 14 + 8 and "going on after 12 of 20 images" in said[0]
    assert [path.suffix for path in tmp_path.iterdir() if path.is_file()] == [".json"]


def test_a_damaged_partial_result_is_not_used(tmp_path, monkeypatch):
    images = made("uint8", count=6)
    expected = measure(Arrays(images), cache=tmp_path)
    (file,) = tmp_path.iterdir()
    file.rename(file.with_suffix(".partial"))
    for damaged in (b"", b"PK\3\4", json.dumps({}).encode()):
        file.with_suffix(".partial").write_bytes(damaged)
        assert measure(Arrays(images), cache=tmp_path) == expected
        file.unlink()


def test_processes_give_the_same_figures(tmp_path, monkeypatch):
    images = made("uint8", count=70)
    assert measure(Arrays(images), cache=tmp_path / "a", processes=2) == measure(
        Arrays(images), cache=tmp_path / "b", processes=1
    )


def test_unreadable_images_and_images_of_another_kind(tmp_path, caplog):
    images = made("uint8", count=4)
    broken = [*images, b"\x89PNG broken"]
    found = measure(Arrays(broken), on_error="skip", cache=tmp_path)
    assert found.unreadable == 1 and found.images == 4
    assert any("1 images could not be read" in line for line in found.warnings())
    with pytest.raises(DataError, match="image4: corrupt or truncated PNG"):
        measure(Arrays(broken), cache=tmp_path)
    with pytest.raises(DataError, match="none of its 2 images can be read"):
        measure(Arrays([b"", b""]), on_error="skip", cache=tmp_path)
    with pytest.raises(DataError, match="no images"):
        measure(Arrays([]), cache=tmp_path)


def test_a_cache_that_cannot_be_written_is_told(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    measure(Arrays(made("uint8", count=2)), cache=tmp_path / "file")
    assert "image statistics are not kept in" in caplog.text


def test_without_a_folder_the_users_cache_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert measure_lib.cache_folder() == tmp_path / "jdet" / "image_statistics"


def test_the_usual_mark_of_float_rasters_stands_for_nothing_measured():
    mark = ImageSettings(invalid=-3.4028235e38).invalid
    image = np.float32([[[np.finfo(np.float32).min]], [[4]]])
    assert tally(image, mark).invalid == (1,)
    np.testing.assert_array_equal(filled(image, mark, (7.0,)), [[[7]], [[4]]])
    with pytest.raises(ConfigError, match="config.data.image.invalid=1e\\+39"):
        ImageSettings(invalid=1e39)


@pytest.mark.parametrize("colour, value", [(-3.0, 0), (260.0, 255)])
def test_what_replaces_invalid_values_stays_within_the_type(colour, value):
    assert filled(np.uint8([[[9], [1]]]), 9, (colour,)).ravel().tolist() == [value, 1]
