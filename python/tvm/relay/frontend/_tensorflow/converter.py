"""A TensorFlow graph, run at import time.

The converter walks the graph as TensorFlow would run it. What depends on constants alone (weights made
ready, shapes, the counters of loops) is computed on the spot by TensorFlow's own kernels, what depends on
symbolic sizes becomes an expression of those sizes, and the rest becomes Relax, one rule an operator. So
loops and branches whose course does not depend on the data vanish, as do the graph's shape computations.

Weights are arrays until a rule needs them as an expression: then each becomes an argument of the function.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvm import relax

from .._shared import is_constant, quoted
from ..common import Imported, ModelError, Shapes
from .graph import Body, Frame, Node
from .registry import RULES, SYMBOLIC_RULES
from .values import DEAD, Dimension, Symbolic, Unfit, Value, Variable, integers, open_size, simplified

# A loop unrolls; past this many turns the code would be too large to compile.
_MAX_TURNS = 4096
# A constant that grew past its inputs to more bytes than this is computed at run time instead of stored.
_MAX_GROWTH = 1 << 20


@dataclass(frozen=True)
class Input:
    """An input of the model: its name, the tensor of the graph that takes it, its dtype and declared shape.

    A dimension that the model leaves open is None; so is a shape of unknown rank.
    """

    name: str
    tensor: str
    dtype: str
    shape: Sequence[int | None] | None


def convert(
    graph: Any,
    inputs: Sequence[Input],
    outputs: Sequence[tuple[str, str]],
    shapes: Shapes,
    values: Mapping[str, Value],
) -> Imported:
    """Convert the GraphDef `graph`, from `inputs` to `outputs` (each a name and a tensor).

    `shapes` overrides the shapes of inputs, under the inputs' names; `values` gives what nodes of the graph
    hold beside the inputs: its captured variables.
    """
    symbols: dict[str, relax.Expr] = {}
    arguments = [_argument(entry, shapes.get(entry.name), symbols) for entry in inputs]
    builder = relax.BlockBuilder()
    converter = Converter(graph, builder, arguments)
    known: dict[str, list[Value]] = {name: [value] for name, value in values.items()}
    for entry, variable in zip(inputs, arguments, strict=True):
        known[converter.graph.resolve(entry.tensor)[0]] = [variable]

    failure = None
    with builder.function("main", attrs={"num_input": len(inputs)}):
        with builder.dataflow():
            # A builder left with open blocks complains on stderr, so an error waits until it is closed.
            try:
                results = converter.run(converter.graph, known, [tensor for _, tensor in outputs])
                result = [converter.tensor(value) for value in results]
            except Unfit:
                failure, result = ModelError("an output of the model is not a tensor"), []
            except ModelError as error:
                failure, result = error, []
            except (AttributeError, LookupError, RuntimeError, TypeError, ValueError):
                failure, result = ModelError("the graph is damaged: its nodes do not fit together"), []
            result = builder.emit_output(result[0] if len(result) == 1 else relax.Tuple(result))
        builder.emit_func_output(result, params=[*arguments, *converter.arguments])
    if failure:
        raise failure
    return Imported(builder.get(), converter.params, [name for name, _ in outputs])


def restore(
    graph: Any, operation: str, filename: str, read: Callable[[str], Callable[[], np.ndarray]]
) -> dict[str, Variable]:
    """The variables that `operation` of the GraphDef `graph` restores, by the names of their nodes.

    `filename` is the node that would name the checkpoint, `read(key)` a function that reads a tensor from it.
    """
    converter = Converter(graph)
    converter.restored = read
    converter.evaluate(converter.graph, {filename: [np.asarray(b"")]}, [operation])
    return converter.variables


def _argument(entry: Input, given: Sequence[int | str] | None, symbols: dict[str, relax.Expr]) -> relax.Var:
    """The function's argument for an input: open dimensions become symbols, the first one `batch`."""
    declared = entry.shape
    if given is None and declared is None:
        raise ModelError(f"the model does not say the rank of its input '{entry.name}': give its shape")
    if given is not None and declared is not None and len(given) != len(declared):
        raise ModelError(
            f"input '{entry.name}' has {len(declared)} dimensions, and the shape given for it {len(given)}"
        )
    shape = []
    for axis, dimension in enumerate(given if given is not None else declared):
        if dimension is None or (isinstance(dimension, int) and dimension < 0):
            dimension = "batch" if axis == 0 else f"{entry.name}_{axis}"
        if isinstance(dimension, str):
            dimension = symbols.setdefault(dimension, open_size(dimension))
        shape.append(dimension)
    return relax.Var(entry.name, relax.TensorType(shape, entry.dtype))


class Converter:
    """Runs one graph: see the top of this file.

    `builder` may be None to run a graph for its effects alone (restoring variables).
    """

    def __init__(
        self, graph: Any, builder: relax.BlockBuilder | None = None, inputs: Sequence[relax.Var] = ()
    ) -> None:
        self.graph = Body(graph.node)
        self.params: dict[str, np.ndarray] = {}
        self.arguments: list[relax.Var] = []
        self.variables: dict[str, Variable] = {}
        self.restored: Callable[[str], Callable[[], np.ndarray]] | None = None
        """How the checkpoint reads a tensor, while a graph runs to restore its variables."""
        self._builder = builder
        self._inputs = {variable.name for variable in inputs}
        self._owners = {str(size): variable.name for variable in inputs for size in variable.ty.shape}
        self._functions = {function.signature.name: function for function in graph.library.function}
        self._bodies: dict[str, Body] = {}
        self._expressions: dict[int, tuple[np.ndarray, relax.Expr]] = {}
        self._names: dict[int, str] = {}
        self._derived: dict[tuple[Any, ...], tuple[np.ndarray, np.ndarray]] = {}

    # Running

    def run(self, body: Body, values: dict[str, list[Value]], references: Sequence[str]) -> list[Value]:
        """The values of the tensors `references`, given what `values` already holds of `body`'s nodes."""
        wanted = [body.resolve(reference) for reference in references]
        self.evaluate(body, values, [name for name, _ in wanted])
        return [_output(values, body, tensor) for tensor in wanted]

    def evaluate(self, body: Body, values: dict[str, list[Value]], names: Sequence[str]) -> None:
        """Add to `values` the outputs of the nodes `names` and of all that they need.

        Raises
        ------
        ModelError
            Naming the operator and node that cannot be converted.
        """
        stack = list(names)
        entered = set()
        while stack:
            name = stack[-1]
            if name in values:
                stack.pop()
                continue
            node = body.node(name)
            frame = Frame(body, node) if node.op in ("Exit", "RefExit") else None
            needed = list(frame.enters.values()) if frame else node.data_inputs
            sources = [body.resolve(reference) for reference in needed]
            waits_for = [source for source, _ in sources]
            if self.restored:
                waits_for += node.control_inputs
            missing = [source for source in waits_for if source not in values]
            if missing:
                if name in entered:
                    raise ModelError(f"{node} depends on itself")
                entered.add(name)
                stack.extend(missing)
                continue
            inputs = [_output(values, body, source) for source in sources]
            if frame:
                self._run_frame(body, values, frame, dict(zip(frame.enters, inputs, strict=True)))
            else:
                values[name] = self.compute(node, inputs)

    def call(self, function: str, arguments: Sequence[Value]) -> list[Value]:
        """The results of a function of the graph's library."""
        body = self._bodies.get(function)
        if body is None:
            if function not in self._functions:
                raise ModelError(f"the graph's library has no function '{function}'")
            body = self._bodies[function] = Body.of_function(self._functions[function])
        values: dict[str, list[Value]] = {
            name: [argument] for name, argument in zip(body.arguments, arguments, strict=True)
        }
        if self.restored:
            self.evaluate(body, values, body.effects)
        return self.run(body, values, body.results)

    def loop(
        self,
        what: object,
        holds: Callable[[list[Value]], Value],
        turn: Callable[[list[Value]], list[Value]],
        state: list[Value],
    ) -> list[Value]:
        """Run a loop, turn by turn, as long as its condition holds."""
        for _ in range(_MAX_TURNS):
            condition = holds(state)
            if not isinstance(condition, np.ndarray):
                raise ModelError(f"{what}: how often the loop turns depends on the data or on an open size")
            if not condition:
                return state
            state = turn(state)
        raise ModelError(f"{what}: the loop turns more than {_MAX_TURNS} times")

    def _run_frame(
        self, body: Body, values: dict[str, list[Value]], frame: Frame, entered: Mapping[str, Value]
    ) -> None:
        merges = list(frame.variables)

        def scope(state: list[Value]) -> dict[str, list[Value]]:
            # Past the condition a Switch hands on its second output, so both may hold the variable.
            inside: dict[str, list[Value]] = {name: [value] for name, value in entered.items()}
            inside.update((name, [value, DEAD]) for name, value in zip(merges, state, strict=True))
            return inside

        def turn(state: list[Value]) -> list[Value]:
            return self.run(body, scope(state), [following for _, following in frame.variables.values()])

        initial = [entered[enter] for enter, _ in frame.variables.values()]
        final = self.loop(
            f"the loop '{next(iter(frame.exits))}'",
            lambda state: self.run(body, scope(state), [frame.condition])[0],
            turn,
            initial,
        )
        for name, merge in frame.exits.items():
            values[name] = [final[merges.index(merge)]]

    def compute(self, node: Node, inputs: list[Value]) -> list[Value]:
        """What `node` gives for `inputs`: computed where they are known, else converted by its rule."""
        key = tuple(map(id, inputs))
        if key in node.results:
            return node.results[key][1]
        outputs = self._compute(node, inputs)
        if all(isinstance(value, np.ndarray) for value in (*inputs, *outputs)):
            # A body runs once a turn: its weights have to be the same arrays in each.
            node.results[key] = inputs, outputs
            for value in outputs:
                self.name(value, node.name)
        return outputs

    def _compute(self, node: Node, inputs: list[Value]) -> list[Value]:
        if any(value is DEAD for value in inputs) and node.op not in ("Merge", "RefMerge"):
            return [DEAD] * node.output_count()
        rule = RULES.get(node.op)
        try:
            if rule is None:
                if node.op in self._functions:
                    return self.call(node.op, inputs)
                raise ModelError(f"{node} is not supported")
            if not rule.structural:
                inputs = [self.weights(value) if isinstance(value, Variable) else value for value in inputs]
                known = self._computed(node, inputs)
                if known is not None:
                    return known
            result = rule.convert(self, node, *inputs)
        except ModelError:
            raise
        except Unfit as error:
            raise ModelError(f"{node} is not supported here: {error}") from None
        except Exception:
            # What TVM and TensorFlow say can quote the graph or its weights; the operands tell enough.
            raise ModelError(f"{node} cannot be converted for {_described(inputs)}") from None
        return list(result) if isinstance(result, (list, tuple)) else [result]

    def _computed(self, node: Node, inputs: list[Value]) -> list[Value] | None:
        """The outputs where all inputs are known, or None."""
        if all(isinstance(value, np.ndarray) for value in inputs):
            outputs = _execute(node, inputs)
            grown = sum(value.nbytes for value in outputs)
            small = max(_MAX_GROWTH, 2 * sum(value.nbytes for value in inputs))
            return outputs if grown <= small else None
        if all(isinstance(value, (np.ndarray, Symbolic)) for value in inputs) and node.op in SYMBOLIC_RULES:
            arrays = [value.array if isinstance(value, Symbolic) else value for value in inputs]
            results = SYMBOLIC_RULES[node.op](node, *arrays)
            dtype = next(value.dtype for value in inputs if isinstance(value, Symbolic))
            return None if results is None else [integers(result, dtype) for result in results]
        return None

    # What rules build with

    def emit(self, expression: relax.Expr) -> relax.Var:
        """Bind `expression` to a variable, whose shape is known from then on."""
        return self._builder.emit(expression)

    def tensor(self, value: Value) -> relax.Expr:
        """`value` as an expression: a weight becomes an argument of the function, a small one a constant.

        Raises
        ------
        Unfit
            It is no tensor.
        """
        if isinstance(value, Variable):
            value = self.weights(value)
        if isinstance(value, relax.Expr):
            return value
        if isinstance(value, Symbolic):
            shape = relax.op.shape_to_tensor(relax.ShapeExpr(list(value.array.reshape(-1))))
            return self.emit(relax.op.astype(relax.op.reshape(shape, value.array.shape), value.dtype))
        if not isinstance(value, np.ndarray) or value.dtype.kind in "OSU":
            raise Unfit("it takes no text, resource or list of tensors")
        if id(value) not in self._expressions:
            self._expressions[id(value)] = value, self._constant(value)
        return self._expressions[id(value)][1]

    def _constant(self, array: np.ndarray) -> relax.Expr:
        dtype = str(array.dtype)
        if is_constant(array.size, dtype in ("bool", "int32", "int64")):
            return relax.const(array, dtype)
        base = name = self._names.get(id(array), "weight")
        while name in self.params or name in self._inputs:
            name = f"{base}_{len(self.params)}"
        # TVM wants aligned memory, and what a file held may start anywhere.
        self.params[name] = np.require(array, requirements=["C", "A"])
        variable = relax.Var(name, relax.TensorType(array.shape, dtype))
        self.arguments.append(variable)
        return variable

    def weights(self, variable: Variable) -> np.ndarray:
        """What `variable` holds, under its name."""
        array = variable.value()
        self.name(array, variable.name)
        return array

    def name(self, array: np.ndarray, name: str) -> None:
        """Call `array` by `name` if it becomes an argument, unless it has a name already."""
        self._names.setdefault(id(array), name)

    def derived(
        self, value: Value, how: tuple[Any, ...], change: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        """A known array as an operator wants it (`how` names the change), made once for all its uses."""
        key = (id(value), *how)
        if key not in self._derived:
            self._derived[key] = value, change(value)
            self.name(self._derived[key][1], self._names.get(id(value), "weight"))
        return self._derived[key][1]

    def transpose(self, value: Value, axes: Sequence[int]) -> Value:
        """`value` with its axes permuted; a weight is permuted now, not each time the model runs."""
        axes = tuple(int(axis) for axis in axes)
        if axes == tuple(range(len(axes))):
            return value
        if isinstance(value, np.ndarray):
            return self.derived(value, ("transpose", axes), lambda array: array.transpose(axes))
        return self.emit(relax.op.permute_dims(self.tensor(value), list(axes)))

    def reshape(self, value: Value, shape: Sequence[Dimension]) -> Value:
        """`value` in another shape."""
        shape = tuple(simplified(dimension) for dimension in shape)
        if isinstance(value, np.ndarray) and all(isinstance(dimension, int) for dimension in shape):
            return self.derived(value, ("reshape", shape), lambda array: array.reshape(shape))
        return self.emit(relax.op.reshape(self.tensor(value), shape))

    def shape(self, value: Value) -> tuple[Dimension, ...]:
        """The shape of a tensor.

        Raises
        ------
        Unfit
            It depends on the data.
        """
        if isinstance(value, (np.ndarray, Symbolic)):
            array = value.array if isinstance(value, Symbolic) else value
            return array.shape
        if isinstance(value, Variable):
            return value.value().shape
        shape = value.ty.shape
        if shape is None or not isinstance(shape, relax.ShapeExpr):
            raise Unfit("it takes no tensor whose shape depends on the data")
        return tuple(simplified(dimension) for dimension in shape.values)

    def dtype(self, value: Value) -> str:
        """The dtype's name."""
        if isinstance(value, (np.ndarray, Symbolic)):
            return str(value.dtype)
        return str(value.ty.dtype)

    def fixed(self, node: Node, dimensions: Sequence[Dimension]) -> list[int]:
        """`dimensions` where they have to be numbers.

        Raises
        ------
        ModelError
            Naming the input that leaves one open.
        """
        for dimension in dimensions:
            if not isinstance(dimension, int):
                open_sizes = re.findall(r"\w+", str(dimension))
                inputs = sorted({self._owners[size] for size in open_sizes if size in self._owners})
                raise ModelError(
                    f"{node} needs the size {dimension}, left open by input {quoted(inputs)}: give its shape"
                )
        return list(dimensions)

    def known(self, node: Node, value: Value, what: str) -> np.ndarray:
        """`value` where it has to be known at import: axes, paddings."""
        if isinstance(value, np.ndarray):
            return value
        if isinstance(value, Symbolic):
            self.fixed(node, list(value.array.reshape(-1)))
        raise ModelError(f"{node}: its {what} depends on the data, which is not supported")

    def dimensions(self, node: Node, value: Value) -> list[Dimension]:
        """`value`, a tensor that holds a shape, as its dimensions."""
        if isinstance(value, Symbolic):
            return list(value.array.reshape(-1))
        if isinstance(value, np.ndarray):
            return [int(dimension) for dimension in value.reshape(-1)]
        raise ModelError(f"{node}: its shape depends on the data, which is not supported")


def _output(values: Mapping[str, list[Value]], body: Body, tensor: tuple[str, int]) -> Value:
    name, index = tensor
    if not 0 <= index < len(values[name]):
        raise ModelError(f"{body.node(name)} has no output {index}")
    return values[name][index]


def _described(inputs: Sequence[Value]) -> str:
    """The operands' dtypes and shapes, for a message."""

    def one(value: Value) -> str:
        if isinstance(value, (np.ndarray, Symbolic)):
            shape = value.array.shape if isinstance(value, Symbolic) else value.shape
            return f"{value.dtype}{list(shape)}"
        if isinstance(value, relax.Expr) and isinstance(value.ty, relax.TensorType):
            return f"{value.ty.dtype}{value.ty.shape if value.ty.shape is not None else ''}"
        return type(value).__name__

    return ", ".join(map(one, inputs)) or "no inputs"


def _execute(node: Node, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Run `node` in TensorFlow, on the CPU."""
    import tensorflow as tf

    # tf.raw_ops renames arguments of some operators; this takes them as the graph has them.
    from tensorflow.python.eager import context, execute

    attributes: list[Any] = []
    for attribute in node.definition.attr:
        value = node[attribute.name]
        if attribute.type == "type":
            value = tf.dtypes.as_dtype(value)
        elif attribute.type == "list(type)":
            value = [tf.dtypes.as_dtype(item) for item in value]
        attributes += [attribute.name, value]
    with tf.device("CPU:0"):
        results = execute.execute(
            node.op,
            node.output_count(),
            [tf.convert_to_tensor(value) for value in inputs],
            tuple(attributes),
            context.context(),
        )
    return [np.asarray(result.numpy()) for result in results]
