"""RNN, GRU and LSTM: as loops where the cell is the usual one, or else unrolled over their steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import relax, tirx

from .. import _recurrent as loops
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

    def loop(x: Tensor, weights: list[Tensor], state: list[Tensor], reverse: bool) -> tuple[Tensor, ...]:
        w, r, *biases = weights
        biases = biases or [None, None]
        return loops.gru(builder, x, w, r, *biases, *state, order="zrn", reverse=reverse)

    usual = loop if attributes.get("linear_before_reset") else None
    return _recurrent(builder, operands, attributes, ["Sigmoid", "Tanh"], 3, step, usual)[:outputs]


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

    def loop(x: Tensor, weights: list[Tensor], state: list[Tensor], reverse: bool) -> tuple[Tensor, ...]:
        w, r, *biases = weights
        bias = builder.emit(biases[0] + biases[1]) if biases else None
        return loops.lstm(builder, x, w, r, bias, *state, order="iofc", reverse=reverse)

    return _recurrent(builder, operands, attributes, ["Sigmoid", "Tanh", "Tanh"], 4, step, loop)[:outputs]


class _Direction:
    """The weights of one direction of a recurrent layer, and the arithmetic that all cells need."""

    def __init__(
        self,
        builder: relax.BlockBuilder,
        weights: list[Tensor],
        peephole: Tensor | None,
        activations: list[Callable[[Tensor], Tensor]],
    ) -> None:
        self.emit = builder.emit
        weight, recurrence, *biases = weights
        self._weight = self.emit(relax.op.permute_dims(weight))
        self.recurrence = self.emit(relax.op.permute_dims(recurrence))
        zeros = relax.op.zeros((recurrence.ty.shape.values[0],), str(recurrence.ty.dtype))
        self._bias, self.recurrent_bias = biases or (None, zeros)
        self.peephole, self.activations = peephole, activations

    def projected(self, x: Tensor) -> Tensor:
        """What the inputs of all steps contribute to the gates."""
        projected = self.emit(relax.op.matmul(x, self._weight))
        return projected if self._bias is None else self.emit(projected + self._bias)

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


# Takes the inputs, the weights W and R and the biases of both (if any), the states, and whether to go
# backwards; gives the states of all steps and the last ones.
_Loop = Callable[[Tensor, "list[Tensor]", "list[Tensor]", bool], "tuple[Tensor, ...]"]


def _recurrent(
    builder: relax.BlockBuilder,
    operands: list[Tensor | None],
    attributes: dict[str, Any],
    activations: list[str],
    gates: int,
    step: Callable[[_Direction, Tensor, list[Tensor]], list[Tensor]],
    loop: _Loop | None = None,
) -> list[Tensor]:
    """A recurrent layer, by `loop` where that does what it asks for: ONNX's Y, then the last states."""
    emit = builder.emit
    x, w, r, b, lengths, *initial = padded(operands, 8)
    peephole = initial.pop()
    if attributes.get("layout"):
        x = emit(relax.op.permute_dims(x, (1, 0, 2)))
        initial = [
            None if state is None else emit(relax.op.permute_dims(state, (1, 0, 2))) for state in initial
        ]
    batch, width, dtype = x.ty.shape.values[1], static_size(r, 2), str(x.ty.dtype)
    direction = attributes.get("direction", b"forward").decode()
    reverses = [False, True] if direction == "bidirectional" else [direction == "reverse"]
    functions = _activations(attributes, activations, len(reverses), dtype)
    if "clip" in attributes:
        raise ModelError("ONNX: a recurrent layer with clip is not supported")
    static_size(x, 0)
    special = lengths is not None or peephole is not None or "activations" in attributes
    looped = loop is not None and not special and dtype == "float32" and isinstance(batch, tirx.IntImm)

    sequences, finals = [], []
    for index, reverse in enumerate(reverses):

        def of(tensor: Tensor, index: int = index) -> Tensor:
            return emit(relax.op.take(tensor, relax.const(index, "int64"), axis=0, mode="wrap"))

        weights = [of(w), of(r)]
        if b is not None:
            both = emit(relax.op.reshape(of(b), (2, gates * width)))
            weights += [of(both, 0), of(both, 1)]
        state = [
            emit(relax.op.zeros((batch, width), dtype)) if given is None else of(given)
            for given in initial[: 2 if gates == 4 else 1]
        ]
        if looped:
            sequence, *last = loop(x, weights, state, reverse)
        else:
            layer = _Direction(builder, weights, None if peephole is None else of(peephole), functions[index])
            sequence, *last = _unrolled(layer, step, x, state, lengths, reverse)
        sequences.append(sequence)
        finals.append(last)

    y = emit(relax.op.stack(sequences, axis=1))
    last = [emit(relax.op.stack(list(values), axis=0)) for values in zip(*finals, strict=True)]
    if attributes.get("layout"):
        y = emit(relax.op.permute_dims(y, (2, 0, 1, 3)))
        last = [emit(relax.op.permute_dims(value, (1, 0, 2))) for value in last]
    return [y, *last]


def _unrolled(
    layer: _Direction,
    step: Callable[[_Direction, Tensor, list[Tensor]], list[Tensor]],
    x: Tensor,
    state: list[Tensor],
    lengths: Tensor | None,
    reverse: bool,
) -> list[Tensor]:
    """One direction, step by step: the states of all steps and the last ones."""
    emit, steps = layer.emit, static_size(x, 0)
    projected = layer.projected(x)
    sequence: list[Any] = [None] * steps
    for time in reversed(range(steps)) if reverse else range(steps):
        row = emit(relax.op.take(projected, relax.const(time, "int64"), axis=0, mode="wrap"))
        new = [emit(value) for value in step(layer, row, state)]
        sequence[time] = new[0]
        if lengths is not None:
            # A shorter sequence keeps its state and gives zeros beyond its end.
            running = emit(relax.op.greater(lengths, relax.const(time, str(lengths.ty.dtype))))
            running = emit(relax.op.expand_dims(running, 1))
            new = [emit(relax.op.where(running, value, old)) for value, old in zip(new, state, strict=True)]
            zeros = relax.op.zeros_like(new[0])
            sequence[time] = emit(relax.op.where(running, sequence[time], zeros))
        state = new
    return [emit(relax.op.stack(sequence, axis=0)), *state]


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
