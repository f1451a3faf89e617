"""Rules that move elements and leave the stored numbers as they are: shapes, slices, joins, padding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm.relax import op

from tvm import relax

from .node import Node, Rule, Value


def reshape(node: Node) -> Value:
    value = node.input(0)
    if node.has_input(1):
        target = node.integers(1)
    else:
        options = node.options("ReshapeOptions")
        target = [options.NewShape(i) for i in range(options.NewShapeLength())]
    return node.moved(value, op.reshape(node.movable(value), _with_batch(node, value, target)))


def _with_batch(node: Node, value: Value, target: list[Any]) -> list[Any]:
    """`target` with the batch that `value` has now.

    A file made for one batch size often writes it into its RESHAPEs. Where the input and the target begin
    with that same number, each batch element is reshaped by itself, so another number may take its place.
    """
    declared, shape = list(node.input_tensor(0).shape), node.shape(value)
    keeps_batch = bool(declared and target) and declared[0] == target[0] and -1 not in target
    if keeps_batch and shape[0] != declared[0] and shape[1:] == declared[1:]:
        return [shape[0], *target[1:]]
    return target


def squeeze(node: Node) -> Value:
    value, options = node.input(0), node.options("SqueezeOptions")
    axes = [options.SqueezeDims(i) for i in range(options.SqueezeDimsLength())]
    return node.moved(value, op.squeeze(node.movable(value), axes or None))


def expand_dims(node: Node) -> Value:
    value = node.input(0)
    return node.moved(value, op.expand_dims(node.movable(value), node.integers(1)))


def transpose(node: Node) -> Value:
    value = node.input(0)
    return node.moved(value, op.permute_dims(node.movable(value), node.integers(1)))


def concatenation(node: Node) -> Value:
    options = node.options("ConcatenationOptions")
    parts = [node.rescaled(value) for value in node.inputs()]
    return node.bounded_result(op.concat(parts, options.Axis()), node.activation(options))


def pack(node: Node) -> Value:
    parts = [node.rescaled(value) for value in node.inputs()]
    return node.result(op.stack(parts, node.options("PackOptions").Axis()))


def unpack(node: Node) -> list[Value]:
    value, axis = node.input(0), node.options("UnpackOptions").Axis()
    count = len(node.operator.outputs)
    parts = _parts(node, value, count, count, axis)
    return [node.moved(value, op.squeeze(part, [axis]), i) for i, part in enumerate(parts)]


def split(node: Node) -> list[Value]:
    (axis,), value = node.integers(0), node.input(1)
    count = len(node.operator.outputs)
    return [node.moved(value, part, i) for i, part in enumerate(_parts(node, value, count, count, axis))]


def split_v(node: Node) -> list[Value]:
    value, sizes, (axis,) = node.input(0), node.integers(1), node.integers(2)
    if -1 in sizes:
        sizes[sizes.index(-1)] = node.shape(value)[axis] - sum(size for size in sizes if size != -1)
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
    return [node.moved(value, part, i) for i, part in enumerate(_parts(node, value, ends, len(sizes), axis))]


def _parts(node: Node, value: Value, sections: Any, count: int, axis: int) -> list[relax.Expr]:
    expr = node.movable(value)
    if count == 1:
        return [expr]
    parts = node.emit(op.split(expr, sections, axis))
    return [parts[i] for i in range(count)]


def slice_(node: Node) -> Value:
    value, begin, size = node.input(0), node.integers(1), node.integers(2)
    end = [
        extent if length == -1 else start + length
        for start, length, extent in zip(begin, size, node.shape(value), strict=True)
    ]
    return node.moved(value, op.strided_slice(node.movable(value), list(range(len(begin))), begin, end))


def strided_slice_index(node: Node, rank: int) -> tuple[Any, ...]:
    """STRIDED_SLICE's operands and masks as NumPy's basic index."""
    options = node.options("StridedSliceOptions")
    begin, end, strides = (node.integers(position) for position in (1, 2, 3))
    index: list[Any] = []
    for i, (start, stop, step) in enumerate(zip(begin, end, strides, strict=True)):
        if options.EllipsisMask() >> i & 1:
            index.append(Ellipsis)
        elif options.NewAxisMask() >> i & 1:
            index.append(None)
        elif options.ShrinkAxisMask() >> i & 1:
            index.append(start)
        else:
            if options.Offset():
                stop = start + stop
            masked_start = None if options.BeginMask() >> i & 1 else start
            index.append(slice(masked_start, None if options.EndMask() >> i & 1 else stop, step))
    if Ellipsis not in index:
        index.append(Ellipsis)
    at = index.index(Ellipsis)
    missing = rank - sum(item is not None and item is not Ellipsis for item in index)
    if missing < 0:
        raise node.refuse(f"it slices more axes than the {rank} of its input")
    return (*index[:at], *[slice(None)] * missing, *index[at + 1 :])


def strided_slice(node: Node) -> Value:
    value = node.input(0)
    shape = node.shape(value)
    expr, extents = node.movable(value), iter(enumerate(shape))
    axes, begin, end, strides, result = [], [], [], [], []
    for item in strided_slice_index(node, len(shape)):
        if item is None:
            result.append(1)
            continue
        axis, extent = next(extents)
        if item == slice(None):
            result.append(extent)
            continue
        extent = node.static_extent(extent, f"axis {axis} of its input")
        if isinstance(item, slice):
            positions = range(extent)[item]
            result.append(len(positions))
        else:
            positions = range(extent)[item : item + 1 or None]
            if len(positions) != 1:
                raise node.refuse(f"it takes element {item} of an axis of {extent}")
        axes.append(axis)
        begin.append(positions.start)
        # A negative end counts from the end in TVM too, so going down past 0 is -extent - 1.
        end.append(positions.stop if positions.stop >= 0 else -extent - 1)
        strides.append(positions.step)
    if axes:
        expr = op.strided_slice(expr, axes, begin, end, strides)
    return node.moved(value, op.reshape(expr, result))


def gather(node: Node) -> Value:
    options, value = node.options("GatherOptions"), node.input(0)
    if options.BatchDims():
        raise node.refuse("batch dimensions are not supported")
    # An index out of range must not read memory that is not the tensor's.
    taken = op.take(node.movable(value), node.carried(node.input(1)), axis=options.Axis(), mode="clip")
    return node.moved(value, taken)


def embedding_lookup(node: Node) -> Value:
    value = node.input(1)
    return node.moved(value, op.take(node.movable(value), node.carried(node.input(0)), axis=0, mode="clip"))


def gather_nd(node: Node) -> Value:
    value, indices = node.input(0), op.astype(node.carried(node.input(1)), "int64")
    extents = node.shape(value)[: node.shape(node.input(1))[-1]]
    last = np.array([node.static_extent(extent, "its input's shape") - 1 for extent in extents], np.int64)
    within = op.minimum(op.maximum(indices, relax.const(0, "int64")), node.constant(last, "last"))
    return node.moved(value, op.gather_nd(node.movable(value), within))


def tile(node: Node) -> Value:
    value = node.input(0)
    return node.moved(value, op.tile(node.movable(value), node.integers(1)))


def broadcast_to(node: Node) -> Value:
    value = node.input(0)
    return node.moved(value, op.broadcast_to(node.movable(value), node.integers(1)))


def reverse(node: Node) -> Value:
    value = node.input(0)
    expr = node.movable(value)
    for axis in node.integers(1):
        expr = op.flip(expr, axis)
    return node.moved(value, expr)


def pad(node: Node) -> Value:
    """PAD fills with (real) zero; PADV2 with a value that is stored as its input is."""
    value = node.input(0)
    fill = 0.0
    if node.has_input(2):
        fill = float(node.host(2).reshape(-1)[0]) - (
            value.quantisation.zero_point if value.quantisation else 0
        )
    return node.moved(
        value, op.nn.pad(node.movable(value), _widths(node).reshape(-1).tolist(), pad_value=fill)
    )


def mirror_pad(node: Node) -> Value:
    """Each padded axis by index, which serves both modes: REFLECT leaves the edge itself out."""
    value = node.input(0)
    mode = node.options("MirrorPadOptions").Mode()
    name = "reflect" if mode == node.schema.MirrorPadMode.REFLECT else "symmetric"
    expr = node.movable(value)
    for axis, (width, extent) in enumerate(zip(_widths(node), node.shape(value), strict=True)):
        if width.any():
            extent = node.static_extent(extent, f"axis {axis} of its input")
            indices = np.pad(np.arange(extent, dtype=np.int32), width, mode=name)
            expr = op.take(expr, node.constant(indices, f"axis{axis}"), axis=axis, mode="clip")
    return node.moved(value, expr)


def _widths(node: Node) -> np.ndarray:
    """The paddings of input 1, an int array of shape (rank, 2)."""
    widths = np.array(node.integers(1), np.int64).reshape(-1, 2)
    if len(widths) != len(node.shape(node.input(0))) or widths.min(initial=0) < 0:
        raise node.refuse("its paddings do not fit its input")
    return widths


def depth_to_space(node: Node) -> Value:
    value, block = node.input(0), node.options("DepthToSpaceOptions").BlockSize()
    batch, height, width, depth = node.shape(value)
    channels = depth // block**2
    split_depth = op.reshape(node.movable(value), (batch, height, width, block, block, channels))
    pixels = op.permute_dims(split_depth, (0, 1, 3, 2, 4, 5))
    return node.moved(value, op.reshape(pixels, (batch, height * block, width * block, channels)))


def space_to_depth(node: Node) -> Value:
    value, block = node.input(0), node.options("SpaceToDepthOptions").BlockSize()
    batch, height, width, channels = node.shape(value)
    blocks = op.reshape(node.movable(value), (batch, height // block, block, width // block, block, channels))
    depth = op.permute_dims(blocks, (0, 1, 3, 2, 4, 5))
    return node.moved(value, op.reshape(depth, (batch, height // block, width // block, channels * block**2)))


def space_to_batch_nd(node: Node) -> Value:
    value, blocks = node.input(0), node.integers(1)
    batch, *extents = node.shape(value)
    widths = np.array(node.integers(2)).reshape(-1, 2)
    count = len(blocks)
    rest = extents[count:]
    around = [0, 0, *widths.reshape(-1).tolist(), *[0, 0] * len(rest)]
    padded = op.nn.pad(node.movable(value), around)
    outer = [(e + int(w.sum())) // b for e, w, b in zip(extents[:count], widths, blocks, strict=True)]
    split_space = op.reshape(padded, [batch, *_interleaved(outer, blocks), *rest])
    order = [
        *range(2, 2 * count + 1, 2),
        0,
        *range(1, 2 * count + 1, 2),
        *range(2 * count + 1, 2 * count + 1 + len(rest)),
    ]
    moved = op.permute_dims(split_space, order)
    return node.moved(value, op.reshape(moved, [batch * math.prod(blocks), *outer, *rest]))


def batch_to_space_nd(node: Node) -> Value:
    value, blocks = node.input(0), node.integers(1)
    batch, *extents = node.shape(value)
    crops = np.array(node.integers(2)).reshape(-1, 2)
    count = len(blocks)
    rest = extents[count:]
    batch = batch // math.prod(blocks)
    split_batch = op.reshape(node.movable(value), [*blocks, batch, *extents])
    space = _interleaved(range(count + 1, 2 * count + 1), range(count))
    moved = op.permute_dims(split_batch, [count, *space, *range(2 * count + 1, 2 * count + 1 + len(rest))])
    outer = [extent * block for extent, block in zip(extents[:count], blocks, strict=True)]
    whole = op.reshape(moved, [batch, *outer, *rest])
    begin = [int(before) for before, _ in crops]
    end = [extent - int(after) for extent, (_, after) in zip(outer, crops, strict=True)]
    return node.moved(value, op.strided_slice(whole, list(range(1, count + 1)), begin, end))


def _interleaved(first: Sequence[Any], second: Sequence[Any]) -> list[Any]:
    return [item for pair in zip(first, second, strict=True) for item in pair]


MOVEMENT: dict[str, Rule] = {
    "BATCH_TO_SPACE_ND": batch_to_space_nd,
    "BROADCAST_TO": broadcast_to,
    "CONCATENATION": concatenation,
    "DEPTH_TO_SPACE": depth_to_space,
    "EMBEDDING_LOOKUP": embedding_lookup,
    "EXPAND_DIMS": expand_dims,
    "GATHER": gather,
    "GATHER_ND": gather_nd,
    "MIRROR_PAD": mirror_pad,
    "PACK": pack,
    "PAD": pad,
    "PADV2": pad,
    "RESHAPE": reshape,
    "REVERSE_V2": reverse,
    "SLICE": slice_,
    "SPACE_TO_BATCH_ND": space_to_batch_nd,
    "SPACE_TO_DEPTH": space_to_depth,
    "SPLIT": split,
    "SPLIT_V": split_v,
    "SQUEEZE": squeeze,
    "STRIDED_SLICE": strided_slice,
    "TILE": tile,
    "TRANSPOSE": transpose,
    "UNPACK": unpack,
}
