"""The TFLite flatbuffer as plain, checked Python objects.

The flatbuffers runtime follows whatever offsets a file holds. All of the structure is therefore read here,
once, and every index is checked, so that the rules can trust what they are given and a damaged file ends
in one `ModelError`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ..common import ModelError, require

FILE_IDENTIFIER = b"TFL3"
# A table without fields: its vtable (4 bytes of vtable, 4 of table), then the offset back to it.
_EMPTY_TABLE, _EMPTY_TABLE_POSITION = b"\4\0\4\0\4\0\0\0", 4
# What the flatbuffers runtime raises when an offset or a length leads out of the file.
_DAMAGE = (struct.error, IndexError, KeyError, ValueError, TypeError, OverflowError, AttributeError)
# The schema's types that NumPy and TVM have too, by the schema's names: all are these in lower case.
DTYPES = frozenset("float16 float32 float64 bool int8 int16 int32 int64 uint8 uint16 uint32 uint64".split())
_QUANTISED_DTYPES = ("int4", "int8", "uint8", "int16", "int32", "int64")


@dataclass(frozen=True)
class Quantisation:
    """Affine quantisation, `real = (stored - zero_point) * scale`, per tensor or along one axis.

    `scale` is float32 of shape (1,) or (channels,); a zero point other than one for the whole tensor
    does not exist in TFLite's specification.
    """

    scale: np.ndarray
    zero_point: int
    axis: int = 0

    @property
    def per_channel(self) -> bool:
        return self.scale.size > 1

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Quantisation)
            and self.zero_point == other.zero_point
            and np.array_equal(self.scale, other.scale)
            and (self.axis == other.axis or not self.per_channel)
        )

    __hash__ = None


@dataclass(frozen=True, eq=False)
class Tensor:
    """What the file says of a tensor. `array` is a constant's contents: a view of the file, not a copy."""

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    quantisation: Quantisation | None
    array: np.ndarray | None
    is_variable: bool


@dataclass(frozen=True, eq=False)
class Operator:
    """One operator; -1 among `inputs` stands for an optional one that is absent."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    table: Any = field(repr=False)

    def options(self, kind: str) -> Any:
        """The options table of the schema's type `kind`; one of default values where the file has none."""
        schema = require("tflite", "tflite")
        options = getattr(schema, kind)()
        table = self.table.BuiltinOptions()
        if table is None or self.table.BuiltinOptionsType() == schema.BuiltinOptions.NONE:
            options.Init(_EMPTY_TABLE, _EMPTY_TABLE_POSITION)
        elif self.table.BuiltinOptionsType() != getattr(schema.BuiltinOptions, kind):
            raise ModelError(f"TFLite operator {self.name} carries the options of another operator")
        else:
            options.Init(table.Bytes, table.Pos)
        return options

    @cached_property
    def custom_options(self) -> dict[str, Any]:
        """A custom operator's options: a FlexBuffer map."""
        flexbuffers = require("flatbuffers.flexbuffers", "tflite")
        return flexbuffers.Loads(bytearray(self.table.CustomOptionsAsNumpy()))


@dataclass(frozen=True, eq=False)
class Model:
    """The main subgraph of a TFLite file."""

    root: Any = field(repr=False)
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_model(data: bytes) -> Model:
    """Parse and check a TFLite flatbuffer; `ModelError` where it is none, or is damaged."""
    schema = require("tflite", "tflite")
    if data[4:8] != FILE_IDENTIFIER:
        raise ModelError("not a TFLite model: its file identifier is not TFL3")
    try:
        return _read(schema, data)
    except _DAMAGE:
        raise ModelError("the TFLite model is damaged: a part of it lies outside of the file") from None


def enum_names(enum: type) -> dict[int, str]:
    """Value -> name of an enumeration as the flatbuffers compiler writes it."""
    return {value: name for name, value in vars(enum).items() if isinstance(value, int)}


def _read(schema: Any, data: bytes) -> Model:
    root = schema.Model.GetRootAsModel(data, 0)
    if root.SubgraphsLength() < 1:
        raise ModelError("the TFLite model has no subgraph")
    graph = root.Subgraphs(0)
    dtypes = enum_names(schema.TensorType)
    tensors = tuple(
        _read_tensor(schema, data, root, graph.Tensors(i), i, dtypes) for i in range(graph.TensorsLength())
    )
    names = _operator_names(schema, root)
    operators = tuple(
        _read_operator(graph.Operators(i), names, len(tensors)) for i in range(graph.OperatorsLength())
    )
    inputs = _indices(graph.InputsLength(), graph.Inputs, len(tensors), "the graph's inputs")
    outputs = _indices(graph.OutputsLength(), graph.Outputs, len(tensors), "the graph's outputs")
    for tensor in (tensors[index] for index in (*inputs, *outputs)):
        if tensor.dtype not in DTYPES:
            raise ModelError(f"'{tensor.name}' is of TFLite's type {tensor.dtype}, which is not supported")
    return Model(root, tensors, operators, inputs, outputs)


def _operator_names(schema: Any, root: Any) -> list[str]:
    builtin = enum_names(schema.BuiltinOperator)
    names = []
    for i in range(root.OperatorCodesLength()):
        code = root.OperatorCodes(i)
        # Files of before 2020 hold the number in the 8-bit field alone, later ones in either or both.
        number = max(code.DeprecatedBuiltinCode(), code.BuiltinCode())
        if number == schema.BuiltinOperator.CUSTOM:
            names.append((code.CustomCode() or b"CUSTOM").decode())
        else:
            names.append(builtin.get(number, f"number {number}"))
    return names


def _read_operator(table: Any, names: Sequence[str], tensor_count: int) -> Operator:
    if not 0 <= table.OpcodeIndex() < len(names):
        raise ModelError(f"the TFLite model is damaged: it has no operator code {table.OpcodeIndex()}")
    name = names[table.OpcodeIndex()]
    inputs = _indices(
        table.InputsLength(), table.Inputs, tensor_count, f"the inputs of {name}", optional=True
    )
    outputs = _indices(table.OutputsLength(), table.Outputs, tensor_count, f"the outputs of {name}")
    return Operator(name, inputs, outputs, table)


def _indices(
    length: int, item: Any, tensor_count: int, where: str, optional: bool = False
) -> tuple[int, ...]:
    indices = tuple(item(i) for i in range(length))
    for index in indices:
        if not (-1 if optional else 0) <= index < tensor_count:
            raise ModelError(f"the TFLite model is damaged: {where} name tensor {index} of {tensor_count}")
    return indices


def _read_tensor(
    schema: Any, data: bytes, root: Any, table: Any, index: int, dtypes: dict[int, str]
) -> Tensor:
    name = (table.Name() or b"").decode() or f"tensor_{index}"
    dtype = dtypes.get(table.Type(), f"number {table.Type()}").lower()
    shape = tuple(table.Shape(i) for i in range(table.ShapeLength()))
    if any(extent < 0 for extent in shape):
        raise ModelError(f"the TFLite model is damaged: tensor '{name}' has the shape {shape}")
    if not 0 <= table.Buffer() < max(root.BuffersLength(), 1):
        raise ModelError(f"the TFLite model is damaged: tensor '{name}' names buffer {table.Buffer()}")
    contents = _read_buffer(data, root.Buffers(table.Buffer())) if root.BuffersLength() else None
    # Another type is an error only where an operator has a use for the tensor.
    array = np.zeros(shape, dtype) if 0 in shape and dtype in DTYPES else None
    if contents is not None and dtype in (*DTYPES, "int4"):
        if table.Sparsity() is not None:
            array = _densify(schema, name, contents, dtype, shape, table.Sparsity())
        else:
            array = _as_array(name, contents, dtype, shape)
    quantisation = _read_quantisation(name, table.Quantization(), dtype, shape)
    return Tensor(index, name, shape, dtype, quantisation, array, bool(table.IsVariable()))


def _read_buffer(data: bytes, buffer: Any) -> np.ndarray | None:
    if buffer.Offset() > 1:  # larger than 2 GB together: the contents follow the flatbuffer
        return np.frombuffer(data, np.uint8, count=buffer.Size(), offset=buffer.Offset())
    return buffer.DataAsNumpy() if buffer.DataLength() else None


def _as_array(name: str, contents: np.ndarray, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    count = math.prod(shape)
    if dtype == "int4":  # two to a byte, the lower half first
        halves = np.stack([contents << 4, contents], axis=-1).view(np.int8) >> 4
        contents, dtype = halves.reshape(-1)[:count].view(np.uint8), "int8"
    if contents.size != count * np.dtype(dtype).itemsize:
        raise ModelError(
            f"the TFLite model is damaged: tensor '{name}' of shape {shape} has {contents.size} bytes"
        )
    return contents.view(dtype).reshape(shape)


def _read_quantisation(name: str, table: Any, dtype: str, shape: tuple[int, ...]) -> Quantisation | None:
    if table is None or dtype not in _QUANTISED_DTYPES or table.ScaleLength() == 0:
        return None
    scale = np.array(table.ScaleAsNumpy(), np.float32)
    zero_points = {table.ZeroPoint(i) for i in range(table.ZeroPointLength())} or {0}
    axis = table.QuantizedDimension()
    if not np.any(scale):  # what converters write for integers that are no quantised reals, shapes for one
        return None
    if not np.all(np.isfinite(scale)) or np.any(scale <= 0) or len(zero_points) > 1:
        raise ModelError(f"tensor '{name}' has quantisation parameters that TFLite does not allow")
    if scale.size > 1 and not (0 <= axis < len(shape) and shape[axis] == scale.size):
        raise ModelError(f"tensor '{name}' has {scale.size} scales, which fit none of its axes")
    return Quantisation(scale, zero_points.pop(), axis)


def _densify(
    schema: Any, name: str, contents: np.ndarray, dtype: str, shape: tuple[int, ...], sparsity: Any
) -> np.ndarray:
    """The dense array of a tensor in TFLite's sparse format (the TACO format with a block map).

    Each level of the traversal order is dense (all positions) or compressed (segments of indices). Walking
    the levels yields the coordinates of the stored values, in the order in which they are stored.
    """
    order = [sparsity.TraversalOrder(i) for i in range(sparsity.TraversalOrderLength())]
    block_map = [sparsity.BlockMap(i) for i in range(sparsity.BlockMapLength())]
    rank = len(shape)
    if sorted(order) != list(range(rank + len(block_map))) or sparsity.DimMetadataLength() != len(order):
        raise ModelError(f"the TFLite model is damaged: tensor '{name}' has an impossible sparse format")
    coordinates = np.zeros((1, 0), np.int64)
    parents = np.zeros(1, np.int64)  # each entry's position within its level
    block_sizes = [1] * len(block_map)
    for level, axis in enumerate(order):
        metadata = sparsity.DimMetadata(level)
        if metadata.Format() == schema.DimensionType.DENSE:
            size = metadata.DenseSize()
            if axis >= rank:
                block_sizes[axis - rank] = size
            repeats = np.full(len(parents), size)
            indices = np.tile(np.arange(size), len(parents))
            positions = np.repeat(parents * size, size) + indices
        else:
            segments = _sparse_vector(schema, metadata.ArraySegmentsType(), metadata.ArraySegments())
            stored = _sparse_vector(schema, metadata.ArrayIndicesType(), metadata.ArrayIndices())
            repeats = segments[parents + 1] - segments[parents]
            within = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
            positions = np.repeat(segments[parents], repeats) + within
            indices = stored[positions]
        coordinates = np.column_stack([np.repeat(coordinates, repeats, axis=0), indices])
        parents = positions
    location = np.zeros((rank, len(coordinates)), np.int64)
    for level, axis in enumerate(order):
        if axis < rank:
            inner = [size for block, size in zip(block_map, block_sizes, strict=True) if block == axis]
            location[axis] += coordinates[:, level] * math.prod(inner)
        else:
            location[block_map[axis - rank]] += coordinates[:, level]
    dense = np.zeros(shape, dtype)
    values = _as_array(name, contents, dtype, (contents.size // np.dtype(dtype).itemsize,))
    dense[tuple(location)] = values[parents]
    return dense


def _sparse_vector(schema: Any, kind: int, table: Any) -> np.ndarray:
    vector = getattr(schema, enum_names(schema.SparseIndexVector)[kind])()
    vector.Init(table.Bytes, table.Pos)
    return np.asarray(vector.ValuesAsNumpy(), np.int64)
