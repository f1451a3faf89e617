"""Depthwise convolution and pooling: a window over each channel by itself, on packed channels.

One vector holds a pixel's channels, so that a tile is a row of pixels, each with one accumulator.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm.tirx.script import builder as T

from tvm import ir, te, tirx

from .kernel import Fused, emit, integer, local, marks, parallel, serial, unroll, vector
from .machine import Machine
from .window import Window

__all__ = ["average", "depthwise", "kernel", "maximum", "pack_depthwise_weight"]

_SUM, _MAXIMUM = range(2)


def pack_depthwise_weight(weight: np.ndarray, lanes: int) -> np.ndarray:
    """Arrange [C, 1, KH, KW] weights as [chunk, KH, KW, lane], padded with zeros to whole chunks."""
    chunks = -(-weight.shape[0] // lanes)
    padded = np.zeros((chunks * lanes, *weight.shape[2:]), weight.dtype)
    padded[: weight.shape[0]] = weight[:, 0]
    return np.ascontiguousarray(padded.reshape(chunks, lanes, *weight.shape[2:]).transpose(0, 2, 3, 1))


def _reduce(
    data: te.Tensor,
    window: Window,
    output: tuple[int, int],
    reducer: Callable,
    outside: float,
    operation: int,
    weight: te.Tensor | None = None,
) -> te.Tensor:
    height, width = int(data.shape[2]), int(data.shape[3])
    kh, kw = te.reduce_axis((0, window.size[0]), "kh"), te.reduce_axis((0, window.size[1]), "kw")

    def element(n, c, h, w, v):
        y, x = window.row(h, kh), window.column(w, kw)
        value = data[n, c, y, x, v]
        conditions = window.inside(y, x, height, width, output)
        if conditions:
            value = tirx.if_then_else(tirx.all(*conditions), value, tirx.const(outside, data.dtype))
        return reducer(value if weight is None else value * weight[c, kh, kw, v], axis=[kh, kw])

    attributes = marks("pooling", [*window.parameters(), operation])
    shape = (data.shape[0], data.shape[1], *output, data.shape[4])
    return te.compute(shape, element, name="pooling", attrs=attributes)


def depthwise(data: te.Tensor, weight: te.Tensor, window: Window) -> te.Tensor:
    """Depthwise convolution of packed `data` with `weight` as `pack_depthwise_weight` arranges it."""
    output = window.output(int(data.shape[2]), int(data.shape[3]))
    return _reduce(data, window, output, te.sum, 0.0, _SUM, weight)


def maximum(data: te.Tensor, window: Window, output: tuple[int, int]) -> te.Tensor:
    """Maximum pooling of packed float32 `data` into a plane of `output` pixels."""
    return _reduce(data, window, output, te.max, float("-inf"), _MAXIMUM)


def average(data: te.Tensor, window: Window, output: tuple[int, int], include_padding: bool) -> te.Tensor:
    """Average pooling of packed float32 `data`; a window beyond even the padding counts what it covers."""
    total = _reduce(data, window, output, te.sum, 0.0, _SUM)
    plane = int(data.shape[2]), int(data.shape[3])

    def covered(at, axis: int):
        before, after = window.padding[axis], window.padding[axis + 2]
        start = at * window.strides[axis] - before
        first, last = (-before, plane[axis] + after) if include_padding else (0, plane[axis])
        whole = before == after == 0 or include_padding
        if whole and (int(output[axis]) - 1) * window.strides[axis] - before + window.size[axis] <= last:
            return tirx.const(window.size[axis], "int64")
        return tirx.min(start + window.size[axis], tirx.const(last, "int64")) - tirx.max(
            start, tirx.const(first, "int64")
        )

    def element(n, c, h, w, v):
        count = tirx.max(covered(h, 0) * covered(w, 1), tirx.const(1, "int64"))
        if isinstance(count, tirx.IntImm):
            return total[n, c, h, w, v] * tirx.const(1.0 / int(count), data.dtype)
        return total[n, c, h, w, v] / count.astype(data.dtype)

    return te.compute(total.shape, element, name="average")


def kernel(fused: Fused, machine: Machine) -> tirx.PrimFunc:
    """Emit the depthwise convolution or pooling `fused` as rows of accumulators."""
    return _Emitter(fused, machine).emit()


class _Emitter:
    def __init__(self, fused: Fused, machine: Machine):
        self.fused, self.machine = fused, machine
        self.window, self.operation = Window.from_parameters(fused.parameters[:10]), fused.parameters[10]
        self.data, self.weight = fused.reads[0], fused.reads[1] if len(fused.reads) > 1 else None
        self.batch = fused.shape[0]
        self.chunks, self.rows, self.columns, self.lanes = (int(n) for n in fused.shape[1:])
        self.height, self.width = int(self.data.ty.shape[2]), int(self.data.ty.shape[3])
        self.count = self._tile_width()

    def _tile_width(self) -> int:
        """The widest tile with the least overlap whose sums, row of weights and operand fit the registers."""
        held = min(self.window.size[1], 4) if self.weight is not None else 0
        widest = min(self.columns, self.machine.registers - held - 1)
        return min(range(1, widest + 1), key=lambda n: (-(-self.columns // n) * (n + 2), -n))

    def emit(self) -> tirx.PrimFunc:
        def body() -> None:
            shares = 4 * self.machine.cores
            parts = min(self.rows, -(-shares // self.chunks))
            step = -(-self.rows // parts)
            parts = -(-self.rows // step)
            with parallel(self.batch * self.chunks * parts) as p:
                first = p % parts * step
                count = integer(step) if self.rows % step == 0 else tirx.min(integer(step), self.rows - first)
                with serial(count) as r:
                    self._row(p // parts // self.chunks, p // parts % self.chunks, first + r)

        return emit(self.fused.func, body)

    def _row(self, n, c, h) -> None:
        apart, whole = self.window.tiles(self.columns, self.count, self.width)
        for start, cut in apart:
            self._tile(n, c, h, start, start if cut else None)
        if whole:
            with serial(len(whole)) as t:
                self._tile(n, c, h, whole.start + t * self.count, None)

    def _tile(self, n, c, h, start, cut: int | None) -> None:
        results = local(self.count, self.lanes)
        initial = 0.0 if self.operation == _SUM else float("-inf")
        with unroll(self.count) as w, vector(self.lanes) as v:
            T.buffer_store(results, tirx.const(initial, "float32"), [w, v])
        low, high = self.window.rows_inside(h, self.height, self.rows)
        with serial(high, low) as kh:
            if cut is not None:
                for kw in range(self.window.size[1]):
                    span = self.window.columns_inside(cut, self.count, kw, self.width)
                    if span[0] < span[1]:
                        self._step(results, n, c, h, kh, start, integer(kw), span)
            elif self.window.size[1] <= self.machine.registers:
                with unroll(self.window.size[1]) as kw:
                    self._step(results, n, c, h, kh, start, kw, (0, self.count))
            else:
                with serial(self.window.size[1]) as kw:
                    self._step(results, n, c, h, kh, start, kw, (0, self.count))
        with unroll(self.count) as w, vector(self.lanes) as v:
            self.fused.store([n, c, h, start + w, v], tirx.BufferLoad(results, [w, v]))

    def _step(self, results, n, c, h, kh, start, kw, span: tuple[int, int]) -> None:
        with unroll(span[1], span[0]) as w, vector(self.lanes) as v:
            y, x = self.window.row(h, kh), self.window.column(start + w, kw)
            value = tirx.BufferLoad(self.data, [n, c, y, x, v])
            if self.weight is not None:
                value = value * tirx.BufferLoad(self.weight, [c, kh, kw, v])
            T.buffer_store(results, self._combine(tirx.BufferLoad(results, [w, v]), value), [w, v])

    def _combine(self, a: ir.Expr, b: ir.Expr) -> ir.Expr:
        return a + b if self.operation == _SUM else tirx.max(a, b)
