"""Rules that slide a window over an NHWC image, or resample it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tvm.relax import op

from tvm import relax

from .model import Quantisation
from .node import Node, Rule, Value, scalar, ties_away


def padding(
    node: Node, scheme: int, extents: Sequence[Any], window: Sequence[int], strides: Sequence[int]
) -> list[int]:
    """TFLite's padding as [top, left, bottom, right]; SAME puts the odd row and column at the end.

    `extents` is the image's height and width, `window` the height and width that a (dilated) kernel spans.
    """
    if scheme == node.schema.Padding.VALID:
        return [0, 0, 0, 0]
    before, after = [], []
    for extent, span, stride in zip(extents, window, strides, strict=True):
        if stride == 1:
            total = span - 1
        else:
            extent = node.static_extent(extent, "the height and width of its input")
            total = max((-(-extent // stride) - 1) * stride + span - extent, 0)
        before.append(total // 2)
        after.append(total - total // 2)
    return [*before, *after]


def _positive(node: Node, what: str, *numbers: int) -> tuple[int, ...]:
    if min(numbers) < 1:
        raise node.refuse(f"its {what} must be positive")
    return numbers


def accumulate(
    node: Node,
    x: Value,
    weights: Value,
    bias: Value | None,
    product: Callable[[relax.Expr, relax.Expr], relax.Expr],
    activation: str,
) -> Value:
    """`product(x, weights)`, a convolution or a matrix product, with its bias and activation function.

    Quantised, the sum is over steps, and the 32-bit bias counts steps of the product's scale. With float32
    activations, 8-bit weights (dynamic-range quantisation) are the real numbers that they stand for, where
    TFLite's own kernels round the activations to 8 bits too. `weights` is input 1, rearranged, and the
    output's channels are those of input 1.
    """
    if x.quantisation is None:
        total = product(node.real(x), node.real(weights))
        if bias is not None:
            total = op.add(total, node.real(bias))
        return node.real_result(total, activation=activation)
    if weights.quantisation is None:
        raise node.refuse("its input is quantised and its weights are not")
    total = product(node.carried(x), node.carried(weights))
    if bias is not None:
        total = op.add(total, node.counts(bias))
    return node.real_result(total, x.quantisation.scale * node.input(1).quantisation.scale, activation)


def optional_input(node: Node, position: int) -> Value | None:
    return node.input(position) if node.has_input(position) else None


def _convolution(node: Node, options: Any, weights: Value, groups: int) -> Value:
    """A convolution with weights in the layout HWIO."""
    x = node.input(0)
    _, height, width, _ = node.shape(x)
    strides = _positive(node, "strides", options.StrideH(), options.StrideW())
    dilation = _positive(node, "dilation", options.DilationHFactor(), options.DilationWFactor())
    window = [(k - 1) * d + 1 for k, d in zip(node.shape(weights)[:2], dilation, strict=True)]

    def convolve(data: relax.Expr, kernel: relax.Expr) -> relax.Expr:
        return op.nn.conv2d(
            data,
            kernel,
            strides,
            padding(node, options.Padding(), (height, width), window, strides),
            dilation,
            groups,
            data_layout="NHWC",
            kernel_layout="HWIO",
        )

    return accumulate(node, x, weights, optional_input(node, 2), convolve, node.activation(options))


def conv_2d(node: Node) -> Value:
    weights = node.arranged(node.input(1), axes=(1, 2, 3, 0))
    groups, rest = divmod(node.shape(node.input(0))[3], node.shape(weights)[2])
    if rest:
        raise node.refuse("the channels of its input are no multiple of its weights'")
    return _convolution(node, node.options("Conv2DOptions"), weights, groups)


def depthwise_conv_2d(node: Node) -> Value:
    _, height, width, channels = node.shape(node.input(1))
    weights = node.arranged(node.input(1), shape=(height, width, 1, channels))
    groups = node.shape(node.input(0))[3]
    return _convolution(node, node.options("DepthwiseConv2DOptions"), weights, groups)


def transpose_conv(node: Node) -> Value:
    """A transposed convolution as a plain one, with stride 1, that makes the pixels of each phase.

    Output pixel `s * q + r` of stride s is touched by the kernel's taps r, r + s, ... alone. The taps of
    each r form a small kernel of their own; all s * s of them, stacked as output channels, are one
    convolution, and a depth-to-space lays its channels out as pixels (Shi et al. 2016, "Is the
    deconvolution layer the same as a convolutional layer?").
    """
    options = node.options("TransposeConvOptions")
    strides = _positive(node, "strides", options.StrideH(), options.StrideW())
    x = node.input(2)
    batch, *extents, _ = node.shape(x)
    out_extents = [node.static_extent(extent, "its output's shape") for extent in node.integers(0)[1:3]]
    out_channels, *window, _ = node.shape(node.input(1))
    pads = padding(node, options.Padding(), out_extents, window, strides)[:2]
    weights, taps = _phase_kernels(node, strides)

    def product(data: relax.Expr, kernel: relax.Expr) -> relax.Expr:
        around = [tap - 1 for tap in taps]
        phases = op.nn.conv2d(
            data, kernel, padding=[*around, *around], data_layout="NHWC", kernel_layout="HWIO"
        )
        rows, columns = (extent + tap - 1 for extent, tap in zip(extents, taps, strict=True))
        split = op.reshape(phases, (batch, rows, columns, *strides, out_channels))
        pixels = op.permute_dims(split, (0, 1, 3, 2, 4, 5))
        image = op.reshape(pixels, (batch, rows * strides[0], columns * strides[1], out_channels))
        end = [pad + extent for pad, extent in zip(pads, out_extents, strict=True)]
        return op.strided_slice(image, axes=[1, 2], begin=pads, end=end)

    return accumulate(node, x, weights, optional_input(node, 3), product, node.activation(options))


def _phase_kernels(node: Node, strides: tuple[int, ...]) -> tuple[Value, list[int]]:
    """The weights (O, H, W, I) of a transposed convolution as (taps, taps, I, phases * O), and the taps."""
    kernel, quantisation = node.host(1), node.input(1).quantisation
    channels, *window, depth = kernel.shape
    taps = [-(-span // stride) for span, stride in zip(window, strides, strict=True)]
    missing = [(0, tap * s - span) for tap, s, span in zip(taps, strides, window, strict=True)]
    zero = quantisation.zero_point if quantisation is not None else 0
    whole = np.pad(kernel, [(0, 0), *missing, (0, 0)], constant_values=zero)
    split = whole.reshape(channels, taps[0], strides[0], taps[1], strides[1], depth)
    stacked = split[:, ::-1, :, ::-1].transpose(1, 3, 5, 2, 4, 0).reshape(*taps, depth, -1)
    if quantisation is not None and quantisation.per_channel:
        if quantisation.axis != 0:
            raise node.refuse("its weights are quantised along another axis than the output channels'")
        scale = np.tile(quantisation.scale, strides[0] * strides[1])
        quantisation = Quantisation(scale, quantisation.zero_point, axis=3)
    return Value(node.input(1).name, quantisation, array=stacked), taps


def _pool_geometry(node: Node, value: Value, options: Any) -> dict[str, Any]:
    window = _positive(node, "window", options.FilterHeight(), options.FilterWidth())
    strides = _positive(node, "strides", options.StrideH(), options.StrideW())
    around = padding(node, options.Padding(), node.shape(value)[1:3], window, strides)
    return {"pool_size": window, "strides": strides, "padding": around, "layout": "NHWC"}


def max_pool_2d(node: Node) -> Value:
    x, options = node.input(0), node.options("Pool2DOptions")
    pooled = op.nn.max_pool2d(node.rescaled(x), **_pool_geometry(node, x, options))
    return node.bounded_result(pooled, node.activation(options))


def average_pool_2d(node: Node) -> Value:
    """The mean over the pixels of the window that lie within the image.

    Quantised, TFLite rounds the mean of the stored integers, halves away from zero.
    """
    x, options = node.input(0), node.options("Pool2DOptions")
    activation = node.activation(options)
    mean = op.nn.avg_pool2d(node.carried(x), **_pool_geometry(node, x, options))
    quantisation = node.output_tensor().quantisation
    if quantisation is None:
        return node.real_result(mean, activation=activation)
    if x.quantisation != quantisation:
        return node.real_result(mean, x.quantisation.scale, activation)
    stored = op.add(mean, scalar(quantisation.zero_point))
    return node.steps_result(op.subtract(ties_away(stored), scalar(quantisation.zero_point)), activation)


def l2_pool_2d(node: Node) -> Value:
    x, options = node.input(0), node.options("Pool2DOptions")
    mean = op.nn.avg_pool2d(op.square(node.real(x)), **_pool_geometry(node, x, options))
    return node.real_result(op.sqrt(mean), activation=node.activation(options))


def resize_bilinear(node: Node) -> Value:
    """Quantised, TFLite rounds ties up: common here, where pixels are weighted with halves and quarters."""
    options, value = node.options("ResizeBilinearOptions"), node.input(0)
    size = [node.static_extent(extent, "the size of its output") for extent in node.integers(1)]
    if options.AlignCorners() and size != [1, 1]:
        if 1 in size:
            raise node.refuse("aligned corners of a single row or column are not supported")
        mode = "align_corners"
    else:
        mode = "half_pixel" if options.HalfPixelCenters() else "asymmetric"
    resized = op.image.resize2d(
        node.rescaled(value), size, layout="NHWC", method="linear", coordinate_transformation_mode=mode
    )
    if node.output_tensor().quantisation is None:
        return node.result(resized)
    return node.steps_result(op.floor(op.add(resized, scalar(0.5))))


def resize_nearest_neighbor(node: Node) -> Value:
    """Rows and columns by index: TFLite's own float32 arithmetic, on the host, decides on which ones."""
    options = node.options("ResizeNearestNeighborOptions")
    value = node.input(0)
    expr = node.movable(value)
    for axis, extent, size in zip((1, 2), node.shape(value)[1:3], node.integers(1), strict=True):
        extent = node.static_extent(extent, "the height and width of its input")
        size = node.static_extent(size, "the size of its output")
        aligned = options.AlignCorners() and size > 1
        ratio = (
            np.float32(extent - 1) / np.float32(size - 1)
            if aligned
            else np.float32(extent) / np.float32(size)
        )
        offset = np.float32(0.5 if options.HalfPixelCenters() else 0.0)
        position = (np.arange(size, dtype=np.float32) + offset) * ratio
        nearest = np.floor(position + np.float32(0.5)) if options.AlignCorners() else np.floor(position)
        indices = np.clip(nearest, 0, extent - 1).astype(np.int32)
        expr = op.take(expr, node.constant(indices, f"axis{axis}"), axis=axis, mode="clip")
    return node.moved(value, expr)


SPATIAL: dict[str, Rule] = {
    "AVERAGE_POOL_2D": average_pool_2d,
    "CONV_2D": conv_2d,
    "DEPTHWISE_CONV_2D": depthwise_conv_2d,
    "L2_POOL_2D": l2_pool_2d,
    "MAX_POOL_2D": max_pool_2d,
    "RESIZE_BILINEAR": resize_bilinear,
    "RESIZE_NEAREST_NEIGHBOR": resize_nearest_neighbor,
    "TRANSPOSE_CONV": transpose_conv,
}
