"""exp, tanh, sigmoid and erf of float32 as vector arithmetic, right to a few units in the last place.

LLVM lowers these to calls of the C library, one element at a time. `name_elementary` rewrites them to
operators of our own, which survive scheduling and vectorising as they are; `ExpandElementary`, late in
lowering, turns each into arithmetic on whatever vectors it then stands in. NaN and infinities are treated as
the C library treats them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import tvm_ffi

import tvm
from tvm import ir, tirx

from .statements import rewrite, rewrite_leaves

__all__ = ["ExpandElementary", "name_elementary"]

_PREFIX = "tvm_secret.cpu."
_MARK = "tvm_secret.cpu.elementary"  # says that a function has calls to expand
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


def _clamped(x: ir.Expr, low: float, high: float) -> ir.Expr:
    """x within [low, high]; NaN, of which every comparison is false, stays NaN."""
    below, above = _number(low, x), _number(high, x)
    return tirx.Select(x < below, below, tirx.Select(x > above, above, x))


def _power_of_two(n: ir.Expr) -> ir.Expr:
    bits = (n + tirx.const(127, str(n.ty.dtype))) << tirx.const(23, str(n.ty.dtype))
    return tirx.reinterpret("float32" + str(n.ty.dtype)[len("int32") :], bits)


# An expansion takes its argument and `hold`, which computes an expression once and gives what stands for it.
Hold = Callable[[ir.Expr], ir.Expr]


def _exp(x: ir.Expr, hold: Hold) -> ir.Expr:
    """exp(x) = 2^n exp(r), |r| <= ln(2) / 2, by the Taylor series; 2^n as two factors within range."""
    integer = "int32" + _lanes(x)
    high = 0.693359375  # ln(2) with few enough bits that its product with n is exact
    low = math.log(2) - high
    x = hold(_clamped(hold(x), -104.0, 89.0))
    nearest = tirx.floor(x * _number(1 / math.log(2), x) + _number(0.5, x))
    n = hold(tirx.min(nearest, _number(127.0, x)))  # 2^128 is no float32
    remainder = hold((x - n * _number(high, x)) - n * _number(low, x))
    series = _horner(remainder, [1 / math.factorial(k) for k in range(9)])
    whole = hold(n.astype(integer))
    half = hold(whole >> tirx.const(1, integer))
    return series * _power_of_two(half) * _power_of_two(whole - half)


def _sigmoid(x: ir.Expr, hold: Hold) -> ir.Expr:
    return _number(1.0, x) / (_number(1.0, x) + _exp(_number(0.0, x) - x, hold))


def _tanh(x: ir.Expr, hold: Hold) -> ir.Expr:
    x = hold(x)
    zero, one, two = (_number(n, x) for n in (0.0, 1.0, 2.0))
    sign = hold(tirx.Select(x < zero, zero - one, one))
    far = sign * (one - two / (_exp(x * sign * two, hold) + one))
    square = hold(x * x)
    near = x * _horner(square, _TANH_SERIES)
    return tirx.Select(x * sign < _number(_TANH_SWITCH, x), near, far)


def _erf(x: ir.Expr, hold: Hold) -> ir.Expr:
    x = hold(_clamped(hold(x), -_ERF_LIMIT, _ERF_LIMIT))
    square = hold(x * x)
    return x * _horner(square, _ERF_P) / _horner(square, _ERF_Q)


_EXPANSIONS = {"exp": _exp, "sigmoid": _sigmoid, "tanh": _tanh, "erf": _erf}


def _register() -> None:
    """Declare our operators to TVM. They are new names, so that no one else's code is lowered differently."""
    register = tvm_ffi.get_global_func("ir.RegisterOp")
    for name in _EXPANSIONS:
        register(_PREFIX + name, f"{name} as vector arithmetic")
        operator = ir.Op.get(_PREFIX + name)
        operator.set_num_inputs(1)
        operator.set_attr("TCallEffectKind", _PURE)
        operator.set_attr("TVectorizable", True)


_register()


def _operator(node: ir.Expr, prefix: str) -> str | None:
    """Which of our functions `node` calls under `prefix`, or None."""
    if not isinstance(node, ir.Call) or not isinstance(node.op, ir.Op):
        return None
    name = node.op.name.removeprefix(prefix)
    return name if node.op.name.startswith(prefix) and name in _EXPANSIONS else None


def _is_conditional(node: ir.Expr) -> bool:
    return isinstance(node, ir.Call) and isinstance(node.op, ir.Op) and node.op.name == "tirx.if_then_else"


def name_elementary(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """`func` with our operators in place of upstream's, where they take float32.

    Bounds (relu, clip) keep NaN, as they do in every framework.
    """
    found = False

    def replace(node: ir.Expr) -> ir.Expr | None:
        if isinstance(node, tirx.Max | tirx.Min) and isinstance(node.b, tirx.FloatImm):
            value = rewrite(node.a, replace)
            outside = value < node.b if isinstance(node, tirx.Max) else value > node.b
            return tirx.Select(outside, node.b, value)
        name = _operator(node, "tirx.")
        if name is None or str(node.ty.dtype) != "float32":
            return None
        nonlocal found
        found = True
        return ir.Call(ir.Op.get(_PREFIX + name), [rewrite(node.args[0], replace)], ret_ty=node.ty)

    def store(stmt: tirx.Stmt) -> tirx.Stmt:
        if isinstance(stmt, tirx.BufferStore):
            return tirx.BufferStore(stmt.buffer, rewrite(stmt.value, replace), stmt.indices)
        return stmt

    body = rewrite_leaves(func.body, store)
    func = func.with_body(body)
    return func.with_attr(_MARK, True) if found else func


@tvm.transform.module_pass(opt_level=0, name="ExpandElementary")
class ExpandElementary:
    """Turn our operators into arithmetic; loops are vectorised by now and buffers flat."""

    def transform_module(self, module: ir.IRModule, context: tvm.transform.PassContext) -> ir.IRModule:
        for name, func in list(module.functions_items()):
            if isinstance(func, tirx.PrimFunc) and func.attrs.get(_MARK, False):
                module[name] = func.with_body(rewrite_leaves(func.body, _expanded))
        return module


def _expanded(stmt: tirx.Stmt) -> tirx.Stmt:
    """`stmt` after the statements that hold the intermediate results of its calls.

    Results are held in local buffers, which LLVM keeps in registers. Variables would do for LLVM, but TVM's
    analyzer substitutes a variable's value wherever it stands, and nested calls then take exponential time.
    """
    before: list[tirx.Stmt] = []

    def store(value: ir.Expr) -> ir.Expr:
        dtype = tvm.DataType(str(value.ty.dtype))
        buffer = tirx.decl_buffer((dtype.lanes,), str(dtype.with_lanes(1)), "held", scope="local")
        index = tirx.Ramp(0, 1, dtype.lanes) if dtype.lanes > 1 else 0
        before.extend((tirx.AllocBuffer(buffer), tirx.BufferStore(buffer, value, [index])))
        return tirx.BufferLoad(buffer, [index])

    def expand(node: ir.Expr, hold: Hold) -> ir.Expr | None:
        if _is_conditional(node):
            # What only one branch may evaluate, an element out of bounds perhaps, stays in that branch.
            condition, *branches = node.args
            arguments = [again(condition, hold), *(_with_variables(branch, again) for branch in branches)]
            return ir.Call(node.op, arguments, node.attrs, ret_ty=node.ty)
        name = _operator(node, _PREFIX)
        if name is None:
            return None
        return _EXPANSIONS[name](again(node.args[0], hold), hold)

    def again(expression: ir.Expr, hold: Hold) -> ir.Expr:
        return rewrite(expression, lambda node: expand(node, hold))

    if isinstance(stmt, tirx.BufferStore):
        value = again(stmt.value, store)
        if before or not value.same_as(stmt.value):
            stmt = tirx.BufferStore(stmt.buffer, value, stmt.indices)
    elif isinstance(stmt, tirx.Bind):
        stmt = tirx.Bind(stmt.var, again(stmt.value, store))
    return tirx.SeqStmt([*before, stmt]) if before else stmt


def _with_variables(expression: ir.Expr, again: Callable[[ir.Expr, Hold], ir.Expr]) -> ir.Expr:
    """`expression` expanded in place: what its calls hold becomes variables around the whole of it."""
    held: list[tuple[tirx.Var, ir.Expr]] = []

    def bind(value: ir.Expr) -> ir.Expr:
        held.append((tirx.Var("held", str(value.ty.dtype)), value))
        return held[-1][0]

    result = again(expression, bind)
    for variable, value in reversed(held):
        result = tirx.Let(variable, value, result)
    return result
