"""MXNet params are read as arrays within the bytes given, or `ModelError` is raised."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from tvm.relay.frontend._mxnet.model import read_arrays
from tvm_secret.errors import ModelError


def params(**arrays: np.ndarray) -> bytes:
    """A file of float32 arrays, as MXNet 1.x writes it."""
    parts = [struct.pack("<QQQ", 0x112, 0, len(arrays))]
    for array in arrays.values():
        parts.append(struct.pack(f"<Iii{array.ndim}q", 0xF993FAC9, 0, array.ndim, *array.shape))
        parts.append(struct.pack("<iii", 1, 0, 0) + array.astype("<f4").tobytes())
    parts.append(struct.pack("<Q", len(arrays)))
    parts += [struct.pack("<Q", len(name) + 4) + b"arg:" + name.encode() for name in arrays]
    return b"".join(parts)


def seeds() -> Iterator[bytes]:
    yield params(w=np.ones((2, 1, 3, 3)))
    yield params(w=np.ones((2, 1, 3, 3))).replace(b"\xc9\xfa\x93\xf9", b"\xca\xfa\x93\xf9")
    yield params(a=np.ones(1), b=np.zeros((1, 2)))
    yield params()


def check(data: bytes) -> None:
    try:
        arrays = read_arrays(memoryview(data))
    except ModelError:
        return
    assert sum(array.nbytes for array in arrays.values()) <= len(data)
