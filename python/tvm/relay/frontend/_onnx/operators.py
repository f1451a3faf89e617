"""Operators of ONNX that upstream's importer lacks or gets wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper
from tvm.relax.frontend.onnx import onnx_frontend as upstream

from tvm import relax, te, tirx, topi

from .registry import Converter, Tensor, converts, known, padded, scalar, static_size


@converts("Dropout")
def _dropout(
    builder: relax.BlockBuilder, operands: list[Tensor | None], attributes: dict[str, Any], outputs: int
) -> list[Tensor]:
    data, ratio, training = padded(operands, 3)
    if training is not None and known(training, "training_mode") and (ratio is None or known(ratio, "ratio")):
        raise ValueError("training mode is not supported")
    return [data, builder.emit(relax.op.full_like(data, relax.const(True, "bool"), "bool"))][:outputs]


@converts("IsInf")
def _is_infinite(
    builder: relax.BlockBuilder, operands: list[Tensor | None], attributes: dict[str, Any], outputs: int
) -> list[Tensor]:
    (data,) = operands
    zero = scalar(0, data)
    found = builder.emit(relax.op.isinf(data))
    if not attributes["detect_negative"]:
        found = builder.emit(relax.op.logical_and(found, relax.op.greater(data, zero)))
    if not attributes["detect_positive"]:
        found = builder.emit(relax.op.logical_and(found, relax.op.less(data, zero)))
    return [found]


@converts("LpNormalization")
def _lp_normalization(
    builder: relax.BlockBuilder, operands: list[Tensor | None], attributes: dict[str, Any], outputs: int
) -> list[Tensor]:
    (data,) = operands
    axis = attributes["axis"]
    if attributes["p"] == 1:
        norm = relax.op.sum(relax.op.abs(data), axis, keepdims=True)
    else:
        norm = relax.op.sqrt(relax.op.sum(data * data, axis, keepdims=True))
    norm = builder.emit(norm)
    zero, one = scalar(0, data), scalar(1, data)
    # A vector of zeros stays one.
    return [builder.emit(data / relax.op.where(relax.op.equal(norm, zero), one, norm))]


@converts("Pow")
def _power(
    builder: relax.BlockBuilder, operands: list[Tensor | None], attributes: dict[str, Any], outputs: int
) -> list[Tensor]:
    """The result is of the base's dtype, whatever the exponent's is."""
    base, exponent = operands
    dtype = str(base.ty.dtype)
    exact = "float64" if "int" in dtype else dtype
    base, exponent = (builder.emit(relax.op.astype(value, exact)) for value in (base, exponent))
    power = builder.emit(relax.op.power(base, exponent))
    if exact != dtype:
        power = builder.emit(relax.op.astype(builder.emit(relax.op.round(power)), dtype))
    return [power]


@converts("BitCast")
def _bit_cast(
    builder: relax.BlockBuilder, operands: list[Tensor | None], attributes: dict[str, Any], outputs: int
) -> list[Tensor]:
    (data,) = operands
    dtype = str(helper.tensor_dtype_to_np_dtype(attributes["to"]))
    if "bool" in (dtype, str(data.ty.dtype)):
        return [builder.emit(relax.op.astype(data, dtype))]

    def reinterpret(x: te.Tensor) -> te.Tensor:
        return te.compute(x.shape, lambda *i: tirx.reinterpret(dtype, x(*i)), "bits")

    return [builder.emit_te(reinterpret, data)]


@converts("BitShift")
def _bit_shift(
    builder: relax.BlockBuilder, operands: list[Tensor | None], attributes: dict[str, Any], outputs: int
) -> list[Tensor]:
    """What is shifted by a negative count, or by the width and more, is all gone."""
    data, count = operands
    emit, dtype = builder.emit, str(data.ty.dtype)
    width = np.iinfo(dtype).bits
    right = attributes["direction"] == b"RIGHT"
    signed = dtype.startswith("int")
    fits = emit(relax.op.less(count, scalar(width, count)))
    if signed:
        fits = emit(relax.op.logical_and(fits, relax.op.greater_equal(count, scalar(0, count))))
    if signed and right:
        # By all but the sign.
        return [emit(relax.op.right_shift(data, relax.op.where(fits, count, scalar(width - 1, count))))]
    shift = relax.op.right_shift if right else relax.op.left_shift
    shifted = emit(shift(data, relax.op.where(fits, count, scalar(0, count))))
    return [emit(relax.op.where(fits, shifted, scalar(0, data)))]


@converts("CumProd")
def _cumulative_product(
    builder: relax.BlockBuilder, operands: list[Tensor | None], attributes: dict[str, Any], outputs: int
) -> list[Tensor]:
    data, axis = operands
    axis = int(known(axis, "axis"))
    flip = [relax.op.flip] if attributes["reverse"] else []
    for function in flip:
        data = builder.emit(function(data, axis))
    product = builder.emit(
        relax.op.cumprod(data, axis, str(data.ty.dtype), exclusive=bool(attributes["exclusive"]))
    )
    for function in flip:
        product = builder.emit(function(product, axis))
    return [product]


@converts("OneHot")
def _one_hot(
    builder: relax.BlockBuilder, operands: list[Tensor | None], attributes: dict[str, Any], outputs: int
) -> list[Tensor]:
    """Indices beyond the depth give a row of the off value."""
    indices, depth, values = operands
    emit = builder.emit
    depth = int(known(depth, "depth").item())
    rank = indices.ty.ndim + 1
    axis = attributes["axis"] % rank
    dtype = "int64" if "int" in str(indices.ty.dtype) else str(indices.ty.dtype)
    indices = emit(relax.op.astype(indices, dtype))
    negative = emit(relax.op.less(indices, scalar(0, indices)))
    indices = emit(relax.op.where(negative, indices + scalar(depth, indices), indices))
    columns = np.arange(depth).reshape([-1 if a == axis else 1 for a in range(rank)])
    hot = emit(relax.op.equal(relax.op.expand_dims(indices, axis), relax.const(columns, dtype)))
    off, on = (emit(relax.op.take(values, relax.const(i, "int64"), axis=0, mode="clip")) for i in (0, 1))
    return [emit(relax.op.where(hot, on, off))]


@converts("EyeLike")
def _eye_like(
    builder: relax.BlockBuilder, operands: list[Tensor | None], attributes: dict[str, Any], outputs: int
) -> list[Tensor]:
    (data,) = operands
    dtype = attributes.get("dtype")
    dtype = str(data.ty.dtype) if dtype is None else str(helper.tensor_dtype_to_np_dtype(dtype))
    rows, columns = data.ty.shape.values
    return [builder.emit(relax.op.eye(rows, columns, attributes["k"], dtype))]


@converts("ReverseSequence")
def _reverse_sequence(
    builder: relax.BlockBuilder, operands: list[Tensor | None], attributes: dict[str, Any], outputs: int
) -> list[Tensor]:
    data, lengths = operands
    return [
        builder.emit_te(
            topi.reverse_sequence, data, lengths, attributes["time_axis"], attributes["batch_axis"]
        )
    ]


@converts("SpaceToDepth")
def _space_to_depth(
    builder: relax.BlockBuilder, operands: list[Tensor | None], attributes: dict[str, Any], outputs: int
) -> list[Tensor]:
    (data,) = operands
    size = attributes["blocksize"]
    n, c, h, w = data.ty.shape.values
    blocks = builder.emit(relax.op.reshape(data, (n, c, h // size, size, w // size, size)))
    channels_last = attributes.get("mode", b"DCR") == b"DCR"
    order = (0, 3, 5, 1, 2, 4) if channels_last else (0, 1, 3, 5, 2, 4)
    blocks = builder.emit(relax.op.permute_dims(blocks, order))
    return [builder.emit(relax.op.reshape(blocks, (n, c * size * size, h // size, w // size)))]


@converts("BatchNormalization")
def _batch_normalization(
    builder: relax.BlockBuilder, operands: list[Tensor | None], attributes: dict[str, Any], outputs: int
) -> list[Tensor] | None:
    """With the batch's own statistics, where a model is in training mode."""
    if not attributes.get("training_mode"):
        return None
    data, scale, bias, *running = operands
    emit, rank = builder.emit, data.ty.ndim
    axes = [axis for axis in range(rank) if axis != 1]
    batch = [emit(statistic(data, axes, keepdims=True)) for statistic in (relax.op.mean, relax.op.variance)]
    mean, variance = batch
    scale, bias = (emit(relax.op.expand_dims(v, list(range(1, rank - 1)))) for v in (scale, bias))
    spread = emit(relax.op.sqrt(variance + scalar(attributes["epsilon"], data)))
    results = [emit((data - mean) / spread * scale + bias)]
    momentum = attributes["momentum"]
    for old, new in zip(running, batch, strict=True):
        new = emit(relax.op.astype(emit(relax.op.squeeze(new, axes)), str(old.ty.dtype)))
        results.append(emit(old * scalar(momentum, old) + new * scalar(1 - momentum, old)))
    return results[:outputs]


@converts("ConvTranspose")
def _transposed_convolution(
    builder: relax.BlockBuilder, operands: list[Tensor | None], attributes: dict[str, Any], outputs: int
) -> list[Tensor] | None:
    """`output_shape` says what the padding is."""
    if "output_shape" not in attributes:
        return None
    data, weight, *_ = operands
    rank = data.ty.ndim - 2
    attributes = dict(attributes)
    wanted = attributes.pop("output_shape")[-rank:]
    lower = attributes.pop("auto_pad", b"NOTSET") != b"SAME_UPPER"
    ones, zeros = (1,) * rank, (0,) * rank
    extra = list(attributes.get("output_padding", zeros))
    begins, ends = [], []
    for axis, (size, stride, dilation) in enumerate(
        zip(wanted, attributes.get("strides", ones), attributes.get("dilations", ones), strict=True)
    ):
        kernel = (static_size(weight, axis + 2) - 1) * dilation + 1
        total = stride * (static_size(data, axis + 2) - 1) + extra[axis] + kernel - size
        if total < 0:
            extra[axis], total = extra[axis] - total, 0
        begins.append(total - total // 2 if lower else total // 2)
        ends.append(total - begins[-1])
    attributes |= {"pads": (*begins, *ends), "output_padding": tuple(extra)}
    convert = upstream._get_convert_map()["ConvTranspose"].get_converter(11)
    return [builder.emit(convert(builder, upstream.onnx_input(operands), attributes, [{}, {}]))]


@converts("TensorScatter")
def _tensor_scatter(
    builder: relax.BlockBuilder, operands: list[Tensor | None], attributes: dict[str, Any], outputs: int
) -> list[Tensor]:
    """The cache with the update written over it from each batch's index on."""
    cache, update, starts = padded(operands, 3)
    axis = attributes["axis"] % cache.ty.ndim
    circular = attributes["mode"] == b"circular"
    if starts is None:
        starts = builder.emit(relax.op.zeros((cache.ty.shape.values[0],), "int64"))

    def written(cache: te.Tensor, update: te.Tensor, starts: te.Tensor) -> te.Tensor:
        def element(*index: tirx.Var) -> Any:
            step = index[axis] - starts[index[0]]
            if circular:
                step = tirx.floormod(step, cache.shape[axis])
            inside = tirx.all(step >= 0, step < update.shape[axis])
            new = update(*index[:axis], step, *index[axis + 1 :])
            return tirx.if_then_else(inside, new, cache(*index))

        return te.compute(cache.shape, element, "written")

    return [builder.emit_te(written, cache, update, starts)]


@converts("Col2Im")
def _columns_to_image(
    builder: relax.BlockBuilder, operands: list[Tensor | None], attributes: dict[str, Any], outputs: int
) -> list[Tensor]:
    """Sum the columns of blocks into the image that they were taken from."""
    columns, image, block = operands
    image, block = (
        [int(size) for size in known(v, w)] for v, w in ((image, "image_shape"), (block, "block_shape"))
    )
    rank = len(image)
    strides, dilations = (attributes.get(name, (1,) * rank) for name in ("strides", "dilations"))
    pads = attributes.get("pads", (0,) * 2 * rank)
    steps = [
        (image[a] + pads[a] + pads[a + rank] - dilations[a] * (block[a] - 1) - 1) // strides[a] + 1
        for a in range(rank)
    ]
    batch, depth, _ = columns.ty.shape.values
    channels = depth // int(np.prod(block))
    columns = builder.emit(relax.op.reshape(columns, (batch, channels, *block, *steps)))

    def summed(x: te.Tensor) -> te.Tensor:
        taps = [te.reduce_axis((0, size), f"k{a}") for a, size in enumerate(block)]

        def element(n: tirx.Var, c: tirx.Var, *at: tirx.Var) -> Any:
            offsets = [at[a] + pads[a] - taps[a] * dilations[a] for a in range(rank)]
            inside = [
                tirx.all(o >= 0, tirx.floormod(o, s) == 0, tirx.floordiv(o, s) < size)
                for o, s, size in zip(offsets, strides, steps, strict=True)
            ]
            places = [tirx.floordiv(o, s) for o, s in zip(offsets, strides, strict=True)]
            value = x(n, c, *taps, *places)
            return te.sum(tirx.if_then_else(tirx.all(*inside), value, tirx.const(0, x.dtype)), axis=taps)

        return te.compute((*x.shape[:2], *image), element, "image")

    return [builder.emit_te(summed, columns)]


def _extreme(greatest: bool) -> Converter:
    """ReduceMax or ReduceMin, which of infinities alone, and of nothing, are infinite."""
    sign = -1 if greatest else 1

    def pick(left: Any, right: Any) -> Any:
        return tirx.max(left, right) if greatest else tirx.min(left, right)

    def identity(dtype: str) -> Any:
        if "float" in dtype:
            return tirx.const(sign * float("inf"), dtype)
        return tirx.min_value(dtype) if greatest else tirx.max_value(dtype)

    reducer = te.comm_reducer(pick, identity)

    def convert(
        builder: relax.BlockBuilder, operands: list[Tensor | None], attributes: dict[str, Any], outputs: int
    ) -> list[Tensor]:
        # An attribute before version 18, an operand since.
        data, axes = padded(operands, 2)
        axes = attributes.get("axes", ()) if axes is None else [int(axis) for axis in known(axes, "axes")]
        if not axes and attributes.get("noop_with_empty_axes"):
            return [data]
        dtype = str(data.ty.dtype)
        if dtype == "bool":
            data = builder.emit(relax.op.astype(data, "uint8"))

        rank = data.ty.ndim
        axes = sorted(axis % rank for axis in axes) or list(range(rank))

        shape = [1 if axis in axes else size for axis, size in enumerate(data.ty.shape)]

        def reduced(x: te.Tensor) -> te.Tensor:
            runs = {axis: te.reduce_axis((0, x.shape[axis]), f"k{axis}") for axis in axes}

            def element(*index: tirx.Var) -> Any:
                places = [runs.get(axis, at) for axis, at in enumerate(index)]
                return reducer(x(*places), axis=list(runs.values()))

            return te.compute(shape, element, "extreme")

        if any(isinstance(data.ty.shape[axis], tirx.IntImm) and data.ty.shape[axis] == 0 for axis in axes):
            # A loop over nothing would not set what it computes.
            nothing = relax.const(identity(str(data.ty.dtype)).value, str(data.ty.dtype))
            result = builder.emit(relax.op.broadcast_to(nothing, shape))
        else:
            result = builder.emit_te(reduced, data)
        if not attributes["keepdims"]:
            result = builder.emit(relax.op.squeeze(result, axes))
        return [result if dtype != "bool" else builder.emit(relax.op.astype(result, dtype))]

    return convert


converts("ReduceMax")(_extreme(greatest=True))
converts("ReduceMin")(_extreme(greatest=False))
