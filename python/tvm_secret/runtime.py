"""Run an artefact: open it in memory, load the code without a linker, keep the runtime out of reach.

Upstream's `libtvm_runtime.so` is loaded through `tvm_ffi`, and the object code by LLVM's ORC JIT linker, so
that neither `tvm` nor a compiler nor a framework is imported.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .artefact import Artefact, Interface, Opened, TensorInfo, open_artefact
from .errors import ModelError, SecretError, TargetError
from .tensors import ALIGNMENT

__all__ = ["Benchmark", "Execution", "GraphModule", "OperatorTime"]

_CPU, _POOLED_ALLOCATOR = 1, 2


@contextlib.contextmanager
def without_torch() -> Iterator[None]:
    """Keep `tvm_ffi`, imported in the block, from importing torch: 0.7 s and 300 MB for nothing used here."""
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["torch"]


@functools.cache
def _ffi():
    """`tvm_ffi` with the runtime library loaded."""
    with without_torch():
        import tvm_ffi
        import tvm_ffi_orcjit
    spec = importlib.util.find_spec("tvm")
    if spec is None or not spec.submodule_search_locations:
        raise SecretError("the TVM runtime is not installed: pip install apache-tvm")
    folder = Path(spec.submodule_search_locations[0]) / "lib"
    try:
        ctypes.CDLL(str(folder / "libtvm_runtime.so"), ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / "libtvm_runtime_extra.so"), ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise SecretError(f"the TVM runtime cannot be loaded: {error}") from None
    return tvm_ffi, tvm_ffi_orcjit


class GraphModule:
    """An artefact decrypted and loaded once, to be run many times.

    Inputs and outputs are NumPy arrays; nothing that leads to the code, the graph or the weights is public.
    One instance serves one thread at a time. Used in a `with` block, it is wiped at its end.

    Args:
        artefact: the sealed parts that `relay.build` gives, or the path of their tar.

    Raises:
        NotSealedError, AuthenticationError, SignatureError, IdentityError, PolicyError: it does not open,
            for the reason that `tvm_secret.unseal` gives.
        TargetError: this CPU lacks a feature that the code was compiled for.

    Examples:
        >>> import numpy as np
        >>> from tvm.contrib.graph_executor import GraphModule
        >>> with GraphModule("model.tar") as module:
        ...     module.set_input("data", np.load("in.npz")["data"])
        ...     module.run()
        ...     module.get_output(0).shape
        (1, 8)
    """

    def __init__(self, artefact: Artefact) -> None:
        opened = open_artefact(artefact)
        if opened.headers[0].signer is None:
            warnings.warn(
                "the artefact is not signed: it is native code, and whoever has the public key could have "
                "made it (sign with 'tvmc compile --sign-key', and run with --signer)",
                stacklevel=2,
            )
        try:
            self.__opened = opened
            self.__interface = opened.interface
            _check_features(opened.interface)
            self.__machine, self.__weights = _load(opened)
            self.__call = self.__machine.get_function(opened.interface.entry)
        except BaseException:
            opened.close()
            raise
        self.__inputs: dict[str, np.ndarray] = {}
        self.__outputs: list[np.ndarray] = []

    @property
    def inputs(self) -> list[TensorInfo]:
        """Name, shape (a string being a symbolic dimension) and dtype of each input, in order."""
        return list(self.__interface.inputs)

    @property
    def outputs(self) -> list[TensorInfo]:
        """Name, shape and dtype of each output, in order."""
        return list(self.__interface.outputs)

    def set_input(self, key: str | int | None = None, value: Any = None, **inputs: Any) -> None:
        """Set one input by name or index, or several by keyword.

        Args:
            key: the input's name, or its index in `inputs`.
            value: an array, or what NumPy makes one of, of the input's shape and dtype. One that is
                contiguous and aligned is used in place: do not change it before `run`.

        Raises:
            ModelError: there is no such input, or dtype or shape is not the model's.
        """
        if key is not None:
            info = self.inputs[key] if isinstance(key, int) else None
            inputs = {**inputs, (info.name if info else key): value}
        for name, array in inputs.items():
            self.__inputs[name] = _checked(self._info(name), array)

    def _info(self, name: str) -> TensorInfo:
        for info in self.__interface.inputs:
            if _plain_name(name) == _plain_name(info.name):
                return info
        names = ", ".join(repr(info.name) for info in self.__interface.inputs)
        raise ModelError(f"the model has no input {name!r}; it has {names}")

    def missing_inputs(self) -> list[TensorInfo]:
        """The inputs that are not set yet."""
        known = {self._info(name).name for name in self.__inputs}
        return [info for info in self.inputs if info.name not in known]

    def run(self, **inputs: Any) -> None:
        """Run on the inputs set earlier and those given here by keyword.

        Raises:
            ModelError: an input is missing, or sizes of one symbolic dimension contradict each other.
        """
        self.set_input(**inputs)
        outputs = self.__call(*self._arguments(), *self.__weights)
        if hasattr(outputs, "shape"):
            outputs = [outputs]
        self.__outputs = [np.array(np.from_dlpack(output)) for output in outputs]

    def _arguments(self) -> list:
        ffi, _ = _ffi()
        set_inputs = {self._info(name).name: array for name, array in self.__inputs.items()}
        sizes: dict[str, int] = {}
        arguments = []
        for info in self.__interface.inputs:
            if info.name not in set_inputs:
                raise ModelError(f"the input {info.name!r} is not set")
            array = set_inputs[info.name]
            for dimension, size in zip(info.shape, array.shape, strict=True):
                if isinstance(dimension, str) and sizes.setdefault(dimension, size) != size:
                    raise ModelError(
                        f"input {info.name!r} has {dimension} = {size}, an earlier one {sizes[dimension]}"
                    )
            arguments.append(ffi.from_dlpack(array))
        return arguments

    def get_output(self, index: int) -> np.ndarray:
        """Output `index` of the last run, an array of its own. Raises `ModelError` before the first run."""
        if not self.__outputs:
            raise ModelError("the model has not been run yet")
        return self.__outputs[index]

    def get_num_outputs(self) -> int:
        """How many outputs the model has."""
        return len(self.__interface.outputs)

    def benchmark(self, *, repeat: int = 5, number: int = 5, end_to_end: bool = False) -> Benchmark:
        """Time `repeat` series of `number` runs each, after one run that is not counted.

        Args:
            repeat: how many series, each giving one figure.
            number: how many runs a series is the mean of.
            end_to_end: count the handing over of inputs and outputs too.

        Returns:
            Seconds per run; printed, milliseconds, as upstream's `BenchmarkResult`.

        Raises:
            ModelError: as `run`.
        """
        ready = self._arguments()
        self.__call(*ready, *self.__weights)
        results = []
        for _ in range(repeat):
            start = time.perf_counter()
            for _ in range(number):
                if end_to_end:
                    self.run()
                else:
                    self.__call(*ready, *self.__weights)
            results.append((time.perf_counter() - start) / number)
        return Benchmark(results)

    def profile(self) -> list[OperatorTime]:
        """Run twice, and say what each operator took in the second run, the longest first.

        Operators bear the names of their compiled functions, so this shows whoever sees it what kinds of
        layers the model has. What passes between them (memory, shapes) is one entry, `"(runtime)"`.
        """
        ready = self._arguments()
        self.__call(*ready, *self.__weights)
        times = _CallTimes()
        set_instrument = self.__machine.get_function("set_instrument")
        set_instrument(_ffi()[0].convert(times))
        try:
            self.__call(*ready, *self.__weights)
        finally:
            set_instrument(None)
        return sorted(times.operators.values(), key=lambda operator: -operator.seconds)

    def close(self) -> None:
        """Forget the code and wipe the weights. The module cannot be used afterwards."""
        self.__call, self.__machine = _closed, None
        self.__weights = []
        self.__inputs, self.__outputs = {}, []
        self.__opened.close()

    def __enter__(self) -> GraphModule:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<GraphModule of {len(self.inputs)} inputs and {len(self.outputs)} outputs>"


def Execution(artefact: Artefact, inputs: Mapping[str, Any]) -> np.ndarray | list[np.ndarray]:
    """Decrypt `artefact`, run it once on `inputs`, wipe it, and return only the output.

    Args:
        artefact: the sealed parts that `relay.build` gives, or the path of their tar.
        inputs: input name -> array of the model's shape and dtype.

    Returns:
        One array, or a list of them where the model has several outputs.

    Raises:
        SecretError: as `GraphModule` and its methods.

    Examples:
        >>> import numpy as np
        >>> from tvm.contrib import graph_executor
        >>> output = graph_executor.Execution("model.tar", {"data": np.load("in.npz")["data"]})
        >>> print(output.argmax())
        7
    """
    with GraphModule(artefact) as module:
        for name, value in inputs.items():
            module.set_input(name, value)
        module.run()
        outputs = [module.get_output(index) for index in range(module.get_num_outputs())]
    return outputs[0] if len(outputs) == 1 else outputs


@dataclass
class Benchmark:
    """Seconds per run, one figure a series."""

    results: list[float]

    @property
    def mean(self) -> float:
        return float(np.mean(self.results))

    @property
    def median(self) -> float:
        return float(np.median(self.results))

    @property
    def min(self) -> float:
        return min(self.results)

    @property
    def max(self) -> float:
        return max(self.results)

    @property
    def std(self) -> float:
        return float(np.std(self.results))

    def __str__(self) -> str:
        """Upstream's table, in milliseconds."""
        names = ("mean", "median", "max", "min", "std")
        heads = " ".join(f"{name + ' (ms)':^12}" for name in names)
        figures = " ".join(f"{getattr(self, name) * 1e3:^12.4f}" for name in names)
        return f"Execution time summary:\n{heads}\n{figures}"


@dataclass
class OperatorTime:
    """How often a compiled operator was called in one run, and the seconds that its calls took together."""

    name: str
    calls: int = 0
    seconds: float = 0.0


class _CallTimes:
    """The virtual machine's instrument: called before and after each call that it makes."""

    def __init__(self) -> None:
        self.operators: dict[str, OperatorTime] = {}
        self._running: list[tuple[float, float]] = []  # of each call: its start, its callees' seconds

    def __call__(self, function: Any, name: str, before: bool, *_: Any) -> None:
        if before:
            self._running.append((time.perf_counter(), 0.0))
            return
        start, inner = self._running.pop()
        took = time.perf_counter() - start
        if self._running:
            outer_start, outer_inner = self._running[-1]
            self._running[-1] = outer_start, outer_inner + took
        label = "(runtime)" if name.startswith("vm.builtin.") else name
        operator = self.operators.setdefault(label, OperatorTime(label))
        operator.calls += 1
        operator.seconds += took - inner


def _closed(*_: object) -> None:
    raise ModelError("the module is closed")


def _load(opened: Opened):
    ffi, _ = _ffi()
    # The session's own `load_module` asks a C++ compiler, where there is one, for its runtime library; our
    # objects need none, and a device should start no compiler.
    load = ffi.get_global_func("tvm_ffi_orcjit.SessionLoadModule")
    module = load(_session(), opened.objects, "", None, None)
    machine = module.get_function("vm_load_executable")()
    machine.get_function("vm_initialization")(_CPU, 0, _POOLED_ALLOCATOR)
    weights = [ffi.from_dlpack(_aligned(weight)) for weight in opened.weights.values()]
    opened.objects.clear()
    return machine, weights


@functools.cache
def _session():
    return _ffi()[1].default_session()


def _checked(info: TensorInfo, value: Any) -> np.ndarray:
    """`value` as an aligned array of the input's dtype and shape."""
    array = np.asarray(value)
    if array.dtype.name != info.dtype:
        raise ModelError(f"input {info.name!r} wants dtype {info.dtype}, got {array.dtype.name}")
    fits = len(array.shape) == len(info.shape) and all(
        isinstance(want, str) or want == got for want, got in zip(info.shape, array.shape, strict=True)
    )
    if not fits:
        raise ModelError(f"input {info.name!r} wants shape {info.shape}, got {list(array.shape)}")
    return _aligned(array)


def _aligned(array: np.ndarray) -> np.ndarray:
    """`array` itself where TVM can use it in place, else a contiguous, aligned copy."""
    if array.flags.c_contiguous and array.ctypes.data % ALIGNMENT == 0 and array.flags.writeable:
        return array
    raw = np.empty(array.nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    copy = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _plain_name(name: str) -> str:
    """TensorFlow's first output of an operation, `x:0`, is known to its users as `x` too."""
    return name.removesuffix(":0")


def _check_features(interface: Interface) -> None:
    missing = sorted(set(interface.features) - cpu_features())
    if missing:
        raise TargetError(
            f"this CPU lacks {', '.join(missing)}, which the artefact (target '{interface.target}') needs: "
            "compile it for this machine, or for any with --target 'llvm -mcpu=x86-64-v2'"
        )


@functools.cache
def cpu_features() -> frozenset[str]:
    """This CPU's features as /proc/cpuinfo names them."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()
