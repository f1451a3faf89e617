"""ONNX models to Relax: `from_onnx` on sealed bytes, `import_onnx` on plain ones."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from tvm.ir import IRModule

from tvm import relax, tirx

from ._shared import bound_indices, identifier, is_constant, quoted
from .common import Imported, ModelError, Shapes, require, sealed_import

__all__ = ["from_onnx", "import_onnx"]


def from_onnx(
    model: Any,
    shape: Any = None,
    dtype: str | Mapping[str, str] = "float32",
    opset: int | None = None,
    freeze_params: bool = True,
    convert_config: Mapping[str, Any] | None = None,
    export_node_renamed_model: str | None = None,
) -> tuple[bytes, bytes]:
    """Turn a sealed ONNX model into a sealed Relax module and its sealed weights.

    Parameters
    ----------
    model
        The sealed model (content type `model/onnx`): bytes, or the path of a sealed file. The model holds
        its weights itself; weights in files beside it are refused.
    shape
        Sealed input shapes (content type `input-shapes`), `{input: [dimension, ...]}`. They take the place of
        the shapes in the model; a dimension given as a string is symbolic.
    dtype
        `{input: dtype}` overrides the dtypes of those inputs. A string changes nothing: an ONNX model says
        the dtype of each of its inputs.
    opset
        The version of ONNX's operator set to read the model with, in place of the one it declares.
    freeze_params
        Has no effect: weights always stay apart from the code, and constants that operators need at compile
        time, such as axes, are always part of it.
    convert_config
        Refused unless empty: it steered Relay's operators.
    export_node_renamed_model
        Refused: it would write the plain model to a file.

    Returns
    -------
    module, params
        Sealed bytes, for `relay.build`.

    Raises
    ------
    ModelError
        The bytes are no ONNX model, an operator is not supported, or a shape or an input name does not fit.
    """
    if convert_config:
        raise ModelError("from_onnx: convert_config steers Relay's operators, and this importer has none")
    if export_node_renamed_model is not None:
        raise ModelError("from_onnx: export_node_renamed_model would write the plain model to a file")
    return sealed_import(
        "model/onnx", model, shape, lambda plain, shapes: import_onnx(plain, shapes, dtype, opset)
    )


def import_onnx(
    model: bytes,
    shape: Shapes | None = None,
    dtype: str | Mapping[str, str] = "float32",
    opset: int | None = None,
) -> Imported:
    """Import the bytes of an ONNX model; the arguments and errors are those of `from_onnx`."""
    onnx = require("onnx", "onnx")
    from google.protobuf.message import DecodeError

    from ._onnx.graph import GraphConverter, has_branches
    from ._onnx.wire import split_weights

    try:
        rest, raw = split_weights(memoryview(model))
        proto = onnx.load_from_string(rest)
    except (ValueError, DecodeError):
        raise ModelError("this is not an ONNX model: its bytes do not decode") from None
    graph = proto.graph
    opsets = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in proto.opset_import}
    if not graph.output or not opsets:
        raise ModelError("this is not an ONNX model: it lacks a graph with outputs or an operator set")
    if opset is not None:
        opsets[""] = opset

    weights = _lift_weights(graph, raw)
    inputs = _inputs(graph, weights, shape or {}, dtype if isinstance(dtype, Mapping) else {})
    parameters = {
        name: relax.Var(name, relax.TensorType(array.shape, str(array.dtype)))
        for name, array in weights.items()
    }

    builder = relax.BlockBuilder()
    converter = GraphConverter(builder, proto.functions)
    with builder.function("main", [*inputs.values(), *parameters.values()]):
        # Relax allows no branch inside a dataflow block.
        straight = not has_branches(graph)
        with builder.dataflow() if straight else contextlib.nullcontext():
            try:
                outputs, failure = converter.convert(graph, inputs | parameters, opsets), None
                for output, value in zip(graph.output, outputs, strict=True):
                    if not isinstance(builder.normalize(value).ty, relax.TensorType):
                        raise ModelError(f"ONNX: output '{output.name}' is not a tensor")
            except ModelError as error:
                # A builder that is left in the middle of a function complains on stderr.
                outputs, failure = [relax.const(0)], error
            result = outputs[0] if len(outputs) == 1 else relax.Tuple(outputs)
            if straight:
                result = builder.emit_output(result)
        builder.emit_func_output(result)
    if failure is not None:
        raise failure
    module = bound_indices(builder.get())
    module, weights = _without_unused(module, len(inputs), weights)
    return Imported(module, weights, [output.name for output in graph.output])


def _lift_weights(graph: Any, raw: Mapping[str, memoryview]) -> dict[str, np.ndarray]:
    """Take the weights out of `graph`: its larger initializers, and the larger values of Constant nodes.

    `raw` has the bytes of initializers that came without; what stays in `graph` gets its bytes back.
    """
    from onnx import TensorProto, helper, numpy_helper

    def is_weight(tensor: Any, name: str) -> bool:
        if tensor.data_location == TensorProto.EXTERNAL:
            raise ModelError(
                f"ONNX: weight '{name}' lies in another file: save the model with its weights inside"
            )
        wide_integer = tensor.data_type in (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)
        text = tensor.data_type == TensorProto.STRING
        return not text and not is_constant(math.prod(tensor.dims), wide_integer)

    if graph.sparse_initializer:
        name = graph.sparse_initializer[0].values.name
        raise ModelError(f"ONNX: weight '{name}' is sparse, which is not supported: save it dense")
    weights = {}
    for tensor in graph.initializer:
        view = raw.get(tensor.name)
        lift = is_weight(tensor, tensor.name)
        if lift and view is not None:
            dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
            if len(view) == math.prod(tensor.dims) * dtype.itemsize:
                weights[tensor.name] = np.frombuffer(view, dtype).reshape(tensor.dims)
                continue
        if view is not None:
            tensor.raw_data = bytes(view)
        if lift:
            weights[tensor.name] = numpy_helper.to_array(tensor)
    _keep(graph.initializer, lambda tensor: tensor.name not in weights)

    constants = {}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            tensor, name = node.attribute[0].t, node.output[0]
            if is_weight(tensor, name):
                constants[name] = numpy_helper.to_array(tensor)
    _keep(graph.node, lambda node: not (node.op_type == "Constant" and node.output[0] in constants))
    return weights | constants


def _keep(messages: Any, wanted: Callable[[Any], bool]) -> None:
    """Take what is not `wanted` out of a repeated field."""
    for index in reversed(range(len(messages))):
        if not wanted(messages[index]):
            del messages[index]


def _inputs(
    graph: Any, weights: Mapping[str, Any], given: Shapes, dtypes: Mapping[str, str]
) -> dict[str, relax.Var]:
    """A variable for each input of `graph`, of the given shape and dtype or else its own.

    Symbolic dimensions of one name are one variable. Initializers that are listed as inputs, as old models
    have them, are none.
    """
    from onnx import TensorProto, helper

    known = weights.keys() | {tensor.name for tensor in graph.initializer}
    values = {value.name: value for value in graph.input if value.name not in known}
    for name in (given.keys() | dtypes.keys()) - values.keys():
        raise ModelError(f"the model has no input '{name}': it has {quoted(values)}")
    symbols: dict[str, tirx.Var] = {}
    inputs = {}
    for name, value in values.items():
        # An optional tensor is there, since an artefact's inputs always are.
        optional = value.type.optional_type.elem_type if value.type.HasField("optional_type") else value.type
        tensor = optional.tensor_type
        if not tensor.elem_type:
            raise ModelError(f"ONNX: input '{name}' is not a tensor")
        if tensor.elem_type == TensorProto.STRING:
            raise ModelError(f"ONNX: input '{name}' holds strings, which are not supported")
        if name in given:
            dims = given[name]
        elif tensor.HasField("shape"):
            dims = [
                # Exporters write 0 and -1 for what they do not know.
                d.dim_value if d.dim_value > 0 else d.dim_param or f"{name}_{axis}"
                for axis, d in enumerate(tensor.shape.dim)
            ]
        else:
            raise ModelError(f"the model does not say the rank of its input '{name}': give its shape")
        shape = [
            symbols.setdefault(d, tirx.Var(identifier(d), "int64")) if isinstance(d, str) else d for d in dims
        ]
        dtype = dtypes.get(name) or str(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        inputs[name] = relax.Var(name, relax.TensorType(shape, dtype))
    return inputs


def _without_unused(
    module: IRModule, inputs: int, weights: dict[str, np.ndarray]
) -> tuple[IRModule, dict[str, np.ndarray]]:
    """Drop the weights that no operator takes, since what they went into was computed."""
    main = module["main"]
    used = {variable.name for variable in relax.analysis.free_vars(main.body)}
    weights = {name: array for name, array in weights.items() if name in used}
    params = [p for index, p in enumerate(main.params) if index < inputs or p.name in weights]
    main = relax.Function(params, main.body, main.ret_ty, main.is_pure, main.attrs)
    module["main"] = main.with_attr("num_input", inputs)
    return module, weights
