"""The owner's model files: EfficientNet-Lite0 with its published weights, in each framework's format.

They are as plain as any trained model on its owner's disk, and what the tutorials start from. The TFLite
file is a package's own; the others are made on first use, from the weights of efficientnet-lite0-pytorch-
model, and kept.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import common
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build" / "tutorials" / "models"
# The tests have the network written down for each framework.
sys.path.append(str(ROOT / "tests"))


@dataclass(frozen=True)
class Format:
    """How the network looks in a format."""

    content_type: str
    input: str
    shape: tuple[int, ...]
    prepare: Callable[[np.ndarray], np.ndarray]
    """Pixels, (N, 224, 224, 3) uint8, as the input."""


PLANES, PIXELS = (1, 3, common.SIZE, common.SIZE), (1, common.SIZE, common.SIZE, 3)
FORMATS = {
    "onnx": Format("model/onnx", "image", PLANES, common.planes),
    "keras": Format("model/keras", "image", PIXELS, common.normalised),
    "pytorch": Format("model/pytorch", "image", PLANES, common.planes),
    "tensorflow": Format("model/tensorflow", "serving_default_image", PIXELS, common.normalised),
    "tflite": Format("model/tflite", "images", PIXELS, np.asarray),
    "mxnet": Format("model/mxnet", "data", PLANES, common.planes),
}


def files(name: str) -> list[Path]:
    """The file of the model in the format `name`, or the two of an MXNet model, or a SavedModel's folder."""
    if name == "tflite":
        return [common.quantised_model()]
    folder = CACHE / name
    if not folder.exists():
        print(f"the owner makes the {name} model from its published weights", flush=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:  # whole or not at all
            made = Path(scratch, name)
            made.mkdir()
            # In a process of its own, so that the tutorial's times do not depend on what was imported here.
            if subprocess.run([sys.executable, __file__, name, str(made)]).returncode != 0:
                sys.exit(f"the {name} model could not be made")
            made.rename(folder)
    return sorted(folder.iterdir())


def _make_onnx(folder: Path) -> None:
    from zoo import efficientnet_lite0

    (folder / "model.onnx").write_bytes(efficientnet_lite0.onnx_model())


def _make_pytorch(folder: Path) -> None:
    from zoo import efficientnet_lite0

    (folder / "model.pt").write_bytes(efficientnet_lite0.torchscript())


def _make_tensorflow(folder: Path) -> None:
    _keras_model().export(folder / "saved_model", verbose=False)


def _make_keras(folder: Path) -> None:
    _keras_model().save(folder / "model.keras")


def _keras_model():
    from zoo import efficientnet_lite0, efficientnet_lite0_keras

    return efficientnet_lite0_keras.build(efficientnet_lite0.weights())


def _make_mxnet(folder: Path) -> None:
    import mxnet_environment
    from zoo import efficientnet_lite0, mxnet_efficientnet_lite0

    try:
        python = mxnet_environment.mxnet_python()
    except mxnet_environment.Unavailable as reason:
        sys.exit(str(reason))
    with tempfile.TemporaryDirectory() as scratch:
        weights = Path(scratch, "weights.npz")
        np.savez(weights, **efficientnet_lite0.weights())
        export = [python, mxnet_efficientnet_lite0.__file__, weights, folder]
        subprocess.run(export, check=True, capture_output=True)


_MAKERS: dict[str, Callable[[Path], None]] = {
    "onnx": _make_onnx,
    "keras": _make_keras,
    "pytorch": _make_pytorch,
    "tensorflow": _make_tensorflow,
    "mxnet": _make_mxnet,
}

if __name__ == "__main__":
    _MAKERS[sys.argv[1]](Path(sys.argv[2]))
