"""EfficientNet-Lite0 as an MXNet symbol that takes the weights of the PyTorch package.

`export` must run where MXNet is installed; `python mxnet_efficientnet_lite0.py WEIGHTS.npz FOLDER` does the
same from outside of that environment.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

# Tan and Le, "EfficientNet" (arXiv:1905.11946), table 1, without squeeze and excitation.
# Repeats, kernel, stride of the first, expansion, output channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_SIZE = 224


class _Network:
    """The symbol under construction, and the arrays of its parameters."""

    def __init__(self, mx: Any, weights: Mapping[str, np.ndarray]):
        self._mx = mx
        self._weights = weights
        self._size = _SIZE
        self.arrays: dict[str, Any] = {}

    def _parameter(self, kind: str, name: str, source: str) -> Any:
        self.arrays[f"{kind}:{name}"] = self._mx.nd.array(self._weights[source])
        return self._mx.sym.var(name)

    def layer(
        self,
        data: Any,
        path: str,
        norm: str,
        channels: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
    ) -> Any:
        """Convolution with TensorFlow's SAME padding, and batch normalisation."""
        sym, name = self._mx.sym, path.replace(".", "_").strip("_")
        size = -(-self._size // stride)
        padding = max(0, (size - 1) * stride + kernel - self._size)
        before, after = padding // 2, padding - padding // 2
        self._size = size
        if before != after:
            width = (0, 0, 0, 0, before, after, before, after)
            data = sym.Pad(data, mode="constant", pad_width=width, constant_value=0.0, name=f"{name}_pad")
            before = 0
        data = sym.Convolution(
            data,
            self._parameter("arg", f"{name}_weight", f"{path}.weight"),
            kernel=(kernel, kernel),
            stride=(stride, stride),
            pad=(before, before),
            num_filter=channels,
            num_group=groups,
            no_bias=True,
            name=name,
        )
        return sym.BatchNorm(
            data,
            self._parameter("arg", f"{name}_gamma", f"{norm}.weight"),
            self._parameter("arg", f"{name}_beta", f"{norm}.bias"),
            self._parameter("aux", f"{name}_moving_mean", f"{norm}.running_mean"),
            self._parameter("aux", f"{name}_moving_var", f"{norm}.running_var"),
            eps=1e-3,
            fix_gamma=False,
            name=f"{name}_norm",
        )

    def relu6(self, data: Any) -> Any:
        return self._mx.sym.clip(data, a_min=0.0, a_max=6.0)

    def head(self, data: Any, path: str) -> Any:
        """The mean over the image, and the logits."""
        sym = self._mx.sym
        data = sym.Flatten(sym.Pooling(data, global_pool=True, pool_type="avg", kernel=(1, 1)))
        weight = self._parameter("arg", "fc_weight", f"{path}.weight")
        bias = self._parameter("arg", "fc_bias", f"{path}.bias")
        return sym.FullyConnected(data, weight, bias, num_hidden=1000, name="fc")


def export(weights: Mapping[str, np.ndarray], folder: Path) -> tuple[Path, Path]:
    """Write the model to `folder` and return the paths of its symbol and its parameters.

    `weights` has the names of the PyTorch model. The model takes "data", (N, 3, 224, 224) float32,
    (pixels - 127) / 128, and gives "fc_output", (N, 1000), the logits.
    """
    import mxnet as mx

    network = _Network(mx, weights)
    data = network.relu6(network.layer(mx.sym.var("data"), "_conv_stem", "_bn0", 32, 3, 2))
    channels, number = 32, 0
    for repeats, kernel, first_stride, expansion, output in STAGES:
        for repeat in range(repeats):
            path, stride = f"_blocks.{number}", first_stride if repeat == 0 else 1
            wide, inner = data, channels * expansion
            if expansion != 1:
                wide = network.relu6(network.layer(data, f"{path}._expand_conv", f"{path}._bn0", inner))
            wide = network.layer(
                wide, f"{path}._depthwise_conv", f"{path}._bn1", inner, kernel, stride, groups=inner
            )
            narrow = network.layer(network.relu6(wide), f"{path}._project_conv", f"{path}._bn2", output)
            data = narrow + data if stride == 1 and channels == output else narrow
            channels, number = output, number + 1
    data = network.relu6(network.layer(data, "_conv_head", "_bn1", 1280))
    symbol = network.head(data, "_fc")
    paths = folder / "model-symbol.json", folder / "model-0000.params"
    symbol.save(str(paths[0]))
    mx.nd.save(str(paths[1]), network.arrays)
    return paths


if __name__ == "__main__":
    with np.load(sys.argv[1]) as archive:
        export(dict(archive), Path(sys.argv[2]))
