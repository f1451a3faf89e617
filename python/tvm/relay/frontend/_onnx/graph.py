"""An ONNX graph to Relax, node by node.

A node is, in this order: computed here where all its inputs are known, converted by our converter, converted
by upstream's, or replaced by the function that ONNX defines it as. Upstream's own walk over the graph is not
used: it prints operands, weights included, of what it cannot convert, and names no node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from tvm.relax.frontend.onnx import onnx_frontend as upstream

import tvm
from tvm import relax, tirx

from .._shared import one_line
from ..common import ModelError
from . import operators, quantised, recurrent, resizing, spectral  # noqa: F401 (they fill CONVERTERS)
from .registry import CONVERTERS, static_size

# What is computed here ends up as a constant in the code, so it has to be small.
_FOLDED_ELEMENTS = 1024

_DOMAINS_OF_UPSTREAM = ("", "com.microsoft")

# Upstream takes these with a shape as an operand, which for all others is made a tensor first.
_TAKE_SHAPES = frozenset(
    {"Cast", "CastLike", "Concat", "ConstantOfShape", "Equal", "Expand", "Gather", "Reshape", "Resize"}
    | {"Shape", "Slice", "Squeeze", "Where"}
)

# The tuple that these give is one value.
_GIVE_SEQUENCES = frozenset(
    {"Optional", "OptionalGetElement", "SequenceConstruct", "SequenceEmpty", "SequenceErase"}
    | {"SequenceInsert", "SplitToSequence"}
)


class GraphConverter:
    """Converts the nodes of one model into `builder`'s current function."""

    def __init__(self, builder: relax.BlockBuilder, functions: Iterable[onnx.FunctionProto]) -> None:
        self._builder = builder
        self._functions = {(_domain(f.domain), f.name): f for f in functions}
        self._upstream = upstream._get_convert_map()

    def convert(
        self, graph: onnx.GraphProto, values: Mapping[str, Any], opsets: Mapping[str, int]
    ) -> list[relax.Expr]:
        """Convert `graph`, whose inputs and weights are in `values`, and return its outputs."""
        values = dict(values)
        for tensor in graph.initializer:
            values[tensor.name] = constant(tensor)
        self._convert_nodes(graph.node, values, opsets)
        for output in graph.output:
            if output.name not in values:
                raise ModelError(f"ONNX: no node gives the output '{output.name}'")
        return [self._as_tensor(values[output.name]) for output in graph.output]

    def _convert_nodes(
        self, nodes: Iterable[onnx.NodeProto], values: dict[str, Any], opsets: Mapping[str, int]
    ) -> None:
        for node in nodes:
            for name in node.input:
                if name and name not in values:
                    raise ModelError(f"ONNX: {_title(node)} takes '{name}', which nothing gives")
            inputs = [values[name] if name else None for name in node.input]
            try:
                results = self._convert_node(node, inputs, values, opsets)
            except ModelError:
                raise
            except Exception as error:
                raise ModelError(f"ONNX: {_title(node)}: {one_line(error)}") from None
            # An output without a name is one that nobody uses.
            values.update((name, value) for name, value in zip(node.output, results, strict=False) if name)

    def _convert_node(
        self, node: onnx.NodeProto, inputs: list[Any], values: dict[str, Any], opsets: Mapping[str, int]
    ) -> list[Any]:
        domain = _domain(node.domain)
        key = (domain, node.op_type)
        version = opsets.get(domain, 1)
        if key in self._functions:
            return self._expand(self._functions[key], node, inputs, opsets)
        if key == ("", "If"):
            return self._convert_if(node, inputs[0], values, opsets)
        if key == ("", "Scan"):
            return self._convert_scan(node, inputs, values, opsets)
        if (folded := self._fold(node, inputs, opsets)) is not None:
            return folded
        if key in CONVERTERS:
            attributes = _attributes(node, domain, version)
            operands = [None if value is None else self._as_tensor(value) for value in inputs]
            converted = CONVERTERS[key](self._builder, operands, attributes, len(node.output))
            if converted is not None:
                return converted

        known = domain in _DOMAINS_OF_UPSTREAM and node.op_type in self._upstream
        failure = None
        if known and not _beyond_upstream(node, inputs, domain):
            try:
                return self._convert_upstream(node, inputs, values, version)
            except Exception as error:
                failure = error
        function = self._schema_function(node, inputs, domain, version)
        if function is not None:
            return self._expand(function, node, inputs, opsets)
        if failure is not None:
            raise failure
        raise ModelError(f"ONNX: {_title(node)} is not supported")

    def _convert_upstream(
        self, node: onnx.NodeProto, inputs: list[Any], values: dict[str, Any], version: int
    ) -> list[Any]:
        operands = upstream.onnx_input()
        for value in inputs:
            shape = isinstance(value, relax.Expr) and isinstance(value.ty, relax.ShapeType)
            operands.append(self._as_tensor(value) if shape and node.op_type not in _TAKE_SHAPES else value)
        attributes = _attributes(node, _domain(node.domain), version)
        attributes["tvm_custom"] = {"name": node.name, "num_outputs": len(node.output)}
        converter = self._upstream[node.op_type].get_converter(version)
        result = converter(self._builder, operands, attributes, [values, {}])
        if not isinstance(result, relax.Expr):
            return [result]
        result = self._builder.normalize(result)
        if isinstance(result.ty, relax.TupleType) and node.op_type not in _GIVE_SEQUENCES:
            whole = result if isinstance(result, relax.Tuple) else self._builder.emit(result)
            return [
                self._builder.emit(
                    whole[i] if isinstance(whole, relax.Tuple) else relax.TupleGetItem(whole, i)
                )
                for i in range(len(result.ty.fields))
            ]
        # Emitted once, whoever uses it how often.
        return [self._builder.emit(result) if isinstance(result, tvm.ir.Call) else result]

    def _convert_if(
        self, node: onnx.NodeProto, condition: Any, values: dict[str, Any], opsets: Mapping[str, int]
    ) -> list[Any]:
        branches = {attribute.name: attribute.g for attribute in node.attribute}
        known = _known(condition)
        if known is not None:
            return self.convert(branches["then_branch" if known.item() else "else_branch"], values, opsets)
        condition = self._as_tensor(condition)
        if condition.ty.ndim != 0:
            condition = self._builder.emit(relax.op.reshape(condition, ()))
        then, otherwise = (
            relax.SeqExpr([], relax.Tuple(self.convert(branches[name], values, opsets)))
            for name in ("then_branch", "else_branch")
        )
        chosen = self._builder.emit(relax.If(condition, then, otherwise))
        return [self._builder.emit(relax.TupleGetItem(chosen, i)) for i in range(len(node.output))]

    def _convert_scan(
        self, node: onnx.NodeProto, inputs: list[Any], values: dict[str, Any], opsets: Mapping[str, int]
    ) -> list[Any]:
        """Unroll a loop over slices of tensors."""
        if opsets[""] < 9:
            raise ModelError("ONNX: Scan before version 9 is not supported")
        attributes = _attributes(node, "", opsets[""])
        body, count = attributes["body"], attributes["num_scan_inputs"]
        tensors = [self._as_tensor(value) for value in inputs]
        states, scanned = tensors[:-count], tensors[-count:]
        collected = len(body.output) - len(states)
        zeros = (0,) * max(count, collected)
        axes, output_axes = (attributes.get(f"scan_{k}_axes", zeros) for k in ("input", "output"))
        backward, output_backward = (
            attributes.get(f"scan_{k}_directions", zeros) for k in ("input", "output")
        )
        names = [value.name for value in body.input]
        emit = self._builder.emit
        steps = static_size(scanned[0], axes[0])
        rows: list[list[Any]] = [[] for _ in range(collected)]
        for step in range(steps):
            slices = [
                emit(
                    relax.op.take(
                        tensor, relax.const(steps - 1 - step if back else step, "int64"), axis, "wrap"
                    )
                )
                for tensor, axis, back in zip(scanned, axes, backward, strict=False)
            ]
            results = self.convert(body, {**values, **dict(zip(names, states + slices, strict=True))}, opsets)
            states = results[: len(states)]
            for row, result in zip(rows, results[len(states) :], strict=True):
                row.append(result)
        stacks = [
            emit(relax.op.stack(row[::-1] if back else row, axis))
            for row, axis, back in zip(rows, output_axes, output_backward, strict=False)
        ]
        return [*states, *stacks]

    def _fold(
        self, node: onnx.NodeProto, inputs: list[Any], opsets: Mapping[str, int]
    ) -> list[relax.Expr] | None:
        """The outputs of a node whose inputs are known now, if they are small."""
        if _domain(node.domain) or any(attribute.HasField("g") for attribute in node.attribute):
            return None
        if node.op_type == "Shape" and (shape := _static_shape(inputs[0])) is not None:
            attributes = {attribute.name: attribute.i for attribute in node.attribute}
            shape = shape[attributes.get("start", 0) : attributes.get("end", len(shape))]
            return [_constant(np.array(shape, "int64"))]
        if node.op_type == "Size" and (shape := _static_shape(inputs[0])) is not None:
            return [_constant(np.prod(shape, dtype="int64"))]
        arrays = [None if value is None else _known(value) for value in inputs]
        if any(array is None and value is not None for array, value in zip(arrays, inputs, strict=True)):
            return None
        if node.op_type.startswith(("Random", "Bernoulli", "Multinomial")):
            return None
        given = [(name, array) for name, array in zip(node.input, arrays, strict=True) if array is not None]
        graph = helper.make_graph(
            [node],
            "node",
            [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
                for name, array in dict(given).items()
            ],
            [onnx.ValueInfoProto(name=name) for name in node.output if name],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid(d, v) for d, v in opsets.items()])
        try:
            results = ReferenceEvaluator(model).run(None, dict(given))
        except Exception:
            # The reference implementation lacks a few types and operators; the converters may know them.
            return None
        if not all(isinstance(r, np.ndarray | np.generic) and r.size <= _FOLDED_ELEMENTS for r in results):
            return None
        folded = iter(_constant(np.asarray(result)) for result in results)
        return [next(folded) if name else None for name in node.output]

    def _schema_function(
        self, node: onnx.NodeProto, inputs: list[Any], domain: str, version: int
    ) -> onnx.FunctionProto | None:
        """The function that ONNX defines `node`'s operator as, if it does."""
        if not onnx.defs.has(node.op_type, version, domain):
            return None
        schema = onnx.defs.get_schema(node.op_type, version, domain)

        def best(versions: list[int]) -> int:
            return max((v for v in versions if v <= version), default=min(versions))

        if schema.has_function:
            body = schema.get_function_with_opset_version(best(schema.function_opset_versions))
        elif schema.has_context_dependent_function:
            body = schema.get_context_dependent_function_with_opset_version(
                best(schema.context_dependent_function_opset_versions),
                node.SerializeToString(),
                [b"" if value is None else _type_of(self._as_tensor(value)) for value in inputs],
            )
        else:
            return None
        return onnx.FunctionProto.FromString(body)

    def _expand(
        self,
        function: onnx.FunctionProto,
        node: onnx.NodeProto,
        inputs: list[Any],
        opsets: Mapping[str, int],
    ) -> list[Any]:
        """Convert `function`'s body in place of `node`."""
        domain = _domain(node.domain)
        given = {attribute.name: attribute for attribute in function.attribute_proto}
        given |= _attribute_protos(node, domain, opsets.get(domain, 1))
        inner = {**opsets, **{_domain(o.domain): o.version for o in function.opset_import}}
        values: dict[str, Any] = dict.fromkeys(function.input)
        values.update(zip(function.input, inputs, strict=False))
        self._convert_nodes([_instantiated(inside, given) for inside in function.node], values, inner)
        # The body may take an output that the node leaves out from an input that is left out too.
        return [
            values[name] if used else None for name, used in zip(function.output, node.output, strict=False)
        ]

    def _as_tensor(self, value: Any) -> relax.Expr:
        """`value` as a tensor: upstream gives what is known of a shape as a shape or a scalar expression."""
        if isinstance(value, relax.ShapeExpr) or (
            isinstance(value, relax.Expr) and isinstance(value.ty, relax.ShapeType)
        ):
            return self._builder.emit(relax.op.shape_to_tensor(value))
        if tvm.ir.is_prim_expr(value):
            vector = self._builder.emit(relax.op.shape_to_tensor(relax.ShapeExpr([value])))
            return self._builder.emit(relax.op.reshape(vector, ()))
        if not isinstance(value, relax.Expr):
            raise ModelError("ONNX: an empty optional is used as a tensor")
        return value


def has_branches(graph: onnx.GraphProto) -> bool:
    """Whether `graph` holds an If, at any depth."""
    return any(
        node.op_type == "If" or any(has_branches(a.g) for a in node.attribute if a.HasField("g"))
        for node in graph.node
    )


def constant(tensor: onnx.TensorProto) -> relax.Expr:
    """A small tensor as a constant of the code."""
    if tensor.data_type == onnx.TensorProto.STRING:
        raise ModelError(f"ONNX: tensor '{tensor.name}' holds strings, which are not supported")
    return _constant(numpy_helper.to_array(tensor))


def _constant(array: np.ndarray | np.generic) -> relax.Expr:
    # Without its dtype, Relax narrows int64 to int32.
    return relax.const(array, str(array.dtype))


def _known(value: Any) -> np.ndarray | None:
    """The value of a constant or of a shape without symbols."""
    if isinstance(value, tvm.ir.GenericConst):
        return value.value.numpy()
    if isinstance(value, tirx.IntImm):
        return np.array(value.value, "int64")
    if isinstance(value, relax.ShapeExpr):
        sizes = [size.value for size in value.values if isinstance(size, tirx.IntImm)]
        return np.array(sizes, "int64") if len(sizes) == len(value.values) else None
    return None


def _static_shape(value: Any) -> list[int] | None:
    """The shape of the tensor `value`, if it has no symbols."""
    shape = getattr(getattr(value, "ty", None), "shape", None)
    known = None if not isinstance(shape, relax.ShapeExpr) else _known(shape)
    return None if known is None else known.tolist()


def _type_of(value: relax.Expr) -> bytes:
    """The ONNX type of a tensor, serialised."""
    shape = value.ty.shape
    if isinstance(shape, relax.ShapeExpr):
        dims = [size.value if isinstance(size, tirx.IntImm) else str(size) for size in shape.values]
    else:
        dims = [None] * value.ty.ndim if value.ty.ndim >= 0 else None
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(str(value.ty.dtype)))
    return helper.make_tensor_type_proto(dtype, dims).SerializeToString()


def _beyond_upstream(node: onnx.NodeProto, inputs: list[Any], domain: str) -> bool:
    """Whether upstream's converter would convert `node`, but to something else than ONNX means."""
    if domain:
        return False
    if node.op_type == "RMSNormalization":
        # It is right along the last axis only, whose scale has one.
        return inputs[1].ty.ndim != 1
    # It knows Microsoft's Attention, and gives no statistics beside the normalised tensor.
    return node.op_type == "Attention" or (node.op_type == "LayerNormalization" and len(node.output) > 1)


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _title(node: onnx.NodeProto) -> str:
    """How messages call `node`."""
    where = f"node '{node.name}'" if node.name else f"the node that gives '{next(iter(node.output), '')}'"
    return f"operator {node.domain + '.' if _domain(node.domain) else ''}{node.op_type} ({where})"


def _attribute_protos(node: onnx.NodeProto, domain: str, version: int) -> dict[str, AttributeProto]:
    """The attributes of `node`, those left out at the defaults that ONNX gives them."""
    attributes = {}
    if onnx.defs.has(node.op_type, version, domain):
        for name, attribute in onnx.defs.get_schema(node.op_type, version, domain).attributes.items():
            if attribute.default_value.type != AttributeProto.UNDEFINED:
                attributes[name] = attribute.default_value
    return attributes | {attribute.name: attribute for attribute in node.attribute}


def _attributes(node: onnx.NodeProto, domain: str, version: int) -> dict[str, Any]:
    """The attributes of `node` as Python values: numbers, bytes, tuples, protocol messages."""
    values = {
        name: helper.get_attribute_value(attribute)
        for name, attribute in _attribute_protos(node, domain, version).items()
    }
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _instantiated(node: onnx.NodeProto, given: Mapping[str, AttributeProto]) -> onnx.NodeProto:
    """A node of a function's body with the attributes that it takes from the call filled in."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    del copy.attribute[:]
    for attribute in node.attribute:
        if not attribute.ref_attr_name:
            copy.attribute.append(attribute)
        elif attribute.ref_attr_name in given:
            value = copy.attribute.add()
            value.CopyFrom(given[attribute.ref_attr_name])
            value.name = attribute.name
    return copy
