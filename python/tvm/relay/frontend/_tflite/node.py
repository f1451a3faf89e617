"""Values of the graph under construction, and what a rule sees of the operator that it converts.

**How quantised tensors are carried.** A quantised activation is a float32 tensor that holds whole numbers,
its *steps*: `stored - zero_point`, so that `real = steps * scale`. Zero is real zero, so padding a
convolution with zeros is right; products of 8-bit steps summed in float32 are exact below 2**24; and a
requantisation is `clip(round(sum * factor))`, which fuses into the kernel before it. Rounding is to the
nearest, ties to even, with `factor` in float32: the arithmetic of XNNPACK, which TFLite's interpreter
uses by default (its other kernels compute in fixed point, each with another rounding of ties). Tensors take
their stored type only where they enter or leave the model, or where an operator reads the stored numbers.

**Constants** stay NumPy arrays until a rule needs an expression. Then each becomes an argument of the
function in its stored type (8-bit weights keep their size) with the cast to float32 in the graph, where
constant folding finds it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from tvm.relax import op

from tvm import relax

from .._shared import is_constant
from ..common import ModelError, require
from .model import Model, Operator, Quantisation, Tensor, enum_names

# The activation functions that clip, by the schema's names: their least and largest real output.
ACTIVATION_RANGES = {
    "NONE": (None, None),
    "RELU": (0.0, None),
    "RELU_N1_TO_1": (-1.0, 1.0),
    "RELU6": (0.0, 6.0),
    "RELU_0_TO_1": (0.0, 1.0),
}

Rule = Callable[["Node"], "Value | Sequence[Value]"]


@dataclass(eq=False)
class Value:
    """A tensor's value: a constant `array` in its stored type, or an `expr` (of steps, if quantised)."""

    name: str
    quantisation: Quantisation | None = None
    expr: relax.Expr | None = None
    array: np.ndarray | None = None
    derived: dict[Any, Any] = field(default_factory=dict, repr=False)


class Graph:
    """The Relax function under construction: its blocks, its parameters, the value of each tensor."""

    def __init__(self, model: Model, builder: relax.BlockBuilder) -> None:
        self.model = model
        self.builder = builder
        self.params: dict[str, np.ndarray] = {}
        self.param_vars: list[relax.Var] = []
        self._values: dict[int, Value] = {}

    def value(self, index: int) -> Value:
        """The value of tensor `index`: what an operator gave it, or its constant contents."""
        if index not in self._values:
            tensor = self.model.tensors[index]
            if tensor.array is None:
                raise ModelError(
                    f"the TFLite model reads tensor '{tensor.name}' before an operator writes it"
                )
            self._values[index] = Value(tensor.name, tensor.quantisation, array=tensor.array)
        return self._values[index]

    def set_value(self, index: int, value: Value) -> None:
        self._values[index] = value

    def emit(self, expr: relax.Expr) -> relax.Var:
        return self.builder.emit(expr)

    def constant(self, array: np.ndarray, name: str) -> relax.Expr:
        """A constant as an expression: in the module if it is small, else an argument of the function."""
        if is_constant(array.size, wide_integer=str(array.dtype) in ("int32", "int64", "bool")):
            return relax.const(array, str(array.dtype))
        while name in self.params:
            name += "_"
        # TVM wants aligned memory; what the file holds may start anywhere.
        self.params[name] = np.require(array, requirements=["C", "A"])
        variable = relax.Var(name, relax.TensorType(array.shape, str(array.dtype)))
        self.param_vars.append(variable)
        return variable

    def carried(self, value: Value) -> relax.Expr:
        """The value as the graph carries it: steps in float32 if quantised, else in its stored type."""
        if value.expr is None:
            if value.array.dtype == object:
                raise ModelError(f"tensor '{value.name}' depends on a dynamic shape, which only shapes may")
            value.expr = self.constant(value.array, value.name)
            if value.quantisation is not None:
                steps = op.astype(value.expr, "float32")
                if value.quantisation.zero_point:
                    steps = op.subtract(steps, scalar(value.quantisation.zero_point))
                value.expr = self.emit(steps)
        return value.expr

    def real(self, value: Value) -> relax.Expr:
        """The value as real numbers: float32 if quantised or float16, else in its stored type."""
        if "real" not in value.derived:
            expr = self.carried(value)
            quantisation = value.quantisation
            if quantisation is not None:
                scale = quantisation.scale
                if quantisation.per_channel:
                    scale = scale.reshape([-1] + [1] * (expr.ty.ndim - 1 - quantisation.axis))
                expr = self.emit(op.multiply(expr, self.constant(scale, f"{value.name}.scale")))
            elif expr.ty.dtype == "float16":
                expr = self.emit(op.astype(expr, "float32"))
            value.derived["real"] = expr
        return value.derived["real"]

    def stored(self, value: Value, tensor: Tensor) -> relax.Expr:
        """The value of `tensor` in the type that the file gives it."""
        if tensor.quantisation is None:
            expr = self.real(value)
        elif value.array is not None:
            return self.constant(value.array, value.name)
        else:
            expr = self.carried(value)
            if tensor.quantisation.zero_point:
                expr = op.add(expr, scalar(tensor.quantisation.zero_point))
            expr = self.emit(expr)
        return expr if str(expr.ty.dtype) == tensor.dtype else self.emit(op.astype(expr, tensor.dtype))

    def from_stored(self, expr: relax.Expr, tensor: Tensor) -> Value:
        """The value of `tensor` from an expression in its stored type."""
        if tensor.quantisation is not None:
            expr = op.astype(expr, "float32")
            if tensor.quantisation.zero_point:
                expr = op.subtract(expr, scalar(tensor.quantisation.zero_point))
            expr = self.emit(expr)
        return Value(tensor.name, tensor.quantisation, expr)


class Node:
    """One operator as its rule sees it."""

    def __init__(self, graph: Graph, operator: Operator) -> None:
        self.graph = graph
        self.operator = operator
        self.emit = graph.emit
        self.carried = graph.carried
        self.real = graph.real

    def __str__(self) -> str:
        outputs = self.operator.outputs
        where = f" (output '{self.graph.model.tensors[outputs[0]].name}')" if outputs else ""
        return f"TFLite operator {self.operator.name}{where}"

    def refuse(self, reason: str) -> ModelError:
        return ModelError(f"{self}: {reason}")

    def options(self, kind: str) -> Any:
        return self.operator.options(kind)

    @property
    def schema(self) -> Any:
        return require("tflite", "tflite")

    @property
    def input_count(self) -> int:
        return len(self.operator.inputs)

    def has_input(self, position: int) -> bool:
        return position < self.input_count and self.operator.inputs[position] >= 0

    def input(self, position: int) -> Value:
        if not self.has_input(position):
            raise self.refuse(f"its input {position} is missing")
        return self.graph.value(self.operator.inputs[position])

    def inputs(self) -> list[Value]:
        return [self.input(position) for position in range(self.input_count)]

    def input_tensor(self, position: int) -> Tensor:
        return self.graph.model.tensors[self.operator.inputs[position]]

    def output_tensor(self, position: int = 0) -> Tensor:
        return self.graph.model.tensors[self.operator.outputs[position]]

    def stored(self, position: int) -> relax.Expr:
        return self.graph.stored(self.input(position), self.input_tensor(position))

    def host(self, position: int) -> np.ndarray:
        """An input that has to be known when the model is compiled, in its stored type."""
        value = self.input(position)
        if value.array is None:
            raise self.refuse(f"its input '{value.name}' must be a constant")
        return value.array

    def integers(self, position: int) -> list[Any]:
        """A constant input as a flat list of ints (expressions, where it comes from a dynamic shape)."""
        return [x if isinstance(x, relax.Expr) else int(x) for x in self.host(position).reshape(-1)]

    def shape(self, value: Value) -> list[Any]:
        """A value's shape: ints, and expressions for dynamic extents."""
        if value.array is not None:
            return list(value.array.shape)
        return [static(extent) for extent in value.expr.ty.shape.values]

    def static_extent(self, extent: Any, what: str) -> int:
        if not isinstance(extent, int):
            raise self.refuse(f"it needs {what} to be known when the model is compiled")
        return extent

    def constant(self, array: np.ndarray, role: str) -> relax.Expr:
        """A constant that this operator needs, such as a table of indices."""
        return self.graph.constant(array, f"{self.output_tensor().name}.{role}")

    def arranged(
        self, value: Value, axes: Sequence[int] | None = None, shape: Sequence[int] | None = None
    ) -> Value:
        """`value` with its axes permuted, then reshaped; on the host (and once) if it is a constant.

        Per-channel quantisation follows its axis, which must end up the last of the permuted axes.
        """
        key = (tuple(axes or ()), tuple(shape or ()))
        if key not in value.derived:
            quantisation = value.quantisation
            array, expr = value.array, value.expr
            if array is not None:
                array = array.transpose(axes) if axes else array
                array = array.reshape(shape) if shape else array
                expr = None
            else:
                expr = op.permute_dims(expr, axes) if axes else expr
                expr = self.emit(op.reshape(expr, shape)) if shape else self.emit(expr)
            if quantisation is not None and quantisation.per_channel:
                if quantisation.axis != (axes[-1] if axes else len(shape) - 1):
                    raise self.refuse(
                        "its weights are quantised along another axis than the output channels'"
                    )
                quantisation = replace(quantisation, axis=len(shape or axes) - 1)
            value.derived[key] = Value(value.name, quantisation, expr, array)
        return value.derived[key]

    def result(self, expr: relax.Expr, output: int = 0) -> Value:
        """An output that `expr` gives as the graph carries it."""
        tensor = self.output_tensor(output)
        return Value(tensor.name, tensor.quantisation, self.emit(expr))

    def real_result(
        self, expr: relax.Expr, scale: float | np.ndarray = 1.0, activation: str = "NONE", output: int = 0
    ) -> Value:
        """An output whose real value is `expr * scale`, after a fused activation function.

        `scale` is one number or one for each channel of the last axis.
        """
        quantisation = self.output_tensor(output).quantisation
        if quantisation is None:
            if np.any(np.asarray(scale) != 1):
                expr = op.multiply(expr, self.constant(np.asarray(scale, np.float32), "scale"))
            return self.result(self._activate(expr, activation), output)
        factor = np.asarray(scale, np.float32) / quantisation.scale
        steps = op.round(op.multiply(expr, self.constant(factor, "scale")))
        return self.result(self._saturate(steps, activation, output), output)

    def bounded_result(self, expr: relax.Expr, activation: str, output: int = 0) -> Value:
        """An output that `expr` gives, as the graph carries it, before a fused activation function."""
        if activation == "NONE":
            return self.result(expr, output)
        bound = self._activate if self.output_tensor(output).quantisation is None else self._saturate
        return self.result(bound(expr, activation, output), output)

    def steps_result(self, expr: relax.Expr, activation: str = "NONE", output: int = 0) -> Value:
        """A quantised output whose steps, before they are clipped, are `expr`."""
        return self.result(self._saturate(expr, activation, output), output)

    def movable(self, value: Value) -> relax.Expr:
        """`value` for an operator that only moves elements: real where its outputs are not quantised."""
        return self.real(value) if self.output_tensor().quantisation is None else self.carried(value)

    def counts(self, value: Value) -> relax.Expr:
        """Integers as float32, such as a quantised operator's bias."""
        if value.array is not None:
            return self.graph.constant(value.array.astype(np.float32), value.name)
        return self.emit(op.astype(self.carried(value), "float32"))

    def moved(self, value: Value, expr: relax.Expr, output: int = 0) -> Value:
        """An output that holds elements of `value`, elsewhere: `expr`, made from what `movable` gave.

        TFLite copies the stored numbers even where the output's quantisation differs from the input's.
        """
        before, after = value.quantisation, self.output_tensor(output).quantisation
        if before is not None and after is not None and before.zero_point != after.zero_point:
            expr = op.add(expr, scalar(before.zero_point - after.zero_point))
        return self.result(expr, output)

    def rescaled(self, value: Value, output: int = 0) -> relax.Expr:
        """`value` in an output's scale, as the graph carries that output."""
        quantisation = self.output_tensor(output).quantisation
        if quantisation is None:
            return self.real(value)
        if value.quantisation == quantisation:
            return self.carried(value)
        return self.real_result(*self.scaled(value), output=output).expr

    def scaled(self, value: Value) -> tuple[relax.Expr, float | np.ndarray]:
        """`value` as an expression and the scale that makes it real."""
        if value.quantisation is None:
            return self.real(value), 1.0
        return self.carried(value), value.quantisation.scale

    def alike(self, values: Sequence[Value]) -> tuple[list[relax.Expr], float | np.ndarray]:
        """Values in one common scale: steps if all are quantised alike, else real."""
        first = values[0].quantisation
        if first is not None and all(value.quantisation == first for value in values):
            return [self.carried(value) for value in values], first.scale
        return [self.real(value) for value in values], 1.0

    def activation(self, options: Any) -> str:
        """The name of an operator's fused activation function."""
        names = enum_names(self.schema.ActivationFunctionType)
        return names.get(options.FusedActivationFunction(), "unknown")

    def _saturate(self, steps: relax.Expr, activation: str, output: int = 0) -> relax.Expr:
        """Whole steps, clipped to what the output's stored type and a fused activation allow."""
        tensor = self.output_tensor(output)
        limits = np.iinfo(tensor.dtype)
        low, high = (limit - tensor.quantisation.zero_point for limit in (limits.min, limits.max))
        scale = float(tensor.quantisation.scale[0])
        real_low, real_high = self._activation_range(activation)
        if real_low is not None:
            low = max(low, math.floor(real_low / scale + 0.5))
        if real_high is not None:
            high = min(high, math.floor(real_high / scale + 0.5))
        return op.clip(steps, float(low), float(high))

    def _activate(self, expr: relax.Expr, activation: str, output: int = 0) -> relax.Expr:
        """A fused activation function, on real numbers."""
        if activation == "TANH":
            return op.tanh(expr)
        low, high = self._activation_range(activation)
        if low is None:
            return expr
        return op.nn.relu(expr) if high is None else op.clip(expr, low, high)

    def _activation_range(self, activation: str) -> tuple[float | None, float | None]:
        if activation not in ACTIVATION_RANGES:
            raise self.refuse(f"the fused activation function {activation} is not supported here")
        return ACTIVATION_RANGES[activation]


def scalar(number: float) -> relax.Constant:
    return relax.const(number, "float32")


def static(extent: Any) -> Any:
    """An extent as an int where it is known, else as the expression that it is."""
    return int(extent) if hasattr(extent, "value") else extent


def ties_away(expr: relax.Expr) -> relax.Expr:
    """The nearest whole numbers, ties away from zero (`relax.op.round` takes the even one)."""
    return op.multiply(op.sign(expr), op.floor(op.add(op.abs(expr), scalar(0.5))))


def fixed_point_product(expr: relax.Expr, factor: float) -> relax.Expr:
    """Whole numbers times `factor`, rounded as TFLite's own kernels do where XNNPACK has none.

    They multiply by the factor's mantissa, in [0.5, 1), round, shift right by its exponent and round again
    (`MultiplyByQuantizedMultiplier`), ties away from zero both times.
    """
    mantissa, exponent = math.frexp(factor)
    product = ties_away(op.multiply(expr, scalar(math.ldexp(mantissa, max(exponent, 0)))))
    return product if exponent >= 0 else ties_away(op.multiply(product, scalar(2.0**exponent)))
