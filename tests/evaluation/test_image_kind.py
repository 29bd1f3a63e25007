"""Images that are not what a run was trained on are refused, with what to do."""

from types import SimpleNamespace

import numpy as np
import pytest

from jdet import build, predict
from jdet.config import get_defaults, image_kind, set_found, trained_range, validate
from jdet.evaluation.image_kind import ImageCheck, check, of_run
from jdet.types import ConfigError, DataError, ImageKind
from tests.data.readers.files import by_opencv, coco, npy, tiff, values

SPAN = {"uint8": 0.0, "uint16": 2000.0, "float32": 5e-4}
TRAINED = {
    "rgb": ImageKind(),
    "gray": ImageKind(1, "gray"),
    "12 bits": ImageKind(1, "gray", "uint16", (0.0, 4095.0)),
    "16 bits": ImageKind(3, "rgb", "uint16", (0.0, 65535.0)),
    "bands": ImageKind(5, "bands", "float32", (0.25, 0.251)),
}


def config_of(kind):
    c = get_defaults()
    c.data.image.channels = "auto"
    set_found(c, kind, SPAN[kind.dtype], "")
    return c


def image_of(kind):
    rng = np.random.default_rng(0)
    low, high = kind.value_range
    return rng.uniform(low, high, (16, 16, kind.channels)).astype(kind.dtype)


def encoded(image):
    return by_opencv(".png", image) if image.dtype != np.float32 else npy(image)


@pytest.mark.parametrize("given", TRAINED)
@pytest.mark.parametrize("trained", TRAINED)
def test_each_combination(trained, given):
    c = config_of(TRAINED[trained])
    validate(c)
    assert image_kind(c) == TRAINED[trained]
    image, images = image_of(TRAINED[given]), ImageCheck(c)
    if trained == given:
        images.check(image, "x")
        np.testing.assert_array_equal(images.read(encoded(image), "x"), image)
        return
    with pytest.raises(DataError, match="image 'x' .*train again"):
        images.check(image, "x")
    ours, theirs = TRAINED[trained], TRAINED[given]
    if ours.dtype == theirs.dtype and (ours.colour, theirs.colour) == ("rgb", "gray"):
        # As in training: three equal channels.
        np.testing.assert_array_equal(images.read(encoded(image), "x"), np.repeat(image, 3, 2))
        return
    with pytest.raises(DataError, match="x: .*the training's were .*; give it as .*train again"):
        images.read(encoded(image), "x")


@pytest.mark.parametrize(
    "trained, image, words",
    [
        ("12 bits", np.uint16([[[0], [65535]]]), "far outside those of training, 0 … 4095"),
        ("16 bits", np.uint16([[[0] * 3, [150] * 3]]), "differ by less than a tenth"),
        ("bands", np.float32([[[0.0] * 5, [255.0] * 5]]), "far outside those of training"),
        ("bands", np.float32([[[-1.0] * 5, [0.25] * 5]]), "far outside those of training"),
        ("bands", np.float32([[[0.25] * 5, [0.25001] * 5]]), "differ by less than a tenth"),
    ],
)
def test_values_of_another_range_are_refused(trained, image, words):
    images = ImageCheck(config_of(TRAINED[trained]))
    assert images.decoder.kind.dtype == image.dtype
    with pytest.raises(
        DataError, match=f"image 'x' has values .*{words}.*; give images in the unit"
    ):
        images.check(image, "x")


@pytest.mark.parametrize(
    "trained, image",
    [
        ("12 bits", np.uint16([[[700], [5000]]])),  # a little brighter
        ("12 bits", np.uint16([[[700], [700]]])),  # blank
        ("bands", np.full((2, 2, 5), np.nan, np.float32)),
        ("rgb", np.zeros((2, 2, 3), np.uint8)),
    ],
)
def test_what_an_image_of_training_could_be_is_taken(trained, image):
    ImageCheck(config_of(TRAINED[trained])).check(image, "x")


@pytest.mark.parametrize("trained", ["12 bits", "bands"])
def test_single_saturated_pixels_are_taken(trained):
    image = np.tile(image_of(TRAINED[trained]), (8, 8, 1))
    image[0, 0] = image[5, 9] = 65535
    ImageCheck(config_of(TRAINED[trained])).check(image, "x")


def test_prediction_puts_the_files_of_an_image_together(tmp_path):
    kind = ImageKind(2, "bands", "uint16", (0.0, 65535.0))
    c = config_of(kind)
    c.data.image.found.files = "{stem}_w1.png + {stem}_w2.png"
    first, second = values("uint16", 1, 1), values("uint16", 1, 2)
    for name, array in (("a_w1", first), ("a_w2", second), ("b_w2", second)):
        (tmp_path / f"{name}.png").write_bytes(by_opencv(".png", array))
    predictor = SimpleNamespace(images=ImageCheck(c), prepare=lambda image, name: name)
    failed = {}
    files = predict._files(predictor, [tmp_path])
    read = list(predict._read_ahead(files, predictor, 4, lambda n, e: failed.update({n: str(e)})))
    ((_, image, name),) = read
    assert name == "a_w1.png"
    np.testing.assert_array_equal(image, np.concatenate([first, second], axis=2))
    assert list(failed) == ["b_w2.png"] and "b_w1.png: cannot be read" in failed["b_w2.png"]


def test_a_set_for_evaluation_must_be_like_that_of_training(tmp_path):
    bands = tiff(np.moveaxis(values("float32", 5), 2, 0), photometric="minisblack")
    source = coco(tmp_path, {"a.tif": bands})
    check(config_of(source.image_kind), source, "eval data")
    with pytest.raises(DataError, match=r"eval data: its images are float32 \[H, W, 5\], those of"):
        check(config_of(ImageKind()), source, "eval data")
    other = config_of(source.image_kind._replace(value_range=(0.0, 1e-3)))
    with pytest.raises(DataError, match="eval data: its images have values .* far outside"):
        check(other, source, "eval data")


def test_a_range_that_is_narrower_than_the_data_refuses_none_of_them(tmp_path):
    """What training saw may be evaluated and predicted, whatever range the config names."""
    array = (values("uint16", 1) // 8).astype(np.uint16)
    source = coco(tmp_path, {"a.npy": npy(array)}, value_range=(0.0, 100.0))
    c = get_defaults()
    c.data.image.channels, c.data.image.value_range = "auto", (0.0, 100.0)
    build.look_at_images(c, source)
    assert image_kind(c).value_range == (0, 100) and trained_range(c)[1] > 8000
    check(c, source, "eval data")
    ImageCheck(c).check(array, "x")
    with pytest.raises(DataError, match="far outside those of training"):
        ImageCheck(c).check(array * 7, "x")


def test_a_config_for_evaluation_takes_over_what_was_trained_on():
    trained, config = config_of(TRAINED["12 bits"]), get_defaults()
    with pytest.raises(
        ConfigError, match="channels='rgb' .trained with 'auto'.; set these as the run"
    ):
        of_run(config, trained, "runs/x")
    config.data.image.channels = "auto"
    found = of_run(config, trained, "runs/x")
    assert image_kind(found) == TRAINED["12 bits"] and not config.data.image.found.channels


def test_channels_that_only_the_data_say():
    c = get_defaults()
    c.data.image.channels = "auto"
    with pytest.raises(ConfigError, match="--config.data.image.channels=3"):
        image_kind(c)
    c.data.image.channels, c.data.image.dtype = "7", "uint16"
    assert image_kind(c) == ImageKind(7, "bands", "uint16", (0.0, 65535.0))


@pytest.mark.parametrize(
    "key, value",
    [
        ("channels", "grey"),
        ("channels", "0"),
        ("dtype", "int8"),
        ("bands", (1, 1)),
        ("bands", (-1,)),
        ("value_range", (3.0, 1.0)),
        ("palette", "colors"),
        ("alpha", "keep"),
        ("files", "a.png"),
    ],
)
def test_settings_that_are_none(key, value):
    c = get_defaults()
    c.data.image[key] = value
    with pytest.raises(ConfigError, match=f"config.data.image.{key}="):
        validate(c)
