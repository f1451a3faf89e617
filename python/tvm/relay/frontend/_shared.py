"""What the importers that stand on upstream's have in common."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from tvm.ir import IRModule, Op

from tvm import relax

# Operators want axes, shapes and pads as constants, so small tensors stay in the module. Everything larger
# is a weight; integers get more room, since shapes and index tables are integers.
_CONSTANT_ELEMENTS = 16
_CONSTANT_INTEGERS = 1024


def is_constant(elements: int, wide_integer: bool) -> bool:
    """Whether a tensor is small enough to be a constant of the module rather than a weight beside it.

    `wide_integer` says that its dtype is int32, int64 or bool: narrower integers are quantised weights.
    """
    return elements <= (_CONSTANT_INTEGERS if wide_integer else _CONSTANT_ELEMENTS)


def identifier(name: str) -> str:
    """`name` as a symbolic dimension can be called."""
    return re.sub(r"\W", "_", name if name[:1].isalpha() else f"dim_{name}")


def quoted(names: Iterable[str]) -> str:
    """A list of names for a message."""
    return ", ".join(f"'{name}'" for name in names) or "none"


def one_line(error: Exception) -> str:
    """What an upstream error says, in one line that is too short for a dump of code or weights."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


def bound_indices(module: IRModule) -> IRModule:
    """Count negative indices of `take` from the end, as every framework does, and bound all the others.

    Upstream's converters leave indices as they come, and its default for `take` reads whatever lies outside
    the tensor: wrong for -1, and a leak of other memory for indices that a model's user makes up.
    """

    @relax.expr_functor.mutator
    class Wrap(relax.PyExprMutator):
        def visit_call_(self, call: Any) -> Any:
            call = super().visit_call_(call)
            if call.op == take and call.attrs.mode == "fast":
                data, indices = call.args
                axis = None if call.attrs.axis is None else int(call.attrs.axis)
                return relax.op.take(data, indices, axis, mode="wrap")
            return call

    take = Op.get("relax.take")
    wrap = Wrap(module)
    for name, function in module.functions_items():
        if isinstance(function, relax.Function):
            wrap.builder_.update_func(name, wrap.visit_expr(function))
    return wrap.builder_.get()
