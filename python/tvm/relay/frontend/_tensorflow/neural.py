"""Convolutions, pooling, normalisation, products of matrices, and images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from tvm.relax import op

from tvm import relax

from ..common import ModelError
from .converter import Converter
from .graph import Node
from .registry import rule
from .values import Dimension, Value

# Convolutions


def _spatial(node: Node) -> tuple[str, list[int], int]:
    """The data format, its spatial axes and its channel axis."""
    layout = node["data_format"]
    if layout.endswith("C"):
        return layout, list(range(1, len(layout) - 1)), len(layout) - 1
    return layout, list(range(2, len(layout))), 1


def _padding(
    converter: Converter,
    node: Node,
    sizes: Sequence[Dimension],
    window: Sequence[int],
    strides: Sequence[int],
    axes: Sequence[int],
) -> list[int]:
    """Padding before each spatial axis, then after each, as TensorFlow's padding schemes define it."""
    scheme = node["padding"]
    if scheme == "VALID":
        return [0] * (2 * len(axes))
    if scheme == "EXPLICIT":
        given = node["explicit_paddings"]
        return [given[2 * axis] for axis in axes] + [given[2 * axis + 1] for axis in axes]
    totals = []
    for size, extent, stride in zip(sizes, window, strides, strict=True):
        if stride == 1:
            totals.append(extent - 1)
        else:
            (number,) = converter.fixed(node, [size])
            totals.append(max((math.ceil(number / stride) - 1) * stride + extent - number, 0))
    return [total // 2 for total in totals] + [total - total // 2 for total in totals]


@rule("Conv2D", "Conv3D")
def _convolution(converter: Converter, node: Node, x: Value, kernel: Value) -> Value:
    _, _, channel = _spatial(node)
    groups = converter.fixed(node, [converter.shape(x)[channel]])[0] // int(converter.shape(kernel)[-2])
    return _convolve(converter, node, x, kernel, groups)


@rule("DepthwiseConv2dNative")
def _depthwise(converter: Converter, node: Node, x: Value, kernel: Value) -> Value:
    height, width, channels, multiplier = converter.shape(kernel)
    grouped = converter.reshape(kernel, [height, width, 1, channels * multiplier])
    return _convolve(converter, node, x, grouped, channels)


def _convolve(converter: Converter, node: Node, x: Value, kernel: Value, groups: int) -> Value:
    layout, axes, channel = _spatial(node)
    strides = [node["strides"][axis] for axis in axes]
    dilations = [node["dilations"][axis] for axis in axes]
    shape = converter.shape(x)
    sizes = [int(size) for size in converter.shape(kernel)[: len(axes)]]
    window = [(size - 1) * dilation + 1 for size, dilation in zip(sizes, dilations, strict=True)]
    padding = _padding(converter, node, [shape[axis] for axis in axes], window, strides, axes)
    image = "DHW"[-len(axes) :]
    kernel_layout = f"{image}IO"
    if channel == 1:
        kernel = converter.transpose(kernel, [len(axes) + 1, len(axes), *range(len(axes))])
        kernel_layout = f"OI{image}"
    convolution = op.nn.conv2d if len(axes) == 2 else op.nn.conv3d
    return converter.emit(
        convolution(
            converter.tensor(x),
            converter.tensor(kernel),
            strides=strides,
            padding=padding,
            dilation=dilations,
            groups=groups,
            data_layout=layout,
            kernel_layout=kernel_layout,
        )
    )


@rule("Conv2DBackpropInput", "Conv3DBackpropInputV2")
def _transposed_convolution(converter: Converter, node: Node, size: Value, kernel: Value, x: Value) -> Value:
    _, axes, channel = _spatial(node)
    count = len(axes)
    strides = [node["strides"][axis] for axis in axes]
    dilations = [node["dilations"][axis] for axis in axes]
    wanted = converter.dimensions(node, size)
    output = converter.fixed(node, wanted if len(wanted) == count else [wanted[axis] for axis in axes])
    window = [
        (int(extent) - 1) * dilation + 1
        for extent, dilation in zip(converter.shape(kernel)[:count], dilations, strict=True)
    ]
    padding = _padding(converter, node, output, window, strides, axes)
    source = converter.fixed(node, [converter.shape(x)[axis] for axis in axes])
    # Where a stride does not divide the size, several sizes give the same input: this picks the wanted one.
    extra = [
        output[axis]
        - ((source[axis] - 1) * strides[axis] + window[axis] - padding[axis] - padding[axis + count])
        for axis in range(count)
    ]
    # Relax lowers transposed convolutions with the channels first only.
    last = channel == count + 1
    data = converter.transpose(x, [0, count + 1, *range(1, count + 1)]) if last else x
    convolution = op.nn.conv2d_transpose if count == 2 else op.nn.conv3d_transpose
    result = converter.emit(
        convolution(
            converter.tensor(data),
            converter.tensor(converter.transpose(kernel, [count + 1, count, *range(count)])),
            strides=strides,
            padding=padding,
            output_padding=extra,
            dilation=dilations,
        )
    )
    return converter.transpose(result, [0, *range(2, count + 2), 1]) if last else result


_POOLS = {
    "AvgPool": op.nn.avg_pool2d,
    "AvgPool3D": op.nn.avg_pool3d,
    "MaxPool": op.nn.max_pool2d,
    "MaxPool3D": op.nn.max_pool3d,
}


@rule(*_POOLS)
def _pool(converter: Converter, node: Node, x: Value) -> Value:
    layout, axes, _ = _spatial(node)
    window = [node["ksize"][axis] for axis in axes]
    strides = [node["strides"][axis] for axis in axes]
    sizes = [converter.shape(x)[axis] for axis in axes]
    padding = _padding(converter, node, sizes, window, strides, axes)
    tensor, inside = converter.tensor(x), None
    if node.op == "AvgPool3D" and any(padding):
        # Upstream counts the padding in, whatever it is told: it is made here, and counted out again.
        widths = np.zeros((len(layout), 2), int)
        widths[axes] = np.reshape(padding, (2, -1)).T
        tensor = op.nn.pad(tensor, widths.reshape(-1).tolist())
        inside = _inside(layout, axes, converter.fixed(node, sizes), window, strides, padding)
        padding = [0] * len(padding)
    pooled = _POOLS[node.op](tensor, pool_size=window, strides=strides, padding=padding, layout=layout)
    return converter.emit(pooled if inside is None else op.divide(pooled, converter.tensor(inside)))


def _inside(
    layout: str,
    axes: Sequence[int],
    sizes: Sequence[int],
    window: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[int],
) -> np.ndarray:
    """The share of each window that lies inside of the tensor, in a shape that broadcasts."""
    shares = np.ones([1] * len(layout), "float32")
    for position, axis in enumerate(axes):
        before, after = padding[position], padding[position + len(axes)]
        last = sizes[position] + before + after - window[position]
        starts = np.arange(0, last + 1, strides[position]) - before
        stops = np.minimum(starts + window[position], sizes[position])
        share = (stops - np.maximum(starts, 0)) / window[position]
        shares = shares * share.reshape([-1 if other == axis else 1 for other in range(len(layout))])
    return shares.astype("float32")


@rule("BiasAdd")
def _bias_add(converter: Converter, node: Node, x: Value, bias: Value) -> Value:
    if node["data_format"] == "NCHW":
        bias = converter.reshape(bias, [*converter.shape(bias), *[1] * (len(converter.shape(x)) - 2)])
    return converter.emit(op.add(converter.tensor(x), converter.tensor(bias)))


# Normalisation


@rule("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
def _batch_norm(
    converter: Converter, node: Node, x: Value, scale: Value, offset: Value, mean: Value, variance: Value
) -> list[Value]:
    if node["is_training"]:
        raise ModelError(f"{node} normalises with its batch's own statistics: export the model for inference")
    channel = 3 if node["data_format"] == "NHWC" else 1
    operands = map(converter.tensor, (x, scale, offset, mean, variance))
    normalised = converter.emit(
        op.nn.batch_norm(*operands, axis=channel, epsilon=node["epsilon"], training=False)
    )
    return [converter.emit(relax.TupleGetItem(normalised, 0)), mean, variance]


@rule("LRN")
def _local_response_norm(converter: Converter, node: Node, x: Value) -> Value:
    radius, channels = node["depth_radius"], converter.shape(x)[-1]
    tensor = converter.tensor(x)
    squares = converter.emit(op.nn.pad(op.square(tensor), [0] * 6 + [radius, radius]))
    total = None
    for shift in range(2 * radius + 1):
        window = op.strided_slice(squares, [3], [shift], [shift + channels], assume_inbound=True)
        total = window if total is None else op.add(total, window)
        total = converter.emit(total)
    scaled = op.add(op.multiply(total, _number(node["alpha"])), _number(node["bias"]))
    return converter.emit(op.multiply(tensor, op.power(scaled, _number(-node["beta"]))))


def _number(value: float) -> relax.Expr:
    return relax.const(value, "float32")


@rule("Softmax")
def _softmax(converter: Converter, node: Node, x: Value) -> Value:
    return converter.emit(op.nn.softmax(converter.tensor(x), -1))


@rule("LogSoftmax")
def _log_softmax(converter: Converter, node: Node, x: Value) -> Value:
    return converter.emit(op.nn.log_softmax(converter.tensor(x), -1))


# Products of matrices


@rule("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
def _matmul(converter: Converter, node: Node, left: Value, right: Value) -> Value:
    plain = node.op == "MatMul"
    if node["transpose_a" if plain else "adj_x"]:
        left = _swap_last(converter, left)
    if node["transpose_b" if plain else "adj_y"]:
        right = _swap_last(converter, right)
    return converter.emit(op.matmul(converter.tensor(left), converter.tensor(right)))


def _swap_last(converter: Converter, matrix: Value) -> Value:
    rank = len(converter.shape(matrix))
    return converter.transpose(matrix, [*range(rank - 2), rank - 1, rank - 2])


@rule("Einsum")
def _einsum(converter: Converter, node: Node, *operands: Value) -> Value:
    """A sum of products of at most two tensors, as one product of (batches of) matrices."""
    inputs, output = _einsum_labels(converter, node, operands)
    terms = [
        _sum_out(converter, operand, labels, set(output).union(*(inputs[:index] + inputs[index + 1 :])))
        for index, (operand, labels) in enumerate(zip(operands, inputs, strict=True))
    ]
    if len(terms) == 1:
        tensor, labels = terms[0]
        return converter.transpose(tensor, [labels.index(label) for label in output])
    (left, left_labels), (right, right_labels) = terms
    shared = [label for label in left_labels if label in right_labels]
    batch = [label for label in shared if label in output]
    summed = [label for label in shared if label not in output]
    rows = [label for label in left_labels if label not in shared]
    columns = [label for label in right_labels if label not in shared]
    sizes = dict(zip(left_labels, converter.shape(left), strict=True))
    for label, size in zip(right_labels, converter.shape(right), strict=True):
        if sizes.get(label, 1) == 1:
            sizes[label] = size

    def matrix(tensor: Value, labels: list[str], groups: list[list[str]]) -> Value:
        moved = converter.transpose(tensor, [labels.index(label) for group in groups for label in group])
        own = dict(zip(labels, converter.shape(tensor), strict=True))
        shape = [own[label] for label in groups[0]]
        shape += [math.prod(own[label] for label in group) for group in groups[1:]]
        return converter.reshape(moved, shape) if tuple(shape) != converter.shape(moved) else moved

    product = converter.emit(
        op.matmul(
            converter.tensor(matrix(left, left_labels, [batch, rows, summed])),
            converter.tensor(matrix(right, right_labels, [batch, summed, columns])),
        )
    )
    order = [*batch, *rows, *columns]
    whole = converter.reshape(product, [sizes[label] for label in order])
    return converter.transpose(whole, [order.index(label) for label in output])


def _einsum_labels(
    converter: Converter, node: Node, operands: Sequence[Value]
) -> tuple[list[list[str]], list[str]]:
    """One label an axis; the axes of an ellipsis are numbered from the right."""
    left, _, right = node["equation"].replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(operands) or len(terms) > 2:
        raise ModelError(f"{node} takes {len(operands)} tensors, which is not supported")

    def expand(term: str, free: int) -> list[str]:
        before, dots, after = term.partition("...")
        return [*before, *(f"...{axis}" for axis in reversed(range(free if dots else 0))), *after]

    free = [
        len(converter.shape(operand)) - len(term.replace("...", ""))
        for operand, term in zip(operands, terms, strict=True)
    ]
    inputs = [expand(term, count) for term, count in zip(terms, free, strict=True)]
    if any(len(set(labels)) != len(labels) for labels in inputs):
        raise ModelError(f"{node} takes a diagonal, which is not supported")
    return inputs, expand(right, max(free))


def _sum_out(
    converter: Converter, tensor: Value, labels: list[str], wanted: set[str]
) -> tuple[Value, list[str]]:
    """Sum over the axes that only this operand has."""
    own = [axis for axis, label in enumerate(labels) if label not in wanted]
    if own:
        tensor = converter.emit(op.sum(converter.tensor(tensor), own))
    return tensor, [label for label in labels if label in wanted]


# Images


@rule("ResizeBilinear", "ResizeNearestNeighbor")
def _resize(converter: Converter, node: Node, images: Value, size: Value) -> Value:
    linear = node.op == "ResizeBilinear"
    if node["align_corners"]:
        mode, rounding = "align_corners", "round"
    elif node["half_pixel_centers"]:
        mode, rounding = "half_pixel" if linear else "tf_half_pixel_for_nn", "floor"
    else:
        mode, rounding = "asymmetric", "floor"
    tensor = converter.tensor(images)
    if linear:
        tensor = op.astype(tensor, "float32")
    return converter.emit(
        op.image.resize2d(
            tensor,
            converter.fixed(node, converter.dimensions(node, size)),
            layout="NHWC",
            method="linear" if linear else "nearest_neighbor",
            coordinate_transformation_mode=mode,
            rounding_method=rounding,
        )
    )


@rule("ResizeBicubic")
def _resize_bicubic(converter: Converter, node: Node, images: Value, size: Value) -> Value:
    """As two products with matrices of weights: TensorFlow rounds its weights, so no formula gives them."""
    n, *source, c = converter.shape(images)
    height, width = converter.fixed(node, source)
    rows, columns = converter.fixed(node, converter.dimensions(node, size))
    pixels = converter.emit(op.astype(converter.tensor(images), "float32"))
    vertical = _bicubic_weights(height, rows, node["align_corners"], node["half_pixel_centers"])
    horizontal = _bicubic_weights(width, columns, node["align_corners"], node["half_pixel_centers"])
    tall = op.matmul(
        converter.tensor(vertical), converter.tensor(converter.reshape(pixels, [n, height, width * c]))
    )
    tall = converter.reshape(converter.emit(tall), [n, rows, width, c])
    return converter.emit(op.matmul(converter.tensor(horizontal), tall))


def _bicubic_weights(source: int, target: int, corners: bool, centres: bool) -> np.ndarray:
    """What each of `target` pixels takes of each of `source` pixels, with TensorFlow's rounded weights
    (its kernel `resize_bicubic_op`; Keys, "Cubic Convolution Interpolation", 1981)."""
    steps = 1024
    sharpness = -0.5 if centres else -0.75
    scale = (source - 1) / (target - 1) if corners and target > 1 else source / target
    weights = np.zeros((target, source), "float32")
    for pixel in range(target):
        position = np.float32((pixel + 0.5) * scale - 0.5) if centres else np.float32(pixel * scale)
        first = math.floor(position)
        delta = np.rint((position - first) * steps) / steps
        taps = []
        for offset in range(-1, 3):
            x = abs(offset - delta)
            near = ((sharpness + 2) * x - (sharpness + 3)) * x * x + 1
            far = ((sharpness * x - 5 * sharpness) * x + 8 * sharpness) * x - 4 * sharpness
            taps.append((min(max(first + offset, 0), source - 1), near if x <= 1 else far))
            if centres and not 0 <= first + offset < source:
                taps.pop()
        total = sum(weight for _, weight in taps) if centres else 1
        for index, weight in taps:
            weights[pixel, index] += weight / total
    return weights
