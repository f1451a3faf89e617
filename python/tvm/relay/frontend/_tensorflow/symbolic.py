"""Arithmetic on shapes with symbolic sizes, at import time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tvm import relax, tirx

from .arrays import subscript
from .graph import Node
from .registry import symbolic


def _elementwise(function: Callable[[Any, Any], Any]) -> Callable[..., list[np.ndarray]]:
    vectorised = np.frompyfunc(function, 2, 1)
    return lambda node, left, right: [vectorised(left.astype(object), right.astype(object))]


def _either(expression: Callable[..., Any], number: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    def choose(left: Any, right: Any) -> Any:
        symbols = isinstance(left, relax.Expr) or isinstance(right, relax.Expr)
        return expression(left, right) if symbols else number(left, right)

    return choose


for _operators, _function in (
    (("Add", "AddV2"), lambda left, right: left + right),
    (("Sub",), lambda left, right: left - right),
    (("Mul",), lambda left, right: left * right),
    (("FloorDiv",), lambda left, right: left // right),
    (("FloorMod",), lambda left, right: left % right),
    (("Maximum",), _either(tirx.max, max)),
    (("Minimum",), _either(tirx.min, min)),
):
    symbolic(*_operators)(_elementwise(_function))


@symbolic("SelectV2")
def _select(node: Node, condition: np.ndarray, x: np.ndarray, y: np.ndarray) -> list[Any] | None:
    return None if condition.dtype == object else [np.where(condition, x, y)]


@symbolic("Neg")
def _negative(node: Node, array: np.ndarray) -> list[Any]:
    return [-array]


@symbolic("Sum", "Prod")
def _reduce(node: Node, array: np.ndarray, axes: np.ndarray) -> list[Any]:
    reduction = np.sum if node.op == "Sum" else np.prod
    return [reduction(array, axis=tuple(axes.reshape(-1)), keepdims=node["keep_dims"])]


@symbolic("Pack")
def _pack(node: Node, *arrays: np.ndarray) -> list[Any]:
    return [np.stack([array.astype(object) for array in arrays], node["axis"])]


@symbolic("Unpack")
def _unpack(node: Node, array: np.ndarray) -> list[Any]:
    return list(np.moveaxis(array, node["axis"], 0))


@symbolic("ConcatV2")
def _concatenate(node: Node, *arrays: np.ndarray) -> list[Any]:
    return [np.concatenate([array.astype(object) for array in arrays[:-1]], int(arrays[-1]))]


@symbolic("StridedSlice")
def _strided_slice(
    node: Node, array: np.ndarray, begin: np.ndarray, end: np.ndarray, strides: np.ndarray
) -> list[Any]:
    return [array[subscript(node, begin, end, strides)]]


@symbolic("Slice")
def _slice(node: Node, array: np.ndarray, begin: np.ndarray, size: np.ndarray) -> list[Any]:
    slices = (slice(b, None if s < 0 else b + s) for b, s in zip(begin, size, strict=True))
    return [array[tuple(slices)]]


@symbolic("GatherV2", "Gather")
def _gather(
    node: Node, array: np.ndarray, indices: np.ndarray, axis: np.ndarray | int = 0
) -> list[Any] | None:
    if array.dtype != object or indices.dtype == object:
        return None
    return [np.take(array, indices, int(axis))]


@symbolic("Reshape")
def _reshape(node: Node, array: np.ndarray, shape: np.ndarray) -> list[Any]:
    return [array.reshape(tuple(shape))]


@symbolic("ExpandDims")
def _expand(node: Node, array: np.ndarray, axis: np.ndarray) -> list[Any]:
    return [np.expand_dims(array, int(axis))]


@symbolic("Squeeze")
def _squeeze(node: Node, array: np.ndarray) -> list[Any]:
    return [np.squeeze(array, tuple(node["squeeze_dims"]) or None)]
