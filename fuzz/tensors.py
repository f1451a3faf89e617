"""Tensors are read as views within the bytes given, or `AuthenticationError` is raised."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tvm_secret import tensors
from tvm_secret.errors import AuthenticationError


def seeds() -> Iterator[bytes]:
    yield tensors.dump({})
    yield tensors.dump({"a": np.ones((2, 3), "float32"), "b": np.zeros(3, "int8"), "c": np.array(True)})
    yield tensors.dump({"empty": np.zeros((0, 4), "float64"), "x": np.zeros((1, 1), "uint16")})


def check(data: bytes) -> None:
    whole = np.frombuffer(data, np.uint8)
    try:
        loaded = tensors.load(data)
    except AuthenticationError:
        return
    for name, tensor in loaded.items():
        assert isinstance(name, str)
        if tensor.nbytes:
            start = tensor.ctypes.data - whole.ctypes.data
            assert start >= 0
            assert start + tensor.nbytes <= len(data)
