"""ONNX models to Relax: `from_onnx` on sealed bytes, `import_onnx` on plain ones."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from ._shared import bound_indices, identifier, is_constant, one_line, quoted
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
    from tvm.relax.frontend import onnx as upstream

    try:
        proto = onnx.load_from_string(model)
    except DecodeError:
        raise ModelError("this is not an ONNX model: its bytes do not decode") from None
    graph = proto.graph
    if not graph.node and not graph.output:
        raise ModelError("this is not an ONNX model: it holds no graph")

    weights = _lift_weights(graph)
    initializers = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in initializers and value.name not in weights]
    symbols: dict[str, Any] = {}
    shapes = _input_shapes(inputs, shape or {}, symbols)
    _restate_inputs(graph, inputs, weights)
    dtypes = dict(dtype) if isinstance(dtype, Mapping) else {}
    for name in dtypes.keys() - shapes.keys():
        raise ModelError(f"the model has no input '{name}' to give a dtype: it has {quoted(shapes)}")

    # Upstream prints the operands of an operator that it cannot convert, weights included.
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            module = upstream.from_onnx(proto, shapes, dtypes, opset, sanitize_input_names=False)
        except Exception as error:
            raise ModelError(f"ONNX: {one_line(error)}") from None
    module["main"] = module["main"].with_attr("num_input", len(inputs))
    module = bound_indices(module)
    return Imported(module, weights, [output.name for output in graph.output])


def _lift_weights(graph: Any) -> dict[str, np.ndarray]:
    """Take the weights out of `graph`'s initializers: what handles the graph from here on copies none."""
    from onnx import TensorProto, numpy_helper

    weights = {}
    kept = []
    while graph.initializer:
        tensor = graph.initializer.pop()
        if tensor.data_location == TensorProto.EXTERNAL:
            raise ModelError(
                f"ONNX: weight '{tensor.name}' lies in another file: save the model with its weights inside"
            )
        elements = int(np.prod(tensor.dims))
        integer = tensor.data_type in (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)
        if is_constant(elements, integer):
            kept.append(tensor)
        else:
            weights[tensor.name] = numpy_helper.to_array(tensor)
    graph.initializer.extend(reversed(kept))
    return dict(reversed(weights.items()))


def _input_shapes(inputs: list[Any], given: Shapes, symbols: dict[str, Any]) -> dict[str, list[Any]]:
    """The shape of each input, symbolic dimensions of one name being one variable."""
    from tvm import tirx

    names = [value.name for value in inputs]
    for name in given.keys() - set(names):
        raise ModelError(f"the model has no input '{name}': it has {quoted(names)}")

    def symbol(name: str) -> Any:
        if name not in symbols:
            symbols[name] = tirx.Var(identifier(name), "int64")
        return symbols[name]

    shapes = {}
    for value in inputs:
        tensor = value.type.tensor_type
        if value.name in given:
            dimensions = list(given[value.name])
        elif tensor.HasField("shape"):
            dimensions = [
                d.dim_value if d.HasField("dim_value") else d.dim_param or f"{value.name}_{axis}"
                for axis, d in enumerate(tensor.shape.dim)
            ]
        else:
            raise ModelError(f"the model does not say the rank of its input '{value.name}': give its shape")
        shapes[value.name] = [symbol(d) if isinstance(d, str) else int(d) for d in dimensions]
    return shapes


def _restate_inputs(graph: Any, inputs: list[Any], weights: dict[str, np.ndarray]) -> None:
    """Make `graph`'s inputs the model's own inputs, then its weights in order."""
    from onnx import helper

    own = [type(value).FromString(value.SerializeToString()) for value in inputs]
    del graph.input[:]
    graph.input.extend(own)
    graph.input.extend(
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in weights.items()
    )
