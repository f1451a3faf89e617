"""RNN, GRU and LSTM, unrolled over their steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import relax

from ..common import ModelError
from .registry import Tensor, converts, padded, static_size


@converts("RNN")
def _rnn(
    builder: relax.BlockBuilder, operands: list[Tensor | None], attributes: dict[str, Any], outputs: int
) -> list[Tensor]:
    """H' = f(X W^T + H R^T + b)."""

    def step(layer: _Direction, projected: Tensor, state: list[Tensor]) -> list[Tensor]:
        (activate,) = layer.activations
        return [activate(layer.gates(projected, state[0]))]

    return _recurrent(builder, operands, attributes, ["Tanh"], 1, step)[:outputs]


@converts("GRU")
def _gru(
    builder: relax.BlockBuilder, operands: list[Tensor | None], attributes: dict[str, Any], outputs: int
) -> list[Tensor]:
    """Gates in ONNX's order update, reset, new; H' = (1 - z) n + z H."""

    def step(layer: _Direction, projected: Tensor, state: list[Tensor]) -> list[Tensor]:
        gate, new = layer.activations
        (hidden,) = state
        x_zr, x_n = layer.parts(projected, 3, [2])
        r_zr, r_n = layer.parts(layer.recurrence, 3, [2])
        bias_zr, bias_n = layer.parts(layer.recurrent_bias, 3, [2])
        z, r = layer.parts(gate(x_zr + layer.matmul(hidden, r_zr) + bias_zr), 2, [1])
        if attributes.get("linear_before_reset"):
            n = new(x_n + r * (layer.matmul(hidden, r_n) + bias_n))
        else:
            n = new(x_n + layer.matmul(layer.emit(r * hidden), r_n) + bias_n)
        return [n + z * (hidden - n)]

    return _recurrent(builder, operands, attributes, ["Sigmoid", "Tanh"], 3, step)[:outputs]


@converts("LSTM")
def _lstm(
    builder: relax.BlockBuilder, operands: list[Tensor | None], attributes: dict[str, Any], outputs: int
) -> list[Tensor]:
    """Gates in ONNX's order input, output, forget, cell; C' = f C + i c, H' = o h(C')."""
    if attributes.get("input_forget"):
        raise ModelError("ONNX: LSTM with input_forget is not supported")

    def step(layer: _Direction, projected: Tensor, state: list[Tensor]) -> list[Tensor]:
        gate, new, out = layer.activations
        hidden, cell = state
        i, o, f, c = layer.parts(layer.gates(projected, hidden), 4, [1, 2, 3])
        if layer.peephole is not None:
            peep_i, peep_o, peep_f = layer.parts(layer.peephole, 3, [1, 2])
            i, f = i + peep_i * cell, f + peep_f * cell
        cell = layer.emit(gate(f) * cell + gate(i) * new(c))
        if layer.peephole is not None:
            o = o + peep_o * cell
        return [gate(o) * out(cell), cell]

    return _recurrent(builder, operands, attributes, ["Sigmoid", "Tanh", "Tanh"], 4, step)[:outputs]


class _Direction:
    """The weights of one direction of a recurrent layer, and the arithmetic that all cells need."""

    def __init__(
        self,
        builder: relax.BlockBuilder,
        index: int,
        recurrence: Tensor,
        recurrent_bias: Tensor,
        peephole: Tensor | None,
        activations: list[Callable[[Tensor], Tensor]],
    ) -> None:
        self.emit = builder.emit
        self.recurrence = self.emit(relax.op.permute_dims(self.of(recurrence, index)))
        self.recurrent_bias = recurrent_bias
        self.peephole = None if peephole is None else self.of(peephole, index)
        self.activations = activations

    def of(self, tensor: Tensor, index: int) -> Tensor:
        """`tensor[index]`."""
        return self.emit(relax.op.take(tensor, relax.const(index, "int64"), axis=0, mode="wrap"))

    def matmul(self, left: Tensor, right: Tensor) -> Tensor:
        return relax.op.matmul(left, right)

    def gates(self, projected: Tensor, hidden: Tensor) -> Tensor:
        """What goes into all gates at once."""
        return self.emit(projected + self.matmul(hidden, self.recurrence) + self.recurrent_bias)

    def parts(self, tensor: Tensor, parts: int, at: list[int]) -> list[Tensor]:
        """`tensor`'s last axis, in `parts` equal parts, split before those in `at`."""
        tensor = self.emit(tensor)
        size = static_size(tensor, tensor.ty.ndim - 1) // parts
        split = self.emit(relax.op.split(tensor, [size * i for i in at], axis=-1))
        return [self.emit(relax.TupleGetItem(split, i)) for i in range(len(at) + 1)]


def _recurrent(
    builder: relax.BlockBuilder,
    operands: list[Tensor | None],
    attributes: dict[str, Any],
    activations: list[str],
    gates: int,
    step: Callable[[_Direction, Tensor, list[Tensor]], list[Tensor]],
) -> list[Tensor]:
    """Unroll a recurrent layer over its steps: ONNX's outputs Y and then the last states."""
    emit = builder.emit
    x, w, r, b, lengths, *initial = padded(operands, 8)
    peephole = initial.pop()
    if attributes.get("layout"):
        x = emit(relax.op.permute_dims(x, (1, 0, 2)))
        initial = [
            None if state is None else emit(relax.op.permute_dims(state, (1, 0, 2))) for state in initial
        ]
    steps, batch = static_size(x, 0), x.ty.shape.values[1]
    width = static_size(r, 2)
    states = 2 if gates == 4 else 1
    dtype = str(x.ty.dtype)
    direction = attributes.get("direction", b"forward").decode()
    reverses = [False, True] if direction == "bidirectional" else [direction == "reverse"]
    functions = _activations(attributes, activations, len(reverses), dtype)
    if "clip" in attributes:
        raise ModelError("ONNX: a recurrent layer with clip is not supported")

    sequences, finals = [], []
    for index, reverse in enumerate(reverses):
        bias = relax.op.zeros((gates * width,), dtype)
        layer = _Direction(builder, index, r, bias, peephole, functions[index])
        projected = emit(relax.op.matmul(x, emit(relax.op.permute_dims(layer.of(w, index)))))
        if b is not None:
            both = emit(relax.op.split(layer.of(b, index), 2))
            projected = emit(projected + emit(relax.TupleGetItem(both, 0)))
            layer.recurrent_bias = emit(relax.TupleGetItem(both, 1))
        state = [
            emit(relax.op.zeros((batch, width), dtype)) if given is None else layer.of(given, index)
            for given in initial[:states]
        ]
        sequence: list[Any] = [None] * steps
        for time in reversed(range(steps)) if reverse else range(steps):
            new = [emit(value) for value in step(layer, layer.of(projected, time), state)]
            sequence[time] = new[0]
            if lengths is not None:
                # A shorter sequence keeps its state and gives zeros beyond its end.
                running = emit(relax.op.greater(lengths, relax.const(time, str(lengths.ty.dtype))))
                running = emit(relax.op.expand_dims(running, 1))
                new = [
                    emit(relax.op.where(running, value, old)) for value, old in zip(new, state, strict=True)
                ]
                zeros = relax.op.zeros((batch, width), dtype)
                sequence[time] = emit(relax.op.where(running, sequence[time], zeros))
            state = new
        sequences.append(emit(relax.op.stack(sequence, axis=0)))
        finals.append(state)

    y = emit(relax.op.stack(sequences, axis=1))
    last = [emit(relax.op.stack(list(values), axis=0)) for values in zip(*finals, strict=True)]
    if attributes.get("layout"):
        y = emit(relax.op.permute_dims(y, (2, 0, 1, 3)))
        last = [emit(relax.op.permute_dims(value, (1, 0, 2))) for value in last]
    return [y, *last]


def _activations(
    attributes: dict[str, Any], defaults: list[str], directions: int, dtype: str
) -> list[list[Callable[[Tensor], Tensor]]]:
    """The activation functions of each direction."""
    names = [name.decode().lower() for name in attributes.get("activations", ())] or [
        name.lower() for name in defaults * directions
    ]
    alphas, betas = iter(attributes.get("activation_alpha", ())), iter(attributes.get("activation_beta", ()))

    def function(name: str) -> Callable[[Tensor], Tensor]:
        plain = {"sigmoid": relax.op.sigmoid, "tanh": relax.op.tanh, "relu": relax.op.nn.relu}
        if name in plain:
            return plain[name]
        if name == "hardsigmoid":
            alpha = relax.const(next(alphas, 0.2), dtype)
            beta = relax.const(next(betas, 0.5), dtype)
            return lambda x: relax.op.clip(x * alpha + beta, 0, 1)
        raise ModelError(f"ONNX: the activation '{name}' of a recurrent layer is not supported")

    functions = [function(name) for name in names]
    return [functions[i * len(defaults) : (i + 1) * len(defaults)] for i in range(directions)]
