"""Networks of ONNX files in half precision and in whole numbers, and their metrics."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet import build
from jdet.export import accuracy, export
from jdet.export.__main__ import main
from jdet.export.onnx import convert, model, precision, proto
from jdet.types import ConfigError, DataError, Example, ImageDetections

RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(3, 3, 4, 6)).astype(np.float32)
OUT = RNG.normal(size=(6, 5)).astype(np.float32)


def layers(x):
    """Two of them; what follows is post-processing."""
    numbers = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(x, WEIGHTS, (1, 1), "SAME", dimension_numbers=numbers)
    return {"out": jnp.exp(jax.nn.relu(x) @ OUT * 0.01)}


def written(how):
    spec = ("x", jax.ShapeDtypeStruct((1, 5, 5, 4), jnp.float32), (1, 5, 5, 4))
    return proto.model(convert.convert(layers, [], [spec], how), "test", {})


def test_half_precision_is_of_layers_alone():
    single, half = (written(precision.Precision(name)) for name in ("float32", "float16"))
    assert half.count(b"Cast") == 4 and b"Cast" not in single  # into and out of the layers
    assert WEIGHTS.size < len(single) - len(half) < 3 * WEIGHTS.size


def test_layers_with_a_range_are_of_bytes():
    watched = precision.Precision(observed={})
    assert written(watched).count(b"ReduceM") >= 4
    keys = {name.split()[0] for name in watched.observed}
    assert len(keys) == 2 and all(len(each) == 1 for each in watched.observed.values())
    for known in (1, 2):
        ranges = {key: (-3.0, 3.0) for key in sorted(keys)[:known]}
        data = written(precision.Precision("int8", ranges))
        assert data.count(b"DequantizeLinear") == 2 * known  # input and weights
        assert data.count(b"QuantizeLinear") == known


def test_bytes_are_near_what_they_stand_for():
    """Weights to half a step of their output, inputs within their range, and 0 exactly."""
    graph = convert.Graph(precision=precision.SINGLE)
    weights = np.stack([WEIGHTS[0, 0, 0], 100 * WEIGHTS[0, 0, 1]])
    precision._weights(graph, weights, 0)
    small = [np.rint(row / (np.abs(row).max() / 127)) for row in weights]
    named = [each.astype(np.int8).tobytes() for each in small]
    assert b"".join(named) in b"".join(graph._tensors.values())
    precision._by_bytes(graph, precision.Value((3,), "float32", name="x"), 1.0, 6.1)
    tensors = b"".join(graph._tensors.values())
    assert np.float32(6.1 / 255).tobytes() in tensors  # from 0 on, not from 1


def test_ranges_are_means_over_images_of_each_shape():
    """And of all levels to which a layer is applied."""

    class Resize:
        shapes = ((8, 8), (8, 16))

        def shape_of(self, height, width):
            return int(width > height)

    watched = []

    def graph_of(program, function, variables, constants, how):
        how.observed.update({"a ReduceMin": [], "a ReduceMax": []})
        watched.append(function.args[1])
        return proto.Graph(b"")

    def observe(data, images):
        for image in images:
            low, high = float(image.min()), float(image.max())
            yield {
                "a ReduceMin 0": low,
                "a ReduceMax 0": high,
                "a ReduceMin 1": -1.0,
                "a ReduceMax 1": 0,
            }

    images = [np.array([[0.0, 4.0]]), np.array([[2.0], [6.0]]), np.array([[0.0, 8.0]])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "_graph", graph_of)
        found = model.ranges(types.SimpleNamespace(resize=Resize()), {}, images, observe)
    assert found == {"a": (-1.0, 6.0)} and sorted(watched) == [(8, 8), (8, 16)]


class Found:
    """An evaluator: the share of images in which as much was found as there is."""

    def __init__(self, names):
        self.right = []

    def add(self, found, example):
        self.right.append(len(found.scores) == len(example.labels))

    def result(self):
        return {"right": float(np.mean(self.right)), "undefined": float("nan")}


@pytest.fixture
def run(monkeypatch):
    """A run of which four images are to be evaluated."""
    none = np.zeros((0, 4), np.float32)
    examples = [
        Example(str(i), "", none, none[:, 0].astype(np.int32), none[:, 0] > 0, none[:, 0])
        for i in range(4)
    ]

    class Source(list):
        class_names = ("a",)

    source = Source(examples)
    monkeypatch.setattr(build, "sources", lambda _: (source, source))
    monkeypatch.setattr(accuracy, "make_evaluators", lambda *_: [Found(())])
    metrics = types.SimpleNamespace(metrics=())
    images = types.SimpleNamespace(read=lambda *_: np.zeros((4, 4, 3), np.uint8), files="")
    config = types.SimpleNamespace(eval=metrics)
    return types.SimpleNamespace(config=config, images=images, tiling=None)


@pytest.mark.parametrize(("count", "right"), [(-1, 0.75), (4, 0.75), (2, 1.0), (9, 0.75)])
def test_metrics_are_of_the_images_asked_for(run, count, right):
    def detect(image, name):
        some = np.zeros(int(name == "3"), np.float32)
        return ImageDetections(name, np.zeros((len(some), 4)), some, some.astype(np.int32))

    assert accuracy.metrics(run, detect, accuracy.check(run), count) == {"right": right}
    assert accuracy.said({"a": 0.5}, {"a": 0.25}, "int8") == "float32 → int8: a 0.5000 → 0.2500"


def test_images_to_calibrate_on(run):
    assert [name for name, _ in accuracy.training_images(run, (), 2)] == ["0", "2"]


def test_images_that_are_not_here(run, monkeypatch):
    def lost(_):
        raise DataError("no such folder")

    monkeypatch.setattr(build, "sources", lost)
    with pytest.raises(ConfigError, match="no such folder.*--ap_images=0"):
        accuracy.check(run)
    with pytest.raises(ConfigError, match="no such folder.*--calibrate_on=PATH"):
        next(accuracy.training_images(run, (), 2))


@pytest.mark.parametrize(
    "more", ["--precision=int8", "--precision=float16 --format=both", "--calibrate=0"]
)
def test_what_cannot_be_asked_for(more, tmp_path):
    assert main(["run", f"--out={tmp_path / 'a'}", *more.split()]) == 2


def test_the_file_says_what_became_of_the_metrics(run, monkeypatch):
    """Before and after, through files whose thresholds let everything through."""
    made = []
    monkeypatch.setattr(export, "_onnx", lambda ready: made.append(ready) or (lambda told: b""))
    monkeypatch.setattr(accuracy, "metrics", lambda *_: {"ap": 0.5 - 0.1 * (len(made) > 1)})
    opened = types.SimpleNamespace(__enter__=None)
    form = export.FORMS["onnx"]._replace(opened=lambda *_: export.contextlib.nullcontext(opened))
    monkeypatch.setitem(export.FORMS, "onnx", form)
    said, run.variables = [], {}
    ready = export.Ready(run, None, np.array([0.3]), {"format": 1})
    ready = export._lowered(ready, "python", "float16", 4, (), -1, said.append)
    assert ready.precision.name == "float16" and ready.thresholds == [0.3]
    told = {"numbers": "float16", "before": {"ap": 0.5}, "after": {"ap": 0.4}}
    assert ready.manifest == {"format": 1, "precision": told}
    assert [each.thresholds.tolist() for each in made] == [[0.0], [0.0]]
    assert [each.precision.name for each in made] == ["float32", "float16"]
    assert said == ["float32 → float16: ap 0.5000 → 0.4000"]
