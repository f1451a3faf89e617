"""Inputs from an .npz, without unpickling, and without more memory than the file itself accounts for."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from typing import BinaryIO

import numpy as np

from .errors import ModelError

__all__ = ["load"]

_SPARE = 32 << 20
"""Bytes that a small file may expand to."""
_MEMBERS = 10_000
_DIRECTORY_ENTRY = b"PK\x01\x02"
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def load(data: bytes) -> dict[str, np.ndarray]:
    """The arrays of an .npz, by name.

    Raises `ModelError` for anything else, for arrays of objects, and where compressed arrays are larger than
    the file and 32 MB together: `numpy.savez` writes them uncompressed.
    """
    # Before the archive is opened: what Python keeps of an entry is twenty times as long as the entry.
    if data.count(_DIRECTORY_ENTRY) > _MEMBERS:
        raise ModelError(f"it has more than {_MEMBERS} members")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _load(archive, len(data))
    # What Python's reader of archives makes of damaged ones.
    except (
        EOFError,
        KeyError,
        NotImplementedError,
        OSError,
        OverflowError,
        RuntimeError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
    ):
        raise ModelError("it is not an .npz of plain arrays") from None


def _load(archive: zipfile.ZipFile, size: int) -> dict[str, np.ndarray]:
    members = archive.infolist()
    if sum(member.file_size for member in members) > size + _SPARE:
        raise ModelError("its arrays are far larger than the file: write it with numpy.savez, uncompressed")
    arrays = {}
    for member in members:
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError("another compression than savez_compressed has")
        with archive.open(member) as content:
            _check_size(content, member.file_size)
        with archive.open(member) as content:
            arrays[member.filename.removesuffix(".npy")] = np.lib.format.read_array(
                content, allow_pickle=False
            )
    return arrays


def _check_size(content: BinaryIO, size: int) -> None:
    """Raise `ValueError` unless the .npy has the bytes that its header lays claim to."""
    try:
        shape, _, dtype = _HEADERS[np.lib.format.read_magic(content)](content)
    # The header is a Python literal: its damage shows as whatever the tokenizer or the parser then raises,
    # MemoryError for one that nests too deeply.
    except Exception:
        raise ValueError("the header of an array cannot be read") from None
    if dtype.hasobject or content.tell() + math.prod(shape) * dtype.itemsize != size:
        raise ValueError("the array is of objects, or cut short")
