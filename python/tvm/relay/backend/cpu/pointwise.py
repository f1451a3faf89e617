"""Element-wise TIR functions, which importers make of operators that Relax lacks, in another layout."""

from __future__ import annotations

from collections.abc import Callable

from tvm import ir, s_tir, te, tirx

from .statements import rewrite

__all__ = ["pointwise"]


def pointwise(func: tirx.PrimFunc) -> Callable[..., te.Tensor] | None:
    """`func` as TE on tensors of any one shape, with scalars beside them; None where it is not element-wise.

    Its last parameter is the result; each other one is read at the result's own place, or is a scalar.
    """
    schedule = s_tir.Schedule(func)
    blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
    if len(blocks) != 1:
        return None
    block = schedule.get(blocks[0])
    store, axes = block.body, [v.var for v in block.iter_vars]
    if not isinstance(store, tirx.BufferStore) or block.init is not None:
        return None
    *inputs, _ = func.params
    if not _same(store.indices, axes) or any(int(v.iter_type) != 0 for v in block.iter_vars):
        return None
    elementwise = True

    def check(node: ir.Expr) -> ir.Expr | None:
        nonlocal elementwise
        if isinstance(node, ir.TensorLoad):
            elementwise &= len(node.indices) == 0 or _same(node.indices, axes)
            return node
        elementwise &= not any(node.same_as(axis) for axis in axes)
        return None

    rewrite(store.value, check)
    if not elementwise:
        return None

    def compute(*tensors: te.Tensor) -> te.Tensor:
        def element(*place):
            def load(node: ir.Expr) -> ir.Expr | None:
                if not isinstance(node, ir.TensorLoad):
                    return None
                tensor = next(t for t, p in zip(tensors, inputs, strict=True) if node.source.same_as(p))
                return tensor(*place) if node.indices else tensor()

            return rewrite(store.value, load)

        shape = next(t.shape for t in tensors if len(t.shape))
        return te.compute(shape, element, name="pointwise")

    return compute


def _same(indices, axes) -> bool:
    return len(indices) == len(axes) and all(i.same_as(a) for i, a in zip(indices, axes, strict=True))
