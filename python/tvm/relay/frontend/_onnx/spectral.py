"""DFT and STFT as products with the Fourier matrix, which frames of audio are short enough for."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvm import relax

from .registry import Tensor, converts, known, padded, static_size


@converts("DFT")
def _dft(
    builder: relax.BlockBuilder, operands: list[Tensor | None], attributes: dict[str, Any], outputs: int
) -> list[Tensor]:
    x, length, axis = padded(operands, 3)
    # An attribute before version 20, an operand since.
    axis = int(attributes.get("axis", -2) if axis is None else known(axis, "axis")) % x.ty.ndim
    inverse, onesided = bool(attributes["inverse"]), bool(attributes["onesided"])
    size = static_size(x, axis)
    if length is not None:
        length = int(known(length, "dft_length"))
    else:
        length = 2 * (size - 1) if inverse and onesided else size
    return [_transform(builder, x, axis, length, inverse, onesided)]


@converts("STFT")
def _stft(
    builder: relax.BlockBuilder, operands: list[Tensor | None], attributes: dict[str, Any], outputs: int
) -> list[Tensor]:
    signal, step, window, length = padded(operands, 4)
    step = int(known(step, "frame_step"))
    if length is not None:
        length = int(known(length, "frame_length"))
    else:
        length = static_size(window, 0)
    count = (static_size(signal, 1) - length) // step + 1
    indices = step * np.arange(count)[:, None] + np.arange(length)
    frames = builder.emit(relax.op.take(signal, relax.const(indices, "int64"), axis=1, mode="clip"))
    if window is not None:
        frames = builder.emit(frames * builder.emit(relax.op.reshape(window, (length, 1))))
    return [_transform(builder, frames, 2, length, False, bool(attributes["onesided"]))]


def _transform(
    builder: relax.BlockBuilder, x: Tensor, axis: int, length: int, inverse: bool, onesided: bool
) -> Tensor:
    """The transform of `length` points along `axis`; the last one is real and imaginary part, or real.

    Forward, `onesided` leaves out the half that follows from the other; inverse, that half is what `x`
    lacks, and the result is real.
    """
    emit, rank, dtype = builder.emit, x.ty.ndim, str(x.ty.dtype)
    taken = min(static_size(x, axis), length)
    points = np.arange(length)
    # Input k by output n; what `x` lacks of `length` is zero.
    if not inverse:
        columns = length // 2 + 1 if onesided else length
        matrix = np.exp(-2j * np.pi * np.outer(points[:taken], points[:columns]) / length)
    else:
        matrix = np.exp(2j * np.pi * np.outer(points[:taken], points) / length) / length
        if onesided:
            taken = min(taken, length // 2 + 1)
            matrix = matrix[:taken]
            # All but the first and, for an even length, the middle stand for two that are conjugate.
            matrix[1 : (length + 1) // 2] *= 2
    real, imaginary = (relax.const(part.astype(dtype), dtype) for part in (matrix.real, matrix.imag))

    order = [a for a in range(rank - 1) if a != axis] + [axis]
    back = [*np.argsort(order), rank - 1]

    def component(index: int) -> Tensor:
        part = emit(relax.op.take(x, relax.const(index, "int64"), axis=rank - 1, mode="clip"))
        part = emit(relax.op.strided_slice(part, [axis], [0], [taken]))
        return emit(relax.op.permute_dims(part, order))

    def matmul(part: Tensor, matrix: Tensor) -> Tensor:
        return emit(relax.op.matmul(part, matrix))

    parts = [component(index) for index in range(static_size(x, rank - 1))]
    results = [matmul(parts[0], real), matmul(parts[0], imaginary)]
    if len(parts) == 2:
        results = [
            emit(results[0] - matmul(parts[1], imaginary)),
            emit(results[1] + matmul(parts[1], real)),
        ]
    if inverse and onesided:
        results = results[:1]
    return emit(relax.op.permute_dims(emit(relax.op.stack(results, axis=rank - 1)), back))
