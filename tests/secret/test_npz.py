"""Inputs from an .npz: plain numbers come through, and no file takes more memory than it accounts for."""

from __future__ import annotations

import io
import struct
import zipfile

import numpy as np
import pytest

from tvm_secret import npz
from tvm_secret.errors import ModelError

ARRAYS = {
    "x": np.arange(6, dtype="float32").reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6, dtype="int8").reshape(2, 3)),
    "scalar": np.array(True),
    "empty": np.zeros((0, 3), "float16"),
}


def saved(save, *args, **arrays) -> bytes:
    file = io.BytesIO()
    save(file, *args, **arrays)
    return file.getvalue()


def archive(method=zipfile.ZIP_STORED, **members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as output:
        for name, content in members.items():
            output.writestr(f"{name}.npy", content)
    return file.getvalue()


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_through(save):
    loaded = npz.load(saved(save, **ARRAYS))
    assert list(loaded) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].dtype == array.dtype


FLOAT = "{'descr': '<f4', 'fortran_order': False, 'shape': (%d,)}\n"
ENCRYPTED = bytearray(archive(a=saved(np.save, np.ones(3))))
ENCRYPTED[6] |= 1  # the flag in the member's own header, and in the directory
ENCRYPTED[ENCRYPTED.index(b"PK\x01\x02") + 8] |= 1

REFUSED = {
    "one array alone": saved(np.save, np.ones(3)),
    "objects": saved(np.savez, a=np.array([{}], dtype=object)),
    "an encrypted member": bytes(ENCRYPTED),
    "another compression": archive(zipfile.ZIP_LZMA, a=saved(np.save, np.ones(3))),
    "a member that is no array": archive(a=b"text"),
    "more claimed than there is": archive(a=header(FLOAT % (1 << 40))),
    "less claimed than there is": archive(a=header(FLOAT % 1) + bytes(8)),
    "a size below zero": archive(a=header(FLOAT % -1)),
    "a header that no tokenizer reads": archive(a=header("{(\n")),
    "a header that nests deeply": archive(a=header("-" * 9000 + "1\n")),
    "a cut": saved(np.savez, **ARRAYS)[:-30],
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_refused(data):
    with pytest.raises(ModelError, match=r"not an \.npz of plain arrays"):
        npz.load(data)


def test_a_zip_bomb_is_refused():
    bomb = saved(np.savez_compressed, a=np.zeros(50 << 20, "uint8"))
    assert len(bomb) < 100_000
    with pytest.raises(ModelError, match="uncompressed"):
        npz.load(bomb)


def test_a_huge_directory_is_refused():
    with pytest.raises(ModelError, match="more than 10000 members"):
        npz.load(b"PK\x01\x02" * 10_001)
