"""The MXNet importer against MXNet 1.9.1 itself, and against files that lie."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mxnet_environment
import mxnet_reference
import numpy as np
import pytest

import tvm
from tvm import relax
from tvm.relay.frontend.common import Imported
from tvm.relay.frontend.mxnet import import_mxnet
from tvm_secret import formats


@dataclass(frozen=True)
class Reference:
    """A model, and what MXNet computes with it."""

    model: bytes
    inputs: dict[str, np.ndarray]
    outputs: list[np.ndarray]
    output_names: list[str]


class Mxnet:
    """Models and outputs from a process under MXNet."""

    def __init__(self, process: mxnet_environment.Process, folder: Path):
        self._process = process
        self._folder = folder

    def ask(self, **request: object) -> dict:
        return self._process.ask({**request, "folder": str(self._folder)})

    def reference(self, **request: object) -> Reference:
        answer = self.ask(**request)
        symbol, params = self._folder / "model-symbol.json", self._folder / "model-0000.params"
        _, pieces = formats.plain_source([symbol, params], "model/mxnet")
        with np.load(self._folder / "values.npz") as values:
            inputs = {key.removeprefix("input "): values[key] for key in values if key.startswith("input ")}
            outputs = [values[f"output_{index}"] for index in range(len(answer["outputs"]))]
        return Reference(b"".join(pieces()), inputs, outputs, answer["outputs"])


@pytest.fixture(scope="session")
def mxnet(tmp_path_factory) -> Iterator[Mxnet]:
    try:
        mxnet_environment.mxnet_python()
    except mxnet_environment.Unavailable as reason:
        pytest.skip(str(reason))
    with mxnet_environment.running(Path(mxnet_reference.__file__)) as process:
        yield Mxnet(process, tmp_path_factory.mktemp("mxnet"))


def run(imported: Imported, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of an imported model, compiled for this machine."""
    main = imported.module["main"]
    count = int(main.attrs["num_input"])
    arguments = [inputs[parameter.name] for parameter in main.params[:count]]
    executable = tvm.compile(imported.module, "llvm")
    machine = relax.VirtualMachine(executable, tvm.cpu())
    result = machine["main"](
        *(
            tvm.runtime.tensor(np.ascontiguousarray(value))
            for value in (*arguments, *imported.params.values())
        )
    )
    return [result.numpy()] if hasattr(result, "numpy") else [output.numpy() for output in result]


def import_reference(reference: Reference, **options: object) -> Imported:
    shapes = {name: value.shape for name, value in reference.inputs.items()}
    dtypes = {name: str(value.dtype) for name, value in reference.inputs.items()}
    return import_mxnet(reference.model, shapes, dtypes, **options)


@pytest.mark.parametrize("name", mxnet_reference.CASES)
def test_operator_agrees_with_mxnet(mxnet, name):
    reference = mxnet.reference(case=name)
    imported = import_reference(reference)
    assert imported.output_names == reference.output_names
    outputs = run(imported, reference.inputs)
    assert len(outputs) == len(reference.outputs)
    for ours, theirs in zip(outputs, reference.outputs, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        tolerance = 1e-3 if theirs.dtype == "float16" else 1e-5
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
