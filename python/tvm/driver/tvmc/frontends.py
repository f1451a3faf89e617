"""From a sealed model of any format to a `TVMCModel`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tvm_secret import envelope, formats
from tvm_secret.errors import ModelError, NotSealedError

from .model import TVMCModel

__all__ = ["load_model"]


def load_model(
    path: str | Path | bytes,
    model_format: str | None = None,
    shape_dict: Mapping[str, Sequence[int | str]] | bytes | None = None,
    **kwargs: Any,
) -> TVMCModel:
    """Open a sealed model in memory, import it, and seal what came of it to this process's own identity.

    Args:
        path: the sealed model's file, or its bytes.
        model_format: "onnx", "pytorch", "pb", "tflite", "keras" or "mxnet"; default, what the file says it
            holds. The raw layout says nothing.
        shape_dict: input name -> dimensions in place of the model's own, a string for a symbolic one; or
            such a mapping sealed by `tvm_secret.seal_json`.
        kwargs: the importer's own parameters (`relay.frontend.from_*`).

    Raises:
        SecretError: the file does not open, or is not a model that the importer reads.
    """
    if isinstance(shape_dict, Mapping):
        shapes = {name: list(dimensions) for name, dimensions in shape_dict.items()}
        shape_dict = envelope.Session.to_self().seal_json(shapes, content_type="input-shapes")
    return TVMCModel(*_importer(model_format or _format_of(path))(path, shape_dict, **kwargs))


def _format_of(path: str | Path | bytes) -> str:
    try:
        return formats.format_of(envelope.inspect(path).content_type)
    except NotSealedError as error:
        raise NotSealedError(
            f"{error}; if it is a plain model, seal it with 'tvmc encrypt', "
            "and if it has the raw layout, give --model-format"
        ) from None


def _importer(model_format: str) -> Callable[..., tuple[bytes, bytes]]:
    from tvm.relay import frontend

    importers = {
        "onnx": frontend.from_onnx,
        "pytorch": frontend.from_pytorch,
        "pb": lambda model, shape, **options: frontend.from_tensorflow(model, shape=shape, **options),
        "tflite": frontend.from_tflite,
        "keras": frontend.from_keras,
        "mxnet": frontend.from_mxnet,
    }
    if model_format not in importers:
        raise ModelError(f"unknown model format {model_format!r}; there are {', '.join(importers)}")
    return importers[model_format]
