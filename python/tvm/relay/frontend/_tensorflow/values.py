"""What a tensor can be while a graph is imported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm.ir import Range

from tvm import relax, sym, tirx

from .._shared import identifier
from ..common import ModelError

Dimension = int | relax.Expr
"""A number, or an integer expression of the symbolic sizes."""


@dataclass(frozen=True)
class Symbolic:
    """Integers known up to the sizes that the model leaves open: a batch size, what is computed from it."""

    array: np.ndarray
    """Of dtype object: each element a `Dimension`."""
    dtype: str


@dataclass(frozen=True)
class TensorList:
    """TensorFlow's list of tensors (TensorList, TensorArray): its length is known, so it is a plain list."""

    items: tuple[Any, ...]
    element_shape: tuple[Dimension, ...] | None
    dtype: str


class Variable:
    """A variable of the model: its weights, read when first needed."""

    def __init__(self, name: str, read: Callable[[], np.ndarray] | None = None) -> None:
        self.name = name
        self._read = read
        self._array: np.ndarray | None = None

    def assign(self, read: Callable[[], np.ndarray]) -> None:
        self._read = read

    def value(self) -> np.ndarray:
        """Its weights, the same array each time.

        Raises
        ------
        ModelError
            The model holds no weights for it.
        """
        if self._array is None:
            if self._read is None:
                raise ModelError(f"the model's weights hold no value for its variable '{self.name}'")
            self._array = self._read()
        return self._array


class Unfit(ValueError):
    """Why an operator cannot take a value; the message for the user adds which operator and node."""


class Dead:
    """The output of a branch that is not taken."""


DEAD = Dead()

Value = np.ndarray | Symbolic | relax.Expr | TensorList | Variable | Dead

_analyzer = sym.Analyzer()


def open_size(name: str) -> relax.Expr:
    """A symbol for a size that the model leaves open. It is known to be positive."""
    symbol = tirx.Var(identifier(name), "int64")
    _analyzer.bind(symbol, Range(1, 1 << 31))
    return symbol


def is_certain(condition: relax.Expr) -> bool:
    """Whether `condition` holds whatever the open sizes are."""
    return _analyzer.can_prove(condition)


def simplified(dimension: Any) -> Dimension:
    """`dimension` in its simplest form: an `int` where it is a number."""
    if isinstance(dimension, relax.Expr):
        dimension = _analyzer.simplify(dimension)
        if isinstance(dimension, tirx.IntImm):
            return dimension.value
        return dimension
    return int(dimension)


def integers(dimensions: Any, dtype: str) -> np.ndarray | Symbolic:
    """An array of dimensions as a value: plain numbers if all of them are."""
    array = np.empty(np.shape(dimensions), object)
    flat = array.reshape(-1)
    for index, dimension in enumerate(np.asarray(dimensions, object).reshape(-1)):
        flat[index] = simplified(dimension)
    if all(isinstance(dimension, int) for dimension in flat):
        return array.astype(dtype)
    return Symbolic(array, dtype)
