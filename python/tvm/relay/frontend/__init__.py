"""Importers of sealed models, one file a format; each needs only its own format's packages."""

from .onnx import from_onnx

__all__ = ["from_onnx"]
