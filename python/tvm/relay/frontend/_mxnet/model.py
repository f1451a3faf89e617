"""The two files that MXNet saves a model as, read from memory without MXNet: the graph and its arrays.

Both come from outside: every length is checked against the bytes that are there before it is used.
"""

from __future__ import annotations

import io
import json
import math
import struct
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..common import ModelError

__all__ = ["DTYPES", "Attributes", "Node", "read_arrays", "read_symbol", "unpack"]

# The largest symbol that is read, in bytes and in JSON values: a parsed value takes about 100 bytes. The
# symbol of ResNet-152 has 200 kB and 15,000 values.
_SYMBOL_BYTES = 4 << 20
_SYMBOL_VALUES = 400_000

_ARRAYS = 100_000
_NAME_BYTES = 256
_DIMENSIONS = 32

_LIST_MAGIC = 0x112
_V1_MAGIC = 0xF993FAC8  # 64-bit dimensions; before it, the first word was the number of dimensions
_V2_MAGIC = 0xF993FAC9  # and a storage type
_V3_MAGIC = 0xF993FACA  # the same, where an array may have no dimension

DTYPES = {
    0: "float32",
    1: "float64",
    2: "float16",
    3: "uint8",
    4: "int32",
    5: "int8",
    6: "int64",
    7: "bool",
    8: "int16",
    9: "uint16",
    10: "uint32",
    11: "uint64",
}
"""MXNet's numbers for dtypes, in its files and in the attribute `__dtype__`."""


def unpack(model: bytes) -> tuple[memoryview, memoryview]:
    """The members `symbol.json` and `params` of an uncompressed tar, as views into `model`.

    Raises `ModelError` where the tar is damaged or a member is missing.
    """
    wanted = {"symbol.json", "params"}
    found = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(model), mode="r:") as archive:
            for member in archive:
                if member.name not in wanted or not member.isreg() or member.issparse():
                    raise ModelError("an MXNet model is a tar of the files 'symbol.json' and 'params' alone")
                end = member.offset_data + member.size
                if end > len(model):
                    raise ModelError(f"the MXNet model is cut short within '{member.name}'")
                found[member.name] = memoryview(model)[member.offset_data : end]
                wanted.remove(member.name)
    # Headers that nest or lie about sizes make tarfile raise other errors than its own.
    except (tarfile.TarError, ValueError, OverflowError, RecursionError):
        raise ModelError("this is not an MXNet model: its tar cannot be read") from None
    if wanted:
        raise ModelError(f"the MXNet model holds no '{min(wanted)}'")
    return found["symbol.json"], found["params"]


class _Reader:
    """Little-endian fields, one after another, out of `data`."""

    def __init__(self, data: memoryview):
        self._data = data
        self._position = 0

    @property
    def remaining(self) -> int:
        return len(self._data) - self._position

    def take(self, size: int) -> memoryview:
        if size > self.remaining:
            raise ModelError("the MXNet params are cut short, or state a wrong length")
        start = self._position
        self._position += size
        return self._data[start : self._position]

    def fields(self, layout: str) -> tuple[int, ...]:
        layout = f"<{layout}"
        return struct.unpack(layout, self.take(struct.calcsize(layout)))


def read_arrays(params: memoryview) -> dict[str, np.ndarray]:
    """The named arrays of an NDArray file, as MXNet up to 1.9 writes it.

    The arrays are read-only views into `params`, aligned or not. Their names lose the prefixes `arg:` and
    `aux:`. Arrays that were saved without a value are left out.
    Raises `ModelError` for another or a damaged file, and for arrays that are sparse, empty or bfloat16.
    """
    if params[:2] == b"PK":
        raise ModelError("the MXNet params are an .npz file: save them with 'mxnet.nd.save' or 'export'")
    reader = _Reader(params)
    magic, _ = reader.fields("QQ")
    if magic != _LIST_MAGIC:
        raise ModelError("the MXNet params are no NDArray file")
    (count,) = reader.fields("Q")
    if count > min(_ARRAYS, reader.remaining // 4):
        raise ModelError("the MXNet params are cut short, or state a wrong length")
    arrays = [_read_array(reader) for _ in range(count)]
    (names,) = reader.fields("Q")
    if names != count:
        raise ModelError("the arrays of the MXNet params have no names: save them as a dict")

    named = {}
    for array in arrays:
        name = _read_name(reader)
        if name in named:
            raise ModelError(f"the MXNet params hold '{name}' twice")
        named[name] = array
    if reader.remaining:
        raise ModelError("the MXNet params go on after their last name")
    return {name: array for name, array in named.items() if array is not None}


def _read_name(reader: _Reader) -> str:
    (size,) = reader.fields("Q")
    if size > _NAME_BYTES:
        raise ModelError(f"a name in the MXNet params has more than {_NAME_BYTES} bytes")
    try:
        name = str(reader.take(size), "utf-8")
    except UnicodeDecodeError:
        raise ModelError("a name in the MXNet params is not text") from None
    return name.removeprefix("arg:").removeprefix("aux:")


def _read_array(reader: _Reader) -> np.ndarray | None:
    (magic,) = reader.fields("I")
    if magic in (_V2_MAGIC, _V3_MAGIC):
        (storage,) = reader.fields("i")
        if storage != 0:
            raise ModelError("the MXNet params hold a sparse array: save it with default storage")
    if magic in (_V1_MAGIC, _V2_MAGIC, _V3_MAGIC):
        (rank,) = reader.fields("i")
        dimension = "q"
    else:
        rank = magic
        dimension = "I"
    if rank == (-1 if magic == _V3_MAGIC else 0):
        return None
    if not 0 <= rank <= _DIMENSIONS:
        raise ModelError("the MXNet params hold an array of an unknown version, or of too many dimensions")
    shape = reader.fields(f"{rank}{dimension}")
    if any(size < 1 for size in shape):
        raise ModelError("the MXNet params hold an empty array")

    _device_type, _device, flag = reader.fields("iii")
    if flag not in DTYPES:
        raise ModelError(f"the MXNet params hold an array of a dtype that is not supported (number {flag})")
    dtype = np.dtype(DTYPES[flag])
    data = reader.take(math.prod(shape) * dtype.itemsize)
    return np.frombuffer(data, dtype.newbyteorder("<")).reshape(shape)


@dataclass(eq=False)
class Node:
    """A node of the graph; each input is another node and the number of its output.

    The `op` of a variable is "null".
    """

    op: str
    name: str
    attributes: Attributes
    inputs: list[tuple[Node, int]] = field(default_factory=list)

    @property
    def is_variable(self) -> bool:
        return self.op == "null"

    def __str__(self) -> str:
        return f"operator '{_short(self.op)}' of node '{_short(self.name)}'"


def _short(name: str) -> str:
    """`name` as an error message shows it: on one line, and not longer than a line."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in name)
    return printable if len(printable) <= 100 else f"{printable[:100]}..."


def read_symbol(symbol: memoryview) -> list[tuple[Node, int]]:
    """The outputs of the graph in `-symbol.json`, as any MXNet up to 1.9 wrote it.

    Raises `ModelError` where this is no such JSON, and where a node refers to one that does not precede it,
    so that the graph has no cycle.
    """
    if len(symbol) > _SYMBOL_BYTES:
        raise ModelError(f"the MXNet symbol has more than {_SYMBOL_BYTES >> 20} MB")
    text = bytes(symbol)
    if sum(text.count(mark) for mark in (b",", b"[", b"{")) > _SYMBOL_VALUES:
        raise ModelError(f"the MXNet symbol has more than {_SYMBOL_VALUES} values")
    try:
        graph = json.loads(text)
    except (ValueError, RecursionError):
        raise ModelError("the MXNet symbol is not JSON") from None
    try:
        version = graph.get("attrs", {}).get("mxnet_version", ["int", 0])[1]
        nodes: list[Node] = []
        for entry in graph["nodes"]:
            node = Node(_text(entry["op"]), _text(entry["name"]), _attributes(entry))
            node.inputs = [_reference(nodes, source) for source in entry["inputs"]]
            _upgrade(node, int(version))
            nodes.append(node)
        outputs = [_reference(nodes, head) for head in graph["heads"]]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise ModelError("the JSON of the MXNet symbol does not describe a graph") from None
    if not outputs:
        raise ModelError("the graph of the MXNet symbol has no output")
    return outputs


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _attributes(entry: Mapping[str, Any]) -> Attributes:
    # "attrs" since 1.2, "attr" since 0.9; before that, "param" held what an operator reads.
    merged = {**entry.get("attr", {}), **entry.get("param", {}), **entry.get("attrs", {})}
    return Attributes({name: _text(value) for name, value in merged.items()})


def _reference(nodes: list[Node], reference: Any) -> tuple[Node, int]:
    position, output = reference[:2]
    if not isinstance(position, int) or not isinstance(output, int) or position < 0 or output < 0:
        raise TypeError
    if position >= len(nodes):
        raise ModelError("a node of the MXNet symbol refers to one that does not precede it")
    return nodes[position], output


def _upgrade(node: Node, version: int) -> None:
    """Bring a node that an old MXNet wrote to the present form, as MXNet itself does on loading."""
    if node.op == "BatchNorm" and len(node.inputs) == 3:
        # Before 0.9 the moving averages were not among the inputs.
        for average in ("moving_mean", "moving_var"):
            node.inputs.append((Node("null", f"{node.name}_{average}", Attributes({})), 0))
    if node.op in ("argmax", "argmin") and version < 905:
        node.attributes.drop("axis", "-1")


_REQUIRED: Any = object()


class Attributes:
    """A node's attributes, which MXNet writes as text, read as the types that the operators declare.

    Each reader returns `default` where the attribute is absent, and None for "None" where that is the default
    or `optional` is set. It raises `ModelError` for all else that cannot be read.
    """

    def __init__(self, values: Mapping[str, str]):
        self._values = dict(values)

    def drop(self, name: str, value: str) -> None:
        """Remove the attribute `name` if its value is `value`."""
        if self._values.get(name) == value:
            del self._values[name]

    def text(self, name: str, default: Any = _REQUIRED) -> Any:
        return self._read(name, default, str)

    def integer(
        self, name: str, default: Any = _REQUIRED, minimum: int | None = None, optional: bool = False
    ) -> Any:
        return self._read(name, default, lambda text: _integer(text, minimum), optional)

    def number(self, name: str, default: Any = _REQUIRED) -> Any:
        return self._read(name, default, float)

    def flag(self, name: str, default: Any = _REQUIRED) -> Any:
        return self._read(name, default, lambda text: _FLAGS[text.lower()])

    def integers(self, name: str, default: Any = _REQUIRED, minimum: int | None = None) -> Any:
        """A tuple of integers; a single integer is a tuple of one."""
        return self._read(name, default, lambda text: tuple(_integer(i, minimum) for i in _elements(text)))

    def indices(self, name: str, default: Any = _REQUIRED) -> Any:
        """A tuple of integers and None, as in a slice."""
        return self._read(
            name,
            default,
            lambda text: tuple(None if item == "None" else _integer(item) for item in _elements(text)),
        )

    def dtype(self, name: str, default: Any = _REQUIRED) -> Any:
        return self._read(name, default, _dtype)

    def _read(self, name: str, default: Any, read: Any, optional: bool = False) -> Any:
        text = self._values.get(name)
        if text is None:
            if default is _REQUIRED:
                raise ModelError(f"attribute '{name}' is missing")
            return default
        if text == "None" and (optional or default is None):
            return None
        try:
            return read(text)
        except (KeyError, ValueError):
            raise ModelError(f"attribute '{name}' cannot be {_short(text)!r}") from None


_FLAGS = {"true": True, "1": True, "false": False, "0": False}


def _integer(text: str, minimum: int | None = None) -> int:
    value = int(text.strip().removesuffix("L"))  # "1L": written from Python 2
    if abs(value) >= 1 << 63 or (minimum is not None and value < minimum):
        raise ValueError
    return value


def _elements(text: str) -> list[str]:
    text = text.strip()
    if text[:1] + text[-1:] in ("()", "[]"):
        text = text[1:-1]
    return [item.strip() for item in text.split(",") if item.strip()]


def _dtype(text: str) -> str:
    if text not in DTYPES.values():
        raise ValueError
    return text
