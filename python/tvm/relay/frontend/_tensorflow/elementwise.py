"""Operators that work element by element."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
from tvm.relax import op

from tvm import relax

from .converter import Converter
from .graph import Node
from .registry import rule
from .values import Symbolic, Value


def _like(x: relax.Expr, number: float) -> relax.Expr:
    return relax.const(number, str(x.ty.dtype))


def _unary(function: Callable[[relax.Expr], relax.Expr]) -> Callable[..., relax.Expr]:
    return lambda converter, node, x: converter.emit(function(converter.tensor(x)))


def _binary(function: Callable[[relax.Expr, relax.Expr], relax.Expr]) -> Callable[..., relax.Expr]:
    return lambda converter, node, x, y: converter.emit(function(converter.tensor(x), converter.tensor(y)))


def _elu(x: relax.Expr) -> relax.Expr:
    return op.where(op.greater(x, _like(x, 0)), x, op.subtract(op.exp(x), _like(x, 1)))


def _softsign(x: relax.Expr) -> relax.Expr:
    return op.divide(x, op.add(op.abs(x), _like(x, 1)))


def _divide_no_nan(x: relax.Expr, y: relax.Expr) -> relax.Expr:
    return op.where(op.equal(y, _like(y, 0)), _like(x, 0), op.divide(x, y))


def _where_nonzero(
    function: Callable[[relax.Expr, relax.Expr], relax.Expr],
) -> Callable[[relax.Expr, relax.Expr], relax.Expr]:
    """`function` where x is not zero, and zero where it is, whatever y is."""
    return lambda x, y: op.where(op.equal(x, _like(x, 0)), _like(x, 0), function(x, y))


def _squared_difference(x: relax.Expr, y: relax.Expr) -> relax.Expr:
    return op.square(op.subtract(x, y))


for _operators, _function in {
    ("Abs",): op.abs,
    ("Acos",): op.acos,
    ("Acosh",): op.acosh,
    ("Asin",): op.asin,
    ("Asinh",): op.asinh,
    ("Atan",): op.atan,
    ("Atanh",): op.atanh,
    ("Ceil",): op.ceil,
    ("Cos",): op.cos,
    ("Cosh",): op.cosh,
    ("Elu",): _elu,
    ("Erf",): op.erf,
    ("Erfc",): lambda x: op.subtract(_like(x, 1), op.erf(x)),
    ("Exp",): op.exp,
    ("Expm1",): lambda x: op.subtract(op.exp(x), _like(x, 1)),
    ("Floor",): op.floor,
    ("Inv", "Reciprocal"): lambda x: op.divide(_like(x, 1), x),
    ("Invert",): op.bitwise_not,
    ("IsFinite",): op.isfinite,
    ("IsInf",): op.isinf,
    ("IsNan",): op.isnan,
    ("Log",): op.log,
    ("Log1p",): lambda x: op.log(op.add(x, _like(x, 1))),
    ("LogicalNot",): op.logical_not,
    ("Neg",): op.negative,
    ("OnesLike",): op.ones_like,
    ("Relu",): op.nn.relu,
    ("Relu6",): op.nn.relu6,
    ("Rint", "Round"): op.round,
    ("Rsqrt",): op.rsqrt,
    ("Selu",): op.nn.selu,
    ("Sigmoid",): op.sigmoid,
    ("Sign",): op.sign,
    ("Sin",): op.sin,
    ("Sinh",): op.sinh,
    ("Softplus",): op.nn.softplus,
    ("Softsign",): _softsign,
    ("Sqrt",): op.sqrt,
    ("Square",): op.square,
    ("Tan",): op.tan,
    ("Tanh",): op.tanh,
    ("ZerosLike",): op.zeros_like,
}.items():
    rule(*_operators)(_unary(_function))

for _operators, _function in {
    ("Add", "AddV2"): op.add,
    ("Atan2",): op.atan2,
    ("BitwiseAnd",): op.bitwise_and,
    ("BitwiseOr",): op.bitwise_or,
    ("BitwiseXor",): op.bitwise_xor,
    ("Div", "RealDiv", "TruncateDiv"): op.divide,
    ("DivNoNan",): _divide_no_nan,
    ("Equal",): op.equal,
    ("FloorDiv",): op.floor_divide,
    ("FloorMod",): op.floor_mod,
    ("Greater",): op.greater,
    ("GreaterEqual",): op.greater_equal,
    ("LeftShift",): op.left_shift,
    ("Less",): op.less,
    ("LessEqual",): op.less_equal,
    ("LogicalAnd",): op.logical_and,
    ("LogicalOr",): op.logical_or,
    ("Maximum",): op.maximum,
    ("Minimum",): op.minimum,
    ("Mod", "TruncateMod"): op.mod,
    ("Mul",): op.multiply,
    ("MulNoNan",): lambda x, y: _where_nonzero(op.multiply)(y, x),
    ("NotEqual",): op.not_equal,
    ("Pow",): op.power,
    ("RightShift",): op.right_shift,
    ("SquaredDifference",): _squared_difference,
    ("Sub",): op.subtract,
    ("Xdivy",): _where_nonzero(op.divide),
    ("Xlogy",): _where_nonzero(lambda x, y: op.multiply(x, op.log(y))),
}.items():
    rule(*_operators)(_binary(_function))


@rule("AddN")
def _add_n(converter: Converter, node: Node, *terms: Value) -> Value:
    return converter.emit(reduce(op.add, map(converter.tensor, terms)))


@rule("LeakyRelu")
def _leaky_relu(converter: Converter, node: Node, x: Value) -> Value:
    return converter.emit(op.nn.leakyrelu(converter.tensor(x), node["alpha"]))


@rule("ClipByValue")
def _clip(converter: Converter, node: Node, x: Value, low: Value, high: Value) -> Value:
    bounded = op.minimum(converter.tensor(x), converter.tensor(high))
    return converter.emit(op.maximum(bounded, converter.tensor(low)))


@rule("Cast")
def _cast(converter: Converter, node: Node, x: Value) -> Value:
    if isinstance(x, Symbolic) and node["DstT"] in ("int32", "int64"):
        return Symbolic(x.array, node["DstT"])
    tensor = converter.tensor(x)
    if node["DstT"] == "bool":
        return converter.emit(op.not_equal(tensor, _like(tensor, 0)))
    return converter.emit(op.astype(tensor, node["DstT"]))


@rule("SelectV2")
def _select(converter: Converter, node: Node, condition: Value, x: Value, y: Value) -> Value:
    return converter.emit(op.where(*map(converter.tensor, (condition, x, y))))


@rule("Select")
def _select_rows(converter: Converter, node: Node, condition: Value, x: Value, y: Value) -> Value:
    # A vector chooses between rows, where SelectV2 would broadcast it along the last axis.
    rank, own = len(converter.shape(x)), converter.shape(condition)
    if len(own) == 1 and rank > 1:
        condition = converter.reshape(condition, [*own, *[1] * (rank - 1)])
    return _select(converter, node, condition, x, y)


@rule("FakeQuantWithMinMaxArgs", "FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxVarsPerChannel")
def _fake_quantise(converter: Converter, node: Node, x: Value, *ends: Value) -> Value:
    """Round to the grid of a quantised tensor (Jacob et al., arXiv:1712.05877, section 3): its range is moved
    so that zero lies on the grid."""
    if ends:
        low, high = (converter.known(node, end, "range").astype("float64") for end in ends)
    else:
        low, high = (np.asarray(node[end], "float64") for end in ("min", "max"))
    bottom, top = float(node["narrow_range"]), float(2 ** node["num_bits"] - 1)
    scale = (high - low) / (top - bottom)
    zero = np.clip(np.floor(bottom - low / scale + 0.5), bottom, top)

    def constant(array: Any) -> relax.Expr:
        return converter.tensor(np.asarray(array, "float32"))

    clipped = op.minimum(converter.tensor(x), constant((top - zero) * scale))
    clipped = op.maximum(clipped, constant((bottom - zero) * scale))
    shifted = op.subtract(clipped, constant((bottom - zero) * scale))
    steps = op.floor(op.add(op.multiply(shifted, constant(1 / scale)), constant(0.5)))
    return converter.emit(op.add(op.multiply(steps, constant(scale)), constant((bottom - zero) * scale)))
