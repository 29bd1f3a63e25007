import jax
import jax.numpy as jnp
import pytest

from jdet.necks.dense_prediction import DensePrediction
from jdet.necks.ssd_extras import BottleneckExtras, ResidualExtras, SSDExtras

TAPS = ("c3", "c4")
NECKS = [
    SSDExtras(TAPS, width=0.25),
    SSDExtras(TAPS, width=0.25, channels=(64, 32), norm_first=True),
    SSDExtras(TAPS, width=0.25, pool_last=True),
    *(ResidualExtras(TAPS, width=0.25, release=r) for r in ("", "caffe", "mmdetection")),
    ResidualExtras(TAPS, width=0.25, block="preact", tap="branch"),
    BottleneckExtras(TAPS, width=0.25),
]


def levels_of(neck, size, **extra):
    stages = {"c3": jnp.zeros((1, 2 * size, 2 * size, 8)), "c4": jnp.zeros((1, size, size, 16))}
    stages |= extra
    return jax.eval_shape(lambda: neck.init_with_output(jax.random.key(0), stages, train=False)[0])


@pytest.mark.parametrize("neck", NECKS, ids=lambda n: f"{type(n).__name__}")
@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 19])
def test_promised_sizes_are_made(neck, size):
    made = [level.shape[1] for level in levels_of(neck, size)]
    assert made == [2 * size, size, *neck.extra_sizes(size)]


@pytest.mark.parametrize("design", [19, 32])
@pytest.mark.parametrize(
    "neck", [*NECKS, DensePrediction(TAPS, width=0.25)], ids=lambda n: f"{type(n).__name__}"
)
def test_layers_of_the_design_serve_other_sizes(neck, design):
    """With the weights made for the design; smaller maps lose coarse levels, none becomes empty."""
    neck = neck.clone(design_cells=design)

    def stages(size):
        shapes = {"c3": (1, 2 * size, 2 * size, 8), "c4": (1, size, size, 16)}
        return {k: jax.ShapeDtypeStruct(shape, jnp.float32) for k, shape in shapes.items()}

    key = jax.random.key(0)
    variables = jax.eval_shape(lambda x: neck.init(key, x, train=False), stages(design))
    whole, counts = 2 + len(neck.extra_sizes(design)), []
    for size in (1, 2, 3, 7, 12, design, 42):
        levels = jax.eval_shape(lambda v, x: neck.apply(v, x, train=False), variables, stages(size))
        assert all(min(level.shape) > 0 for level in levels)
        counts.append(len(levels))
    assert counts == sorted(counts) and counts[0] >= 2 and counts[-2:] == [whole, whole]


@pytest.mark.parametrize(
    "neck, size, sizes",
    [
        (SSDExtras(TAPS), 19, [10, 5, 3, 1]),
        (SSDExtras(TAPS), 32, [16, 8, 4, 2, 1]),
        (SSDExtras(TAPS, pool_last=True), 19, [10, 5, 3, 1]),
        (ResidualExtras(TAPS), 19, [10, 5, 3, 1]),
        (ResidualExtras(TAPS, release="caffe"), 19, [10, 5, 5, 5]),
        (ResidualExtras(TAPS, release="mmdetection"), 19, [10, 5, 3, 3]),
        (ResidualExtras(TAPS, release="mmdetection"), 32, [16, 8, 4, 2, 1]),
        (BottleneckExtras(TAPS), 20, [10, 5, 3, 1]),
    ],
)
def test_published_sizes(neck, size, sizes):
    assert neck.extra_sizes(size) == sizes


def test_channels():
    def channels(neck, size=19):
        return [level.shape[3] for level in levels_of(neck, size)]

    assert channels(SSDExtras(TAPS)) == [8, 16, 512, 256, 256, 256]
    assert channels(SSDExtras(TAPS, channels=(512,), pool_last=True)) == [8, 16, 512, 512, 512, 512]
    assert channels(ResidualExtras(TAPS)) == [8, 16, 128, 128, 128, 128]
    assert channels(BottleneckExtras(TAPS), 20) == [1024] * 6
    plain = BottleneckExtras(TAPS, prediction_module=False)
    assert channels(plain, 20) == [8, 16, 1024, 1024, 1024, 1024]


def test_pooled_level_is_the_average_of_the_one_below():
    neck = SSDExtras(TAPS, width=0.25, pool_last=True)
    x = jax.random.normal(jax.random.key(0), (1, 6, 6, 4))
    stages = {"c3": x, "c4": x[:, ::2, ::2]}
    levels, _ = neck.init_with_output(jax.random.key(1), stages, train=False)
    assert jnp.allclose(levels[-1][0, 0, 0], levels[-2].mean((0, 1, 2)), atol=1e-6)


def test_extras_go_on_from_the_end_of_the_backbone():
    """Where taps are branches, the map the extras grow from is another than the last level."""
    neck = ResidualExtras(TAPS, width=0.25, block="preact", tap="branch")
    x = jax.random.normal(jax.random.key(0), (1, 8, 8, 4))
    stages = {"c3": x, "c4": x[:, ::2, ::2], "end": 2 * x[:, ::2, ::2]}
    levels, variables = neck.init_with_output(jax.random.key(1), stages, train=False)
    assert (levels[1] == stages["c4"]).all()
    other = neck.apply(variables, {**stages, "c4": stages["c4"] + 1}, train=False)
    assert (other[2] == levels[2]).all()
    other = neck.apply(variables, {**stages, "end": stages["end"] + 1}, train=False)
    assert (other[2] != levels[2]).any()


def test_unknown_variants_are_named():
    with pytest.raises(ValueError, match="model.neck.release='paper'.*mmdetection"):
        ResidualExtras(TAPS, release="paper")
