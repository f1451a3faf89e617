"""Direct convolution over packed channels.

The data are NCHW[v]c, v being the vector's lanes (or as the model's input has them, where there are few
channels), and so is the result. A tile of `width` pixels by `chunks` output chunks lives in registers while
the reduction runs: each step broadcasts one input value per pixel against one weight vector per chunk.
Where the tiles go along rows, nothing is padded: rows outside the input are left out of the loop over the
kernel's rows, and the tiles at the left and right edges, which are emitted apart, leave out the columns that
they lack. Rows that are too short for a good tile are taken as one line of pixels, from a padded input.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from tvm.tirx.script import builder as T

from tvm import ir, te, tirx

from .kernel import Fused, emit, integer, local, marks, parallel, prefetch, serial, unroll, vector
from .machine import Machine
from .window import Window

__all__ = [
    "NCHW",
    "NHWC",
    "PACKED",
    "Geometry",
    "choose_tile",
    "convolution",
    "kernel",
    "pack_weight",
    "plan",
]

PACKED, NCHW, NHWC = range(3)

_AHEAD = 2  # input chunks, each of which takes some fifty cycles
_LINE = 64  # bytes of a cache line


@dataclass(frozen=True)
class Geometry:
    """A convolution and its tile. `layout` is that of the data; `channels` are the input's, per group.

    `flat`: the plane is one line of pixels, and tiles run on from row to row; nothing may be missing then.
    Tiles of `chunks` output chunks go over `outputs` in all; the last overlaps where they do not divide.
    """

    window: Window
    groups: int
    layout: int
    channels: int
    width: int = 0
    chunks: int = 1
    flat: int = 0
    outputs: int = 0

    def parameters(self) -> list[int]:
        """The geometry as a list of integers, which `from_parameters` takes."""
        tile = [self.width, self.chunks, self.flat, self.outputs]
        return [*self.window.parameters(), self.groups, self.layout, self.channels, *tile]

    @classmethod
    def from_parameters(cls, p: list[int]) -> Geometry:
        """The geometry that `parameters` wrote."""
        return cls(Window.from_parameters(p[:10]), *p[10:])

    def blocking(self, lanes: int) -> tuple[int, int]:
        """How the reduction walks the channels: (outer count, inner count).

        Channels that do not fill their vectors are walked singly, so that the padding lanes, which may hold
        anything, are never read.
        """
        if self.layout == NHWC:
            return 1, self.channels
        if self.layout == PACKED and self.channels % lanes == 0:
            return self.channels // lanes, lanes
        return self.channels, 1

    @property
    def blocks(self) -> int:
        """How many tiles go over the output chunks."""
        return -(-self.outputs // self.chunks)

    def first(self, block: int | ir.Expr) -> int | ir.Expr:
        """The first output chunk of the tile `block`."""
        if self.outputs % self.chunks == 0:
            return block * self.chunks
        last = self.outputs - self.chunks
        if isinstance(block, int):
            return min(block * self.chunks, last)
        return tirx.min(block * self.chunks, integer(last))


def choose_tile(
    columns: int, chunks: int, depth: int, machine: Machine, *, divide: bool = True
) -> tuple[int, int]:
    """The (width, chunks) of a register tile with the lowest estimated cost per useful multiply-add.

    A step issues width * chunks multiply-adds, two a cycle, and width + chunks loads, two a cycle but for
    conflicts of the cache's banks; it takes no less than the latency of a multiply-add. The weights of a
    tile's `depth` steps come from the second cache, at a vector in two cycles, unless they fit half of the
    first. Tiles at the end of a row overlap, which is work done twice. With `divide`, the tile's chunks
    divide `chunks`.
    """
    return _best_tile(columns, chunks, depth, machine, divide)[1:]


def _best_tile(
    columns: int, chunks: int, depth: int, machine: Machine, divide: bool
) -> tuple[float, int, int]:
    """The estimated cycles of a line at one step, and its tile (see `choose_tile`)."""
    best = None
    for group in range(1, min(chunks, machine.registers // 2) + 1):
        if divide and chunks % group:
            continue
        for width in range(1, columns + 1):
            if width * group + group + 1 > machine.registers:
                break
            cycles = max(width * group / 2, (width + group) / 1.5, machine.accumulators / 2)
            if 4 * machine.lanes * group * depth > machine.l1 // 2:
                cycles = max(cycles, 2 * group)
            cycles += 0.6
            cost = -(-columns // width) * -(-chunks // group) * cycles
            if best is None or cost < best[0] - 1e-9:
                best = (cost, width, group)
    return best


def plan(geometry: Geometry, plane: tuple[int, int], outputs: int, machine: Machine) -> Geometry:
    """`geometry` with the tile that suits an input of `plane` pixels and `outputs` output channels.

    Where it is `flat` although the window has a padding, the data are to be padded first.
    """
    window = geometry.window
    rows, columns = window.output(*plane)
    total = -(-outputs // machine.lanes)
    chunks, divide = total // geometry.groups, geometry.groups > 1
    depth = geometry.channels * math.prod(window.size)
    cost, width, group = _best_tile(rows * columns, chunks, depth, machine, divide)
    flat = window.size == (1, 1) and window.strides == (1, 1) and not any(window.padding)
    if not flat:
        by_rows, *tile = _best_tile(columns, chunks, depth, machine, divide)
        # Addresses take a little longer than along a row.
        flat = geometry.layout == PACKED and 1.05 * cost < rows * by_rows
        if not flat:
            width, group = tile
    return replace(geometry, width=width, chunks=group, flat=int(flat), outputs=total)


def pack_weight(weight: np.ndarray, geometry: Geometry, lanes: int) -> np.ndarray:
    """Arrange OIHW weights as the kernel reads them: [block, channel, row, column, inner, chunk, lane].

    Output channels are padded with zeros to whole chunks.
    """
    outer, inner = geometry.blocking(lanes)
    padded = np.zeros((geometry.outputs * lanes, *weight.shape[1:]), weight.dtype)
    padded[: weight.shape[0]] = weight
    chunked = padded.reshape(geometry.outputs, lanes, outer, inner, *geometry.window.size)
    firsts = np.array([geometry.first(block) for block in range(geometry.blocks)])
    tiles = chunked[firsts[:, None] + np.arange(geometry.chunks)]
    return np.ascontiguousarray(tiles.transpose(0, 3, 5, 6, 4, 1, 2))


def _element(data, geometry: Geometry, lanes: int, n, group, outer, inner, y, x):
    """The input value at one place of the reduction; `group` is the convolution group."""
    first = group * geometry.channels
    if geometry.layout == NHWC:
        return data[n, y, x, first + inner]
    if geometry.layout == NCHW:
        return data[n, first + outer, y, x]
    if geometry.channels % lanes == 0:
        return data[n, group * (geometry.channels // lanes) + outer, y, x, inner]
    return data[n, (first + outer) // lanes, y, x, (first + outer) % lanes]


def _plane(shape, geometry: Geometry) -> tuple[int, int]:
    at = 1 if geometry.layout == NHWC else 2
    return int(shape[at]), int(shape[at + 1])


def convolution(data: te.Tensor, weight: te.Tensor, geometry: Geometry) -> te.Tensor:
    """The convolution as TE: the meaning that the kernel implements.

    `weight` is packed (see `pack_weight`); the result is [N, chunks, H, W, lanes].
    """
    _, outer, rows, columns, inner, chunks, lanes = (int(n) for n in weight.shape)
    window = geometry.window
    height, width = _plane(data.shape, geometry)
    output = window.output(height, width)
    per_group = geometry.outputs // geometry.groups
    o, i = te.reduce_axis((0, outer), "o"), te.reduce_axis((0, inner), "i")
    kh, kw = te.reduce_axis((0, rows), "kh"), te.reduce_axis((0, columns), "kw")

    def element(n, c, h, w, v):
        y, x = window.row(h, kh), window.column(w, kw)
        value = _element(data, geometry, lanes, n, c // per_group, o, i, y, x)
        conditions = window.inside(y, x, height, width, output)
        if conditions:
            value = tirx.if_then_else(tirx.all(*conditions), value, tirx.const(0, data.dtype))
        block = c // chunks
        place = c - geometry.first(block)
        return te.sum(value * weight[block, o, kh, kw, i, place, v], axis=[o, kh, kw, i])

    shape = (data.shape[0], geometry.outputs, *output, lanes)
    return te.compute(shape, element, name="convolution", attrs=marks("convolution", geometry.parameters()))


def kernel(fused: Fused, machine: Machine) -> tirx.PrimFunc:
    """Emit the convolution `fused` as register tiles."""
    return _Emitter(fused, machine).emit()


class _Emitter:
    """Emits one convolution. A unit of work is a row of the output, or a tile of a flat one."""

    def __init__(self, fused: Fused, machine: Machine):
        self.fused, self.machine = fused, machine
        self.geometry = Geometry.from_parameters(fused.parameters)
        self.window = self.geometry.window
        self.data, self.weight = fused.reads
        self.batch = fused.shape[0]
        self.chunks, self.rows, self.columns, self.lanes = (int(n) for n in fused.shape[1:])
        self.outer, self.inner = self.geometry.blocking(self.lanes)
        self.height, self.width = _plane(self.data.ty.shape, self.geometry)
        self.blocks = self.geometry.blocks
        self.line = self.rows * self.columns if self.geometry.flat else self.columns
        self.count = min(self.geometry.width, self.line)
        self.units = -(-self.line // self.count) if self.geometry.flat else self.rows
        self.weight_bytes = 4 * math.prod(int(n) for n in self.weight.ty.shape)
        self.input_bytes = 4 * math.prod(int(n) for n in self.data.ty.shape[1:])

    def emit(self) -> tirx.PrimFunc:
        return emit(self.fused.func, self._by_rows if self._rows_outside() else self._by_chunks)

    def _rows_outside(self) -> bool:
        """Whether blocks of rows are the outer loop: the weights stay cached, or are read the fewer times."""
        batch = int(self.batch) if isinstance(self.batch, int | tirx.IntImm) else 1
        if batch * self.units < self.machine.cores <= self.blocks:
            return False  # there are not enough rows for all threads
        if self.weight_bytes <= self.machine.l2 // 2:
            return True
        if self.input_bytes <= self.machine.l2 // 2:
            return False
        passes = -(-self.units // self._units_per_block())
        return self.weight_bytes * passes < self.input_bytes * self.blocks

    def _units_per_block(self) -> int:
        """As many units as keep their input within a quarter of the second cache and all cores busy."""
        fits = max(1, self.machine.l2 // 4 * self.units // self.input_bytes)
        shares = 1 if self.machine.cores == 1 else 4 * self.machine.cores
        count = max(1, min(fits, self.units // shares))
        return -(-self.units // -(-self.units // count))

    def _by_rows(self) -> None:
        step = self._units_per_block()
        parts = -(-self.units // step)
        with parallel(self.batch * parts) as p, serial(self.blocks) as block:
            self._units(p // parts, block, p % parts, step)

    def _by_chunks(self) -> None:
        shares = 4 * self.machine.cores
        step = self.units
        if self.blocks < shares:
            step = -(-self.units // min(self.units, -(-shares // self.blocks)))
        parts = -(-self.units // step)
        with parallel(self.blocks * parts * self.batch) as p:
            self._units(p // parts % self.batch, p // parts // self.batch, p % parts, step)

    def _units(self, n, block, part, step: int) -> None:
        count = integer(step) if self.units % step == 0 else tirx.min(integer(step), self.units - part * step)
        with serial(count) as unit:
            self._unit(n, block, part * step + unit)

    def _unit(self, n, block, unit) -> None:
        if self.geometry.flat:
            start = unit * self.count
            if self.line % self.count:
                start = tirx.min(start, integer(self.line - self.count))
            self._tile(n, block, None, start, None)
            return
        apart, whole = self.window.tiles(self.columns, self.count, self.width)
        for start, cut in apart:
            self._tile(n, block, unit, start, start if cut else None)
        if whole:
            with serial(len(whole)) as t:
                self._tile(n, block, unit, whole.start + t * self.count, None)

    def _tile(self, n, block, h, start, cut: int | None) -> None:
        """One tile from column `start`; `cut` is that column where some of its input columns are missing."""
        chunks = self.geometry.chunks
        sums = local(self.count, chunks, self.lanes)
        with unroll(self.count) as w, unroll(chunks) as c, vector(self.lanes) as v:
            T.buffer_store(sums, tirx.const(0, "float32"), [w, c, v])
        low, high = 0, self.window.size[0]
        if h is not None:
            low, high = self.window.rows_inside(h, self.height, self.rows)
        with serial(self.outer) as o, serial(high, low) as kh:
            if cut is None:
                with serial(self.window.size[1]) as kw:
                    self._step(sums, n, block, o, h, kh, start, kw, (0, self.count))
            else:
                for kw in range(self.window.size[1]):
                    span = self.window.columns_inside(cut, self.count, kw, self.width)
                    if span[0] < span[1]:
                        self._step(sums, n, block, o, h, kh, start, integer(kw), span)
        with unroll(self.count) as w, unroll(chunks) as c, vector(self.lanes) as v:
            row, column = self._pixel(h, start, w)
            chunk = self.geometry.first(block) + c
            self.fused.store([n, chunk, row, column, v], tirx.BufferLoad(sums, [w, c, v]))

    def _prefetch(self, n, group, o, start) -> None:
        """Fetch the pixels of steps ahead: they lie a plane apart, too far for the hardware to guess."""
        ahead = tirx.min(o + _AHEAD, integer(self.outer - 1))
        for pixel in range(0, self.count, max(1, _LINE // (4 * self.lanes))):
            y, x = self._pixel(None, start, pixel)
            value = _element(_Loads(self.data), self.geometry, self.lanes, n, group, ahead, integer(0), y, x)
            prefetch(value)

    def _pixel(self, h, start, w):
        if h is not None:
            return h, start + w
        return (start + w) // self.columns, (start + w) % self.columns

    def _step(self, sums, n, block, o, h, kh, start, kw, span: tuple[int, int]) -> None:
        """Add the products of one row and column of the window, for the pixels of `span`."""
        group = block // (self.blocks // self.geometry.groups)
        if self.inner > 1 and self.geometry.flat and self.window.size == (1, 1):
            self._prefetch(n, group, o, start)
        with serial(self.inner) as i, unroll(span[1], span[0]) as w, unroll(self.geometry.chunks) as c:
            row, column = self._pixel(h, start, w)
            y, x = self.window.row(row, kh), self.window.column(column, kw)
            value = _element(_Loads(self.data), self.geometry, self.lanes, n, group, o, i, y, x)
            with vector(self.lanes) as v:
                weight = tirx.BufferLoad(self.weight, [block, o, kh, kw, i, c, v])
                T.buffer_store(sums, tirx.BufferLoad(sums, [w, c, v]) + value * weight, [w, c, v])


class _Loads:
    """Lets a buffer be indexed as a TE tensor is."""

    def __init__(self, buffer: tirx.Var):
        self.buffer = buffer

    def __getitem__(self, indices: tuple[ir.Expr, ...]) -> ir.Expr:
        return tirx.BufferLoad(self.buffer, list(indices))
