"""Recurrent layers as loops agree with PyTorch's, and their code does not grow with the steps."""

from __future__ import annotations

import numpy as np
import pytest

import tvm
from tvm import relax
from tvm.relay.backend.cpu.machine import parse_target
from tvm.relay.backend.cpu.pipeline import compile
from tvm.relay.frontend._recurrent import gru, lstm

# The pipeline warns where a pass of its own fails and upstream's lowering takes over.
pytestmark = pytest.mark.filterwarnings("error:a CPU pass failed")

torch = pytest.importorskip("torch")

# PyTorch keeps the gates in these orders.
ORDERS = {"lstm": "ifco", "gru": "rzn"}


def layer(kind: str, arrays: dict[str, np.ndarray], reverse: bool) -> tvm.IRModule:
    builder = relax.BlockBuilder()
    variables = [relax.Var(name, relax.TensorType(a.shape, "float32")) for name, a in arrays.items()]
    with builder.function("main", variables, attrs={"num_input": 3 if kind == "lstm" else 2}):
        with builder.dataflow():
            if kind == "lstm":
                x, hidden, cell, weight, recurrence, bias = variables
                operands = [x, weight, recurrence, bias, hidden, cell]
                results = lstm(builder, *operands, order=ORDERS[kind], reverse=reverse)
            else:
                x, hidden, weight, recurrence, *biases = variables
                operands = [x, weight, recurrence, *biases, hidden]
                results = gru(builder, *operands, order=ORDERS[kind], reverse=reverse)
            output = builder.emit_output(relax.Tuple(results))
        builder.emit_func_output(output)
    return builder.get()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("sizes", [(1, 1, 3, 1), (6, 3, 5, 20), (7, 2, 8, 32)])
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_layer_agrees_with_torch(kind, sizes, reverse):
    steps, batch, features, units = sizes
    torch.manual_seed(0)
    network = (torch.nn.LSTM if kind == "lstm" else torch.nn.GRU)(features, units)
    weight, recurrence, bias, recurrent_bias = (p.detach().numpy() for p in network.parameters())
    x, hidden, cell = (torch.randn(n, batch, m) for n, m in ((steps, features), (1, units), (1, units)))
    inputs = {"x": x.numpy(), "hidden": hidden[0].numpy()}
    if kind == "lstm":
        inputs["cell"] = cell[0].numpy()
        weights = {"w": weight, "r": recurrence, "b": bias + recurrent_bias}
    else:
        weights = {"w": weight, "r": recurrence, "b": bias, "c": recurrent_bias}
    with torch.no_grad():
        states, last = network(x.flip(0) if reverse else x, (hidden, cell) if kind == "lstm" else hidden)
    expected = [states.flip(0) if reverse else states, *(last if kind == "lstm" else (last,))]

    compiled = compile(layer(kind, {**inputs, **weights}, reverse), weights, parse_target("llvm"))
    machine = relax.VirtualMachine(compiled.executable, tvm.cpu())
    arrays = [tvm.runtime.tensor(a) for a in (*inputs.values(), *compiled.weights.values())]
    for actual, wanted in zip(machine["main"](*arrays), expected, strict=True):
        np.testing.assert_allclose(actual.numpy(), wanted.reshape(actual.shape).numpy(), atol=2e-6)


def test_code_does_not_grow_with_the_steps():
    def functions(steps: int) -> int:
        shapes = {"x": (steps, 1, 4), "h": (1, 4), "c": (1, 4), "w": (16, 4), "r": (16, 4), "b": (16,)}
        module = layer("lstm", {name: np.zeros(shape, "float32") for name, shape in shapes.items()}, False)
        return len(str(module.script()))

    assert functions(1000) < functions(2) + 100
