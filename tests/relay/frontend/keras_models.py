"""Keras models with random weights for the tests of the TensorFlow and the Keras importer."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

layers = keras.layers


def randomised(model: Any, seed: int = 0) -> Any:
    """Give `model` statistics and biases that a wrong axis or a dropped term would show in."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        kind, shape = variable.path.rpartition("/")[2], variable.shape
        if kind in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.7, 1.3, shape))
        elif kind in ("beta", "bias", "moving_mean"):
            variable.assign(rng.normal(0, 0.1, shape))
    return model


def _application(build: Any, size: int, **options: Any) -> Any:
    return randomised(
        build(weights=None, input_shape=(size, size, 3), classes=100, classifier_activation=None, **options)
    )


def mobilenet(size: int) -> Any:
    return _application(keras.applications.MobileNetV2, size, alpha=0.5)


def mobilenet_v3(size: int) -> Any:
    return _application(keras.applications.MobileNetV3Small, size)


def resnet(size: int) -> Any:
    return _application(keras.applications.ResNet50, size)


def transformer(length: int = 12, width: int = 32) -> Any:
    """An encoder: embedded tokens and positions, two blocks of attention, the mean."""
    tokens = layers.Input((length,), name="tokens")
    positions = layers.Embedding(length, width)(keras.ops.arange(length))
    x = layers.Embedding(50, width)(tokens) + positions
    for _ in range(2):
        x = layers.LayerNormalization()(x + layers.MultiHeadAttention(4, width // 4)(x, x))
        hidden = layers.Dense(2 * width, activation="gelu")(x)
        x = layers.LayerNormalization()(x + layers.Dense(width)(hidden))
    return randomised(keras.Model(tokens, layers.Dense(10)(layers.GlobalAveragePooling1D()(x))))
