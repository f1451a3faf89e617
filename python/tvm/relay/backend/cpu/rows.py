"""Softmax and layer normalisation over the last axis: each row in a few passes while the first cache has it.

These are functions of their own, complete as emitted: their stages depend on whole rows, so that nothing is
fused into them.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from tvm import ir, s_tir, tirx

from .kernel import integer, local, parallel, serial, unroll, vector
from .machine import Machine

__all__ = ["layer_norm", "softmax"]

_SUMS = 4  # independent sums, which hide the latency of an addition

Element = Callable[[ir.Expr], ir.Expr]
Combine = Callable[[ir.Expr, ir.Expr], ir.Expr]


def _function(shapes: list[tuple[int, ...]], body: Callable[..., None]) -> tirx.PrimFunc:
    """A function of float32 buffers of `shapes`, the last of which is the result."""
    with IRBuilder() as builder, T.prim_func(s_tir=True, is_private=True):
        buffers = [
            T.arg(f"b{i}", T.buffer([integer(n) for n in shape], "float32", layout=None))
            for i, shape in enumerate(shapes)
        ]
        T.func_attr({"tirx.noalias": True, "op_pattern": 8})
        body(*buffers)
    func = builder.get()
    root = s_tir.SBlock([], [], [], "root", func.body)
    return func.with_body(s_tir.SBlockRealize([], True, root))


def _each(columns: int, lanes: int, statement: Callable[[ir.Expr], None]) -> None:
    """Emit `statement` for every column, as vectors and then singly."""
    whole = columns // lanes
    if whole:
        with serial(whole) as c, vector(lanes) as v:
            statement(c * lanes + v)
    if columns % lanes:
        with unroll(columns, whole * lanes) as c:
            statement(c)


def _reduce(columns: int, lanes: int, element: Element, combine: Combine, initial: float) -> ir.Expr:
    """Emit the reduction of `element` over the columns, and return the result, which a local buffer holds."""
    sums, result = local(_SUMS, lanes), local(1)
    with unroll(_SUMS) as s, vector(lanes) as v:
        T.buffer_store(sums, tirx.const(initial, "float32"), [s, v])

    def accumulate(s, v, column) -> None:
        T.buffer_store(sums, combine(tirx.BufferLoad(sums, [s, v]), element(column)), [s, v])

    whole = columns // (_SUMS * lanes)
    if whole:
        with serial(whole) as c, unroll(_SUMS) as s, vector(lanes) as v:
            accumulate(s, v, c * (_SUMS * lanes) + s * lanes + v)
    done = whole * _SUMS * lanes
    chunks = (columns - done) // lanes
    if chunks:
        with unroll(chunks) as s, vector(lanes) as v:
            accumulate(s, v, s * lanes + v + done)
    done += chunks * lanes
    if done < columns:
        with unroll(columns - done) as v:
            accumulate(integer(0), v, v + done)
    with unroll(_SUMS - 1) as s, vector(lanes) as v:
        pair = tirx.BufferLoad(sums, [integer(0), v]), tirx.BufferLoad(sums, [s + 1, v])
        T.buffer_store(sums, combine(*pair), [integer(0), v])
    T.buffer_store(result, tirx.const(initial, "float32"), [integer(0)])
    with unroll(lanes) as v:
        pair = tirx.BufferLoad(result, [integer(0)]), tirx.BufferLoad(sums, [integer(0), v])
        T.buffer_store(result, combine(*pair), [integer(0)])
    return tirx.BufferLoad(result, [integer(0)])


def _add(a: ir.Expr, b: ir.Expr) -> ir.Expr:
    return a + b


def softmax(rows: int, columns: int, machine: Machine) -> tirx.PrimFunc:
    """[rows, columns] -> its softmax along the columns."""

    def body(data, result) -> None:
        with parallel(rows) as r:
            largest = _reduce(
                columns, machine.lanes, lambda c: tirx.BufferLoad(data, [r, c]), tirx.max, float("-inf")
            )

            def power(c) -> None:
                T.buffer_store(result, tirx.exp(tirx.BufferLoad(data, [r, c]) - largest), [r, c])

            _each(columns, machine.lanes, power)
            total = _reduce(columns, machine.lanes, lambda c: tirx.BufferLoad(result, [r, c]), _add, 0.0)
            scale = local(1)
            T.buffer_store(scale, tirx.const(1, "float32") / total, [integer(0)])

            def divide(c) -> None:
                value = tirx.BufferLoad(result, [r, c]) * tirx.BufferLoad(scale, [integer(0)])
                T.buffer_store(result, value, [r, c])

            _each(columns, machine.lanes, divide)

    return _function([(rows, columns)] * 2, body)


def layer_norm(rows: int, columns: int, epsilon: float, machine: Machine) -> tirx.PrimFunc:
    """[rows, columns], scale and shift [columns] -> each row normalised, scaled and shifted."""

    def body(data, gamma, beta, result) -> None:
        share = tirx.const(1.0 / columns, "float32")
        with parallel(rows) as r:
            moments = local(2)
            total = _reduce(columns, machine.lanes, lambda c: tirx.BufferLoad(data, [r, c]), _add, 0.0)
            T.buffer_store(moments, total * share, [integer(0)])
            mean, scale = (tirx.BufferLoad(moments, [integer(i)]) for i in range(2))

            def deviation(c) -> ir.Expr:
                return tirx.BufferLoad(data, [r, c]) - mean

            squares = _reduce(columns, machine.lanes, lambda c: deviation(c) * deviation(c), _add, 0.0)
            variance = squares * share + tirx.const(epsilon, "float32")
            T.buffer_store(moments, tirx.const(1, "float32") / tirx.sqrt(variance), [integer(1)])

            def normalise(c) -> None:
                value = deviation(c) * scale * tirx.BufferLoad(gamma, [c]) + tirx.BufferLoad(beta, [c])
                T.buffer_store(result, value, [r, c])

            _each(columns, machine.lanes, normalise)

    return _function([(rows, columns), (columns,), (columns,), (rows, columns)], body)
