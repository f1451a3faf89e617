"""Constant folding in NumPy, and batch normalisation folded into the convolution before it.

Upstream's FoldConstant compiles each constant expression, which takes seconds for a network; these operators
on weights are a few array operations.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm.ir import IRModule
from tvm.relax.expr_functor import PyExprMutator, mutator

import tvm
from tvm import relax

from .graph import call_name, constant, dimensions, dtype_of, rewrite_functions, value_of

__all__ = ["Fold"]


def _permute(call: relax.Call, x: np.ndarray) -> np.ndarray:
    axes = call.attrs.axes
    return np.transpose(x, None if axes is None else [int(a) for a in axes])


def _expand(call: relax.Call, x: np.ndarray) -> np.ndarray:
    return np.expand_dims(x, tuple(int(a) for a in call.attrs.axis))


def _shaped(call: relax.Call, x: np.ndarray) -> np.ndarray:
    return x.reshape(dimensions(call))


def _sliced(call: relax.Call, x: np.ndarray) -> np.ndarray | None:
    """NumPy's slices count and clip as Relax's do; a negative stride's end means something else there."""
    try:
        axes, *bounds = [[int(n) for n in argument.fields] for argument in call.args[1:]]
    except (AttributeError, TypeError):
        return None  # bounds that are only known at run time
    begin, end = bounds[:2]
    strides = bounds[2] if len(bounds) > 2 else [1] * len(axes)
    if any(stride < 1 for stride in strides):
        return None
    index = [slice(None)] * x.ndim
    for axis, *bound in zip(axes, begin, end, strides, strict=True):
        index[axis] = slice(*bound)
    return x[tuple(index)]


_UNARY: dict[str, Callable[[relax.Call, np.ndarray], np.ndarray]] = {
    "permute_dims": _permute,
    "expand_dims": _expand,
    "reshape": _shaped,
    "squeeze": _shaped,
    "flatten": _shaped,
    "astype": lambda call, x: x.astype(dtype_of(call), copy=False),
    "negative": lambda call, x: -x,
    "isnan": lambda call, x: np.isnan(x),
    "sqrt": lambda call, x: np.sqrt(x),
    "rsqrt": lambda call, x: (1 / np.sqrt(x)).astype(x.dtype),
}
_BINARY = {"add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide}


@mutator
class _Folder(PyExprMutator):
    def __init__(self, module: IRModule):
        super().__init__(module)
        self.values: dict[relax.Var, np.ndarray] = {}
        self.convolutions: dict[relax.Var, relax.Call] = {}
        self.normalised: dict[relax.Var, relax.Var] = {}
        self.uses: dict[relax.Var, int] = {}

    def value(self, expression: relax.Expr) -> np.ndarray | None:
        if isinstance(expression, relax.Var):
            return self.values.get(expression)
        return value_of(expression)

    def visit_var_(self, var: relax.Var) -> relax.Expr:
        return constant(self.values[var]) if var in self.values else super().visit_var_(var)

    def visit_dataflow_var_(self, var: relax.Var) -> relax.Expr:
        return constant(self.values[var]) if var in self.values else super().visit_dataflow_var_(var)

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        var, value = binding.var, binding.value
        if isinstance(var, relax.DataflowVar):
            folded = self.fold(value)
            if folded is not None:
                self.values[var] = folded
                return
        name = call_name(value)
        if name in ("nn.conv1d", "nn.conv2d"):
            self.convolutions[var] = value
        elif name == "nn.batch_norm":
            result = self.batch_norm(value)
            if result is not None:
                self.normalised[var] = result
                return
        if isinstance(value, relax.TupleGetItem) and int(value.index) == 0:
            result = self.normalised.get(value.tuple_value)
            if result is not None:
                if not isinstance(var, relax.DataflowVar):
                    result = self.builder_.emit_output(result)
                self.set_var_remap(var, result)
                return
        super().visit_var_binding_(binding)

    def fold(self, value: relax.Expr) -> np.ndarray | None:
        """The array that `value` is, where its operands are constants that this file can compute with."""
        if isinstance(value, relax.Var):
            return self.values.get(value)
        name = call_name(value)
        if name in _UNARY:
            x = self.value(value.args[0])
            shape = dimensions(value)
            if x is None or shape is None or not all(isinstance(d, int) for d in shape):
                return None
            return _UNARY[name](value, x)
        if name == "where":
            condition, a, b = (self.value(x) for x in value.args)
            return None if condition is None or a is None or b is None else np.where(condition, a, b)
        if name == "take" and value.attrs.axis is not None:
            x, indices = (self.value(a) for a in value.args)
            axis = int(value.attrs.axis)
            if x is None or indices is None or indices.min() < 0 or indices.max() >= x.shape[axis]:
                return None
            return np.take(x, indices, axis)
        if name == "strided_slice":
            x = self.value(value.args[0])
            return None if x is None else _sliced(value, x)
        if name == "concat" and isinstance(value.args[0], relax.Tuple):
            parts = [self.value(part) for part in value.args[0].fields]
            return None if any(p is None for p in parts) else np.concatenate(parts, int(value.attrs.axis))
        if name in _BINARY and dtype_of(value).startswith("float"):
            a, b = (self.value(x) for x in value.args)
            return None if a is None or b is None else _BINARY[name](a, b).astype(dtype_of(value), copy=False)
        return None

    def batch_norm(self, call: relax.Call) -> relax.Var | None:
        """Emit inference-time batch normalisation as one multiplication and one addition, or less."""
        gamma, beta, mean, variance = (self.value(a) for a in call.args[1:5])
        attrs = call.attrs
        if any(a is None for a in (gamma, beta, mean, variance)) or attrs.training:
            return None
        rank = len(dimensions(call.args[0]) or [])
        if not rank or dtype_of(call.args[0]) != "float32":
            return None
        axis = int(attrs.axis) % rank
        scale = 1.0 / np.sqrt(variance.astype("float64") + float(attrs.epsilon))
        if attrs.scale:
            scale = scale * gamma
        shift = -mean * scale + (beta if attrs.center else 0.0)
        shape = [-1 if d == axis else 1 for d in range(rank)]
        scaled = self.scaled_convolution(call.args[0], scale, axis)
        if scaled is None:
            scaled = relax.op.multiply(
                self.visit_expr(call.args[0]), constant(scale.astype("float32").reshape(shape))
            )
        return self.builder_.emit(
            relax.op.add(self.builder_.emit(scaled), constant(shift.astype("float32").reshape(shape)))
        )

    def scaled_convolution(self, result: relax.Expr, scale: np.ndarray, axis: int) -> relax.Call | None:
        """The convolution that yields `result`, with its output channels scaled through its weights."""
        call = self.convolutions.get(result) if isinstance(result, relax.Var) else None
        if call is None or str(call.attrs.data_layout).index("C") != axis:
            return None
        weight = self.value(call.args[1])
        if weight is None:
            return None
        shape = [1] * weight.ndim
        shape[str(call.attrs.kernel_layout).index("O")] = -1
        if scale.size != weight.shape[shape.index(-1)]:
            return None
        weight = weight * scale.astype("float32").reshape(shape)
        return relax.Call(call.op, [self.visit_expr(call.args[0]), constant(weight)], call.attrs)


@tvm.transform.module_pass(opt_level=0, name="FoldInNumPy")
class Fold:
    """Fold constant expressions and inference-time batch normalisation; a normalised convolution must not
    be used elsewhere to profit (it would then be computed twice, which dead-code elimination cannot mend)."""

    def transform_module(self, module: IRModule, context: tvm.transform.PassContext) -> IRModule:
        """Return `module` with its Relax functions folded."""
        return rewrite_functions(module, _Folder)
