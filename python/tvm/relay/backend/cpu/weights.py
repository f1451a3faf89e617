"""Lifting constants out of the code: every large constant becomes a trailing argument of "main"."""

from __future__ import annotations

import hashlib

import numpy as np
from tvm.ir import IRModule
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvm import ir, relax

from .graph import value_of

__all__ = ["lift_constants"]

_SMALLEST = 256  # bytes; smaller constants stay with the code


@mutator
class _Lifter(PyExprMutator):
    def __init__(self, module: IRModule):
        super().__init__(module)
        self.variables: list[relax.Var] = []
        self.weights: dict[str, np.ndarray] = {}
        self._by_content: dict[tuple, relax.Var] = {}

    def visit_generic_const_(self, constant: ir.GenericConst) -> relax.Expr:
        array = value_of(constant)
        if array is None or array.nbytes < _SMALLEST:
            return constant
        key = (hashlib.sha256(array).digest(), array.shape, str(array.dtype))
        if key not in self._by_content:
            variable = relax.Var(f"weight_{len(self.variables)}", constant.ty)
            self._by_content[key] = variable
            self.variables.append(variable)
            self.weights[variable.name] = array
        return self._by_content[key]


def lift_constants(module: IRModule) -> tuple[IRModule, dict[str, np.ndarray]]:
    """Move the constants of `module["main"]` into arguments behind its own.

    Returns the module and the arrays by argument name, in the order of the arguments; equal constants share
    one. "main" keeps its attribute `num_input`.
    """
    lifter = _Lifter(module)
    main = module["main"]
    body = lifter.visit_expr(main.body)
    func = relax.Function(
        [*main.params, *lifter.variables], body, main.ret_ty, is_pure=main.is_pure, attrs=main.attrs
    )
    module = IRModule(
        {**dict(module.functions_items()), module.get_global_var("main"): func}, attrs=module.attrs
    )
    return module, lifter.weights
