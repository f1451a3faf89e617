"""What README.md tells a reader to type does what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from conftest import PASSPHRASE, ROOT
from tvm_secret import context

README = (ROOT / "README.md").read_text()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with model.onnx, whose input is that of the example, and in.npz."""
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((8, 3, 7, 7)).astype("float32")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["data", "w"], ["y"], strides=[7, 7])],
        "g",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, 224, 224])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 32, 32])],
        [numpy_helper.from_array(kernel, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    np.savez(tmp_path / "in.npz", data=rng.standard_normal((1, 3, 224, 224)).astype("float32"))
    monkeypatch.setenv("TVM_SECRET_PASSPHRASE", PASSPHRASE)
    monkeypatch.setenv("PATH", f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def wanted(folder) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    with np.load(folder / "in.npz") as inputs:
        return session.run(None, dict(inputs))[0]


def test_commands_then_python(folder):
    block = next(b for b in re.findall(r"```sh\n(.*?)```", README, re.S) if "tvmc keygen" in b)
    for line in block.splitlines():
        if line.startswith("tvmc "):
            done = subprocess.run(line, shell=True, capture_output=True, text=True)
            assert done.returncode == 0, f"{line}: {done.stderr}"
    with np.load(folder / "out.npz") as outputs:
        np.testing.assert_allclose(outputs["output_0"], wanted(folder), rtol=0, atol=1e-4)

    (example,) = re.findall(r"```python\n(.*?)```", README, re.S)
    with np.load(folder / "in.npz") as inputs, context.use():
        names = {"image": inputs["data"]}
        exec(example, names)
    np.testing.assert_allclose(names["output"], wanted(folder), rtol=0, atol=1e-4)
    for name in ("mod", "params"):
        assert isinstance(names[name], bytes)
        assert names[name].startswith(b"\x89TVMS")
