"""MXNet's arithmetic: functions of each element of one or two tensors, and reductions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tvm.relax import op

from tvm import relax

from ..common import ModelError
from .context import (
    CONVERTERS,
    Context,
    axis_of,
    converts,
    dtype_of,
    is_float,
    reshape,
    scalar,
    size_of,
)
from .model import Attributes

Unary = Callable[[relax.Expr], relax.Expr]
Binary = Callable[[relax.Expr, relax.Expr], relax.Expr]


def _scaled(function: Unary, factor: float) -> Unary:
    return lambda data: op.multiply(function(data), scalar(factor, data))


def _near_zero(data: relax.Expr, limit: float, series: relax.Expr, elsewhere: relax.Expr) -> relax.Expr:
    return op.where(op.less(op.abs(data), scalar(limit, data)), series, elsewhere)


def _expm1(data: relax.Expr) -> relax.Expr:
    # exp(x) - 1 loses the digits of a small x; eight terms of the series are exact to float32 below 1/4.
    series = scalar(1.0, data)
    for order in range(8, 1, -1):
        series = op.add(op.multiply(series, op.divide(data, scalar(order, data))), scalar(1.0, data))
    return _near_zero(data, 0.25, op.multiply(series, data), op.subtract(op.exp(data), scalar(1.0, data)))


def _log1p(data: relax.Expr) -> relax.Expr:
    # The same for log(1 + x), as 2 atanh(x / (2 + x)).
    ratio = op.divide(data, op.add(data, scalar(2.0, data)))
    square = op.multiply(ratio, ratio)
    series = scalar(2.0 / 9.0, data)
    for order in (7.0, 5.0, 3.0, 1.0):
        series = op.add(op.multiply(series, square), scalar(2.0 / order, data))
    return _near_zero(data, 0.25, op.multiply(series, ratio), op.log(op.add(data, scalar(1.0, data))))


def _cbrt(data: relax.Expr) -> relax.Expr:
    return op.multiply(op.sign(data), op.power(op.abs(data), scalar(1.0 / 3.0, data)))


def _reciprocal(data: relax.Expr) -> relax.Expr:
    return op.divide(scalar(1.0, data), data)


def _round(data: relax.Expr) -> relax.Expr:
    # Halves go away from zero; op.round takes them to even.
    return op.multiply(op.sign(data), op.floor(op.add(op.abs(data), scalar(0.5, data))))


def _rint(data: relax.Expr) -> relax.Expr:
    # Halves go down.
    return op.ceil(op.subtract(data, scalar(0.5, data)))


def softsign(data: relax.Expr) -> relax.Expr:
    """x / (1 + |x|)."""
    return op.divide(data, op.add(op.abs(data), scalar(1.0, data)))


def nonzero(data: relax.Expr) -> relax.Expr:
    """Whether each element is not zero, as booleans."""
    return op.not_equal(data, scalar(0, data))


def _logical_not(data: relax.Expr) -> relax.Expr:
    return op.astype(op.equal(data, scalar(0, data)), dtype_of(data))


def _identity(data: relax.Expr) -> relax.Expr:
    return data


_UNARY: dict[str, Unary] = {
    "BlockGrad": _identity,
    "LinearRegressionOutput": _identity,
    "LogisticRegressionOutput": op.sigmoid,
    "MAERegressionOutput": _identity,
    "MakeLoss": _identity,
    "SVMOutput": _identity,
    "_copy": _identity,
    "abs": op.abs,
    "arccos": op.acos,
    "arccosh": op.acosh,
    "arcsin": op.asin,
    "arcsinh": op.asinh,
    "arctan": op.atan,
    "arctanh": op.atanh,
    "cbrt": _cbrt,
    "ceil": op.ceil,
    "cos": op.cos,
    "cosh": op.cosh,
    "degrees": _scaled(_identity, 180.0 / math.pi),
    "erf": op.erf,
    "exp": op.exp,
    "expm1": _expm1,
    "fix": op.trunc,
    "floor": op.floor,
    "identity": _identity,
    "log": op.log,
    "log10": _scaled(op.log, 1.0 / math.log(10.0)),
    "log1p": _log1p,
    "log2": _scaled(op.log, 1.0 / math.log(2.0)),
    "logical_not": _logical_not,
    "make_loss": _identity,
    "negative": op.negative,
    "ones_like": op.ones_like,
    "radians": _scaled(_identity, math.pi / 180.0),
    "rcbrt": lambda data: op.divide(scalar(1.0, data), _cbrt(data)),
    "reciprocal": _reciprocal,
    "relu": op.nn.relu,
    "rint": _rint,
    "round": _round,
    "rsqrt": op.rsqrt,
    "sigmoid": op.sigmoid,
    "sign": op.sign,
    "sin": op.sin,
    "sinh": op.sinh,
    "softsign": softsign,
    "sqrt": op.sqrt,
    "square": lambda data: op.multiply(data, data),
    "stop_gradient": _identity,
    "tan": op.tan,
    "tanh": op.tanh,
    "trunc": op.trunc,
    "zeros_like": op.zeros_like,
}


def _modulo(left: relax.Expr, right: relax.Expr) -> relax.Expr:
    """The remainder with the sign of the divisor; zero where the divisor is zero."""
    if not is_float(left):
        return op.floor_mod(left, right)
    zero = scalar(0.0, left)
    rest = op.mod(left, right)
    other_sign = op.less(op.multiply(rest, right), zero)
    return op.where(op.equal(right, zero), zero, op.where(other_sign, op.add(rest, right), rest))


def _hypot(left: relax.Expr, right: relax.Expr) -> relax.Expr:
    return op.sqrt(op.add(op.multiply(left, left), op.multiply(right, right)))


def _as_number(function: Binary) -> Binary:
    """MXNet's comparisons give 1 and 0 in the dtype of what they compare."""
    return lambda left, right: op.astype(function(left, right), dtype_of(left))


def _logical(function: Binary) -> Binary:
    return _as_number(lambda left, right: function(nonzero(left), nonzero(right)))


_BINARY: dict[str, Binary] = {
    "plus": op.add,
    "minus": op.subtract,
    "mul": op.multiply,
    "div": op.divide,
    "mod": _modulo,
    "power": op.power,
    "maximum": op.maximum,
    "minimum": op.minimum,
    "hypot": _hypot,
    "equal": _as_number(op.equal),
    "not_equal": _as_number(op.not_equal),
    "greater": _as_number(op.greater),
    "greater_equal": _as_number(op.greater_equal),
    "lesser": _as_number(op.less),
    "lesser_equal": _as_number(op.less_equal),
    "logical_and": _logical(op.logical_and),
    "logical_or": _logical(op.logical_or),
    "logical_xor": _logical(op.logical_xor),
}

# What does not follow from the names above, as it does for the others.
_BINARY_ALIASES = {
    "plus": ("_add", "elemwise_add", "broadcast_add"),
    "minus": ("_sub", "elemwise_sub", "broadcast_sub"),
    "mul": ("elemwise_mul",),
    "div": ("elemwise_div",),
}
_REVERSED = ("minus", "div", "mod", "power")


def _register_unary(function: Unary, operator: str) -> None:
    CONVERTERS[operator] = lambda context, attributes, data: function(data)


def _register_binary(function: Binary, name: str) -> None:
    def of_tensors(context: Context, attributes: Attributes, left: Any, right: Any) -> relax.Expr:
        return function(left, right)

    def of_scalar(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
        return function(*_with_scalar(context, attributes, data))

    def of_scalar_reversed(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
        data, value = _with_scalar(context, attributes, data)
        return function(value, data)

    camel = "".join(part.capitalize() for part in name.split("_"))
    converts(f"_{name}", f"_{name.title()}", f"broadcast_{name}", *_BINARY_ALIASES.get(name, ()))(of_tensors)
    converts(f"_{name}_scalar", f"_{camel}Scalar")(of_scalar)
    if name in _REVERSED:
        converts(f"_r{name}_scalar", f"_R{camel}Scalar")(of_scalar_reversed)


def _with_scalar(context: Context, attributes: Attributes, data: relax.Expr) -> tuple[relax.Expr, relax.Expr]:
    value = attributes.number("scalar", 1.0)
    if not is_float(data):
        if not attributes.flag("is_int", True):
            data = context.astype(data, "float64")
        elif dtype_of(data) == "bool":
            data = context.astype(data, "int64")
    return data, scalar(value if is_float(data) else int(value), data)


for _operator, _unary in _UNARY.items():
    _register_unary(_unary, _operator)
for _operator, _binary in _BINARY.items():
    _register_binary(_binary, _operator)


@converts("add_n", "ElementWiseSum")
def _add_n(context: Context, attributes: Attributes, *data: relax.Expr) -> relax.Expr:
    total = data[0]
    for term in data[1:]:
        total = context.emit(op.add(total, term))
    return total


@converts("clip")
def _clip(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
    return op.clip(data, attributes.number("a_min"), attributes.number("a_max"))


@converts("hard_sigmoid")
def _hard_sigmoid(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
    alpha = scalar(attributes.number("alpha", 0.2), data)
    beta = scalar(attributes.number("beta", 0.5), data)
    return op.clip(op.add(op.multiply(data, alpha), beta), 0.0, 1.0)


@converts("_contrib_div_sqrt_dim")
def _div_sqrt_dim(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
    return op.divide(data, scalar(math.sqrt(size_of(data, data.ty.ndim - 1)), data))


@converts("smooth_l1")
def _smooth_l1(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
    sigma = attributes.number("scalar", 1.0) ** 2
    distance = op.abs(data)
    return op.where(
        op.less(distance, scalar(1.0 / sigma, data)),
        op.multiply(op.multiply(data, data), scalar(0.5 * sigma, data)),
        op.subtract(distance, scalar(0.5 / sigma, data)),
    )


@converts("where")
def _where(
    context: Context, attributes: Attributes, condition: relax.Expr, x: relax.Expr, y: relax.Expr
) -> relax.Expr:
    if condition.ty.ndim == 1 and x.ty.ndim > 1:
        condition = context.emit(reshape(condition, [-1] + [1] * (x.ty.ndim - 1)))
    return op.where(nonzero(condition), x, y)


@converts("Cast", "cast", "amp_cast")
def _cast(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
    dtype = attributes.dtype("dtype")
    return op.astype(nonzero(data) if dtype == "bool" else data, dtype)


def _without_scalars(context: Context, data: relax.Expr) -> relax.Expr:
    """MXNet's arrays have one dimension at least: a full reduction gives an array of one element."""
    data = context.emit(data)
    return reshape(data, [1]) if data.ty.ndim == 0 else data


def _reduced_axes(attributes: Attributes, data: relax.Expr) -> list[int]:
    axes = sorted({axis_of(data, axis) for axis in attributes.integers("axis", None) or ()})
    if not axes:
        return list(range(data.ty.ndim))
    if attributes.flag("exclude", False):
        return [axis for axis in range(data.ty.ndim) if axis not in axes]
    return axes


def _register_reduction(function: Callable[..., relax.Expr], operators: tuple[str, ...]) -> None:
    @converts(*operators)
    def reduction(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
        reduced = function(data, _reduced_axes(attributes, data), attributes.flag("keepdims", False))
        return _without_scalars(context, reduced)


_register_reduction(op.sum, ("sum", "sum_axis"))
_register_reduction(op.mean, ("mean",))
_register_reduction(op.prod, ("prod",))
_register_reduction(op.max, ("max", "max_axis"))
_register_reduction(op.min, ("min", "min_axis"))


@converts("norm")
def _norm(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
    order = attributes.integer("ord", 2)
    data = context.astype(data, attributes.dtype("out_dtype", None) or dtype_of(data))
    axes = _reduced_axes(attributes, data)
    keepdims = attributes.flag("keepdims", False)
    if order == 1:
        norm = op.sum(op.abs(data), axes, keepdims)
    elif order == 2:
        norm = op.sqrt(op.sum(op.multiply(data, data), axes, keepdims))
    else:
        raise ModelError(f"attribute 'ord' cannot be {order}: norms of order 1 and 2 are supported")
    return _without_scalars(context, norm)


def _register_position(function: Callable[..., relax.Expr], operator: str) -> None:
    @converts(operator)
    def position(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
        axis = attributes.integer("axis", None)
        axis = None if axis is None else axis_of(data, axis)
        found = function(data, axis, attributes.flag("keepdims", False))
        return _without_scalars(context, op.astype(found, dtype_of(data)))


_register_position(op.argmax, "argmax")
_register_position(op.argmin, "argmin")


@converts("argmax_channel")
def _argmax_channel(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
    return op.astype(op.argmax(data, 1), dtype_of(data))
