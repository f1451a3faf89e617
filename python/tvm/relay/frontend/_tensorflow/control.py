"""Operators that route values: functions, branches, loops, variables, lists of tensors."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from tvm.relax import op

from tvm import relax

from ..common import ModelError
from .arrays import stack, unstack
from .converter import Converter
from .graph import Node
from .registry import rule
from .values import DEAD, Dead, TensorList, Value, Variable

# Values as they are


@rule("Const", structural=True)
def _const(converter: Converter, node: Node) -> Value:
    import tensorflow as tf

    array = tf.make_ndarray(node["value"])
    return array.astype("S") if array.dtype == object else array


@rule(
    "CheckNumerics",
    "Identity",
    "IdentityN",
    "PlaceholderWithDefault",
    "PreventGradient",
    "Snapshot",
    "StopGradient",
    structural=True,
)
def _identity(converter: Converter, node: Node, *values: Value) -> list[Value]:
    return list(values)


@rule("NoOp", "Assert", structural=True)
def _nothing(converter: Converter, node: Node, *values: Value) -> list[Value]:
    return []


@rule("Placeholder", structural=True)
def _placeholder(converter: Converter, node: Node) -> Value:
    raise ModelError(f"the outputs depend on the placeholder '{node.name}', which is no input of the model")


# Variables


@rule("Variable", "VariableV2", "VarHandleOp", structural=True)
def _variable(converter: Converter, node: Node) -> Value:
    return converter.variables.setdefault(node.name, Variable(node.name))


@rule("ReadVariableOp", structural=True)
def _read_variable(converter: Converter, node: Node, variable: Value) -> Value:
    return converter.weights(variable)


@rule("Assign", "AssignVariableOp", structural=True)
def _assign(converter: Converter, node: Node, variable: Value, value: Value) -> Value:
    variable.assign(value.value if isinstance(value, Variable) else lambda: value)
    return variable


@rule("RestoreV2", structural=True)
def _restore(converter: Converter, node: Node, prefix: Value, names: Value, slices: Value) -> list[Value]:
    if converter.restored is None:
        raise ModelError(f"{node} reads a checkpoint while the model runs")
    if any(slices):
        raise ModelError(f"{node} restores parts of a variable, which is not supported")
    keys = [name.decode() for name in names]
    return [Variable(key, converter.restored(key)) for key in keys]


# Functions, branches, loops


@rule("PartitionedCall", "StatefulPartitionedCall", structural=True)
def _call(converter: Converter, node: Node, *arguments: Value) -> list[Value]:
    return converter.call(node["f"].name, arguments)


@rule("If", "StatelessIf", structural=True)
def _if(converter: Converter, node: Node, condition: Value, *arguments: Value) -> list[Value]:
    if isinstance(condition, np.ndarray):
        # As TensorFlow has it: a number is true if it is not zero, any other tensor if it has elements.
        taken = bool(condition) if condition.ndim == 0 else condition.size > 0
        return converter.call(node["then_branch" if taken else "else_branch"].name, arguments)
    # Nothing but the model's results leaves a call, so both branches may run.
    chosen, other = (converter.call(node[name].name, arguments) for name in ("then_branch", "else_branch"))
    predicate = op.astype(converter.tensor(condition), "bool")
    results = []
    for value, alternative in zip(chosen, other, strict=True):
        if converter.shape(value) != converter.shape(alternative):
            raise ModelError(f"{node}: the branches give different shapes and the data chooses between them")
        results.append(
            converter.emit(op.where(predicate, converter.tensor(value), converter.tensor(alternative)))
        )
    return results


@rule("While", "StatelessWhile", structural=True)
def _while(converter: Converter, node: Node, *state: Value) -> list[Value]:
    return converter.loop(
        node,
        lambda values: converter.call(node["cond"].name, values)[0],
        partial(converter.call, node["body"].name),
        list(state),
    )


@rule("Switch", "RefSwitch", structural=True)
def _switch(converter: Converter, node: Node, value: Value, condition: Value) -> list[Value]:
    return [DEAD, value] if converter.known(node, condition, "condition") else [value, DEAD]


@rule("Merge", "RefMerge", structural=True)
def _merge(converter: Converter, node: Node, *values: Value) -> list[Value]:
    alive = [(value, index) for index, value in enumerate(values) if not isinstance(value, Dead)]
    if not alive:
        return [DEAD, DEAD]
    value, index = alive[0]
    return [value, np.asarray(index, "int32")]


@rule("LoopCond", structural=True)
def _loop_condition(converter: Converter, node: Node, condition: Value) -> Value:
    return condition


# Lists of tensors


def _position(converter: Converter, node: Node, index: Value) -> int:
    return int(converter.known(node, index, "index into a list"))


def _element(converter: Converter, node: Node, tensors: TensorList, index: int) -> Value:
    """An element of a list; one that was never written is zero."""
    if tensors.items[index] is not None:
        return tensors.items[index]
    if tensors.element_shape is None:
        raise ModelError(f"{node} reads an element that was never written, whose shape is unknown")
    zero = relax.const(0, tensors.dtype)
    return converter.emit(op.full(list(tensors.element_shape), zero, tensors.dtype))


def _replaced(tensors: TensorList, index: int, value: Value) -> TensorList:
    items = [*tensors.items, *[None] * (index + 1 - len(tensors.items))]
    items[index] = value
    return TensorList(tuple(items), tensors.element_shape, tensors.dtype)


def _stacked(converter: Converter, node: Node, tensors: TensorList) -> Value:
    if not tensors.items:
        raise ModelError(f"{node} stacks an empty list")
    return stack(converter, [_element(converter, node, tensors, i) for i in range(len(tensors.items))], 0)


def _element_shape(converter: Converter, node: Node, shape: Value) -> tuple[Any, ...] | None:
    dimensions = converter.dimensions(node, shape)
    unknown = any(isinstance(size, int) and size < 0 for size in dimensions)
    return None if unknown else tuple(dimensions)


@rule("TensorListReserve", structural=True)
def _list_reserve(converter: Converter, node: Node, shape: Value, count: Value) -> Value:
    length = _position(converter, node, count)
    return TensorList((None,) * length, _element_shape(converter, node, shape), node["element_dtype"])


@rule("EmptyTensorList", structural=True)
def _list_empty(converter: Converter, node: Node, shape: Value, limit: Value) -> Value:
    return TensorList((), _element_shape(converter, node, shape), node["element_dtype"])


@rule("TensorListFromTensor", structural=True)
def _list_from_tensor(converter: Converter, node: Node, tensor: Value, shape: Value) -> Value:
    items = unstack(converter, node, tensor, 0)
    return TensorList(tuple(items), converter.shape(items[0]) if items else None, node["element_dtype"])


@rule("TensorListGetItem", structural=True)
def _list_get(converter: Converter, node: Node, tensors: Value, index: Value, shape: Value) -> Value:
    if tensors.element_shape is None:
        tensors = TensorList(tensors.items, _element_shape(converter, node, shape), tensors.dtype)
    return _element(converter, node, tensors, _position(converter, node, index))


@rule("TensorListSetItem", structural=True)
def _list_set(converter: Converter, node: Node, tensors: Value, index: Value, value: Value) -> Value:
    return _replaced(tensors, _position(converter, node, index), value)


@rule("TensorListPushBack", structural=True)
def _list_push(converter: Converter, node: Node, tensors: Value, value: Value) -> Value:
    return _replaced(tensors, len(tensors.items), value)


@rule("TensorListPopBack", structural=True)
def _list_pop(converter: Converter, node: Node, tensors: Value, shape: Value) -> list[Value]:
    last = _element(converter, node, tensors, len(tensors.items) - 1)
    return [TensorList(tensors.items[:-1], tensors.element_shape, tensors.dtype), last]


@rule("TensorListLength", structural=True)
def _list_length(converter: Converter, node: Node, tensors: Value) -> Value:
    return np.asarray(len(tensors.items), "int32")


@rule("TensorListStack", structural=True)
def _list_stack(converter: Converter, node: Node, tensors: Value, shape: Value) -> Value:
    if tensors.element_shape is None:
        tensors = TensorList(tensors.items, _element_shape(converter, node, shape), tensors.dtype)
    return _stacked(converter, node, tensors)


# TensorFlow 1's arrays: the flow carries the elements from write to read, so it is the list.


@rule("TensorArrayV3", structural=True)
def _array(converter: Converter, node: Node, size: Value) -> list[Value]:
    tensors = TensorList((None,) * _position(converter, node, size), None, node["dtype"])
    return [tensors, tensors]


@rule("TensorArrayReadV3", structural=True)
def _array_read(converter: Converter, node: Node, handle: Value, index: Value, flow: Value) -> Value:
    return _element(converter, node, flow, _position(converter, node, index))


@rule("TensorArrayWriteV3", structural=True)
def _array_write(
    converter: Converter, node: Node, handle: Value, index: Value, value: Value, flow: Value
) -> Value:
    return _replaced(flow, _position(converter, node, index), value)


@rule("TensorArrayScatterV3", structural=True)
def _array_scatter(
    converter: Converter, node: Node, handle: Value, indices: Value, values: Value, flow: Value
) -> Value:
    rows = unstack(converter, node, values, 0)
    for index, row in zip(converter.known(node, indices, "indices"), rows, strict=True):
        flow = _replaced(flow, int(index), row)
    return flow


@rule("TensorArrayGatherV3", structural=True)
def _array_gather(converter: Converter, node: Node, handle: Value, indices: Value, flow: Value) -> Value:
    positions = converter.known(node, indices, "indices")
    return stack(converter, [_element(converter, node, flow, int(index)) for index in positions], 0)


@rule("TensorArraySizeV3", structural=True)
def _array_size(converter: Converter, node: Node, handle: Value, flow: Value) -> Value:
    return np.asarray(len(flow.items), "int32")
