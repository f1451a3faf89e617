"""TFLite models written with TensorFlow's own schema classes, and TFLite's interpreter to run them.

The converter makes no uint8 operators and chooses quantisation itself; here a test says what it wants.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
from flatbuffers import flexbuffers
from tensorflow import lite
from tensorflow.lite.python import schema_py_generated as schema

import tvm
from tvm import relax
from tvm.relay.frontend.common import Imported

# The options whose name is not the operator's.
_OPTIONS = {
    "ARG_MAX": "ArgMax",
    "ARG_MIN": "ArgMin",
    "AVERAGE_POOL_2D": "Pool2D",
    "BATCH_MATMUL": "BatchMatMul",
    "BATCH_TO_SPACE_ND": "BatchToSpaceND",
    "CONV_2D": "Conv2D",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2D",
    "L2_NORMALIZATION": "L2Norm",
    "L2_POOL_2D": "Pool2D",
    "MAX_POOL_2D": "Pool2D",
    "MEAN": "Reducer",
    "REDUCE_ALL": "Reducer",
    "REDUCE_ANY": "Reducer",
    "REDUCE_MAX": "Reducer",
    "REDUCE_MIN": "Reducer",
    "REDUCE_PROD": "Reducer",
    "REVERSE_V2": "ReverseV2",
    "SELECT_V2": "SelectV2",
    "SPACE_TO_BATCH_ND": "SpaceToBatchND",
    "SPLIT_V": "SplitV",
    "SUM": "Reducer",
    "TOPK_V2": "TopKV2",
}


@dataclass(eq=False)
class Spec:
    """A tensor of a model to be: a constant if it has `data`; `low` and `high` bound random inputs."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    scale: Any = None
    zero_point: int = 0
    axis: int = 0
    data: np.ndarray | None = field(default=None, repr=False)
    name: str | None = None
    low: float | None = None
    high: float | None = None

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        if self.dtype == "bool":
            return rng.integers(0, 2, self.shape).astype(bool)
        if self.dtype == "float32":
            low, high = (-3 if self.low is None else self.low), (3 if self.high is None else self.high)
            return rng.uniform(low, high, self.shape).astype("float32")
        limits = np.iinfo(self.dtype if self.scale is not None else "int8")
        low, high = (
            (limits.min if self.low is None else self.low),
            limits.max if self.high is None else self.high,
        )
        return rng.integers(low, high + 1, self.shape).astype(self.dtype)


@dataclass(eq=False)
class Operation:
    """One operator; `options` are the fields of its options by the schema's names."""

    code: str
    inputs: Sequence[Spec | None]
    outputs: Sequence[Spec]
    options: dict[str, Any] = field(default_factory=dict)
    custom: dict[str, Any] | None = None


def constant(data: Any, dtype: str = "int32", **quantisation: Any) -> Spec:
    array = np.asarray(data, dtype)
    return Spec(array.shape, dtype, data=array, **quantisation)


def build(operations: Sequence[Operation]) -> bytes:
    """A model that runs the operations in their order; a Spec used twice is one tensor."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.description = 3, "test"
    model.buffers, model.operatorCodes, model.subgraphs = [schema.BufferT()], [], [graph]
    graph.name, graph.tensors, graph.operators, graph.inputs, graph.outputs = "main", [], [], [], []
    indices: dict[Spec, int] = {}

    def add(spec: Spec | None, name: str, output: bool = False) -> int:
        if spec is None:
            return -1
        if spec not in indices:
            indices[spec] = len(graph.tensors)
            graph.tensors.append(_tensor(model, spec, name))
            if spec.data is None:
                (graph.outputs if output else graph.inputs).append(indices[spec])
        return indices[spec]

    for number, operation in enumerate(operations):
        operator = schema.OperatorT()
        operator.inputs = [add(spec, f"{number}/in{i}") for i, spec in enumerate(operation.inputs)]
        operator.outputs = [add(spec, f"{number}/out{i}", True) for i, spec in enumerate(operation.outputs)]
        operator.opcodeIndex = len(model.operatorCodes)
        model.operatorCodes.append(_code(operator, operation))
        graph.operators.append(operator)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _tensor(model: Any, spec: Spec, name: str) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.buffer = spec.name or name, list(spec.shape), 0
    tensor.type = getattr(schema.TensorType, spec.dtype.upper())
    if spec.data is not None:
        contents = schema.BufferT()
        contents.data = np.frombuffer(spec.data.tobytes(), np.uint8)
        tensor.buffer = len(model.buffers)
        model.buffers.append(contents)
    if spec.scale is not None:
        quantisation = schema.QuantizationParametersT()
        quantisation.scale = np.atleast_1d(np.asarray(spec.scale, np.float32)).tolist()
        quantisation.zeroPoint = [spec.zero_point] * len(quantisation.scale)
        quantisation.quantizedDimension = spec.axis
        tensor.quantization = quantisation
    return tensor


def _code(operator: Any, operation: Operation) -> Any:
    code = schema.OperatorCodeT()
    code.version = 1
    if operation.custom is not None:
        code.builtinCode, code.customCode = schema.BuiltinOperator.CUSTOM, operation.code
        operator.customOptions = np.frombuffer(bytes(flexbuffers.Dumps(operation.custom)), np.uint8)
    else:
        code.builtinCode = getattr(schema.BuiltinOperator, operation.code)
        camel_case = "".join(part.capitalize() for part in operation.code.split("_"))
        kind = _OPTIONS.get(operation.code, camel_case) + "Options"
        if hasattr(schema, kind + "T"):
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            operator.builtinOptions = getattr(schema, kind + "T")()
        for name, value in operation.options.items():
            assert hasattr(operator.builtinOptions, name), name
            setattr(operator.builtinOptions, name, value)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    return code


def interpret(model: bytes, inputs: Sequence[np.ndarray], resolver: str = "AUTO") -> list[np.ndarray]:
    """The outputs that TFLite's interpreter gives, in the model's order.

    `resolver` names its kernels: "AUTO", what it uses by default (XNNPACK where that has the operator), or
    "BUILTIN_WITHOUT_DEFAULT_DELEGATES".
    """
    kind = getattr(lite.experimental.OpResolverType, resolver)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the class has moved to another package
        interpreter = lite.Interpreter(model_content=model, experimental_op_resolver_type=kind, num_threads=1)
    details = interpreter.get_input_details()
    for detail, array in zip(details, inputs, strict=True):
        if tuple(detail["shape"]) != array.shape:
            interpreter.resize_tensor_input(detail["index"], array.shape)
    interpreter.allocate_tensors()
    for detail, array in zip(details, inputs, strict=True):
        interpreter.set_tensor(detail["index"], array)
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


def compiled(imported: Imported) -> Callable[..., list[np.ndarray]]:
    """An imported model as a function, by upstream's pipeline: quick to compile and slow to run."""
    executable = tvm.compile(imported.module, tvm.target.Target({"kind": "llvm", "opt-level": 0}))
    main = relax.VirtualMachine(executable, tvm.cpu())["main"]
    params = [tvm.runtime.tensor(array) for array in imported.params.values()]

    def run(*inputs: np.ndarray) -> list[np.ndarray]:
        result = main(*map(tvm.runtime.tensor, inputs), *params)
        return [result.numpy()] if hasattr(result, "numpy") else [item.numpy() for item in result]

    return run


def sample_inputs(operations: Sequence[Operation], seed: int = 0) -> list[np.ndarray]:
    """Random values for a model's inputs, in its order."""
    rng = np.random.default_rng(seed)
    produced = {spec for operation in operations for spec in operation.outputs}
    used = [spec for operation in operations for spec in operation.inputs]
    inputs = dict.fromkeys(s for s in used if s is not None and s.data is None and s not in produced)
    return [spec.sample(rng) for spec in inputs]
