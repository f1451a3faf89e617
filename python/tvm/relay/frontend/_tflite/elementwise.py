"""Rules that work element by element: arithmetic, comparisons, activations, changes of type."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm.relax import op

from tvm import relax

from .node import Node, Rule, Value, fixed_point_product, scalar


def _unary(function: Callable[[relax.Expr], relax.Expr]) -> Rule:
    def rule(node: Node) -> Value:
        return node.real_result(function(node.real(node.input(0))))

    return rule


def _clipping(activation: str) -> Rule:
    def rule(node: Node) -> Value:
        return node.bounded_result(node.rescaled(node.input(0)), activation)

    return rule


def _sum(sign: int, options: str) -> Rule:
    """ADD (`sign` 1) and SUB (-1)."""

    def rule(node: Node) -> Value:
        activation = node.activation(node.options(options))
        operands = [*node.inputs(), node.output_tensor()]
        if node.output_tensor().dtype in ("int8", "uint8") and all(each.quantisation for each in operands):
            return node.steps_result(_fixed_point_sum(node, sign), activation)
        x, y = (node.real(value) for value in node.inputs())
        return node.real_result(op.add(x, y) if sign == 1 else op.subtract(x, y), activation=activation)

    return rule


def _fixed_point_sum(node: Node, sign: int) -> relax.Expr:
    """The rounded sum of two 8-bit tensors in the output's steps, in 32-bit integers as XNNPACK does it.

    Sums of steps whose scales are simple ratios fall on ties often, so that nothing but the same arithmetic
    gives the same results: each scale relative to the output's becomes an integer multiple of 2**-shift,
    21 bits long for the larger one, and the sum is shifted back with ties rounded up.
    """
    (x, x_scale), (y, y_scale) = (node.scaled(value) for value in node.inputs())
    ratios = [(scale / node.output_tensor().quantisation.scale).item() for scale in (x_scale, y_scale)]
    _, exponent = np.frexp(max(ratios))
    shift = 21 - int(exponent)
    x_factor, y_factor = (int(np.rint(np.ldexp(ratio, shift))) for ratio in ratios)
    total = op.add(
        op.multiply(op.astype(x, "int32"), relax.const(x_factor, "int32")),
        op.multiply(op.astype(y, "int32"), relax.const(sign * y_factor, "int32")),
    )
    rounded = op.right_shift(
        op.add(total, relax.const(1 << (shift - 1), "int32")), relax.const(shift, "int32")
    )
    return op.astype(rounded, "float32")


def multiply(node: Node) -> Value:
    (x, x_scale), (y, y_scale) = (node.scaled(value) for value in node.inputs())
    activation = node.activation(node.options("MulOptions"))
    return node.real_result(op.multiply(x, y), x_scale * y_scale, activation)


def divide(node: Node) -> Value:
    activation = node.activation(node.options("DivOptions"))
    return node.real_result(op.divide(*_dividend_and_divisor(node)), activation=activation)


def _whole_quotient(function: Callable[[relax.Expr, relax.Expr], relax.Expr]) -> Rule:
    def rule(node: Node) -> Value:
        return node.real_result(function(*_dividend_and_divisor(node)))

    return rule


def _dividend_and_divisor(node: Node) -> tuple[relax.Expr, relax.Expr]:
    """The operands of a division; an integer divisor of 0, which would end the process, becomes 1."""
    x, y = (node.real(value) for value in node.inputs())
    if "int" in str(y.ty.dtype):
        zero, one = (relax.const(number, str(y.ty.dtype)) for number in (0, 1))
        y = node.emit(op.where(op.equal(y, zero), one, y))
    return x, y


def _binary(function: Callable[[relax.Expr, relax.Expr], relax.Expr]) -> Rule:
    def rule(node: Node) -> Value:
        return node.real_result(function(*(node.real(value) for value in node.inputs())))

    return rule


def _extremum(function: Callable[[relax.Expr, relax.Expr], relax.Expr]) -> Rule:
    def rule(node: Node) -> Value:
        return node.result(function(*(node.rescaled(value) for value in node.inputs())))

    return rule


def _comparison(function: Callable[[relax.Expr, relax.Expr], relax.Expr]) -> Rule:
    def rule(node: Node) -> Value:
        return node.result(function(*node.alike(node.inputs())[0]))

    return rule


def _logical(function: Callable[..., relax.Expr]) -> Rule:
    def rule(node: Node) -> Value:
        return node.result(function(*(node.carried(value) for value in node.inputs())))

    return rule


def add_n(node: Node) -> Value:
    total, *others = (node.real(value) for value in node.inputs())
    for other in others:
        total = op.add(total, other)
    return node.real_result(total)


def squared_difference(node: Node) -> Value:
    (x, y), scale = node.alike(node.inputs())
    return node.real_result(op.square(op.subtract(x, y)), scale * scale)


def elu(x: relax.Expr) -> relax.Expr:
    return op.where(op.less(x, scalar(0.0)), op.subtract(op.exp(x), scalar(1.0)), x)


def gelu(node: Node) -> Value:
    function = op.nn.gelu_tanh if node.options("GeluOptions").Approximate() else op.nn.gelu
    return node.real_result(function(node.real(node.input(0))))


def hard_swish(x: relax.Expr) -> relax.Expr:
    return op.multiply(x, op.multiply(op.clip(op.add(x, scalar(3.0)), 0.0, 6.0), scalar(1 / 6)))


def leaky_relu(node: Node) -> Value:
    """Quantised, XNNPACK keeps 8 bits behind the point of both factors, and rounds ties up."""
    x, scale = node.scaled(node.input(0))
    slope = node.options("LeakyReluOptions").Alpha()
    negative = op.less(x, scalar(0.0))
    quantisation = node.output_tensor().quantisation
    if quantisation is None:
        return node.real_result(op.where(negative, op.multiply(x, scalar(slope)), x), scale)
    ratio = (scale / quantisation.scale).item()
    below, above = (scalar(np.rint(256 * factor) / 256) for factor in (ratio * slope, ratio))
    scaled = op.multiply(x, op.where(negative, below, above))
    return node.steps_result(op.floor(op.add(scaled, scalar(0.5))))


def prelu(node: Node) -> Value:
    (x, x_scale), (slope, slope_scale) = (node.scaled(value) for value in node.inputs())
    negative, product = op.less(x, scalar(0.0)), op.multiply(x, slope)
    quantisation = node.output_tensor().quantisation
    if quantisation is None:
        return node.real_result(op.where(negative, product, x))
    below = fixed_point_product(product, (x_scale * slope_scale / quantisation.scale).item())
    above = fixed_point_product(x, (x_scale / quantisation.scale).item())
    return node.steps_result(op.where(negative, below, above))


def select(node: Node) -> Value:
    condition, x, y = node.inputs()
    chosen = node.carried(condition)
    missing = len(node.shape(x)) - len(node.shape(condition))
    if node.operator.name == "SELECT" and len(node.shape(condition)) == 1 and missing > 0:
        # A vector chooses whole rows here; everywhere else shapes broadcast.
        chosen = op.reshape(chosen, [*node.shape(condition), *[1] * missing])
    return node.result(op.where(chosen, node.rescaled(x), node.rescaled(y)))


def cast(node: Node) -> Value:
    tensor = node.output_tensor()
    return node.graph.from_stored(node.emit(op.astype(node.stored(0), tensor.dtype)), tensor)


def quantize(node: Node) -> Value:
    return node.result(node.rescaled(node.input(0)))


def dequantize(node: Node) -> Value:
    value = node.input(0)
    if value.array is not None:
        # Still a constant: whoever uses it gets it in the form that suits the use.
        return value
    return node.result(node.real(value))


ELEMENTWISE: dict[str, Rule] = {
    "ABS": _unary(op.abs),
    "ADD": _sum(1, "AddOptions"),
    "ADD_N": add_n,
    "ATAN2": _binary(op.atan2),
    "CAST": cast,
    "CEIL": _unary(op.ceil),
    "COS": _unary(op.cos),
    "DEQUANTIZE": dequantize,
    "DIV": divide,
    "ELU": _unary(elu),
    "EQUAL": _comparison(op.equal),
    "EXP": _unary(op.exp),
    "FLOOR": _unary(op.floor),
    "FLOOR_DIV": _whole_quotient(op.floor_divide),
    "FLOOR_MOD": _whole_quotient(op.floor_mod),
    "GELU": gelu,
    "GREATER": _comparison(op.greater),
    "GREATER_EQUAL": _comparison(op.greater_equal),
    "HARD_SWISH": _unary(hard_swish),
    "LEAKY_RELU": leaky_relu,
    "LESS": _comparison(op.less),
    "LESS_EQUAL": _comparison(op.less_equal),
    "LOG": _unary(op.log),
    "LOGICAL_AND": _logical(op.logical_and),
    "LOGICAL_NOT": _logical(op.logical_not),
    "LOGICAL_OR": _logical(op.logical_or),
    "LOGISTIC": _unary(op.sigmoid),
    "MAXIMUM": _extremum(op.maximum),
    "MINIMUM": _extremum(op.minimum),
    "MUL": multiply,
    "NEG": _unary(op.negative),
    "NOT_EQUAL": _comparison(op.not_equal),
    "POW": _binary(op.power),
    "PRELU": prelu,
    "QUANTIZE": quantize,
    "RELU": _clipping("RELU"),
    "RELU6": _clipping("RELU6"),
    "RELU_0_TO_1": _clipping("RELU_0_TO_1"),
    "RELU_N1_TO_1": _clipping("RELU_N1_TO_1"),
    "ROUND": _unary(op.round),
    "RSQRT": _unary(op.rsqrt),
    "SELECT": select,
    "SELECT_V2": select,
    "SIGN": _unary(op.sign),
    "SIN": _unary(op.sin),
    "SQRT": _unary(op.sqrt),
    "SQUARE": _unary(op.square),
    "SQUARED_DIFFERENCE": squared_difference,
    "SUB": _sum(-1, "SubOptions"),
    "TANH": _unary(op.tanh),
}
