"""MXNet's recurrent networks, as loops or unrolled over their steps, and its operators on sequences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tvm.relax import op

from tvm import relax

from .._recurrent import gru, lstm
from ..common import ModelError
from .context import Context, axis_of, converts, reshape, scalar, shape_of, size_of
from .model import Attributes
from .tensor import indices_of

# A network of more steps, in all of its layers and directions, is refused: each step may be code of its own.
_STEPS = 4096

# The most tensors that are joined, or cut out, at once: the code for it tells them apart one by one.
_AT_ONCE = 16

_GATES = {"rnn_relu": 1, "rnn_tanh": 1, "gru": 3, "lstm": 4}


@dataclass
class _Cell:
    """The weights of one layer in one direction; matrices are [gates units, inputs]."""

    from_input: relax.Expr
    from_hidden: relax.Expr
    input_bias: relax.Expr
    hidden_bias: relax.Expr
    projection: relax.Expr | None


@converts("_rnn_param_concat")
def _rnn_param_concat(context: Context, attributes: Attributes, *data: relax.Expr) -> relax.Expr:
    arrays = [context.array(item) for item in data]
    if any(array is None for array in arrays):
        raise ModelError("its inputs are not parameters of the model")
    context.reserve(sum(array.nbytes for array in arrays))
    return context.parameter(context.node, np.concatenate(arrays, attributes.integer("dim", 1)))


@converts("RNN")
def _rnn(
    context: Context,
    attributes: Attributes,
    data: relax.Expr,
    parameters: relax.Expr,
    state: relax.Expr,
    memory: relax.Expr | None = None,
) -> dict[str, relax.Expr]:
    mode = attributes.text("mode")
    if mode not in _GATES:
        raise ModelError(f"attribute 'mode' cannot be '{mode}'")
    for limit in ("lstm_state_clip_min", "lstm_state_clip_max"):
        if attributes.number(limit, None) is not None:
            raise ModelError(f"attribute '{limit}' is not supported")
    if attributes.flag("use_sequence_length", False):
        raise ModelError("attribute 'use_sequence_length' is not supported")
    layers = attributes.integer("num_layers", minimum=1)
    directions = 2 if attributes.flag("bidirectional", False) else 1
    steps = shape_of(data)[0]
    if not isinstance(steps, int) or steps * layers * directions > _STEPS:
        raise ModelError(f"the sequence must have a known length, and {_STEPS} steps in all layers at most")

    cells = _unpack(context, attributes, parameters, layers, directions, shape_of(data)[2])
    sequence = data
    states, memories = [], []
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            number = layer * directions + direction
            order = range(steps) if direction == 0 else range(steps - 1, -1, -1)
            cell = cells[number]
            first, kept = _row(context, state, number), _row(context, memory, number)
            if mode in _LOOPS and cell.projection is None and _is_float32(data):
                hidden, last, kept = _LOOPS[mode](context, cell, sequence, direction == 1, first, kept)
            else:
                hidden, last, kept = _unroll(context, mode, cell, sequence, order, first, kept)
            outputs.append(hidden)
            states.append(last)
            memories.append(kept)
        sequence = outputs[0] if directions == 1 else context.emit(op.concat(outputs, 2))
    results = {"output": sequence, "state_output": _stacked(context, states)}
    return {**results, "statecell_output": _stacked(context, memories)} if mode == "lstm" else results


def _unpack(
    context: Context,
    attributes: Attributes,
    parameters: relax.Expr,
    layers: int,
    directions: int,
    features: int,
) -> list[_Cell]:
    """The weights out of the one vector that MXNet keeps them in: all matrices, then all biases."""
    vector = context.array(parameters)
    if vector is None:
        raise ModelError("its weights are not parameters of the model")
    size = attributes.integer("state_size", minimum=1)
    projection = attributes.integer("projection_size", None, minimum=1)
    width = size * _GATES[attributes.text("mode")]
    hidden = projection or size

    matrices = []
    for layer in range(layers):
        inputs = features if layer == 0 else hidden * directions
        for _ in range(directions):
            matrices += [(width, inputs), (width, hidden)]
            if projection:
                matrices.append((projection, size))
    shapes = [*matrices, *[(width,)] * (2 * layers * directions)]
    sizes = [math.prod(shape) for shape in shapes]
    if sum(sizes) != len(vector):
        raise ModelError("its vector of weights does not have the size that its attributes ask for")
    ends = np.cumsum(sizes)
    pieces = [vector[end - size : end] for size, end in zip(sizes, ends, strict=True)]

    def parameter(number: int, kind: str, array: np.ndarray) -> relax.Expr:
        return context.parameter(f"{context.node}.{number}.{kind}", array)

    def matrix(number: int, kind: str, index: int) -> relax.Expr:
        return parameter(number, kind, pieces[index].reshape(matrices[index]))

    cells = []
    stride = 3 if projection else 2
    for number in range(layers * directions):
        first, bias = number * stride, len(matrices) + number * 2
        cells.append(
            _Cell(
                from_input=matrix(number, "from_input", first),
                from_hidden=matrix(number, "from_hidden", first + 1),
                input_bias=parameter(number, "input_bias", pieces[bias]),
                hidden_bias=parameter(number, "hidden_bias", pieces[bias + 1]),
                projection=matrix(number, "projection", first + 2) if projection else None,
            )
        )
    return cells


def _is_float32(data: relax.Expr) -> bool:
    return str(data.ty.dtype) == "float32" and all(isinstance(size, int) for size in shape_of(data))


def _lstm(
    context: Context, cell: _Cell, sequence: relax.Expr, reverse: bool, hidden: relax.Expr, memory: relax.Expr
) -> tuple[relax.Expr, relax.Expr, relax.Expr]:
    bias = context.emit(op.add(cell.input_bias, cell.hidden_bias))
    weights = cell.from_input, cell.from_hidden, bias
    return lstm(context, sequence, *weights, hidden, memory, order="ifco", reverse=reverse)


def _gru(
    context: Context, cell: _Cell, sequence: relax.Expr, reverse: bool, hidden: relax.Expr, memory: None
) -> tuple[relax.Expr, relax.Expr, None]:
    weights = cell.from_input, cell.from_hidden, cell.input_bias, cell.hidden_bias
    return (*gru(context, sequence, *weights, hidden, order="rzn", reverse=reverse), None)


_LOOPS = {"lstm": _lstm, "gru": _gru}


def _transposed(context: Context, cell: _Cell) -> _Cell:
    """`cell` with its matrices to be multiplied from the right."""
    projection = None if cell.projection is None else context.emit(op.permute_dims(cell.projection))
    matrices = (context.emit(op.permute_dims(m)) for m in (cell.from_input, cell.from_hidden))
    return _Cell(*matrices, cell.input_bias, cell.hidden_bias, projection)


def _unroll(
    context: Context,
    mode: str,
    cell: _Cell,
    sequence: relax.Expr,
    order: Sequence[int],
    hidden: relax.Expr,
    memory: relax.Expr | None,
) -> tuple[relax.Expr, relax.Expr, relax.Expr | None]:
    """The outputs of all steps, as one tensor, and the state and the memory after the last one."""
    steps, batch, features = shape_of(sequence)
    width = size_of(cell.input_bias, 0)
    # What the inputs contribute, for all steps in one product.
    cell = _transposed(context, cell)
    rows = op.matmul(reshape(sequence, [steps * batch, features]), cell.from_input)
    rows = context.emit(reshape(op.add(rows, cell.input_bias), [steps, batch, width]))
    row_of = _unstacked(context, rows, steps)
    outputs = {}
    for step in order:
        hidden, memory = _advance(context, mode, cell, row_of[step], hidden, memory)
        outputs[step] = hidden
    return _stacked(context, [outputs[step] for step in range(steps)]), hidden, memory


def _advance(
    context: Context,
    mode: str,
    cell: _Cell,
    row: relax.Expr,
    hidden: relax.Expr,
    memory: relax.Expr | None,
) -> tuple[relax.Expr, relax.Expr | None]:
    """State and memory after one step, `row` being what its input contributes."""
    recurrent = context.emit(op.add(op.matmul(hidden, cell.from_hidden), cell.hidden_bias))
    if mode == "gru":
        reset, update = (
            context.emit(op.sigmoid(op.add(_gate(row, gate, 3), _gate(recurrent, gate, 3))))
            for gate in (0, 1)
        )
        new = op.tanh(op.add(_gate(row, 2, 3), op.multiply(reset, _gate(recurrent, 2, 3))))
        kept = op.multiply(update, hidden)
        fresh = op.multiply(op.subtract(scalar(1.0, update), update), new)
        return context.emit(op.add(fresh, kept)), None
    total = context.emit(op.add(row, recurrent))
    if mode == "rnn_relu":
        return context.emit(op.nn.relu(total)), None
    if mode == "rnn_tanh":
        return context.emit(op.tanh(total)), None
    take, forget, candidate, show = (_gate(total, gate, 4) for gate in range(4))
    memory = context.emit(
        op.add(op.multiply(op.sigmoid(forget), memory), op.multiply(op.sigmoid(take), op.tanh(candidate)))
    )
    hidden = op.multiply(op.sigmoid(show), op.tanh(memory))
    if cell.projection is not None:
        hidden = op.matmul(hidden, cell.projection)
    return context.emit(hidden), memory


def _gate(gates: relax.Expr, number: int, count: int) -> relax.Expr:
    size = shape_of(gates)[1] // count
    return op.strided_slice(gates, [1], [number * size], [(number + 1) * size])


def _row(context: Context, states: relax.Expr | None, number: int) -> relax.Expr | None:
    if states is None:
        return None
    return context.emit(op.squeeze(op.strided_slice(states, [0], [number], [number + 1]), [0]))


def _unstacked(context: Context, data: relax.Expr, count: int) -> list[relax.Expr]:
    """The `count` tensors that lie along the first dimension of `data`.

    Cut in steps and not one by one, so that all steps of a sequence run the same code.
    """
    if count == 1:
        return [context.emit(op.squeeze(data, [0]))]
    size = -(-count // _AT_ONCE)
    starts = list(range(0, count, size))
    parts = context.emit(op.split(data, starts[1:], 0))
    tensors = []
    for number, start in enumerate(starts):
        tensors += _unstacked(context, context.emit(parts[number]), min(size, count - start))
    return tensors


def _stacked(context: Context, tensors: Sequence[relax.Expr | None]) -> relax.Expr:
    """`tensors`, all of one shape, along a new first dimension."""
    parts = [op.expand_dims(tensor, 0) for tensor in tensors]
    while len(parts) > 1:
        groups = [parts[start : start + _AT_ONCE] for start in range(0, len(parts), _AT_ONCE)]
        parts = [context.emit(op.concat(group, 0)) for group in groups]
    return context.emit(parts[0])


def _axes(attributes: Attributes, data: relax.Expr) -> tuple[int, int]:
    """The axis of the steps and that of the batch, which are the first two."""
    axis = axis_of(data, attributes.integer("axis", 0))
    if axis > 1:
        raise ModelError(f"attribute 'axis' cannot be {axis}")
    return axis, 1 - axis


@converts("SequenceMask")
def _sequence_mask(
    context: Context, attributes: Attributes, data: relax.Expr, *lengths: relax.Expr
) -> relax.Expr:
    if not attributes.flag("use_sequence_length", False):
        return data
    axis, batch_axis = _axes(attributes, data)
    step = op.expand_dims(op.arange(0, shape_of(data)[axis], 1, "int64"), batch_axis)
    inside = op.less(step, op.expand_dims(indices_of(context, lengths[0]), axis))
    inside = op.expand_dims(inside, list(range(2, data.ty.ndim))) if data.ty.ndim > 2 else inside
    return op.where(inside, data, scalar(attributes.number("value", 0.0), data))


@converts("SequenceLast")
def _sequence_last(
    context: Context, attributes: Attributes, data: relax.Expr, *lengths: relax.Expr
) -> relax.Expr:
    axis, batch_axis = _axes(attributes, data)
    steps = size_of(data, axis)
    if not attributes.flag("use_sequence_length", False):
        return op.squeeze(op.strided_slice(data, [axis], [steps - 1], [steps]), [axis])
    last = op.subtract(indices_of(context, lengths[0]), relax.const(1, "int64"))
    example = op.arange(0, shape_of(data)[batch_axis], 1, "int64")
    coordinates = [op.clip(last, 0, steps - 1), example]
    return op.gather_nd(data, op.stack(coordinates if axis == 0 else coordinates[::-1], 1))


@converts("SequenceReverse")
def _sequence_reverse(
    context: Context, attributes: Attributes, data: relax.Expr, *lengths: relax.Expr
) -> relax.Expr:
    axis, batch_axis = _axes(attributes, data)
    if not attributes.flag("use_sequence_length", False):
        return op.flip(data, axis)
    return op.reverse_sequence(data, context.astype(lengths[0], "int32"), axis, batch_axis)
