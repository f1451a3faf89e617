"""Transposed convolution as ordinary ones, one for each phase of the stride, and their results interleaved.

Output pixel y gathers input pixel i through tap k where y + padding = stride i + k. For the outputs
y = stride q + r of one phase r, that is a convolution over q with every stride-th tap, in reverse order
(Shi et al., arXiv:1609.07009).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from tvm import te, tirx

from .window import Window

__all__ = ["interleave", "phases"]


def _taps(size: int, stride: int, before: int, phase: int) -> tuple[int, list[int]]:
    """The taps of one phase along one axis: the first's offset from q, and the tap of each, -1 for none."""
    offsets = {(phase + before - k) // stride: k for k in range(size) if (phase + before - k) % stride == 0}
    low, high = min([0, *offsets]), max(offsets, default=0)
    return low, [offsets.get(d, -1) for d in range(low, high + 1)]


def phases(
    weight: np.ndarray,
    strides: tuple[int, int],
    padding: tuple[int, int],
    plane: tuple[int, int],
    output: tuple[int, int],
) -> Iterator[tuple[np.ndarray, Window]]:
    """The OIHW weights and the window of each phase's convolution, row phases outermost.

    `weight` is OIHW, O being the channels of the result; `padding` is (top, left). The results have at least
    ceil(output / strides) pixels along each axis.
    """
    extended = np.pad(weight, ((0, 0), (0, 0), (0, 1), (0, 1)))  # tap -1 is zero
    for place in itertools.product(*map(range, strides)):
        axes = [_taps(*axis) for axis in zip(weight.shape[2:], strides, padding, place, strict=True)]
        before = [-low for low, _ in axes]
        after = [
            max(0, -(-wanted // stride) - size + low + len(taps) - 1)
            for wanted, stride, size, (low, taps) in zip(output, strides, plane, axes, strict=True)
        ]
        rows, columns = (taps for _, taps in axes)
        window = Window((len(rows), len(columns)), (1, 1), (*before, *after), (1, 1))
        yield np.ascontiguousarray(extended[:, :, rows][:, :, :, columns]), window


def interleave(*results: te.Tensor, strides: tuple[int, int], output: tuple[int, int]) -> te.Tensor:
    """The packed results of the phases, which go row by row, as one plane of `output` pixels."""
    n, chunks, _, _, lanes = results[0].shape

    def element(n, c, h, w, v):
        place = n, c, h // strides[0], w // strides[1], v
        value = results[-1][place]
        for index, result in enumerate(results[:-1]):
            row, column = divmod(index, strides[1])
            here = tirx.all(h % strides[0] == row, w % strides[1] == column)
            value = tirx.if_then_else(here, result[place], value)
        return value

    return te.compute((n, chunks, *output, lanes), element, name="interleave")
