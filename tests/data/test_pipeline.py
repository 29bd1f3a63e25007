"""The stream: determinism, resumption, workers and processes, bad images, alignment of labels."""

import itertools
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from jdet.data.pipeline import _seed, eval_batches, train_batches
from jdet.data.transforms.augment import Augment
from jdet.data.transforms.multi_scale import View
from jdet.data.transforms.ssd import SSDAugment
from jdet.data.transforms.warp import Warp
from jdet.types import Batch, ConfigError, DataError, Example
from tests.harness import child_environment

MEAN = (123, 117, 104)
COLOURS = np.array([[250, 10, 10], [10, 250, 10], [10, 10, 250], [240, 240, 10]], np.uint8)


def encode(image, suffix=".png"):
    return cv2.imencode(suffix, image[..., ::-1])[1].tobytes()


def warped(image):
    """An image as evaluation shows it at 32×32 pixels."""
    return View((32, 32)).prepare(image)[0]


class Images:
    """PNG bytes; objects are rectangles in the colour of their label, apart from each other.

    Image i has i mod 4 objects and 64 + i columns, image ``crowded`` has seven objects, and
    images in ``broken`` are truncated JPEGs.
    """

    class_names = ("red", "green", "blue", "yellow")

    def __init__(self, count, broken=(), crowded=None, empty=False):
        self.count, self.broken, self.crowded, self.empty = count, broken, crowded, empty

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        assert 0 <= index < self.count
        rng = np.random.default_rng(index)
        image = rng.integers(60, 120, (56, 64 + index, 3)).astype(np.uint8)
        objects = 0 if self.empty else 7 if index == self.crowded else index % 4
        cells = rng.permutation(8)[:objects]
        corner = np.stack([2 + 16 * (cells % 4), 2 + 27 * (cells // 4)], 1)
        boxes = np.concatenate([corner, corner + rng.integers(8, 15, (objects, 2))], 1)
        labels = rng.integers(0, 4, objects).astype(np.int32)
        for (x0, y0, x1, y1), label in zip(boxes, labels, strict=True):
            image[y0:y1, x0:x1] = COLOURS[label]
        data = encode(image)
        if index in self.broken:
            data = encode(image, ".jpg")[:-40]
        boxes = boxes.reshape(-1, 4).astype(np.float32)
        ignore = labels == 3
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        return Example(f"p{index}", data, boxes, labels, ignore, areas)


TURNED = {"flip_vertical": 0.5, "rotate": 0.5}
PLAIN = {"photometric": 0.0, "expand": 0.0, "crop": False, "flip": 0.0, "interpolation": "linear"}


def stream(source, **changes):
    options = {"augment": SSDAugment(), "max_boxes": 5, "batch_size": 4, "seed": 1}
    return train_batches(source, **{"resize": Warp(32), **options, "threads": 0, **changes})


def take(source, count, **changes):
    with stream(source, **changes) as batches:
        return list(itertools.islice(batches, count))


def evaluate(source, **changes):
    if "views" not in changes:
        changes = {"resize": Warp(32), **changes}
    with eval_batches(source, **{"batch_size": 4, "threads": 0, **changes}) as s:
        return list(s)


def assert_equal(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        for name in Batch._fields:
            x, y = getattr(a, name), getattr(b, name)
            assert (x is None) == (y is None), name
            if x is not None:
                np.testing.assert_array_equal(x, y, err_msg=name, strict=True)


def column(batches, name):
    """A field of all batches in one array; empty where the batches do not have it."""
    fields = [getattr(batch, name) for batch in batches]
    return np.zeros(0) if fields[0] is None else np.concatenate(fields)


# ------------------------------------------------------------------ layout


def test_layout():
    for batch in take(Images(7), 4):
        expected = {
            "images": (np.uint8, (4, 32, 32, 3)),
            "boxes": (np.float32, (4, 5, 4)),
            "labels": (np.int32, (4, 5)),
            "valid": (np.bool_, (4, 5)),
            "ignore": (np.bool_, (4, 5)),
            "image_sizes": (np.int32, (4, 2)),
            "original_sizes": (np.int32, (4, 2)),
            "index": (np.int32, (4,)),
            "real": (np.bool_, (4,)),
        }
        fields = batch._asdict()
        assert fields.pop("masks") is None
        assert {k: (v.dtype, v.shape) for k, v in fields.items()} == expected
        assert batch.real.all() and (batch.image_sizes == 32).all()
        assert (np.diff(batch.valid.astype(int)) <= 0).all()  # padding comes last
        for name in ("boxes", "labels", "ignore"):
            assert not getattr(batch, name)[~batch.valid].any()
        np.testing.assert_array_equal(batch.original_sizes[:, 1], 64 + batch.index)
        boxes = batch.boxes[batch.valid]
        assert (boxes >= 0).all() and (boxes <= 32).all()
        assert (boxes[:, :2] < boxes[:, 2:]).all()


@pytest.mark.parametrize("turned", [{}, TURNED], ids=["flip", "all turns"])
def test_labels_stay_with_their_objects(turned):
    """Under zoom-out, crop and turns, the middle of every box shows the colour of its label."""
    changes = SSDAugment(photometric=0.0, interpolation="nearest", expand_ratio=2.0, **turned)
    batches = take(Images(40), 60, augment=changes, resize=Warp(96))
    wide = 0
    for image, boxes, labels, valid, ignore in zip(
        *(column(batches, n) for n in ("images", "boxes", "labels", "valid", "ignore")), strict=True
    ):
        np.testing.assert_array_equal(ignore[valid], labels[valid] == 3)
        for box, label in zip(boxes[valid], labels[valid], strict=True):
            if (box[2:] - box[:2] > 3).all():  # of the others the middle pixel is a matter of luck
                x, y = ((box[:2] + box[2:]) / 2).astype(int)
                np.testing.assert_array_equal(image[y, x], COLOURS[label])
                wide += 1
    assert wide > 150


@pytest.mark.parametrize("augment", [SSDAugment(**PLAIN), Augment()], ids=["ssd", "none"])
def test_without_augmentation_images_are_warped(augment):
    source = Images(8)
    for batch in take(source, 4, augment=augment):
        for image, boxes, valid, index in zip(
            batch.images, batch.boxes, batch.valid, batch.index, strict=True
        ):
            example = source[index]
            original = cv2.imdecode(np.frombuffer(example.image, np.uint8), cv2.IMREAD_COLOR)
            expected = cv2.resize(original, (32, 32), interpolation=cv2.INTER_LINEAR)[..., ::-1]
            np.testing.assert_array_equal(image, expected)
            np.testing.assert_array_equal(image, warped(original[..., ::-1]))
            scale = np.array([32 / (64 + index), 32 / 56] * 2)
            np.testing.assert_allclose(boxes[valid], example.boxes * scale, rtol=1e-5)


def test_turns_are_all_drawn_and_change_nothing_else():
    """Undoing the one turn that fits gives the images of the same seed without turns."""
    plain, turned = (
        column(take(Images(20), 20, augment=SSDAugment(**PLAIN, **more)), "images")
        for more in ({}, {**TURNED})
    )
    turned_or_flipped = column(
        take(Images(20), 20, augment=SSDAugment(**{**PLAIN, **TURNED, "flip": 0.5})), "images"
    )

    def orientations(images):
        found = []
        for before, after in zip(plain, images, strict=True):
            mirrored = [(k, m, before[:, ::-1] if m else before) for k in range(4) for m in (0, 1)]
            found += [next((k, m) for k, m, x in mirrored if (np.rot90(x, -k) == after).all())]
        return found

    # Without the horizontal flip: upright, mirrored, and both after a quarter turn.
    assert len(set(orientations(turned))) == 4
    counts = Counter(orientations(turned_or_flipped))
    assert len(counts) == 8 and max(counts.values()) < 25  # of 80, ten each expected


# ------------------------------------------------------------------ determinism


def test_same_seed_same_batches():
    source = Images(9)
    first = take(source, 6)
    assert_equal(first, take(source, 6))
    assert any(
        (a.images != b.images).any() for a, b in zip(first, take(source, 6, seed=2), strict=True)
    )


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_nothing(threads):
    source = Images(9)
    assert_equal(take(source, 6), take(source, 6, threads=threads, prefetch=2))


@pytest.mark.parametrize("start", [1, 5])
def test_resume(start):
    source = Images(7)
    assert_equal(take(source, 9)[start:], take(source, 9 - start, start=start))
    with stream(source, start=start) as batches:
        assert (batches.position, batches.next_element) == (start, 4 * start)
        next(batches)
        assert (batches.position, batches.next_element) == (start + 1, 4 * start + 4)


def test_rows_do_not_depend_on_the_batch_size():
    source = Images(10)
    small, large = take(source, 6, batch_size=2), take(source, 2, batch_size=6)
    for name in Batch._fields:
        np.testing.assert_array_equal(column(small, name), column(large, name))


def test_two_processes_see_one_stream():
    source = Images(7)
    parts = [take(source, 5, process_index=p, process_count=2) for p in (0, 1)]
    joined = [
        Batch(**{name: column(pair, name) for name in Batch._fields if name != "masks"})
        for pair in zip(*parts, strict=True)
    ]
    assert_equal(joined, take(source, 5))
    assert_equal(parts[1][2:], take(source, 3, process_index=1, process_count=2, start=2))


def test_a_process_reads_no_images_of_others():
    class Watched(Images):
        def __init__(self, count):
            super().__init__(count)
            self.read = []

        def __getitem__(self, index):
            self.read.append(int(index))
            return super().__getitem__(index)

    whole = column(take(Images(40), 10), "index").reshape(10, 2, -1)  # one epoch
    for p in (0, 1):
        source = Watched(40)
        take(source, 2, process_index=p, process_count=2, threads=2, prefetch=2)
        assert set(source.read) <= {*whole[:, p].ravel()} and len(source.read) < 20
        source = Watched(40)
        evaluate(source, process_index=p, process_count=2)
        assert sorted(source.read) == [i for i in range(40) if i % 4 // 2 == p]


def test_epochs_are_different_permutations():
    order = column(take(Images(10), 15, batch_size=4), "index").reshape(6, 10)
    np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(10), (6, 1)))
    assert len({tuple(epoch) for epoch in order}) == 6
    np.testing.assert_array_equal(column(take(Images(1), 2, batch_size=2), "index"), np.zeros(4))


def test_a_image_looks_different_in_every_epoch():
    images = column(take(Images(1), 4, batch_size=2), "images")
    assert len({image.tobytes() for image in images}) == 8


def test_operations_have_their_own_seeds():
    """Without objects nothing is cropped, so that leaving out the crop must change nothing."""
    source = Images(9, empty=True)
    assert_equal(take(source, 5), take(source, 5, augment=SSDAugment(crop=False)))
    # Any change here changes every published run.
    assert [_seed(0, "shuffle"), _seed(0, "flip"), _seed(1, "flip")] == [
        3134650067,
        2817177256,
        2629867384,
    ]


def test_worker_processes_change_nothing():
    """Batches, reports, errors: all as without workers. One test, as workers start slowly."""
    source = Images(11, broken=(3, 8), crowded=5)
    changes = {"max_boxes": 3, "on_error": "skip"}
    with stream(source, **changes) as batches:
        expected = [next(batches) for _ in range(7)]
        report = batches.report()
    assert report.skips > 2 and report.crowded and set(report.skipped) == {"p3", "p8"}
    for workers, threads in ((1, 1), (2, 0)):
        with stream(source, workers=workers, threads=threads, start=2, **changes) as batches:
            seen_batches = [next(batches) for _ in range(5)]
            view = seen_batches[0].images[1:]
            seen = batches.report()
        assert_equal(expected[2:], seen_batches)
        del seen_batches  # arrays live in memory shared with a worker that is gone
        np.testing.assert_array_equal(view, expected[2].images[1:])
        with stream(source, start=2, **changes) as batches:
            for _ in range(5):
                next(batches)
            assert seen == batches.report()
    with stream(source, workers=1) as batches, pytest.raises(DataError, match="p[38]: truncated"):
        for _ in range(4):
            next(batches)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_workers_end_with_a_killed_parent(tmp_path):
    program = """
        import multiprocessing, time
        from tests.data import test_pipeline as t

        if __name__ == "__main__":
            batches = t.stream(t.Images(5), workers=1)
            next(batches)
            print(multiprocessing.active_children()[0].pid, flush=True)
            time.sleep(60)
    """
    path = tmp_path / "killed.py"
    path.write_text(textwrap.dedent(program))
    environment = child_environment()
    with subprocess.Popen(
        [sys.executable, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    ) as parent:
        try:
            assert parent.stdout is not None
            worker = int(parent.stdout.readline())
        finally:
            parent.send_signal(signal.SIGKILL)
    status = Path(f"/proc/{worker}/stat")
    end = time.monotonic() + 10
    while status.exists() and status.read_text().split()[2] != "Z" and time.monotonic() < end:
        time.sleep(0.05)
    assert not status.exists() or status.read_text().split()[2] == "Z"


# ------------------------------------------------------------------ evaluation


def test_evaluation_covers_the_source_in_order():
    source = Images(10)
    batches = evaluate(source, max_boxes=4)
    assert len(batches) == 3
    np.testing.assert_array_equal(column(batches, "real"), np.arange(12) < 10)
    np.testing.assert_array_equal(column(batches, "index"), [*range(10), 0, 0])
    for batch in batches:
        for row in np.flatnonzero(batch.real):
            example = source[batch.index[row]]
            original = cv2.imdecode(np.frombuffer(example.image, np.uint8), cv2.IMREAD_COLOR)
            expected = warped(original[..., ::-1])
            np.testing.assert_array_equal(batch.images[row], expected)
            height, width = batch.original_sizes[row]
            assert (height, width) == original.shape[:2]
            valid = batch.valid[row]
            scale = np.array([width / 32, height / 32] * 2)
            np.testing.assert_allclose(batch.boxes[row][valid] * scale, example.boxes, atol=1e-4)
            np.testing.assert_array_equal(batch.labels[row][valid], example.labels)
    last = batches[-1]
    assert not last.images[2:].any() and not last.valid[2:].any()


def test_evaluation_length_limit_and_no_objects():
    with eval_batches(Images(10), resize=Warp(32), batch_size=4, limit=5, threads=1) as batches:
        assert batches.length == 2
        seen = list(batches)
        assert batches.report() == ({}, 0, 0, 0)
    assert column(seen, "real").sum() == 5
    assert seen[0].boxes.shape == (4, 0, 4)
    assert len(evaluate(Images(3), limit=99)) == 1


def test_evaluation_gives_processes_equally_many_batches():
    source = Images(9)
    parts = [evaluate(source, process_index=p, process_count=2) for p in (0, 1)]
    assert [len(part) for part in parts] == [3, 3]
    rows = [np.concatenate([a.index, b.index]) for a, b in zip(*parts, strict=True)]
    np.testing.assert_array_equal(np.concatenate(rows), column(evaluate(source), "index"))


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_at_several_sizes(workers):
    source, views = Images(5), [View(s) for s in ((32, 32), (24, 40), (40, 24), (48, 48))]
    plain = evaluate(source)
    batches = evaluate(source, views=views, workers=workers)
    for one, many in zip(plain, batches, strict=True):
        np.testing.assert_array_equal(many.images[0], one.images)
        for name in ("index", "real"):
            np.testing.assert_array_equal(getattr(many, name), getattr(one, name))
        for row in np.flatnonzero(one.real):
            original = cv2.imdecode(
                np.frombuffer(source[one.index[row]].image, np.uint8), cv2.IMREAD_COLOR
            )[..., ::-1]
            np.testing.assert_array_equal(many.original_sizes[row], original.shape[:2])
            for images, sizes, view in zip(many.images, many.image_sizes, views, strict=True):
                assert images.shape == (4, *view.shape, 3)
                if view.shows(*original.shape[:2]):
                    np.testing.assert_array_equal(images[row], view.prepare(original)[0])
                    np.testing.assert_array_equal(sizes[row], view.shape)
                else:
                    assert not images[row].any() and not sizes[row].any()
    last = batches[-1]
    assert not any(x[1:].any() for x in (*last.images, *last.image_sizes))


def test_long_and_short_side_keep_their_meaning():
    landscape, portrait, square = (24, 40), (40, 24), (32, 32)
    for size, seen in (((10, 30), [1, 0, 1]), ((30, 10), [0, 1, 1]), ((10, 10), [1, 0, 1])):
        assert [View(shape).shows(*size) for shape in (landscape, portrait, square)] == seen


def test_strong_shrink_averages():
    """A fine grid that linear interpolation would read as flat becomes its mean."""
    image = np.zeros((320, 320, 3), np.uint8)
    image[::2] = 200
    assert (np.abs(warped(image).astype(int) - 100) <= 1).all()


def test_views_or_a_resize():
    for changes in ({}, {"resize": Warp(8), "views": [View((8, 8))]}):
        with pytest.raises(TypeError, match="either"):
            eval_batches(Images(2), batch_size=1, **changes)


# ------------------------------------------------------------------ bad images


@pytest.mark.parametrize("threads", [0, 2])
def test_unreadable_image_raises_with_its_name(threads):
    with pytest.raises(DataError, match="p4: truncated JPEG"):
        take(Images(6, broken=(4,)), 3, threads=threads)
    with pytest.raises(DataError, match="p4: truncated JPEG"):
        evaluate(Images(6, broken=(4,)), threads=threads)


def test_unreadable_image_can_be_skipped(caplog):
    whole = take(Images(6), 6)
    with stream(Images(6, broken=(4,)), on_error="skip") as batches:
        seen = [next(batches) for _ in range(6)]
        report = batches.report()
    assert report.skips == 4 and list(report.skipped) == ["p4"]
    assert "truncated JPEG" in report.skipped["p4"]
    assert (
        caplog.text.count("Skipped p4: truncated") == 1
    )  # in the log once, in the report every time
    bad = column(seen, "index") == 4
    np.testing.assert_array_equal(column(seen, "real"), ~bad)
    assert (column(seen, "images")[bad] == MEAN).all() and not column(seen, "valid")[bad].any()
    for name in set(Batch._fields) - {"masks"}:  # nothing else moves
        np.testing.assert_array_equal(column(seen, name)[~bad], column(whole, name)[~bad])


def test_what_was_left_out_is_listed_at_the_end_of_each_epoch(caplog):
    with stream(Images(6, broken=(4,)), on_error="skip") as batches:
        for _ in range(4):
            next(batches)
    ends = [r.getMessage() for r in caplog.records if "end of epoch" in r.getMessage()]
    assert ends and "(p4)" in ends[0] and "end of epoch 1" in ends[0]


def test_skipped_image_is_left_out_of_the_evaluation():
    (batch,) = evaluate(Images(4, broken=(2,)), on_error="skip")
    assert batch.real.tolist() == [True, True, False, True]
    assert batch.index.tolist() == [0, 1, 2, 3]


class BrokenLabels(Images):
    def __getitem__(self, index):
        if index == 1:
            raise DataError("labels/1.xml: not well-formed")
        return super().__getitem__(index)


def test_unreadable_labels_count_like_unreadable_images():
    with pytest.raises(DataError, match=r"1\.xml"):
        evaluate(BrokenLabels(4))
    with eval_batches(BrokenLabels(4), resize=Warp(8), batch_size=4, on_error="skip") as batches:
        assert next(batches).real.tolist() == [True, False, True, True]
        assert batches.report().skipped == {
            "image 1 of BrokenLabels": "labels/1.xml: not well-formed"
        }


def test_file_names_appear_in_errors(tmp_path):
    class Files(Images):
        def __getitem__(self, index):
            return super().__getitem__(index)._replace(image=str(tmp_path / f"{index}.jpg"))

    with pytest.raises(DataError, match=r"0\.jpg: cannot be read"):
        evaluate(Files(2))


class Sizes(Images):
    """As label files say them; image 1 was turned after it was labelled, 2 was made smaller."""

    def image_size(self, index):
        return [(56, 64), (65, 56), (112, 132)][index]


def test_images_that_disagree_with_their_labels(tmp_path):
    for index, words in (
        (1, "65x56 .*say 56x65; an EXIF tag"),
        (2, "66x56 .*say 132x112; put back"),
    ):
        source = Sizes(3)
        source.image_size = lambda i, index=index: Sizes(3).image_size(i) if i == index else None
        with pytest.raises(DataError, match=f"p{index}: the image is {words}"):
            evaluate(source)
    with eval_batches(Sizes(3), resize=Warp(8), batch_size=3, on_error="skip") as batches:
        assert next(batches).real.tolist() == [True, False, False]
        assert sorted(batches.report().skipped) == ["p1", "p2"]


def test_sizes_of_images_in_memory_are_not_asked_for():
    class Drawn(Images):
        def image_size(self, index):
            raise AssertionError("drawing it again costs as much as the image")

        def __getitem__(self, index):
            return super().__getitem__(index)._replace(image=np.zeros((9, 9, 3), np.uint8))

    evaluate(Drawn(2))


def test_more_objects_than_rows(caplog):
    """The largest stay, in their order; the rest is counted, and said once."""
    source, options = Images(6, crowded=2), SSDAugment(**PLAIN)
    with stream(source, max_boxes=3, augment=options, batch_size=6) as batches:
        seen = [next(batches) for _ in range(3)]
        assert batches.report() == ({}, 0, 3, 12)
    assert caplog.text.count("p2 has 4 objects more than data.max_boxes") == 1
    example = source[2]
    largest = np.sort(np.argsort(-example.areas, kind="stable")[:3])
    for batch in seen:
        (row,) = np.flatnonzero(batch.index == 2)
        assert batch.valid[row].all()
        np.testing.assert_array_equal(batch.labels[row], example.labels[largest])
    with eval_batches(source, resize=Warp(8), batch_size=6) as batches:
        next(batches)
        assert batches.report().dropped_boxes == 0  # none were asked for


def test_images_without_objects_are_kept():
    batches = take(Images(4, empty=True), 2)
    assert np.unique(column(batches, "index")).size == 4
    assert column(batches, "real").all() and not column(batches, "valid").any()


# ------------------------------------------------------------------ arguments and closing


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"on_error": "ignore"}, "config.data.on_error='ignore'"),
        ({"batch_size": 5, "process_count": 2}, "batch_size=5.*multiple of the 2"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"process_index": 1}, "process_index"),
        ({"max_boxes": 0}, "data.max_boxes"),
        ({"start": -1}, "start"),
        ({"workers": -1}, "data.workers"),
    ],
    ids=lambda value: None if isinstance(value, str) else next(iter(value)),
)
def test_arguments_that_cannot_be(changes, words):
    with pytest.raises(ConfigError, match=words):
        stream(Images(4), **changes)


def test_empty_source():
    for make in (stream, evaluate):
        with pytest.raises(DataError, match="Images: the data set holds no images"):
            make(Images(0))


def test_closing_ends_the_stream_and_its_threads():
    before = threading.active_count()
    with stream(Images(4), threads=3) as batches:
        next(batches)
        assert batches.length is None
    batches.close()
    assert list(batches) == []
    end = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() == before
