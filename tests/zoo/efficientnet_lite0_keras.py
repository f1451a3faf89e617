"""EfficientNet-Lite0 as a Keras model that takes the weights of the PyTorch package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .mxnet_efficientnet_lite0 import STAGES


def build(weights: Mapping[str, np.ndarray]) -> Any:
    """The network with `weights`, the PyTorch package's state dict as arrays.

    Its input `image` is (N, 224, 224, 3) float32, scaled as PyTorch's; its output `logits` is (N, 1000).
    """
    import keras

    layers = keras.layers
    arrays: dict[str, list[np.ndarray]] = {}

    def name_of(path: str) -> str:
        return path.strip("_").replace(".", "_")

    def convolution(x: Any, path: str, norm: str, channels: int, kernel: int = 1, stride: int = 1) -> Any:
        arrays[name_of(path)] = [weights[f"{path}.weight"].transpose(2, 3, 1, 0)]
        x = layers.Conv2D(channels, kernel, stride, "same", use_bias=False, name=name_of(path))(x)
        return normalised(x, norm)

    def depthwise(x: Any, path: str, norm: str, kernel: int, stride: int) -> Any:
        arrays[name_of(path)] = [weights[f"{path}.weight"].transpose(2, 3, 0, 1)]
        x = layers.DepthwiseConv2D(kernel, stride, "same", use_bias=False, name=name_of(path))(x)
        return normalised(x, norm)

    def normalised(x: Any, path: str) -> Any:
        parts = ("weight", "bias", "running_mean", "running_var")
        arrays[name_of(path)] = [weights[f"{path}.{part}"] for part in parts]
        return layers.BatchNormalization(epsilon=1e-3, name=name_of(path))(x)

    image = keras.Input((224, 224, 3), name="image")
    x = layers.ReLU(6)(convolution(image, "_conv_stem", "_bn0", 32, 3, 2))
    block = 0
    for repeats, kernel, first_stride, expansion, channels in STAGES:
        for repeat in range(repeats):
            path, entry = f"_blocks.{block}.", x
            stride = first_stride if repeat == 0 else 1
            if expansion > 1:
                wide = expansion * x.shape[-1]
                x = layers.ReLU(6)(convolution(x, f"{path}_expand_conv", f"{path}_bn0", wide))
            x = layers.ReLU(6)(depthwise(x, f"{path}_depthwise_conv", f"{path}_bn1", kernel, stride))
            x = convolution(x, f"{path}_project_conv", f"{path}_bn2", channels)
            if stride == 1 and entry.shape[-1] == channels:
                x = layers.Add()([x, entry])
            block += 1
    x = layers.ReLU(6)(convolution(x, "_conv_head", "_bn1", 1280))
    arrays["logits"] = [weights["_fc.weight"].T, weights["_fc.bias"]]
    model = keras.Model(image, layers.Dense(1000, name="logits")(layers.GlobalAveragePooling2D()(x)))
    for name, values in arrays.items():
        model.get_layer(name).set_weights(values)
    return model
