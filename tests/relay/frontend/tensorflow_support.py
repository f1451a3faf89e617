"""What the tests of the TensorFlow and the Keras importer share."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import tvm
from tvm import relax
from tvm.relay.backend.cpu import pipeline
from tvm.relay.backend.cpu.machine import parse_target
from tvm.relay.frontend._tensorflow import load_tensorflow
from tvm.relay.frontend.common import Imported

tf = load_tensorflow("tensorflow")


class Compiled:
    """An imported model that runs on NumPy arrays.

    Upstream's pipeline compiles it, so that a difference is the importer's; `packed` takes this project's,
    which is the faster to compile and run for a network of convolutions.
    """

    def __init__(self, imported: Imported, packed: bool = False) -> None:
        if packed:
            compiled = pipeline.compile(imported.module, imported.params, parse_target("llvm"))
            executable, weights = compiled.executable, compiled.weights
        else:
            executable, weights = tvm.compile(imported.module, "llvm"), imported.params
        self._main = relax.VirtualMachine(executable, tvm.cpu())["main"]
        self._weights = [tvm.runtime.tensor(array) for array in weights.values()]

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        result = self._main(*map(tvm.runtime.tensor, inputs), *self._weights)
        return [result.numpy()] if hasattr(result, "numpy") else [item.numpy() for item in result]


def input_names(imported: Imported) -> list[str]:
    main = imported.module["main"]
    return [variable.name for variable in main.params[: int(main.attrs["num_input"])]]


def input_shapes(imported: Imported) -> list[list[str]]:
    main = imported.module["main"]
    inputs = main.params[: int(main.attrs["num_input"])]
    return [[str(getattr(size, "value", size)) for size in variable.ty.shape] for variable in inputs]


def operators(imported: Imported) -> list[str]:
    """The names of the Relax operators in the order of the function."""
    bindings = [binding for block in imported.module["main"].body.blocks for binding in block.bindings]
    calls = [binding.value for binding in bindings if isinstance(binding.value, tvm.ir.Call)]
    return [call.op.name for call in calls]


def graph_of(function: Callable[..., Any], *specs: Any) -> bytes:
    """`function` as a GraphDef's bytes; its inputs are `x`, `y`, ... or whatever its specs are called."""
    traced = tf.function(function, autograph=False).get_concrete_function(*specs)
    return traced.graph.as_graph_def().SerializeToString()


def tar_of(folder: Path) -> bytes:
    """A SavedModel's directory as the plain text that gets sealed."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.add(path, path.relative_to(folder), recursive=False)
    return buffer.getvalue()


def assert_same(actual: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
    """The project's bound: 1e-4, relative where values are large, and the same five best classes."""
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
        if theirs.ndim == 2:
            assert (top_5(ours) == top_5(theirs)).all()


def top_5(logits: np.ndarray) -> np.ndarray:
    return np.argsort(-logits, axis=-1, kind="stable")[:, :5]


def assert_silent_and_writes_nothing(script: str, paths: Sequence[Path], folder: Path) -> None:
    """Run `script` on the models `paths`, the first of which warms the frameworks up.

    It says nothing on stderr, and strace, where it is installed, sees no file opened for writing once the
    second model has been read.
    """
    home, temporary, trace = folder / "home", folder / "temporary", folder / "trace"
    home.mkdir()
    temporary.mkdir()
    command = [sys.executable, "-c", script, *map(str, paths)]
    if shutil.which("strace"):
        calls = "trace=open,openat,creat,rename,link,symlink"
        command = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", calls, "-o", str(trace), *command]
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(temporary)}
    done = subprocess.run(
        command, cwd=temporary, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert list(temporary.rglob("*")) == []
    if trace.exists():
        after = trace.read_text().partition(f'"{paths[1]}"')[2]
        assert after, "strace saw the second model being read"
        marks = ("O_WRONLY", "O_RDWR", "creat(", "rename(", "link(")
        writes = [line for line in after.splitlines() if any(mark in line for mark in marks)]
        assert [line for line in writes if '"/dev/null"' not in line and '"/proc/' not in line] == []
