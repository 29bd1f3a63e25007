"""Training batches: layout, alignment of labels, determinism, resumption, workers and processes."""

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

from jdet.data.pipeline import _seed
from jdet.data.transforms.augment import Augment
from jdet.data.transforms.ssd import SSDAugment
from jdet.data.transforms.warp import Warp
from jdet.types import Batch, ConfigError, DataError
from tests.data.images import (
    COLOURS,
    PLAIN,
    TURNED,
    Images,
    assert_equal,
    column,
    evaluate,
    stream,
    take,
    warped,
)
from tests.harness import child_environment

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


def test_an_image_looks_different_in_every_epoch():
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
        from tests.data import images as t

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
