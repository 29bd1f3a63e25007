"""Bounds, memory traffic and arithmetic against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import pytest

from jdet.preflight import chips, hlo, roofline, traffic
from jdet.preflight.collectives import Collective
from jdet.preflight.flops import count_macs

# 100 GFLOP/s in float32 and 200 in bfloat16, 10 GB/s of memory, 1 GB/s of links, 1 ms a hop.
SLOW = chips.Chip("slow", "slow", 1e9, 10e9, 200e9, 100e9, 1e9, 1e-3, "made up")


def exchange(kind="all-reduce", size=4, bytes=1_000_000, times=1):
    return Collective(kind, "gradients", bytes, 1, size, times, "")


def test_bound_by_hand():
    found = roofline.bound(
        SLOW,
        flops=1e9,
        memory_bytes=40e6,
        collectives=[exchange(), exchange("all-gather", times=2)],
        images=8,
        precision="float32",
        hops=lambda size: size // 2,
    )
    # An all-reduce sends 2 · 3/4 of 1 MB in 1.5 ms and takes 2 hops, an all-gather half of it in bytes.
    expected = 10e-3, 4e-3, 1.5e-3 + 2e-3 + 2 * (0.75e-3 + 2e-3)
    assert found[:3] == pytest.approx(expected)
    assert found.limit == "compute"
    assert found.images_per_second == pytest.approx(800)
    assert found.images_per_second_serial == pytest.approx(8 / 23e-3)


def test_the_longest_time_limits_and_bfloat16_has_a_peak_of_its_own():
    values = dict(flops=1e9, memory_bytes=80e6, collectives=[], images=1)
    found = roofline.bound(SLOW, **values, precision="bfloat16")
    assert found.compute == pytest.approx(5e-3) and found.limit == "memory"
    far = roofline.bound(
        SLOW, **values | dict(collectives=[exchange(size=2, bytes=10**8)]), precision="bfloat16"
    )
    assert far.interconnect == pytest.approx(0.1) and far.limit == "interconnect"


@pytest.mark.parametrize(
    "kind, name",
    [
        ("TPU v4", "TPU v4"),
        ("TPU v5 lite", "TPU v5e"),
        ("TPU v5", "TPU v5p"),
        ("TPU v6 lite", "TPU v6e"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM5"),
        ("NVIDIA H200", "H200 SXM5"),
        ("cpu", None),
        ("TPU7x", None),
    ],
)
def test_chips_are_found_by_what_jax_calls_them(kind, name):
    found = chips.find(kind)
    assert (found and found.name) == name


def test_every_chip_has_a_source_and_sensible_figures():
    for chip in chips.CHIPS:
        assert chip.source
        assert chip.bfloat16 >= chip.float32 > 1e14
        # A chip does many operations in the time it reads a byte, and reads more than it sends.
        assert 50 < chip.bfloat16 / chip.bandwidth < 1000
        assert chip.bandwidth > chip.links > 0


# 1000 numbers of 4 bytes are 4000 bytes; S(1) lies on the chip, S(5) on the host.
PROGRAM = """HloModule step

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %s = f32[] add(%a, %b)
}

%fused (p: f32[1000], q: f32[1000], i: s32[]) -> f32[100] {
  %p = f32[1000]{0} parameter(0)
  %q = f32[100]{0} parameter(1)
  %i = s32[] parameter(2)
  %part = f32[100]{0} dynamic-slice(%p, %i), dynamic_slice_sizes={100}
  ROOT %r = f32[100]{0} add(%part, %q)
}

%update (p: f32[1000], u: f32[10], i: s32[]) -> f32[1000] {
  %p = f32[1000]{0} parameter(0)
  %u = f32[10]{0} parameter(1)
  %i = s32[] parameter(2)
  ROOT %r = f32[1000]{0} dynamic-update-slice(%p, %u, %i)
}

%body (t: (s32[], f32[1000])) -> (s32[], f32[1000]) {
  %t = (s32[], f32[1000]{0}) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %x = f32[1000]{0} get-tuple-element(%t), index=1
  %y = f32[1000]{0} negate(%x)
  ROOT %n = (s32[], f32[1000]{0}) tuple(%i, %y)
}

%go (t: (s32[], f32[1000])) -> pred[] {
  %t = (s32[], f32[1000]{0}) parameter(0)
  ROOT %yes = pred[] constant(true)
}

ENTRY %main (x: f32[1000]) -> f32[1000] {
  %x = f32[1000]{0} parameter(0)
  INSTRUCTION
}
"""


@pytest.mark.parametrize(
    "instruction, expected",
    [
        ("%y = f32[1000]{0} negate(%x)", 8000),
        ("%y = f32[1000]{0:T(1024)S(1)} negate(%x)", 4000),
        ("%y = (f32[1000]{0:S(1)}, f32[1000]{0}, u32[]{:S(2)}) copy-start(%x)", 4000),
        ("%y = ((f32[1000]{0}), f32[10]{0:S(1)}, s32[]{:S(2)}) slice-start(%x)", 40),
        ("%y = f32[1000]{0:S(1)} copy-done(%x)", 0),
        ('%y = f32[1000]{0} custom-call(%x), custom_call_target="ConcatBitcast"', 0),
        ("%y = f32[10]{0} slice(%x), slice={[0:10]}", 80),
        ("%y = f32[100]{0} fusion(%x, %x, %x), kind=kLoop, calls=%fused", 400 + 4000 + 4000 + 400),
        ("%y = f32[1000]{0} fusion(%x, %x, %x), kind=kLoop, calls=%update", 40 + 4000 + 4000),
        (
            "%y = (s32[], f32[1000]{0}) while(%x), condition=%go, body=%body, "
            'backend_config={"known_trip_count":{"n":"7"}}',
            7 * 8000,
        ),
        ("%y = (s32[], f32[1000]{0}) while(%x), condition=%go, body=%body", 8000),
    ],
)
def test_memory_traffic_by_hand(instruction, expected):
    module = hlo.parse(PROGRAM.replace("INSTRUCTION", instruction))
    assert traffic.memory_bytes(module) == expected


def test_memory_traffic_of_a_compiled_product():
    a, b = jnp.zeros((64, 32)), jnp.zeros((32, 16))
    text = jax.jit(jnp.dot).lower(a, b).compile().as_text()
    assert traffic.memory_bytes(hlo.parse(text)) == 4 * (64 * 32 + 32 * 16 + 64 * 16)


def test_arithmetic_of_loops_and_of_gradients():
    a = jnp.zeros((8, 4))

    def repeated(a):
        return jax.lax.scan(lambda total, _: (total + a @ a.T, None), jnp.zeros((8, 8)), length=5)[
            0
        ]

    assert sum(count_macs(jax.make_jaxpr(repeated)(a).jaxpr).values()) == 5 * 8 * 8 * 4

    def strided(x, kernel):
        y = jax.lax.conv_general_dilated(
            x, kernel, (2, 2), [(1, 1)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return (y * y).sum()

    x, kernel = jnp.zeros((2, 16, 16, 3)), jnp.zeros((3, 3, 3, 5))
    forward = 2 * 8 * 8 * 5 * 27
    assert sum(count_macs(jax.make_jaxpr(strided)(x, kernel).jaxpr).values()) == forward
    gradient = jax.make_jaxpr(jax.grad(strided, (0, 1)))(x, kernel).jaxpr
    assert sum(count_macs(gradient).values()) == 3 * forward
