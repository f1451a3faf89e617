"""The weights of a serialised ONNX model as views of its own bytes.

Protobuf copies every field that it parses, and Python copies it again, so a model would be in memory three
times. Here the larger `raw_data` of the graph's initializers stays where it is, and only what is left of
the message goes to the parser. The field numbers are those of onnx.proto, the encoding is that of
https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from collections.abc import Iterator

_GRAPH = 7  # of ModelProto
_INITIALIZER = 5  # of GraphProto
_NAME, _RAW_DATA = 8, 9  # of TensorProto
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SMALL = 1024


def split_weights(model: memoryview) -> tuple[bytes, dict[str, memoryview]]:
    """Take the larger raw data of initializers out of `model`.

    Returns
    -------
    rest, raw
        The message without them, and the bytes of each by its initializer's name.

    Raises
    ------
    ValueError
        The bytes are not a protobuf message.
    """
    raw: dict[str, memoryview] = {}
    pieces: list[bytes | memoryview] = []
    for number, whole, content in _fields(model):
        pieces.append(_message(number, _split_graph(content, raw)) if number == _GRAPH else whole)
    return b"".join(pieces), raw


def _split_graph(graph: memoryview, raw: dict[str, memoryview]) -> bytes:
    pieces: list[bytes | memoryview] = []
    for number, whole, content in _fields(graph):
        if number != _INITIALIZER or len(whole) <= _SMALL:
            pieces.append(whole)
            continue
        name, data, rest = "", None, []
        for field, field_whole, field_content in _fields(content):
            if field == _RAW_DATA:
                data = field_content
            else:
                rest.append(field_whole)
                if field == _NAME:
                    name = str(field_content, "utf-8")
        if data is not None:
            raw[name] = data
        pieces.append(_message(_INITIALIZER, b"".join(rest)))
    return b"".join(pieces)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """The fields of a message: number, the field with its tag, its content."""
    position = 0
    while position < len(message):
        start = position
        tag, position = _varint(message, position)
        kind = tag & 7
        if kind == _VARINT:
            content = position
            _, position = _varint(message, position)
        elif kind == _BYTES:
            length, content = _varint(message, position)
            position = content + length
        elif kind in (_FIXED32, _FIXED64):
            content = position
            position += 4 if kind == _FIXED32 else 8
        else:
            raise ValueError("unknown wire type")
        if position > len(message):
            raise ValueError("truncated message")
        yield tag >> 3, message[start:position], message[content:position]


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position == len(message):
            break
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("truncated or overlong number")


def _message(number: int, content: bytes) -> bytes:
    """A field that holds the message `content`."""
    return _encoded(number << 3 | _BYTES) + _encoded(len(content)) + content


def _encoded(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
