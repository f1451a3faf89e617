"""Importers of sealed models, one file a format; each needs only its own format's packages."""

from .keras import from_keras
from .mxnet import from_mxnet
from .onnx import from_onnx
from .pytorch import from_pytorch
from .tensorflow import from_tensorflow
from .tflite import from_tflite

__all__ = ["from_keras", "from_mxnet", "from_onnx", "from_pytorch", "from_tensorflow", "from_tflite"]
