"""TFDS: a tiny builder is prepared without TensorFlow and read back."""

import pickle
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

tfds = pytest.importorskip("tensorflow_datasets", reason="the extra `tfds` is not installed")

from jdet.data.sources.tfds import TfdsSource, yxyx_to_xyxy  # noqa: E402
from jdet.types import DataError, Source  # noqa: E402

SIZES = [(20, 30), (24, 32), (30, 20)]


def make_image(index):
    height, width = SIZES[index]
    return np.random.default_rng(index).integers(0, 255, (height, width, 3), np.uint8)


def objects(index):
    boxes = [(0.1, 0.2, 0.5, 0.6), (0.0, 0.0, 1.0, 1.0), (0.5, 0.5, 0.5, 0.9)][:index]
    return [
        {
            "bbox": tfds.features.BBox(*box),
            "label": ("cat", "dog")[i % 2],
            "is_difficult": i == 1,
            "is_truncated": True,
        }
        for i, box in enumerate(boxes)
    ]


class TinyPets(tfds.core.GeneratorBasedBuilder):
    """Three images with 0, 1 and 2 objects, the first one of 3 in ``test`` is degenerate."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(encoding_format="png"),
                "image/filename": tfds.features.Text(),
                "labels": tfds.features.Sequence(tfds.features.ClassLabel(num_classes=2)),
                "objects": tfds.features.Sequence(
                    {
                        "bbox": tfds.features.BBoxFeature(),
                        "label": tfds.features.ClassLabel(names=["cat", "dog"]),
                        "is_difficult": np.bool_,
                        "is_truncated": np.bool_,
                    }
                ),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, manager):
        return {"train": self._generate_examples([0, 1, 2]), "test": self._generate_examples([3])}

    def _generate_examples(self, counts):
        for count in counts:
            data = cv2.imencode(".png", make_image(count % 3)[..., ::-1])[1].tobytes()
            name = f"img_{count}.png"
            yield (
                name,
                {
                    "image": data,
                    "image/filename": name,
                    "labels": [],
                    "objects": objects(count),
                },
            )


class TinyNumbers(tfds.core.GeneratorBasedBuilder):
    """No objects: not a detection data set."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict({"image": tfds.features.Image(), "label": np.int64})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield 0, {"image": cv2.imencode(".png", make_image(0))[1].tobytes(), "label": 1}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    for builder in (TinyPets, TinyNumbers):
        builder(data_dir=root, file_format="array_record").download_and_prepare()
    assert "tensorflow" not in sys.modules
    return root


def by_id(source):
    return {source[i].id: i for i in range(len(source))}


def test_example(data_dir):
    source = TfdsSource("tiny_pets", "train", data_dir)
    assert isinstance(source, Source)
    assert source.class_names == ("cat", "dog") and len(source) == 3
    index = by_id(source)
    assert set(index) == {"img_0", "img_1", "img_2"}
    example = source[index["img_2"]]
    assert isinstance(example.image, bytes)
    decoded = cv2.imdecode(np.frombuffer(example.image, np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(decoded, make_image(2))
    height, width = SIZES[2]
    assert source.image_size(index["img_2"]) == (height, width)
    expected = [[0.2 * width, 0.1 * height, 0.6 * width, 0.5 * height], [0, 0, width, height]]
    np.testing.assert_allclose(example.boxes, expected, rtol=1e-6)
    assert example.labels.tolist() == [0, 1] and example.labels.dtype == np.int32
    assert example.ignore.tolist() == [False, True]
    np.testing.assert_allclose(example.areas, [0.16 * height * width, height * width], rtol=1e-5)
    assert source[index["img_0"]].boxes.shape == (0, 4)
    assert "3 images, 3 objects (cat 2, dog 1), 1 of them ignored" in source.describe()
    assert "tensorflow" not in sys.modules


def test_degenerate_boxes_are_listed(data_dir):
    source = TfdsSource("tiny_pets", "test", data_dir)
    assert len(source[0].boxes) == 2
    assert [(d.id, d.what) for d in source.defects] == [("img_3", "empty")]
    assert source.defects[0].detail == "cat 0.5, 0.5, 0.5, 0.9 in 30x20"


def test_pickled_source_reads_the_same(data_dir):
    source = TfdsSource("tiny_pets", "train", str(data_dir))
    copy = pickle.loads(pickle.dumps(source))
    for i in range(len(source)):
        assert copy[i].image == source[i].image and copy[i].id == source[i].id
        np.testing.assert_array_equal(copy[i].boxes, source[i].boxes)


def test_parts_of_splits_and_given_classes(data_dir):
    assert len(TfdsSource("tiny_pets:1.0.0", "train[:2]", data_dir)) == 2
    source = TfdsSource("tiny_pets", "train", data_dir, ("bird", "dog", "cat"))
    assert source[by_id(source)["img_2"]].labels.tolist() == [2, 1]
    with pytest.raises(DataError, match="record .*: class 'dog' is not in the list of 1 classes"):
        TfdsSource("tiny_pets", "train", data_dir, ("cat",))


def test_what_is_not_there(data_dir, tmp_path):
    with pytest.raises(
        DataError, match=r"is not in .*tfds build voc/2007 --file_format=array_record"
    ):
        TfdsSource("voc/2007", "train", data_dir)
    with pytest.raises(DataError, match="has no split 'valid'; there are train, test"):
        TfdsSource("tiny_pets", "valid", data_dir)
    with pytest.raises(
        DataError, match=r"needs the features `image` and `objects` .*has image, label"
    ):
        TfdsSource("tiny_numbers", "train", data_dir)


def test_records_without_random_access(data_dir, tmp_path):
    source = data_dir / "tiny_pets" / "1.0.0"
    target = tmp_path / "tiny_pets" / "1.0.0"
    target.mkdir(parents=True)
    for file in source.iterdir():
        text = file.read_bytes().replace(b'"array_record"', b'"tfrecord"')
        (target / file.name.replace("array_record", "tfrecord")).write_bytes(text)
    with pytest.raises(
        DataError, match="is stored as tfrecord, which has no random access. Prepare"
    ):
        TfdsSource("tiny_pets", "train", tmp_path)


def test_without_tensorflow_datasets(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(DataError, match=r"pip install --editable '.\[tfds\]'"):
        TfdsSource("tiny_pets", "train")


@given(
    st.lists(st.tuples(*[st.floats(0, 1, width=32)] * 4), max_size=5),
    st.integers(1, 4000),
    st.integers(1, 4000),
)
def test_boxes_scale_with_their_image(boxes, height, width):
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    top, left, bottom, right = boxes.T
    expected = np.stack([left * width, top * height, right * width, bottom * height], axis=1)
    np.testing.assert_allclose(yxyx_to_xyxy(boxes, (height, width)), expected, atol=1e-12)


def test_box_conversion_by_hand():
    box = yxyx_to_xyxy(np.array([0.25, 0.5, 0.75, 1.0]), (100, 200))
    assert box.tolist() == [100, 25, 200, 75]
