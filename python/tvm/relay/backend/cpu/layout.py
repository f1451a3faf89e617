"""The packed layout: N, chunk, H, W, lane, one vector holding the channels of one pixel.

The last chunk's lanes beyond the channels may hold anything; nothing that crosses lanes reads them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvm import relax, te, tirx

__all__ = ["Packed", "pack", "pack_array", "pad", "subsample", "unpack"]


@dataclass(frozen=True)
class Packed:
    """A tensor of the graph that has been computed in the packed layout.

    `layout` is the graph's own, "NCHW" or "NHWC", in which others see it; `channels` are the real ones.
    """

    value: relax.Expr
    layout: str
    channels: int


def pack_array(array: np.ndarray, lanes: int) -> np.ndarray:
    """[N, C, H, W] -> [N, chunk, H, W, lane], the lanes beyond C filled with ones, which divide safely."""
    n, channels, h, w = array.shape
    chunks = -(-channels // lanes)
    padded = np.ones((n, chunks * lanes, h, w), array.dtype)
    padded[:, :channels] = array
    return np.ascontiguousarray(padded.reshape(n, chunks, lanes, h, w).transpose(0, 1, 3, 4, 2))


def pack(data: te.Tensor, layout: str, lanes: int) -> te.Tensor:
    """A tensor in the graph's `layout` -> packed, the lanes beyond its channels zero."""
    n, h, w = (data.shape[layout.index(axis)] for axis in "NHW")
    channels = int(data.shape[layout.index("C")])

    def element(n, c, h, w, v):
        place = {"N": n, "C": c * lanes + v, "H": h, "W": w}
        value = data[tuple(place[axis] for axis in layout)]
        if channels % lanes == 0:
            return value
        return tirx.if_then_else(place["C"] < channels, value, tirx.const(0, data.dtype))

    return te.compute((n, -(-channels // lanes), h, w, lanes), element, name="pack")


def unpack(data: te.Tensor, layout: str, channels: int) -> te.Tensor:
    """A packed tensor -> the graph's `layout`."""
    n, _, h, w, lanes = data.shape
    lanes = int(lanes)
    extents = {"N": n, "C": channels, "H": h, "W": w}

    def element(*index):
        place = dict(zip(layout, index, strict=True))
        return data[place["N"], place["C"] // lanes, place["H"], place["W"], place["C"] % lanes]

    return te.compute(tuple(extents[axis] for axis in layout), element, name="unpack")


def pad(data: te.Tensor, padding: tuple[int, int, int, int]) -> te.Tensor:
    """A packed tensor with zeros around its planes; `padding` is (top, left, bottom, right)."""
    n, chunks, height, width, lanes = data.shape
    top, left, bottom, right = padding

    def element(n, c, h, w, v):
        inside = tirx.all(h >= top, h < height + top, w >= left, w < width + left)
        return tirx.if_then_else(inside, data[n, c, h - top, w - left, v], tirx.const(0, data.dtype))

    return te.compute((n, chunks, height + top + bottom, width + left + right, lanes), element, name="pad")


def subsample(data: te.Tensor, strides: tuple[int, int]) -> te.Tensor:
    """Every so many rows and columns of a packed tensor, from the first."""
    n, chunks, height, width, lanes = data.shape
    rows, columns = ((size - 1) // stride + 1 for size, stride in zip((height, width), strides, strict=True))

    def element(n, c, h, w, v):
        return data[n, c, h * strides[0], w * strides[1], v]

    return te.compute((n, chunks, rows, columns, lanes), element, name="subsample")
