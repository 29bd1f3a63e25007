"""From ``config.data.normalise`` to the constants of a detector and the values of the input pipeline."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from jdet import build
from jdet import config as config_lib
from jdet.build import limits, normalise
from jdet.config import get_defaults, set_found, validate
from jdet.data.pipeline import eval_batches, train_batches
from jdet.data.statistics import ImageStatistics
from jdet.data.transforms.augment import Augment
from jdet.data.transforms.intensity_augment import IntensityAugment
from jdet.data.transforms.warp import Warp
from jdet.evaluation.display import Display
from jdet.evaluation.image_kind import of_run
from jdet.types import ConfigError, DataError, ImageKind
from tests.data.test_statistics import Arrays, made

KINDS = {
    "uint8": ImageKind(),
    "uint16": ImageKind(2, "bands", "uint16", (0.0, 65_535.0)),
    "float32": ImageKind(5, "bands", "float32", (0.25, 0.26)),
}


def source_of(dtype, images=None):
    kind = KINDS[dtype]
    source = Arrays(made(dtype, channels=kind.channels) if images is None else images)
    source.image_kind = kind
    return source


def config_of(kind, by="data", **values):
    c = get_defaults()
    c.input_size = 32
    c.model = build.group("detector", "tests.own_detector:GridDetector")
    c.data.normalise.by = by
    for key, value in values.items():
        c.data.normalise[key] = value
    set_found(c, kind, 0.0, "")
    validate(c)
    return c


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.parametrize("dtype", KINDS)
def test_constants_of_the_data_make_the_training_set_normal(dtype):
    """Mean 0 and standard deviation 1 of what the network gets, by channel, in float32."""
    source = source_of(dtype)
    c = config_of(source.image_kind)
    assert normalise.open_ended(c)
    found = normalise.settle(c, source)
    assert found.images == 9 and not normalise.open_ended(c)
    detector = build.detector(c, ("a",))
    values = [np.asarray(detector.normalised(jnp.asarray(image)[None])) for image in source.images]
    values = np.concatenate([x.reshape(-1, x.shape[-1]) for x in values]).astype(np.float64)
    assert values.shape[1] == source.image_kind.channels
    np.testing.assert_allclose(values.mean(0), 0, atol=2e-3)
    np.testing.assert_allclose(values.std(0), 1, atol=2e-3)
    assert normalise.settle(c, source) is None  # what is known is not measured again
    low, high = np.array(c.data.normalise.low), np.array(c.data.normalise.high)
    pixels = np.concatenate([i.reshape(-1, len(low)) for i in source.images])
    inside = ((pixels >= low) & (pixels <= high)).mean(0)
    assert (inside > 0.99).all() and (low < high).all()


def test_one_process_measures_for_all():
    source = source_of("uint16")
    measured = config_of(source.image_kind)
    found = normalise.settle(measured, source)
    other = config_of(source.image_kind)
    assert normalise.settle(other, source, once=lambda action: found) is found
    assert other.to_json() == measured.to_json()


def test_constants_measured_otherwise_are_not_taken_over():
    source = source_of("uint16")
    stored = config_of(source.image_kind)
    normalise.settle(stored, source)
    for by, ends, invalid in (("range", (0.0, 1.0), None), ("data", (), 3.0)):
        c = config_of(source.image_kind, by, range=ends)
        c.data.image.invalid = invalid
        normalise.adopt(c, stored)
        assert normalise.open_ended(c)


@pytest.mark.parametrize("mean, kept", [((0.0, 0.0, 0.0), True), (None, False)])
def test_a_colour_of_ones_own_stays_beside_constants_of_a_run(mean, kept):
    source = source_of("uint8")
    stored = config_of(source.image_kind)
    c = stored.copy_and_resolve_references()
    normalise.settle(stored, source)
    if mean:
        c.augment.mean = mean
    normalise.adopt(c, stored)
    assert c.model.mean == stored.model.mean
    assert (tuple(c.augment.mean) == mean) if kept else (c.augment.mean == stored.augment.mean)


def test_a_range_becomes_minus_one_to_one_and_what_leaves_it_is_counted():
    source = source_of("uint16")
    c = config_of(source.image_kind, "range", range=(30_000.0, 32_000.0))
    found = normalise.settle(c, source)
    assert sum(found.outside) == sum(int((i > 32_000).sum()) for i in source.images) > 0
    detector = build.detector(c, ("a",))
    ends = jnp.asarray([[[[30_000, 32_000], [31_000, 33_000]]]], jnp.uint16)
    expected = [[[[-1, 1], [0, 2]]]]
    np.testing.assert_allclose(detector.normalised(ends), expected, atol=1e-6)
    values = normalise.image_values(c, source.image_kind)
    assert (values.low, values.high, values.neutral) == ((3e4,) * 2, (32e3,) * 2, (31e3,) * 2)
    assert any("lie outside the range" in line for line in found.warnings())


def test_constants_stay_and_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(normalise, "measure", lambda *_, **__: pytest.fail("measured"))
    c = config_of(ImageKind(), "constants")
    before = c.to_json()
    assert normalise.settle(c, source_of("uint8")) is None and c.to_json() == before
    assert normalise.image_values(c, ImageKind()).neutral == (127.5,) * 3


def test_the_colour_beside_8_bit_images_follows_the_data_unless_it_is_given():
    source = source_of("uint8")
    c = config_of(source.image_kind)
    normalise.settle(c, source)
    assert tuple(c.augment.mean) == tuple(c.model.mean) != Augment.mean
    c = config_of(source.image_kind)
    c.augment.mean = (1.0, 2.0, 3.0)
    normalise.settle(c, source)
    assert tuple(c.augment.mean) == (1.0, 2.0, 3.0)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_beside_images_and_instead_of_invalid_values_lies_what_is_neutral(dtype):
    """Zoomed out to the largest canvas; what the network sees there is zero."""
    images = made(dtype, channels=KINDS[dtype].channels)
    mark = 0 if dtype == "uint16" else np.nan
    for image in images:
        image[2:9, 3:12] = mark
    source = source_of(dtype, images)
    c = config_of(source.image_kind)
    c.data.image.invalid = 0.0 if dtype == "uint16" else None
    found = normalise.settle(c, source)
    assert found.invalid == (9 * 7 * 9,) * len(found.mean)
    values = normalise.image_values(c, source.image_kind)
    augment = IntensityAugment(
        photometric=0.0, expand=1.0, crop=False, flip=0.0, interpolation="nearest"
    )
    detector = build.detector(c, ("a",))
    with train_batches(
        source,
        resize=Warp(32),
        augment=augment,
        max_boxes=1,
        batch_size=9,
        seed=0,
        values=values,
        threads=0,
    ) as stream:
        batch = next(stream)
    assert batch.images.dtype == dtype and batch.images.shape == (9, 32, 32, len(found.mean))
    seen = np.asarray(detector.normalised(jnp.asarray(batch.images)))
    assert np.isfinite(seen).all()
    step = (
        0.5 / min(found.std) if dtype == "uint16" else 1e-3
    )  # the mean is rounded to whole numbers
    assert (np.abs(seen).max(-1) <= step).mean() > 0.3  # canvas and holes
    with eval_batches(source, resize=Warp(32), batch_size=9, values=values, threads=0) as stream:
        batch = next(stream)
    seen = np.asarray(detector.normalised(jnp.asarray(batch.images)))
    assert np.isfinite(seen).all() and np.abs(seen).max() < 12


def test_a_model_is_laid_out_before_its_data_are_measured():
    c = config_of(KINDS["float32"])
    detector = build.detector(c, ("a",))
    assert len(detector.mean) == len(detector.std) == 5
    c.data.normalise.by = "constants"
    with pytest.raises(ConfigError, match="--config.data.normalise.by=data"):
        build.detector(c, ("a",))


def test_evaluation_takes_the_constants_of_the_run(monkeypatch, tmp_path):
    source = source_of("uint16")
    trained = config_of(source.image_kind)
    normalise.settle(trained, source)
    monkeypatch.setattr(normalise, "measure", lambda *_, **__: pytest.fail("measured"))
    own = of_run(config_of(source.image_kind), trained, tmp_path)
    for key in normalise.RESULTS:
        group, _, last = key.rpartition(".")
        holder, was = own, trained
        for part in group.split("."):
            holder, was = holder[part], was[part]
        assert holder[last] == was[last]
    (tmp_path / "config.json").write_text(trained.to_json())
    opened = config_lib.load(tmp_path / "config.json")
    assert opened.model.mean == trained.model.mean and not normalise.open_ended(opened)
    other = config_of(source.image_kind, "range", range=(0.0, 1.0))
    with pytest.raises(ConfigError, match=r"normalise.by='range' \(trained with 'data'\)"):
        of_run(other, trained, tmp_path)
    other = config_of(source.image_kind)
    other.data.image.invalid = 3.0
    with pytest.raises(ConfigError, match=r"data.image.invalid=3.0 \(trained with None\)"):
        of_run(other, trained, tmp_path)


def test_sets_from_which_nothing_can_be_learnt_are_refused():
    kind = KINDS["uint16"]
    flat = source_of("uint16", [np.full((4, 4, 2), 5, np.uint16)] * 3)
    with pytest.raises(DataError, match="train data: all values of all 3 images are equal, 5, 5"):
        normalise.settle(config_of(kind), flat)
    c = config_of(kind)
    c.data.image.invalid = 5.0
    with pytest.raises(
        DataError,
        match="none of the 3 images has a valid value.*leave config.data.image.invalid out",
    ):
        normalise.settle(c, flat)


@pytest.mark.parametrize(
    "by, given, message",
    [
        ("range", (), "two rising numbers"),
        ("range", (5.0, 5.0), "two rising numbers"),
        ("range", (0.0, float("nan")), "two rising numbers"),
        ("data", (0.0, 1.0), "set that to 'range'"),
        ("dat", (), "did you mean 'data'"),
    ],
)
def test_invalid_settings_are_refused(by, given, message):
    with pytest.raises(ConfigError, match=f"config.data.normalise.*{message}"):
        config_of(ImageKind(), by, range=given)


def test_what_holds_is_told():
    c = config_of(KINDS["uint16"])
    assert (
        "by what is measured on the training images as training begins"
        in normalise.describe(c, KINDS["uint16"])[0]
    )
    normalise.settle(c, source_of("uint16"))
    c.data.image.invalid = 0.0
    (line,) = normalise.describe(c, KINDS["uint16"])
    assert f"{c.model.mean[1]:.6g}" in line and "the value 0 stands for nothing measured" in line
    c = config_of(ImageKind(), "constants")
    (line,) = normalise.describe(c, ImageKind())
    assert line.startswith("values are normalised by constants of the config (mean 127.5")
    wrong = normalise.describe(c, KINDS["float32"])
    assert "do not belong to images with values 0.25 … 0.26" in wrong[1]
    assert (
        "the range -1000 … 400 becomes -1 … 1"
        in normalise.describe(config_of(ImageKind(), "range", range=(-1000.0, 400.0)), ImageKind())[
            0
        ]
    )


def test_memory_of_objects_and_of_matching():
    c = get_defaults()
    c.model = build.group(
        "detector",
        "ssd",
        backbone=build.group("backbone", "root_resnet", depth=18, width=0.125),
        neck=build.group("neck", "residual_extras", width=0.125),
    )
    set_found(c, ImageKind(), 0.0, "")
    detector = build.detector(c, ("a",))
    c.data.max_boxes, c.train.batch_size, c.train.accumulation = 4096, 16, 2
    objects, overlaps = limits.object_memory(c, detector)
    anchors = sum(level.boxes for level in detector.anchors((300, 300)))
    assert (objects, overlaps) == (8 * 4096 * 22, 8 * 4096 * anchors * 4)
    assert "up to 4096 objects an image" in limits.describe(c, detector)
    assert "GiB" in limits.describe(c, detector)


def test_bands_for_people_are_checked():
    c = config_of(KINDS["float32"])
    c.eval.drawn_bands = (4, 1, 0)
    assert Display.of(c, KINDS["float32"]).bands == (4, 1, 0)
    with pytest.raises(ConfigError, match="drawn_bands"):
        Display.of(c, KINDS["uint16"])


def test_statistics_survive_json():
    found = normalise.measured(config_of(KINDS["uint8"]), source_of("uint8"))
    assert ImageStatistics.from_json(json.loads(json.dumps(found._asdict()))) == found
