"""The geometry that everything that slides a window over a plane shares: convolutions and pooling."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import ir, tirx

from .kernel import integer

__all__ = ["Window", "extent"]


def extent(size: int, kernel: int, stride: int, before: int, after: int, dilation: int) -> int:
    """The output's size along one axis of `size` elements."""
    return (size + before + after - (kernel - 1) * dilation - 1) // stride + 1


@dataclass(frozen=True)
class Window:
    """A window of `size` that moves by `strides`; pairs are (vertical, horizontal).

    `padding` is (top, left, bottom, right). Nothing is ever padded in memory: kernels leave out the places
    that lie outside the plane.
    """

    size: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]

    def parameters(self) -> list[int]:
        """The window as a list of integers, which `from_parameters` takes."""
        return [*self.size, *self.strides, *self.padding, *self.dilation]

    @classmethod
    def from_parameters(cls, p: list[int]) -> Window:
        """The window that `parameters` wrote; `p` has ten entries."""
        return cls((p[0], p[1]), (p[2], p[3]), (p[4], p[5], p[6], p[7]), (p[8], p[9]))

    def output(self, height: int, width: int) -> tuple[int, int]:
        """The size of the output plane."""
        top, left, bottom, right = self.padding
        return (
            extent(height, self.size[0], self.strides[0], top, bottom, self.dilation[0]),
            extent(width, self.size[1], self.strides[1], left, right, self.dilation[1]),
        )

    def row(self, h, kh):
        """The input row under row `kh` of the window for the output row `h`."""
        return h * self.strides[0] + kh * self.dilation[0] - self.padding[0]

    def column(self, w, kw):
        """The input column under column `kw` of the window for the output column `w`."""
        return w * self.strides[1] + kw * self.dilation[1] - self.padding[1]

    def inside(self, y, x, height: int, width: int, output: tuple[int, int]) -> list[ir.Expr]:
        """The conditions under which the input's (y, x) exists, given the size of the output plane."""
        conditions = []
        if self.padding[0]:
            conditions.append(y >= 0)
        if self.row(output[0] - 1, self.size[0] - 1) >= height:
            conditions.append(y < height)
        if self.padding[1]:
            conditions.append(x >= 0)
        if self.column(output[1] - 1, self.size[1] - 1) >= width:
            conditions.append(x < width)
        return conditions

    def rows_inside(self, h, height: int, rows: int) -> tuple[int | ir.Expr, int | ir.Expr]:
        """The range of window rows that lie inside the input, for row `h` of `rows` of the output."""
        dilation = self.dilation[0]
        offset = self.padding[0] - h * self.strides[0]
        low, high = 0, self.size[0]
        if self.padding[0]:
            low = tirx.max(integer(0), (offset + dilation - 1) // dilation)
        if self.row(rows - 1, self.size[0] - 1) >= height:
            high = tirx.min(integer(self.size[0]), (height + offset + dilation - 1) // dilation)
            high = tirx.max(integer(0), high) if isinstance(low, int) else tirx.max(low, high)
        return low, high

    def columns_inside(self, start: int, count: int, kw: int, width: int) -> tuple[int, int]:
        """Which of `count` output columns from `start` have an input column under window column `kw`."""
        inside = [w for w in range(count) if 0 <= self.column(start + w, kw) < width]
        return (inside[0], inside[-1] + 1) if inside else (0, 0)

    def tiles(self, columns: int, count: int, width: int) -> tuple[list[tuple[int, bool]], range]:
        """Cut a row of `columns` outputs into tiles of `count`: the tiles to emit apart, and the equal ones.

        The former are pairs of first column and whether some input column is missing; the latter start at the
        entries of a range. The last tile overlaps the one before it so as to end with the row.
        """

        def cut(start: int) -> bool:
            return self.column(start, 0) < 0 or self.column(start + count - 1, self.size[1] - 1) >= width

        starts = range(0, columns - count + 1, count)
        whole = [s for s in starts if not cut(s)]
        apart = [(s, True) for s in starts if cut(s)]
        if columns % count:
            apart.append((columns - count, cut(columns - count)))
        return apart, range(whole[0], whole[-1] + 1, count) if whole else range(0)
