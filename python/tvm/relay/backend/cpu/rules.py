"""How each operator is computed in the packed layout.

A rule takes the `Packer` and a call of the original graph. It returns the result as `Packed`, or as a plain
expression, or None to leave the call as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tvm import relax

from . import convolution, layout, matmul, pooling, rows, transposed, winograd
from .graph import constant, dimensions, dtype_of, value_of
from .layout import Packed, pack_array
from .pointwise import pointwise
from .window import Window

if TYPE_CHECKING:
    from .packing import Packer

__all__ = ["ELEMENTWISE", "RULES"]

# Upstream's OpPatternKind: the neighbours of an injective operator fuse with it, and element-wise operators
# that follow fuse into the other kind.
_INJECTIVE, _OUT_ELEMENTWISE = 2, 4

Rule = Callable[["Packer", relax.Call], "Packed | relax.Expr | None"]


def _ints(values) -> list[int]:
    return [int(v) for v in values]


def _four(shape: list | None) -> bool:
    """Whether `shape` is 4-dimensional with at most the batch (the first) symbolic."""
    return shape is not None and len(shape) == 4 and all(isinstance(d, int) for d in shape[1:])


def _transposed(array: np.ndarray, source: str, destination: str) -> np.ndarray:
    return array.transpose([source.index(axis) for axis in destination])


def conv2d(packer: Packer, call: relax.Call) -> Packed | None:
    """A convolution with constant weights."""
    operands = _convolved(packer, call)
    if operands is None:
        return None
    data, weight, order = operands
    attrs = call.attrs
    data, padding = _unpadded(packer, data, order, _ints(attrs.padding))
    window = Window(weight.shape[2:], tuple(_ints(attrs.strides)), padding, tuple(_ints(attrs.dilation)))
    return _convolution(packer, data, order, weight, window, int(attrs.groups))


def conv2d_transpose(packer: Packer, call: relax.Call) -> Packed | None:
    """A transposed convolution with constant weights and one group."""
    operands = _convolved(packer, call)
    attrs = call.attrs
    if operands is None or int(attrs.groups) != 1 or any(d != 1 for d in _ints(attrs.dilation)):
        return None
    data, weight, order = operands
    strides, (top, left, *_) = tuple(_ints(attrs.strides)), _ints(attrs.padding)
    source, result = (dict(zip(order, dimensions(e), strict=True)) for e in (data, call))
    plane, output = ((shape["H"], shape["W"]) for shape in (source, result))
    parts = [
        _convolution(packer, data, order, taps, window, 1)
        for taps, window in transposed.phases(weight, strides, (top, left), plane, output)
    ]
    values = [part.value for part in parts]
    value = packer.emit_te(transposed.interleave, *values, strides=strides, output=output, pattern=_INJECTIVE)
    return Packed(value, order, weight.shape[0])


def _convolved(packer: Packer, call: relax.Call) -> tuple[relax.Expr, np.ndarray, str] | None:
    """The data, the OIHW weights and the layout of a float32 convolution that can be packed, or None."""
    data, attrs = call.args[0], call.attrs
    order = str(attrs.data_layout)
    weight = value_of(packer.plain(call.args[1]))
    if weight is None or order not in ("NCHW", "NHWC") or not _four(dimensions(data)):
        return None
    if dtype_of(call) != "float32" or dtype_of(data) != "float32" or str(attrs.out_layout) not in ("", order):
        return None
    return data, _transposed(weight, str(attrs.kernel_layout), "OIHW"), order


def _convolution(
    packer: Packer, data: relax.Expr, order: str, weight: np.ndarray, window: Window, groups: int
) -> Packed | None:
    """By the kernel that suits the shape: depthwise, Winograd or direct."""
    lanes, outputs = packer.machine.lanes, weight.shape[0]
    shape = dict(zip(order, dimensions(data), strict=True))
    if groups == shape["C"] == outputs and groups > 1:
        packed = constant(pooling.pack_depthwise_weight(weight, lanes))
        operand = packer.pack(data, order).value
        value = packer.emit_te(pooling.depthwise, operand, packed, window=window, pattern=_OUT_ELEMENTWISE)
        return Packed(value, order, outputs)
    if groups > 1 and (outputs // groups) % lanes:
        return None
    if groups == 1 and not packer.exact and weight.shape[1] >= lanes:
        scheme = winograd.plan(window, (shape["H"], shape["W"]), shape["C"], outputs, packer.machine)
        if scheme is not None:
            operands = [
                winograd.transform_weight(weight, scheme.chunks, lanes),
                winograd.FORWARD,
                winograd.INVERSE,
            ]
            value = packer.emit_te(
                winograd.winograd,
                packer.pack(data, order).value,
                *[constant(a) for a in operands],
                plan=scheme,
                pattern=_OUT_ELEMENTWISE,
            )
            return Packed(value, order, outputs)
    source = convolution.PACKED
    if not (isinstance(data, relax.Var) and data in packer.packed) and weight.shape[1] < lanes:
        source = convolution.NHWC if order == "NHWC" else convolution.NCHW
    plane = shape["H"], shape["W"]
    operand = packer.pack(data, order).value if source == convolution.PACKED else packer.plain(data)
    sparse = window.size == (1, 1) and window.strides != (1, 1) and not any(window.padding)
    if source == convolution.PACKED and sparse:
        # What is left makes one line of pixels, and better tiles than rows with gaps do.
        operand = packer.emit_te(layout.subsample, operand, strides=window.strides, pattern=_INJECTIVE)
        plane, window = window.output(*plane), replace(window, strides=(1, 1))
    geometry = convolution.Geometry(window, groups, source, weight.shape[1])
    geometry = convolution.plan(geometry, plane, outputs, packer.machine)
    if geometry.flat and any(window.padding):
        operand = packer.emit_te(layout.pad, operand, padding=window.padding, pattern=_INJECTIVE)
        geometry = replace(geometry, window=replace(window, padding=(0, 0, 0, 0)))
    packed = constant(convolution.pack_weight(weight, geometry, lanes))
    value = packer.emit_te(
        convolution.convolution, operand, packed, geometry=geometry, pattern=_OUT_ELEMENTWISE
    )
    return Packed(value, order, outputs)


def _unpadded(packer: Packer, data: relax.Expr, order: str, padding: list[int]):
    """Take an explicit zero padding before a convolution into the convolution's own."""
    definition = packer.definitions.get(data) if isinstance(data, relax.Var) else None
    name = getattr(getattr(definition, "op", None), "name", "")
    if name == "relax.nn.pad" and str(definition.attrs.pad_mode) == "constant":
        widths = _ints(definition.attrs.pad_width)
        fill = definition.args[1] if len(definition.args) > 1 else None
        fill = 0.0 if fill is None else value_of(fill)
        before, after = (
            dict(zip(order, widths[::2], strict=True)),
            dict(zip(order, widths[1::2], strict=True)),
        )
        others = [before["N"], before["C"], after["N"], after["C"]]
        if fill is not None and float(np.asarray(fill)) == 0 and not any(others) and min(widths) >= 0:
            extra = before["H"], before["W"], after["H"], after["W"]
            return definition.args[0], tuple(a + b for a, b in zip(padding, extra, strict=True))
    return data, tuple(padding)


def _pooled(packer: Packer, call: relax.Call) -> tuple[Packed, Window, tuple[int, int]] | None:
    data, attrs = call.args[0], call.attrs
    order = str(attrs.layout)
    if order not in ("NCHW", "NHWC") or not _four(dimensions(data)) or dtype_of(data) != "float32":
        return None
    if not isinstance(data, relax.Var) or data not in packer.packed or packer.packed[data].layout != order:
        return None
    window = Window(
        tuple(_ints(attrs.pool_size)),
        tuple(_ints(attrs.strides)),
        tuple(_ints(attrs.padding)),
        tuple(_ints(attrs.dilation)),
    )
    result = dict(zip(order, dimensions(call), strict=True))
    return packer.packed[data], window, (result["H"], result["W"])


def max_pool2d(packer: Packer, call: relax.Call) -> Packed | None:
    """Maximum pooling of a packed tensor."""
    found = _pooled(packer, call)
    if found is None:
        return None
    data, window, output = found
    value = packer.emit_te(
        pooling.maximum, data.value, window=window, output=output, pattern=_OUT_ELEMENTWISE
    )
    return Packed(value, data.layout, data.channels)


def avg_pool2d(packer: Packer, call: relax.Call) -> Packed | None:
    """Average pooling of a packed tensor."""
    found = _pooled(packer, call)
    if found is None or found[1].dilation != (1, 1):
        return None
    data, window, output = found
    value = packer.emit_te(
        pooling.average,
        data.value,
        window=window,
        output=output,
        include_padding=bool(call.attrs.count_include_pad),
        pattern=_OUT_ELEMENTWISE,
    )
    return Packed(value, data.layout, data.channels)


def _average_cells(packer: Packer, data: relax.Expr, rows: int, columns: int) -> Packed | None:
    """Average equal cells of a packed tensor, of which there are `rows` by `columns`."""
    if not isinstance(data, relax.Var) or data not in packer.packed or dtype_of(data) != "float32":
        return None
    packed = packer.packed[data]
    shape = dict(zip(packed.layout, dimensions(data), strict=True))
    if not _four(dimensions(data)) or shape["H"] % rows or shape["W"] % columns:
        return None
    cell = shape["H"] // rows, shape["W"] // columns
    value = packer.emit_te(
        pooling.average,
        packed.value,
        window=Window(cell, cell, (0, 0, 0, 0), (1, 1)),
        output=(rows, columns),
        include_padding=False,
        pattern=_OUT_ELEMENTWISE,
    )
    return Packed(value, packed.layout, packed.channels)


def adaptive_avg_pool2d(packer: Packer, call: relax.Call) -> Packed | None:
    """Adaptive average pooling of a packed tensor into cells of one size."""
    result = dimensions(call)
    if not _four(result) or str(call.attrs.layout) not in ("NCHW", "NHWC"):
        return None
    if call.args[0] in packer.packed and packer.packed[call.args[0]].layout != str(call.attrs.layout):
        return None
    size = dict(zip(str(call.attrs.layout), result, strict=True))
    return _average_cells(packer, call.args[0], size["H"], size["W"])


def mean(packer: Packer, call: relax.Call) -> Packed | relax.Expr | None:
    """The mean over the plane of a packed tensor: global average pooling."""
    data = call.args[0]
    if not isinstance(data, relax.Var) or data not in packer.packed or call.attrs.axis is None:
        return None
    order = packer.packed[data].layout
    if sorted(int(a) % 4 for a in call.attrs.axis) != sorted((order.index("H"), order.index("W"))):
        return None
    cells = _average_cells(packer, data, 1, 1)
    if cells is None or call.attrs.keepdims:
        return cells
    return _channels(packer, cells, dimensions(call))


def _channels(packer: Packer, packed: Packed, shape: list) -> relax.Expr:
    """A packed tensor of one pixel as the plain tensor of `shape`, [N, C] in whatever rank."""
    n = dimensions(packed.value)[0]
    width = dimensions(packed.value)[1] * packer.machine.lanes
    value = packer.emit(relax.op.reshape(packed.value, (n, width)))
    if width != packed.channels:
        value = packer.emit(relax.op.strided_slice(value, [1], [0], [packed.channels]))
    return relax.op.reshape(value, tuple(shape))


def reshape(packer: Packer, call: relax.Call) -> relax.Expr | None:
    """Dropping or keeping the two unit dimensions of a packed tensor of one pixel."""
    data, shape = call.args[0], dimensions(call)
    if not isinstance(data, relax.Var) or data not in packer.packed or shape is None:
        return None
    packed = packer.packed[data]
    if any(dimensions(data)[packed.layout.index(axis)] != 1 for axis in "HW"):
        return None
    return _channels(packer, packed, shape)


def permute_dims(packer: Packer, call: relax.Call) -> Packed | None:
    """A change between NCHW and NHWC costs nothing in the packed layout."""
    data = call.args[0]
    if not isinstance(data, relax.Var) or data not in packer.packed or call.attrs.axes is None:
        return None
    packed = packer.packed[data]
    order = "".join(packed.layout[a] for a in _ints(call.attrs.axes))
    return Packed(packed.value, order, packed.channels) if order in ("NCHW", "NHWC") else None


def elementwise(packer: Packer, call: relax.Call) -> Packed | None:
    """An element-wise operator of which some operand is packed; the others are packed to match."""
    first = next((a for a in call.args if isinstance(a, relax.Var) and a in packer.packed), None)
    shape = dimensions(call)
    if first is None or not _four(shape):
        return None
    if call.op.name in ("relax.divide", "relax.power") and not dtype_of(call).startswith("float"):
        return None  # integer arithmetic on the lanes beyond the channels could trap
    order, lanes = packer.packed[first].layout, packer.machine.lanes
    channel = order.index("C")
    operands = []
    for argument in call.args:
        own, array = dimensions(argument), value_of(argument)
        if own is None:
            operands.append(argument)  # a scalar attribute, such as a bound of clip
        elif array is not None and array.size == 1:
            operands.append(constant(array.reshape(())))
        elif array is not None and array.ndim <= 4:
            array = _transposed(array.reshape((1,) * (4 - array.ndim) + array.shape), order, "NCHW")
            operands.append(constant(array[..., None] if array.shape[1] == 1 else pack_array(array, lanes)))
        elif len(own) == 4 and _four(own) and own[channel] == shape[channel]:
            operands.append(packer.pack(argument, order).value)
        else:
            return None
    return Packed(packer.emit(relax.Call(call.op, operands, call.attrs)), order, shape[channel])


def call_tir(packer: Packer, call: relax.Call) -> Packed | None:
    """An element-wise TIR function of packed tensors of one shape, and of scalars."""
    shape = dimensions(call)
    if len(call.args) != 2 or not isinstance(call.args[1], relax.Tuple) or not _four(shape):
        return None
    arguments = list(call.args[1].fields)
    first = next((a for a in arguments if isinstance(a, relax.Var) and a in packer.packed), None)
    if (
        first is None
        or dtype_of(call) != "float32"
        or any(dimensions(a) not in ([], shape) for a in arguments)
    ):
        return None
    compute = pointwise(packer.module[call.args[0]])
    if compute is None:
        return None
    order = packer.packed[first].layout
    operands = [packer.pack(a, order).value if dimensions(a) else packer.plain(a) for a in arguments]
    return Packed(packer.emit_te(compute, *operands, pattern=0), order, shape[order.index("C")])


def concat(packer: Packer, call: relax.Call) -> Packed | None:
    """Concatenation of packed tensors: of whole chunks of channels, or along the plane."""
    fields = call.args[0].fields if isinstance(call.args[0], relax.Tuple) else None
    if not fields or not all(isinstance(f, relax.Var) and f in packer.packed for f in fields):
        return None
    parts = [packer.packed[f] for f in fields]
    order, lanes = parts[0].layout, packer.machine.lanes
    axis = order[int(call.attrs.axis) % 4]
    if any(p.layout != order for p in parts):
        return None
    if axis == "C" and any(p.channels % lanes for p in parts[:-1]):
        return None
    channels = sum(p.channels for p in parts) if axis == "C" else parts[0].channels
    value = packer.emit(relax.op.concat([p.value for p in parts], "NCHW".index(axis)))
    return Packed(value, order, channels)


def matmul_(packer: Packer, call: relax.Call) -> relax.Expr | None:
    """A product with constant weights, or of two float32 tensors of known shape."""
    left, right = call.args
    a, b = dimensions(left), dimensions(right)
    if a is None or b is None or len(a) < 2 or len(b) < 2 or dtype_of(call) != "float32":
        return None
    if dtype_of(left) != "float32" or dtype_of(right) != "float32":
        return None
    weight = value_of(packer.plain(right))
    if weight is not None and weight.ndim == 2 and isinstance(a[-1], int):
        return _dense(packer, left, a, weight)
    return _batched(packer, left, right, a, b)


def _dense(packer: Packer, left: relax.Expr, shape: list, weight: np.ndarray) -> relax.Expr:
    rows = math.prod(shape[:-1])
    depth, columns = weight.shape
    height, chunks = matmul.tile(rows, depth, columns, packer.machine)
    packed = constant(matmul.pack_dense_weight(weight, chunks, packer.machine.lanes))
    data = packer.plain(left)
    if len(shape) > 2:
        data = packer.emit(relax.op.reshape(data, (rows, depth)))
    value = packer.emit_te(
        matmul.dense, data, packed, columns=columns, height=height, pattern=_OUT_ELEMENTWISE
    )
    return value if len(shape) == 2 else relax.op.reshape(value, (*shape[:-1], columns))


def _batched(packer: Packer, left: relax.Expr, right: relax.Expr, a: list, b: list) -> relax.Expr | None:
    lanes = packer.machine.lanes
    if not all(isinstance(d, int) for d in a + b) or len(a) < len(b) or b[-1] < lanes:
        return None
    lead = a[len(a) - len(b) : -2]
    if any(y not in (x, 1) for x, y in zip(lead, b[:-2], strict=True)):
        return None
    height, chunks = matmul.tile(a[-2], a[-1], b[-1], packer.machine)
    chunks = min(chunks, b[-1] // lanes)
    return packer.emit_te(
        matmul.batched,
        packer.plain(left),
        packer.plain(right),
        height=height,
        chunks=chunks,
        lanes=lanes,
        pattern=_OUT_ELEMENTWISE,
    )


def _rows(call: relax.Call, axes: list[int]) -> tuple[int, int] | None:
    """The known sizes of `call`'s operand as rows and columns, where `axes` is the last one alone."""
    shape = dimensions(call.args[0])
    if not shape or not all(isinstance(d, int) and d > 0 for d in shape) or dtype_of(call) != "float32":
        return None
    if [a % len(shape) for a in axes] != [len(shape) - 1]:
        return None
    return math.prod(shape[:-1]), shape[-1]


def softmax(packer: Packer, call: relax.Call) -> relax.Expr | None:
    """Softmax along the last axis."""
    sizes = _rows(call, [int(call.attrs.axis)])
    if sizes is None:
        return None
    data = packer.emit(relax.op.reshape(packer.plain(call.args[0]), sizes))
    result = packer.emit_function("softmax", rows.softmax(*sizes, packer.machine), data)
    return relax.op.reshape(result, tuple(dimensions(call)))


def layer_norm(packer: Packer, call: relax.Call) -> relax.Expr | None:
    """Layer normalisation along the last axis."""
    sizes = _rows(call, _ints(call.attrs.axes))
    if sizes is None or dimensions(call.args[1]) != [sizes[1]] or dimensions(call.args[2]) != [sizes[1]]:
        return None
    columns = [sizes[1]]
    gamma = packer.plain(call.args[1]) if call.attrs.scale else constant(np.ones(columns, "float32"))
    beta = packer.plain(call.args[2]) if call.attrs.center else constant(np.zeros(columns, "float32"))
    data = packer.emit(relax.op.reshape(packer.plain(call.args[0]), sizes))
    func = rows.layer_norm(*sizes, float(call.attrs.epsilon), packer.machine)
    return relax.op.reshape(
        packer.emit_function("layer_norm", func, data, gamma, beta), tuple(dimensions(call))
    )


ELEMENTWISE = (
    "abs",
    "add",
    "astype",
    "ceil",
    "clip",
    "cos",
    "divide",
    "equal",
    "erf",
    "exp",
    "floor",
    "greater",
    "greater_equal",
    "less",
    "less_equal",
    "log",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "nn.gelu",
    "nn.gelu_tanh",
    "nn.leakyrelu",
    "nn.relu",
    "nn.relu6",
    "nn.selu",
    "nn.silu",
    "nn.softplus",
    "not_equal",
    "power",
    "round",
    "rsqrt",
    "sigmoid",
    "sign",
    "sin",
    "sqrt",
    "square",
    "subtract",
    "tanh",
    "where",
)

RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, elementwise),
    "nn.conv2d": conv2d,
    "nn.conv2d_transpose": conv2d_transpose,
    "nn.max_pool2d": max_pool2d,
    "nn.avg_pool2d": avg_pool2d,
    "nn.adaptive_avg_pool2d": adaptive_avg_pool2d,
    "mean": mean,
    "reshape": reshape,
    "flatten": reshape,
    "squeeze": reshape,
    "permute_dims": permute_dims,
    "call_tir": call_tir,
    "concat": concat,
    "matmul": matmul_,
    "nn.softmax": softmax,
    "nn.layer_norm": layer_norm,
}
