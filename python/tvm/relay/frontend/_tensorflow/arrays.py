"""Operators that move, join, pick and reduce elements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm.relax import op

from tvm import relax, tirx

from .converter import Converter
from .graph import Node
from .registry import rule
from .values import Dimension, Unfit, Value, integers, is_certain, simplified

# Shapes


@rule("Shape", "ShapeN")
def _shape(converter: Converter, node: Node, *tensors: Value) -> list[Value]:
    return [integers(list(converter.shape(tensor)), node["out_type"]) for tensor in tensors]


@rule("Size")
def _size(converter: Converter, node: Node, tensor: Value) -> Value:
    return integers(_product(converter.shape(tensor)), node["out_type"])


@rule("Rank")
def _rank(converter: Converter, node: Node, tensor: Value) -> Value:
    return np.asarray(len(converter.shape(tensor)), "int32")


@rule("Reshape")
def _reshape(converter: Converter, node: Node, tensor: Value, shape: Value) -> Value:
    wanted = converter.dimensions(node, shape)
    if -1 in [dimension for dimension in wanted if isinstance(dimension, int)]:
        rest = _product(dimension for dimension in wanted if not _is(dimension, -1))
        missing = simplified(_product(converter.shape(tensor)) // rest)
        wanted = [missing if _is(dimension, -1) else dimension for dimension in wanted]
    return converter.reshape(tensor, wanted)


@rule("Squeeze")
def _squeeze(converter: Converter, node: Node, tensor: Value) -> Value:
    shape = converter.shape(tensor)
    axes = [axis % len(shape) for axis in node["squeeze_dims"]]
    if not axes:
        axes = [axis for axis, dimension in enumerate(shape) if _is(dimension, 1)]
    return converter.reshape(tensor, [size for axis, size in enumerate(shape) if axis not in axes])


@rule("ExpandDims")
def _expand_dims(converter: Converter, node: Node, tensor: Value, axis: Value) -> Value:
    shape = list(converter.shape(tensor))
    position = int(converter.known(node, axis, "axis"))
    shape.insert(position if position >= 0 else position + len(shape) + 1, 1)
    return converter.reshape(tensor, shape)


@rule("EnsureShape")
def _ensure_shape(converter: Converter, node: Node, tensor: Value) -> Value:
    return tensor


@rule("Transpose")
def _transpose(converter: Converter, node: Node, tensor: Value, axes: Value) -> Value:
    return converter.transpose(tensor, converter.known(node, axes, "permutation"))


@rule("BroadcastTo")
def _broadcast_to(converter: Converter, node: Node, tensor: Value, shape: Value) -> Value:
    return converter.emit(op.broadcast_to(converter.tensor(tensor), converter.dimensions(node, shape)))


@rule("Tile")
def _tile(converter: Converter, node: Node, tensor: Value, multiples: Value) -> Value:
    shape, repeats = converter.shape(tensor), converter.dimensions(node, multiples)
    if all(isinstance(count, int) for count in repeats):
        return converter.emit(op.tile(converter.tensor(tensor), repeats))
    # Relax repeats by numbers only: a symbolic count is a broadcast along a new axis before each axis.
    spread = [size for dimension in shape for size in (1, dimension)]
    tiled = [size for pair in zip(repeats, shape, strict=True) for size in pair]
    whole = converter.emit(op.broadcast_to(converter.tensor(converter.reshape(tensor, spread)), tiled))
    return converter.reshape(whole, [count * size for count, size in zip(repeats, shape, strict=True)])


# New tensors


@rule("Fill")
def _fill(converter: Converter, node: Node, shape: Value, value: Value) -> Value:
    fill = converter.tensor(value)
    return converter.emit(op.full(converter.dimensions(node, shape), fill, str(fill.ty.dtype)))


@rule("Range")
def _range(converter: Converter, node: Node, start: Value, limit: Value, delta: Value) -> Value:
    ends = [converter.dimensions(node, value)[0] for value in (start, limit, delta)]
    return converter.emit(op.arange(*ends, dtype=node["Tidx"]))


@rule("OneHot")
def _one_hot(converter: Converter, node: Node, indices: Value, depth: Value, on: Value, off: Value) -> Value:
    (size,) = converter.fixed(node, converter.dimensions(node, depth))
    rank, axis = len(converter.shape(indices)), node["axis"]
    axis = rank if axis < 0 else axis
    classes = np.arange(size, dtype=converter.dtype(indices)).reshape([size] + [1] * (rank - axis))
    chosen = op.equal(op.expand_dims(converter.tensor(indices), axis), converter.tensor(classes))
    return converter.emit(op.where(chosen, converter.tensor(on), converter.tensor(off)))


# Joining and splitting


@rule("ConcatV2")
def _concatenate(converter: Converter, node: Node, *values: Value) -> Value:
    *tensors, axis = values
    return _concat(converter, node, tensors, axis)


@rule("Concat")
def _concatenate_v1(converter: Converter, node: Node, axis: Value, *tensors: Value) -> Value:
    return _concat(converter, node, tensors, axis)


def _concat(converter: Converter, node: Node, tensors: Sequence[Value], axis: Value) -> Value:
    expressions = [converter.tensor(tensor) for tensor in tensors]
    return converter.emit(op.concat(expressions, int(converter.known(node, axis, "axis"))))


@rule("Pack")
def _pack(converter: Converter, node: Node, *tensors: Value) -> Value:
    return stack(converter, tensors, node["axis"])


def stack(converter: Converter, tensors: Sequence[Value], axis: int) -> Value:
    """Join `tensors` of one shape along a new axis."""
    if all(isinstance(tensor, np.ndarray) for tensor in tensors):
        return np.stack(tensors, axis)
    rows = [converter.emit(op.expand_dims(converter.tensor(tensor), axis)) for tensor in tensors]
    return rows[0] if len(rows) == 1 else converter.emit(op.concat(rows, axis))


@rule("Unpack")
def _unpack(converter: Converter, node: Node, tensor: Value) -> list[Value]:
    return unstack(converter, node, tensor, node["axis"])


def unstack(converter: Converter, node: Node, tensor: Value, axis: int) -> list[Value]:
    """Take `tensor` apart along `axis`, which vanishes."""
    if isinstance(tensor, np.ndarray):
        return list(np.moveaxis(tensor, axis, 0))
    shape = list(converter.shape(tensor))
    (count,) = converter.fixed(node, [shape[axis]])
    del shape[axis]
    parts = _split(converter, node, tensor, [1] * count, axis)
    return [converter.reshape(part, shape) for part in parts]


@rule("Split")
def _split_evenly(converter: Converter, node: Node, axis: Value, tensor: Value) -> list[Value]:
    position = int(converter.known(node, axis, "axis"))
    count = node["num_split"]
    (size,) = converter.fixed(node, [converter.shape(tensor)[position]])
    return _split(converter, node, tensor, [size // count] * count, position)


@rule("SplitV")
def _split_sizes(converter: Converter, node: Node, tensor: Value, sizes: Value, axis: Value) -> list[Value]:
    position = int(converter.known(node, axis, "axis"))
    parts = [int(size) for size in converter.known(node, sizes, "sizes")]
    if -1 in parts:
        (size,) = converter.fixed(node, [converter.shape(tensor)[position]])
        parts[parts.index(-1)] = size - sum(parts) - 1
    return _split(converter, node, tensor, parts, position)


def _split(converter: Converter, node: Node, tensor: Value, sizes: Sequence[int], axis: int) -> list[Value]:
    if len(sizes) == 1:
        return [tensor]
    bounds = np.cumsum(sizes)[:-1].tolist()
    parts = converter.emit(op.split(converter.tensor(tensor), bounds, axis))
    return [converter.emit(relax.TupleGetItem(parts, index)) for index in range(len(sizes))]


# Slices


def subscript(node: Node, begin: np.ndarray, end: np.ndarray, strides: np.ndarray) -> tuple[Any, ...]:
    """A StridedSlice as a NumPy index: each entry a number, a slice, an ellipsis or a new axis."""
    index: list[Any] = []
    for position, (first, last, step) in enumerate(zip(begin, end, strides, strict=True)):

        def masked(mask: str, bit: int = 1 << position) -> bool:
            return bool(node[mask] & bit)

        if masked("ellipsis_mask"):
            index.append(Ellipsis)
        elif masked("new_axis_mask"):
            index.append(None)
        elif masked("shrink_axis_mask"):
            index.append(first)
        else:
            index.append(
                slice(
                    None if masked("begin_mask") else first, None if masked("end_mask") else last, int(step)
                )
            )
    return tuple(index)


@rule("StridedSlice")
def _strided_slice(
    converter: Converter, node: Node, tensor: Value, begin: Value, end: Value, strides: Value
) -> Value:
    shape = converter.shape(tensor)
    ends = [np.asarray(converter.dimensions(node, value), object) for value in (begin, end, strides)]
    index = list(subscript(node, *ends))
    used = sum(entry is not None and entry is not Ellipsis for entry in index)
    whole = [slice(None, None, 1)] * (len(shape) - used)
    position = index.index(Ellipsis) if Ellipsis in index else len(index)
    index[position : position + 1] = whole

    axis = 0
    axes, begins, stops, steps, flipped, result = [], [], [], [], [], []
    for entry in index:
        if entry is None:
            result.append(1)
            continue
        size = shape[axis]
        if isinstance(entry, slice):
            first, last, step, backwards = _forward(converter, node, entry, size)
            length = simplified((last - first + step - 1) // step)
            result.append(length)
        else:
            first, step, backwards = _from_start(entry, size), 1, False
            last = first + 1
            length = 1
        if not _same(length, size):
            axes.append(axis)
            begins.append(first)
            stops.append(last)
            steps.append(step)
        if backwards:
            flipped.append(axis)
        axis += 1
    if axes:
        sliced = op.strided_slice(converter.tensor(tensor), axes, begins, stops, steps, assume_inbound=True)
        tensor = converter.emit(sliced)
    for flipped_axis in flipped:
        tensor = converter.emit(op.flip(converter.tensor(tensor), flipped_axis))
    sliced_only = all(isinstance(entry, slice) for entry in index)
    return tensor if sliced_only else converter.reshape(tensor, result)


def _from_start(position: Dimension, size: Dimension) -> Dimension:
    """A position counted from the start, where a negative one is counted from the end."""
    if isinstance(position, int):
        return simplified(position + size) if position < 0 else position
    if is_certain(position >= 0):
        return position
    if is_certain(position < 0):
        return simplified(position + size)
    raise Unfit(f"whether its position {position} is negative depends on an open size")


def _forward(
    converter: Converter, node: Node, entry: slice, size: Dimension
) -> tuple[Dimension, Dimension, int, bool]:
    """A slice's begin, end and positive step, within bounds, and whether it runs backwards."""
    if entry.step < 0:
        (number,) = converter.fixed(node, [size])
        positions = range(number)[entry]
        if not positions:
            return 0, 0, 1, False
        return positions[-1], positions[0] + 1, -entry.step, True
    if isinstance(size, int) and all(not isinstance(end, relax.Expr) for end in (entry.start, entry.stop)):
        positions = range(size)[entry]
        return positions.start, max(positions.start, positions.stop), entry.step, False
    first = 0 if entry.start is None else _from_start(entry.start, size)
    last = size if entry.stop is None else _from_start(entry.stop, size)
    # TensorFlow clamps a slice to the tensor.
    first, last = (simplified(tirx.min(end, size)) for end in (first, last))
    return first, last, entry.step, False


@rule("Slice")
def _slice(converter: Converter, node: Node, tensor: Value, begin: Value, size: Value) -> Value:
    shape = converter.shape(tensor)
    begins = converter.dimensions(node, begin)
    lengths = converter.dimensions(node, size)
    ends = [
        whole if _is(length, -1) else simplified(first + length)
        for whole, first, length in zip(shape, begins, lengths, strict=True)
    ]
    axes = [
        axis for axis in range(len(shape)) if not (_is(begins[axis], 0) and _same(ends[axis], shape[axis]))
    ]
    if not axes:
        return tensor
    bounds = [[values[axis] for axis in axes] for values in (begins, ends)]
    return converter.emit(op.strided_slice(converter.tensor(tensor), axes, *bounds, assume_inbound=True))


# Picking


@rule("Gather", "GatherV2")
def _gather(
    converter: Converter, node: Node, tensor: Value, indices: Value, axis: Value | None = None
) -> Value:
    position = 0 if axis is None else int(converter.known(node, axis, "axis"))
    batch = node["batch_dims"] if node.op == "GatherV2" else 0
    shape, chosen = converter.shape(tensor), converter.shape(indices)
    position %= len(shape)
    batch %= len(chosen) + 1
    if batch == 0:
        return take(converter, tensor, indices, position)
    # Batch by batch: gather_nd wants the gathered axis right after the batch axes.
    order = [*range(batch), position, *(axis for axis in range(batch, len(shape)) if axis != position)]
    moved = converter.transpose(tensor, order)
    picked = _gather_positions(converter, moved, converter.reshape(indices, [*chosen, 1]), batch)
    within, outer = len(chosen) - batch, position - batch
    order = [
        *range(batch),
        *range(batch + within, batch + within + outer),
        *range(batch, batch + within),
        *range(batch + within + outer, len(shape) - 1 + within),
    ]
    return converter.transpose(picked, order)


def take(converter: Converter, tensor: Value, indices: Value, axis: int) -> Value:
    """The entries of `tensor` along `axis` that `indices`, of any rank, name."""
    if isinstance(indices, np.ndarray) and indices.ndim == 0:
        shape = list(converter.shape(tensor))
        first = int(indices)
        row = op.strided_slice(converter.tensor(tensor), [axis], [first], [first + 1], assume_inbound=True)
        del shape[axis]
        return converter.reshape(converter.emit(row), shape)
    # TensorFlow's CPU kernel refuses an index out of bounds; no memory outside the tensor is read here.
    return converter.emit(op.take(converter.tensor(tensor), converter.tensor(indices), axis, mode="clip"))


@rule("ResourceGather", structural=True)
def _resource_gather(converter: Converter, node: Node, variable: Value, indices: Value) -> Value:
    return take(converter, converter.weights(variable), indices, 0)


@rule("GatherNd")
def _gather_nd(converter: Converter, node: Node, tensor: Value, indices: Value) -> Value:
    return _gather_positions(converter, tensor, indices, 0)


def _gather_positions(converter: Converter, tensor: Value, positions: Value, batch: int) -> Value:
    # Relax takes positions as int64 only.
    wide = op.astype(converter.tensor(positions), "int64")
    return converter.emit(op.gather_nd(converter.tensor(tensor), wide, batch))


@rule("TopKV2")
def _top_k(converter: Converter, node: Node, tensor: Value, count: Value) -> list[Value]:
    number = int(converter.known(node, count, "k"))
    both = converter.emit(op.topk(converter.tensor(tensor), number, dtype="int32"))
    return [converter.emit(relax.TupleGetItem(both, index)) for index in range(2)]


@rule("ReverseV2")
def _reverse(converter: Converter, node: Node, tensor: Value, axes: Value) -> Value:
    for axis in converter.known(node, axes, "axes"):
        tensor = converter.emit(op.flip(converter.tensor(tensor), int(axis)))
    return tensor


@rule("ReverseSequence")
def _reverse_sequence(converter: Converter, node: Node, tensor: Value, lengths: Value) -> Value:
    operands = map(converter.tensor, (tensor, lengths))
    return converter.emit(op.reverse_sequence(*operands, node["seq_dim"], node["batch_dim"]))


@rule("Roll")
def _roll(converter: Converter, node: Node, tensor: Value, shifts: Value, axes: Value) -> Value:
    steps, along = (converter.known(node, value, "shift").reshape(-1).tolist() for value in (shifts, axes))
    for shift, axis in zip(steps, along, strict=True):
        (size,) = converter.fixed(node, [converter.shape(tensor)[axis]])
        cut = -shift % size
        if cut:
            parts = _split(converter, node, tensor, [cut, size - cut], axis)
            tensor = converter.emit(op.concat([converter.tensor(part) for part in reversed(parts)], axis))
    return tensor


_SCATTERS = {
    "TensorScatterAdd": "add",
    "TensorScatterMax": "max",
    "TensorScatterMin": "min",
    "TensorScatterUpdate": "update",
}


@rule(*_SCATTERS)
def _scatter(converter: Converter, node: Node, tensor: Value, positions: Value, updates: Value) -> Value:
    wide = op.astype(converter.tensor(positions), "int64")
    changed = op.scatter_nd(converter.tensor(tensor), wide, converter.tensor(updates), _SCATTERS[node.op])
    return converter.emit(changed)


@rule("ScatterNd")
def _scatter_into_zeros(
    converter: Converter, node: Node, positions: Value, updates: Value, shape: Value
) -> Value:
    values = converter.tensor(updates)
    zeros = op.zeros(converter.dimensions(node, shape), str(values.ty.dtype))
    wide = op.astype(converter.tensor(positions), "int64")
    return converter.emit(op.scatter_nd(converter.emit(zeros), wide, values, "add"))


@rule("BroadcastArgs", "InvertPermutation", "LinSpace", "ListDiff", "MatrixDiagV3")
def _known_only(converter: Converter, node: Node, *inputs: Value) -> Value:
    raise Unfit("it takes constants only")


@rule("MatrixBandPart")
def _matrix_band_part(converter: Converter, node: Node, tensor: Value, lower: Value, upper: Value) -> Value:
    below, above = (int(converter.known(node, value, "band")) for value in (lower, upper))
    band = converter.tensor(tensor)
    if above >= 0:
        band = op.tril(band, above)
    if below >= 0:
        band = op.triu(band, -below)
    return converter.emit(band)


# Blocks of pixels


@rule("SpaceToDepth")
def _space_to_depth(converter: Converter, node: Node, tensor: Value) -> Value:
    block = node["block_size"]
    n, h, w, c = _nhwc(converter, node, tensor)
    split = converter.reshape(_to_nhwc(converter, node, tensor), [n, h // block, block, w // block, block, c])
    moved = converter.transpose(split, [0, 1, 3, 2, 4, 5])
    return _from_nhwc(
        converter, node, converter.reshape(moved, [n, h // block, w // block, block * block * c])
    )


@rule("DepthToSpace")
def _depth_to_space(converter: Converter, node: Node, tensor: Value) -> Value:
    block = node["block_size"]
    n, h, w, c = _nhwc(converter, node, tensor)
    c = c // (block * block)
    split = converter.reshape(_to_nhwc(converter, node, tensor), [n, h, w, block, block, c])
    moved = converter.transpose(split, [0, 1, 3, 2, 4, 5])
    return _from_nhwc(converter, node, converter.reshape(moved, [n, h * block, w * block, c]))


def _nhwc(converter: Converter, node: Node, tensor: Value) -> tuple[Dimension, ...]:
    n, *rest = converter.shape(tensor)
    return (n, *rest) if node["data_format"] == "NHWC" else (n, *rest[1:], rest[0])


def _to_nhwc(converter: Converter, node: Node, tensor: Value) -> Value:
    return tensor if node["data_format"] == "NHWC" else converter.transpose(tensor, [0, 2, 3, 1])


def _from_nhwc(converter: Converter, node: Node, tensor: Value) -> Value:
    return tensor if node["data_format"] == "NHWC" else converter.transpose(tensor, [0, 3, 1, 2])


@rule("SpaceToBatchND")
def _space_to_batch(converter: Converter, node: Node, tensor: Value, block: Value, pads: Value) -> Value:
    blocks = [int(size) for size in converter.known(node, block, "block shape")]
    widths = converter.known(node, pads, "paddings")
    rank, spatial = len(converter.shape(tensor)), len(blocks)
    around = np.zeros((rank, 2), int)
    around[1 : 1 + spatial] = widths
    padded = converter.emit(op.nn.pad(converter.tensor(tensor), around.reshape(-1).tolist()))
    n, *sizes = converter.shape(padded)
    split = [n]
    for size, step in zip(sizes, blocks, strict=False):
        split += [size // step, step]
    split += sizes[spatial:]
    inner = [2 + 2 * axis for axis in range(spatial)]
    outer = [1 + 2 * axis for axis in range(spatial)]
    moved = converter.transpose(
        converter.reshape(padded, split), [*inner, 0, *outer, *range(1 + 2 * spatial, len(split))]
    )
    folded = [size // step for size, step in zip(sizes, blocks, strict=False)]
    return converter.reshape(moved, [n * math.prod(blocks), *folded, *sizes[spatial:]])


@rule("BatchToSpaceND")
def _batch_to_space(converter: Converter, node: Node, tensor: Value, block: Value, crops: Value) -> Value:
    blocks = [int(size) for size in converter.known(node, block, "block shape")]
    cut = converter.known(node, crops, "crops")
    n, *sizes = converter.shape(tensor)
    spatial = len(blocks)
    n = n // math.prod(blocks)
    order = [spatial]
    for axis in range(spatial):
        order += [spatial + 1 + axis, axis]
    order += range(2 * spatial + 1, spatial + 1 + len(sizes))
    moved = converter.transpose(converter.reshape(tensor, [*blocks, n, *sizes]), order)
    grown = [size * step for size, step in zip(sizes, blocks, strict=False)]
    joined = converter.reshape(moved, [n, *grown, *sizes[spatial:]])
    axes = [axis for axis in range(spatial) if cut[axis].any()]
    if not axes:
        return joined
    begins = [int(cut[axis][0]) for axis in axes]
    ends = [simplified(grown[axis] - int(cut[axis][1])) for axis in axes]
    axes = [axis + 1 for axis in axes]
    return converter.emit(op.strided_slice(converter.tensor(joined), axes, begins, ends, assume_inbound=True))


# Padding


@rule("Pad", "PadV2")
def _pad(converter: Converter, node: Node, tensor: Value, pads: Value, fill: Value | None = None) -> Value:
    widths = converter.known(node, pads, "paddings").reshape(-1).tolist()
    if not any(widths):
        return tensor
    value = 0.0 if fill is None else float(converter.known(node, fill, "fill value"))
    return converter.emit(op.nn.pad(converter.tensor(tensor), widths, "constant", value))


@rule("MirrorPad")
def _mirror_pad(converter: Converter, node: Node, tensor: Value, pads: Value) -> Value:
    edge = {"REFLECT": 1, "SYMMETRIC": 0}[node["mode"]]
    shape = converter.shape(tensor)
    for axis, (before, after) in enumerate(converter.known(node, pads, "paddings").tolist()):
        whole = converter.tensor(tensor)

        def mirrored(first: Dimension, count: int, whole: relax.Expr = whole, axis: int = axis) -> relax.Expr:
            part = op.strided_slice(whole, [axis], [first], [first + count], assume_inbound=True)
            return converter.emit(op.flip(part, axis))

        parts = [whole]
        if before:
            parts.insert(0, mirrored(edge, before))
        if after:
            parts.append(mirrored(shape[axis] - edge - after, after))
        if len(parts) > 1:
            tensor = converter.emit(op.concat(parts, axis))
    return tensor


# Reductions


_REDUCTIONS = {"Max": op.max, "Mean": op.mean, "Min": op.min, "Prod": op.prod, "Sum": op.sum}


@rule(*_REDUCTIONS)
def _reduce(converter: Converter, node: Node, tensor: Value, axes: Value) -> Value:
    chosen = _axes(converter, node, tensor, axes)
    if not chosen:
        return tensor
    return converter.emit(_REDUCTIONS[node.op](converter.tensor(tensor), chosen, node["keep_dims"]))


@rule("All", "Any")
def _reduce_logical(converter: Converter, node: Node, tensor: Value, axes: Value) -> Value:
    reduction = op.min if node.op == "All" else op.max
    numbers = op.astype(converter.tensor(tensor), "int8")
    reduced = reduction(numbers, _axes(converter, node, tensor, axes), node["keep_dims"])
    return converter.emit(op.astype(reduced, "bool"))


def _axes(converter: Converter, node: Node, tensor: Value, axes: Value) -> list[int]:
    rank = len(converter.shape(tensor))
    return [int(axis) % rank for axis in converter.known(node, axes, "axes").reshape(-1)]


@rule("ArgMax", "ArgMin")
def _arg_reduce(converter: Converter, node: Node, tensor: Value, axis: Value | None = None) -> Value:
    reduction = op.argmax if node.op == "ArgMax" else op.argmin
    position = int(converter.known(node, axis, "axis"))
    found = reduction(converter.tensor(tensor), position)
    return converter.emit(op.astype(found, node["output_type"]))


@rule("Cumsum", "Cumprod")
def _accumulate(converter: Converter, node: Node, tensor: Value, axis: Value) -> Value:
    accumulate = op.cumsum if node.op == "Cumsum" else op.cumprod
    position = int(converter.known(node, axis, "axis"))
    position %= len(converter.shape(tensor))
    values = converter.tensor(tensor)
    if node["reverse"]:
        values = op.flip(values, position)
    values = accumulate(values, position, exclusive=node["exclusive"])
    return converter.emit(op.flip(values, position) if node["reverse"] else values)


def _product(dimensions: Any) -> Dimension:
    result: Dimension = 1
    for dimension in dimensions:
        result = dimension * result
    return result


def _is(dimension: Dimension, number: int) -> bool:
    return isinstance(dimension, int) and dimension == number


def _same(left: Dimension, right: Dimension) -> bool:
    return _is(simplified(left - right), 0)
