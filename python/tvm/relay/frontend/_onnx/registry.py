"""Where our converters of single operators are found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm.ir import GenericConst

from tvm import relax, tirx

Tensor = relax.Expr
Converter = Callable[
    [relax.BlockBuilder, "list[Tensor | None]", "dict[str, Any]", int], "list[Tensor] | None"
]

CONVERTERS: dict[tuple[str, str], Converter] = {}
"""(domain, operator) -> function of the builder, the operands, the attributes and the number of outputs.

It gives the outputs, or None where upstream's converter does what ONNX means.
"""


def converts(operator: str) -> Callable[[Converter], Converter]:
    """Decorate the converter of `operator`, of ONNX's own domain."""

    def register(converter: Converter) -> Converter:
        CONVERTERS["", operator] = converter
        return converter

    return register


def padded(operands: list[Tensor | None], count: int) -> list[Tensor | None]:
    """`operands` with None for those of `count` that the node leaves out at its end."""
    return operands + [None] * (count - len(operands))


def known(operand: Tensor, what: str) -> np.ndarray:
    """The value of an operand that has to be a constant; `what` names it where it is none."""
    if not isinstance(operand, GenericConst):
        raise ValueError(f"{what} has to be a constant of the model")
    return operand.value.numpy()


def static_size(tensor: Tensor, axis: int) -> int:
    """The size of `tensor` along `axis`, which has to be known."""
    size = tensor.ty.shape.values[axis]
    if not isinstance(size, tirx.IntImm):
        raise ValueError(f"its axis {axis} has no fixed size: give the shapes of the model's inputs")
    return int(size.value)


def scalar(value: float, like: Tensor) -> Tensor:
    """A constant of the dtype of `like`."""
    return relax.const(value, str(like.ty.dtype))
