"""MXNet's operators that move, choose, order, make and contract elements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tvm.relax import op

from tvm import relax

from ..common import ModelError
from .context import (
    Context,
    axis_of,
    converts,
    divide_out,
    dtype_of,
    numbered,
    reshape,
    scalar,
    shape_of,
    size_of,
    sizes_of,
)
from .model import Attributes

# A graph that asks for more pieces is refused: each is a value of its own.
_PIECES = 10_000


@converts("Reshape", "reshape")
def _reshape(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
    shape = attributes.integers("shape", ())
    if not shape:
        return reshape(data, _target_shape(attributes, data))
    old = shape_of(data)
    if attributes.flag("reverse", False):
        new = _special_shape(old[::-1], shape[::-1])[::-1]
    else:
        new = _special_shape(old, shape)
    array = context.array(data)
    return reshape(data, new) if array is None else context.parameter(context.node, array.reshape(new))


def _special_shape(old: list[Any], codes: Sequence[int]) -> list[Any]:
    """The shape that `codes` ask for: 0 keeps a dimension, -1 is what is left over, -2 keeps all that follow,
    -3 joins two, -4 splits one into the two that follow the code."""
    new: list[Any] = []
    open_at = None
    source = 0
    codes = list(codes)
    while codes:
        code = codes.pop(0)
        if code == 0:
            new.append(old[source])
            source += 1
        elif code == -1:
            if open_at is not None:
                raise ModelError("attribute 'shape' leaves two dimensions open")
            open_at = len(new)
            new.append(1)
            source += 1
        elif code == -2:
            new.extend(old[source:])
            source = len(old)
        elif code == -3:
            new.append(old[source] * old[source + 1])
            source += 2
        elif code == -4:
            left, right = codes.pop(0), codes.pop(0)
            if left == -1:
                left = divide_out([old[source]], [right])
            elif right == -1:
                right = divide_out([old[source]], [left])
            new += [left, right]
            source += 1
        elif code > 0:
            new.append(code)
            source += 1
        else:
            raise ModelError(f"attribute 'shape' cannot hold {code}")
    if open_at is not None:
        new[open_at] = divide_out(old, new)
    return new


def _target_shape(attributes: Attributes, data: relax.Expr) -> list[Any]:
    """The shape by the attributes that came before `shape`, where 0 is what is left over."""
    shape: list[Any] = list(attributes.integers("target_shape"))
    if attributes.flag("keep_highest", False):
        shape[0] = shape_of(data)[0]
    if 0 in shape:
        position = shape.index(0)
        shape[position] = 1
        shape[position] = divide_out(shape_of(data), shape)
    return shape


@converts("reshape_like")
def _reshape_like(context: Context, attributes: Attributes, data: relax.Expr, like: relax.Expr) -> relax.Expr:
    old, model = shape_of(data), shape_of(like)
    start, end = _range(attributes, "lhs", len(old))
    model_start, model_end = _range(attributes, "rhs", len(model))
    return reshape(data, old[:start] + model[model_start:model_end] + old[end:])


def _range(attributes: Attributes, side: str, rank: int) -> tuple[int, int]:
    start, end, _ = slice(
        attributes.integer(f"{side}_begin", None), attributes.integer(f"{side}_end", None)
    ).indices(rank)
    return start, end


@converts("Flatten", "flatten")
def _flatten(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
    first, *others = shape_of(data)
    return reshape(data, [first, math.prod(others)])


@converts("expand_dims")
def _expand_dims(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
    return op.expand_dims(data, axis_of(data, attributes.integer("axis"), extra=1))


@converts("squeeze")
def _squeeze(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
    shape = shape_of(data)
    axes = attributes.integers("axis", None)
    if axes is None:
        dropped = {axis for axis, size in enumerate(shape) if isinstance(size, int) and size == 1}
    else:
        dropped = {axis_of(data, axis) for axis in axes}
    if any(not isinstance(shape[axis], int) or shape[axis] != 1 for axis in dropped):
        raise ModelError("only a dimension of size 1 can be squeezed")
    # MXNet keeps one dimension at least.
    return reshape(data, [size for axis, size in enumerate(shape) if axis not in dropped] or [1])


@converts("transpose")
def _transpose(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
    return op.permute_dims(data, [axis_of(data, axis) for axis in attributes.integers("axes", ())] or None)


@converts("SwapAxis", "swapaxes")
def _swap_axis(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
    order = list(range(data.ty.ndim))
    first = axis_of(data, attributes.integer("dim1", 0))
    second = axis_of(data, attributes.integer("dim2", 0))
    order[first], order[second] = order[second], order[first]
    return op.permute_dims(data, order)


@converts("depth_to_space")
def _depth_to_space(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
    block = attributes.integer("block_size", minimum=1)
    batch, channels, height, width = shape_of(data)
    depth = divide_out([channels], [block * block])
    blocks = context.emit(reshape(data, [batch, block, block, depth, height, width]))
    blocks = op.permute_dims(blocks, [0, 3, 4, 1, 5, 2])
    return reshape(blocks, [batch, depth, height * block, width * block])


@converts("space_to_depth")
def _space_to_depth(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
    block = attributes.integer("block_size", minimum=1)
    batch, channels, height, width = shape_of(data)
    rows, columns = divide_out([height], [block]), divide_out([width], [block])
    blocks = context.emit(reshape(data, [batch, channels, rows, block, columns, block]))
    blocks = op.permute_dims(blocks, [0, 3, 5, 1, 2, 4])
    return reshape(blocks, [batch, channels * block * block, rows, columns])


@converts("Concat", "concat")
def _concat(context: Context, attributes: Attributes, *data: relax.Expr) -> relax.Expr:
    return op.concat(list(data), axis_of(data[0], attributes.integer("dim", 1)))


@converts("stack")
def _stack(context: Context, attributes: Attributes, *data: relax.Expr) -> relax.Expr:
    return op.stack(list(data), axis_of(data[0], attributes.integer("axis", 0), extra=1))


@converts("SliceChannel", "split")
def _slice_channel(context: Context, attributes: Attributes, data: relax.Expr) -> dict[str, relax.Expr]:
    axis = axis_of(data, attributes.integer("axis", 1))
    count = attributes.integer("num_outputs", minimum=1)
    return _split(context, data, axis, count, attributes.flag("squeeze_axis", False))


@converts("_split_v2")
def _split_v2(context: Context, attributes: Attributes, data: relax.Expr) -> dict[str, relax.Expr]:
    axis = axis_of(data, attributes.integer("axis", 1))
    squeeze = attributes.flag("squeeze_axis", False)
    sections = attributes.integer("sections", 0, minimum=0)
    if sections:
        return _split(context, data, axis, sections, squeeze)
    starts = attributes.integers("indices")
    size = size_of(data, axis)
    if starts[:1] != (0,) or list(starts) != sorted(starts) or starts[-1] > size:
        raise ModelError("attribute 'indices' does not rise from 0 within the size of the dimension")
    return _pieces(context, data, axis, [*starts, size], squeeze)


def _split(context: Context, data: relax.Expr, axis: int, count: int, squeeze: bool) -> dict[str, relax.Expr]:
    if count > _PIECES:
        raise ModelError(f"more than {_PIECES} pieces")
    step = divide_out([size_of(data, axis)], [count])
    return _pieces(context, data, axis, [piece * step for piece in range(count + 1)], squeeze)


def _pieces(
    context: Context, data: relax.Expr, axis: int, edges: Sequence[int], squeeze: bool
) -> dict[str, relax.Expr]:
    """`data` cut along `axis` into what lies between each two `edges`."""
    if len(edges) == 2:
        pieces = [data]
    else:
        parts = context.emit(op.split(data, list(edges[1:-1]), axis))
        pieces = [parts[position] for position in range(len(edges) - 1)]
    return numbered([op.squeeze(piece, axis) for piece in pieces] if squeeze else pieces)


@converts("slice", "crop")
def _slice(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
    begin, end = attributes.indices("begin"), attributes.indices("end")
    step = attributes.indices("step", ()) or (None,) * len(begin)
    return _sliced(context, data, dict(enumerate(map(slice, begin, end, step))))


@converts("slice_axis")
def _slice_axis(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
    axis = axis_of(data, attributes.integer("axis"))
    return _sliced(context, data, {axis: slice(attributes.integer("begin"), attributes.integer("end", None))})


@converts("slice_like")
def _slice_like(context: Context, attributes: Attributes, data: relax.Expr, like: relax.Expr) -> relax.Expr:
    axes = [axis_of(data, axis) for axis in attributes.integers("axes", ())] or range(data.ty.ndim)
    sizes = shape_of(like)
    return _sliced(context, data, {axis: slice(0, sizes[axis]) for axis in axes})


def _sliced(context: Context, data: relax.Expr, slices: dict[int, slice]) -> relax.Expr:
    """`data[...]` with a slice for each axis in `slices`."""
    shape = shape_of(data)
    axes, begins, ends, steps, flipped = [], [], [], [], []
    for axis, part in slices.items():
        if part.start in (None, 0) and part.stop is None and part.step in (None, 1):
            continue
        if not isinstance(shape[axis], int) or not isinstance(part.stop, int | None):
            raise ModelError("a symbolic dimension is not supported here")
        chosen = range(shape[axis])[part]
        if not chosen:
            raise ModelError(f"the slice of axis {axis} is empty")
        if chosen.step < 0:
            chosen = chosen[::-1]
            flipped.append(axis)
        axes.append(axis)
        begins.append(chosen.start)
        ends.append(chosen[-1] + 1)
        steps.append(chosen.step)
    if axes:
        data = op.strided_slice(data, axes, begins, ends, steps)
    for axis in flipped:
        data = op.flip(data, axis)
    return context.emit(data)


@converts("Crop")
def _crop(context: Context, attributes: Attributes, data: relax.Expr, *like: relax.Expr) -> relax.Expr:
    sizes = sizes_of(data, 2)
    new = sizes_of(like[0], 2) if like else attributes.integers("h_w", minimum=1)
    if attributes.flag("center_crop", False):
        offsets = [(size - kept) // 2 for size, kept in zip(sizes, new, strict=True)]
    else:
        offsets = attributes.integers("offset", (0, 0), minimum=0)
    slices = {
        axis: slice(offset, offset + kept)
        for axis, (offset, kept) in enumerate(zip(offsets, new, strict=True), start=2)
    }
    return _sliced(context, data, slices)


@converts("tile")
def _tile(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
    return op.tile(data, attributes.integers("reps", minimum=1))


@converts("repeat")
def _repeat(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
    return op.repeat(data, attributes.integer("repeats", minimum=1), attributes.integer("axis", None))


@converts("reverse", "flip")
def _reverse(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
    for axis in attributes.integers("axis"):
        data = context.emit(op.flip(data, axis_of(data, axis)))
    return data


@converts("broadcast_to")
def _broadcast_to(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
    sizes = zip(attributes.integers("shape", minimum=0), shape_of(data), strict=True)
    return op.broadcast_to(data, [new or old for new, old in sizes])


@converts("broadcast_axis", "broadcast_axes")
def _broadcast_axis(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
    shape = shape_of(data)
    for axis, size in zip(attributes.integers("axis"), attributes.integers("size", minimum=1), strict=True):
        shape[axis_of(data, axis)] = size
    return op.broadcast_to(data, shape)


@converts("broadcast_like")
def _broadcast_like(
    context: Context, attributes: Attributes, data: relax.Expr, like: relax.Expr
) -> relax.Expr:
    axes = attributes.integers("lhs_axes", None)
    if axes is None:
        return op.broadcast_to(data, shape_of(like))
    shape = shape_of(data)
    for axis, other in zip(axes, attributes.integers("rhs_axes"), strict=True):
        shape[axis_of(data, axis)] = shape_of(like)[axis_of(like, other)]
    return op.broadcast_to(data, shape)


def _register_full(operator: str, value: float | None) -> None:
    @converts(operator)
    def full(context: Context, attributes: Attributes) -> relax.Expr:
        dtype = attributes.dtype("dtype", "float32")
        # A size of 0 says that it is to be told from what the tensor meets: broadcasting does that from 1.
        shape = [size or 1 for size in attributes.integers("shape", minimum=0)]
        number = attributes.number("value") if value is None else value
        return op.full(shape, relax.const(number, dtype), dtype)


_register_full("_zeros", 0)
_register_full("_ones", 1)
_register_full("_full", None)


@converts("_arange")
def _arange(context: Context, attributes: Attributes) -> relax.Expr:
    start, stop = attributes.number("start"), attributes.number("stop", None)
    if attributes.flag("infer_range", False):
        raise ModelError("attribute 'infer_range' is not supported")
    if stop is None:
        start, stop = 0.0, start
    step = attributes.number("step", 1.0)
    count = math.ceil((stop - start) / step) * attributes.integer("repeat", 1, minimum=1)
    return _progression(attributes, count, start, step, attributes.dtype("dtype", "float32"))


@converts("_contrib_arange_like")
def _arange_like(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
    shape = shape_of(data)
    axis = attributes.integer("axis", None)
    if axis is not None:
        shape = [shape[axis_of(data, axis)]]
    start, step = attributes.number("start", 0.0), attributes.number("step", 1.0)
    return reshape(_progression(attributes, math.prod(shape), start, step, dtype_of(data)), shape)


def _progression(attributes: Attributes, count: Any, start: float, step: float, dtype: str) -> relax.Expr:
    """`count` values from `start` on, each given as often as the attribute `repeat` says."""
    position = op.arange(0, count, 1, "int64")
    repeat = attributes.integer("repeat", 1, minimum=1)
    if repeat > 1:
        position = op.floor_divide(position, relax.const(repeat, "int64"))
    values = op.multiply(op.astype(position, dtype), relax.const(step, dtype))
    return op.add(values, relax.const(start, dtype))


def indices_of(context: Context, data: relax.Expr) -> relax.Expr:
    """The values of `data`, which MXNet often gives as floats, as integers."""
    return context.astype(data, "int64")


def _bounded(context: Context, indices: relax.Expr, size: int, mode: str) -> relax.Expr:
    """`indices` brought into range, so that none reads outside of the `size` elements."""
    indices = indices_of(context, indices)
    if mode == "clip":
        return op.clip(indices, 0, size - 1)
    return op.floor_mod(indices, relax.const(size, "int64"))


def _mode(attributes: Attributes) -> str:
    mode = attributes.text("mode", "clip")
    if mode not in ("clip", "wrap"):
        raise ModelError(f"mode '{mode}' is not supported")
    return mode


@converts("take")
def _take(context: Context, attributes: Attributes, data: relax.Expr, indices: relax.Expr) -> relax.Expr:
    axis = axis_of(data, attributes.integer("axis", 0))
    indices = _bounded(context, indices, size_of(data, axis), _mode(attributes))
    return op.take(data, indices, axis)


@converts("Embedding", "_contrib_SparseEmbedding")
def _embedding(context: Context, attributes: Attributes, data: relax.Expr, weight: relax.Expr) -> relax.Expr:
    weight = context.astype(weight, attributes.dtype("dtype", "float32"))
    return op.take(weight, _bounded(context, data, size_of(weight, 0), "clip"), 0)


@converts("pick", "choose_element_0index")
def _pick(context: Context, attributes: Attributes, data: relax.Expr, indices: relax.Expr) -> relax.Expr:
    axis = axis_of(data, attributes.integer("axis", -1))
    keepdims = attributes.flag("keepdims", False)
    return _picked(context, data, indices, axis, _mode(attributes), keepdims)


@converts("batch_take")
def _batch_take(
    context: Context, attributes: Attributes, data: relax.Expr, indices: relax.Expr
) -> relax.Expr:
    return _picked(context, data, indices, 1, "clip", keepdims=False)


def _picked(
    context: Context, data: relax.Expr, indices: relax.Expr, axis: int, mode: str, keepdims: bool
) -> relax.Expr:
    indices = context.emit(_bounded(context, indices, size_of(data, axis), mode))
    if indices.ty.ndim < data.ty.ndim:
        indices = op.expand_dims(indices, axis)
    picked = op.gather_elements(data, indices, axis)
    return picked if keepdims else op.squeeze(picked, axis)


@converts("gather_nd")
def _gather_nd(context: Context, attributes: Attributes, data: relax.Expr, indices: relax.Expr) -> relax.Expr:
    depth = size_of(indices, 0)
    sizes = relax.const(sizes_of(data, 0, depth), "int64")
    # MXNet has the coordinates of one element along the first axis, Relax along the last.
    order = [*range(1, indices.ty.ndim), 0]
    coordinates = op.permute_dims(indices_of(context, indices), order)
    return op.gather_nd(data, op.floor_mod(coordinates, sizes))


@converts("one_hot")
def _one_hot(context: Context, attributes: Attributes, indices: relax.Expr) -> relax.Expr:
    dtype = attributes.dtype("dtype", "float32")
    on = relax.const(attributes.number("on_value", 1.0), dtype)
    off = relax.const(attributes.number("off_value", 0.0), dtype)
    classes = op.arange(0, attributes.integer("depth", minimum=1), 1, "int64")
    return op.where(op.equal(op.expand_dims(indices_of(context, indices), -1), classes), on, off)


@converts("sort")
def _sort(context: Context, attributes: Attributes, data: relax.Expr) -> dict[str, relax.Expr]:
    data, axis = _along(context, attributes, data)
    return numbered([op.sort(data, axis, descending=not attributes.flag("is_ascend", True))])


@converts("argsort")
def _argsort(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
    data, axis = _along(context, attributes, data)
    order = op.argsort(data, axis, descending=not attributes.flag("is_ascend", True), dtype="int64")
    return op.astype(order, attributes.dtype("dtype", "float32"))


@converts("topk")
def _topk(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr | dict[str, relax.Expr]:
    shape = shape_of(data)
    data, axis = _along(context, attributes, data)
    size = size_of(data, axis)
    count = attributes.integer("k", 1)
    if not 1 <= count <= size:
        count = size
    wanted = attributes.text("ret_typ", "indices")
    largest = not attributes.flag("is_ascend", False)
    top = context.emit(op.topk(data, count, axis, "both", largest, "int64"))
    values, positions = top[0], top[1]
    indices = op.astype(positions, attributes.dtype("dtype", "float32"))
    if wanted == "indices":
        return indices
    if wanted in ("value", "both"):
        return numbered([values, indices])
    if wanted == "mask":
        mask = op.scatter_elements(op.zeros_like(data), positions, op.ones_like(values), axis)
        return reshape(mask, shape)
    raise ModelError(f"attribute 'ret_typ' cannot be '{wanted}'")


def _along(context: Context, attributes: Attributes, data: relax.Expr) -> tuple[relax.Expr, int]:
    """`data` and the axis to order it along; flattened where the axis is None."""
    axis = attributes.integer("axis", -1, optional=True)
    if axis is None:
        return context.emit(reshape(data, [math.prod(shape_of(data))])), 0
    return data, axis_of(data, axis)


@converts("dot")
def _dot(context: Context, attributes: Attributes, left: relax.Expr, right: relax.Expr) -> relax.Expr:
    rows, columns = shape_of(left), shape_of(right)
    if attributes.flag("transpose_a", False):
        shared, *rows = rows
        left = op.permute_dims(reshape(left, [shared, math.prod(rows)]))
    else:
        *rows, shared = rows
        left = reshape(left, [math.prod(rows), shared])
    if attributes.flag("transpose_b", False):
        *columns, shared = columns
        right = op.permute_dims(reshape(right, [math.prod(columns), shared]))
    else:
        shared, *columns = columns
        right = reshape(right, [shared, math.prod(columns)])
    return reshape(op.matmul(left, right), [*rows, *columns] or [1])


@converts("batch_dot")
def _batch_dot(context: Context, attributes: Attributes, left: relax.Expr, right: relax.Expr) -> relax.Expr:
    return _products(attributes, left, right)


@converts("_linalg_gemm2", "linalg_gemm2")
def _gemm2(context: Context, attributes: Attributes, left: relax.Expr, right: relax.Expr) -> relax.Expr:
    return _scaled_products(attributes, left, right)


@converts("_linalg_gemm", "linalg_gemm")
def _gemm(
    context: Context, attributes: Attributes, left: relax.Expr, right: relax.Expr, term: relax.Expr
) -> relax.Expr:
    beta = scalar(attributes.number("beta", 1.0), term)
    return op.add(_scaled_products(attributes, left, right), op.multiply(term, beta))


def _scaled_products(attributes: Attributes, left: relax.Expr, right: relax.Expr) -> relax.Expr:
    if attributes.integer("axis", -2) not in (-2, left.ty.ndim - 2):
        raise ModelError("attribute 'axis' is supported for the last but one dimension only")
    return op.multiply(_products(attributes, left, right), scalar(attributes.number("alpha", 1.0), left))


def _products(attributes: Attributes, left: relax.Expr, right: relax.Expr) -> relax.Expr:
    """The matrix products over the last two dimensions."""
    order = [*range(left.ty.ndim - 2), left.ty.ndim - 1, left.ty.ndim - 2]
    if attributes.flag("transpose_a", False):
        left = op.permute_dims(left, order)
    if attributes.flag("transpose_b", False):
        right = op.permute_dims(right, order)
    return op.matmul(left, right)
