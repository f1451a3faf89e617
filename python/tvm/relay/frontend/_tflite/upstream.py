"""Operators that have no rule here: through upstream's importer, one operator at a time.

Upstream's importer reads the rarer operators (recurrent layers, control flow, StableHLO, tables, FFTs) in
float32. Here it is handed the values it needs in their stored types, and its result is taken back.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .node import Graph, Node, Value

# Upstream's names of custom operators.
_CUSTOM = {"TFLite_Detection_PostProcess": "DETECTION_POSTPROCESS"}
# Those of its operators whose quantised form is theirs to know; any other would compute with stored numbers.
_QUANTISED = ("TFLite_Detection_PostProcess",)


class Upstream:
    """Upstream's converter of one subgraph, bound to the graph that is being built here."""

    def __init__(self, graph: Graph) -> None:
        from tvm.relax.frontend.tflite import tflite_frontend

        self._graph = graph
        self._table = tflite_frontend.ExprTable()
        self._subgraph = graph.model.root.Subgraphs(0)
        self._name = tflite_frontend.get_tensor_name
        self._converter = tflite_frontend.OperatorConverter(
            graph.model.root, self._subgraph, self._table, graph.builder
        )

    def convert(self, node: Node) -> Sequence[Value]:
        """The outputs of `node`; `ModelError` where upstream does not know it either."""
        operator, tensors = node.operator, self._graph.model.tensors
        rule = self._converter.convert_map.get(_CUSTOM.get(operator.name, operator.name))
        if rule is None:
            raise node.refuse("this operator is not supported")
        used = [tensors[i] for i in (*operator.inputs, *operator.outputs) if i >= 0]
        if operator.name not in _QUANTISED and any(t.quantisation and t.dtype != "int32" for t in used):
            raise node.refuse("this operator is not supported on quantised tensors")
        for position, index in enumerate(operator.inputs):
            if index >= 0:
                self._provide(node, position)
        try:
            result = self._graph.builder.normalize(rule(op=operator.table))
        except NotImplementedError:
            raise node.refuse("this operator is not supported with these options") from None
        exprs = [result] if len(operator.outputs) == 1 else [result[i] for i in range(len(operator.outputs))]
        return [
            self._graph.from_stored(self._graph.emit(expr), tensors[index])
            for expr, index in zip(exprs, operator.outputs, strict=True)
        ]

    def _provide(self, node: Node, position: int) -> None:
        """Give upstream an input, if it is not one of the small constants that it reads from the file."""
        value, tensor = node.input(position), node.input_tensor(position)
        if value.array is not None and not np.issubdtype(value.array.dtype, np.floating):
            return
        if list(tensor.shape) != node.shape(value):
            raise node.refuse("this operator supports the shapes that the model was made for only")
        expr = self._graph.stored(value, tensor)
        self._table.set_expr(self._name(self._subgraph, tensor.index), expr, force_override=True)
