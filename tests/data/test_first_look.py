"""Sets of which little can be used end early, and turned images are upright wherever they are read."""

import io
import re

import cv2
import numpy as np
import pytest
from PIL import Image

from jdet import run
from jdet.data.first_look import first_look
from jdet.data.sources.annotations import Defect
from jdet.types import DataError
from tests.data.images import Images, assert_equal, evaluate, take
from tests.data.sources.test_voc import annotation_xml, object_xml
from tests.test_run_data import tiny, voc

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def look(source, min_usable=0.5, on_error="skip"):
    return first_look(source, "train data", on_error=on_error, min_usable=min_usable)


def test_good_images_are_passed_over():
    found = look(Images(100))
    assert (found.images, found.problems, found.turned) == (48, {}, 0) and not found.describe()
    assert look(Images(5)).images == 5


def test_some_bad_images_are_summed_up():
    (line,) = look(Images(10, broken=(2, 7))).describe()
    assert line.startswith(
        "2 of 10 images looked at cannot be used and are left out: p2: truncated"
    )


def test_none_can_be_used():
    with pytest.raises(DataError, match="train data: none .*p0: truncated JPEG.*; and 7 more$"):
        look(Images(10, broken=range(10)), min_usable=0.0)


def test_too_few_can_be_used_and_the_remedy():
    source = Images(8, broken=range(5))
    with pytest.raises(DataError, match=r"only 38% of its images can be used: p0.*and 2 more") as e:
        look(source)
    (least,) = re.findall(r"--config\.data\.min_usable=(\S+)$", str(e.value))
    assert len(look(source, float(least)).problems) == 5
    assert len(look(Images(8, broken=range(4))).problems) == 4  # half is enough


def test_images_that_the_labels_left_out_count():
    class Skipped(Images):
        defects = ()

    source = Skipped(4)
    source.defects = tuple(Defect(f"s{i}", "skipped", f"s{i}.xml: empty") for i in range(5))
    with pytest.raises(DataError, match=r"only 44% .*s0\.xml: empty"):
        look(source)


def test_a_bad_image_is_an_error_where_errors_are_wanted():
    with pytest.raises(DataError, match="p2: truncated JPEG"):
        look(Images(10, broken=(2,)), on_error="raise")


def spoil_files(root, c):
    for file in (root / "JPEGImages").iterdir():
        file.write_bytes(POINTER)


def exchange_sizes(root, c):
    for file in (root / "Annotations").iterdir():
        file.write_text(annotation_xml(object_xml(), size=(64, 50)))


@pytest.mark.parametrize(
    "spoil, words", [(spoil_files, "Git LFS"), (exchange_sizes, "width and height are exchanged")]
)
def test_a_run_ends_before_anything_is_compiled(tmp_path, spoil, words):
    c = tiny(voc(tmp_path))
    c.data.on_error = "skip"
    spoil(tmp_path, c)
    with pytest.raises(DataError, match=f"train data: none of its images can be used: .*{words}"):
        run.train(c, tmp_path / "run")
    assert not list(tmp_path.glob("run/checkpoints/*"))


class Turned(Images):
    """``Images`` stored upside down, with the EXIF tag that says so; labels are of the upright image."""

    def __getitem__(self, index):
        example = super().__getitem__(index)
        pixels = cv2.imdecode(np.frombuffer(example.image, np.uint8), cv2.IMREAD_COLOR_RGB)
        exif, data = Image.Exif(), io.BytesIO()
        exif[0x0112] = 3
        Image.fromarray(np.ascontiguousarray(pixels[::-1, ::-1])).save(data, "PNG", exif=exif)
        return example._replace(image=data.getvalue())


def test_turned_images_are_upright_in_training_and_evaluation():
    assert_equal(take(Turned(6), 3), take(Images(6), 3))
    assert_equal(evaluate(Turned(6)), evaluate(Images(6)))
    (line,) = look(Turned(6)).describe()
    assert line.startswith("6 of 6 images looked at have an EXIF orientation and are turned")
