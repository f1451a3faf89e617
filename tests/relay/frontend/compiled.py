"""An imported model, compiled and run."""

from __future__ import annotations

import numpy as np

import tvm
from tvm import relax
from tvm.relay.backend.cpu import pipeline
from tvm.relay.backend.cpu.machine import parse_target
from tvm.relay.frontend.common import Imported


class Compiled:
    """Takes the model's inputs as arrays, gives its outputs as arrays.

    `upstream` compiles without this project's schedules: quicker where there is little to compute.
    """

    def __init__(self, imported: Imported, upstream: bool = False) -> None:
        if upstream:
            executable, weights = tvm.compile(imported.module, "llvm"), imported.params
        else:
            compiled = pipeline.compile(imported.module, imported.params, parse_target("llvm"))
            executable, weights = compiled.executable, compiled.weights
        self._main = relax.VirtualMachine(executable, tvm.cpu())["main"]
        self._weights = [tvm.runtime.tensor(array) for array in weights.values()]

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        result = self._main(*map(tvm.runtime.tensor, inputs), *self._weights)
        return [result.numpy()] if hasattr(result, "numpy") else [item.numpy() for item in result]


def inputs_of(imported: Imported) -> dict[str, list[int | str]]:
    """The model's inputs: name -> shape, symbols by name."""
    main = imported.module["main"]
    return {
        variable.name: [getattr(size, "value", None) or str(size) for size in variable.ty.shape.values]
        for variable in main.params[: int(main.attrs["num_input"])]
    }


def assert_agrees(actual: np.ndarray, expected: np.ndarray) -> None:
    """Equal dtype and shape, values within 1e-4, relative to the largest where it is more than one."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    scale = max(1.0, float(np.abs(expected).max()))
    assert float(np.abs(actual - expected).max()) < 1e-4 * scale
