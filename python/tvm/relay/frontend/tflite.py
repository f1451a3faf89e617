"""TFLite models: float32, float16 weights, and 8-bit quantised, whole or in the weights alone.

`_tflite/model.py` reads and checks the file, `_tflite/node.py` says how tensors are carried, and a module
for each kind of operator holds the rules, which are found here by the operator's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvm import relax, tirx
from tvm_secret.errors import SecretError

from ._shared import bound_indices, identifier, quoted
from ._tflite.elementwise import ELEMENTWISE
from ._tflite.linear import LINEAR
from ._tflite.model import Model, Operator, Tensor, read_model
from ._tflite.movement import MOVEMENT
from ._tflite.node import Graph, Node, Rule, Value
from ._tflite.shapes import SHAPES, fold
from ._tflite.spatial import SPATIAL
from ._tflite.upstream import Upstream
from .common import Imported, ModelError, Shapes, sealed_import

__all__ = ["from_tflite", "import_tflite"]

RULES: dict[str, Rule] = {**ELEMENTWISE, **LINEAR, **MOVEMENT, **SHAPES, **SPATIAL}


def from_tflite(
    model: Any,
    shape_dict: Any = None,
    dtype_dict: Mapping[str, str] | None = None,
    op_converter: None = None,
) -> tuple[bytes, bytes]:
    """Import a sealed TFLite model.

    Parameters
    ----------
    model : sealed bytes of content type `model/tflite`, or the path of a sealed file
    shape_dict : sealed bytes of content type `input-shapes`, or the path of a sealed file, optional
        Shapes by input name; a string is a dynamic dimension. The default is the model's own shapes.
    dtype_dict : mapping, optional
        Types by input name. A TFLite model fixes the types of its inputs, so these are only checked.
    op_converter : None
        Upstream's parameter for a class of converters; anything but None is refused.

    Returns
    -------
    module, params : sealed bytes
        The Relax module and its weights, for `tvm.relay.build`.

    Raises
    ------
    ModelError
        The file is damaged, an operator is not supported, or a shape or type does not fit the model.
    SecretError
        The sealed bytes cannot be opened; its subclasses say why.
    """
    if op_converter is not None:
        raise ModelError("op_converter is not supported: this importer has converters of its own")
    return sealed_import(
        "model/tflite", model, shape_dict, lambda plain, shapes: import_tflite(plain, shapes, dtype_dict)
    )


def import_tflite(
    model: bytes, shape: Shapes | None = None, dtype: Mapping[str, str] | None = None
) -> Imported:
    """Import the main subgraph of a TFLite flatbuffer.

    Parameters
    ----------
    model : bytes
        The file's contents.
    shape : mapping, optional
        Shapes by input name, in place of the model's own; a string is a dynamic dimension.
    dtype : mapping, optional
        Types by input name, which have to be the model's own.

    Returns
    -------
    Imported
        Inputs and outputs have the names and types that the file gives them. Weights are float32, float16
        or, where the file quantises them, of 8 bits.

    Raises
    ------
    ModelError
        The file is damaged, an operator is not supported, or `shape` or `dtype` does not fit the model.
    """
    parsed = read_model(model)
    inputs = _inputs(parsed, shape or {}, dtype or {})
    builder = relax.BlockBuilder()
    graph = Graph(parsed, builder)
    failure = None
    with builder.function("main"):
        with builder.dataflow():
            try:
                outputs = _convert(graph, inputs)
            except ModelError as error:
                failure, outputs = error, inputs
            result = builder.emit_output(outputs[0] if len(outputs) == 1 else relax.Tuple(outputs))
        builder.emit_func_output(result, [*inputs, *graph.param_vars])
    if failure is not None:
        # Raised outside of the builder, which complains on stderr when it is left half done.
        raise failure
    module = bound_indices(builder.finalize())
    module["main"] = module["main"].with_attr("num_input", len(inputs))
    return Imported(module, graph.params, [parsed.tensors[index].name for index in parsed.outputs])


def _inputs(model: Model, shape: Shapes, dtype: Mapping[str, str]) -> list[relax.Var]:
    """The function's parameters for the model's inputs."""
    tensors = {model.tensors[index].name: model.tensors[index] for index in model.inputs}
    if len(tensors) != len(model.inputs):
        raise ModelError("two inputs of the TFLite model have the same name")
    for name in [*shape, *dtype]:
        if name not in tensors:
            raise ModelError(f"the TFLite model has no input '{name}'; its inputs are {quoted(tensors)}")
    symbols: dict[str, tirx.Var] = {}
    return [_input(tensor, shape.get(name), dtype.get(name), symbols) for name, tensor in tensors.items()]


def _input(
    tensor: Tensor, shape: tuple[int | str, ...] | None, dtype: str | None, symbols: dict[str, tirx.Var]
) -> relax.Var:
    if dtype is not None and dtype != tensor.dtype:
        raise ModelError(f"input '{tensor.name}' is {tensor.dtype} in the TFLite model, not {dtype}")
    if shape is None:
        shape = tensor.shape
    elif len(shape) != len(tensor.shape):
        raise ModelError(f"input '{tensor.name}' has {len(tensor.shape)} dimensions, not {len(shape)}")
    extents = []
    for extent in shape:
        if isinstance(extent, str):
            extent = symbols.setdefault(extent, tirx.Var(identifier(extent), "int64"))
        extents.append(extent)
    return relax.Var(tensor.name, relax.TensorType(extents, tensor.dtype))


def _convert(graph: Graph, inputs: list[relax.Var]) -> list[relax.Expr]:
    """Give every tensor its value, in the file's order; the outputs in their stored types."""
    tensors = graph.model.tensors
    for variable, index in zip(inputs, graph.model.inputs, strict=True):
        graph.set_value(index, graph.from_stored(variable, tensors[index]))
    upstream = Upstream(graph)
    for operator in graph.model.operators:
        for index, value in zip(operator.outputs, _convert_operator(graph, operator, upstream), strict=True):
            graph.set_value(index, value)
    return [graph.stored(graph.value(index), tensors[index]) for index in graph.model.outputs]


def _convert_operator(graph: Graph, operator: Operator, upstream: Upstream) -> list[Value]:
    node = Node(graph, operator)
    try:
        values = fold(node) or RULES.get(operator.name, upstream.convert)(node)
    except SecretError:
        raise
    except Exception:
        # What TVM or NumPy say here may quote whole expressions, and means little to the model's owner.
        raise node.refuse("its inputs' shapes or types, or its options, do not fit it") from None
    return [values] if isinstance(values, Value) else list(values)
