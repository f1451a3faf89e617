"""Rules for matrix products, reductions along axes, and normalisations."""

from __future__ import annotations

import math
from collections.abc import Callable

from tvm.relax import op

from tvm import relax

from .node import Node, Rule, Value, scalar, ties_away
from .spatial import accumulate, optional_input


def fully_connected(node: Node) -> Value:
    options = node.options("FullyConnectedOptions")
    if options.WeightsFormat() != node.schema.FullyConnectedOptionsWeightsFormat.DEFAULT:
        raise node.refuse("shuffled weights are not supported")
    x = node.input(0)
    shape, depth = node.shape(x), node.shape(node.input(1))[1]
    weights = node.arranged(node.input(1), axes=(1, 0))
    rows = shape[:-1] if options.KeepNumDims() else [math.prod(shape) // depth]

    def product(data: relax.Expr, matrix: relax.Expr) -> relax.Expr:
        if [*rows, depth] != shape:
            data = op.reshape(data, [*rows, depth])
        return op.matmul(data, matrix)

    return accumulate(node, x, weights, optional_input(node, 2), product, node.activation(options))


def batch_matmul(node: Node) -> Value:
    options = node.options("BatchMatMulOptions")
    x, y = node.inputs()
    adjoint = (options.AdjX(), options.AdjY())

    def product(*factors: relax.Expr) -> relax.Expr:
        return op.matmul(*(swapped(f) if swap else f for f, swap in zip(factors, adjoint, strict=True)))

    def swapped(matrix: relax.Expr) -> relax.Expr:
        order = list(range(matrix.ty.ndim))
        return op.permute_dims(matrix, [*order[:-2], order[-1], order[-2]])

    return accumulate(node, x, y, None, product, "NONE")


def reduction_axes(node: Node) -> list[int]:
    """The axes that input 1 names; all of them where it is empty."""
    rank = len(node.shape(node.input(0)))
    axes = {node.static_extent(axis, "its axes") for axis in node.integers(1)}
    if not all(-rank <= axis < rank for axis in axes):
        raise node.refuse(f"it reduces axes that its input of {rank} axes lacks")
    return sorted(axis % rank for axis in axes)


def _reduction(function: Callable[..., relax.Expr]) -> Rule:
    """A reduction that commutes with a scale, so that quantised steps are reduced as they are."""

    def rule(node: Node) -> Value:
        expr, scale = node.scaled(node.input(0))
        keep = node.options("ReducerOptions").KeepDims()
        return node.real_result(function(expr, reduction_axes(node), keep), scale)

    return rule


def mean(node: Node) -> Value:
    value, tensor = node.input(0), node.output_tensor()
    if "int" not in tensor.dtype or value.quantisation is not None:
        return _reduction(op.mean)(node)
    axes = reduction_axes(node)
    count = math.prod(node.static_extent(node.shape(value)[axis], "its input's shape") for axis in axes)
    total = op.sum(node.carried(value), axes, node.options("ReducerOptions").KeepDims())
    return node.result(op.divide(total, relax.const(count, tensor.dtype)))


def sum_(node: Node) -> Value:
    """Quantised, TFLite rounds ties away from zero."""
    expr, scale = node.scaled(node.input(0))
    total = op.sum(expr, reduction_axes(node), node.options("ReducerOptions").KeepDims())
    quantisation = node.output_tensor().quantisation
    if quantisation is None:
        return node.real_result(total, scale)
    return node.steps_result(ties_away(op.multiply(total, scalar((scale / quantisation.scale).item()))))


def reduce_prod(node: Node) -> Value:
    keep = node.options("ReducerOptions").KeepDims()
    return node.real_result(op.prod(node.real(node.input(0)), reduction_axes(node), keep))


def _reduce_bool(function: Callable[..., relax.Expr]) -> Rule:
    def rule(node: Node) -> Value:
        keep = node.options("ReducerOptions").KeepDims()
        counts = op.astype(node.carried(node.input(0)), "int8")
        return node.result(op.astype(function(counts, reduction_axes(node), keep), "bool"))

    return rule


def _arg(function: Callable[..., relax.Expr]) -> Rule:
    def rule(node: Node) -> Value:
        (axis,) = node.integers(1)
        found = function(node.carried(node.input(0)), axis)
        return node.result(op.astype(found, node.output_tensor().dtype))

    return rule


def top_k(node: Node) -> list[Value]:
    value = node.input(0)
    (k,) = node.integers(1)
    found = node.emit(
        op.topk(
            node.movable(value),
            node.static_extent(k, "k"),
            ret_type="both",
            dtype=node.output_tensor(1).dtype,
        )
    )
    return [node.moved(value, found[0]), node.result(found[1], 1)]


def softmax(node: Node) -> Value:
    x = node.real(node.input(0))
    beta = node.options("SoftmaxOptions").Beta()
    return node.real_result(op.nn.softmax(x if beta == 1 else op.multiply(x, scalar(beta))))


def log_softmax(node: Node) -> Value:
    return node.real_result(op.nn.log_softmax(node.real(node.input(0))))


def l2_normalization(node: Node) -> Value:
    """Along the last axis. A quantised input's scale cancels; TFLite's lower limit is for real numbers."""
    x = node.real(node.input(0))
    norm = op.sqrt(op.sum(op.square(x), -1, keepdims=True))
    unit = op.divide(x, op.maximum(norm, scalar(1e-6)))
    return node.real_result(unit, activation=node.activation(node.options("L2NormOptions")))


LINEAR: dict[str, Rule] = {
    "ARG_MAX": _arg(op.argmax),
    "ARG_MIN": _arg(op.argmin),
    "BATCH_MATMUL": batch_matmul,
    "FULLY_CONNECTED": fully_connected,
    "L2_NORMALIZATION": l2_normalization,
    "LOG_SOFTMAX": log_softmax,
    "MEAN": mean,
    "REDUCE_ALL": _reduce_bool(op.min),
    "REDUCE_ANY": _reduce_bool(op.max),
    "REDUCE_MAX": _reduction(op.max),
    "REDUCE_MIN": _reduction(op.min),
    "REDUCE_PROD": reduce_prod,
    "SOFTMAX": softmax,
    "SUM": sum_,
    "TOPK_V2": top_k,
}
