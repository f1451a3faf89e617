"""Rules for tensors that are known when the model is compiled: shapes, ranges, and arithmetic on them.

A model with a dynamic batch computes its shapes in the graph (SHAPE, STRIDED_SLICE, PACK, RESHAPE). Such
chains are evaluated here in NumPy, where a dynamic extent is an element of an object array, so that what
remains is a RESHAPE with a symbolic shape.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm.relax import op

from .movement import strided_slice_index
from .node import Node, Rule, Value


def fold(node: Node) -> Value | None:
    """The output of an operator all of whose inputs are known, if it is one that `FOLDED` knows."""
    values = [node.input(i) for i in range(node.input_count) if node.has_input(i)]
    known = all(value.array is not None and value.quantisation is None for value in values)
    tensor = node.output_tensor() if node.operator.outputs else None
    if node.operator.name not in FOLDED or not known or tensor.quantisation is not None:
        return None
    array = np.asarray(FOLDED[node.operator.name](node, *(value.array for value in values)))
    return Value(tensor.name, array=array if array.dtype == object else array.astype(tensor.dtype))


def _slice(node: Node, array: np.ndarray, begin: np.ndarray, size: np.ndarray) -> np.ndarray:
    return array[
        tuple(
            slice(b, None if s == -1 else b + s)
            for b, s in zip(node.integers(1), node.integers(2), strict=True)
        )
    ]


def _squeeze(node: Node, array: np.ndarray) -> np.ndarray:
    options = node.options("SqueezeOptions")
    return array.squeeze(tuple(options.SqueezeDims(i) for i in range(options.SqueezeDimsLength())) or None)


FOLDED: dict[str, Callable[..., np.ndarray]] = {
    "ADD": lambda node, x, y: x + y,
    "CAST": lambda node, x: x,
    "CONCATENATION": lambda node, *xs: np.concatenate(xs, node.options("ConcatenationOptions").Axis()),
    "EXPAND_DIMS": lambda node, x, axis: np.expand_dims(x, int(axis.reshape(-1)[0])),
    "FLOOR_DIV": lambda node, x, y: x // y,
    "GATHER": lambda node, x, i: x.take(i, node.options("GatherOptions").Axis()),
    "MAXIMUM": lambda node, x, y: np.maximum(x, y),
    "MINIMUM": lambda node, x, y: np.minimum(x, y),
    "MUL": lambda node, x, y: x * y,
    "PACK": lambda node, *xs: np.stack(xs, node.options("PackOptions").Axis()),
    "RANGE": lambda node, start, limit, step: np.arange(start.item(), limit.item(), step.item()),
    "REDUCE_PROD": lambda node, x, axes: x.prod(
        tuple(axes.reshape(-1)), keepdims=node.options("ReducerOptions").KeepDims()
    ),
    "RESHAPE": lambda node, x, shape: x.reshape(shape),
    "SLICE": _slice,
    "SQUEEZE": _squeeze,
    "STRIDED_SLICE": lambda node, x, *_: x[strided_slice_index(node, x.ndim)],
    "SUB": lambda node, x, y: x - y,
}


def shape(node: Node) -> Value:
    tensor, extents = node.output_tensor(), node.shape(node.input(0))
    dtype = tensor.dtype if all(isinstance(extent, int) for extent in extents) else object
    return Value(tensor.name, array=np.array(extents, dtype))


def rank(node: Node) -> Value:
    tensor = node.output_tensor()
    return Value(tensor.name, array=np.array(len(node.shape(node.input(0))), tensor.dtype))


def fill(node: Node) -> Value:
    value = node.input(1)
    return node.moved(value, op.broadcast_to(node.movable(value), node.integers(0)))


def zeros_like(node: Node) -> Value:
    expr = node.movable(node.input(0))
    return node.result(op.zeros_like(expr))


def densify(node: Node) -> Value:
    """The sparse format is undone where the file is read."""
    node.host(0)
    return node.input(0)


SHAPES: dict[str, Rule] = {
    "DENSIFY": densify,
    "FILL": fill,
    "RANK": rank,
    "SHAPE": shape,
    "ZEROS_LIKE": zeros_like,
}
