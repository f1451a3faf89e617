"""Convolutions along one axis as convolutions in a plane of one row, which the packed kernels take.

The pass walks a function once. A 1-dimensional convolution with constant weights is emitted as the
2-dimensional one that it is, and so are pooling, element-wise operators and concatenation behind it. Whatever
has no rule here sees the tensor without the row's axis, which is dropped where it is first asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm.ir import IRModule
from tvm.relax.expr_functor import PyExprMutator, mutator

import tvm
from tvm import relax

from .graph import call_name, constant, dimensions, dtype_of, rewrite_functions, value_of
from .rules import ELEMENTWISE

__all__ = ["Widen"]

_ROW = 2  # the axis that is added: NCW becomes NCHW


@mutator
class _Widener(PyExprMutator):
    def __init__(self, module: IRModule):
        super().__init__(module)
        self.wide: dict[relax.Var, relax.Var] = {}
        self._narrow: dict[relax.Var, relax.Var] = {}

    def widen(self, expression: relax.Expr) -> relax.Expr:
        """`expression` of shape [N, C, W] as [N, C, 1, W]."""
        if isinstance(expression, relax.Var) and expression in self.wide:
            return self.wide[expression]
        return self.builder_.emit(relax.op.expand_dims(self.visit_expr(expression), [_ROW]))

    def _narrowed(self, var: relax.Var) -> relax.Var:
        if var not in self._narrow:
            self._narrow[var] = self.builder_.emit(relax.op.squeeze(self.wide[var], [_ROW]))
        return self._narrow[var]

    def visit_var_(self, var: relax.Var) -> relax.Expr:
        return self._narrowed(var) if var in self.wide else super().visit_var_(var)

    def visit_dataflow_var_(self, var: relax.Var) -> relax.Expr:
        return self._narrowed(var) if var in self.wide else super().visit_dataflow_var_(var)

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        var, value = binding.var, binding.value
        rule = _RULES.get(call_name(value))
        result = rule(self, value) if rule else None
        if result is None:
            super().visit_var_binding_(binding)
        elif isinstance(var, relax.DataflowVar):
            self.wide[var] = self.builder_.emit(result)
        else:
            narrow = relax.op.squeeze(self.builder_.emit(result), [_ROW])
            self.set_var_remap(var, self.builder_.emit_output(narrow))


def _ints(values: Sequence[int]) -> list[int]:
    return [int(v) for v in values]


def _padding(values: Sequence[int]) -> list[int]:
    left, right = _ints(values)
    return [0, left, 0, right]


def _convolution(widener: _Widener, call: relax.Call) -> relax.Call | None:
    attrs, weight = call.attrs, value_of(widener.visit_expr(call.args[1]))
    if weight is None or str(attrs.data_layout) != "NCW" or str(attrs.kernel_layout) != "OIW":
        return None
    if dtype_of(call) != "float32" or str(attrs.out_layout) not in ("", "NCW"):
        return None
    return relax.op.nn.conv2d(
        widener.widen(call.args[0]),
        constant(weight[:, :, None]),
        strides=[1, *_ints(attrs.strides)],
        padding=_padding(attrs.padding),
        dilation=[1, *_ints(attrs.dilation)],
        groups=int(attrs.groups),
    )


def _pooling(operator: Callable) -> Callable[[_Widener, relax.Call], relax.Call | None]:
    def rule(widener: _Widener, call: relax.Call) -> relax.Call | None:
        data, attrs = call.args[0], call.attrs
        if data not in widener.wide or str(attrs.layout) != "NCW":
            return None
        return operator(
            widener.wide[data],
            pool_size=[1, *_ints(attrs.pool_size)],
            strides=[1, *_ints(attrs.strides)],
            padding=_padding(attrs.padding),
            dilation=[1, *_ints(attrs.dilation)],
            ceil_mode=bool(attrs.ceil_mode),
            count_include_pad=bool(attrs.count_include_pad),
        )

    return rule


def _elementwise(widener: _Widener, call: relax.Call) -> relax.Call | None:
    """All operands in three dimensions gain the row; what has fewer is broadcast, or a scalar."""
    if not any(isinstance(a, relax.Var) and a in widener.wide for a in call.args):
        return None
    operands = []
    for argument in call.args:
        shape, array = dimensions(argument), value_of(argument)
        if shape is None or shape == []:
            operands.append(argument)
        elif array is not None:
            array = array.reshape((1,) * (3 - array.ndim) + array.shape)
            operands.append(constant(array[:, :, None]))
        elif len(shape) == 3:
            operands.append(widener.widen(argument))
        else:
            return None
    return relax.Call(call.op, operands, call.attrs)


def _concat(widener: _Widener, call: relax.Call) -> relax.Call | None:
    fields = call.args[0].fields if isinstance(call.args[0], relax.Tuple) else ()
    axis = int(call.attrs.axis) % 3
    if axis != 1 or not any(isinstance(f, relax.Var) and f in widener.wide for f in fields):
        return None
    return relax.op.concat([widener.widen(field) for field in fields], axis)


_RULES: dict[str, Callable[[_Widener, relax.Call], relax.Call | None]] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    "nn.conv1d": _convolution,
    "nn.max_pool1d": _pooling(relax.op.nn.max_pool2d),
    "nn.avg_pool1d": _pooling(relax.op.nn.avg_pool2d),
    "concat": _concat,
}


@tvm.transform.module_pass(opt_level=0, name="WidenForCPU")
class Widen:
    """Rewrite the 1-dimensional convolutions of a module's Relax functions in two dimensions."""

    def transform_module(self, module: IRModule, context: tvm.transform.PassContext) -> IRModule:
        """Return `module` with its Relax functions rewritten."""
        return rewrite_functions(module, _Widener)
