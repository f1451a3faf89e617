"""Model formats as files: their names, how to tell them apart, and how several files become one value.

A SavedModel (a folder) and an MXNet model (two files) are sealed as one uncompressed POSIX tar (ustar).
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import ContentTypeError, SecretError

__all__ = ["FORMATS", "content_type_of", "format_of", "guess", "plain_source"]

_STEP = 1 << 20


@dataclass(frozen=True)
class Format:
    name: str
    """What `--model-format` calls it, as upstream's tvmc does."""
    content_type: str
    suffixes: tuple[str, ...]


FORMATS = {
    form.name: form
    for form in (
        Format("onnx", "model/onnx", (".onnx",)),
        Format("pytorch", "model/pytorch", (".pt", ".pth", ".pt2")),
        Format("pb", "model/tensorflow", (".pb",)),
        Format("tflite", "model/tflite", (".tflite",)),
        Format("keras", "model/keras", (".keras", ".h5", ".hdf5")),
        Format("mxnet", "model/mxnet", (".params", ".json")),
    )
}


def content_type_of(name: str) -> str:
    return FORMATS[name].content_type


def format_of(content_type: str) -> str:
    """The format that an authenticated content type stands for. Raises `ContentTypeError` if none."""
    for form in FORMATS.values():
        if form.content_type == content_type:
            return form.name
    raise ContentTypeError(f"it holds {content_type}, which is not a model")


def guess(paths: Sequence[Path]) -> str:
    """The content type that these files suggest. Raises `SecretError` where they suggest none."""
    first = paths[0]
    if first.is_dir() and (first / "saved_model.pb").exists():
        return content_type_of("pb")
    if first.suffix == ".npz":
        return "inputs"
    for form in FORMATS.values():
        if first.suffix.lower() in form.suffixes:
            return form.content_type
    raise SecretError(f"cannot tell the format of {first} from its name: give --model-format")


def plain_source(paths: Sequence[Path], content_type: str) -> tuple[int, Callable[[], Iterator[bytes]]]:
    """Size in bytes and reader of the one value that `paths` are sealed as.

    Raises `SecretError` where the files are not what the format consists of.
    """
    for path in paths:
        if not path.exists():
            raise SecretError(f"{path} does not exist")
    if content_type == "model/mxnet":
        return _tar(_mxnet_files(paths))
    if len(paths) != 1:
        raise SecretError("only an MXNet model has several files (-symbol.json and .params)")
    path = paths[0]
    if path.is_dir():
        if content_type != "model/tensorflow" or not (path / "saved_model.pb").is_file():
            raise SecretError(f"{path} is a folder, and not a SavedModel (it holds no saved_model.pb)")
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return _tar({file.relative_to(path).as_posix(): file for file in files})
    size = path.stat().st_size
    if size == 0:
        raise SecretError(f"{path} is empty")
    return size, lambda: _read(path)


def _mxnet_files(paths: Sequence[Path]) -> dict[str, Path]:
    symbol = [path for path in paths if path.suffix == ".json"]
    params = [path for path in paths if path.suffix == ".params"]
    if len(symbol) != 1 or len(params) != 1 or len(paths) != 2:
        raise SecretError("an MXNet model is two files: NAME-symbol.json and NAME-0000.params")
    return {"symbol.json": symbol[0], "params": params[0]}


def _tar(files: dict[str, Path]) -> tuple[int, Callable[[], Iterator[bytes]]]:
    headers = {}
    size = 2 * tarfile.BLOCKSIZE
    for name, path in files.items():
        info = tarfile.TarInfo(name)
        info.size = path.stat().st_size
        try:
            headers[name] = info.tobuf(tarfile.USTAR_FORMAT)
        except ValueError as error:
            raise SecretError(f"{path} cannot be sealed: {error}") from None
        size += len(headers[name]) + info.size + -info.size % tarfile.BLOCKSIZE

    def pieces() -> Iterator[bytes]:
        for name, path in files.items():
            yield headers[name]
            yield from _read(path)
            yield bytes(-path.stat().st_size % tarfile.BLOCKSIZE)
        yield bytes(2 * tarfile.BLOCKSIZE)

    return size, pieces


def _read(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while piece := file.read(_STEP):
            yield piece
