"""Models and their outputs by MXNet 1.9.1 itself: the cases, and the script that computes them under MXNet.

The suite imports this file for the names of the cases; `python mxnet_reference.py` answers requests on
standard input (see `main`) and must run where MXNet is installed.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from zoo import mxnet_efficientnet_lite0

ZOO = {
    # Architecture of mxnet.gluon.model_zoo.vision -> height and width of the images.
    "alexnet": 96,
    "densenet121": 224,
    "densenet161": 224,
    "densenet169": 224,
    "densenet201": 224,
    "inceptionv3": 299,
    "mobilenet0.25": 64,
    "mobilenet0.5": 64,
    "mobilenet0.75": 64,
    "mobilenet1.0": 64,
    "mobilenetv2_0.25": 64,
    "mobilenetv2_0.5": 64,
    "mobilenetv2_0.75": 64,
    "mobilenetv2_1.0": 64,
    "resnet18_v1": 64,
    "resnet18_v2": 64,
    "resnet34_v1": 64,
    "resnet34_v2": 64,
    "resnet50_v1": 64,
    "resnet50_v2": 64,
    "resnet101_v1": 64,
    "resnet101_v2": 64,
    "resnet152_v1": 64,
    "resnet152_v2": 64,
    "squeezenet1.0": 224,
    "squeezenet1.1": 224,
    "vgg11": 32,
    "vgg11_bn": 32,
    "vgg13": 32,
    "vgg13_bn": 32,
    "vgg16": 32,
    "vgg16_bn": 32,
    "vgg19": 32,
    "vgg19_bn": 32,
}


def _classifier_of_sentences(gluon: Any) -> Any:
    network = gluon.nn.HybridSequential()
    network.add(
        gluon.nn.Embedding(20, 6),
        gluon.rnn.LSTM(5, num_layers=2, bidirectional=True),
        gluon.nn.HybridLambda(lambda F, x: F.SequenceLast(x)),
        gluon.nn.Dense(4),
    )
    return network


def _mixer(gluon: Any) -> Any:
    network = gluon.nn.HybridSequential()
    network.add(
        gluon.nn.Conv2D(8, 3, strides=2, activation="relu"),
        gluon.nn.GroupNorm(2),
        gluon.nn.HybridLambda(lambda F, x: F.transpose(F.reshape(x, (0, 0, -1)), (0, 2, 1))),
        gluon.nn.LayerNorm(),
        gluon.nn.Dense(6, flatten=False),
        gluon.nn.GELU(),
        gluon.nn.HybridLambda(lambda F, x: F.mean(x, axis=1)),
        gluon.nn.Dense(5),
    )
    return network


GLUON: dict[str, tuple[Callable[[Any], Any], np.ndarray]] = {
    # Name -> the network, as a function of mx.gluon, and its input.
    "sentences": (_classifier_of_sentences, np.arange(21, dtype="float32").reshape(7, 3) % 20),
    "mixer": (_mixer, np.random.RandomState(2).normal(0, 1, (2, 3, 11, 11)).astype("float32")),
}


@dataclass(frozen=True)
class Case:
    """A graph of a few nodes.

    `build` makes it out of `mx.sym`. Each of `inputs` is a shape, to be filled with normal values, or an
    array. All other variables become parameters with random values of the shapes that MXNet infers.
    """

    build: Callable[[Any], Any]
    inputs: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float32"


CASES: dict[str, Case] = {}


def case(name: str, build: Callable[[Any], Any], dtype: str = "float32", **inputs: Any) -> None:
    CASES[name] = Case(build, inputs, dtype)


def _operator(name: str, *inputs: str, **attributes: Any) -> Callable[[Any], Any]:
    """One operator over variables."""
    return lambda S: getattr(S if hasattr(S, name) else S._internal, name)(
        *map(S.var, inputs or ("data",)), name="node", **attributes
    )


def _spread(*shape: int, low: float = -3.0, high: float = 3.0) -> np.ndarray:
    """Values from `low` to `high` in a mixed order, none twice."""
    values = np.linspace(low, high, int(np.prod(shape)), dtype="float32")
    return np.random.RandomState(0).permutation(values).reshape(shape)


def _whole(*shape: int, low: int = 0, high: int = 10) -> np.ndarray:
    return np.random.RandomState(1).randint(low, high, shape).astype("float32")


def _layer_cases() -> None:
    image = (2, 4, 9, 8)
    for name, attributes in {
        "plain": {"kernel": (3, 3), "num_filter": 6},
        "strides, pads": {"kernel": (3, 2), "num_filter": 6, "stride": (2, 1), "pad": (1, 0)},
        "no bias": {"kernel": (1, 1), "num_filter": 3, "no_bias": True},
        "groups": {"kernel": (3, 3), "num_filter": 8, "num_group": 2, "pad": (1, 1)},
        "depthwise": {"kernel": (3, 3), "num_filter": 4, "num_group": 4},
        "dilated": {"kernel": (3, 3), "num_filter": 2, "dilate": (2, 3)},
    }.items():
        case(f"Convolution {name}", _operator("Convolution", **attributes), data=image)
    case("Convolution 1-D", _operator("Convolution", kernel=(3,), num_filter=5, pad=(1,)), data=(2, 4, 9))
    case("Convolution 3-D", _operator("Convolution", kernel=(2, 3, 3), num_filter=3), data=(1, 2, 4, 6, 5))
    for name, attributes in {
        "plain": {"kernel": (3, 3), "num_filter": 6},
        "strides, pads, adj": {
            "kernel": (4, 3),
            "num_filter": 3,
            "stride": (2, 3),
            "pad": (1, 1),
            "adj": (1, 2),
        },
        "bias": {"kernel": (2, 2), "num_filter": 3, "stride": (2, 2), "no_bias": False},
        "groups": {"kernel": (3, 3), "num_filter": 6, "num_group": 2, "stride": (2, 2)},
        "dilated": {"kernel": (3, 3), "num_filter": 2, "dilate": (2, 2)},
    }.items():
        case(f"Deconvolution {name}", _operator("Deconvolution", **attributes), data=image)
    # In float64, since MXNet's float32 path, oneDNN, fails on a target shape.
    case(
        "Deconvolution target shape",
        _operator("Deconvolution", kernel=(4, 4), num_filter=2, stride=(2, 2), target_shape=(17, 16)),
        dtype="float64",
        data=image,
    )
    case(
        "Deconvolution 1-D",
        _operator("Deconvolution", kernel=(3,), num_filter=5, stride=(2,)),
        data=(2, 4, 9),
    )

    case("FullyConnected", _operator("FullyConnected", num_hidden=5), data=(3, 7))
    case("FullyConnected flattens", _operator("FullyConnected", num_hidden=5), data=(3, 2, 4))
    case(
        "FullyConnected of rows",
        _operator("FullyConnected", num_hidden=5, flatten=False, no_bias=True),
        data=(3, 2, 4),
    )

    for kind in ("max", "avg", "sum"):
        window = {"pool_type": kind, "kernel": (3, 3)}
        case(f"Pooling {kind}", _operator("Pooling", stride=(2, 2), **window), data=image)
        case(f"Pooling {kind} pads", _operator("Pooling", stride=(2, 1), pad=(1, 1), **window), data=image)
        case(
            f"Pooling {kind} full",
            _operator("Pooling", stride=(2, 2), pad=(1, 1), pooling_convention="full", **window),
            data=(1, 2, 10, 8),
        )
        case(f"Pooling {kind} global", _operator("Pooling", global_pool=True, **window), data=image)
    case(
        "Pooling avg without padding",
        _operator("Pooling", pool_type="avg", kernel=(3, 3), pad=(1, 1), count_include_pad=False),
        data=image,
    )
    case(
        "Pooling avg full without padding",
        _operator(
            "Pooling",
            pool_type="avg",
            kernel=(3, 3),
            stride=(2, 2),
            pad=(1, 1),
            count_include_pad=False,
            pooling_convention="full",
        ),
        data=(1, 2, 10, 8),
    )
    case("Pooling 1-D", _operator("Pooling", kernel=(3,), stride=(2,)), data=(2, 3, 9))
    case(
        "Pooling 1-D same",
        # MXNet looks at three numbers of the padding; in float64, since its float32 path, oneDNN, fails.
        _operator("Pooling", kernel=(3,), stride=(2,), pad=(0, 0, 0), pooling_convention="same"),
        dtype="float64",
        data=(2, 3, 10),
    )
    case("Pooling 3-D", _operator("Pooling", kernel=(2, 2, 2), pool_type="avg"), data=(1, 2, 4, 5, 3))
    for power in (1, 2, 3):
        case(
            f"Pooling lp {power}",
            _operator("Pooling", kernel=(2, 2), stride=(2, 2), pool_type="lp", p_value=power),
            data=_spread(1, 2, 6, 6, low=0.1),
        )
    case("Pooling lp global", _operator("Pooling", global_pool=True, pool_type="lp", p_value=2), data=image)
    for size in ((), (3,), (2, 5)):
        case(
            f"AdaptiveAvgPooling2D {size}",
            lambda S, size=size: S.contrib.AdaptiveAvgPooling2D(S.var("data"), output_size=size),
            data=image,
        )

    case("BatchNorm", _operator("BatchNorm"), data=image)
    case("BatchNorm own gamma", _operator("BatchNorm", fix_gamma=False, eps=1e-5), data=image)
    case(
        "BatchNorm last axis",
        _operator("BatchNorm", fix_gamma=False, axis=-1, use_global_stats=True),
        data=(2, 3, 5),
    )
    case("BatchNorm float16", _operator("BatchNorm", fix_gamma=False), dtype="float16", data=image)
    case("BatchNorm_v1", _operator("BatchNorm_v1", fix_gamma=False), data=image)
    case("SyncBatchNorm", lambda S: S.contrib.SyncBatchNorm(S.var("data"), key="k", name="node"), data=image)
    case("Convolution_v1", _operator("Convolution_v1", kernel=(3, 3), num_filter=4, pad=(1, 0)), data=image)
    for convention in ("valid", "full"):
        case(
            f"Pooling_v1 avg {convention}",
            _operator(
                "Pooling_v1",
                pool_type="avg",
                kernel=(3, 3),
                stride=(2, 2),
                pad=(1, 1),
                pooling_convention=convention,
            ),
            data=(1, 2, 10, 8),
        )
    case("LayerNorm", _operator("LayerNorm"), data=(2, 5, 7))
    case("LayerNorm axis", _operator("LayerNorm", axis=1, eps=1e-3), data=(2, 5, 7))
    case("InstanceNorm", _operator("InstanceNorm"), data=image)
    case("InstanceNorm 1-D", _operator("InstanceNorm", eps=1e-5), data=(2, 3, 7))
    case("GroupNorm", _operator("GroupNorm", num_groups=2), data=image)
    for mode in ("instance", "channel", "spatial"):
        case(f"L2Normalization {mode}", _operator("L2Normalization", mode=mode), data=image)
    case("LRN", _operator("LRN", nsize=3, alpha=0.1, beta=0.5, knorm=1.5), data=(2, 7, 4, 3))
    case("LRN of defaults", _operator("LRN", nsize=5), data=(2, 7, 4, 3))

    for kind in ("relu", "sigmoid", "softrelu", "softsign", "tanh"):
        case(
            f"Activation {kind}",
            _operator("Activation", act_type=kind),
            data=_spread(4, 50, low=-30, high=30),
        )
    for kind in ("leaky", "elu", "selu", "gelu"):
        case(f"LeakyReLU {kind}", _operator("LeakyReLU", act_type=kind), data=_spread(4, 9))
    case("LeakyReLU rrelu", lambda S: S.LeakyReLU(S.var("data"), act_type="rrelu")[0], data=_spread(4, 9))
    case("LeakyReLU slope", _operator("LeakyReLU", act_type="leaky", slope=0.1), data=_spread(4, 9))
    case("LeakyReLU elu slope", _operator("LeakyReLU", act_type="elu", slope=0.7), data=_spread(4, 9))
    case("LeakyReLU prelu", _operator("LeakyReLU", act_type="prelu"), data=image)
    case(
        "LeakyReLU prelu of one slope",
        lambda S: S.LeakyReLU(S.var("data"), S.var("gamma", shape=(1,)), act_type="prelu"),
        data=image,
    )
    case("hard_sigmoid", _operator("hard_sigmoid", alpha=0.3, beta=0.4), data=_spread(4, 9))
    case("Dropout", _operator("Dropout", p=0.7), data=(3, 4))

    case("softmax", _operator("softmax"), data=(3, 4, 5))
    case("softmax axis, temperature", _operator("softmax", axis=1, temperature=2.5), data=(3, 4, 5))
    case("softmin", _operator("softmin", axis=1), data=(3, 4))
    case("log_softmax", _operator("log_softmax", temperature=0.5), data=(3, 4))
    case("SoftmaxActivation", _operator("SoftmaxActivation"), data=(3, 4))
    case("SoftmaxActivation channel", _operator("SoftmaxActivation", mode="channel"), data=(3, 4, 2, 2))
    case("SoftmaxOutput", _operator("SoftmaxOutput"), data=(3, 4))
    case("SoftmaxOutput flattens", _operator("SoftmaxOutput"), data=(3, 4, 2))
    case("SoftmaxOutput multi", _operator("SoftmaxOutput", multi_output=True), data=(3, 4, 2))
    case("SoftmaxOutput in shape", _operator("SoftmaxOutput", preserve_shape=True), data=(3, 4, 2))
    for loss in ("LinearRegressionOutput", "LogisticRegressionOutput", "MAERegressionOutput"):
        case(loss, _operator(loss), data=(3, 4))
    case("MakeLoss", _operator("MakeLoss"), data=(3, 4))

    for mode in ("constant", "edge", "reflect"):
        width = (0, 0, 0, 0, 1, 2, 3, 1)
        case(f"Pad {mode}", _operator("Pad", mode=mode, pad_width=width, constant_value=1.5), data=image)
    case(
        "Pad 3-D",
        _operator("Pad", mode="edge", pad_width=(0, 0, 0, 0, 1, 0, 2, 1, 0, 2)),
        data=(1, 2, 3, 4, 3),
    )
    case("UpSampling", _operator("UpSampling", scale=3, sample_type="nearest"), data=(1, 2, 3, 4))
    for mode in ("concat", "sum"):
        case(
            f"UpSampling {mode}",
            _operator(
                "UpSampling", "a", "b", scale=2, sample_type="nearest", multi_input_mode=mode, num_args=2
            ),
            a=(1, 2, 4, 6),
            b=(1, 2, 2, 3),
        )
    for scale in (2, 3):
        case(
            f"UpSampling bilinear {scale}",
            _operator(
                "UpSampling", "data", "weight", scale=scale, sample_type="bilinear", num_filter=2, num_args=2
            ),
            data=(1, 2, 3, 4),
        )
    for name, attributes in {
        "size": {"height": 7, "width": 9},
        "scale": {"scale_height": 1.5, "scale_width": 2.0},
        "half pixel": {"height": 8, "width": 3, "align_corners": False},
    }.items():
        case(
            f"BilinearResize2D {name}",
            lambda S, attributes=attributes: S.contrib.BilinearResize2D(S.var("data"), **attributes),
            data=(1, 2, 4, 5),
        )
    case("Crop", _operator("Crop", "data", offset=(1, 2), h_w=(4, 3), num_args=1), data=image)
    case(
        "Crop like",
        _operator("Crop", "data", "like", center_crop=True, num_args=2),
        data=image,
        like=(1, 1, 5, 4),
    )


def _elementwise_cases() -> None:
    for name in (
        "abs", "arctan", "arcsinh", "cbrt", "ceil", "cos", "cosh", "degrees", "erf", "exp", "expm1", "fix",
        "floor", "identity", "logical_not", "negative", "ones_like", "radians", "rcbrt", "reciprocal", "relu",
        "sigmoid", "sign", "sin", "sinh", "softsign", "square", "stop_gradient", "tan", "tanh", "trunc",
        "zeros_like", "smooth_l1",
    ):  # fmt: skip
        case(name, _operator(name), data=_spread(4, 25))
    for name in ("log", "log10", "log1p", "log2", "rsqrt", "sqrt"):
        case(name, _operator(name), data=_spread(4, 25, low=1e-3, high=20))
    for name in ("arccos", "arcsin", "arctanh", "log1p"):
        case(f"{name} within 1", _operator(name), data=_spread(4, 25, low=-0.9, high=0.9))
    case("arccosh", _operator("arccosh"), data=_spread(4, 25, low=1.0, high=9))
    for name in ("expm1", "log1p"):
        case(f"{name} of little", _operator(name), data=_spread(4, 25, low=-1e-4, high=1e-4))
    halves = np.arange(-4, 4.25, 0.25, dtype="float32")
    for name in ("rint", "round", "trunc", "fix", "ceil", "floor"):
        case(f"{name} of halves", _operator(name), data=halves)
    case("div_sqrt_dim", lambda S: S.contrib.div_sqrt_dim(S.var("data")), data=(3, 5))
    case("clip", _operator("clip", a_min=-1.0, a_max=0.5), data=_spread(4, 9))
    case("smooth_l1 of scalar", _operator("smooth_l1", scalar=2.0), data=_spread(4, 9))

    pair = {"a": _whole(3, 4, low=-3, high=4), "b": _whole(3, 4, low=-3, high=4).T.reshape(3, 4)}
    other_row = {"a": pair["a"], "b": _whole(1, 4, low=-2, high=3)}
    power = {"a": _spread(3, 4, low=0.2, high=3), "b": _spread(1, 4)}
    for name in ("add", "sub", "mul", "div"):
        case(f"elemwise_{name}", _operator(f"elemwise_{name}", "a", "b"), a=(3, 4), b=(3, 4))
        case(f"broadcast_{name}", _operator(f"broadcast_{name}", "a", "b"), a=(3, 1, 4), b=(1, 2, 1))
    case("broadcast_power", _operator("broadcast_power", "a", "b"), **power)
    for name in (
        "mod", "maximum", "minimum", "hypot", "equal", "not_equal", "greater", "greater_equal", "lesser",
        "lesser_equal", "logical_and", "logical_or", "logical_xor",
    ):  # fmt: skip
        case(f"broadcast_{name}", _operator(f"broadcast_{name}", "a", "b"), **other_row)
    for name in ("_mod", "_maximum", "_minimum", "_hypot", "_equal", "_not_equal", "_greater", "_lesser"):
        case(name, _operator(name, "a", "b"), **pair)
    case("_power", _operator("_power", "a", "b"), a=power["a"], b=_spread(3, 4))
    for name in (
        "_plus_scalar", "_minus_scalar", "_rminus_scalar", "_mul_scalar", "_div_scalar", "_rdiv_scalar",
        "_mod_scalar", "_rmod_scalar", "_maximum_scalar", "_minimum_scalar", "_hypot_scalar",
    ):  # fmt: skip
        case(name, _operator(name, scalar=1.5, is_int=False), data=_spread(4, 8))
    for name in ("_mod_scalar", "_rmod_scalar"):
        case(f"{name} negative", _operator(name, scalar=-2, is_int=True), data=_whole(4, 8, low=-5, high=6))
    for name in ("_power_scalar", "_rpower_scalar"):
        case(name, _operator(name, scalar=1.7, is_int=False), data=_spread(4, 8, low=0.1))
    for name in (
        "_equal_scalar", "_not_equal_scalar", "_greater_scalar", "_greater_equal_scalar", "_lesser_scalar",
        "_lesser_equal_scalar", "_logical_and_scalar", "_logical_or_scalar", "_logical_xor_scalar",
    ):  # fmt: skip
        case(name, _operator(name, scalar=1, is_int=True), data=_whole(4, 8, low=-2, high=3))
    whole = _whole(4, 8, low=-9, high=10).astype("int32")
    case("_plus_scalar int32", _operator("_plus_scalar", scalar=3, is_int=True), dtype="int32", data=whole)
    case(
        "_mul_scalar to float64",
        _operator("_mul_scalar", scalar=1.5, is_int=False),
        dtype="int32",
        data=whole,
    )
    case("add_n", _operator("add_n", "a", "b", "c"), a=(3, 4), b=(3, 4), c=(3, 4))
    case("where", _operator("where", "c", "x", "y"), c=_whole(3, 4, high=2), x=(3, 4), y=(3, 4))
    case("where by row", _operator("where", "c", "x", "y"), c=_whole(3, high=2), x=(3, 4), y=(3, 4))
    case("Cast to int32", _operator("Cast", dtype="int32"), data=_spread(4, 9))
    case("Cast to float16", _operator("Cast", dtype="float16"), data=_spread(4, 9))
    case("Cast to bool", _operator("Cast", dtype="bool"), data=_whole(4, 9, high=2))
    case("amp_cast", _operator("amp_cast", dtype="float16"), data=_spread(4, 9))

    for name in ("sum", "mean", "prod", "max", "min"):
        case(f"{name} of all", _operator(name), data=(2, 3, 4))
        case(f"{name} axis", _operator(name, axis=1), data=(2, 3, 4))
        case(f"{name} axes kept", _operator(name, axis=(0, -1), keepdims=True), data=(2, 3, 4))
        case(f"{name} but axis", _operator(name, axis=1, exclude=True), data=(2, 3, 4))
    for order in (1, 2):
        case(f"norm {order}", _operator("norm", ord=order, axis=(1, 2)), data=(2, 3, 4))
        case(f"norm {order} of all", _operator("norm", ord=order), data=(2, 3, 4))
    case("norm kept", _operator("norm", axis=0, keepdims=True), data=(2, 3, 4))
    for name in ("argmax", "argmin"):
        case(f"{name} of all", _operator(name), data=_spread(2, 3, 4))
        case(f"{name} axis", _operator(name, axis=1), data=_spread(2, 3, 4))
        case(f"{name} kept", _operator(name, axis=-1, keepdims=True), data=_spread(2, 3, 4))
        case(f"{name} of equals", _operator(name, axis=1), data=_whole(3, 20, high=3))
    case("argmax_channel", _operator("argmax_channel"), data=_spread(3, 5))


def _tensor_cases() -> None:
    for name, shape in {
        "size": (4, 12),
        "keep": (0, 24),
        "open": (-1, 4),
        "keep, open": (0, -1),
        "rest": (2, -2),
        "join": (0, -3),
        "split": (-4, 1, 2, -2),
        "split open": (0, -4, -1, 2, 0),
        "join, open": (-3, -1),
    }.items():
        case(f"Reshape {name}", _operator("Reshape", shape=shape), data=(2, 6, 4))
    case("Reshape reverse", _operator("Reshape", shape=(-1, 0), reverse=True), data=(2, 6, 4))
    case("Reshape reverse split", _operator("Reshape", shape=(0, 3, 2, -4, 0), reverse=True), data=(2, 6, 4))
    case("Reshape target_shape", _operator("Reshape", target_shape=(2, 0)), data=(2, 6, 4))
    case(
        "Reshape keep_highest",
        _operator("Reshape", target_shape=(1, 0, 3), keep_highest=True),
        data=(2, 6, 4),
    )
    case("reshape_like", _operator("reshape_like", "a", "b"), a=(2, 6), b=(3, 4))
    case(
        "reshape_like range",
        _operator("reshape_like", "a", "b", lhs_begin=0, lhs_end=1, rhs_begin=1, rhs_end=3),
        a=(6, 5),
        b=(7, 2, 3),
    )
    case("Flatten", _operator("Flatten"), data=(2, 3, 4))
    case("expand_dims", _operator("expand_dims", axis=1), data=(2, 3))
    case("expand_dims at the end", _operator("expand_dims", axis=-1), data=(2, 3))
    case("squeeze", _operator("squeeze"), data=(1, 3, 1, 2))
    case("squeeze axis", _operator("squeeze", axis=(0, -2)), data=(1, 3, 1, 2))
    case("squeeze of ones", _operator("squeeze"), data=(1, 1))
    case("transpose", _operator("transpose"), data=(2, 3, 4))
    case("transpose axes", _operator("transpose", axes=(1, 2, 0)), data=(2, 3, 4))
    case("SwapAxis", _operator("SwapAxis", dim1=0, dim2=2), data=(2, 3, 4))
    case("depth_to_space", _operator("depth_to_space", block_size=2), data=(1, 8, 2, 3))
    case("space_to_depth", _operator("space_to_depth", block_size=2), data=(1, 2, 4, 6))
    case("Concat", _operator("Concat", "a", "b"), a=(2, 3, 2), b=(2, 1, 2))
    case("Concat dim", _operator("Concat", "a", "b", "c", dim=-1), a=(2, 3), b=(2, 1), c=(2, 4))
    case("stack", _operator("stack", "a", "b", axis=1), a=(2, 3), b=(2, 3))

    case("slice", _operator("slice", begin=(1, None), end=(3, 2)), data=(4, 5, 2))
    case("slice from the end", _operator("slice", begin=(-3, 0), end=(-1, None)), data=(4, 5))
    case(
        "slice backwards",
        _operator("slice", begin=(None, 4), end=(None, 0), step=(-1, -2)),
        data=(4, 5),
    )
    case("slice_axis", _operator("slice_axis", axis=-1, begin=1, end=-1), data=(2, 5))
    case("slice_axis to the end", _operator("slice_axis", axis=0, begin=-1, end=None), data=(2, 5))
    case("slice_like", _operator("slice_like", "a", "b"), a=(4, 5), b=(2, 3))
    case("slice_like axes", _operator("slice_like", "a", "b", axes=(1,)), a=(4, 5), b=(2, 3))
    case("split", _operator("split", num_outputs=3, axis=1), data=(2, 6))
    case("split squeezed", _operator("split", num_outputs=2, axis=0, squeeze_axis=True), data=(2, 6))
    case("split in one", _operator("split", num_outputs=1), data=(2, 6))
    case("split_v2 indices", lambda S: S.split_v2(S.var("data"), (2, 3), axis=1), data=(2, 6))
    case("split_v2 sections", lambda S: S.split_v2(S.var("data"), 3, axis=1), data=(2, 6))
    case("part of a split", lambda S: S.split(S.var("data"), num_outputs=3, axis=1)[1], data=(2, 6))
    case("tile", _operator("tile", reps=(2, 1, 3)), data=(2, 3))
    case("tile of few", _operator("tile", reps=(2,)), data=(2, 3))
    case("repeat", _operator("repeat", repeats=2, axis=-1), data=(2, 3))
    case("repeat of all", _operator("repeat", repeats=2), data=(2, 3))
    case("reverse", _operator("reverse", axis=(0, 2)), data=(2, 3, 4))
    case("broadcast_to", _operator("broadcast_to", shape=(4, 0, 3)), data=(1, 2, 1))
    case("broadcast_axis", _operator("broadcast_axis", axis=(0, 2), size=(4, 3)), data=(1, 2, 1))
    case("broadcast_like", _operator("broadcast_like", "a", "b"), a=(1, 2), b=(3, 2))
    case(
        "broadcast_like axes",
        _operator("broadcast_like", "a", "b", lhs_axes=(0,), rhs_axes=(1,)),
        a=(1, 2),
        b=(3, 5),
    )

    for name in ("zeros", "ones"):
        case(name, lambda S, name=name: S.var("data") * 2 + getattr(S, name)((3, 4)), data=(3, 4))
    case("full", lambda S: S.var("data") + S.full((3, 4), 2.5), data=(3, 4))
    case("arange", lambda S: S.broadcast_add(S.var("data"), S.arange(1, 9, 2)), data=(3, 4))
    case("arange repeat", lambda S: S.broadcast_add(S.var("data"), S.arange(2, repeat=2)), data=(3, 4))
    case("arange_like", lambda S: S.contrib.arange_like(S.var("data"), start=2, step=0.5), data=(3, 4))
    case("arange_like axis", lambda S: S.contrib.arange_like(S.var("data"), axis=1, repeat=2), data=(3, 4))

    indices = _whole(2, 3, low=-2, high=7)
    for mode in ("clip", "wrap"):
        case(f"take {mode}", _operator("take", "a", "i", axis=1, mode=mode), a=(2, 5, 3), i=indices)
        case(f"pick {mode}", _operator("pick", "a", "i", mode=mode), a=(2, 3, 4), i=indices)
    case("pick axis", _operator("pick", "a", "i", axis=1, keepdims=True), a=(2, 4, 3), i=indices)
    case(
        "batch_take",
        lambda S: S.batch_take(S.var("a"), S.cast(S.var("i"), "int32")),
        a=(3, 4),
        i=_whole(3, high=4),
    )
    case("Embedding", _operator("Embedding", input_dim=7, output_dim=4), data=_whole(2, 3, high=7))
    case("Embedding out of range", _operator("Embedding", input_dim=5, output_dim=4), data=indices)
    case("gather_nd", _operator("gather_nd", "a", "i"), a=(3, 4, 5), i=_whole(2, 6, high=3))
    case("gather_nd of elements", _operator("gather_nd", "a", "i"), a=(3, 4), i=_whole(2, 2, 3, high=3))
    case("one_hot", _operator("one_hot", depth=4), data=_whole(2, 3, low=-1, high=6))
    case("one_hot values", _operator("one_hot", depth=4, on_value=3, off_value=-1), data=_whole(5, high=4))
    for ascending in (True, False):
        case(f"sort {ascending}", _operator("sort", axis=0, is_ascend=ascending), data=_spread(5, 3))
        case(f"argsort {ascending}", _operator("argsort", is_ascend=ascending), data=_spread(3, 5))
        for wanted in ("value", "indices", "both", "mask"):
            case(
                f"topk {wanted} {ascending}",
                _operator("topk", k=2, axis=1, ret_typ=wanted, is_ascend=ascending),
                data=_spread(2, 5, 3),
            )
    case("sort of all", _operator("sort", axis=None), data=_spread(3, 5))
    case("topk of all", _operator("topk", k=4, axis=None), data=_spread(3, 5))

    for left, right in ((False, False), (True, False), (False, True), (True, True)):
        flags = {"transpose_a": left, "transpose_b": right}
        a, b = ((4, 3) if left else (3, 4)), ((5, 4) if right else (4, 5))
        case(f"dot {left} {right}", _operator("dot", "a", "b", **flags), a=a, b=b)
        case(f"batch_dot {left} {right}", _operator("batch_dot", "a", "b", **flags), a=(2, *a), b=(2, *b))
        case(
            f"linalg_gemm2 {left} {right}",
            lambda S, flags=flags: S.linalg.gemm2(S.var("a"), S.var("b"), alpha=0.5, **flags),
            a=(2, *a),
            b=(2, *b),
        )
    case("linalg_gemm", lambda S: S.linalg.gemm(S.var("a"), S.var("b"), S.var("c"), alpha=2.0, beta=0.5),
         a=(2, 3, 4), b=(2, 4, 5), c=(2, 3, 5))  # fmt: skip
    case("dot of vectors", _operator("dot", "a", "b"), a=(4,), b=(4,))
    case("dot of many dimensions", _operator("dot", "a", "b"), a=(2, 3, 4), b=(4, 5))
    case("dot with a parameter", lambda S: S.dot(S.var("data"), S.var("weight", shape=(3, 4))), data=(2, 3))


def _sequence_cases() -> None:
    lengths = np.array([2, 5, 1], "float32")
    for axis, shape in enumerate(((5, 3, 2), (3, 5, 2))):
        mask = _operator("SequenceMask", "data", "n", use_sequence_length=True, value=-1, axis=axis)
        last = _operator("SequenceLast", "data", "n", use_sequence_length=True, axis=axis)
        case(f"SequenceMask {axis}", mask, data=shape, n=lengths)
        case(f"SequenceLast {axis}", last, data=shape, n=lengths)
        case(f"SequenceLast {axis} without lengths", _operator("SequenceLast", axis=axis), data=shape)
    case("SequenceMask without lengths", _operator("SequenceMask"), data=(5, 3, 2))
    case("SequenceReverse without lengths", _operator("SequenceReverse"), data=(5, 3, 2))
    reverse = _operator("SequenceReverse", "data", "n", use_sequence_length=True)
    case("SequenceReverse", reverse, data=(5, 3, 2), n=lengths)

    for mode in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
        for kind, layers, bidirectional in (("plain", 1, False), ("deep, bidirectional", 2, True)):
            for states in (False, True):
                case(
                    f"RNN {mode} {kind}{', states' if states else ''}",
                    _recurrent(mode, layers, bidirectional, states),
                    data=(4, 3, 5),
                )
    case("RNN lstm long", _recurrent("lstm", 1, False, True), data=(20, 3, 3))
    case("RNN lstm projection", _recurrent("lstm", 2, False, True, projection_size=3), data=(4, 3, 5))


def _recurrent(
    mode: str, layers: int, bidirectional: bool, states: bool, projection_size: int | None = None
) -> Callable[[Any], Any]:
    rows = layers * (2 if bidirectional else 1)

    def build(S: Any) -> Any:
        attributes = {"projection_size": projection_size} if projection_size else {}
        state = S.var("state", shape=(rows, 3, projection_size or 4))
        cell = [S.var("cell", shape=(rows, 3, 4))] if mode == "lstm" else []
        return S.RNN(
            S.var("data"),
            S.var("parameters"),
            state,
            *cell,
            state_size=4,
            num_layers=layers,
            mode=mode,
            bidirectional=bidirectional,
            state_outputs=states,
            name="node",
            **attributes,
        )

    return build


def _graph_cases() -> None:
    case("an input as output", lambda S: (lambda a: S.Group([a + 1, a]))(S.var("a")), a=(2, 3))
    case("one node twice", lambda S: S.Group([S.relu(S.var("a"), name="node")] * 2), a=(2, 3))
    case(
        "several outputs",
        lambda S: S.Group([S.relu(S.var("a")), S.sum(S.var("b"), axis=0)]),
        a=(2, 3),
        b=(4, 5),
    )
    case(
        "an output without input",
        lambda S: S.Group([S.relu(S.var("a")), S.var("w", shape=(2, 2), dtype="float32") * 2]),
        a=(2, 3),
    )
    case("float64", _operator("FullyConnected", num_hidden=5), dtype="float64", data=(3, 7))


_layer_cases()
_elementwise_cases()
_tensor_cases()
_sequence_cases()
_graph_cases()


def main() -> None:
    """Answer requests on standard input, a line of JSON each, on standard output.

    `{"case": name}`, `{"zoo": name}` and `{"gluon": name}` write a model and what MXNet computes with it to
    the "folder" that the request names: `model-symbol.json`, `model-0000.params` and `values.npz`, with the
    inputs by name and the outputs as `output_0`, ... `{"weights": path}` does so for EfficientNet-Lite0 on
    the images in `values.npz`, and `{"load": true}` for the model that is there. Their answer names the
    outputs.

    `{"arrays": path}` writes the arrays of an NDArray file to `arrays.npz`. `{"operators": true}` is answered
    with the names of all operators.
    """
    import mxnet as mx

    answers, sys.stdout = sys.stdout, sys.stderr  # MXNet prints warnings to standard output
    for line in sys.stdin:
        try:
            answer = _answer(mx, json.loads(line))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def _answer(mx: Any, request: dict[str, Any]) -> dict[str, Any]:
    if "operators" in request:
        return {"operators": mx.operator.get_all_registered_operators()}
    folder = Path(request["folder"])
    if "arrays" in request:
        with mx.util.np_shape(request.get("scalars", False)):
            arrays = mx.nd.load(request["arrays"])
        np.savez(folder / "arrays.npz", **{name: array.asnumpy() for name, array in arrays.items()})
        return {}
    if "case" in request:
        return {"outputs": _write_case(mx, request["case"], folder)}
    if "zoo" in request:
        return {"outputs": _write_zoo(mx, request["zoo"], folder)}
    if "gluon" in request:
        return {"outputs": _write_gluon(mx, request["gluon"], folder)}
    if "weights" in request:
        with np.load(request["weights"]) as weights:
            mxnet_efficientnet_lite0.export(dict(weights), folder)
    return {"outputs": _write_outputs(mx, folder)}


def _write_case(mx: Any, name: str, folder: Path) -> list[str]:
    chosen = CASES[name]
    random = np.random.RandomState(zlib.crc32(name.encode()))
    symbol = chosen.build(mx.sym)
    inputs = {
        key: value if isinstance(value, np.ndarray) else random.normal(0, 1, value)
        for key, value in chosen.inputs.items()
    }
    inputs = {key: value.astype(chosen.dtype) for key, value in inputs.items()}
    given = {key: value.shape for key, value in inputs.items() if key in symbol.list_inputs()}
    shapes, _, aux_shapes = symbol.infer_shape(**given)
    types, _, aux_types = symbol.infer_type(**{key: chosen.dtype for key in given})
    values = {}
    for names, sizes, dtypes in (
        (symbol.list_arguments(), shapes, types),
        (symbol.list_auxiliary_states(), aux_shapes, aux_types),
    ):
        for key, size, dtype in zip(names, sizes, dtypes, strict=True):
            value = inputs[key] if key in inputs else _parameter(random, key, size)
            values[key] = mx.nd.array(value, dtype=dtype)
    auxiliary = {key: values.pop(key) for key in symbol.list_auxiliary_states()}
    executor = symbol.bind(mx.cpu(), values, aux_states=auxiliary)
    outputs = [output.asnumpy() for output in executor.forward(is_train=False)]
    saved = {f"arg:{key}": value for key, value in values.items() if key not in inputs and "label" not in key}
    saved.update({f"aux:{key}": value for key, value in auxiliary.items()})
    symbol.save(str(folder / "model-symbol.json"))
    mx.nd.save(str(folder / "model-0000.params"), saved)
    _write_values(folder, inputs, outputs)
    return symbol.list_outputs()


def _parameter(random: np.random.RandomState, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name.endswith("var"):
        return random.uniform(0.5, 1.5, shape)
    return random.normal(1.0 if name.endswith("gamma") else 0.0, 0.5, shape)


def _write_zoo(mx: Any, name: str, folder: Path) -> list[str]:
    network = mx.gluon.model_zoo.vision.get_model(name, classes=100)
    image = np.random.RandomState(0).normal(0, 1, (1, 3, ZOO[name], ZOO[name])).astype("float32")
    return _write_network(mx, network, image, folder)


def _write_gluon(mx: Any, name: str, folder: Path) -> list[str]:
    build, data = GLUON[name]
    return _write_network(mx, build(mx.gluon), data, folder)


def _write_network(mx: Any, network: Any, data: np.ndarray, folder: Path) -> list[str]:
    mx.random.seed(0)
    random = np.random.RandomState(0)
    network.initialize(mx.init.Xavier())
    network.hybridize()
    network(mx.nd.array(data))
    for key, parameter in network.collect_params().items():
        if key.endswith(("running_mean", "running_var", "gamma", "beta", "bias")):
            parameter.set_data(mx.nd.array(_parameter(random, key, parameter.shape)))
    output = network(mx.nd.array(data))
    network.export(str(folder / "model"))
    _write_values(folder, {"data": data}, [output.asnumpy()])
    return mx.sym.load(str(folder / "model-symbol.json")).list_outputs()


def _write_outputs(mx: Any, folder: Path) -> list[str]:
    """Add the outputs of the model in `folder` to its inputs."""
    symbol = mx.sym.load(str(folder / "model-symbol.json"))
    saved = mx.nd.load(str(folder / "model-0000.params"))
    with np.load(folder / "values.npz") as archive:
        inputs = {key.partition(" ")[2]: archive[key] for key in archive if key.startswith("input ")}
    values = {key.partition(":")[2]: value for key, value in saved.items()}
    values.update({key: mx.nd.array(value) for key, value in inputs.items()})
    auxiliary = {key: values.pop(key) for key in symbol.list_auxiliary_states()}
    executor = symbol.bind(mx.cpu(), values, aux_states=auxiliary)
    _write_values(folder, inputs, [output.asnumpy() for output in executor.forward(is_train=False)])
    return symbol.list_outputs()


def _write_values(folder: Path, inputs: dict[str, np.ndarray], outputs: list[np.ndarray]) -> None:
    numbered = {f"output_{index}": output for index, output in enumerate(outputs)}
    np.savez(folder / "values.npz", **{f"input {key}": value for key, value in inputs.items()}, **numbered)


if __name__ == "__main__":
    main()
