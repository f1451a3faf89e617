"""Well-known architectures in PyTorch, randomly initialised, with batch-norm statistics that matter."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


class ResNet(nn.Module):
    """He et al., "Deep Residual Learning for Image Recognition" (arXiv:1512.03385), table 1.

    Takes (N, 3, H, W) float32, gives (N, `classes`).
    """

    def __init__(self, depths: list[int], bottleneck: bool, classes: int = 100) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        blocks, channels = [], 64
        for stage, depth in enumerate(depths):
            width = 64 << stage
            for block in range(depth):
                stride = 2 if stage and not block else 1
                blocks.append(_Residual(channels, width, stride, bottleneck))
                channels = blocks[-1].channels
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(image)).mean((2, 3)))


class _Residual(nn.Module):
    def __init__(self, channels: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        self.channels = width * 4 if bottleneck else width
        if bottleneck:
            layers = [*_conv(channels, width), nn.ReLU(), *_conv(width, width, 3, stride), nn.ReLU()]
            layers += _conv(width, self.channels)
        else:
            layers = [*_conv(channels, width, 3, stride), nn.ReLU(), *_conv(width, width, 3)]
        self.body = nn.Sequential(*layers)
        same = stride == 1 and channels == self.channels
        self.shortcut = nn.Identity() if same else nn.Sequential(*_conv(channels, self.channels, 1, stride))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class MobileNetV2(nn.Module):
    """Sandler et al. (arXiv:1801.04381), table 2. Takes (N, 3, H, W) float32, gives (N, `classes`)."""

    def __init__(self, classes: int = 100) -> None:
        super().__init__()
        layers, channels = [*_conv(3, 32, 3, 2), nn.ReLU6()], 32
        for expansion, width, repeats, first_stride in (
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        ):
            for repeat in range(repeats):
                layers.append(_Inverted(channels, width, first_stride if repeat == 0 else 1, expansion))
                channels = width
        self.features = nn.Sequential(*layers, *_conv(channels, 1280), nn.ReLU6(), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(image).flatten(1))


class _Inverted(nn.Module):
    def __init__(self, channels: int, width: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        expand = [*_conv(channels, hidden), nn.ReLU6()] if expansion > 1 else []
        depthwise = [*_conv(hidden, hidden, 3, stride, groups=hidden), nn.ReLU6()]
        self.body = nn.Sequential(*expand, *depthwise, *_conv(hidden, width))
        self.residual = stride == 1 and channels == width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class VisionTransformer(nn.Module):
    """Dosovitskiy et al. (arXiv:2010.11929), small. Takes (N, 3, 32, 32) float32, gives (N, `classes`)."""

    def __init__(self, width: int = 64, depth: int = 2, heads: int = 4, classes: int = 10) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 17, width))
        self.blocks = nn.ModuleList(_Transformer(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class _Transformer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(n, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        attended = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.project(attended.transpose(1, 2).reshape(n, tokens, width))
        return x + self.mlp(self.norm2(x))


class LSTMClassifier(nn.Module):
    """Token ids (N, T) int64 through an embedding and a two-layer bidirectional LSTM to (N, `classes`)."""

    def __init__(self, vocabulary: int = 100, width: int = 32, classes: int = 5) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(self.embedding(tokens))[0][:, -1])


def _conv(channels: int, width: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(channels, width, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(width)]


def build(architecture: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """The network in evaluation mode, its statistics random but kept near one so that signals stay finite."""
    torch.manual_seed(seed)
    model = architecture().eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
    return model.requires_grad_(False)


def resnet18() -> nn.Module:
    return build(lambda: ResNet([2, 2, 2, 2], bottleneck=False))


def resnet50() -> nn.Module:
    return build(lambda: ResNet([3, 4, 6, 3], bottleneck=True))


def mobilenet_v2() -> nn.Module:
    return build(MobileNetV2)


def vision_transformer() -> nn.Module:
    return build(VisionTransformer)


def lstm_classifier() -> nn.Module:
    return build(LSTMClassifier)
