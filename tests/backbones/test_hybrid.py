"""Patterns of stages, the published sizes, and the same numbers as torchvision's Swin."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.backbones.hybrid import Hybrid, parse_spec
from jdet.backbones.swin import PatchEmbed, PatchMerging, SwinBlock
from jdet.build.table import HYBRIDS, resolve
from jdet.interop.torchvision import from_torchvision
from jdet.necks.bifpn import BiFPN
from jdet.necks.fpn import FPN
from tests import golden

PARAMETERS = {
    "swin_t": (27_520_698, 35_734_356, 44_916_202, 45_151_322, 109_741_154),
    "swin_s": (48_838_602, 57_052_260, 66_234_106, 66_469_226, 131_059_058),
    "swin_b": (86_745_016, 95_073_298, 104_386_216, 104_498_520, 169_088_352),
    "swin_l": (194_998_164, 203_555_694, 213_130_756, 212_997_428, 277_587_260),
    "c2c2t6t2": (26_453_240, 34_667_090, 43_848_936, 44_083_864, 108_673_696),
    "c2c2t12t4": (51_296_048, 59_509_898, 68_691_744, 68_926_672, 133_516_504),
    "c2t2t8t3": (37_971_092, 46_184_942, 55_366_788, 55_601_716, 120_191_548),
    "c2c2c14t5": (39_038_456, 47_252_306, 56_434_152, 56_669_080, 121_258_912),
    "c2c2c16c6": (6_706_880, 14_920_730, 24_102_576, 24_337_504, 88_927_336),
    "c2c2t36t4": (93_931_856, 102_145_706, 111_327_552, 111_562_480, 176_152_312),
    "c2c2t36t4_128": (166_837_760, 175_166_298, 184_479_216, 184_591_264, 249_181_096),
    "c2c2t36t4_192": (375_047_264, 383_605_178, 393_180_240, 393_046_528, 457_636_360),
}
"""Of the backbone with all its output norms; of FCOS and ATSS and of Swin's RepPointsV2, which take stages
c3 to c5; of Faster R-CNN and of Sparse R-CNN with 300 proposals, which take all. 80 classes."""

NECKS = (
    (1, functools.partial(FPN, extra="conv_p5"), 4_918_618),
    (1, BiFPN, 7_210_442),
    (0, functools.partial(FPN, extra="pool"), 593_935 + 14_306_705),
    (0, functools.partial(FPN, extra="none"), 6 * 13_235_412 + 300 * (4 + 256)),
)
"""First stage, neck, and parameters after it (RPN and box head; six heads and proposals), by detector."""

TINY = dict(channels=8, head_channels=8, window=2)


def shapes(model, size=32):
    x = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), x)
    return variables["params"]


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", HYBRIDS)
def test_published_parameters(name):
    """Blocks of a stage are alike but for the first, so two of each stage are made."""
    model = resolve("backbone", name)()
    stages = parse_spec(model.spec)
    shallow = "-".join(f"{kind}{min(depth, 2)}" for kind, depth in stages)
    params = shapes(model.clone(spec=shallow))
    total = count(params)
    for i, (_, depth) in enumerate(stages, start=1):
        total += (depth - min(depth, 2)) * count(params[f"stage{i}_block2"])
    backbone, *detectors = PARAMETERS[name]
    assert total == backbone
    dense = total - count(params.get("norm_c2", {}))
    for number, detector in enumerate(detectors):
        first, _, head = NECKS[number]
        neck = of_neck(number, model.stage_names[first:], tuple(model.widths()[first:]))
        assert (dense if first else total) + neck + head == detector


@functools.cache
def of_neck(number, taps, widths):
    """Parameters of a row of ``NECKS`` on stages of these widths."""
    maps = {
        tap: jax.ShapeDtypeStruct((1, 2, 2, width), jnp.float32)
        for tap, width in zip(taps, widths, strict=True)
    }
    neck = NECKS[number][1](taps)
    return count(
        jax.eval_shape(lambda x: neck.init(jax.random.key(0), x, train=False), maps)["params"]
    )


def test_resnet50_is_a_pattern():
    params = shapes(Hybrid(spec="C3-C4-C6-C3", channels=256))
    assert count(params) == 23_508_032
    assert not any("norm_c" in name for name in params)


def test_only_stages_that_are_taken_have_an_output_norm():
    model = Hybrid(spec="C1-T1-T1-T1", **TINY)
    assert {n for n in shapes(model) if n.startswith("norm_")} == {"norm_c3", "norm_c4", "norm_c5"}
    taken = shapes(model.clone(taps=("c4", "c5")))
    assert {n for n in taken if n.startswith("norm_")} == {"norm_c4", "norm_c5"}


def test_drop_path_rises_over_the_transformer_blocks():
    rates = Hybrid(spec="C2-C2-T12-T4", drop_path=0.3).drop_rates()
    assert rates[0] == rates[1] == [0.0, 0.0]
    line = rates[2] + rates[3]
    assert (line[0], line[-1]) == (0.0, 0.3)
    np.testing.assert_allclose(np.diff(line), 0.3 / 15)


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(spec="T2-T2-C6-C2"), "C stage after a T stage"),
        (dict(spec="C2-T2-T2"), "give four stages"),
        (dict(spec="C2-C2-T12-X4"), "give four stages"),
        (dict(spec="C2-C0-T12-T4"), "a stage of 0 blocks"),
        (dict(channels=100), "head_channels=32 does not divide the 400 channels"),
        (dict(c_width_mult=(1.0, 2.0)), "a factor for each of the four"),
        (dict(kernel_init="xavier"), "kernel_init='xavier'; it can be one of"),
        (dict(stem="inception"), "stem='inception'; it can be one of"),
        (dict(dense_links=True), "links T stages.*C stages after the first"),
    ],
)
def test_what_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Hybrid(**fields)


def test_width_of_convolutional_stages():
    model = Hybrid(spec="C2-C2-T12-T4", c_width_mult=(1.0, 2.0, 3.0, 1.0))
    assert model.widths() == [96, 384, 384, 768]  # T stages keep theirs


@pytest.mark.parametrize("name", ["he", "swin"])
def test_variants_have_the_scales_they_are_named_for(name):
    model = Hybrid(spec="T1-T1-T1-T1", channels=32, kernel_init=name)
    x = jnp.zeros((1, 32, 32, 3))

    @jax.jit  # of which the network itself is no part
    def initial(key):
        params = model.init(key, x, train=False)["params"]
        return params["stage4_block1"], params["stem"]["proj"]

    block, stem = jax.device_get(initial(jax.random.key(0, impl="rbg")))
    expected = {"he": (2 / 256) ** 0.5, "swin": 0.02}[name]
    for layer in (block["fc1"], block["attention"]["qkv"], block["attention"]["proj"]):
        assert layer["kernel"].std() == pytest.approx(expected, rel=0.02)
        assert not layer["bias"].any()
    table = block["attention"]["position_bias"]
    assert table.std() == pytest.approx(0.02, rel=0.1)
    expected = {"he": (2 / 48) ** 0.5, "swin": 48**-0.5 / 3**0.5}[name]
    assert stem["kernel"].std() == pytest.approx(expected, rel=0.1)
    assert stem["bias"].any() == (name == "swin")


def test_maps_that_do_not_divide_are_filled_with_zeros():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 5, 7, 3)), jnp.float32)
    for module, size in ((PatchEmbed(4), (8, 8)), (PatchMerging(4), (6, 8))):
        filled = jnp.zeros((1, *size, 3)).at[:, :5, :7].set(x)
        variables, run = jax.jit(module.init)(jax.random.key(0), x), jax.jit(module.apply)
        np.testing.assert_array_equal(run(variables, x), run(variables, filled))


class TwoStages(nn.Module):
    """What torchvision's fixture is of: two stages of two blocks, 24 channels, heads of 12."""

    @nn.compact
    def __call__(self, x):
        outputs = [PatchEmbed(24, name="stem")(x)]
        for i, width in enumerate((24, 48), start=1):
            if i == 2:
                outputs.append(PatchMerging(width, name="stage2_merge")(outputs[-1]))
            x = outputs[-1]
            for j in range(2):
                attention = dict(heads=width // 12, window=7, shift=3 * j)
                name = f"stage{i}_block{j + 1}"
                x = SwinBlock(attention, 4 * width, 0.0, False, name=name)(x)
            outputs.append(x)
        return outputs


def test_parts_equal_torchvision():
    """Windows that are filled up, and maps of one window, along which nothing is shifted."""
    given = golden.load("swin_tiny")
    weights = {k[2:]: v for k, v in given.items() if k.startswith("w.") and k[:7] != "w.norm."}
    model = TwoStages()
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), x)
    variables = from_torchvision(variables, weights)
    for case in "bc":
        images = jnp.asarray(np.moveaxis(given[f"x_{case}"], 1, -1))
        outputs = jax.jit(model.apply)(variables, images)
        for i, found in enumerate(outputs):
            np.testing.assert_allclose(found, given[f"stage{i}_{case}"], atol=2e-5, rtol=1e-4)
