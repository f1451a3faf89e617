"""Named tensors as bytes: the safetensors format, laid out so that every tensor can be used where it lies.

Safetensors allows no holes, so the gaps that alignment needs are tensors of their own, named `__padding.N`.
Any reader of safetensors reads these files; `load` here copies nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import numpy as np

from .errors import AuthenticationError

__all__ = ["dump", "load", "pieces"]

ALIGNMENT = 64
"""Bytes; what TVM's generated code assumes of every tensor (kAllocAlignment)."""

_PADDING = "__padding."
_HEADER_LIMIT = 100_000_000
_DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}
_NAMES = {code: name for name, code in _DTYPES.items()}


def pieces(tensors: Mapping[str, np.ndarray]) -> tuple[int, Iterator[memoryview | bytes]]:
    """The serialised size in bytes, and the serialised form piece by piece, each tensor uncopied.

    Raises `ValueError` for a dtype that safetensors does not know.
    """
    index, offset, parts = {}, 0, []
    for name, tensor in tensors.items():
        if tensor.dtype.name not in _DTYPES:
            raise ValueError(f"tensor {name!r} has the unsupported dtype {tensor.dtype.name}")
        if gap := -offset % ALIGNMENT:
            index[f"{_PADDING}{len(index)}"] = _entry("U8", [gap], offset, gap)
            parts.append(bytes(gap))
            offset += gap
        index[name] = _entry(_DTYPES[tensor.dtype.name], list(tensor.shape), offset, tensor.nbytes)
        # A dtype from ml_dtypes has no buffer protocol of its own, hence the bytes.
        parts.append(memoryview(np.ascontiguousarray(tensor).reshape(-1).view(np.uint8)))
        offset += tensor.nbytes
    header = json.dumps(index, separators=(",", ":")).encode()
    header += b" " * (-(8 + len(header)) % ALIGNMENT)
    start = len(header).to_bytes(8, "little") + header
    return len(start) + offset, iter([start, *parts])


def _entry(dtype: str, shape: list[int], offset: int, size: int) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}


def dump(tensors: Mapping[str, np.ndarray]) -> bytes:
    """The serialised form in one piece."""
    return b"".join(pieces(tensors)[1])


def load(data: memoryview | bytes) -> dict[str, np.ndarray]:
    """Views into `data`, in the order they were written. Raises `AuthenticationError` if malformed."""
    try:
        return _load(memoryview(data))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        raise AuthenticationError("the sealed tensors are malformed") from None


def _load(view: memoryview) -> dict[str, np.ndarray]:
    size = int.from_bytes(view[:8], "little")
    if size > min(_HEADER_LIMIT, len(view) - 8):
        raise ValueError
    index = json.loads(bytes(view[8 : 8 + size]))
    body, tensors = view[8 + size :], {}
    for name, entry in index.items():
        if name == "__metadata__" or name.startswith(_PADDING):
            continue
        start, stop = entry["data_offsets"]
        if not 0 <= start <= stop <= len(body):
            raise ValueError
        raw = np.frombuffer(body[start:stop], np.uint8)
        tensors[name] = raw.view(_dtype(entry["dtype"])).reshape(entry["shape"])
    return tensors


def _dtype(code: str) -> np.dtype:
    name = _NAMES[code]
    if name in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name))
    return np.dtype(name)
