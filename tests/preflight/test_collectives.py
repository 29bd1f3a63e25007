"""Programs as XLA prints them, cut down to the lines that count, and one that is compiled here."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from jdet.preflight import collectives, hlo

# Shaped like the training step for 16 chips of TPU v5e, and for 8 CPU devices with accumulation.
TPU = """HloModule jit_step, is_scheduled=true, num_partitions=16

%add.1 (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

ENTRY %main.1_spmd (param: f32[2,1,84], p.1: f32[], p.2: f32[3,3,64,64]) -> f32[3,3,64,64] {
  %param = f32[2,1,84]{2,1,0:T(1,128)S(1)} parameter(0)
  %p.1 = f32[]{:T(128)} parameter(1)
  %p.2 = f32[3,3,64,64]{3,2,1,0:T(8,128)} parameter(2)
  %half = bf16[64]{0:T(256)(128)(2,1)} constant({...})
  %all-reduce.9 = (f32[2,1,84]{2,1,0:T(1,128)S(1)}, f32[]{:T(128)}) all-reduce(%param, /*index=1*/%p.1), channel_id=1, replica_groups={{0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15}}, use_global_device_ids=true, to_apply=%add.1, metadata={op_name="jit(step)/shard_map/jvp(SSD.losses)/SSD/head/cls5_norm/psum_invariant" stack_frame_id=341}
  %psum.7 = f32[2,1,84]{2,1,0} all-reduce(%param), channel_id=2, replica_groups=[4,4]<=[2,2,4]T(1,0,2), to_apply=%add.1, metadata={op_name="jit(step)/shard_map/transpose(jvp(SSD.losses))/SSD/stem/conv1/norm/psum_invariant"}
  %psum.8 = f32[2,1,84]{2,1,0} all-reduce(%param), channel_id=3, replica_groups={}, to_apply=%add.1, metadata={op_name="jit(step)/shard_map/transpose(jvp(SSD.losses))/SSD/checkpoint/rematted_computation/conv1/norm/psum_invariant"}
  %grads.1 = f32[3,3,64,64]{3,2,1,0:T(8,128)} all-reduce-start(%p.2), replica_groups={{0,1},{2,3}}, to_apply=%add.1, metadata={op_name="jit(step)/shard_map/gradients/psum_invariant"}
  %grads.2 = f32[3,3,64,64]{3,2,1,0:T(8,128)} all-reduce-done(%grads.1)
  %gather = (bf16[64]{0}, bf16[512]{0}) all-gather-start(%half), replica_groups=[2,8]<=[16], dimensions={0}
  %got = bf16[512]{0} all-gather-done(%gather)
  %part = f32[1,3,64,64]{3,2,1,0} reduce-scatter(f32[3,3,64,64]{3,2,1,0:T(8,128)} %grads.2), replica_groups={{0,1,2},{3,4,5}}, to_apply=%add.1
  %swap = f32[2,1,84]{2,1,0} collective-permute(%param), source_target_pairs={{0,1},{1,0}}
  %alone = f32[2,1,84]{2,1,0} all-reduce(%param), replica_groups={{0},{1}}, to_apply=%add.1
  ROOT %out = f32[3,3,64,64]{3,2,1,0:T(8,128)} copy(%grads.2)
}
"""  # noqa: E501

LOOP = """HloModule jit_step, num_partitions=8

%body (s: (s32[], f32[64])) -> (s32[], f32[64]) {
  %s = (s32[], f32[64]{0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %x = f32[64]{0} get-tuple-element(%s), index=1
  %r = f32[64]{0} all-reduce(%x), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add, metadata={op_name="jit(step)/while/body/jvp(SSD.losses)/SSD/norm/psum"}
  ROOT %t = (s32[], f32[64]{0}) tuple(%i, %r)
}

%condition (s.1: (s32[], f32[64])) -> pred[] {
  %s.1 = (s32[], f32[64]{0}) parameter(0)
  ROOT %go = pred[] constant(true)
}

%wrapped (w: f32[64]) -> f32[64] {
  %w = f32[64]{0} parameter(0)
  ROOT %sum = f32[64]{0} all-reduce(%w), replica_groups={}, to_apply=%add, metadata={op_name="jit(step)/jvp(statistics)/psum"}
}

ENTRY %main (p: (s32[], f32[64])) -> f32[64] {
  %p = (s32[], f32[64]{0}) parameter(0)
  %w.1 = (s32[], f32[64]{0}) while(%p), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"4"},"known_init_step":{"init":"0","step":"1"}}
  %w.2 = (s32[], f32[64]{0}) while(%w.1), condition=%condition, body=%body
  %y = f32[64]{0} get-tuple-element(%w.2), index=1
  %start = ((f32[64]{0}), f32[64]{0}) async-start(%y), calls=%wrapped
  ROOT %done = f32[64]{0} async-done(%start), calls=%wrapped
}
"""  # noqa: E501


def test_kinds_bytes_groups_and_purposes():
    found = [each[:5] for each in collectives.find(TPU)]
    kernel = 4 * 3 * 3 * 64 * 64
    assert found == [
        ("all-reduce", "batch norm forward", 2 * 84 * 4 + 4, 2, 16),
        ("all-reduce", "batch norm backward", 2 * 84 * 4, 1, 4),
        ("all-reduce", "batch norm recomputed", 2 * 84 * 4, 1, 16),
        ("all-reduce", "gradients", kernel, 1, 2),
        ("all-gather", "other", 2 * 64 * 8, 1, 8),
        ("reduce-scatter", "other", kernel, 1, 3),
        ("collective-permute", "other", 2 * 84 * 4, 1, 2),
    ]


def test_what_loops_count_as_often_as_they_run():
    found = collectives.find(LOOP)
    # Four known rounds and one of a loop of unknown length; the asynchronous one counts once.
    assert [(each.purpose, each.times, each.group_size) for each in found] == [
        ("batch norm forward", 5, 4),
        ("statistics", 1, 8),
    ]
    rows = collectives.summarise([*found, *found])
    assert rows[0] == ("all-reduce", "batch norm forward", 4, 10, 10 * 256, 256)


@pytest.mark.parametrize(
    "line, count",
    [
        ("%i = (u8[4]{0}, token[]) infeed(%t)", 1),
        ('%c = f32[2]{0} custom-call(%x), custom_call_target="xla_ffi_python_cpu_callback"', 1),
        ("%s = (f32[2]{0}, u32[], token[]) send(%x, %t), channel_id=1, is_host_transfer=true", 1),
        ("%s = (f32[2]{0}, u32[], token[]) send(%x, %t), channel_id=1", 0),
        ("%m = f32[2]{0:S(5)} copy(%x)", 1),
        ("%m = (f32[2]{0:S(1)}, f32[2]{0}, u32[]{:S(2)}) copy-start(%x)", 0),
        ('%c = f32[2]{0} custom-call(%x), custom_call_target="ConcatBitcast"', 0),
    ],
)
def test_host_transfers(line, count):
    text = f"HloModule m\n\nENTRY %main (x: f32[2]) -> f32[2] {{\n  {line}\n}}\n"
    assert len(collectives.host_transfers(text)) == count


def test_what_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY computation"):
        hlo.parse("error: out of memory")


def test_sizes_of_arrays():
    assert hlo.size("f32[2,3]{1,0}") == 24
    assert hlo.size("(bf16[8]{0:T(8)}, pred[3], u32[]{:S(2)}, token[])") == 16 + 3 + 4
    assert hlo.size("f8e4m3fn[5]") == 5 and hlo.size("s4[5]{0}") == 3 and hlo.size("c64[2]") == 16
    assert [a.space for a in hlo.arrays("(f32[2]{0:T(128)S(1)}, f32[2]{0})")] == [1, 0]


def test_a_compiled_program_is_read():
    mesh = jax.make_mesh((2, 2), ("group", "member"), axis_types=(jax.sharding.AxisType.Auto,) * 2)

    def step(x):
        def body(total, row):
            return total + jax.lax.psum(row, "member"), None

        total, _ = jax.lax.scan(body, jnp.zeros(16), x)
        with jax.named_scope("gradients"):
            return jax.lax.psum(total, "group")

    sharded = jax.shard_map(step, mesh=mesh, in_specs=P(None), out_specs=P(), check_vma=False)
    program = jax.jit(sharded).lower(jnp.zeros((3, 16))).compile().as_text()
    found = collectives.find(program)
    assert sum(each.times for each in found) == 4
    assert {(each.kind, each.bytes, each.group_size) for each in found} == {("all-reduce", 64, 2)}
    assert [each.times for each in found if each.purpose == "gradients"] == [1]
    assert not collectives.host_transfers(program)

    def shout(x):
        return jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct((4,), jnp.float32), x)

    text = jax.jit(shout).lower(jnp.zeros(4)).compile().as_text()
    assert len(collectives.host_transfers(text)) == 1


@pytest.mark.parametrize(
    "groups, size",
    [
        ("mesh['group'=4,'member'=2] {'member'}", 2),
        ("mesh['group'=4,'member'=2] {'group','member'}", 8),
        ("mesh['a'=8] {'a':(2)4}", 4),
        ("[4,2]<=[8]", 2),
        ("{{0,1,2},{3,4,5}}", 3),
        ("{}", 8),
    ],
)
def test_groups_of_devices_in_every_notation(groups, size):
    assert collectives.group_of(f"channel_id=1, replica_groups={groups}, to_apply=%add", 8) == size
