"""An .npz of inputs is read to arrays of plain numbers, or `ModelError` is raised."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np

from tvm_secret import npz
from tvm_secret.errors import ModelError


def seeds() -> Iterator[bytes]:
    for save in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        save(file, a=np.arange(6.0).reshape(2, 3), b=np.asfortranarray(np.ones((2, 2), "int8")))
        yield file.getvalue()
    file = io.BytesIO()
    np.savez(file, text=np.array(["a", "bc"]))
    yield file.getvalue()
    file = io.BytesIO()
    np.save(file, np.ones(3))
    yield file.getvalue()


def check(data: bytes) -> None:
    try:
        arrays = npz.load(data)
    except ModelError:
        return
    for name, array in arrays.items():
        assert isinstance(name, str)
        assert isinstance(array, np.ndarray)
        assert not array.dtype.hasobject
