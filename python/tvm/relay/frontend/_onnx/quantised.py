"""Products of quantised integers."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm.relax.frontend.onnx import onnx_frontend as upstream

from tvm import relax

from .registry import Tensor, converts, padded


@converts("ConvInteger")
def _conv_integer(
    builder: relax.BlockBuilder, operands: list[Tensor | None], attributes: dict[str, Any], outputs: int
) -> list[Tensor]:
    x, w, x_zero, w_zero = padded(operands, 4)
    return [_integer_conv(builder, x, x_zero, w, w_zero, attributes)]


@converts("QLinearConv")
def _qlinear_conv(
    builder: relax.BlockBuilder, operands: list[Tensor | None], attributes: dict[str, Any], outputs: int
) -> list[Tensor]:
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, *bias = operands
    rank = x.ty.ndim
    product = _integer_conv(builder, x, x_zero, w, w_zero, attributes)
    if bias and bias[0] is not None:
        product = builder.emit(product + _along(builder, bias[0], 1, rank))
    scale = builder.emit(x_scale * w_scale / y_scale)
    return [_requantised(builder, product, _along(builder, scale, 1, rank), y_zero)]


@converts("QLinearMatMul")
def _qlinear_matmul(
    builder: relax.BlockBuilder, operands: list[Tensor | None], attributes: dict[str, Any], outputs: int
) -> list[Tensor]:
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = operands
    # A vector of scales is one for each row of A, and for each column of B.
    a_scale, a_zero = (_along(builder, value, -2, a.ty.ndim) for value in (a_scale, a_zero))
    left, right = _centred(builder, a, a_zero), _centred(builder, b, b_zero)
    product = builder.emit(relax.op.matmul(left, right))
    return [_requantised(builder, product, builder.emit(a_scale * b_scale / y_scale), y_zero)]


def _integer_conv(
    builder: relax.BlockBuilder,
    x: Tensor,
    x_zero: Tensor | None,
    w: Tensor,
    w_zero: Tensor | None,
    attributes: dict[str, Any],
) -> Tensor:
    """The int32 convolution of quantised integers."""
    if w_zero is not None:
        w_zero = _along(builder, w_zero, 0, w.ty.ndim)
    operands = upstream.onnx_input([_centred(builder, x, x_zero), _centred(builder, w, w_zero)])
    convert = upstream._get_convert_map()["Conv"].get_converter(11)
    return builder.emit(convert(builder, operands, dict(attributes), [{}, {}]))


def _centred(builder: relax.BlockBuilder, values: Tensor, zero: Tensor | None) -> Tensor:
    """`values - zero` as int32."""
    wide = builder.emit(relax.op.astype(values, "int32"))
    return wide if zero is None else builder.emit(wide - builder.emit(relax.op.astype(zero, "int32")))


def _requantised(builder: relax.BlockBuilder, values: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """int32 `values` times `scale`, rounded half to even, plus `zero`, saturated to the dtype of `zero`."""
    dtype = str(zero.ty.dtype)
    info = np.iinfo(dtype)
    scale = builder.emit(relax.op.astype(scale, "float32"))
    scaled = builder.emit(relax.op.round(relax.op.astype(values, "float32") * scale))
    shifted = builder.emit(scaled + builder.emit(relax.op.astype(zero, "float32")))
    return builder.emit(relax.op.astype(relax.op.clip(shifted, float(info.min), float(info.max)), dtype))


def _along(builder: relax.BlockBuilder, vector: Tensor, axis: int, rank: int) -> Tensor:
    """A vector shaped to broadcast along `axis` of a tensor of `rank`; anything else as it is."""
    if vector.ty.ndim != 1:
        return vector
    shape = [1] * rank
    shape[axis] = -1
    return builder.emit(relax.op.reshape(vector, shape))
