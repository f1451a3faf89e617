"""Each operator that the converter knows, against TensorFlow's own kernel.

A group is one graph with an output per case, so that it compiles once.
"""

from __future__ import annotations

import numpy as np
import pytest
from tensorflow_support import Compiled, graph_of, tf

from tvm.relay.frontend.tensorflow import import_tensorflow

raw = tf.raw_ops


def floats(*shape: int, seed: int = 0, low: float = -3.0, high: float = 3.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape).astype("float32")


X = floats(2, 6, 5, 3)
Y = floats(2, 6, 5, 3, seed=1)
POSITIVE = floats(2, 6, 5, 3, seed=2, low=0.1)
UNIT = floats(2, 6, 5, 3, seed=3, low=-0.99, high=0.99)
HALVES = np.asarray([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, -0.2, 0.7], "float32")
WITH_ZEROS = np.where(np.abs(X) < 1, 0, X).astype("float32")
SPECIAL = np.asarray([0.0, np.inf, -np.inf, np.nan, 1.0], "float32")
WHOLE = np.random.default_rng(4).integers(-7, 8, (4, 6)).astype("int32")
DIVISOR = np.random.default_rng(5).integers(1, 5, (4, 6)).astype("int32")
BITS = WHOLE > 0
KERNEL = floats(3, 3, 3, 4, seed=6)
VOLUME = floats(1, 5, 6, 4, 2, seed=7)
SEQUENCE = floats(3, 7, 4, seed=8)

GROUPS = {
    "unary": (
        [X, POSITIVE, UNIT, HALVES, SPECIAL, BITS, WHOLE],
        {
            "abs": lambda x, *_: tf.abs(x),
            "acos": lambda x, p, u, *_: tf.acos(u),
            "acosh": lambda x, p, *_: tf.acosh(p + 1.0),
            "asin": lambda x, p, u, *_: tf.asin(u),
            "asinh": lambda x, *_: tf.asinh(x),
            "atan": lambda x, *_: tf.atan(x),
            "atanh": lambda x, p, u, *_: tf.atanh(u),
            "ceil": lambda x, *_: tf.math.ceil(x),
            "cos": lambda x, *_: tf.cos(x),
            "cosh": lambda x, *_: tf.cosh(x),
            "elu": lambda x, *_: tf.nn.elu(x),
            "erf": lambda x, *_: tf.math.erf(x),
            "erfc": lambda x, *_: tf.math.erfc(x),
            "exp": lambda x, *_: tf.exp(x),
            "expm1": lambda x, *_: tf.math.expm1(x),
            "floor": lambda x, *_: tf.floor(x),
            "reciprocal": lambda x, p, *_: tf.math.reciprocal(p),
            "invert": lambda x, p, u, h, s, b, i: tf.bitwise.invert(i),
            "is_finite": lambda x, p, u, h, s, *_: tf.math.is_finite(s),
            "is_inf": lambda x, p, u, h, s, *_: tf.math.is_inf(s),
            "is_nan": lambda x, p, u, h, s, *_: tf.math.is_nan(s),
            "log": lambda x, p, *_: tf.math.log(p),
            "log1p": lambda x, p, *_: tf.math.log1p(p),
            "not": lambda x, p, u, h, s, b, i: tf.logical_not(b),
            "negative": lambda x, *_: -x,
            "ones_like": lambda x, *_: tf.ones_like(x),
            "relu": lambda x, *_: tf.nn.relu(x),
            "relu6": lambda x, *_: tf.nn.relu6(4 * x),
            "leaky_relu": lambda x, *_: tf.nn.leaky_relu(x, 0.3),
            "round": lambda x, p, u, h, *_: tf.round(h),
            "rsqrt": lambda x, p, *_: tf.math.rsqrt(p),
            "selu": lambda x, *_: tf.nn.selu(x),
            "sigmoid": lambda x, *_: tf.sigmoid(x),
            "sign": lambda x, p, u, h, s, b, i: tf.sign(i),
            "sin": lambda x, *_: tf.sin(x),
            "sinh": lambda x, *_: tf.sinh(x),
            "softplus": lambda x, *_: tf.nn.softplus(x),
            "softsign": lambda x, *_: tf.nn.softsign(x),
            "sqrt": lambda x, p, *_: tf.sqrt(p),
            "square": lambda x, *_: tf.square(x),
            "tan": lambda x, p, u, *_: tf.tan(u),
            "tanh": lambda x, *_: tf.tanh(x),
            "zeros_like": lambda x, *_: tf.zeros_like(x),
            "to_int": lambda x, *_: tf.cast(x, tf.int32),
            "to_bool": lambda x, p, u, h, s, b, i: tf.cast(i, tf.bool),
            "from_bool": lambda x, p, u, h, s, b, i: tf.cast(b, tf.float32),
            "clip": lambda x, *_: tf.clip_by_value(x, -1.0, 2.0),
            "softmax": lambda x, *_: tf.nn.softmax(x),
            "log_softmax": lambda x, *_: tf.nn.log_softmax(x),
            "fake_quant": lambda x, *_: tf.quantization.fake_quant_with_min_max_args(x, -1.1, 2.3),
            "fake_quant_channels": lambda x, *_: tf.quantization.fake_quant_with_min_max_vars_per_channel(
                x, [-1.0, -2.0, -0.1], [1.0, 2.0, 3.0], num_bits=7, narrow_range=True
            ),
        },
    ),
    "binary": (
        [X, Y, WITH_ZEROS, POSITIVE, WHOLE, DIVISOR, BITS],
        {
            "add": lambda x, y, *_: x + y[:, :1],
            "sub": lambda x, y, *_: x - y,
            "mul": lambda x, y, *_: x * y[..., :1],
            "divide": lambda x, y, z, p, *_: x / p,
            "divide_no_nan": lambda x, y, z, *_: tf.math.divide_no_nan(x, z),
            "multiply_no_nan": lambda x, y, z, *_: tf.math.multiply_no_nan(1 / z, z),
            "xdivy": lambda x, y, z, p, *_: tf.math.xdivy(z, tf.abs(z)),
            "xlogy": lambda x, y, z, p, *_: tf.math.xlogy(z, tf.abs(z)),
            "pow": lambda x, y, z, p, *_: tf.pow(p, y),
            "atan2": lambda x, y, *_: tf.atan2(x, y),
            "squared_difference": lambda x, y, *_: tf.math.squared_difference(x, y),
            "maximum": lambda x, y, *_: tf.maximum(x, y),
            "minimum": lambda x, y, *_: tf.minimum(x, y),
            "floor_div": lambda x, y, z, p, i, j, b: i // j,
            "floor_mod": lambda x, y, z, p, i, j, b: i % j,
            "truncate_div": lambda x, y, z, p, i, j, b: tf.truncatediv(i, j),
            "truncate_mod": lambda x, y, z, p, i, j, b: tf.truncatemod(i, j),
            "float_floor_div": lambda x, y, z, p, *_: x // p,
            "float_floor_mod": lambda x, y, z, p, *_: x % p,
            "bit_and": lambda x, y, z, p, i, j, b: tf.bitwise.bitwise_and(i, j),
            "bit_or": lambda x, y, z, p, i, j, b: tf.bitwise.bitwise_or(i, j),
            "bit_xor": lambda x, y, z, p, i, j, b: tf.bitwise.bitwise_xor(i, j),
            "left_shift": lambda x, y, z, p, i, j, b: tf.bitwise.left_shift(i, j),
            "right_shift": lambda x, y, z, p, i, j, b: tf.bitwise.right_shift(i, j),
            "equal": lambda x, y, z, p, i, j, b: tf.equal(i, j),
            "not_equal": lambda x, y, z, p, i, j, b: tf.not_equal(i, j),
            "less": lambda x, y, *_: x < y,
            "less_equal": lambda x, y, z, p, i, j, b: i <= j,
            "greater": lambda x, y, *_: x > y,
            "greater_equal": lambda x, y, z, p, i, j, b: i >= j,
            "and": lambda x, y, z, p, i, j, b: tf.logical_and(b, i > j),
            "or": lambda x, y, z, p, i, j, b: tf.logical_or(b, i > j),
            "add_n": lambda x, y, z, *_: tf.add_n([x, y, z]),
            "select": lambda x, y, *_: tf.where(x > 0, x, y),
            "select_broadcast": lambda x, y, *_: tf.where(x[:, :1] > 0, x, 7.0),
            "select_rows": lambda x, y, z, p, i, j, b: raw.Select(condition=i[:, 0] > 0, x=i, y=j),
        },
    ),
    "shapes": (
        [X, WHOLE],
        {
            "reshape": lambda x, i: tf.reshape(x, [2, -1, 3]),
            "squeeze": lambda x, i: tf.squeeze(x[:, :1, :, :1]),
            "squeeze_axis": lambda x, i: tf.squeeze(x[:, :1, :, :1], [1]),
            "expand_dims": lambda x, i: tf.expand_dims(tf.expand_dims(x, -1), 1),
            "transpose": lambda x, i: tf.transpose(x, [3, 0, 2, 1]),
            "broadcast_to": lambda x, i: tf.broadcast_to(x[:, :, :1], [2, 6, 4, 3]),
            "tile": lambda x, i: tf.tile(x, [1, 2, 1, 3]),
            "fill": lambda x, i: tf.fill([2, 3], x[0, 0, 0, 0]),
            "shape_arithmetic": lambda x, i: tf.reshape(x, [tf.shape(x)[1], tf.size(x) // tf.shape(x)[1]]),
            "concat": lambda x, i: tf.concat([x, 2 * x, tf.ones([2, 6, 5, 1])], -1),
            "stack": lambda x, i: tf.stack([x, -x], 2),
            "unstack": lambda x, i: tf.unstack(x, axis=1)[4],
            "split": lambda x, i: tf.split(x, 3, axis=1)[1],
            "split_sizes": lambda x, i: tf.split(x, [1, -1, 2], axis=2)[1],
            "slice": lambda x, i: tf.slice(x, [0, 1, 2, 0], [2, -1, 2, 3]),
            "strided": lambda x, i: x[:, 1:-1:2, ::2],
            "strided_backwards": lambda x, i: x[:, ::-1, 4:1:-2],
            "strided_new_axis": lambda x, i: x[:, tf.newaxis, 2, ..., -1],
            "strided_clamped": lambda x, i: x[:, -9:3, 2:99],
            "pad": lambda x, i: tf.pad(x, [[0, 0], [1, 2], [0, 1], [0, 0]], constant_values=1.5),
            "pad_reflect": lambda x, i: tf.pad(x, [[0, 0], [2, 1], [0, 3], [0, 0]], "REFLECT"),
            "pad_symmetric": lambda x, i: tf.pad(x, [[0, 0], [2, 1], [0, 3], [0, 0]], "SYMMETRIC"),
            "roll": lambda x, i: tf.roll(x, [2, -1], [1, 3]),
            "reverse": lambda x, i: tf.reverse(x, [1, -1]),
            "space_to_depth": lambda x, i: tf.nn.space_to_depth(x[:, :, :4], 2),
            "depth_to_space": lambda x, i: tf.nn.depth_to_space(tf.tile(x, [1, 1, 1, 4]), 2),
            "space_to_batch": lambda x, i: tf.space_to_batch(x, [2, 3], [[0, 0], [1, 0]]),
            "batch_to_space": lambda x, i: tf.batch_to_space(x, [1, 2], [[1, 0], [0, 3]]),
            "band": lambda x, i: tf.linalg.band_part(x, 1, 2),
            "band_lower": lambda x, i: tf.linalg.band_part(i, -1, 0),
            "one_hot": lambda x, i: tf.one_hot(i, 5, 2.0, -1.0),
            "one_hot_axis": lambda x, i: tf.one_hot(i, 5, axis=1),
        },
    ),
    "reductions": (
        [X, WHOLE, WHOLE % 4],
        {
            "sum": lambda x, i, k: tf.reduce_sum(x, [1, 2]),
            "sum_all": lambda x, i, k: tf.reduce_sum(i),
            "mean": lambda x, i, k: tf.reduce_mean(x, -1, keepdims=True),
            "max": lambda x, i, k: tf.reduce_max(x, 1),
            "min": lambda x, i, k: tf.reduce_min(x, [0, 3]),
            "prod": lambda x, i, k: tf.reduce_prod(x, 2),
            "no_axes": lambda x, i, k: tf.reduce_sum(x, []),
            "all": lambda x, i, k: tf.reduce_all(i > -6, 1),
            "any": lambda x, i, k: tf.reduce_any(i > 5, 0, keepdims=True),
            "argmax": lambda x, i, k: tf.argmax(x, 1),
            "argmin": lambda x, i, k: tf.argmin(x, -1, output_type=tf.int32),
            "argmax_tie": lambda x, i, k: tf.argmax(k, 1),
            "cumsum": lambda x, i, k: tf.cumsum(x, 1),
            "cumsum_reverse": lambda x, i, k: tf.cumsum(x, 2, exclusive=True, reverse=True),
            "cumprod": lambda x, i, k: tf.math.cumprod(x, -1),
            "top_k": lambda x, i, k: tf.math.top_k(x, 2)[0],
            "top_k_indices": lambda x, i, k: tf.math.top_k(k, 4)[1],
            "norm": lambda x, i, k: tf.nn.l2_normalize(x, -1),
            "logsumexp": lambda x, i, k: tf.reduce_logsumexp(x, 1),
        },
    ),
    "gathering": (
        [X, WHOLE % 4, SEQUENCE, np.asarray([2, 7, 4], "int32")],
        {
            "gather": lambda x, i, s, n: tf.gather(x, i, axis=2),
            "gather_first": lambda x, i, s, n: tf.gather(x, [1, 0, 1]),
            "gather_scalar": lambda x, i, s, n: tf.gather(x, 2, axis=1),
            "gather_table": lambda x, i, s, n: tf.gather(tf.constant(floats(4, 9, seed=9)), i),
            "gather_batch": lambda x, i, s, n: tf.gather(s, i[:3], axis=1, batch_dims=1),
            "gather_batch_later_axis": lambda x, i, s, n: tf.gather(s, i[:3, :2] % 3, axis=2, batch_dims=1),
            "gather_nd": lambda x, i, s, n: tf.gather_nd(x, tf.stack([i % 2, i], -1)),
            "scatter": lambda x, i, s, n: tf.tensor_scatter_nd_update(s, [[0, 3], [2, 1]], s[0, :2] * 2),
            "scatter_add": lambda x, i, s, n: tf.tensor_scatter_nd_add(s, [[1], [2]], s[:2]),
            "scatter_new": lambda x, i, s, n: tf.scatter_nd(n[:, None] - 2, s, [6, 7, 4]),
            "reverse_sequence": lambda x, i, s, n: tf.reverse_sequence(s, n, 1, 0),
        },
    ),
    "convolutions": (
        [X, VOLUME],
        {
            "same": lambda x, v: tf.nn.conv2d(x, KERNEL, 1, "SAME"),
            "valid_stride": lambda x, v: tf.nn.conv2d(x, KERNEL, [2, 1], "VALID"),
            "same_stride": lambda x, v: tf.nn.conv2d(x, KERNEL, 2, "SAME"),
            "explicit": lambda x, v: tf.nn.conv2d(x, KERNEL, 2, [[0, 0], [2, 1], [0, 3], [0, 0]]),
            "dilated": lambda x, v: tf.nn.conv2d(x, KERNEL, 1, "SAME", dilations=2),
            "grouped": lambda x, v: tf.nn.conv2d(tf.concat([x, 2 * x], -1), KERNEL, 1, "SAME"),
            "depthwise": lambda x, v: tf.nn.depthwise_conv2d(x, KERNEL, [1, 2, 2, 1], "SAME"),
            "transposed_same": lambda x, v: tf.nn.conv2d_transpose(
                x, floats(4, 4, 2, 3, seed=10), [2, 12, 10, 2], 2
            ),
            "transposed_odd": lambda x, v: tf.nn.conv2d_transpose(
                x, floats(3, 3, 2, 3, seed=11), [2, 11, 10, 2], 2
            ),
            "transposed_valid": lambda x, v: tf.nn.conv2d_transpose(
                x, floats(3, 3, 2, 3, seed=12), [2, 14, 11, 2], 2, "VALID"
            ),
            "volume": lambda x, v: tf.nn.conv3d(v, floats(3, 2, 2, 2, 3, seed=13), [1, 2, 1, 2, 1], "SAME"),
            "volume_transposed": lambda x, v: tf.nn.conv3d_transpose(
                v, floats(2, 3, 2, 3, 2, seed=16), [1, 10, 6, 8, 3], [2, 1, 2]
            ),
            "conv1d": lambda x, v: tf.nn.conv1d(x[:, :, 0], KERNEL[0], 1, "SAME"),
            "bias": lambda x, v: tf.nn.bias_add(x, [1.0, 2.0, 3.0]),
            "max_pool": lambda x, v: tf.nn.max_pool2d(-x - 9, 3, 2, "SAME"),
            "avg_pool": lambda x, v: tf.nn.avg_pool2d(x, [3, 2], [2, 1], "SAME"),
            "avg_pool_valid": lambda x, v: tf.nn.avg_pool2d(x, 2, 2, "VALID"),
            "max_pool3d": lambda x, v: tf.nn.max_pool3d(v, 2, 2, "SAME"),
            "avg_pool3d": lambda x, v: tf.nn.avg_pool3d(v, 2, 2, "SAME"),
            "batch_norm": lambda x, v: tf.compat.v1.nn.fused_batch_norm(
                x, [1.0, 2, 3], [3.0, 2, 1], [0.1, 0.2, 0.3], [1.0, 2, 0.5], is_training=False
            )[0],
            "lrn": lambda x, v: tf.nn.local_response_normalization(
                tf.tile(x, [1, 1, 1, 3]), 2, 1.5, 0.3, 0.7
            ),
        },
    ),
    "images": (
        [X],
        {
            f"{method}_{name}_{height}x{width}": lambda x, op=op, size=(height, width), mode=mode: op(
                images=x, size=size, **mode
            )
            for method, op in (
                ("bilinear", raw.ResizeBilinear),
                ("nearest", raw.ResizeNearestNeighbor),
                ("bicubic", raw.ResizeBicubic),
            )
            for name, mode in (
                ("legacy", {}),
                ("corners", {"align_corners": True}),
                ("centres", {"half_pixel_centers": True}),
            )
            for height, width in ((12, 11), (4, 3))
        },
    ),
    "matrices": (
        [SEQUENCE, floats(3, 5, 4, seed=14), floats(2, 3, 5, 4, seed=15)],
        {
            "matmul": lambda a, b, c: tf.matmul(a[0], b[0], transpose_b=True),
            "matmul_a": lambda a, b, c: tf.matmul(a[0], floats(7, 2), transpose_a=True),
            "matmul_weights": lambda a, b, c: tf.matmul(a, floats(6, 4), transpose_b=True),
            "batch": lambda a, b, c: tf.matmul(a, b, transpose_b=True),
            "batch_broadcast": lambda a, b, c: tf.matmul(c, a, transpose_b=True),
            "einsum": lambda a, b, c: tf.einsum("btk,bsk->bts", a, b),
            "einsum_weights": lambda a, b, c: tf.einsum("btk,khd->bthd", a, floats(4, 2, 3)),
            "einsum_heads": lambda a, b, c: tf.einsum("hbsk,btk->bhts", c, a),
            "einsum_ellipsis": lambda a, b, c: tf.einsum("...sk,kn->...sn", c, floats(4, 6)),
            "einsum_summed": lambda a, b, c: tf.einsum("btk,bsk->bk", a, b),
            "einsum_one": lambda a, b, c: tf.einsum("btk->kb", a),
        },
    ),
}


@pytest.mark.parametrize("group", GROUPS)
def test_operators(group):
    inputs, cases = GROUPS[group]
    specs = [tf.TensorSpec(array.shape, array.dtype, f"in{index}") for index, array in enumerate(inputs)]
    expected = [case(*map(tf.constant, inputs)).numpy() for case in cases.values()]

    def every_case(*tensors):
        return [tf.identity(case(*tensors), f"out_{name}") for name, case in cases.items()]

    imported = import_tensorflow(graph_of(every_case, *specs), outputs=[f"out_{name}" for name in cases])
    order = [variable.name for variable in imported.module["main"].params]
    actual = Compiled(imported)(*(inputs[int(name[2:])] for name in order if name.startswith("in")))
    wrong = []
    for name, ours, theirs in zip(cases, actual, expected, strict=True):
        same = ours.shape == theirs.shape and ours.dtype == theirs.dtype
        if not same or not np.allclose(ours, theirs, rtol=2e-5, atol=2e-5, equal_nan=True):
            difference = np.abs(ours.astype("f8") - theirs).max() if same else "shape or dtype"
            wrong.append(f"{name}: {difference}")
    assert not wrong


def test_channels_first():
    """TensorFlow's CPU kernels know NHWC only, so the reference is the same network in that layout."""

    def network(x, layout):
        pooling = {"ksize": [1, 2, 2, 1], "strides": [1, 2, 2, 1], "padding": "SAME"}
        strides = [1, 2, 1, 1]
        if layout == "NCHW":
            pooling |= {"ksize": [1, 1, 2, 2], "strides": [1, 1, 2, 2]}
            strides = [1, 1, 2, 1]
        x = raw.Conv2D(input=x, filter=KERNEL, strides=strides, padding="SAME", data_format=layout)
        x = raw.BiasAdd(value=x, bias=[1.0, 2, 3, 4], data_format=layout)
        statistics = {
            "scale": [1.0, 2, 3, 4],
            "offset": [4.0, 3, 2, 1],
            "mean": [0.1] * 4,
            "variance": [2.0] * 4,
        }
        x = raw.FusedBatchNormV3(x=x, **statistics, is_training=False, data_format=layout)[0]
        x = raw.AvgPool(value=x, **pooling, data_format=layout)
        x = raw.DepthToSpace(input=x, block_size=2, data_format=layout)
        return raw.SpaceToDepth(input=x, block_size=2, data_format=layout)

    planes = np.ascontiguousarray(X.transpose(0, 3, 1, 2))
    graph = graph_of(lambda x: network(x, "NCHW"), tf.TensorSpec(planes.shape, name="x"))
    (actual,) = Compiled(import_tensorflow(graph))(planes)
    expected = network(tf.constant(X), "NHWC").numpy().transpose(0, 3, 1, 2)
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5)
