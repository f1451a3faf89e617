"""Small questions about Relax expressions that several passes ask."""

from __future__ import annotations

import numpy as np

from tvm import ir, relax, tirx

__all__ = ["call_name", "constant", "dimensions", "dtype_of", "value_of"]


def call_name(expression: relax.Expr) -> str:
    """The operator's name without "relax.", or "" where `expression` calls no operator."""
    if isinstance(expression, relax.Call) and isinstance(expression.op, ir.Op):
        return expression.op.name.removeprefix("relax.")
    return ""


def value_of(expression: relax.Expr) -> np.ndarray | None:
    """The array that a constant tensor holds, or None."""
    if isinstance(expression, ir.GenericConst) and hasattr(expression.value, "numpy"):
        return expression.value.numpy()
    return None


def constant(array: np.ndarray) -> ir.GenericConst:
    """A constant tensor."""
    array = np.asarray(array, order="C")
    return relax.const(array, str(array.dtype))


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
