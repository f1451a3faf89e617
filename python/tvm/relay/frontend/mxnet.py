"""MXNet models to Relax, without MXNet: `from_mxnet` on sealed bytes, `import_mxnet` on plain ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvm import relax, tirx

from ._mxnet.context import CONVERTERS, Context, dtype_of, is_float, shape_of
from ._mxnet.model import DTYPES, Node, read_arrays, read_symbol, unpack
from ._shared import identifier, quoted
from .common import Imported, ModelError, Shapes, sealed_import

__all__ = ["from_mxnet", "import_mxnet"]

# Memory for what is made of a small model's parameters.
_SPARE = 64 << 20

# Their inputs after the first are labels, which matter to training only.
_LOSSES = frozenset(
    {
        "LinearRegressionOutput",
        "LogisticRegressionOutput",
        "MAERegressionOutput",
        "SVMOutput",
        "Softmax",
        "SoftmaxOutput",
    }
)

# They take inputs of several dtypes; the inputs of all others have the dtype of the data.
_MIXED = frozenset(
    {
        "BatchNorm",
        "BatchNorm_v1",
        "Embedding",
        "_contrib_SparseEmbedding",
        "_contrib_SyncBatchNorm",
        "batch_take",
        "choose_element_0index",
        "gather_nd",
        "pick",
        "take",
        "where",
    }
)


def from_mxnet(
    symbol: Any,
    shape: Any = None,
    dtype: str | Mapping[str, str] = "float32",
    arg_params: None = None,
    aux_params: None = None,
) -> tuple[bytes, bytes]:
    """Turn a sealed MXNet model into a sealed Relax module and its sealed weights.

    Parameters
    ----------
    symbol
        The sealed model (content type `model/mxnet`): bytes, or the path of a sealed file. It holds both of
        the files that MXNet saves, as `tvmc encrypt` puts them together.
    shape
        Sealed input shapes (content type `input-shapes`), `{input: [dimension, ...]}`; a dimension given as
        a string is symbolic. An input may be left out where the model itself says its shape.
    dtype
        The dtype of all inputs, or `{input: dtype}`. Parameters saved in another floating-point type are
        converted to that of the data that they meet.
    arg_params, aux_params
        Refused unless None: the sealed model holds its parameters.

    Returns
    -------
    module, params
        Sealed bytes, for `relay.build`.

    Raises
    ------
    ModelError
        The bytes are no MXNet model, an operator is not supported, or a shape is missing or does not fit.
    """
    if arg_params is not None or aux_params is not None:
        raise ModelError(
            "from_mxnet: the parameters belong into the sealed model: give 'tvmc encrypt' both files"
        )
    return sealed_import(
        "model/mxnet", symbol, shape, lambda plain, shapes: import_mxnet(plain, shapes, dtype)
    )


def import_mxnet(
    model: bytes,
    shape: Shapes | None = None,
    dtype: str | Mapping[str, str] = "float32",
) -> Imported:
    """Import an uncompressed tar of the members `symbol.json` and `params`, as `from_mxnet` does.

    The variables of the graph that have no parameter are its inputs. Labels are left out.
    """
    symbol, params = unpack(model)
    outputs = read_symbol(symbol)
    arrays = read_arrays(params)
    nodes = _in_order(outputs)
    variables = [node for node in nodes if node.is_variable and node.name not in arrays]
    labels = {source.name for node in nodes if node.op in _LOSSES for source, _ in node.inputs[1:]}
    _refuse_unknown(shape, variables, labels)
    _refuse_unknown(dtype, variables, labels)
    inputs = _inputs(variables, shape or {}, dtype)

    context = Context(budget=2 * sum(array.nbytes for array in arrays.values()) + _SPARE)
    values: dict[Node, dict[str, relax.Expr]] = {}
    for node in nodes:
        if not node.is_variable:
            values[node] = _convert(context, node, values)
        elif node.name in arrays:
            values[node] = {"": context.parameter(node.name, arrays[node.name])}
        else:
            values[node] = {"": inputs[node.name]}
    names, results = zip(*(_output(values, node, index) for node, index in outputs), strict=True)
    module, used = context.finish(list(inputs.values()), list(results))
    return Imported(module, used, list(names))


def _sources(node: Node) -> list[tuple[Node, int]]:
    return node.inputs[:1] if node.op in _LOSSES else node.inputs


def _in_order(outputs: list[tuple[Node, int]]) -> list[Node]:
    """The nodes that the outputs need, each after its inputs, in MXNet's own order."""
    ordered: dict[Node, None] = {}
    stack = [node for node, _ in reversed(outputs)]
    opened: set[Node] = set()
    while stack:
        node = stack[-1]
        if node in opened:
            stack.pop()
            ordered.setdefault(node)
        else:
            opened.add(node)
            stack.extend(source for source, _ in reversed(_sources(node)) if source not in opened)
    return list(ordered)


def _inputs(variables: list[Node], shape: Shapes, dtype: str | Mapping[str, str]) -> dict[str, relax.Var]:
    symbols: dict[str, tirx.Var] = {}
    inputs: dict[str, relax.Var] = {}
    for node in variables:
        if node.name in inputs:
            raise ModelError(f"two inputs of the model are called '{node.name}'")
        sizes = [
            symbols.setdefault(size, tirx.Var(identifier(size), "int64")) if isinstance(size, str) else size
            for size in _input_shape(node, shape)
        ]
        inputs[node.name] = relax.Var(node.name, relax.TensorType(sizes, _input_dtype(node, dtype)))
    return inputs


def _input_shape(node: Node, given: Shapes) -> tuple[int | str, ...]:
    shape = given.get(node.name)
    if shape is None:
        shape = node.attributes.integers("__shape__", None)
        # 0 and -1 stand for sizes that the model leaves open.
        if not shape or min(shape) < 1:
            raise ModelError(f"the model does not say the shape of its input '{node.name}': give it")
    for size in shape:
        if not isinstance(size, str) and not (isinstance(size, int) and size >= 1):
            raise ModelError(f"the shape of input '{node.name}' cannot hold {size!r}")
    return tuple(shape)


def _input_dtype(node: Node, given: str | Mapping[str, str]) -> str:
    if isinstance(given, Mapping) and node.name in given:
        dtype = given[node.name]
    else:
        declared = DTYPES.get(node.attributes.integer("__dtype__", None))
        dtype = declared or (given if isinstance(given, str) else "float32")
    if dtype not in DTYPES.values():
        raise ModelError(f"the dtype of input '{node.name}' cannot be '{dtype}'")
    return dtype


def _refuse_unknown(given: Any, variables: list[Node], labels: set[str]) -> None:
    names = [node.name for node in variables]
    for name in given if isinstance(given, Mapping) else ():
        if name not in names and name not in labels:
            raise ModelError(f"the model has no input '{name}': it has {quoted(names)}")


def _convert(
    context: Context, node: Node, values: Mapping[Node, dict[str, relax.Expr]]
) -> dict[str, relax.Expr]:
    """The outputs of `node`, an operator, by MXNet's names for them."""
    converter = CONVERTERS.get(node.op)
    if converter is None:
        raise ModelError(f"{node} is not supported")
    inputs = [_output(values, source, index)[1] for source, index in _sources(node)]
    context.node = node.name
    try:
        if node.op not in _MIXED:
            inputs = _in_one_dtype(context, inputs)
        result = converter(context, node.attributes, *inputs)
        outputs = result if isinstance(result, dict) else {"output": result}
        return {name: context.emit(output) for name, output in outputs.items()}
    except ModelError as error:
        raise ModelError(f"{node}: {error}") from None
    # What TVM finds wrong with types and attributes comes as errors of many classes.
    except Exception:
        types = ", ".join(f"{dtype_of(item)}{shape_of(item)}" for item in inputs)
        raise ModelError(f"{node} cannot take inputs of the types {types or 'none'}") from None


def _in_one_dtype(context: Context, inputs: list[relax.Expr]) -> list[relax.Expr]:
    """`inputs` with the floating-point parameters in the dtype of the data, as MXNet loads them."""
    data = [item for item in inputs if is_float(item) and context.array(item) is None]
    if not data:
        return inputs
    dtype = dtype_of(data[0])
    return [
        context.astype(item, dtype) if is_float(item) and context.array(item) is not None else item
        for item in inputs
    ]


def _output(values: Mapping[Node, dict[str, relax.Expr]], node: Node, index: int) -> tuple[str, relax.Expr]:
    """An output of a node, and the name that MXNet gives to it as an output of the model."""
    outputs = list(values[node].items())
    if index >= len(outputs):
        raise ModelError(f"output {index} of {node} is not supported")
    name, output = outputs[index]
    return (node.name if node.is_variable else f"{node.name}_{name}"), output
