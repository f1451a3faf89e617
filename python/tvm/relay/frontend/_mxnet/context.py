"""What the converters of MXNet's operators share: their registry, the graph they write to, and shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tvm.ir import GlobalVar, IRModule
from tvm_ffi import structural_equal

from tvm import relax, tirx

from ..common import ModelError

__all__ = [
    "CONVERTERS",
    "Context",
    "axis_of",
    "converts",
    "divide_out",
    "dtype_of",
    "is_float",
    "numbered",
    "reshape",
    "scalar",
    "shape_of",
    "size_of",
    "sizes_of",
]

Converter = Callable[..., "relax.Expr | dict[str, relax.Expr]"]

CONVERTERS: dict[str, Converter] = {}
"""MXNet's operator name -> function of the `Context`, the node's `Attributes` and its inputs.

It returns the node's one output, or its outputs by the names that MXNet gives them.
"""


def converts(*operators: str) -> Callable[[Converter], Converter]:
    """Register a function as the converter of `operators`."""

    def register(converter: Converter) -> Converter:
        for operator in operators:
            CONVERTERS[operator] = converter
        return converter

    return register


class Context:
    """The Relax function under construction, as converters see it.

    Attributes
    ----------
    node
        The name of the node that is being converted.
    """

    def __init__(self, budget: int) -> None:
        """`budget`: how many bytes of new parameters converters may make out of those in the file."""
        self.node = ""
        self._budget = budget
        self._builder = relax.BlockBuilder()
        self._bindings: list[relax.VarBinding] = []
        self._arrays: dict[relax.Var, np.ndarray] = {}
        self._casts: dict[tuple[relax.Var, str], relax.Var] = {}

    def emit(self, expr: relax.Expr) -> relax.Expr:
        """Bind `expr` and each call within it to a variable, whose type is then known."""
        return self._emit(expr, {})

    def _emit(self, expr: relax.Expr, done: dict[relax.Expr, relax.Expr]) -> relax.Expr:
        if expr in done:
            return done[expr]
        if isinstance(expr, relax.Call):
            args = [self._emit(arg, done) for arg in expr.args]
            emitted = self._bind(relax.Call(expr.op, args, expr.attrs, expr.ty_args))
        elif isinstance(expr, relax.TupleGetItem):
            emitted = self._bind(relax.TupleGetItem(self._emit(expr.tuple_value, done), expr.index))
        elif isinstance(expr, relax.Tuple):
            emitted = self._builder.normalize(relax.Tuple([self._emit(item, done) for item in expr.fields]))
        else:
            return expr
        done[expr] = emitted
        return emitted

    def _bind(self, expr: relax.Expr) -> relax.Var:
        expr = self._builder.normalize(expr)
        var = relax.DataflowVar(f"lv{len(self._bindings)}", expr.ty)
        self._bindings.append(relax.VarBinding(var, expr))
        return var

    def add_func(self, func: tirx.PrimFunc, func_name: str) -> GlobalVar:
        """Put a function of TIR into the module."""
        return self._builder.add_func(func, func_name)

    def parameter(self, name: str, array: np.ndarray) -> relax.Var:
        """A new parameter of the function, holding `array`; it stays only if something uses it."""
        var = relax.Var(name, relax.TensorType(array.shape, str(array.dtype)))
        self._arrays[var] = array
        return var

    def reserve(self, size: int) -> None:
        """Ask for `size` bytes to make a parameter in; raises `ModelError` where there is no room left."""
        self._budget -= size
        if self._budget < 0:
            raise ModelError("what it makes of the model's parameters takes too much memory")

    def array(self, var: relax.Expr) -> np.ndarray | None:
        """The values of a parameter; None for anything else."""
        return self._arrays.get(var)

    def astype(self, data: relax.Expr, dtype: str) -> relax.Expr:
        """`data` as `dtype`; a parameter is cast here and now."""
        if dtype_of(data) == dtype:
            return data
        array = self.array(data)
        if array is None:
            return self.emit(relax.op.astype(data, dtype))
        if (data, dtype) not in self._casts:
            self.reserve(array.size * np.dtype(dtype).itemsize)
            self._casts[data, dtype] = self.parameter(f"{data.name}.{dtype}", array.astype(dtype))
        return self._casts[data, dtype]

    def finish(
        self, inputs: list[relax.Var], outputs: list[relax.Expr]
    ) -> tuple[IRModule, dict[str, np.ndarray]]:
        """The module, with "main" of `inputs` and of the parameters in use, and the values of those."""
        result = self._builder.normalize(outputs[0] if len(outputs) == 1 else relax.Tuple(outputs))
        output = relax.Var("output", result.ty)
        block = relax.DataflowBlock([*self._bindings, relax.VarBinding(output, result)])
        body = relax.SeqExpr([block], output)
        used = set(relax.analysis.free_vars(body))
        params: dict[str, np.ndarray] = {}
        variables = []
        for var, array in self._arrays.items():
            if var in used:
                if var.name in params:
                    raise ModelError(f"two parameters of the model are called '{var.name}'")
                params[var.name] = array
                variables.append(var)
        module = self._builder.get()
        main = relax.Function([*inputs, *variables], body, ret_ty=output.ty)
        module["main"] = main.with_attrs({"global_symbol": "main", "num_input": len(inputs)})
        return module, params


def numbered(outputs: Sequence[relax.Expr]) -> dict[str, relax.Expr]:
    """`outputs` by the names that MXNet gives to those of most operators that have several."""
    return {f"output{number}": output for number, output in enumerate(outputs)}


def dtype_of(data: relax.Expr) -> str:
    return str(data.ty.dtype)


def is_float(data: relax.Expr) -> bool:
    return dtype_of(data).startswith("float")


def shape_of(data: relax.Expr) -> list[Any]:
    """The dimensions of `data`: an int, or an expression where it is symbolic."""
    return [int(size) if isinstance(size, tirx.IntImm) else size for size in data.ty.shape]


def sizes_of(data: relax.Expr, start: int = 0, stop: int | None = None) -> list[int]:
    """The dimensions of `data` from `start` to `stop`; raises `ModelError` where one is symbolic."""
    shape = shape_of(data)[start:stop]
    if not all(isinstance(size, int) for size in shape):
        raise ModelError("a symbolic dimension is not supported here")
    return shape


def size_of(data: relax.Expr, axis: int) -> int:
    """One dimension of `data`, counted from the front; raises `ModelError` where it is symbolic."""
    return sizes_of(data, axis, axis + 1)[0]


def axis_of(data: relax.Expr, axis: int, extra: int = 0) -> int:
    """`axis` counted from the front, `extra` dimensions being about to be added."""
    rank = data.ty.ndim + extra
    if not -rank <= axis < rank:
        raise ModelError(f"axis {axis} is out of range for {rank} dimensions")
    return axis % rank


def divide_out(sizes: Sequence[Any], known: Sequence[Any]) -> Any:
    """The product of `sizes` divided by that of `known`: the one dimension that a reshape leaves open.

    Symbolic dimensions cancel where they are equal; raises `ModelError` where the division leaves a rest.
    """
    rest = list(sizes)
    divisor = 1
    for size in known:
        if isinstance(size, int):
            divisor *= size
            continue
        for position, candidate in enumerate(rest):
            if not isinstance(candidate, int) and structural_equal(candidate, size):
                del rest[position]
                break
        else:
            raise ModelError("the open dimension of the new shape cannot be told from the symbolic ones")
    total = math.prod(size for size in rest if isinstance(size, int))
    if divisor == 0 or total % divisor:
        raise ModelError("the new shape does not hold as many elements as the old one")
    return math.prod([total // divisor, *(size for size in rest if not isinstance(size, int))])


def scalar(value: float, like: relax.Expr) -> relax.Expr:
    """A constant without dimensions, of the dtype of `like`."""
    return relax.const(value, dtype_of(like))


def reshape(data: relax.Expr, shape: Sequence[Any]) -> relax.Expr:
    return relax.op.reshape(data, tuple(shape))
