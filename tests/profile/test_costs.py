"""Kinds, places, operations and traffic of instructions, against numbers worked out by hand."""

from pathlib import Path

import pytest

from jdet.preflight import hlo
from jdet.profile import costs, flops, places

PROGRAM = (Path(__file__).parent / "program.hlo").read_text()

CONV = 2 * (2 * 4 * 4 * 16) * 27


def test_every_instruction_has_kind_place_and_costs():
    parts = {part.name: part for part in costs.parts(PROGRAM)}
    assert set(parts) == {
        "copy.1", "conv_fusion", "sum", "loop", "looped", "all", "update", "finite", "result",
    }  # fmt: skip
    kinds = {name: part.kind for name, part in parts.items()}
    assert kinds == {
        "copy.1": "copy/transposition", "conv_fusion": "convolution", "sum": "reduction",
        "loop": "loop", "looped": "element-wise", "all": "collective", "update": "element-wise",
        "finite": "element-wise", "result": "copy/transposition",
    }  # fmt: skip
    where = {name: (part.module, part.phase) for name, part in parts.items()}
    assert where == {
        # Not the activation of the next module that ends the fusion; copies go with their neighbours.
        "conv_fusion": ("backbone/conv1/conv", "forward"),
        "copy.1": ("backbone/conv1/conv", "forward"),
        "result": ("backbone/conv1/conv", "forward"),
        "sum": ("backbone/conv1/norm", "backward"),
        "loop": ("losses/ops.matching.ssd", "forward"),
        "looped": ("losses/ops.matching.ssd", "forward"),
        "all": ("gradients", "update"),
        "update": ("optimizer", "update"),
        "finite": ("step/train.step", "update"),
    }
    assert {name: part.flops for name, part in parts.items() if part.flops} == {"conv_fusion": CONV}
    assert parts["looped"].times == 7 and parts["looped"].bytes == 7 * 8000
    assert parts["conv_fusion"].bytes == 4 * (2 * 8 * 8 * 3 + 3 * 3 * 3 * 16 + 2 * 4 * 4 * 16)
    assert {name: part.sent for name, part in parts.items() if part.sent} == {
        "all": 2 * 4000 * 3 / 4
    }


@pytest.mark.parametrize(
    "op_name, module, phase",
    [
        ("jit(step)/SSD/backbone/conv/add", "backbone/conv", "forward"),
        ("jit(f)/rematted_computation/SSD/backbone/add", "backbone", "recomputed"),
        ("jit(f)/transpose(jvp(SSD.losses))/SSD/rpn/while/body/head/add", "rpn/head", "backward"),
        ("jit(scaled)/jvp(loss)/psum_invariant", "loss", "forward"),
        ("jit(detect)/RetinaNet.detect/vmap()/sort", "detect", "forward"),
        ("jit(a)/SSD/x/mul;jit(a)/SSD/y/add", "x", "forward"),
        ("", "", "forward"),
    ],
)
def test_places(op_name, module, phase):
    assert places.place(op_name) == places.Place(module, phase)


def test_files_are_those_of_the_innermost_frame_that_is_no_packages():
    assert places.files(PROGRAM) == {1: "train.step", 2: "ops.matching.ssd", 3: "ops.matching.ssd"}
    other = PROGRAM.replace("file_name_id=2", "file_name_id=4")
    assert places.files(other)[3] == "mine"
    assert places.files("HloModule x\n\nENTRY %main () -> f32[] {\n}\n") == {}


# One instruction each; the operands are x f32[2,8,8,16], k f32[3,3,16,32], y f32[2,4,4,32], m f32[6,5,4].
OPERANDS = """HloModule one

ENTRY %main (x: f32[2,8,8,16], k: f32[3,3,16,32], y: f32[2,4,4,32], m: f32[6,5,4]) -> f32[] {
  %x = f32[2,8,8,16]{3,2,1,0} parameter(0)
  %k = f32[3,3,16,32]{3,2,1,0} parameter(1)
  %y = f32[2,4,4,32]{3,2,1,0} parameter(2)
  %m = f32[6,5,4]{2,1,0} parameter(3)
  ROOT %r = INSTRUCTION
}
"""
FORWARD = 2 * (2 * 4 * 4 * 32) * 9 * 16
WINDOW = "window={size=3x3 stride=2x2 pad=1_1x1_1}, dim_labels=b01f_01io->b01f"


@pytest.mark.parametrize(
    "instruction, expected, kind",
    [
        (f"f32[2,4,4,32]{{3,2,1,0}} convolution(%x, %k), {WINDOW}", FORWARD, "convolution"),
        # The gradient of the input: zeros between the rows of a strided one's output cost nothing.
        (
            "f32[2,8,8,16]{3,2,1,0} convolution(%y, %k), window={size=3x3 pad=1_2x1_2 lhs_dilate=2x2}, "
            "dim_labels=b01f_01oi->b01f",
            FORWARD,
            "convolution",
        ),
        (
            f"(f32[2,4,4,32]{{3,2,1,0}}, u8[0]{{0}}) custom-call(%x, %k), {WINDOW}, "
            'custom_call_target="__cudnn$convForward"',
            FORWARD,
            "convolution",
        ),
        (
            f"(f32[2,8,8,16]{{3,2,1,0}}, u8[0]{{0}}) custom-call(%y, %k), {WINDOW}, "
            'custom_call_target="__cudnn$convBackwardInput"',
            FORWARD,
            "convolution",
        ),
        (
            f"(f32[3,3,16,32]{{3,2,1,0}}, u8[0]{{0}}) custom-call(%x, %y), {WINDOW}, "
            'custom_call_target="__cudnn$convBackwardFilter"',
            FORWARD,
            "convolution",
        ),
        (
            "f32[6,5,5]{2,1,0} dot(%m, %m), lhs_batch_dims={0}, lhs_contracting_dims={2}, "
            "rhs_batch_dims={0}, rhs_contracting_dims={2}",
            2 * 6 * 5 * 5 * 4,
            "product",
        ),
        (
            '(f32[6,4,4]{2,1,0}, s8[0]{0}) custom-call(%m, %m), custom_call_target="__cublas$gemm", '
            'backend_config={"gemm_backend_config":{"dot_dimension_numbers":'
            '{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["1"]}}}',
            2 * 6 * 4 * 4 * 5,
            "product",
        ),
        ('(f32[6,5,4]{2,1,0}, s32[6]{0}) custom-call(%m), custom_call_target="TopK"', 0, "sort"),
        ('f32[6,5,4]{2,1,0} custom-call(%m), custom_call_target="mine"', 0, "other"),
        ("f32[6,5,4]{2,1,0} exponential(%m)", 0, "element-wise"),
    ],
)
def test_operations_by_hand(instruction, expected, kind):
    module = hlo.parse(OPERANDS.replace("INSTRUCTION", instruction))
    found = module.computations["main"]["r"]
    assert flops.flops(module, "main", found) == expected
    assert costs.kind(module, found) == kind
