"""TensorFlow as a library: imported silently, on the CPU."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from ..common import ModelError, require


def load_tensorflow(extra: str) -> Any:
    """Import TensorFlow without the messages of its start and without touching a GPU.

    A process that imported TensorFlow before keeps its own settings.
    """
    if "tensorflow" in sys.modules:
        return require("tensorflow", extra)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # The search for GPUs is logged before TensorFlow reads that setting, straight to the descriptor.
    with _silent_stderr():
        tensorflow = require("tensorflow", extra)
        tensorflow.config.set_visible_devices([], "GPU")
    tensorflow.get_logger().setLevel("ERROR")
    return tensorflow


def check_layout(function: str, layout: str) -> None:
    """Refuse a layout that Relay's importers did not know."""
    if layout not in ("NCHW", "NHWC"):
        raise ModelError(f"{function}: layout '{layout}' is neither 'NCHW' nor 'NHWC'")


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    saved = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
