"""exp, tanh, sigmoid and erf of float32 as vector arithmetic, right to a few units in the last place.

LLVM lowers these to calls of the C library, one element at a time. Functions are rewritten to operators of
our own, which are expanded when TIR is lowered to LLVM and work on whatever vectors they then stand in. NaN
and infinities are treated as the C library treats them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import tvm_ffi

from tvm import ir, tirx

from .statements import rewrite, rewrite_leaves

__all__ = ["expand_elementary"]

_PREFIX = "tvm_secret.cpu."
_PURE = 1  # upstream's CallEffectKind

# erf(x) = x P(x^2) / Q(x^2) for |x| <= 3.9, beyond which it is 1 in float32: our own least-squares fit of the
# relative error, which reaches 3.7e-7 in float32 arithmetic.
_ERF_LIMIT = 3.9
_ERF_P = (
    1.1283791501096705,
    0.1892172856001939,
    0.0526094778106795,
    0.0037195256792850063,
    0.00028472087151498244,
    2.07086340464551e-06,
)
_ERF_Q = (
    1.0,
    0.5010222939025598,
    0.11363398283299352,
    0.014876225631828341,
    0.001152983096943249,
    3.829795456422965e-05,
)
# The Taylor series of tanh(x) / x in x^2; the first term left out is below 2e-8 for |x| <= 0.35.
_TANH_SERIES = (1.0, -1 / 3, 2 / 15, -17 / 315, 62 / 2835, -1382 / 155925)
_TANH_SWITCH = 0.35


def _lanes(x: ir.Expr) -> str:
    return str(x.ty.dtype)[len("float32") :]


def _number(value: float, like: ir.Expr) -> ir.Expr:
    return tirx.const(value, "float32" + _lanes(like))


def _horner(x: ir.Expr, coefficients: Sequence[float]) -> ir.Expr:
    total = _number(coefficients[-1], x)
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + _number(coefficient, x)
    return total


def _let(value: ir.Expr, body) -> ir.Expr:
    """`body` of a variable that holds `value`, so that it is computed once; use the result but once."""
    variable = tirx.Var("t", str(value.ty.dtype))
    return tirx.Let(variable, value, body(variable))


def _clamped(x: ir.Expr, low: float, high: float) -> ir.Expr:
    """x within [low, high]; NaN, of which every comparison is false, stays NaN."""
    below, above = _number(low, x), _number(high, x)
    return tirx.Select(x < below, below, tirx.Select(x > above, above, x))


def _power_of_two(n: ir.Expr) -> ir.Expr:
    bits = (n + tirx.const(127, str(n.ty.dtype))) << tirx.const(23, str(n.ty.dtype))
    return tirx.reinterpret("float32" + str(n.ty.dtype)[len("int32") :], bits)


def _exp(x: ir.Expr) -> ir.Expr:
    """exp(x) = 2^n exp(r), |r| <= ln(2) / 2, by the Taylor series; 2^n as two factors within range."""
    integer = "int32" + _lanes(x)
    high = 0.693359375  # ln(2) with few enough bits that its product with n is exact
    low = math.log(2) - high

    def with_argument(x):
        nearest = tirx.floor(x * _number(1 / math.log(2), x) + _number(0.5, x))
        return _let(tirx.min(nearest, _number(127.0, x)), lambda n: with_n(x, n))  # 2^128 is no float32

    def with_n(x, n):
        remainder = (x - n * _number(high, x)) - n * _number(low, x)
        series = [1 / math.factorial(k) for k in range(9)]
        return _let(
            remainder, lambda r: _let(n.astype(integer), lambda whole: scaled(_horner(r, series), whole))
        )

    def scaled(value, whole):
        half = whole >> tirx.const(1, integer)
        return value * _power_of_two(half) * _power_of_two(whole - half)

    return _let(_clamped(x, -104.0, 89.0), with_argument)


def _sigmoid(x: ir.Expr) -> ir.Expr:
    return _number(1.0, x) / (_number(1.0, x) + _exp(_number(0.0, x) - x))


def _tanh(x: ir.Expr) -> ir.Expr:
    def of(x):
        zero, one, two = (_number(n, x) for n in (0.0, 1.0, 2.0))
        sign = tirx.Select(x < zero, zero - one, one)
        far = sign * (one - two / (_exp(x * sign * two) + one))
        near = _let(x * x, lambda square: x * _horner(square, _TANH_SERIES))
        return tirx.Select(x * sign < _number(_TANH_SWITCH, x), near, far)

    return _let(x, of)


def _erf(x: ir.Expr) -> ir.Expr:
    def of(x):
        return _let(x * x, lambda square: x * _horner(square, _ERF_P) / _horner(square, _ERF_Q))

    return _let(_clamped(x, -_ERF_LIMIT, _ERF_LIMIT), of)


_EXPANSIONS = {"exp": _exp, "sigmoid": _sigmoid, "tanh": _tanh, "erf": _erf}


def _register() -> None:
    """Declare our operators to TVM. They are new names, so that no one else's code is lowered differently."""
    register = tvm_ffi.get_global_func("ir.RegisterOp")
    lowering = tvm_ffi.get_global_func("tirx.RegisterOpLowerIntrinsic")
    for name, expansion in _EXPANSIONS.items():
        register(_PREFIX + name, f"{name} as vector arithmetic")
        operator = ir.Op.get(_PREFIX + name)
        operator.set_num_inputs(1)
        operator.set_attr("TCallEffectKind", _PURE)
        operator.set_attr("TVectorizable", True)
        lowering(_PREFIX + name, lambda call, expansion=expansion: expansion(call.args[0]), "llvm", 10)


_register()


def expand_elementary(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """`func` with our operators in place of upstream's, where they take float32."""

    def replace(node: ir.Expr) -> ir.Expr | None:
        if not isinstance(node, ir.Call) or not isinstance(node.op, ir.Op) or str(node.ty.dtype) != "float32":
            return None
        name = node.op.name.removeprefix("tirx.")
        if name not in _EXPANSIONS:
            return None
        return ir.Call(ir.Op.get(_PREFIX + name), [rewrite(node.args[0], replace)], ret_ty=node.ty)

    def store(stmt: tirx.Stmt) -> tirx.Stmt:
        if isinstance(stmt, tirx.BufferStore):
            return tirx.BufferStore(stmt.buffer, rewrite(stmt.value, replace), stmt.indices)
        return stmt

    return func.with_body(rewrite_leaves(func.body, store))
