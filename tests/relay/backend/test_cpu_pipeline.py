"""The pipeline as a whole: weights apart from code, symbolic batch, fallbacks."""

import warnings

import numpy as np
import pytest
from cpu_support import assert_close, build, run

import tvm
from tvm import relax
from tvm.relay.backend.cpu.machine import parse_target
from tvm.relay.backend.cpu.pipeline import compile

torch = pytest.importorskip("torch")


def _weights(**shapes):
    rng = np.random.default_rng(8)
    return {name: rng.standard_normal(shape, dtype="float32") for name, shape in shapes.items()}


def test_weights_leave_the_code_and_equal_ones_are_shared():
    weights = _weights(w=(64, 64, 1, 1))
    x = np.ones((1, 64, 5, 5), "float32")

    def body(emit, data, w):
        return relax.op.nn.conv2d(emit(relax.op.nn.conv2d(data, w)), w)

    compiled = build({"data": x.shape}, weights, body)
    assert [w.size for w in compiled.weights.values()] == [64 * 64]
    assert "x float] [" not in compiled.executable.mod.imports[0].inspect_source("ll")


def test_symbolic_batch_takes_the_packed_kernels():
    weights = _weights(w1=(32, 3, 3, 3), w2=(32, 1, 3, 3), w3=(48, 32, 3, 3), w4=(48, 10))
    batch = tvm.tirx.Var("batch", "int64")

    def body(emit, data, w1, w2, w3, w4):
        y = emit(relax.op.nn.relu(emit(relax.op.nn.conv2d(data, w1, strides=2, padding=1))))
        y = emit(relax.op.nn.conv2d(y, w2, padding=1, groups=32))
        y = emit(relax.op.nn.conv2d(y, w3, padding=1))
        y = emit(relax.op.mean(emit(relax.op.nn.max_pool2d(y, [2, 2], [2, 2])), [2, 3]))
        return relax.op.matmul(y, w4)

    compiled = build({"data": (batch, 3, 32, 32)}, weights, body)
    text = str(compiled.executable.stats())
    assert "depthwise" in text
    w1, w2, w3, w4 = (torch.tensor(w) for w in weights.values())
    functional = torch.nn.functional
    for n in (1, 2, 5, 70):
        x = np.random.default_rng(n).standard_normal((n, 3, 32, 32), dtype="float32")
        y = torch.relu(functional.conv2d(torch.tensor(x), w1, stride=2, padding=1))
        y = functional.conv2d(functional.conv2d(y, w2, padding=1, groups=32), w3, padding=1)
        expected = (functional.max_pool2d(y, 2).mean((2, 3)) @ w4).numpy()
        assert_close(run(compiled, x), expected, 2e-5)


def test_batch_normalisation_is_folded_into_the_convolution():
    weights = _weights(w=(16, 16, 3, 3), gamma=(16,), beta=(16,), mean=(16,), variance=(16,))
    weights["variance"] = np.abs(weights["variance"]) + 0.5
    x = _weights(x=(1, 16, 9, 9))["x"]

    def body(emit, data, w, gamma, beta, mean, variance):
        y = emit(relax.op.nn.conv2d(data, w, padding=1))
        normalised = emit(relax.op.nn.batch_norm(y, gamma, beta, mean, variance, 1, 1e-3, training=False))
        return normalised[0]

    compiled = build({"data": x.shape}, weights, body, exact=True)
    assert len(compiled.weights) <= 2
    w, gamma, beta, mean, variance = (torch.tensor(a) for a in weights.values())
    y = torch.nn.functional.conv2d(torch.tensor(x), w, padding=1)
    expected = torch.nn.functional.batch_norm(y, mean, variance, gamma, beta, eps=1e-3)
    assert_close(run(compiled, x), expected.numpy())


def test_explicit_padding_moves_into_the_convolution():
    weights = _weights(w=(3, 3, 4, 8))
    x = _weights(x=(1, 11, 10, 4))["x"]

    def body(emit, data, w):
        y = emit(relax.op.nn.pad(data, [0, 0, 0, 1, 2, 1, 0, 0]))
        return relax.op.nn.conv2d(y, w, strides=2, data_layout="NHWC", kernel_layout="HWIO")

    compiled = build({"data": x.shape}, weights, body)
    padded = np.pad(x, ((0, 0), (0, 1), (2, 1), (0, 0)))
    expected = torch.nn.functional.conv2d(
        torch.tensor(padded.transpose(0, 3, 1, 2)), torch.tensor(weights["w"].transpose(3, 2, 0, 1)), stride=2
    )
    assert_close(run(compiled, x), expected.numpy().transpose(0, 2, 3, 1))
    assert "pad" not in str(compiled.executable.stats())


def test_nhwc_graph_is_computed_without_transpositions():
    weights = _weights(w1=(3, 3, 3, 32), w2=(1, 1, 32, 32))
    x = _weights(x=(1, 16, 16, 3))["x"]
    layouts = {"data_layout": "NHWC", "kernel_layout": "HWIO"}

    def body(emit, data, w1, w2):
        y = emit(relax.op.nn.relu(emit(relax.op.nn.conv2d(data, w1, padding=1, **layouts))))
        y = emit(relax.op.add(emit(relax.op.nn.conv2d(y, w2, **layouts)), y))
        return relax.op.mean(y, [1, 2])

    compiled = build({"data": x.shape}, weights, body)
    text = str(compiled.executable.stats())
    assert "transpose" not in text
    assert "unpack" not in text
    w1, w2 = (torch.tensor(w.transpose(3, 2, 0, 1)) for w in weights.values())
    y = torch.relu(torch.nn.functional.conv2d(torch.tensor(x.transpose(0, 3, 1, 2)), w1, padding=1))
    expected = (torch.nn.functional.conv2d(y, w2) + y).mean((2, 3)).numpy()
    assert_close(run(compiled, x), expected)


def test_a_failing_pass_costs_speed_and_not_the_model(monkeypatch):
    from tvm.relay.backend.cpu import packing

    def broken(packer, call):
        raise ValueError("broken on purpose")

    monkeypatch.setitem(packing.RULES, "nn.conv2d", broken)
    weights = _weights(w=(8, 4, 3, 3))
    x = _weights(x=(1, 4, 8, 8))["x"]
    builder = relax.BlockBuilder()
    data, w = (relax.Var(n, relax.TensorType(a.shape, "float32")) for n, a in (("x", x), ("w", weights["w"])))
    with builder.function("main", [data, w], attrs={"num_input": 1}):
        with builder.dataflow():
            out = builder.emit_output(relax.op.nn.conv2d(data, w))
        builder.emit_func_output(out)
    with pytest.warns(UserWarning, match="CPU pass failed"):
        compiled = compile(builder.get(), weights, parse_target("llvm"))
    expected = torch.nn.functional.conv2d(torch.tensor(x), torch.tensor(weights["w"])).numpy()
    assert_close(run(compiled, x), expected)


def test_elementwise_functions_of_importers_stay_packed():
    """Importers make a clip of TE functions with scalar bounds, which are themselves computed."""
    weights = _weights(w=(20, 3, 3, 3), v=(4, 20, 1, 1))
    x = _weights(x=(1, 3, 9, 9))["x"]
    builder = relax.BlockBuilder()
    arrays = {"x": x, **weights}
    data, w, v = (relax.Var(n, relax.TensorType(a.shape, "float32")) for n, a in arrays.items())
    with builder.function("main", [data, w, v], attrs={"num_input": 1}):
        with builder.dataflow():
            y = builder.emit(relax.op.nn.conv2d(data, w))
            bound = relax.const(0.5)
            bound = builder.emit(relax.op.where(builder.emit(relax.op.isnan(bound)), relax.const(9.0), bound))
            y = builder.emit_te(tvm.topi.minimum, y, bound)
            out = builder.emit_output(relax.op.nn.conv2d(y, v))
        builder.emit_func_output(out)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled = compile(builder.get(), weights, parse_target("llvm"))
    assert str(compiled.executable.stats()).count("pack") == 1  # that of the result
    w, v = (torch.tensor(a) for a in weights.values())
    y = torch.nn.functional.conv2d(torch.tensor(x), w).clamp(max=0.5)
    assert_close(run(compiled, x), torch.nn.functional.conv2d(y, v).numpy())
