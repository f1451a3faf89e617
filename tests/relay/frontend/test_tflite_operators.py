"""Every operator that the TFLite importer has a rule for, beside TFLite's interpreter.

Operators of one kind go into one model, so that a kind costs one compilation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from tflite_builder import Operation, Spec, build, compiled, constant, interpret, sample_inputs

from tvm.relay.frontend.tflite import import_tflite

DTYPES = ("float32", "int8", "uint8")
QUANTISED = ("int8", "uint8")
RELU, RELU6 = 1, 3
SAME, VALID = 0, 1
IMAGE = (1, 6, 7, 4)

# Operators that TFLite computes in another formula than the real one, or whose ties it rounds otherwise: the
# share of quantised outputs that may differ from ours, by one step.
ONE_STEP = {
    "CONCATENATION": 0.1,  # rescaled with the zero point added first, ties away from zero
    "DIV": 0.03,  # the reciprocal in fixed point
    "HARD_SWISH": 0.05,  # products of 16 bits
    "L2_NORMALIZATION": 0.1,  # a reciprocal square root by Newton's method in integers
    "MEAN": 0.08,  # uint8 over other axes than height and width: float32 with the zero point inside
    "RESIZE_BILINEAR": 0.12,  # weights of 11 bits, which decide ties
    "SQUARED_DIFFERENCE": 0.05,  # operands shifted by 7 bits
    "SUM": 0.08,  # as MEAN
    "TRANSPOSE_CONV": 0.02,  # rounded twice
}


def agree(operations: Sequence[Operation], resolver: str = "AUTO") -> None:
    """Import, compile and run the operations as one model, and compare each with the interpreter."""
    model, inputs = build(operations), sample_inputs(operations)
    outputs = compiled(import_tflite(model))(*inputs)
    expected = interpret(model, inputs, resolver)
    names = [operation for operation in operations for _ in operation.outputs]
    for operation, ours, theirs in zip(names, outputs, expected, strict=True):
        compare(operation, ours, theirs)


def compare(operation: Operation, ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape, operation
    assert ours.dtype == theirs.dtype, operation
    if ours.dtype == np.float32:
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5, err_msg=str(operation))
        return
    steps = np.abs(ours.astype(np.int64) - theirs.astype(np.int64))
    assert steps.max(initial=0) <= (operation.code in ONE_STEP), operation
    assert np.mean(steps > 0) <= ONE_STEP.get(operation.code, 0), operation


def tensor(
    dtype: str, shape: Sequence[int], scale: float = 0.05, zero: int | None = None, **more: object
) -> Spec:
    """An activation: quantised, if `dtype` is, with its zero point off the middle unless `zero` says it."""
    if dtype not in QUANTISED:
        return Spec(tuple(shape), dtype, **more)
    middle = {"int8": 3, "uint8": 131}[dtype]
    return Spec(tuple(shape), dtype, scale, middle if zero is None else zero, **more)


def lowest(dtype: str) -> int:
    return np.iinfo(dtype).min if dtype in QUANTISED else 0


def weights(
    dtype: str, shape: Sequence[int], channels: int, axis: int, per_channel: bool
) -> tuple[Spec, Spec]:
    """Random weights and a bias for inputs of scale 0.05; uint8 ones have a zero point."""
    rng = np.random.default_rng(1)
    if dtype == "float32":
        return (
            constant(rng.standard_normal(shape), dtype),
            constant(rng.standard_normal(channels), dtype),
        )
    scale = np.linspace(0.01, 0.03, channels) if per_channel else np.array([0.02])
    limits = np.iinfo(dtype)
    kernel = constant(
        rng.integers(limits.min, limits.max + 1, shape),
        dtype,
        scale=scale,
        zero_point=0 if dtype == "int8" else 120,
        axis=axis,
    )
    return kernel, constant(rng.integers(-2000, 2000, channels), "int32", scale=scale * 0.05)


@pytest.mark.parametrize("dtype", DTYPES)
def test_arithmetic(dtype):
    def pair(code, out_scale, second=IMAGE, **options):
        return Operation(
            code,
            [tensor(dtype, IMAGE), tensor(dtype, second, 0.031, None if dtype == "float32" else 7)],
            [tensor(dtype, IMAGE, out_scale)],
            options,
        )

    def halves(code):
        """Operands that are half steps of the result: every other sum is a tie."""
        return Operation(
            code,
            [tensor(dtype, IMAGE), tensor(dtype, IMAGE)],
            [tensor(dtype, IMAGE, 0.1)],
            {"fusedActivationFunction": RELU},
        )

    # Near 0, and beyond the output's range, TFLite's quantised quotients are not even close.
    low = lowest(dtype) + 20 if dtype in QUANTISED else 0.5
    dividend, divisor = (
        tensor(dtype, IMAGE, zero=lowest(dtype), low=low),
        tensor(dtype, IMAGE, zero=lowest(dtype), low=low),
    )
    agree(
        [
            *[pair(code, 0.06) for code in ("ADD", "SUB")],
            *[pair(code, 0.06, (1, 1, 1, 4), fusedActivationFunction=RELU6) for code in ("ADD", "SUB")],
            *[halves(code) for code in ("ADD", "SUB")],
            pair("MUL", 0.02),
            pair("MUL", 0.02, (7, 1), fusedActivationFunction=RELU6),
            Operation(
                "DIV",
                [dividend, divisor],
                [tensor(dtype, IMAGE, 0.1)],
            ),
            *[
                Operation(code, [tensor(dtype, IMAGE), tensor(dtype, (1, 1, 7, 1))], [tensor(dtype, IMAGE)])
                for code in ("MAXIMUM", "MINIMUM")
            ],
            *[
                Operation(code, [tensor(dtype, IMAGE), tensor(dtype, IMAGE, 0.04)], [Spec(IMAGE, "bool")])
                for code in ("EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL")
            ],
        ]
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_activations(dtype):
    def unary(code, out_scale=0.05, zero=None, **options):
        return Operation(code, [tensor(dtype, IMAGE)], [tensor(dtype, IMAGE, out_scale, zero)], options)

    slopes = constant(
        np.arange(4) * (20 if dtype in QUANTISED else 0.2),
        dtype,
        **({"scale": 0.01, "zero_point": 0} if dtype in QUANTISED else {}),
    )
    slopes = Spec((1, 1, 4), dtype, slopes.scale, data=slopes.data)
    low, middle = lowest(dtype), {"int8": 0, "uint8": 128}.get(dtype)
    rows = (3, 17)
    agree(
        [
            *[unary(code) for code in ("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "HARD_SWISH")],
            unary("RELU6", 0.025, low),
            unary("LOGISTIC", 1 / 256, low),
            unary("TANH", 1 / 128, middle),
            unary("LEAKY_RELU", 0.04, alpha=0.1),
            unary("LEAKY_RELU", 0.05, alpha=0.25),
            Operation("PRELU", [tensor(dtype, IMAGE), slopes], [tensor(dtype, IMAGE, 0.04)]),
            Operation("SOFTMAX", [tensor(dtype, rows)], [tensor(dtype, rows, 1 / 256, low)], {"beta": 1.0}),
            Operation(
                "SOFTMAX",
                [tensor(dtype, (2, *rows))],
                [tensor(dtype, (2, *rows), 1 / 256, low)],
                {"beta": 0.7},
            ),
            Operation(
                "LOG_SOFTMAX",
                [tensor(dtype, rows)],
                [tensor(dtype, rows, 16 / 256, {"int8": 127, "uint8": 255}.get(dtype))],
            ),
            Operation("L2_NORMALIZATION", [tensor(dtype, IMAGE)], [tensor(dtype, IMAGE, 1 / 128, middle)]),
        ]
    )


def test_functions_of_real_numbers():
    def unary(code, low=-3.0, high=3.0, **options):
        return Operation(code, [Spec(IMAGE, low=low, high=high)], [Spec(IMAGE)], options)

    agree(
        [
            *[unary(code) for code in ("ABS", "CEIL", "COS", "ELU", "EXP", "FLOOR", "NEG", "ROUND", "SIGN")],
            *[unary(code) for code in ("SIN", "SQUARE")],
            *[unary(code, 0.1) for code in ("LOG", "RSQRT", "SQRT")],
            *[unary("GELU", approximate=approximate) for approximate in (False, True)],
            Operation("POW", [Spec(IMAGE, low=0.1), Spec(IMAGE)], [Spec(IMAGE)]),
            Operation("ATAN2", [Spec(IMAGE), Spec(IMAGE)], [Spec(IMAGE)]),
            Operation("ADD_N", [Spec(IMAGE), Spec(IMAGE), Spec(IMAGE)], [Spec(IMAGE)]),
            Operation("SQUARED_DIFFERENCE", [Spec(IMAGE), Spec(IMAGE)], [Spec(IMAGE)]),
            Operation("FLOOR_DIV", [Spec(IMAGE), Spec(IMAGE, low=0.5)], [Spec(IMAGE)]),
            Operation("FLOOR_MOD", [Spec(IMAGE), Spec(IMAGE, low=0.5)], [Spec(IMAGE)]),
        ]
    )


def test_functions_of_int8():
    """Those whose int8 form the interpreter has."""

    def unary(code, low=-128, **quantisation):
        return Operation(code, [tensor("int8", IMAGE, zero=low, low=low + 1)], [tensor("int8", IMAGE)])

    agree(
        [
            unary("ABS"),
            unary("ELU"),
            unary("EXP"),
            unary("GELU"),
            unary("LOG"),
            unary("RSQRT"),
            Operation(
                "SQUARED_DIFFERENCE",
                [tensor("int8", IMAGE), tensor("int8", IMAGE, 0.04, 1)],
                [tensor("int8", IMAGE, 0.3, -128)],
            ),
        ]
    )


def test_integers_and_booleans():
    shape = (2, 3, 4)
    small = {"low": -50, "high": 50}
    agree(
        [
            *[
                Operation(
                    code, [Spec(shape, dtype, **small), Spec(shape, dtype, **small)], [Spec(shape, dtype)]
                )
                for code in ("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM")
                for dtype in ("int32", "int64")
            ],
            *[
                Operation(
                    code, [Spec(shape, "int32", **small), Spec(shape, "int32", low=1)], [Spec(shape, "int32")]
                )
                for code in ("DIV", "FLOOR_DIV", "FLOOR_MOD")
            ],
            *[
                Operation(code, [Spec(shape, "int32", **small), constant([1])], [Spec((2, 4), "int32")])
                for code in ("SUM", "MEAN", "REDUCE_MAX", "REDUCE_MIN")
            ],
            *[
                Operation(code, [Spec(shape, "bool"), Spec(shape, "bool")], [Spec(shape, "bool")])
                for code in ("LOGICAL_AND", "LOGICAL_OR")
            ],
            Operation("LOGICAL_NOT", [Spec(shape, "bool")], [Spec(shape, "bool")]),
            *[
                Operation(code, [Spec(shape, "bool"), constant([2])], [Spec((2, 3), "bool")])
                for code in ("REDUCE_ANY", "REDUCE_ALL")
            ],
        ]
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_reductions(dtype):
    def reduction(code, axes, keep, out_scale):
        shape = (1, 1, 1, 4) if keep else (1, 6, 7)
        out = tensor(dtype, shape, out_scale)
        return Operation(code, [tensor(dtype, IMAGE), constant(axes)], [out], {"keepDims": keep})

    agree(
        [
            *[
                reduction(code, axes, keep, scale)
                for code, scale in (("MEAN", 0.03), ("SUM", 0.5), ("REDUCE_MAX", 0.05), ("REDUCE_MIN", 0.05))
                for axes, keep in (([1, 2], True), ([-1], False))
            ],
            Operation("REDUCE_MAX", [tensor(dtype, IMAGE), constant([])], [tensor(dtype, IMAGE)]),
            *[
                Operation(
                    code, [tensor(dtype, IMAGE), constant(3)], [Spec(IMAGE[:3], "int32")], {"outputType": 2}
                )
                for code in ("ARG_MAX", "ARG_MIN")
            ],
            Operation(
                "TOPK_V2",
                [tensor(dtype, (3, 17)), constant(4)],
                [tensor(dtype, (3, 4)), Spec((3, 4), "int32")],
            ),
        ]
    )


CONVOLUTIONS = {
    # height, width, input and output channels, kernel, stride, dilation, padding, activation
    "plain": (6, 7, 4, 8, 3, 1, 1, SAME, RELU),
    "stride": (7, 6, 4, 8, 3, 2, 1, SAME, RELU6),
    "dilated": (9, 9, 4, 5, 3, 1, 2, SAME, 0),
    "valid": (9, 9, 4, 5, 3, 1, 1, VALID, 0),
    "pointwise": (5, 5, 16, 8, 1, 1, 1, SAME, RELU6),
    "uncovered": (8, 8, 3, 8, 3, 2, 1, VALID, 0),
}


@pytest.mark.parametrize("dtype", DTYPES)
def test_convolutions(dtype):
    operations = []
    for height, width, depth, channels, size, stride, dilation, padding, activation in CONVOLUTIONS.values():
        span = (size - 1) * dilation + 1
        out = [
            -(-extent // stride) if padding == SAME else (extent - span) // stride + 1
            for extent in (height, width)
        ]
        options = {
            "strideH": stride,
            "strideW": stride,
            "dilationHFactor": dilation,
            "dilationWFactor": dilation,
            "padding": padding,
            "fusedActivationFunction": activation,
        }
        image = tensor(dtype, (1, height, width, depth))
        for per_channel in (False, True) if dtype == "int8" else (False,):
            kernel, bias = weights(dtype, (channels, size, size, depth), channels, 0, per_channel)
            result = tensor(dtype, (1, *out, channels), 0.09)
            operations.append(Operation("CONV_2D", [image, kernel, bias], [result], options))
        for multiplier in (1, 2) if stride == 1 else (1,):
            kernel, bias = weights(
                dtype, (1, size, size, depth * multiplier), depth * multiplier, 3, dtype == "int8"
            )
            result = tensor(dtype, (1, *out, depth * multiplier))
            operations.append(
                Operation(
                    "DEPTHWISE_CONV_2D",
                    [image, kernel, bias],
                    [result],
                    {**options, "depthMultiplier": multiplier},
                )
            )
    kernel, bias = weights(dtype, (6, 3, 3, 4), 6, 0, False)
    operations.append(  # two groups
        Operation(
            "CONV_2D",
            [tensor(dtype, (1, 6, 7, 8)), kernel, bias],
            [tensor(dtype, (1, 6, 7, 6), 0.09)],
            {"strideH": 1, "strideW": 1, "padding": SAME},
        )
    )
    agree(operations)


@pytest.mark.parametrize("dtype", DTYPES)
def test_transposed_convolutions(dtype):
    operations = []
    for height, width, size, stride, padding in (
        (4, 5, 3, 2, SAME),
        (4, 5, 2, 2, VALID),
        (4, 5, 4, 2, SAME),
        (3, 3, 3, 1, SAME),
        (3, 3, 5, 3, VALID),
        (3, 4, 2, 3, SAME),
        (3, 4, 2, 3, VALID),
    ):
        extra = 0 if padding == SAME else max(size - stride, 0)
        out = (1, height * stride + extra, width * stride + extra, 5)
        kernel, bias = weights(dtype, (5, size, size, 4), 5, 0, dtype == "int8")
        image = tensor(dtype, (1, height, width, 4))
        options = {"strideH": stride, "strideW": stride, "padding": padding}
        for more in [[], [bias]] if stride == 2 else [[bias]]:
            operations.append(
                Operation(
                    "TRANSPOSE_CONV",
                    [constant(out), kernel, image, *more],
                    [tensor(dtype, out, 0.09)],
                    options,
                )
            )
    agree(operations)


@pytest.mark.parametrize("dtype", DTYPES)
def test_pooling(dtype):
    operations = []
    for size, stride in ((2, 2), (3, 2), (3, 1)):
        for padding in (SAME, VALID):
            out = [
                -(-extent // stride) if padding == SAME else (extent - size) // stride + 1
                for extent in IMAGE[1:3]
            ]
            options = {
                "filterHeight": size,
                "filterWidth": size,
                "strideH": stride,
                "strideW": stride,
                "padding": padding,
            }
            codes = ["AVERAGE_POOL_2D", "MAX_POOL_2D", *(["L2_POOL_2D"] if dtype == "float32" else [])]
            operations += [
                Operation(code, [tensor(dtype, IMAGE)], [tensor(dtype, (1, *out, 4))], options)
                for code in codes
            ]
    agree(operations)


@pytest.mark.parametrize("dtype", DTYPES)
def test_matrix_products(dtype):
    kernel, bias = weights(dtype, (6, 20), 6, 0, False)
    operations = [
        Operation(
            "FULLY_CONNECTED",
            [tensor(dtype, shape), kernel, bias_or_none],
            [tensor(dtype, out, 0.15)],
            {"keepNumDims": keep, "fusedActivationFunction": activation},
        )
        for keep, shape, out in (
            (False, (3, 20), (3, 6)),
            (False, (2, 4, 5), (2, 6)),
            (True, (2, 3, 20), (2, 3, 6)),
        )
        for bias_or_none, activation in ((bias, RELU), (None, 0))
    ]
    if dtype != "uint8":
        operations += [
            # The default interpreter takes the right factor's zero point for 0, whatever it is.
            Operation(
                "BATCH_MATMUL",
                [tensor(dtype, x), tensor(dtype, y, zero=0)],
                [tensor(dtype, (2, 5, 4), 0.2)],
                options,
            )
            for x, y, options in (
                ((2, 5, 7), (2, 7, 4), {}),
                ((2, 5, 7), (2, 4, 7), {"adjY": True}),
                ((2, 7, 5), (1, 7, 4), {"adjX": True}),
            )
        ]
    agree(operations)


@pytest.mark.parametrize("code", ["RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_resizing(dtype, code):
    sizes = ((4, 5, 8, 10), (9, 8, 4, 3), (3, 3, 1, 1), (5, 5, 13, 17))
    agree(
        [
            Operation(
                code,
                [tensor(dtype, (1, height, width, 3)), constant([rows, columns])],
                [tensor(dtype, (1, rows, columns, 3))],
                {"alignCorners": aligned, "halfPixelCenters": half_pixel},
            )
            for height, width, rows, columns in sizes
            for aligned, half_pixel in ((False, False), (True, False), (False, True))
        ]
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_movement(dtype):
    shape = (2, 4, 6, 8)

    def move(code, operands, *outs, **options):
        outputs = [tensor(dtype, out) for out in outs]
        return Operation(code, [tensor(dtype, shape), *operands], outputs, options)

    fill = tensor(dtype, (1,), data=np.array([7], dtype))
    pads = constant([[0, 0], [1, 2], [0, 3], [0, 0]])
    agree(
        [
            move("RESHAPE", [constant([2, 24, -1])], (2, 24, 8)),
            move("RESHAPE", [], (48, 8), newShape=[48, 8]),
            move("TRANSPOSE", [constant([0, 3, 1, 2])], (2, 8, 4, 6)),
            Operation(
                "SQUEEZE", [tensor(dtype, (1, 4, 1, 3))], [tensor(dtype, (4, 3))], {"squeezeDims": [0, 2]}
            ),
            Operation("SQUEEZE", [tensor(dtype, (1, 4, 1, 3))], [tensor(dtype, (4, 3))]),
            move("EXPAND_DIMS", [constant([1])], (2, 1, 4, 6, 8)),
            move("CONCATENATION", [tensor(dtype, shape)], (2, 4, 6, 16), axis=-1),
            move("PACK", [tensor(dtype, shape)], (2, 2, 4, 6, 8), axis=1, valuesCount=2),
            move("UNPACK", [], *[(2, 6, 8)] * 4, axis=1, num=4),
            Operation(
                "SPLIT",
                [constant(3), tensor(dtype, shape)],
                [tensor(dtype, (2, 4, 6, 4)) for _ in "ab"],
                {"numSplits": 2},
            ),
            move(
                "SPLIT_V",
                [constant([1, -1, 2]), constant(3)],
                *[(2, 4, 6, k) for k in (1, 5, 2)],
                numSplits=3,
            ),
            move("SLICE", [constant([0, 1, 2, 0]), constant([2, -1, 3, 8])], (2, 3, 3, 8)),
            move("GATHER", [constant([3, 0, 2])], (2, 3, 6, 8), axis=1),
            move("GATHER_ND", [constant([[1, 3], [0, 2]])], (2, 6, 8)),
            move("TILE", [constant([1, 2, 1, 3])], (2, 8, 6, 24)),
            move("REVERSE_V2", [constant([1])], shape),
            move("PAD", [pads], (2, 7, 9, 8)),
            move("PADV2", [pads, fill], (2, 7, 9, 8)),
            move("MIRROR_PAD", [pads], (2, 7, 9, 8), mode=0),
            move("MIRROR_PAD", [pads], (2, 7, 9, 8), mode=1),
            move("DEPTH_TO_SPACE", [], (2, 8, 12, 2), blockSize=2),
            move("SPACE_TO_DEPTH", [], (2, 2, 3, 32), blockSize=2),
            move("SPACE_TO_BATCH_ND", [constant([2, 3]), constant([[0, 0], [1, 2]])], (12, 2, 3, 8)),
            Operation(
                "BATCH_TO_SPACE_ND",
                [tensor(dtype, (12, 2, 3, 8)), constant([2, 3]), constant([[0, 1], [1, 2]])],
                [tensor(dtype, (2, 3, 6, 8))],
            ),
            *[
                Operation(
                    code,
                    [Spec(condition, "bool"), tensor(dtype, shape), tensor(dtype, shape)],
                    [tensor(dtype, shape)],
                )
                for code, condition in (("SELECT", (2,)), ("SELECT", shape), ("SELECT_V2", (4, 1, 8)))
            ],
        ]
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_strided_slices(dtype):
    def cut(begin, end, strides, out, **masks):
        operands = [constant(begin), constant(end), constant(strides)]
        return Operation(
            "STRIDED_SLICE", [tensor(dtype, (2, 4, 6, 8)), *operands], [tensor(dtype, out)], masks
        )

    agree(
        [
            cut([0, 1, 1, 0], [2, 3, 6, 8], [1, 1, 2, 3], (2, 2, 3, 3)),
            cut([0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1], (2, 4, 6, 8), beginMask=15, endMask=15),
            cut([0, -1, 5, 0], [0, 0, 0, 0], [1, -1, -2, 1], (2, 4, 3, 8), beginMask=9, endMask=15),
            cut([1, 0, 2], [2, 0, 3], [1, 1, 1], (4, 6), shrinkAxisMask=5, ellipsisMask=2),
            cut([0, 0, -1], [2, 0, 0], [1, 1, 1], (2, 1, 6, 8), newAxisMask=2, shrinkAxisMask=4),
        ]
    )


def test_join_of_different_scales():
    """uint8 alone may join tensors that are quantised differently."""
    parts = [tensor("uint8", (2, 50), 0.05), tensor("uint8", (2, 70), 0.03, 10)]
    agree([Operation("CONCATENATION", parts, [tensor("uint8", (2, 120), 0.04)], {"axis": 1})])


def test_changes_of_type():
    def to(code, source, target, **options):
        return Operation(code, [source], [target], options)

    operations = [to("QUANTIZE", Spec(IMAGE), tensor(dtype, IMAGE)) for dtype in QUANTISED]
    operations += [to("DEQUANTIZE", tensor(dtype, IMAGE), Spec(IMAGE)) for dtype in QUANTISED]
    operations += [
        to("QUANTIZE", tensor(source, IMAGE), tensor(target, IMAGE, scale))
        for source in QUANTISED
        for target in QUANTISED
        for scale in (0.05, 0.07)
    ]
    operations += [
        to("CAST", Spec(IMAGE), Spec(IMAGE, "int32")),
        to("CAST", Spec(IMAGE, "int32"), Spec(IMAGE)),
        to("CAST", Spec(IMAGE, "bool"), Spec(IMAGE)),
        to("CAST", tensor("uint8", IMAGE), Spec(IMAGE)),
    ]
    agree(operations)


def test_known_tensors():
    """Operators on shapes and constants, with an operator that reads the result."""
    shape, extent, double, half = (Spec((n,), "int32") for n in (2, 1, 1, 1))
    lengths = Spec((3,), "int32")
    table = constant(np.arange(15).reshape(3, 5), "float32")
    agree(
        [
            Operation("SHAPE", [Spec((4, 6))], [shape], {"outType": 2}),
            Operation("SLICE", [shape, constant([1]), constant([1])], [extent]),
            Operation("MUL", [extent, constant([2])], [double]),
            Operation("FLOOR_DIV", [double, constant([4])], [half]),
            Operation("CONCATENATION", [constant([2]), double, constant([-1])], [lengths], {"axis": 0}),
            Operation("RESHAPE", [Spec((4, 6)), lengths], [Spec((2, 12, 1))]),
            Operation("RANGE", [constant(1), constant(9), constant(3)], [Spec((3,), "int32")]),
            Operation("FILL", [constant([2, 3]), Spec(())], [Spec((2, 3))]),
            Operation("RANK", [Spec((4, 6))], [Spec((), "int32")]),
            Operation("ZEROS_LIKE", [Spec((4, 6))], [Spec((4, 6))]),
            Operation("EMBEDDING_LOOKUP", [constant([1, 0, 2]), table], [Spec((3, 5))]),
        ]
    )


def test_operators_of_upstream():
    """Some that have no rule here and go through upstream's importer."""
    shape = (2, 3, 4)
    indices = Spec((5,), "int32", low=0, high=3)
    agree(
        [
            Operation("CUMSUM", [Spec(shape), constant([1])], [Spec(shape)], {"exclusive": True}),
            Operation(
                "ONE_HOT",
                [indices, constant(4), constant(1.0, "float32"), constant(0.0, "float32")],
                [Spec((5, 4))],
                {"axis": -1},
            ),
            Operation(
                "LOCAL_RESPONSE_NORMALIZATION",
                [Spec((1, 3, 3, 8))],
                [Spec((1, 3, 3, 8))],
                {"radius": 2, "bias": 1.0, "alpha": 0.5, "beta": 0.75},
            ),
            Operation("REVERSE_SEQUENCE", [Spec(shape), constant([2, 1])], [Spec(shape)], {"seqDim": 1}),
        ]
    )


@pytest.mark.parametrize(
    ("dtype", "regular", "threshold"),
    [("float32", False, 0.3), ("float32", True, 0.97), ("uint8", True, 0.3), ("uint8", False, 0.97)],
)
def test_detection_postprocess(dtype, regular, threshold):
    """The custom operator at the end of detectors; TFLite leaves what follows the last box undefined."""
    rng = np.random.default_rng(0)
    boxes, classes, kept = 30, 5, 8
    centres = np.stack(np.meshgrid(np.linspace(0.1, 0.9, 6), np.linspace(0.1, 0.9, 5)), -1).reshape(-1, 2)
    anchors = np.concatenate([centres, np.full((boxes, 2), 0.3)], 1).astype(np.float32)
    encodings = rng.standard_normal((1, boxes, 4)).astype(np.float32)
    scores = rng.random((1, boxes, classes + 1)).astype(np.float32)
    specs = [Spec(encodings.shape), Spec(scores.shape), constant(anchors, "float32")]
    if dtype == "uint8":
        anchors = np.round(anchors * 255)
        specs = [
            Spec(encodings.shape, dtype, 0.05, 128),
            Spec(scores.shape, dtype, 1 / 256),
            constant(anchors, dtype, scale=1 / 255),
        ]
        encodings = np.clip(np.round(encodings / 0.05) + 128, 0, 255).astype(dtype)
        scores = np.clip(np.round(scores * 256), 0, 255).astype(dtype)
    custom = {
        "max_detections": kept,
        "max_classes_per_detection": 1,
        "detections_per_class": 4,
        "use_regular_nms": regular,
        "nms_score_threshold": threshold,
        "nms_iou_threshold": 0.5,
        "num_classes": classes,
        "y_scale": 10.0,
        "x_scale": 10.0,
        "h_scale": 5.0,
        "w_scale": 5.0,
    }
    outputs = [Spec((1, kept, 4)), Spec((1, kept)), Spec((1, kept)), Spec((1,))]
    model = build([Operation("TFLite_Detection_PostProcess", specs, outputs, custom=custom)])
    ours = compiled(import_tflite(model))(encodings, scores)
    theirs = interpret(model, [encodings, scores])
    count = int(theirs[3][0])
    assert 0 < count <= kept
    assert ours[3] == theirs[3]
    for mine, reference in zip(ours[:3], theirs[:3], strict=True):
        np.testing.assert_allclose(mine[:, :count], reference[:, :count], rtol=1e-5, atol=1e-6)
