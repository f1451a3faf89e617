"""One network, EfficientNet-Lite0 with its pretrained weights, read from every format there is."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from compiled import Compiled, assert_agrees

from tvm.relay import frontend
from tvm.relay.frontend.common import Imported
from zoo import efficientnet_lite0
from zoo.photos import photos

PLANES, PIXELS = (1, 3, 224, 224), (1, 224, 224, 3)


def from_onnx(folder: Path) -> Imported:
    from tvm.relay.frontend.onnx import import_onnx

    return import_onnx(efficientnet_lite0.onnx_model(), {"image": PLANES})


def from_torchscript(folder: Path) -> Imported:
    from tvm.relay.frontend.pytorch import import_pytorch

    return import_pytorch(efficientnet_lite0.torchscript(), {"image": PLANES})


def from_pt2(folder: Path) -> Imported:
    from tvm.relay.frontend.pytorch import import_pytorch

    return import_pytorch(efficientnet_lite0.pt2(), {"image": PLANES})


def from_keras(folder: Path) -> Imported:
    from tvm.relay.frontend.keras import import_keras

    keras_model().save(folder / "model.keras")
    return import_keras((folder / "model.keras").read_bytes(), {"image": PIXELS})


def from_tensorflow(folder: Path) -> Imported:
    from tensorflow_support import tar_of

    from tvm.relay.frontend.tensorflow import import_tensorflow

    keras_model().export(folder / "saved", verbose=False)
    return import_tensorflow(tar_of(folder / "saved"), {"serving_default_image": PIXELS})


def from_tflite(folder: Path) -> Imported:
    import tensorflow as tf

    from tvm.relay.frontend.tflite import import_tflite

    model = keras_model()
    traced = tf.function(lambda image: model(image, training=False)).get_concrete_function(
        tf.TensorSpec(PIXELS, name="image")
    )
    return import_tflite(tf.lite.TFLiteConverter.from_concrete_functions([traced]).convert())


def from_mxnet(folder: Path) -> Imported:
    import mxnet_environment
    from tvm.relay.frontend.mxnet import import_mxnet
    from tvm_secret import formats
    from zoo import mxnet_efficientnet_lite0

    try:
        python = mxnet_environment.mxnet_python()
    except mxnet_environment.Unavailable as reason:
        pytest.skip(str(reason))
    np.savez(folder / "weights.npz", **efficientnet_lite0.weights())
    command = [python, mxnet_efficientnet_lite0.__file__, folder / "weights.npz", folder]
    subprocess.run(list(map(str, command)), check=True, capture_output=True, timeout=300)
    parts = [*folder.glob("*-symbol.json"), *folder.glob("*.params")]
    _, pieces = formats.plain_source(parts, "model/mxnet")
    return import_mxnet(b"".join(pieces()), {"data": PLANES})


def keras_model():
    from zoo import efficientnet_lite0_keras

    return efficientnet_lite0_keras.build(efficientnet_lite0.weights())


@pytest.fixture(scope="module")
def expected() -> tuple[np.ndarray, np.ndarray]:
    """Photos as the network's input, and PyTorch's logits for them."""
    import torch

    images, classes = photos(3)
    planes = efficientnet_lite0.preprocess(images)
    logits = efficientnet_lite0.torch_model()(torch.from_numpy(planes)).numpy()
    assert list(logits.argmax(1)) == classes
    return planes, logits


@pytest.mark.parametrize(
    "read",
    [from_onnx, from_torchscript, from_pt2, from_keras, from_tensorflow, from_tflite, from_mxnet],
    ids=lambda read: read.__name__.removeprefix("from_"),
)
def test_same_classes_on_the_same_photos(read: Callable[[Path], Imported], expected, tmp_path):
    planes, logits = expected
    imported = read(tmp_path)
    network = Compiled(imported)
    (image,) = imported.module["main"].params[: int(imported.module["main"].attrs["num_input"])]
    channels_last = [int(size) for size in image.ty.shape] == list(PIXELS)
    actual = np.concatenate(
        [network(p.transpose(1, 2, 0)[None].copy() if channels_last else p[None])[0] for p in planes]
    )
    assert_agrees(actual, logits)
    np.testing.assert_array_equal(np.argsort(-actual)[:, :5], np.argsort(-logits)[:, :5])


def test_every_importer_is_here():
    read = {"from_onnx", "from_pytorch", "from_keras", "from_tensorflow", "from_tflite", "from_mxnet"}
    assert set(frontend.__all__) == read
