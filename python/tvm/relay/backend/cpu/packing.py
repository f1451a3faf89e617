"""The packing pass: compute convolutions and what surrounds them in the packed layout.

The pass walks a function once. A convolution with constant weights is emitted in the packed layout and its
result remembered as such; pooling, element-wise operators, concatenation and transpositions between NCHW
and NHWC follow suit (`rules.py`). Whatever has no rule sees the tensor in the graph's own layout, to which it
is brought back where it is first asked for.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm.ir import IRModule
from tvm.relax.expr_functor import PyExprMutator, mutator

import tvm
from tvm import relax, te, tirx

from . import layout
from .graph import call_name, dimensions, rewrite_functions
from .layout import Packed
from .machine import Machine
from .rules import RULES

__all__ = ["Pack"]

_INJECTIVE = 2  # upstream's OpPatternKind: neighbours fuse with a change of layout


@mutator
class Packer(PyExprMutator):
    """Rewrites one function; the rules use its methods."""

    def __init__(self, module: IRModule, machine: Machine, exact: bool):
        super().__init__(module)
        self.module, self.machine, self.exact = module, machine, exact
        self.packed: dict[relax.Var, Packed] = {}
        self._unpacked: dict[relax.Var, relax.Var] = {}
        self._repacked: dict[tuple[relax.Var, str], Packed] = {}
        self.definitions: dict[relax.Var, relax.Expr] = {}

    def emit(self, value: relax.Expr) -> relax.Var:
        """Bind `value` to a new variable."""
        return self.builder_.emit(value)

    def emit_te(self, function: Callable, *tensors: relax.Expr, pattern: int, **parameters) -> relax.Var:
        """Bind a call of the TE `function`; `pattern` is upstream's OpPatternKind, which guides fusion."""

        def compute(*placeholders: te.Tensor) -> te.Tensor:
            return function(*placeholders, **parameters)

        attributes = {"op_pattern": pattern}
        name = function.__name__
        return self.emit(
            self.builder_.call_te(compute, *tensors, primfunc_name_hint=name, primfunc_attrs=attributes)
        )

    def emit_function(self, name: str, func: tirx.PrimFunc, *tensors: relax.Expr) -> relax.Var:
        """Bind a call of `func`, hinted `name`; the result has the type of its last argument."""
        result = func.params[-1].ty
        call = relax.call_tir(
            self.builder_.add_func(func, name),
            list(tensors),
            relax.TensorType(result.shape, str(result.dtype)),
        )
        return self.emit(call)

    def plain(self, expression: relax.Expr) -> relax.Expr:
        """`expression` in the graph's own layout, after this pass."""
        return self.visit_expr(expression)

    def pack(self, expression: relax.Expr, order: str) -> Packed:
        """`expression` in the packed layout; it is 4-dimensional and `order` is its layout in the graph."""
        if isinstance(expression, relax.Var):
            known = self.packed.get(expression)
            if known is not None and known.layout == order:
                return known
            if (expression, order) in self._repacked:
                return self._repacked[expression, order]
        value = self.emit_te(
            layout.pack,
            self.plain(expression),
            layout=order,
            lanes=self.machine.lanes,
            pattern=_INJECTIVE,
        )
        packed = Packed(value, order, dimensions(expression)[order.index("C")])
        if isinstance(expression, relax.Var):
            self._repacked[expression, order] = packed
        return packed

    def _unpack(self, var: relax.Var) -> relax.Var:
        if var not in self._unpacked:
            packed = self.packed[var]
            self._unpacked[var] = self.emit_te(
                layout.unpack,
                packed.value,
                layout=packed.layout,
                channels=packed.channels,
                pattern=_INJECTIVE,
            )
        return self._unpacked[var]

    def visit_var_(self, var: relax.Var) -> relax.Expr:
        return self._unpack(var) if var in self.packed else super().visit_var_(var)

    def visit_dataflow_var_(self, var: relax.Var) -> relax.Expr:
        return self._unpack(var) if var in self.packed else super().visit_dataflow_var_(var)

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        var, value = binding.var, binding.value
        self.definitions[var] = value
        rule = RULES.get(call_name(value))
        result = rule(self, value) if rule else None
        if result is None:
            super().visit_var_binding_(binding)
        elif isinstance(result, Packed):
            self.packed[var] = result
            if not isinstance(var, relax.DataflowVar):
                self.set_var_remap(var, self.builder_.emit_output(self._unpack(var)))
                del self.packed[var]
        elif isinstance(var, relax.DataflowVar):
            self.set_var_remap(var, self.emit(result))
        else:
            self.set_var_remap(var, self.builder_.emit_output(result))


@tvm.transform.module_pass(opt_level=0, name="PackForCPU")
class Pack:
    """Bring the Relax functions of a module into the packed layout of `machine`."""

    def __init__(self, machine: Machine, exact: bool):
        self.machine, self.exact = machine, exact

    def transform_module(self, module: IRModule, context: tvm.transform.PassContext) -> IRModule:
        """Return `module` with its Relax functions packed."""
        return rewrite_functions(module, lambda module: Packer(module, self.machine, self.exact))
