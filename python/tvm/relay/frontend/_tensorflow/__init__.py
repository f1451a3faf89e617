"""TensorFlow graphs to Relax: what the TensorFlow and the Keras importer share."""

from . import arrays, control, elementwise, neural, symbolic  # noqa: F401 (each registers its operators)
from .converter import Input, convert, restore
from .graph import Node, dtype_name
from .library import check_layout, load_tensorflow
from .values import Variable

__all__ = ["Input", "Node", "Variable", "check_layout", "convert", "dtype_name", "load_tensorflow", "restore"]
