"""Compile a small Relax function through the CPU pipeline and run it on NumPy arrays."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

import tvm
from tvm import relax
from tvm.relay.backend.cpu.machine import parse_target
from tvm.relay.backend.cpu.pipeline import Compiled, compile


def build(
    inputs: dict[str, tuple],
    params: dict[str, np.ndarray],
    body: Callable[..., relax.Expr],
    target: str = "llvm",
    **options,
) -> Compiled:
    """Compile the function of `inputs` (name -> shape) and `params` that `body` describes."""
    builder = relax.BlockBuilder()
    arguments = [relax.Var(name, relax.TensorType(shape, "float32")) for name, shape in inputs.items()]
    weights = [relax.Var(name, relax.TensorType(a.shape, str(a.dtype))) for name, a in params.items()]
    with builder.function("main", [*arguments, *weights], attrs={"num_input": len(arguments)}):
        with builder.dataflow():
            result = builder.emit_output(builder.normalize(body(builder.emit, *arguments, *weights)))
        builder.emit_func_output(result)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the pipeline warns where it gives up
        return compile(builder.get(), params, parse_target(target), **options)


def run(compiled: Compiled, *arrays: np.ndarray) -> np.ndarray:
    """The output of `compiled` for the inputs `arrays`."""
    machine = relax.VirtualMachine(compiled.executable, tvm.cpu())
    arguments = [tvm.runtime.tensor(a) for a in (*arrays, *compiled.weights.values())]
    return machine["main"](*arguments).numpy()


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    """The same places are NaN or infinite, and the others differ by little of the largest."""
    assert actual.shape == expected.shape
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected))
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(actual[~finite], expected[~finite])
    if finite.any():
        scale = max(1.0, np.abs(expected[finite]).max())
        assert np.abs(actual[finite] - expected[finite]).max() <= tolerance * scale
