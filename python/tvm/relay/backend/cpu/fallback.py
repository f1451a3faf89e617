"""The schedule for whatever no kernel takes: an unknown operator shall be bearable, not fast.

Injective producers are inlined, outer axes share the threads, the innermost spatial axis becomes vectors, and
reductions run outside of it where the data lie so, accumulating in a small local row.
"""

from __future__ import annotations

import contextlib

from tvm.s_tir import Schedule

from tvm import ir, s_tir, tirx

from .machine import Machine
from .statements import rewrite, rewrite_leaves

__all__ = ["schedule"]

_SPATIAL, _REDUCTION = 0, 2  # upstream's IterVar types
_ROW = 128  # elements of a row that a reduction accumulates at a time
_GRAIN = 8192  # fewer elements than this are not worth waking another thread
_LARGE = 2000  # nodes of a body in which fused loops' indices would be simplified for minutes
_COSTLY = {"exp", "tanh", "erf", "log", "pow", "sqrt", "rsqrt", "sin", "cos", "sigmoid", "if_then_else"}


def schedule(func: tirx.PrimFunc, machine: Machine) -> tirx.PrimFunc:
    """Return `func` scheduled block by block; one that resists stays as it is, as does a huge function."""
    if _nodes(func) > _LARGE:
        return func
    sch = s_tir.Schedule(func)
    root = sch.get_sblock("root")
    blocks = list(sch.get_child_blocks(root))
    # A block that declares nothing it writes, as foreign code in TE does, may read what another would inline.
    opaque = any(not sch.get(block).writes for block in blocks)
    for block in blocks[:-1]:
        if opaque or _is_reduction(sch, block):
            continue
        readers = sch.get_consumers(block)
        repeated = len(readers) > 1 or any(_is_reduction(sch, reader) for reader in readers)
        if not (repeated and _is_costly(sch.get(block).body)):
            with contextlib.suppress(s_tir.ScheduleError):
                sch.compute_inline(block)
    for block in sch.get_child_blocks(root):
        with contextlib.suppress(s_tir.ScheduleError):
            _schedule_block(sch, block, machine)
    return sch.mod["main"]


def _nodes(func: tirx.PrimFunc) -> int:
    """How many nodes the values have that `func` stores."""
    count = 0

    def visit(_: ir.Expr) -> None:
        nonlocal count
        count += 1

    def store(stmt: tirx.Stmt) -> tirx.Stmt:
        if isinstance(stmt, tirx.BufferStore):
            rewrite(stmt.value, visit)
        return stmt

    rewrite_leaves(func.body, store)
    return count


def _is_reduction(sch: Schedule, block) -> bool:
    return any(int(v.iter_type) == _REDUCTION for v in sch.get(block).iter_vars)


def _is_costly(body: tirx.Stmt) -> bool:
    found = []

    def visit(node: ir.Expr) -> None:
        if isinstance(node, ir.Call) and node.op.name.rpartition(".")[2] in _COSTLY:
            found.append(node)

    if isinstance(body, tirx.BufferStore):
        rewrite(body.value, visit)
    return bool(found)


def _extent(sch: Schedule, loop) -> int | None:
    """The loop's extent, or None where it is symbolic."""
    extent = sch.get(loop).extent
    return int(extent) if isinstance(extent, tirx.IntImm) else None


def _schedule_block(sch: Schedule, block, machine: Machine) -> None:
    statement = sch.get(block)
    loops = list(sch.get_loops(block))
    kinds = [int(v.iter_type) for v in statement.iter_vars]
    if not loops or len(loops) != len(kinds) or not set(kinds) <= {_SPATIAL, _REDUCTION}:
        return
    spatial = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == _SPATIAL]
    reduced = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == _REDUCTION]
    if not spatial:
        return
    total = 1
    for loop in loops:
        total *= _extent(sch, loop) or machine.lanes
    if not reduced:
        _schedule_map(sch, spatial, total, machine)
    elif _is_contiguous(statement, kinds) and (_extent(sch, spatial[-1]) or 0) >= machine.lanes:
        _schedule_rows(sch, block, spatial, reduced, total, machine)
    else:
        sch.reorder(*spatial, *reduced)
        outer = _outer(sch, spatial, total)
        write = sch.cache_write(block, 0, "local")
        sch.reverse_compute_at(write, outer, preserve_unit_loops=True)
        sch.decompose_reduction(block, reduced[0])


def _outer(sch: Schedule, loops: list, total: int):
    """Fuse `loops` into one, shared by the threads where there is enough to do."""
    fused = sch.fuse(*loops) if len(loops) > 1 else loops[0]
    if total >= _GRAIN:
        sch.parallel(fused)
    return fused


def _schedule_map(sch: Schedule, spatial: list, total: int, machine: Machine) -> None:
    inner = _extent(sch, spatial[-1])
    if inner is not None and inner < 2 * machine.lanes and len(spatial) > 1:
        fused = sch.fuse(*spatial)
        extent = _extent(sch, fused)
        spatial, inner = [fused], extent
    if inner is None:
        if len(spatial) > 1:
            _outer(sch, spatial[:-1], total)
        return
    if inner % machine.lanes == 0:
        outer, lanes = sch.split(spatial[-1], [None, machine.lanes])
        sch.vectorize(lanes)
        _outer(sch, [*spatial[:-1], outer], total)
    elif len(spatial) > 1:
        _outer(sch, spatial[:-1], total)
    elif inner > _GRAIN:
        outer, _ = sch.split(spatial[-1], [None, _GRAIN // 4])
        _outer(sch, [outer], total)


def _schedule_rows(sch: Schedule, block, spatial: list, reduced: list, total: int, machine: Machine) -> None:
    """Vectors along the innermost spatial axis, reductions outside of it, sums in a local row."""
    *outer, inner = spatial
    extent = _extent(sch, inner)
    width = _ROW if extent > _ROW else extent
    if extent % machine.lanes == 0:
        width = next(n for n in (4 * machine.lanes, 2 * machine.lanes, machine.lanes) if extent % n == 0)
    if width < extent:
        split, inner = sch.split(inner, [None, width])
        outer.append(split)
    sch.reorder(*outer, *reduced, inner)
    if not outer:
        outer = [sch.add_unit_loop(reduced[0])]
    row = _outer(sch, outer, total)
    if width % machine.lanes == 0:
        chunk, lanes = sch.split(inner, [None, machine.lanes])
        sch.unroll(chunk)
        sch.vectorize(lanes)
    write = sch.cache_write(block, 0, "local")
    sch.reverse_compute_at(write, row, preserve_unit_loops=True)
    if width % machine.lanes == 0:
        _, lanes = sch.split(sch.get_loops(write)[-1], [None, machine.lanes])
        sch.vectorize(lanes)
    sch.decompose_reduction(block, reduced[0])


def _is_contiguous(statement, kinds: list[int]) -> bool:
    """Whether some operand is read along the innermost spatial axis, and none across it."""
    inner = [v.var for v, kind in zip(statement.iter_vars, kinds, strict=True) if kind == _SPATIAL][-1]

    def uses(expression: ir.Expr) -> bool:
        return any(v.same_as(inner) for v in tirx.analysis.undefined_vars(expression))

    along = False
    for read in statement.reads:
        if not read.region:
            continue
        if any(uses(r.min) for r in read.region[:-1]):
            return False
        along = along or uses(read.region[-1].min)
    return along
