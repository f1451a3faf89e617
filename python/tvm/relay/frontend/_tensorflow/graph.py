"""TensorFlow's graphs as they lie in a file: nodes, their attributes, and who feeds whom."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from ..common import ModelError


class Node:
    """One operation of a graph, its attributes completed with the defaults of the operator's definition."""

    def __init__(self, proto: Any) -> None:
        self.proto = proto
        self.name: str = proto.name
        self.op: str = proto.op
        self.data_inputs = [name for name in proto.input if not name.startswith("^")]
        self.control_inputs = [name[1:] for name in proto.input if name.startswith("^")]
        self.results: dict[tuple[int, ...], tuple[Any, Any]] = {}
        """What the node gave for inputs already seen, by their identity: see `Converter.compute`."""

    def __repr__(self) -> str:
        return f"operator {self.op} at node '{self.name}'"

    @cached_property
    def definition(self) -> Any:
        """The `OpDef`, or None for an operator that TensorFlow does not know."""
        from tensorflow.python.framework import op_def_registry

        return op_def_registry.get(self.op)

    def __getitem__(self, key: str) -> Any:
        """The attribute `key` as a Python value; a dtype is its name, a list a list."""
        if key in self.proto.attr:
            return _attribute(self.proto.attr[key])
        for attribute in self.definition.attr if self.definition else ():
            if attribute.name == key and attribute.HasField("default_value"):
                return _attribute(attribute.default_value)
        raise ModelError(f"{self} lacks its attribute '{key}'")

    def output_index(self, argument: str, position: int) -> int:
        """The flat index of the output that a function's body calls `node:argument:position`."""
        index = position
        for output in self.definition.output_arg if self.definition else ():
            if output.name == argument:
                return index
            if output.number_attr:
                index += self[output.number_attr]
            elif output.type_list_attr:
                index += len(self[output.type_list_attr])
            else:
                index += 1
        raise ModelError(f"{self} has no output '{argument}'")

    def output_count(self) -> int:
        """How many outputs the node has."""
        if self.definition is None:
            return 1
        count = 0
        for output in self.definition.output_arg:
            if output.number_attr:
                count += self[output.number_attr]
            elif output.type_list_attr:
                count += len(self[output.type_list_attr])
            else:
                count += 1
        return count


def dtype_name(code: int) -> str:
    """The name of a dtype that a file gives by its number."""
    import tensorflow as tf

    try:
        return tf.dtypes.as_dtype(code).name
    except TypeError:
        raise ModelError(f"the graph has a dtype that TensorFlow does not know: {code}") from None


def _attribute(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "s":
        return value.s.decode("utf-8", "replace")
    if kind == "type":
        return dtype_name(value.type)
    if kind != "list":
        return getattr(value, kind) if kind else None
    content = value.list
    if content.s:
        return [item.decode("utf-8", "replace") for item in content.s]
    if content.type:
        return [dtype_name(item) for item in content.type]
    return list(content.i or content.f or content.b or content.shape or content.tensor or content.func)


class Body:
    """Nodes that refer to one another: those of a graph, or of a function."""

    def __init__(
        self,
        nodes: Iterable[Any],
        arguments: Sequence[str] = (),
        results: Sequence[str] = (),
        effects: Sequence[str] = (),
    ) -> None:
        self.nodes = {proto.name: Node(proto) for proto in nodes}
        self.arguments = arguments
        self.results = results
        self.effects = effects
        """Nodes that a call runs for what they do, not for what they give."""

    @classmethod
    def of_function(cls, function: Any) -> Body:
        """The body of a `FunctionDef`."""
        signature = function.signature
        return cls(
            function.node_def,
            [argument.name for argument in signature.input_arg],
            [function.ret[result.name] for result in signature.output_arg],
            list(function.control_ret.values()),
        )

    def node(self, name: str) -> Node:
        if name not in self.nodes:
            raise ModelError(f"the graph has no node '{name}'")
        return self.nodes[name]

    def resolve(self, reference: str) -> tuple[str, int]:
        """The node and the flat output index that `node`, `node:1` or `node:argument:0` names."""
        name, *rest = reference.split(":")
        try:
            if len(rest) == 2:
                return name, self.node(name).output_index(rest[0], int(rest[1]))
            (position,) = rest or ["0"]
            return name, int(position)
        except ValueError:
            raise ModelError(f"'{reference}' names no tensor of the graph") from None


class Frame:
    """A while loop of TensorFlow 1, which its graph spells out with cycles.

    Each loop variable runs Enter -> Merge -> Switch -> body -> NextIteration -> Merge; LoopCond drives the
    Switches, and an Exit takes each result out (Yu et al., "Dynamic Control Flow in Large-Scale Machine
    Learning", EuroSys 2018).
    """

    def __init__(self, body: Body, exit_node: Node) -> None:
        def source(reference: str) -> Node:
            return body.node(body.resolve(reference)[0])

        nodes = body.nodes.values()
        self.condition: str = source(exit_node.data_inputs[0]).data_inputs[1]
        merges = {
            node.name: source(node.data_inputs[0])
            for node in nodes
            if node.op in ("Switch", "RefSwitch") and node.data_inputs[1] == self.condition
        }
        self.exits: dict[str, str] = {
            node.name: merges[source(node.data_inputs[0]).name].name
            for node in nodes
            if node.op in ("Exit", "RefExit") and source(node.data_inputs[0]).name in merges
        }
        """Exit -> the Merge whose value it takes out."""
        self.variables: dict[str, tuple[str, str]] = {}
        """Merge -> its Enter, and the tensor that the next turn begins with."""
        for merge in merges.values():
            enter, following = map(source, merge.data_inputs)
            self.variables[merge.name] = (enter.name, following.data_inputs[0])
            name = enter["frame_name"]
        self.enters: dict[str, str] = {
            node.name: node.data_inputs[0]
            for node in nodes
            if node.op in ("Enter", "RefEnter") and node["frame_name"] == name
        }
        """Enter -> the tensor outside that it takes in."""
