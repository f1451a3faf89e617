"""Pooling, matrix products, row-wise and element-wise operators agree with PyTorch."""

import math

import numpy as np
import pytest
from cpu_support import assert_close, build, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tvm import relax

torch = pytest.importorskip("torch")

EXAMPLES = settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@st.composite
def pools(draw):
    """A pooling window with padding of at most half of it, as PyTorch demands."""
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    return {
        "kind": draw(st.sampled_from(["max", "average", "average_padded", "global"])),
        "kernel": kernel,
        "strides": draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        "padding": tuple(draw(st.integers(0, k // 2)) for k in kernel),
        "ceil": draw(st.booleans()),
        "batch": draw(st.integers(1, 2)),
        "channels": draw(st.integers(1, 20)),
        "size": (draw(st.integers(kernel[0], 20)), draw(st.integers(kernel[1], 20))),
    }


@EXAMPLES
@given(pools())
def test_pooling_agrees_with_torch(case):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((case["batch"], case["channels"], *case["size"]), dtype="float32")
    weight = rng.standard_normal((case["channels"], case["channels"], 1, 1), dtype="float32")
    pad = list(case["padding"])
    options = {
        "pool_size": list(case["kernel"]),
        "strides": list(case["strides"]),
        "padding": pad + pad,
        "ceil_mode": case["ceil"],
    }

    def body(emit, data, w):
        y = emit(relax.op.nn.conv2d(data, w))  # pooling is packed where its operand is
        if case["kind"] == "max":
            y = emit(relax.op.nn.max_pool2d(y, **options))
        elif case["kind"] == "global":
            y = emit(relax.op.mean(y, [2, 3], keepdims=True))
        else:
            y = emit(relax.op.nn.avg_pool2d(y, count_include_pad=case["kind"] == "average_padded", **options))
        return relax.op.nn.relu(y)

    y = torch.nn.functional.conv2d(torch.tensor(x), torch.tensor(weight))
    shape = (case["kernel"], case["strides"], case["padding"])
    if case["kind"] == "max":
        y = torch.nn.functional.max_pool2d(y, *shape, ceil_mode=case["ceil"])
    elif case["kind"] == "global":
        y = y.mean((2, 3), keepdim=True)
    else:
        y = torch.nn.functional.avg_pool2d(
            y, *shape, ceil_mode=case["ceil"], count_include_pad=case["kind"] == "average_padded"
        )
    assert_close(run(build({"data": x.shape}, {"w": weight}, body), x), torch.relu(y).numpy())


@EXAMPLES
@given(st.integers(1, 40), st.integers(1, 70), st.integers(1, 70), st.booleans(), st.booleans())
def test_dense_agrees_with_numpy(rows, depth, columns, deep, activated):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((2, rows, depth) if deep else (rows, depth), dtype="float32")
    weight = rng.standard_normal((depth, columns), dtype="float32")
    bias = rng.standard_normal((columns,), dtype="float32")

    def body(emit, data, w, b):
        y = emit(relax.op.add(emit(relax.op.matmul(data, w)), b))
        return relax.op.nn.gelu(y) if activated else y

    expected = x @ weight + bias
    if activated:
        expected = expected * 0.5 * (1 + np.vectorize(math.erf)(expected / math.sqrt(2)))
    compiled = build({"data": x.shape}, {"w": weight, "b": bias}, body)
    assert_close(run(compiled, x), expected.astype("float32"))


@EXAMPLES
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 40), st.sampled_from(["same", "one", "fewer"]))
def test_batched_product_agrees_with_numpy(rows, depth, columns, lead):
    rng = np.random.default_rng(3)
    a = rng.standard_normal((2, 3, rows, depth), dtype="float32")
    leads = {"same": (2, 3), "one": (1, 3), "fewer": (3,)}
    b = rng.standard_normal((*leads[lead], depth, columns), dtype="float32")
    compiled = build({"a": a.shape, "b": b.shape}, {}, lambda emit, a, b: relax.op.matmul(a, b))
    assert_close(run(compiled, a, b), a @ b)


@EXAMPLES
@given(st.lists(st.integers(1, 5), min_size=0, max_size=2), st.integers(1, 150))
def test_rows_agree_with_torch(lead, columns):
    rng = np.random.default_rng(4)
    x = 4 * rng.standard_normal((*lead, columns), dtype="float32")
    gamma, beta = rng.standard_normal((2, columns), dtype="float32")

    def body(emit, data, g, b):
        y = emit(relax.op.nn.layer_norm(data, g, b, [-1], 1e-5))
        return relax.op.nn.softmax(y, -1)

    y = torch.nn.functional.layer_norm(torch.tensor(x), (columns,), torch.tensor(gamma), torch.tensor(beta))
    expected = torch.softmax(y, -1).numpy()
    assert_close(run(build({"data": x.shape}, {"g": gamma, "b": beta}, body), x), expected)


SPECIAL = [np.nan, np.inf, -np.inf, 0.0, 1e-30, 88.7, 88.73, -87.5, -100, -120, 4.5, -4.5, 0.35, -0.35]


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("exp", np.exp),
        ("sigmoid", lambda x: 1 / (1 + np.exp(-x))),
        ("tanh", np.tanh),
        ("erf", np.vectorize(math.erf)),
    ],
)
def test_elementary_functions_are_right_to_a_few_units(name, reference):
    x = np.concatenate([np.array(SPECIAL, "float32"), np.linspace(-30, 30, 5000, dtype="float32")])
    compiled = build({"x": x.shape}, {}, lambda emit, a: getattr(relax.op, name)(a))
    with np.errstate(over="ignore"):
        expected = reference(x.astype("float64")).astype("float32")
    # Below the normal range the last place is larger than these tolerances, so it is counted absolutely.
    np.testing.assert_allclose(run(compiled, x), expected, rtol=5e-7, atol=1e-37)


def test_bounds_keep_nan():
    x = np.array([np.nan, -np.inf, -1, 3, 9, np.inf], "float32")
    compiled = build({"x": x.shape}, {}, lambda emit, a: relax.op.clip(emit(relax.op.nn.relu(a)), 0, 6))
    assert_close(run(compiled, x), np.clip(x, 0, 6))


def test_nested_functions_compile_in_linear_time():
    """Where each level doubled the work, as substituted variables do, twenty would never end."""
    x = np.linspace(-2, 2, 64, dtype="float32")

    def body(emit, data):
        for _ in range(20):
            data = emit(relax.op.tanh(emit(relax.op.sigmoid(data))))
        return data

    expected = x
    for _ in range(20):
        expected = np.tanh(1 / (1 + np.exp(-expected)))
    assert_close(run(build({"x": x.shape}, {}, body), x), expected)


def test_function_that_is_the_same_for_all_lanes():
    x = np.random.default_rng(7).standard_normal((4, 8, 1), dtype="float32")
    z = np.random.default_rng(8).standard_normal((4, 8, 8), dtype="float32")
    compiled = build({"x": x.shape, "z": z.shape}, {}, lambda emit, a, b: emit(relax.op.exp(a)) * b)
    assert_close(run(compiled, x, z), np.exp(x) * z)


def test_function_of_an_element_that_only_one_branch_may_read():
    x = np.random.default_rng(6).standard_normal((3, 5), dtype="float32")

    def body(emit, data):
        y = emit(relax.op.exp(emit(relax.op.tanh(data))))
        return relax.op.nn.pad(y, [0, 2, 1, 1], pad_value=4.0)

    expected = np.pad(np.exp(np.tanh(x)), ((0, 2), (1, 1)), constant_values=4)
    assert_close(run(build({"x": x.shape}, {}, body), x), expected)


def test_padding_lanes_do_not_leak_through_singular_operators():
    """log and division make the lanes beyond the channels infinite or NaN; no real channel may see it."""
    rng = np.random.default_rng(5)
    x = rng.uniform(1, 2, (1, 5, 6, 6)).astype("float32")
    first, second = (rng.uniform(0.5, 1, (5, 5, 3, 3)).astype("float32") for _ in range(2))

    def body(emit, data, w1, w2):
        y = emit(relax.op.nn.conv2d(data, w1, padding=1))
        y = emit(relax.op.divide(emit(relax.op.log(y)), emit(relax.op.multiply(y, y))))
        return relax.op.nn.conv2d(y, w2)

    y = torch.nn.functional.conv2d(torch.tensor(x), torch.tensor(first), padding=1)
    expected = torch.nn.functional.conv2d(y.log() / (y * y), torch.tensor(second)).numpy()
    assert np.isfinite(expected).all()
    assert_close(run(build({"data": x.shape}, {"w1": first, "w2": second}, body, exact=True), x), expected)
