"""Winograd's minimal filtering F(4x4, 3x3) for 3x3 convolutions with stride 1, on packed channels.

An output tile of 4x4 pixels comes from a 6x6 patch of the input. Patches and weights are transformed so that
convolution becomes, for each of the 36 places of the patch, a matrix product over the channels: a quarter of
the multiplications. Transforms and their points (0, 1, -1, 2, -2, infinity) are those of Lavin and Gray,
"Fast Algorithms for Convolutional Neural Networks", 2016.

Rounding errors grow about tenfold over direct convolution, to less than 1e-5 of the largest output (3e-6 to
9e-6 measured on normal data); a NaN or infinity reaches the whole tile instead of its 3x3 neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tvm.tirx.script import builder as T

from tvm import ir, te, tirx

from .convolution import choose_tile
from .kernel import Fused, emit, integer, local, marks, parallel, serial, unroll, vector
from .machine import Machine
from .window import Window

__all__ = ["FORWARD", "INVERSE", "Plan", "kernel", "plan", "transform_weight", "winograd"]

_OUT, _PATCH = 4, 6
FORWARD = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    "float32",
)
_KERNEL = (
    np.array(
        [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]],
        "float64",
    )
    / 24
)
INVERSE = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], "float32"
)


@dataclass(frozen=True)
class Plan:
    """`block` tiles of the output are transformed together; products are `width` tiles by `chunks` chunks."""

    window: Window
    channels: int
    block: int
    width: int
    chunks: int

    def parameters(self) -> list[int]:
        """The plan as a list of integers, which `from_parameters` takes."""
        return [*self.window.parameters(), self.channels, self.block, self.width, self.chunks]

    @classmethod
    def from_parameters(cls, p: list[int]) -> Plan:
        """The plan that `parameters` wrote."""
        return cls(Window.from_parameters(p[:10]), *p[10:])


def plan(
    window: Window, plane: tuple[int, int], channels: int, outputs: int, machine: Machine
) -> Plan | None:
    """The plan for a convolution, or None where the direct one is estimated to be no slower.

    Estimates are in cycles of two vector multiply-adds. The transformed weights, four times the size, must be
    read in time: 8 bytes a cycle from the last cache, 4 from memory.
    """
    if window.size != (3, 3) or window.strides != (1, 1) or window.dilation != (1, 1):
        return None
    rows, columns = window.output(*plane)
    tiles = -(-rows // _OUT) * -(-columns // _OUT)
    in_chunks, out_chunks = -(-channels // machine.lanes), -(-outputs // machine.lanes)
    direct = rows * columns * 9 * channels * out_chunks / 2
    weight_bytes = 4 * _PATCH**2 * channels * out_chunks * machine.lanes
    streaming = 0.0
    if weight_bytes > machine.l2 // 2:
        streaming = weight_bytes / (8 if weight_bytes <= machine.l3 // 2 else 4)
    products = tiles * _PATCH**2 * channels * out_chunks / 2
    transforms = tiles * 250 * (in_chunks + out_chunks)
    if max(products, streaming) + transforms > 0.8 * direct:
        return None
    tile_bytes = 4 * _PATCH**2 * (in_chunks + out_chunks) * machine.lanes
    block = tiles
    if weight_bytes <= machine.l2 // 2:
        fits = max(machine.registers, machine.l2 // 2 // tile_bytes)
        parts = max(-(-tiles // fits), min(2 * machine.cores, tiles // machine.registers))
        block = -(-tiles // max(1, parts))
    width, chunks = choose_tile(block, out_chunks, channels, machine)
    return Plan(window, channels, block, width, chunks)


def transform_weight(weight: np.ndarray, chunks: int, lanes: int) -> np.ndarray:
    """OIHW 3x3 weights -> [place of the patch, block, channel, chunk, lane], O padded with zeros."""
    outputs, channels = weight.shape[:2]
    total = -(-outputs // lanes) * lanes
    transformed = np.zeros((_PATCH**2, channels, total), "float32")
    taps = weight.astype("float64").transpose(2, 3, 1, 0).reshape(9, -1)
    transformed[..., :outputs] = (np.kron(_KERNEL, _KERNEL) @ taps).reshape(_PATCH**2, channels, outputs)
    split = transformed.reshape(_PATCH**2, channels, total // (chunks * lanes), chunks, lanes)
    return np.ascontiguousarray(split.transpose(0, 2, 1, 3, 4))


def winograd(
    data: te.Tensor, weight: te.Tensor, forward: te.Tensor, inverse: te.Tensor, plan: Plan
) -> te.Tensor:
    """The convolution as TE, element by element; `forward` and `inverse` hold the matrices of those names."""
    _, blocks, channels, chunks, lanes = (int(n) for n in weight.shape)
    height, width = int(data.shape[2]), int(data.shape[3])
    output = plan.window.output(height, width)
    top, left, _, _ = plan.window.padding
    k = te.reduce_axis((0, channels), "k")
    i, j, a, b = (te.reduce_axis((0, _PATCH), name) for name in "ijab")

    def element(n, c, h, w, v):
        y, x = h // _OUT * _OUT + a - top, w // _OUT * _OUT + b - left
        inside = tirx.all(y >= 0, y < height, x >= 0, x < width)
        value = data[n, k // lanes, y, x, k % lanes]
        value = tirx.if_then_else(inside, value, tirx.const(0, data.dtype))
        value = value * weight[i * _PATCH + j, c // chunks, k, c % chunks, v]
        value = value * forward[i, a] * forward[j, b] * inverse[h % _OUT, i] * inverse[w % _OUT, j]
        return te.sum(value, axis=[k, i, j, a, b])

    shape = (data.shape[0], blocks * chunks, *output, lanes)
    return te.compute(shape, element, name="winograd", attrs=marks("winograd", plan.parameters()))


def kernel(fused: Fused, machine: Machine) -> tirx.PrimFunc:
    """Emit the convolution `fused`."""
    return _Emitter(fused, machine).emit()


class _Emitter:
    def __init__(self, fused: Fused, machine: Machine):
        self.fused, self.machine = fused, machine
        self.plan = Plan.from_parameters(fused.parameters)
        self.data, self.weight = fused.reads[:2]
        self.batch = fused.shape[0]
        self.chunks, self.rows, self.columns, self.lanes = (int(n) for n in fused.shape[1:])
        self.in_chunks, self.height, self.width = (int(n) for n in self.data.ty.shape[1:4])
        self.across = -(-self.columns // _OUT)
        self.tiles = -(-self.rows // _OUT) * self.across
        self.block = self.plan.block
        self.parts = -(-self.tiles // self.block)

    def emit(self) -> tirx.PrimFunc:
        return emit(self.fused.func, self._blocks if self.parts > 1 else self._stages)

    def _scratch(self, chunks: int):
        shape = (_PATCH**2, self.block, chunks * self.lanes)
        return T.alloc_buffer([integer(n) for n in shape], "float32", scope="global")

    def _blocks(self) -> None:
        """The threads share blocks of tiles; each goes through the stages by itself, in its own cache."""
        with parallel(self.batch * self.parts) as p:
            n, first = p // self.parts, p % self.parts * self.block
            patches, products = self._scratch(self.in_chunks), self._scratch(self.chunks)
            count = tirx.min(integer(self.block), self.tiles - first)
            with serial(count) as r, serial(self.in_chunks) as c:
                self._forward(patches, n, first + r, r, c)
            with serial(_PATCH**2) as t, serial(self.chunks // self.plan.chunks) as g:
                self._multiply(patches, products, t, g)
            with serial(count) as r, serial(self.chunks) as c:
                self._inverse(products, n, first + r, r, c)

    def _stages(self) -> None:
        """All tiles at once; the threads share each stage, so that the weights are read but once."""
        with serial(self.batch) as n:
            patches, products = self._scratch(self.in_chunks), self._scratch(self.chunks)
            with parallel(self.tiles * self.in_chunks) as p:
                r, c = p // self.in_chunks, p % self.in_chunks
                self._forward(patches, n, r, r, c)
            groups = self.chunks // self.plan.chunks
            with parallel(_PATCH**2 * groups) as p:
                self._multiply(patches, products, p // groups, p % groups)
            with parallel(self.tiles * self.chunks) as p:
                r, c = p // self.chunks, p % self.chunks
                self._inverse(products, n, r, r, c)

    def _transform(self, matrix: np.ndarray, read: Callable, write: Callable, count: int) -> None:
        """Emit `matrix` times a matrix with `count` columns, vector by vector."""
        with unroll(count) as j, vector(self.lanes) as v:
            for i, row in enumerate(matrix):
                terms = [
                    read(integer(k), j, v) * tirx.const(float(f), "float32")
                    if f != 1
                    else read(integer(k), j, v)
                    for k, f in enumerate(row)
                    if f
                ]
                write(integer(i), j, v, sum(terms[1:], terms[0]))

    def _forward(self, patches, n, tile, r, c) -> None:
        """Transform the patch of `tile` into row `r` of the scratch."""
        top, left, _, _ = self.plan.window.padding
        y0, x0 = tile // self.across * _OUT - top, tile % self.across * _OUT - left
        half = local(_PATCH, _PATCH, self.lanes)

        def write_half(i, j, v, value) -> None:
            T.buffer_store(half, value, [i, j, v])

        def load(i, j, v) -> ir.Expr:
            return tirx.BufferLoad(self.data, [n, c, y0 + i, x0 + j, v])

        def guarded(i, j, v) -> ir.Expr:
            y, x = y0 + i, x0 + j
            inside = tirx.all(y >= 0, y < self.height, x >= 0, x < self.width)
            return tirx.if_then_else(inside, load(i, j, v), tirx.const(0, "float32"))

        whole = tirx.all(y0 >= 0, y0 + _PATCH <= self.height, x0 >= 0, x0 + _PATCH <= self.width)
        with T.If(whole):
            with T.Then():
                self._transform(FORWARD, load, write_half, _PATCH)
            with T.Else():
                patch = local(_PATCH, _PATCH, self.lanes)
                with serial(_PATCH) as i, serial(_PATCH) as j, vector(self.lanes) as v:
                    T.buffer_store(patch, guarded(i, j, v), [i, j, v])
                self._transform(
                    FORWARD, lambda i, j, v: tirx.BufferLoad(patch, [i, j, v]), write_half, _PATCH
                )

        def write(i, j, v, value) -> None:
            T.buffer_store(patches, value, [j * _PATCH + i, r, c * self.lanes + v])

        self._transform(FORWARD, lambda i, j, v: tirx.BufferLoad(half, [j, i, v]), write, _PATCH)

    def _multiply(self, patches, products, t, g) -> None:
        """The products of place `t` with block `g` of the weights, in register tiles."""
        width, chunks = min(self.plan.width, self.block), self.plan.chunks
        with serial(-(-self.block // width)) as u:
            start = u * width
            if self.block % width:
                start = tirx.min(start, integer(self.block - width))
            sums = local(width, chunks, self.lanes)
            with unroll(width) as w, unroll(chunks) as c, vector(self.lanes) as v:
                T.buffer_store(sums, tirx.const(0, "float32"), [w, c, v])
            with (
                serial(self.plan.channels) as k,
                unroll(width) as w,
                unroll(chunks) as c,
                vector(self.lanes) as v,
            ):
                patch = tirx.BufferLoad(patches, [t, start + w, k])
                weight = tirx.BufferLoad(self.weight, [t, g, k, c, v])
                T.buffer_store(sums, tirx.BufferLoad(sums, [w, c, v]) + patch * weight, [w, c, v])
            with unroll(width) as w, unroll(chunks) as c, vector(self.lanes) as v:
                column = (g * chunks + c) * self.lanes + v
                T.buffer_store(products, tirx.BufferLoad(sums, [w, c, v]), [t, start + w, column])

    def _inverse(self, products, n, tile, r, c) -> None:
        """Transform row `r` of the products into the pixels of `tile`, and store those that exist."""
        half, pixels = local(_OUT, _PATCH, self.lanes), local(_OUT, _OUT, self.lanes)

        def read(i, j, v) -> ir.Expr:
            return tirx.BufferLoad(products, [i * _PATCH + j, r, c * self.lanes + v])

        def write_half(i, j, v, value) -> None:
            T.buffer_store(half, value, [i, j, v])

        def write(i, j, v, value) -> None:
            T.buffer_store(pixels, value, [j, i, v])

        self._transform(INVERSE, read, write_half, _PATCH)
        self._transform(INVERSE, lambda i, j, v: tirx.BufferLoad(half, [j, i, v]), write, _OUT)
        y0, x0 = tile // self.across * _OUT, tile % self.across * _OUT
        height = self._count(y0, self.rows)
        width = self._count(x0, self.columns)
        with serial(height) as i, serial(width) as j, vector(self.lanes) as v:
            self.fused.store([n, c, y0 + i, x0 + j, v], tirx.BufferLoad(pixels, [i, j, v]))

    def _count(self, start, limit: int) -> int | ir.Expr:
        return _OUT if limit % _OUT == 0 else tirx.min(integer(_OUT), limit - start)
