"""Convolutions of every shape agree with PyTorch, and padding lanes never leak."""

import numpy as np
import pytest
from cpu_support import assert_close, build, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tvm import relax
from tvm.relay.backend.cpu.convolution import PACKED, Geometry, plan
from tvm.relay.backend.cpu.machine import machine_of, parse_target
from tvm.relay.backend.cpu.window import Window

torch = pytest.importorskip("torch")

EXAMPLES = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@st.composite
def convolutions(draw):
    """Two convolutions, the second reading the first's packed result, with an activation between."""
    kind = draw(st.sampled_from(["dense", "dense", "grouped", "depthwise"]))
    if kind == "depthwise":
        inputs = outputs = groups = draw(st.integers(2, 37))
    elif kind == "grouped":
        groups = draw(st.integers(2, 4))
        inputs, outputs = groups * draw(st.integers(1, 17)), groups * draw(st.sampled_from([8, 16, 3]))
    else:
        inputs, outputs, groups = draw(st.integers(1, 40)), draw(st.integers(1, 90)), 1
    kernel = draw(st.tuples(*[st.sampled_from([1, 2, 3, 5])] * 2))
    dilation = draw(st.tuples(*[st.sampled_from([1, 1, 2])] * 2))
    least = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    return {
        "batch": draw(st.sampled_from([1, 1, 2, 3])),
        "inputs": inputs,
        "outputs": outputs,
        "groups": groups,
        "kernel": kernel,
        "dilation": dilation,
        "strides": draw(st.tuples(*[st.sampled_from([1, 1, 2, 3])] * 2)),
        "padding": draw(st.tuples(*[st.integers(0, 3)] * 4)),
        "size": tuple(draw(st.integers(low, 25)) for low in least),
        "order": draw(st.sampled_from(["NCHW", "NHWC"])),
        "seed": draw(st.integers(0, 2**16)),
        "poison": draw(st.sampled_from([None, None, np.nan, np.inf])),
    }


def _layouts(order: str) -> dict[str, str]:
    return {"data_layout": order, "kernel_layout": "OIHW" if order == "NCHW" else "HWIO"}


def _kernel(weight: np.ndarray, order: str) -> np.ndarray:
    return weight if order == "NCHW" else np.ascontiguousarray(weight.transpose(2, 3, 1, 0))


@EXAMPLES
@given(convolutions())
def test_convolution_agrees_with_torch(case):
    rng = np.random.default_rng(case["seed"])
    order, outputs = case["order"], case["outputs"]
    x = rng.standard_normal((case["batch"], case["inputs"], *case["size"]), dtype="float32")
    if case["poison"] is not None:
        x[0, case["inputs"] // 2, case["size"][0] // 2, case["size"][1] // 2] = case["poison"]
    first = rng.standard_normal((outputs, case["inputs"] // case["groups"], *case["kernel"]), dtype="float32")
    bias = rng.standard_normal((outputs,), dtype="float32")
    second = rng.standard_normal((9, outputs, 1, 1), dtype="float32")
    top, left, bottom, right = case["padding"]

    def body(emit, data, w1, b, w2):
        y = emit(
            relax.op.nn.conv2d(
                data,
                w1,
                strides=list(case["strides"]),
                padding=[top, left, bottom, right],
                dilation=list(case["dilation"]),
                groups=case["groups"],
                **_layouts(order),
            )
        )
        y = emit(relax.op.nn.relu(emit(relax.op.add(y, b))))
        return relax.op.nn.conv2d(y, w2, **_layouts(order))

    shaped_bias = bias.reshape((1, -1, 1, 1) if order == "NCHW" else (1, 1, 1, -1))
    data = x if order == "NCHW" else np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    compiled = build(
        {"data": data.shape},
        {"w1": _kernel(first, order), "b": shaped_bias, "w2": _kernel(second, order)},
        body,
        exact=True,
    )
    y = torch.nn.functional.pad(torch.tensor(x), (left, right, top, bottom))
    y = torch.nn.functional.conv2d(
        y, torch.tensor(first), torch.tensor(bias), case["strides"], 0, case["dilation"], case["groups"]
    )
    expected = torch.nn.functional.conv2d(torch.relu(y), torch.tensor(second)).numpy()
    expected = expected if order == "NCHW" else expected.transpose(0, 2, 3, 1)
    assert_close(run(compiled, data), expected)


def test_tiles_that_do_not_divide_the_channels_overlap():
    machine = machine_of(parse_target("llvm -mcpu=x86-64-v3"))
    window = Window((1, 1), (1, 1), (0, 0, 0, 0), (1, 1))
    geometry = plan(Geometry(window, 1, PACKED, 512), (13, 13), 1000, machine)  # SqueezeNet's classifier
    assert geometry.outputs == 125
    assert geometry.outputs % geometry.chunks
    covered = [geometry.first(block) + c for block in range(geometry.blocks) for c in range(geometry.chunks)]
    assert set(covered) == set(range(125))
    assert len(covered) < 125 + geometry.chunks


@pytest.mark.parametrize(
    ("batch", "inputs", "outputs", "size", "padding"),
    [(1, 64, 64, (56, 56), 1), (2, 37, 24, (20, 23), 1), (1, 128, 128, (14, 14), 1), (3, 16, 40, (9, 18), 0)],
)
def test_winograd_agrees_with_torch(batch, inputs, outputs, size, padding):
    rng = np.random.default_rng(7)
    x = rng.standard_normal((batch, inputs, *size), dtype="float32")
    weight = rng.standard_normal((outputs, inputs, 3, 3), dtype="float32")
    residual = rng.standard_normal((outputs, 1, 1), dtype="float32")

    def body(emit, data, w, r):
        return relax.op.nn.relu(emit(relax.op.add(emit(relax.op.nn.conv2d(data, w, padding=padding)), r)))

    compiled = build({"data": x.shape}, {"w": weight, "r": residual}, body)
    transformed = [w for w in compiled.weights.values() if w.ndim == 5 and w.shape[0] == 36]
    assert transformed, "the convolution did not take the Winograd kernel"
    expected = torch.nn.functional.conv2d(torch.tensor(x), torch.tensor(weight), padding=padding)
    assert_close(run(compiled, x), torch.relu(expected + torch.tensor(residual)).numpy(), 2e-5)


@EXAMPLES
@given(
    st.integers(1, 20),
    st.integers(1, 20),
    st.tuples(*[st.integers(1, 5)] * 2),
    st.tuples(*[st.integers(1, 3)] * 2),
    st.tuples(*[st.integers(0, 2)] * 2),
    st.integers(1, 9),
    st.sampled_from([1, 2]),
)
def test_transposed_convolution_agrees_with_torch(inputs, outputs, kernel, strides, padding, size, batch):
    padding = tuple(min(p, (k - 1) // 2) for p, k in zip(padding, kernel, strict=True))
    extra = tuple(min(1, s - 1) for s in strides)
    rng = np.random.default_rng(8)
    x = rng.standard_normal((batch, inputs, size, size + 2), dtype="float32")
    weight = rng.standard_normal((inputs, outputs, *kernel), dtype="float32")
    attributes = {"strides": strides, "padding": padding, "output_padding": extra}

    def body(emit, data, w):
        return relax.op.nn.relu(emit(relax.op.nn.conv2d_transpose(data, w, **attributes)))

    expected = torch.nn.functional.conv_transpose2d(
        torch.tensor(x), torch.tensor(weight), None, strides, padding, extra
    )
    assert_close(run(build({"data": x.shape}, {"w": weight}, body), x), torch.relu(expected).numpy(), 2e-5)


@EXAMPLES
@given(
    st.sampled_from([(5, 20, 1), (16, 24, 8), (12, 12, 12)]),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(1, 2),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.integers(11, 40),
    st.sampled_from([1, 2]),
)
def test_one_dimensional_convolution_agrees_with_torch(
    channels, kernel, stride, dilation, padding, size, batch
):
    inputs, outputs, groups = channels
    rng = np.random.default_rng(9)
    x = rng.standard_normal((batch, inputs, size), dtype="float32")
    weights = {
        "w": rng.standard_normal((outputs, inputs // groups, kernel), dtype="float32"),
        "b": rng.standard_normal((outputs, 1), dtype="float32"),
        "v": rng.standard_normal((7, 2 * outputs, 1), dtype="float32"),
    }
    attributes = {"strides": stride, "dilation": dilation, "groups": groups}

    def body(emit, data, w, b, v):
        y = emit(relax.op.nn.conv1d(data, w, padding=padding, **attributes))
        y = emit(relax.op.nn.relu(emit(relax.op.add(y, b))))
        pooled = emit(relax.op.nn.max_pool1d(y, 3, 1, (1, 1)))
        average = emit(relax.op.nn.avg_pool1d(y, 3, 1, (1, 1)))
        both = emit(relax.op.concat([pooled, emit(relax.op.multiply(average, y))], 1))
        return relax.op.nn.conv1d(both, v)

    w, b, v = map(torch.tensor, weights.values())
    padded = torch.nn.functional.pad(torch.tensor(x), padding)
    y = torch.relu(torch.nn.functional.conv1d(padded, w, None, stride, 0, dilation, groups) + b)
    both = [torch.nn.functional.max_pool1d(y, 3, 1, 1), torch.nn.functional.avg_pool1d(y, 3, 1, 1) * y]
    expected = torch.nn.functional.conv1d(torch.cat(both, 1), v).numpy()
    compiled = build({"data": x.shape}, weights, body)
    assert any(weight.ndim > 4 for weight in compiled.weights.values()), "nothing was packed"
    assert_close(run(compiled, x), expected, 2e-5)
