"""What every hand-written kernel shares: finding the computation in a fused function, and emitting loops.

A packing rule describes a computation as TE, which defines its meaning, and marks the block with the name of
its kernel. FuseTIR puts the element-wise operators that follow behind it. The kernel then replaces the whole
body: it computes tiles into local accumulators and stores each through the `Epilogue`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tvm_ffi
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from tvm import ir, s_tir, tirx

from .statements import rewrite

__all__ = [
    "Fused",
    "analyse",
    "emit",
    "integer",
    "local",
    "marks",
    "parallel",
    "prefetch",
    "serial",
    "unroll",
    "vector",
]

_KERNEL = "cpu.kernel"
_PARAMETERS = "cpu.parameters"


def marks(kernel: str, parameters: Sequence[int]) -> dict[str, object]:
    """The TE attributes that hand a computation to `kernel` with `parameters`."""
    return {_KERNEL: kernel, _PARAMETERS: list(parameters)}


@dataclass
class Fused:
    """A fused function taken apart: the marked computation, what it reads, how its elements are stored."""

    func: tirx.PrimFunc
    kernel: str
    parameters: list[int]
    reads: list[tirx.Var]
    shape: list[ir.Expr]
    _result: tirx.Var
    _epilogue: tirx.Stmt | None
    _axes: list[tirx.Var]

    def store(self, indices: Sequence[ir.Expr], value: ir.Expr) -> None:
        """Emit the epilogue of the element `indices` of the computation, whose sum is `value`."""
        if self._epilogue is None:
            T.buffer_store(self._result, value, list(indices))
            return
        axes = dict(zip(self._axes, indices, strict=True))

        def replace(node: ir.Expr) -> ir.Expr | None:
            if isinstance(node, tirx.Var):
                return axes.get(node)
            if isinstance(node, ir.TensorLoad) and node.source.same_as(self._result):
                return value
            return None

        store = self._epilogue
        T.buffer_store(
            store.buffer, rewrite(store.value, replace), [rewrite(i, replace) for i in store.indices]
        )


def analyse(func: tirx.PrimFunc) -> Fused | None:
    """Take `func` apart; None where it holds no marked computation or more than an epilogue behind it."""
    schedule = s_tir.Schedule(func)
    blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
    if not blocks or _KERNEL not in schedule.get(blocks[0]).annotations:
        return None
    for block in blocks[1:-1]:
        schedule.compute_inline(block)
    root = schedule.mod["main"].body.block
    anchor = schedule.get(blocks[0])
    result = anchor.writes[0].source
    epilogue, axes = None, []
    if len(blocks) > 1:
        last = schedule.get(blocks[-1])
        epilogue, axes = last.body, [v.var for v in last.iter_vars]
        identity = all(
            all(a.same_as(b) for a, b in zip(load.indices, axes, strict=True))
            for load in loads(epilogue.value, result)
        )
        same_shape = tvm_ffi.structural_equal(result.ty.shape, epilogue.buffer.ty.shape)
        if not identity or not same_shape or len(root.alloc_buffers) != 1:
            return None
    return Fused(
        func=func,
        kernel=str(anchor.annotations[_KERNEL]),
        parameters=[int(v) for v in anchor.annotations[_PARAMETERS]],
        reads=[region.source for region in anchor.reads],
        shape=list(result.ty.shape),
        _result=result,
        _epilogue=epilogue,
        _axes=axes,
    )


def emit(func: tirx.PrimFunc, body: Callable[[], None]) -> tirx.PrimFunc:
    """`func` with the statements that `body` emits in place of its own."""
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("main")
        body()
    root = s_tir.SBlock([], [], [], "root", builder.get().body)
    return func.with_body(s_tir.SBlockRealize([], True, root))


def integer(value: int | ir.Expr) -> ir.Expr:
    """An index constant, in the 64 bits that Relax's shapes use."""
    return tirx.IntImm("int64", value) if isinstance(value, int) else value


def serial(stop: int | ir.Expr, start: int | ir.Expr = 0):
    """A loop over [start, stop)."""
    return T.serial(integer(start), integer(stop))


def parallel(extent: int | ir.Expr):
    """A loop whose iterations the threads share."""
    return T.parallel(integer(0), integer(extent))


def unroll(stop: int, start: int = 0):
    """A loop over [start, stop) that is unrolled."""
    return T.unroll(integer(start), integer(stop))


def vector(extent: int):
    """A loop that becomes one vector operation."""
    return T.vectorized(integer(0), integer(extent))


def local(*shape: int) -> tirx.Var:
    """A float32 buffer on the stack; with constant indices LLVM keeps it in registers."""
    return T.alloc_buffer([integer(n) for n in shape], "float32", scope="local")


def prefetch(load: ir.TensorLoad) -> None:
    """Emit a hint to bring what `load` reads into the first cache."""
    read, keep, data = (tirx.const(flag, "int32") for flag in (0, 3, 1))  # LLVM's flags
    T.evaluate(tirx.call_intrin("void", "tirx.prefetch", T.address_of(load), read, keep, data))


def loads(expression: ir.Expr, buffer: tirx.Var) -> list[ir.TensorLoad]:
    """All loads from `buffer` within `expression`."""
    found = []

    def visit(node: ir.Expr) -> None:
        if isinstance(node, ir.TensorLoad) and node.source.same_as(buffer):
            found.append(node)

    rewrite(expression, visit)
    return found
