"""MXNet's layers: convolution, pooling, normalisation, activation, and what resizes images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tvm.relax import op

from tvm import relax

from ..common import ModelError
from .context import (
    Context,
    axis_of,
    converts,
    dtype_of,
    reshape,
    scalar,
    shape_of,
    size_of,
    sizes_of,
)
from .elementwise import softsign
from .model import Attributes

_CONVOLUTIONS = {1: op.nn.conv1d, 2: op.nn.conv2d, 3: op.nn.conv3d}
_DECONVOLUTIONS = {1: op.nn.conv1d_transpose, 2: op.nn.conv2d_transpose, 3: op.nn.conv3d_transpose}
_MAX_POOLS = {1: op.nn.max_pool1d, 2: op.nn.max_pool2d, 3: op.nn.max_pool3d}
_AVG_POOLS = {1: op.nn.avg_pool1d, 2: op.nn.avg_pool2d, 3: op.nn.avg_pool3d}


def _check_layout(attributes: Attributes) -> None:
    layout = attributes.text("layout", None)
    if layout not in (None, "NCW", "NCHW", "NCDHW"):
        raise ModelError(f"layout '{layout}' is not supported: channels come second")


def _window(attributes: Attributes) -> tuple[list[int], list[int], list[int], list[int]]:
    """Kernel, stride, dilation and padding, a number for each spatial dimension."""
    kernel = attributes.integers("kernel", minimum=1)
    strides = attributes.integers("stride", (), minimum=1) or (1,) * len(kernel)
    dilation = attributes.integers("dilate", (), minimum=1) or (1,) * len(kernel)
    # MXNet takes a longer padding, too, and reads its beginning.
    pads = (attributes.integers("pad", (), minimum=0) or (0,) * len(kernel))[: len(kernel)]
    if not 1 <= len(kernel) <= 3 or not len(kernel) == len(strides) == len(dilation) == len(pads):
        raise ModelError("kernel, stride, dilate and pad do not have the same number of dimensions, 1 to 3")
    return list(kernel), list(strides), list(dilation), list(pads)


def _along_channels(vector: relax.Expr, rank: int) -> relax.Expr:
    """`vector`, one number for each channel, in a shape that broadcasts along the second dimension."""
    return reshape(vector, [1, -1] + [1] * (rank - 2))


def _accumulated(compute: Callable[[str | None], relax.Expr], data: relax.Expr) -> relax.Expr:
    """A sum of products, in float32 where `data` is float16, as MXNet computes it."""
    if dtype_of(data) != "float16":
        return compute(None)
    return op.astype(compute("float32"), "float16")


def _with_bias(
    context: Context, attributes: Attributes, result: relax.Expr, bias: Sequence[relax.Expr], default: bool
) -> relax.Expr:
    if attributes.flag("no_bias", default):
        return result
    result = context.emit(result)
    return op.add(result, _along_channels(bias[0], result.ty.ndim))


@converts("Convolution", "Convolution_v1")
def _convolution(
    context: Context, attributes: Attributes, data: relax.Expr, weight: relax.Expr, *bias: relax.Expr
) -> relax.Expr:
    _check_layout(attributes)
    kernel, strides, dilation, pads = _window(attributes)
    groups = attributes.integer("num_group", 1, minimum=1)

    def convolve(out_dtype: str | None) -> relax.Expr:
        return _CONVOLUTIONS[len(kernel)](
            data, weight, strides, pads * 2, dilation, groups, out_dtype=out_dtype
        )

    return _with_bias(context, attributes, _accumulated(convolve, data), bias, default=False)


@converts("Deconvolution")
def _deconvolution(
    context: Context, attributes: Attributes, data: relax.Expr, weight: relax.Expr, *bias: relax.Expr
) -> relax.Expr:
    _check_layout(attributes)
    kernel, strides, dilation, pads = _window(attributes)
    adjustment = list(attributes.integers("adj", (), minimum=0) or (0,) * len(kernel))
    target = attributes.integers("target_shape", (), minimum=0)
    if target and any(target):
        # The target decides the padding, of which an odd rest goes to the end.
        for axis, size in enumerate(sizes_of(data, 2)):
            excess = strides[axis] * (size - 1) + dilation[axis] * (kernel[axis] - 1) + 1 - target[axis]
            if excess < 0:
                raise ModelError("attribute 'target_shape' is larger than what the kernel reaches")
            pads[axis], adjustment[axis] = (excess + 1) // 2, excess % 2
    groups = attributes.integer("num_group", 1, minimum=1)

    def deconvolve(out_dtype: str | None) -> relax.Expr:
        return _DECONVOLUTIONS[len(kernel)](
            data, weight, strides, pads * 2, adjustment, dilation, groups, out_dtype=out_dtype
        )

    return _with_bias(context, attributes, _accumulated(deconvolve, data), bias, default=True)


@converts("FullyConnected")
def _fully_connected(
    context: Context, attributes: Attributes, data: relax.Expr, weight: relax.Expr, *bias: relax.Expr
) -> relax.Expr:
    if attributes.flag("flatten", True) and data.ty.ndim != 2:
        first, *others = shape_of(data)
        data = context.emit(reshape(data, [first, math.prod(others)]))
    product = _accumulated(lambda out_dtype: op.matmul(data, op.permute_dims(weight), out_dtype), data)
    return product if attributes.flag("no_bias", False) else op.add(product, bias[0])


@converts("Pooling_v1")
def _pooling_v1(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
    # It divides by the whole kernel, wherever that lies.
    kind = attributes.text("pool_type", "max")
    if attributes.flag("global_pool", False):
        return _global_pool(data)(kind, data)
    pool = _window_pool(attributes, data)
    if kind != "avg":
        return pool(kind, data)
    area = math.prod(attributes.integers("kernel"))
    return op.divide(pool("sum", data), scalar(area, data))


@converts("Pooling")
def _pooling(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
    _check_layout(attributes)
    kind = attributes.text("pool_type", "max")
    if attributes.flag("global_pool", False):
        pool = _global_pool(data)
    else:
        pool = _window_pool(attributes, data)
    if kind != "lp":
        return pool(kind, data)
    power = attributes.integer("p_value")
    if power == 1:
        return pool("sum", data)
    if power == 2:
        return op.sqrt(pool("sum", op.multiply(data, data)))
    if power == 3:
        total = context.emit(pool("sum", op.multiply(op.multiply(data, data), data)))
        return op.multiply(op.sign(total), op.power(op.abs(total), scalar(1.0 / 3.0, data)))
    raise ModelError(f"attribute 'p_value' cannot be {power}: 1, 2 and 3 are supported")


Pool = Callable[[str, relax.Expr], relax.Expr]


def _global_pool(data: relax.Expr) -> Pool:
    axes = list(range(2, data.ty.ndim))
    functions = {"max": op.max, "avg": op.mean, "sum": op.sum}
    return lambda kind, values: functions[kind](values, axes, keepdims=True)


def _window_pool(attributes: Attributes, data: relax.Expr) -> Pool:
    kernel, strides, _, pads = _window(attributes)
    rank = len(kernel)
    convention = attributes.text("pooling_convention", "valid")
    # How far the windows reach past the padding at the end; MXNet counts nothing there.
    beyond = [0] * rank
    if convention in ("full", "same"):
        for axis, size in enumerate(sizes_of(data, 2)):
            padded = size + 2 * pads[axis]
            rest = padded - kernel[axis] if convention == "full" else padded - 1
            last = -(-rest // strides[axis]) if convention == "full" else rest // strides[axis]
            beyond[axis] = max(0, last * strides[axis] + kernel[axis] - padded)
    elif convention != "valid":
        raise ModelError(f"attribute 'pooling_convention' cannot be '{convention}'")
    ends = [pad + more for pad, more in zip(pads, beyond, strict=True)]
    counted = attributes.flag("count_include_pad", None) in (None, True)

    def pool(kind: str, values: relax.Expr) -> relax.Expr:
        if kind == "max":
            return _MAX_POOLS[rank](values, kernel, strides, [*pads, *ends])
        if kind == "sum":
            mean = _AVG_POOLS[rank](values, kernel, strides, [*pads, *ends], count_include_pad=True)
            return op.multiply(mean, scalar(math.prod(kernel), data))
        if kind != "avg":
            raise ModelError(f"attribute 'pool_type' cannot be '{kind}'")
        if counted and any(beyond):
            # Padding that counts, then reach that does not.
            width = [0, 0, 0, 0, *(pad for pad in pads for _ in range(2))]
            padded = op.nn.pad(values, width)
            return _AVG_POOLS[rank](padded, kernel, strides, [0] * rank + beyond, count_include_pad=False)
        return _AVG_POOLS[rank](values, kernel, strides, [*pads, *ends], count_include_pad=counted)

    return pool


@converts("_contrib_AdaptiveAvgPooling2D")
def _adaptive_avg_pooling(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
    size = attributes.integers("output_size", (), minimum=1) or (1,)
    return op.nn.adaptive_avg_pool2d(data, tuple(size) * 2 if len(size) == 1 else size)


@converts("BatchNorm", "BatchNorm_v1", "_contrib_SyncBatchNorm")
def _batch_norm(
    context: Context,
    attributes: Attributes,
    data: relax.Expr,
    gamma: relax.Expr,
    beta: relax.Expr,
    mean: relax.Expr,
    variance: relax.Expr,
) -> relax.Expr:
    if attributes.flag("fix_gamma", True):
        sizes = sizes_of(gamma)
        context.reserve(4 * math.prod(sizes))
        gamma = context.parameter(f"{context.node}.gamma", np.ones(sizes, "float32"))
    # In float32 also where the data is float16.
    dtype = dtype_of(data)
    statistics = [context.astype(item, "float32") for item in (gamma, beta, mean, variance)]
    normalised = op.nn.batch_norm(
        context.astype(data, "float32"),
        *statistics,
        axis=axis_of(data, attributes.integer("axis", 1)),
        epsilon=attributes.number("eps", 1e-3),
        training=False,
    )
    return context.astype(context.emit(normalised)[0], dtype)


@converts("LayerNorm")
def _layer_norm(
    context: Context, attributes: Attributes, data: relax.Expr, gamma: relax.Expr, beta: relax.Expr
) -> relax.Expr:
    axis = axis_of(data, attributes.integer("axis", -1))
    return op.nn.layer_norm(data, gamma, beta, [axis], attributes.number("eps", 1e-5))


@converts("InstanceNorm")
def _instance_norm(
    context: Context, attributes: Attributes, data: relax.Expr, gamma: relax.Expr, beta: relax.Expr
) -> relax.Expr:
    axes = list(range(2, data.ty.ndim))
    return op.nn.instance_norm(data, gamma, beta, 1, axes, attributes.number("eps", 1e-3))


@converts("GroupNorm")
def _group_norm(
    context: Context, attributes: Attributes, data: relax.Expr, gamma: relax.Expr, beta: relax.Expr
) -> relax.Expr:
    groups = attributes.integer("num_groups", 1, minimum=1)
    # MXNet has one gamma and beta for each group, Relax for each channel.
    channels = size_of(data, 1) // groups
    gamma, beta = op.repeat(gamma, channels, 0), op.repeat(beta, channels, 0)
    axes = list(range(2, data.ty.ndim))
    return op.nn.group_norm(data, gamma, beta, groups, 1, axes, attributes.number("eps", 1e-5))


@converts("L2Normalization")
def _l2_normalization(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
    mode = attributes.text("mode", "instance")
    axes = {
        "instance": list(range(1, data.ty.ndim)),
        "channel": [1],
        "spatial": list(range(2, data.ty.ndim)),
    }
    if mode not in axes:
        raise ModelError(f"attribute 'mode' cannot be '{mode}'")
    total = op.sum(op.multiply(data, data), axes[mode], keepdims=True)
    return op.divide(data, op.sqrt(op.add(total, scalar(attributes.number("eps", 1e-10), data))))


@converts("LRN")
def _lrn(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
    size = attributes.integer("nsize", minimum=1)
    shape = shape_of(data)
    # The mean over a window of channels, as a pooling over images whose rows are the channels.
    rows = [shape[0], 1, shape[1], math.prod(shape[2:])]
    squares = reshape(op.multiply(data, data), rows)
    means = op.nn.avg_pool2d(squares, (size, 1), padding=(size // 2, 0, size // 2, 0), count_include_pad=True)
    alpha = scalar(attributes.number("alpha", 1e-4), data)
    scale = op.add(op.multiply(reshape(means, shape), alpha), scalar(attributes.number("knorm", 2.0), data))
    return op.multiply(data, op.power(scale, scalar(-attributes.number("beta", 0.75), data)))


_ACTIVATIONS: dict[str, Callable[[relax.Expr], relax.Expr]] = {
    "relu": op.nn.relu,
    "sigmoid": op.sigmoid,
    "softrelu": op.nn.softplus,
    "softsign": softsign,
    "tanh": op.tanh,
}


@converts("Activation")
def _activation(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
    kind = attributes.text("act_type")
    if kind not in _ACTIVATIONS:
        raise ModelError(f"attribute 'act_type' cannot be '{kind}'")
    return _ACTIVATIONS[kind](data)


@converts("LeakyReLU")
def _leaky_relu(context: Context, attributes: Attributes, data: relax.Expr, *gamma: relax.Expr) -> relax.Expr:
    kind = attributes.text("act_type", "leaky")
    slope = attributes.number("slope", 0.25)
    if kind == "leaky":
        return op.nn.leakyrelu(data, slope)
    if kind == "rrelu":
        # Outside of training the slope is the middle of its range.
        lower, upper = attributes.number("lower_bound", 0.125), attributes.number("upper_bound", 0.334)
        return op.nn.leakyrelu(data, (lower + upper) / 2)
    if kind == "elu":
        below = op.multiply(op.subtract(op.exp(data), scalar(1.0, data)), scalar(slope, data))
        return op.where(op.greater(data, scalar(0.0, data)), data, below)
    if kind == "selu":
        return op.nn.selu(data)
    if kind == "gelu":
        return op.nn.gelu(data)
    if kind == "prelu":
        below = op.multiply(data, _along_channels(gamma[0], max(2, data.ty.ndim)))
        return op.where(op.greater(data, scalar(0.0, data)), data, below)
    raise ModelError(f"attribute 'act_type' cannot be '{kind}'")


@converts("Dropout")
def _dropout(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
    if attributes.text("mode", "training") != "training":
        raise ModelError("attribute 'mode' asks for random values outside of training")
    return data


def _scores(
    context: Context, attributes: Attributes, data: relax.Expr, *length: relax.Expr
) -> tuple[relax.Expr, int]:
    """What the softmax operators take the softmax of, and its axis."""
    if attributes.flag("use_length", None):
        raise ModelError("attribute 'use_length' is not supported")
    axis = axis_of(data, attributes.integer("axis", -1))
    data = context.astype(data, attributes.dtype("dtype", None) or dtype_of(data))
    temperature = attributes.number("temperature", None)
    return (data if temperature is None else op.divide(data, scalar(temperature, data))), axis


@converts("softmax")
def _softmax(context: Context, attributes: Attributes, *data: relax.Expr) -> relax.Expr:
    return op.nn.softmax(*_scores(context, attributes, *data))


@converts("softmin")
def _softmin(context: Context, attributes: Attributes, *data: relax.Expr) -> relax.Expr:
    scores, axis = _scores(context, attributes, *data)
    return op.nn.softmax(op.negative(scores), axis)


@converts("log_softmax")
def _log_softmax(context: Context, attributes: Attributes, *data: relax.Expr) -> relax.Expr:
    return op.nn.log_softmax(*_scores(context, attributes, *data))


@converts("SoftmaxOutput", "Softmax")
def _softmax_output(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
    if attributes.flag("multi_output", False):
        return op.nn.softmax(data, 1)
    if attributes.flag("preserve_shape", False):
        return op.nn.softmax(data, -1)
    # Over all that an example holds.
    shape = shape_of(data)
    return reshape(op.nn.softmax(reshape(data, [shape[0], math.prod(shape[1:])]), 1), shape)


@converts("SoftmaxActivation")
def _softmax_activation(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
    mode = attributes.text("mode", "instance")
    if mode not in ("instance", "channel"):
        raise ModelError(f"attribute 'mode' cannot be '{mode}'")
    if mode == "instance" and data.ty.ndim > 2:
        raise ModelError(
            "mode 'instance' is supported for two dimensions only, since MXNet contradicts itself"
        )
    return op.nn.softmax(data, 1)


@converts("Pad", "pad")
def _pad(context: Context, attributes: Attributes, data: relax.Expr) -> relax.Expr:
    modes = {"constant": "constant", "edge": "replicate", "reflect": "reflect"}
    mode = attributes.text("mode")
    if mode not in modes:
        raise ModelError(f"attribute 'mode' cannot be '{mode}'")
    width = attributes.integers("pad_width", minimum=0)
    return op.nn.pad(data, width, modes[mode], attributes.number("constant_value", 0.0))


@converts("UpSampling")
def _up_sampling(context: Context, attributes: Attributes, *data: relax.Expr) -> relax.Expr:
    kind = attributes.text("sample_type")
    scale = attributes.integer("scale", minimum=1)
    if kind == "bilinear":
        # A transposed convolution of each channel with the weight that the model brings.
        image, weight = data
        kernel, pad = 2 * scale - scale % 2, math.ceil((scale - 1) / 2)
        channels = size_of(image, 1)
        if sizes_of(weight) != [channels, 1, kernel, kernel]:
            raise ModelError("the weight of a bilinear up-sampling does not fit its channels and scale")
        return op.nn.conv2d_transpose(image, weight, (scale,) * 2, (pad,) * 4, groups=channels)
    if kind != "nearest":
        raise ModelError(f"attribute 'sample_type' cannot be '{kind}'")
    height, width = (size * scale for size in sizes_of(data[0], 2))
    images = [_enlarged(image, height, width) for image in data]
    if len(images) == 1:
        return images[0]
    if attributes.text("multi_input_mode", "concat") == "concat":
        return op.concat(images, 1)
    total = images[0]
    for image in images[1:]:
        total = op.add(total, image)
    return total


def _enlarged(image: relax.Expr, height: int, width: int) -> relax.Expr:
    """`image` with each pixel repeated up to `height` and `width`."""
    rows, columns = sizes_of(image, 2)
    if height % rows or width % columns:
        raise ModelError("an image cannot be enlarged to a size that is no multiple of its own")
    return op.repeat(op.repeat(image, height // rows, 2), width // columns, 3)


@converts("_contrib_BilinearResize2D")
def _bilinear_resize(
    context: Context, attributes: Attributes, data: relax.Expr, *like: relax.Expr
) -> relax.Expr:
    mode = attributes.text("mode", "size")
    if mode == "like":
        size: list[Any] = sizes_of(like[0], 2)
    elif mode == "size":
        size = [
            attributes.integer(side, 1, minimum=1)
            if attributes.number(f"scale_{side}", None) is None
            else int(attributes.number(f"scale_{side}") * old)
            for side, old in zip(("height", "width"), sizes_of(data, 2), strict=True)
        ]
    else:
        raise ModelError(f"attribute 'mode' cannot be '{mode}': 'size' and 'like' are supported")
    corners = "align_corners" if attributes.flag("align_corners", True) else "half_pixel"
    return op.image.resize2d(data, tuple(size), method="linear", coordinate_transformation_mode=corners)
