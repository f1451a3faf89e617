"""Files written whole or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["atomic_writer"]


@contextlib.contextmanager
def atomic_writer(path: str | Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A seekable file that takes the name `path` when the block ends well, and vanishes when it does not.

    `mode` is the permission before the umask. The data reaches the disk (fsync) before the name does.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(21, "it is a directory", str(path))
    partial = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    with _naming(path):
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with io.BufferedRandom(_Output(descriptor, path)) as file:
            yield file
            file.flush()
            with _naming(path):
                os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


class _Output(io.FileIO):
    """An open file whose errors in writing name the path that it is to have."""

    def __init__(self, descriptor: int, path: Path) -> None:
        super().__init__(descriptor, "r+")
        self._path = path

    def write(self, data) -> int:
        with _naming(self._path):
            return super().write(data)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Give an `OSError` raised in the block this file name."""
    try:
        yield
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from None
