"""Recurrent layers as one loop over the steps, instead of code for each step.

Relax has no loop over tensors, so the loop is a function of TIR, written as it is to run: what the inputs
contribute to the gates comes from one product over all steps, and each step then multiplies the state by a
block of columns at a time, sixteen units of every gate side by side, so that the gates' functions and the new
state are computed while the sums are in registers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from tvm.relax import op
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from tvm import ir, relax, s_tir, tirx

__all__ = ["gru", "lstm"]

Tensor = relax.Expr

_LANES = 16
# Multiplications of a step that make it worth to wake the other threads.
_GRAIN = 1 << 17


def lstm(
    builder: Builder,
    x: Tensor,
    weight: Tensor,
    recurrence: Tensor,
    bias: Tensor | None,
    hidden: Tensor,
    cell: Tensor,
    *,
    order: str,
    reverse: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """One direction of a long short-term memory (Hochreiter and Schmidhuber 1997; with a forget gate).

    With the gates i, f, c, o of `weight` x + `recurrence` h + `bias`: C' = s(f) C + s(i) tanh(c) and
    h' = s(o) tanh(C').

    Parameters
    ----------
    x: float32 [steps, batch, features], of known steps and batch.
    weight, recurrence: [4 units, features] and [4 units, units], the gates one after another in `order`,
        a permutation of "ifco".
    bias: [4 units], or None.
    hidden, cell: the initial states, [batch, units], or [1, units] for all of a batch.
    reverse: begin at the last step.

    Returns
    -------
    The states h of all steps, [steps, batch, units], in the order of `x`; the last h and the last C.
    """
    places = [order.index(gate) for gate in "ifco"]
    layer = _Layer(builder, x, recurrence, 4, places)
    projected = layer.projected(x, weight, bias)
    operands = [projected, layer.recurrence(recurrence), layer.state(hidden), layer.state(cell)]
    kernel = _kernel(layer, _lstm_cell, reverse=reverse, bias=False, memory=True)
    return layer.call("lstm", kernel, operands, states=2)


def gru(
    builder: Builder,
    x: Tensor,
    weight: Tensor,
    recurrence: Tensor,
    bias: Tensor | None,
    recurrent_bias: Tensor | None,
    hidden: Tensor,
    *,
    order: str,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """One direction of gated recurrent units, the reset gate applied after the product (as cuDNN does).

    n = tanh(W_n x + b_n + s(r) (R_n h + c_n)) and h' = n + s(z) (h - n), where c is `recurrent_bias`.
    Parameters and results are those of `lstm`, `order` being a permutation of "zrn".
    """
    places = [order.index(gate) for gate in "zrn"]
    layer = _Layer(builder, x, recurrence, 3, places)
    projected = layer.projected(x, weight, bias)
    if recurrent_bias is None:
        recurrent_bias = relax.const(np.zeros(3 * layer.units, "float32"))
    kept = layer.emit(layer.gates(recurrent_bias))
    operands = [projected, layer.recurrence(recurrence), kept, layer.state(hidden)]
    kernel = _kernel(layer, _gru_cell, reverse=reverse, bias=True, memory=False)
    return layer.call("gru", kernel, operands, states=1)


class Builder(Protocol):
    """What of a `relax.BlockBuilder` is needed."""

    def emit(self, expr: Tensor) -> relax.Var:
        """Bind `expr` to a variable."""

    def add_func(self, func: tirx.PrimFunc, func_name: str) -> ir.GlobalVar:
        """Put `func` into the module."""


class _Layer:
    """The sizes of a layer, and its operands as the kernels read them: units in blocks of sixteen."""

    def __init__(
        self, builder: Builder, x: Tensor, recurrence: Tensor, gates: int, places: Sequence[int]
    ) -> None:
        self._builder, self.emit = builder, builder.emit
        self.number, self._places = gates, list(places)
        self.steps, self.batch = (int(n) for n in x.ty.shape.values[:2])
        self.units = int(recurrence.ty.shape.values[1])
        self.blocks = -(-self.units // _LANES)
        self.width = self.blocks * _LANES

    def gates(self, rows: Tensor) -> Tensor:
        """[gates units, ...] as [blocks, gates, 16, ...], in the kernels' order, padded with zeros."""
        rest = [int(n) for n in rows.ty.shape.values[1:]]
        rows = self.emit(op.reshape(rows, [self.number, self.units, *rest]))
        if self._places != sorted(self._places):
            rows = self.emit(op.take(rows, relax.const(self._places, "int64"), axis=0, mode="wrap"))
        rows = self._padded(rows, 1)
        rows = self.emit(op.reshape(rows, [self.number, self.blocks, _LANES, *rest]))
        return op.permute_dims(rows, [1, 0, 2, *range(3, 3 + len(rest))])

    def projected(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """What the inputs and the bias contribute, [steps, batch, blocks, gates, 16]."""
        features = int(x.ty.shape.values[2])
        columns = self.number * self.width
        matrix = self.emit(op.reshape(self.emit(self.gates(weight)), [columns, features]))
        matrix = self.emit(op.permute_dims(matrix))
        result = self.emit(op.matmul(x, matrix))
        if bias is not None:
            result = self.emit(result + self.emit(op.reshape(self.emit(self.gates(bias)), [columns])))
        return self.emit(op.reshape(result, [self.steps, self.batch, self.blocks, self.number, _LANES]))

    def recurrence(self, recurrence: Tensor) -> Tensor:
        """[blocks, units, gates, 16]: what each unit of the state contributes to a block of the gates."""
        return self.emit(op.permute_dims(self.emit(self.gates(recurrence)), [0, 3, 1, 2]))

    def state(self, state: Tensor) -> Tensor:
        """[batch, units] padded to whole blocks."""
        if int(state.ty.shape.values[0]) != self.batch:
            state = self.emit(op.broadcast_to(state, [self.batch, self.units]))
        return self._padded(state, 1)

    def _padded(self, tensor: Tensor, axis: int) -> Tensor:
        if self.width == self.units:
            return tensor
        shape = [int(n) for n in tensor.ty.shape.values]
        shape[axis] = self.width - self.units
        return self.emit(op.concat([tensor, relax.const(np.zeros(shape, "float32"))], axis))

    def call(self, name: str, kernel: tirx.PrimFunc, operands: list[Tensor], states: int) -> tuple:
        """Call `kernel`: the outputs of all steps and the last `states`, without the padding."""
        variable = self._builder.add_func(kernel, name)
        shapes = [(self.steps, self.batch, self.width)] + [(self.batch, self.width)] * states
        types = [relax.TensorType(shape, "float32") for shape in shapes]
        results = self.emit(relax.call_tir(variable, operands, types))
        return tuple(self._cut(self.emit(results[index])) for index in range(1 + states))

    def _cut(self, tensor: Tensor) -> Tensor:
        if self.width == self.units:
            return tensor
        return self.emit(op.strided_slice(tensor, [tensor.ty.ndim - 1], [0], [self.units]))


@dataclass
class _Block:
    """Sixteen units of one example at one step, as a cell's arithmetic sees them; methods take a lane."""

    sums: tirx.Var
    projected: Callable[[int, ir.Expr], ir.Expr]
    hidden: Callable[[ir.Expr], ir.Expr]
    memory: Callable[[ir.Expr], tuple[tirx.Var, list[ir.Expr]]]

    def from_state(self, gate: int, lane: ir.Expr) -> ir.Expr:
        return tirx.BufferLoad(self.sums, [gate, lane])

    def gate(self, number: int, lane: ir.Expr) -> ir.Expr:
        return self.projected(number, lane) + self.from_state(number, lane)


# A cell stores the new state of a block, given a buffer of sixteen for it.
_Cell = Callable[[_Block, tirx.Var], None]


def _lstm_cell(block: _Block, new: tirx.Var) -> None:
    with _vector() as lane:
        buffer, place = block.memory(lane)
        fresh = T.sigmoid(block.gate(0, lane)) * T.tanh(block.gate(2, lane))
        kept = T.sigmoid(block.gate(1, lane)) * tirx.BufferLoad(buffer, place)
        T.buffer_store(buffer, kept + fresh, place)
    with _vector() as lane:
        memory = tirx.BufferLoad(*block.memory(lane))
        T.buffer_store(new, T.sigmoid(block.gate(3, lane)) * T.tanh(memory), [lane])


def _gru_cell(block: _Block, new: tirx.Var) -> None:
    with _vector() as lane:
        reset = T.sigmoid(block.gate(1, lane))
        candidate = T.tanh(block.projected(2, lane) + reset * block.from_state(2, lane))
        T.buffer_store(new, candidate, [lane])
    with _vector() as lane:
        candidate = tirx.BufferLoad(new, [lane])
        update = T.sigmoid(block.gate(0, lane))
        T.buffer_store(new, candidate + update * (block.hidden(lane) - candidate), [lane])


def _kernel(layer: _Layer, cell: _Cell, *, reverse: bool, bias: bool, memory: bool) -> tirx.PrimFunc:
    """The loop over the steps.

    Its arguments: the projected inputs, the packed recurrence, the packed recurrent bias (if `bias`), the
    initial state, the initial memory (if `memory`); then the results: all states, the last, the last memory.
    """
    steps, batch, blocks, width = layer.steps, layer.batch, layer.blocks, layer.width
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("main")
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        x = _argument("x", steps, batch, blocks, layer.number, _LANES)
        recurrence = _argument("recurrence", blocks, layer.units, layer.number, _LANES)
        offset = _argument("bias", blocks, layer.number, _LANES) if bias else None
        first = _argument("hidden", batch, width)
        start = _argument("memory", batch, width) if memory else None
        y, last = _argument("y", steps, batch, width), _argument("last", batch, width)
        kept = _argument("kept", batch, width) if memory else None
        # A step reads all of the old state while it writes the new one, so there are two.
        states = T.alloc_buffer([_index(n) for n in (2, batch, width)], "float32")

        def one_block(step: ir.Expr, block: ir.Expr, example: ir.Expr) -> None:
            time = steps - 1 - step if reverse else step
            old, after, column = step % 2, (step + 1) % 2, block * _LANES
            sums = T.alloc_buffer([_index(layer.number), _index(_LANES)], "float32", scope="local")
            with _unrolled(layer.number) as gate, _vector() as lane:
                zero = tirx.const(0, "float32")
                begin = zero if offset is None else tirx.BufferLoad(offset, [block, gate, lane])
                T.buffer_store(sums, begin, [gate, lane])
            with _serial(layer.units) as k, _unrolled(layer.number) as gate, _vector() as lane:
                weight = tirx.BufferLoad(recurrence, [block, k, gate, lane])
                product = tirx.BufferLoad(states, [old, example, k]) * weight
                T.buffer_store(sums, tirx.BufferLoad(sums, [gate, lane]) + product, [gate, lane])
            new = T.alloc_buffer([_index(_LANES)], "float32", scope="local")
            cell(
                _Block(
                    sums,
                    lambda gate, lane: tirx.BufferLoad(x, [time, example, block, gate, lane]),
                    lambda lane: tirx.BufferLoad(states, [old, example, column + lane]),
                    lambda lane: (kept, [example, column + lane]),
                ),
                new,
            )
            with _vector() as lane:
                T.buffer_store(states, tirx.BufferLoad(new, [lane]), [after, example, column + lane])
            with _vector() as lane:
                T.buffer_store(y, tirx.BufferLoad(new, [lane]), [time, example, column + lane])

        with _serial(batch * blocks) as place, _vector() as lane:
            at = [place // blocks, place % blocks * _LANES + lane]
            T.buffer_store(states, tirx.BufferLoad(first, at), [_index(0), *at])
            if memory:
                T.buffer_store(kept, tirx.BufferLoad(start, at), at)
        large = batch * layer.number * width * layer.units >= _GRAIN
        share = T.parallel if large else T.serial
        with _serial(steps) as step, share(_index(0), _index(blocks * batch)) as place:
            one_block(step, place // batch, place % batch)
        with _serial(batch * blocks) as place, _vector() as lane:
            at = [place // blocks, place % blocks * _LANES + lane]
            T.buffer_store(last, tirx.BufferLoad(states, [_index(steps % 2), *at]), at)
    func = builder.get().without_attr("global_symbol")
    root = s_tir.SBlock([], [], [], "root", func.body)
    return func.with_body(s_tir.SBlockRealize([], True, root))


def _index(value: int) -> ir.Expr:
    return tirx.IntImm("int64", value)


def _argument(name: str, *shape: int) -> tirx.Var:
    return T.arg(name, T.Buffer([_index(n) for n in shape], "float32"))


def _serial(extent: int) -> Any:
    return T.serial(_index(0), _index(extent))


def _unrolled(extent: int) -> Any:
    return T.unroll(_index(0), _index(extent))


def _vector() -> Any:
    return T.vectorized(_index(0), _index(_LANES))
