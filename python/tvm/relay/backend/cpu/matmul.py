"""Matrix multiplication: a dense layer with weights packed at compile time, and batched products at run time.

Both compute tiles of rows by vectors of columns in registers, broadcasting the left operand's values, as the
convolution does.
"""

from __future__ import annotations

import math

import numpy as np
from tvm.tirx.script import builder as T

from tvm import ir, te, tirx

from .convolution import choose_tile
from .kernel import Fused, emit, integer, local, marks, parallel, serial, unroll, vector
from .machine import Machine

__all__ = ["batched", "batched_kernel", "dense", "dense_kernel", "pack_dense_weight", "tile"]


def tile(rows: int | ir.Expr, depth: int, columns: int, machine: Machine) -> tuple[int, int]:
    """The (rows, chunks of columns) of a register tile of [rows, depth] x [depth, columns].

    `rows` may be symbolic.
    """
    known = int(rows) if isinstance(rows, int | tirx.IntImm) else 4 * machine.registers
    return choose_tile(known, -(-columns // machine.lanes), depth, machine, divide=False)


def pack_dense_weight(weight: np.ndarray, chunks: int, lanes: int) -> np.ndarray:
    """Arrange [K, N] weights as [block, K, chunk, lane], N padded with zeros to whole blocks."""
    depth, columns = weight.shape
    blocks = -(-columns // (chunks * lanes))
    padded = np.zeros((depth, blocks * chunks * lanes), weight.dtype)
    padded[:, :columns] = weight
    return np.ascontiguousarray(padded.reshape(depth, blocks, chunks, lanes).transpose(1, 0, 2, 3))


def dense(data: te.Tensor, weight: te.Tensor, columns: int, height: int) -> te.Tensor:
    """[M, K] times packed weights -> [M, columns], in tiles of `height` rows."""
    _, depth, chunks, lanes = (int(n) for n in weight.shape)
    k = te.reduce_axis((0, depth), "k")

    def element(m, n):
        place = n // (chunks * lanes), k, n // lanes % chunks, n % lanes
        return te.sum(data[m, k] * weight[place], axis=k)

    return te.compute((data.shape[0], columns), element, name="dense", attrs=marks("dense", [height]))


def batched(left: te.Tensor, right: te.Tensor, height: int, chunks: int, lanes: int) -> te.Tensor:
    """[..., M, K] times [..., K, N]; the right operand's leading dimensions may be fewer, or 1."""
    lead, columns = left.shape[:-2], right.shape[-1]
    k = te.reduce_axis((0, left.shape[-1]), "k")
    missing = len(lead) - (len(right.shape) - 2)

    def element(*index):
        *batch, m, n = index
        own = [i if int(right.shape[d]) != 1 else 0 for d, i in enumerate(batch[missing:])]
        return te.sum(left[(*batch, m, k)] * right[(*own, k, n)], axis=k)

    shape = (*lead, left.shape[-2], columns)
    return te.compute(shape, element, name="batched", attrs=marks("batched", [height, chunks, lanes]))


def dense_kernel(fused: Fused, machine: Machine) -> tirx.PrimFunc:
    """Emit the dense layer `fused`."""
    data, weight = fused.reads
    blocks, depth, chunks, lanes = (int(n) for n in weight.ty.shape)
    rows, columns = fused.shape[0], int(fused.shape[1])
    height = fused.parameters[0]

    def tiles(block, start, count: int) -> None:
        last = columns - (blocks - 1) * chunks * lanes
        if last == chunks * lanes:
            one_tile(block, start, count, last)
            return
        if blocks == 1:
            one_tile(block, start, count, last)
            return
        with T.If(block < blocks - 1):
            with T.Then():
                one_tile(block, start, count, chunks * lanes)
            with T.Else():
                one_tile(block, start, count, last)

    def one_tile(block, start, count: int, width: int) -> None:
        used = -(-width // lanes)
        sums = local(count, used, lanes)
        with unroll(count) as m, unroll(used) as c, vector(lanes) as v:
            T.buffer_store(sums, tirx.const(0, "float32"), [m, c, v])
        with serial(depth) as k, unroll(count) as m, unroll(used) as c, vector(lanes) as v:
            product = tirx.BufferLoad(data, [start + m, k]) * tirx.BufferLoad(weight, [block, k, c, v])
            T.buffer_store(sums, tirx.BufferLoad(sums, [m, c, v]) + product, [m, c, v])
        first = block * (chunks * lanes)

        def store(m, c, v) -> None:
            fused.store([start + m, first + c * lanes + v], tirx.BufferLoad(sums, [m, c, v]))

        with unroll(count) as m:
            if width >= lanes:
                with unroll(width // lanes) as c, vector(lanes) as v:
                    store(m, c, v)
            if width % lanes:
                with unroll(width % lanes) as v:
                    store(m, integer(width // lanes), v)

    def body() -> None:
        if not isinstance(rows, tirx.IntImm):
            with parallel(rows // height * blocks) as p:
                tiles(p % blocks, p // blocks * height, height)
            with parallel(rows % height * blocks) as p:
                tiles(p % blocks, rows // height * height + p // blocks, 1)
            return
        count = min(height, int(rows))
        units = -(-int(rows) // count)
        step = _units_per_block(units, 4 * count * depth, blocks, machine)
        parts = -(-units // step)
        with parallel(parts * blocks) as p:
            first = p // blocks * step
            limit = integer(step) if units % step == 0 else tirx.min(integer(step), units - first)
            with serial(limit) as u:
                start = (first + u) * count
                if int(rows) % count:
                    start = tirx.min(start, integer(int(rows) - count))
                tiles(p % blocks, start, count)

    return emit(fused.func, body)


def _units_per_block(units: int, unit_bytes: int, blocks: int, machine: Machine) -> int:
    """How many tiles of rows to take at a time: half of the second cache, and enough parts for all cores."""
    count = max(1, min(units, machine.l2 // 2 // unit_bytes))
    while count > 1 and -(-units // count) * blocks < 4 * machine.cores and machine.cores > 1:
        count = (count + 1) // 2
    return count


def batched_kernel(fused: Fused, machine: Machine) -> tirx.PrimFunc:
    """Emit the batched product `fused`; N is at least one vector."""
    left, right = fused.reads
    height, chunks, lanes = fused.parameters
    *lead, rows, columns = (int(n) for n in fused.shape)
    depth = int(left.ty.shape[-1])
    count, width = min(height, rows), chunks * lanes
    units, blocks = -(-rows // count), -(-columns // width)
    own = [int(n) for n in right.ty.shape[:-2]]

    def body() -> None:
        with parallel(math.prod(lead) * blocks) as p, serial(units) as u:
            batch, rest = [], p // blocks
            for n in reversed(lead):
                batch.insert(0, rest % n)
                rest = rest // n
            other = [
                i if n != 1 else integer(0) for n, i in zip(own, batch[len(lead) - len(own) :], strict=True)
            ]
            start, first = u * count, p % blocks * width
            if rows % count:
                start = tirx.min(start, integer(rows - count))
            if columns % width:
                first = tirx.min(first, integer(columns - width))
            sums = local(count, chunks, lanes)
            with unroll(count) as m, unroll(chunks) as c, vector(lanes) as v:
                T.buffer_store(sums, tirx.const(0, "float32"), [m, c, v])
            with serial(depth) as k, unroll(count) as m, unroll(chunks) as c, vector(lanes) as v:
                a = tirx.BufferLoad(left, [*batch, start + m, k])
                b = tirx.BufferLoad(right, [*other, k, first + c * lanes + v])
                T.buffer_store(sums, tirx.BufferLoad(sums, [m, c, v]) + a * b, [m, c, v])
            with unroll(count) as m, unroll(chunks) as c, vector(lanes) as v:
                fused.store([*batch, start + m, first + c * lanes + v], tirx.BufferLoad(sums, [m, c, v]))

    return emit(fused.func, body)
