"""Operations of convolutions and products of matrices, counted in the text of a compiled program.

The counts of the traced step (``jdet.preflight.flops``) belong to modules; these belong to the
instructions that run, whatever the compiler made of the step, so that their times can be held against them.
"""

from __future__ import annotations

import math
import re

from jdet.preflight import hlo

_LABELS = re.compile(r"dim_labels=\w+_(\w+)->\w+")
_DILATION = re.compile(r"lhs_dilate=([\dx]+)")
_CONTRACTED = re.compile(r'lhs_contracting_dim(?:s=\{|ensions":\[)([\d,"]*)')
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_GEMM = re.compile(r"gemm|matmul|dot", re.IGNORECASE)


def target(instruction: hlo.Instruction) -> str:
    """What a ``custom-call`` calls; "" for any other instruction."""
    found = _TARGET.search(instruction.attributes)
    return found.group(1) if found and instruction.opcode == "custom-call" else ""


def is_convolution(instruction: hlo.Instruction) -> bool:
    """Whether it convolves, by XLA itself or by a library."""
    return instruction.opcode == "convolution" or "$conv" in target(instruction)


def is_product(instruction: hlo.Instruction) -> bool:
    """Whether it is a product of matrices, by XLA itself or by a library."""
    return instruction.opcode == "dot" or bool(_GEMM.search(target(instruction)))


def flops(module: hlo.Module, computation: str, instruction: hlo.Instruction) -> float:
    """Operations of one instruction, two for a multiply-accumulate; what is fused into it included.

    Products with the padding of a convolution count, with the zeros that spread the input of a strided
    one's gradient they do not. All else counts nothing.
    """
    if instruction.opcode == "fusion":
        inner = (name for name in instruction.called if name in module.computations)
        return sum(
            flops(module, name, each)
            for name in inner
            for each in module.computations[name].values()
        )
    if not (is_convolution(instruction) or is_product(instruction)):
        return 0.0
    shapes = [hlo.dims(shape) for shape in module.operand_shapes(computation, instruction)[:2]]
    if len(shapes) < 2:
        return 0.0
    left, right = shapes
    result = hlo.dims(instruction.shape)
    if is_product(instruction):
        found = _CONTRACTED.search(instruction.attributes)
        axes = re.findall(r"\d+", found.group(1)) if found else []
        inner_size = math.prod(left[int(axis)] for axis in axes) if axes else (left or (1,))[-1]
        return 2.0 * math.prod(result) * inner_size
    called = target(instruction)
    # Libraries keep the layout of the forward convolution: the gradient of its input comes from that of its
    # output and the kernel, the kernel's gradient from the input and that of its output.
    if "BackwardInput" in called:
        return _convolution(instruction, left, right)
    if "BackwardFilter" in called:
        return _convolution(instruction, right, result)
    zeros = _DILATION.search(instruction.attributes)
    spread = math.prod(map(int, zeros.group(1).split("x"))) if zeros else 1
    return _convolution(instruction, result, right) / spread


def _convolution(
    instruction: hlo.Instruction, output: tuple[int, ...], kernel: tuple[int, ...]
) -> float:
    labels = _LABELS.search(instruction.attributes)
    features = kernel[labels.group(1).index("o")] if labels and kernel else 1
    return 2.0 * math.prod(output) * math.prod(kernel) / max(features, 1)
