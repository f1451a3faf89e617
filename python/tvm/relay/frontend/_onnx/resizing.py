"""Resize with everything that ONNX lets it do: one axis after the other, as a selection or a matrix product.

Upstream's converter takes the ratio of the sizes for the scale, knows no axes, no antialiasing and no policy
for the aspect ratio. Where that makes no difference, its kernels are left to do it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tvm import relax, tirx

from .registry import Tensor, converts, known, padded, static_size

_KERNEL_REACH = {"linear": 1, "cubic": 2}


@converts("Resize")
def _resize(
    builder: relax.BlockBuilder, operands: list[Tensor | None], attributes: dict[str, Any], outputs: int
) -> list[Tensor] | None:
    x, *rest = operands
    # Version 10 has no region.
    region, scales, sizes = padded(rest, 3) if len(rest) > 1 else (None, rest[0], None)
    rank = x.ty.ndim
    axes = [axis % rank for axis in attributes.get("axes") or range(rank)]
    scales, sizes = (None if v is None or not _numel(v) else known(v, what) for v, what in
                     ((scales, "scales"), (sizes, "sizes")))  # fmt: skip
    fixed = all(isinstance(x.ty.shape.values[axis], tirx.IntImm) for axis in axes)
    upstream_is_right = (
        "axes" not in attributes
        and not attributes.get("antialias")
        and attributes.get("keep_aspect_ratio_policy", b"stretch") == b"stretch"
        and attributes.get("coordinate_transformation_mode") != b"half_pixel_symmetric"
        # Its kernels round in float32, and so may choose another neighbour.
        and not (fixed and attributes.get("mode", b"nearest") == b"nearest")
        and rank in (3, 4, 5)
    )
    if upstream_is_right and _same_ratio(x, scales):
        return None

    inside = [static_size(x, axis) for axis in axes]
    if sizes is None:
        scales = [float(scale) for scale in scales]
        sizes = [math.floor(size * scale) for size, scale in zip(inside, scales, strict=True)]
    else:
        scales = [int(new) / old for new, old in zip(sizes, inside, strict=True)]
        policy = attributes.get("keep_aspect_ratio_policy", b"stretch")
        if policy != b"stretch":
            scales = [min(scales) if policy == b"not_larger" else max(scales)] * len(axes)
            sizes = [int(scale * old + 0.5) for scale, old in zip(scales, inside, strict=True)]
    bounds = np.concatenate([np.zeros(len(axes)), np.ones(len(axes))])
    if attributes.get("coordinate_transformation_mode") == b"tf_crop_and_resize":
        bounds = known(region, "roi")
    starts, ends = np.reshape(bounds, (2, len(axes)))

    dtype = str(x.ty.dtype)
    y = x
    for axis, old, new, scale, start, end in zip(axes, inside, sizes, scales, starts, ends, strict=True):
        if scale != 1 or (start, end) != (0, 1):
            at, beyond = _positions(old, int(new), scale, start, end, attributes)
            y = _resample(builder, y, axis, old, at, scale, attributes)
            if beyond.any():
                mask = relax.const(beyond.reshape([-1 if a == axis else 1 for a in range(rank)]), "bool")
                value = relax.const(attributes["extrapolation_value"], str(y.ty.dtype))
                y = builder.emit(relax.op.where(mask, value, y))
    return [y if str(y.ty.dtype) == dtype else builder.emit(relax.op.astype(y, dtype))]


def _numel(tensor: Tensor) -> int:
    return math.prod(int(size) for size in tensor.ty.shape.values)


def _same_ratio(x: Tensor, scales: np.ndarray | None) -> bool:
    """Whether each scale is the ratio of the output's size to the input's, and batch and channels stay."""
    if scales is None:
        return True
    sizes = [size.value if isinstance(size, tirx.IntImm) else 1 for size in x.ty.shape.values]
    products = [scale * size for size, scale in zip(sizes, scales, strict=True)]
    return bool((scales[:2] == 1).all()) and all(float(product).is_integer() for product in products)


def _positions(
    old: int, new: int, scale: float, start: float, end: float, attributes: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Where each of the `new` outputs lies among the `old` inputs, and whether that is outside the region."""
    mode = attributes.get("coordinate_transformation_mode", b"asymmetric").decode()
    index, length = np.arange(new, dtype="float64"), scale * old
    if mode == "align_corners":
        at = index * (old - 1) / (length - 1) if length != 1 else np.zeros(new)
    elif mode == "asymmetric":
        at = index / scale
    elif mode == "tf_crop_and_resize":
        step = (end - start) * (old - 1) / (length - 1) if length != 1 else 0
        first = start if length != 1 else (start + end) / 2
        at = first * (old - 1) + index * step
        return at, (at < 0) | (at > old - 1)
    elif mode == "pytorch_half_pixel" and length == 1:
        at = np.zeros(new)
    elif mode in ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric"):
        at = (index + 0.5) / scale - 0.5
        if mode == "half_pixel_symmetric":
            at += old / 2 * (1 - new / length)
    else:
        raise ValueError(f"the coordinate transformation '{mode}' is not supported")
    return at, np.zeros(new, bool)


def _resample(
    builder: relax.BlockBuilder,
    x: Tensor,
    axis: int,
    old: int,
    at: np.ndarray,
    scale: float,
    attributes: dict[str, Any],
) -> Tensor:
    """The values of `x` at the positions `at` along `axis`."""
    if attributes.get("mode", b"nearest") == b"nearest":
        indices = np.clip(_rounded(at, attributes), 0, old - 1).astype("int64")
        return builder.emit(relax.op.take(x, relax.const(indices, "int64"), axis, mode="clip"))
    weights = _weights(old, at, scale, attributes).astype("float32")
    if str(x.ty.dtype) not in ("float32", "float64"):
        x = builder.emit(relax.op.astype(x, "float32"))
    weights = relax.const(weights.T, "float32")
    weights = builder.emit(relax.op.astype(weights, str(x.ty.dtype)))
    order = [a for a in range(x.ty.ndim) if a != axis] + [axis]
    last = builder.emit(relax.op.permute_dims(x, order))
    product = builder.emit(relax.op.matmul(last, weights))
    return builder.emit(relax.op.permute_dims(product, list(np.argsort(order))))


def _rounded(at: np.ndarray, attributes: dict[str, Any]) -> np.ndarray:
    mode = attributes.get("nearest_mode", b"floor").decode()
    if mode == "round_prefer_floor":
        return np.ceil(at - 0.5)
    if mode == "round_prefer_ceil":
        return np.floor(at + 0.5)
    return np.floor(at) if mode == "floor" else np.ceil(at)


def _weights(old: int, at: np.ndarray, scale: float, attributes: dict[str, Any]) -> np.ndarray:
    """The matrix, a row for each output, that interpolates `old` values at the positions `at`.

    The cubic kernel is that of Keys (IEEE Trans. ASSP 29, 1981); antialiasing widens a kernel by the factor
    by which the axis shrinks.
    """
    mode = attributes["mode"].decode()
    stretch = min(scale, 1.0) if attributes.get("antialias") else 1.0
    reach = math.ceil(_KERNEL_REACH[mode] / stretch)
    taps = np.floor(at)[:, None] + np.arange(-reach, reach + 2)
    distance = np.abs(taps - at[:, None]) * stretch
    if mode == "linear":
        values = np.clip(1 - distance, 0, 1)
    else:
        a = attributes["cubic_coeff_a"]
        near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
        far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
        values = np.where(distance <= 1, near, np.where(distance < 2, far, 0))
    if attributes.get("exclude_outside"):
        values[(taps < 0) | (taps > old - 1)] = 0
    values /= values.sum(axis=1, keepdims=True)
    matrix = np.zeros((len(at), old))
    # What lies outside counts as the value at the edge.
    np.add.at(matrix, (np.arange(len(at))[:, None], np.clip(taps, 0, old - 1).astype(int)), values)
    return matrix
