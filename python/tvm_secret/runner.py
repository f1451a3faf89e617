"""Run an artefact as upstream's tvmc does: inputs by name or filled in, outputs by number, times.

`tvm.driver.tvmc` has these under their familiar names; `tvmc run` is this on the command line.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import envelope, npz, retired
from .errors import ModelError
from .files import atomic_writer
from .runtime import Benchmark, GraphModule, OperatorTime, TensorInfo
from .suites import DEFAULT_SUITE

__all__ = [
    "FILL_MODES",
    "TVMCPackage",
    "TVMCResult",
    "get_top_results",
    "load_inputs",
    "load_outputs",
    "run_module",
]

FILL_MODES = ("zeros", "ones", "random")


class TVMCPackage:
    """A sealed artefact: the path of its tar, or its sealed parts in memory. It holds nothing plain.

    `project_dir` is there for upstream's sake, and refused.
    """

    def __init__(
        self, package_path: str | Path | Sequence[bytes], project_dir: str | Path | None = None
    ) -> None:
        retired.check(retired.RUN, project_dir=project_dir)
        self.package_path = Path(package_path) if isinstance(package_path, (str, Path)) else None
        """None where the artefact is in memory."""
        self.artefact = self.package_path or list(package_path)
        """As `GraphModule` takes it."""

    def __repr__(self) -> str:
        return f"<TVMCPackage {self.package_path or 'in memory'}>"


@dataclass
class TVMCResult:
    """What a run gave."""

    outputs: dict[str, np.ndarray]
    """`output_0`, `output_1`, ... -> array of the model's shape and dtype."""
    times: Benchmark | None = None
    """Seconds a run, one figure a series; None where nothing was timed."""
    operators: list[OperatorTime] | None = None
    """Time of each operator, the longest first; None where the run was not profiled."""

    def format_times(self) -> str:
        """Upstream's table of mean, median, max, min and std in milliseconds."""
        if self.times is None:
            raise ModelError("the run was not timed")
        return str(self.times)

    def get_output(self, name: str) -> np.ndarray:
        """The output `name`, such as "output_0"."""
        if name not in self.outputs:
            raise ModelError(f"there is no output {name!r}; there are {', '.join(self.outputs)}")
        return self.outputs[name]

    def save(self, output_path: str | Path, *, seal: bool = False, suite: str = DEFAULT_SUITE) -> None:
        """Write the outputs to an .npz, whole or not at all.

        Args:
            seal: seal them to the context's recipients, signed with its signing key if it has one;
                `load_outputs` and `tvmc decrypt` open the file.
            suite: the cipher then.
        """
        if not seal:
            with atomic_writer(output_path) as file:
                np.savez(file, **self.outputs)
            return
        plain = io.BytesIO()
        np.savez(plain, **self.outputs)
        sealed = envelope.seal(plain.getbuffer(), content_type="outputs", suite=suite)
        with atomic_writer(output_path) as file:
            file.write(sealed)

    def __str__(self) -> str:
        names = f"Output Names:\n {list(self.outputs)}"
        return names if self.times is None else f"{self.format_times()}\n{names}"


def run_module(
    tvmc_package: TVMCPackage,
    device: str = "cpu",
    hostname: str | None = None,
    port: int | str = 9090,
    rpc_key: str | None = None,
    inputs: Mapping[str, np.ndarray] | None = None,
    fill_mode: str = "random",
    repeat: int = 10,
    number: int = 10,
    profile: bool = False,
    end_to_end: bool = False,
    options: Any = None,
    *,
    timed: bool = True,
) -> TVMCResult:
    """Open the artefact in memory, run it, wipe it, and return its outputs and times.

    Args:
        tvmc_package: what `tvmc.compile` returned, or a `TVMCPackage` of a path.
        device: "cpu".
        hostname, port, rpc_key, options: of RPC and microTVM; refused unless left alone.
        inputs: name -> array of the model's shape and dtype.
        fill_mode: what inputs that are not given are filled with: "zeros", "ones", or "random" (uniform in
            [-1, 1); 0 to 127 for 8-bit integers; 0 or 1 for other integers). A symbolic dimension is 1 then.
        repeat, number: series of runs to time, and runs in each.
        profile: measure each operator too.
        end_to_end: time the handing over of inputs and outputs too.
        timed: False runs once and measures nothing.

    Raises:
        SecretError: the artefact does not open, or an input is not the model's.
    """
    retired.check(retired.RUN, device=device, hostname=hostname, rpc_key=rpc_key, options=options)
    if not isinstance(tvmc_package, TVMCPackage):
        raise ModelError(
            f"tvmc.run takes a TVMCPackage, which tvmc.compile returns, not {type(tvmc_package).__name__}"
        )
    if fill_mode not in FILL_MODES:
        raise ModelError(f"unknown fill mode {fill_mode!r}; there are {', '.join(FILL_MODES)}")
    with GraphModule(tvmc_package.artefact) as module:
        for name, value in (inputs or {}).items():
            module.set_input(name, value)
        for info in module.missing_inputs():
            if inputs:
                warnings.warn(f"the input {info.name!r} is not given: filled with {fill_mode}", stacklevel=2)
            module.set_input(info.name, _filled(info, fill_mode))
        module.run()
        outputs = {f"output_{index}": module.get_output(index) for index in range(module.get_num_outputs())}
        operators = module.profile() if profile else None
        times = module.benchmark(repeat=repeat, number=number, end_to_end=end_to_end) if timed else None
    return TVMCResult(outputs, times, operators)


def _filled(info: TensorInfo, mode: str) -> np.ndarray:
    # A symbolic dimension, a batch mostly, is run at size 1.
    shape = [1 if isinstance(size, str) else size for size in info.shape]
    if mode == "zeros":
        return np.zeros(shape, info.dtype)
    if mode == "ones":
        return np.ones(shape, info.dtype)
    random = np.random.default_rng()
    if np.issubdtype(np.dtype(info.dtype), np.floating):
        return random.uniform(-1, 1, shape).astype(info.dtype)
    return random.integers(0, 128 if info.dtype in ("int8", "uint8") else 2, shape).astype(info.dtype)


def load_inputs(path: str | Path) -> dict[str, np.ndarray]:
    """Arrays by name from an .npz, plain or sealed; a sealed one is opened in memory.

    Names may be paths or end in ":0", as TensorFlow's do.

    Raises:
        SecretError: a sealed file does not open, or the file holds anything but plain arrays.
    """
    return _load(path, "inputs")


def load_outputs(path: str | Path) -> dict[str, np.ndarray]:
    """As `load_inputs`, for the file that `TVMCResult.save` or `tvmc run` wrote."""
    return _load(path, "outputs")


def _load(path: str | Path, content_type: str) -> dict[str, np.ndarray]:
    data = Path(path).read_bytes()
    if data.startswith(envelope.MAGIC):
        with envelope.naming(path), envelope.unseal(data, content_type=content_type) as secret:
            data = bytes(secret)
    with envelope.naming(path):
        return npz.load(data)


def get_top_results(result: TVMCResult, max_results: int) -> np.ndarray:
    """The largest values of the first output's first row: shape (2, max_results), indices above values."""
    output = result.get_output("output_0")
    scores = output.reshape(output.shape[0] if output.ndim > 1 else 1, -1)[0]
    # As float64, since unsigned integers have no negatives.
    indices = np.argsort(-scores.astype("float64"), kind="stable")[:max_results]
    return np.array([indices, scores[indices]])
