"""Small questions about Relax expressions that several passes ask, and the walk that they share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm.relax.expr_functor import PyExprMutator

from tvm import ir, relax, runtime, tirx

__all__ = ["call_name", "constant", "dimensions", "dtype_of", "rewrite_functions", "value_of"]

_BLOCK = 256  # rows and columns of a block that fits a second-level cache


def call_name(expression: relax.Expr) -> str:
    """The operator's name without "relax.", or "" where `expression` calls no operator."""
    if isinstance(expression, relax.Call) and isinstance(expression.op, ir.Op):
        return expression.op.name.removeprefix("relax.")
    return ""


def value_of(expression: relax.Expr) -> np.ndarray | None:
    """The array that a constant tensor holds, not to be written to, or None."""
    if not isinstance(expression, ir.GenericConst) or not hasattr(expression.value, "numpy"):
        return None
    try:
        array = np.from_dlpack(expression.value)
    except (BufferError, RuntimeError):  # a type that DLPack or NumPy has no name for
        return expression.value.numpy()
    array.flags.writeable = False
    return array


def constant(array: np.ndarray) -> ir.GenericConst:
    """A constant tensor."""
    array = _contiguous(array)
    return relax.const(runtime.tensor(array))


def _contiguous(array: np.ndarray) -> np.ndarray:
    """`array` in C order. A large transposed matrix is copied by blocks, which NumPy itself does not do."""
    if array.ndim != 2 or not array.flags.f_contiguous or array.flags.c_contiguous:
        return np.asarray(array, order="C")
    result = np.empty(array.shape, array.dtype)
    for row in range(0, array.shape[0], _BLOCK):
        for column in range(0, array.shape[1], _BLOCK):
            block = slice(row, row + _BLOCK), slice(column, column + _BLOCK)
            result[block] = array[block]
    return result


def dimensions(expression: relax.Expr) -> list[int | ir.Expr] | None:
    """The shape, with integers where known; None for no tensor or a shape that is not written out."""
    shape = getattr(expression.ty, "shape", None)
    values = getattr(shape, "values", shape)
    if values is None or isinstance(values, relax.Var):
        return None
    return [int(d) if isinstance(d, tirx.IntImm) else d for d in values]


def dtype_of(expression: relax.Expr) -> str:
    """The element type, or "" for no tensor."""
    return str(getattr(expression.ty, "dtype", ""))


def rewrite_functions(module: ir.IRModule, mutator: Callable[[ir.IRModule], PyExprMutator]) -> ir.IRModule:
    """`module` with each of its Relax functions rewritten by what `mutator` makes for the module."""
    for name, func in list(module.functions_items()):
        if isinstance(func, relax.Function):
            rewriter = mutator(module)
            rewriter.builder_.update_func(name, rewriter.visit_expr(func))
            module = rewriter.builder_.get()
    return module
