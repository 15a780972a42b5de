"""Which convolutions have kernels of their own, and where their outputs read.

After `passes/layout.py` an input is `[batch, *spatial, features]`, and a weight gradient contracts the
batch: `[features of the input, ...]` times `[..., features of the output]`. Sizes but the batch are
known then; padding and dilation stay attributes, as `Axis`es.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

from ..ir.core import Op
from ..ir.structs import ConvDimensionNumbers
from ..ops.contraction import convolution_defaults


@dataclass(frozen=True)
class Part:
    """Every `step`-th output of an axis from `start` on: output t reads tap m at
    `origin + t * stride + m * spacing`, and `taps[m]` is the element of the kernel."""

    start: int
    count: int
    origin: int
    taps: tuple[int, ...]


@dataclass(frozen=True)
class Axis:
    """A spatial dim: its sizes, and its outputs in parts (several where the input is dilated)."""

    size: int
    taps: int
    out: int
    stride: int
    spacing: int
    step: int
    parts: tuple[Part, ...]

    @property
    def first(self) -> int:
        """The lowest position that any part reads for its output 0."""
        return min(p.origin for p in self._read)

    def span(self, count: int) -> int:
        """Positions that `count` neighbouring outputs of every part read."""
        last = max(p.origin + max(len(p.taps) - 1, 0) * self.spacing for p in self._read)
        return last + (count - 1) * self.stride - self.first + 1

    @property
    def _read(self) -> list[Part]:
        """The parts that read anything, if any does."""
        return [p for p in self.parts if p.taps] or list(self.parts)

    @property
    def together(self) -> Axis:
        """The axis as one part that is computed `len(parts)` outputs at a time: their taps are the
        places that any of them reads."""
        if len(self.parts) == 1:
            return self
        origin = min(p.origin for p in self._read)
        taps = max(p.origin + len(p.taps) for p in self._read) - origin
        part = Part(0, self.parts[0].count, origin, tuple(range(taps)))
        return replace(self, taps=taps, parts=(part,))

    @property
    def sections(self) -> list[tuple[Part, dict[int, tuple[int, ...]]]]:
        """The axis `together`, cut into runs of taps that the same parts have: by their numbers, the
        elements of the kernel."""
        bounds = sorted({edge for p in self._read for edge in (p.origin, p.origin + len(p.taps))})
        found = []
        for low, high in pairwise(bounds):
            elements = {number: p.taps[low - p.origin:high - p.origin] for number, p in enumerate(
                self.parts) if p.origin <= low and high <= p.origin + len(p.taps)}
            found.append((Part(0, self.parts[0].count, low, tuple(range(high - low))), elements))
        return found

    @property
    def inside(self) -> bool:
        """Is nothing read beyond the input?"""
        return self.first >= 0 and self.first + self.span(self.parts[0].count) <= self.size


@dataclass(frozen=True)
class Window:
    """A convolution of `[batch, *spatial, groups * channels]` to `[..., groups * features]`.

    As a gradient: the sums over batch and taps of `[batch, *spatial, groups * channels]` times
    `[batch, *taps, groups * features]`, as `[*spatial, channels, groups * features]`.
    """

    axes: tuple[Axis, ...]
    groups: int
    channels: int
    features: int


def is_convolution(op: Op) -> bool:
    """Does `codegen.convolution` make the code of this op?"""
    return op.name == "stablehlo.convolution" and direct_window(op) is not None


def is_weight_gradient(op: Op) -> bool:
    """Does `codegen.weight_gradient` make the code of this op?"""
    return op.name == "stablehlo.convolution" and gradient_window(op) is not None


def direct_window(op: Op) -> Window | None:
    """The window of a convolution of images by a kernel, or None."""
    a = convolution_defaults(op.attributes)
    n: ConvDimensionNumbers = a["dimension_numbers"]
    lhs, rhs = op.operands
    rank = len(lhs.shape)
    groups = a["feature_group_count"]
    if (a["batch_group_count"] != 1
            or (n.input_batch_dimension, n.input_feature_dimension) != (0, rank - 1)
            or (n.output_batch_dimension, n.output_feature_dimension) != (0, rank - 1)
            or not _known(op, [*lhs.shape[1:], *rhs.shape, *op.result.shape[1:]])
            or not _in_order(n.input_spatial_dimensions, n.output_spatial_dimensions)):
        return None
    axes = _axes(op, a, range(rank - 2))
    channels, features = (rhs.shape[d] for d in (n.kernel_input_feature_dimension,
                                                 n.kernel_output_feature_dimension))
    assert isinstance(channels, int) and isinstance(features, int)
    return None if axes is None else Window(axes, groups, channels, features // groups)


def gradient_window(op: Op) -> Window | None:
    """The window of a convolution that is a weight gradient, or None."""
    a = convolution_defaults(op.attributes)
    n: ConvDimensionNumbers = a["dimension_numbers"]
    lhs, rhs = op.operands
    rank = len(lhs.shape)
    groups = a["batch_group_count"]
    if (not is_wide_float(op) or a["feature_group_count"] != 1
            or any(a["window_reversal"]) or set(a["lhs_dilation"]) - {1}
            or (n.input_feature_dimension, n.input_batch_dimension) != (0, rank - 1)
            or (n.kernel_input_feature_dimension, n.kernel_output_feature_dimension) != (0, rank - 1)
            or (n.output_batch_dimension, n.output_feature_dimension) != (rank - 2, rank - 1)
            or not _known(op, [*lhs.shape[1:], *rhs.shape[1:], *op.result.shape])
            or not _in_order(n.input_spatial_dimensions, n.kernel_spatial_dimensions,
                             n.output_spatial_dimensions)):
        return None
    axes = _axes(op, a, range(rank - 2))
    return None if axes is None else Window(axes, groups, lhs.shape[-1] // groups,
                                            rhs.shape[-1] // groups)


def is_wide_float(op: Op) -> bool:
    """Are operands and result f32, or f64?"""
    dtype = op.result.dtype
    return dtype.is_float and dtype.bits >= 32 and all(v.dtype is dtype for v in op.operands)


def _known(op: Op, extents) -> bool:
    """Numbers of one type, or narrow ones (only where the target multiplies them, see
    `passes/convolutions.py`), and sizes known and not 0."""
    dtypes = [v.dtype for v in (*op.operands, op.result)]
    alike = all(d.is_float for d in dtypes) or all(d.is_integer for d in dtypes)
    narrow = max(d.bits for d in dtypes[:2]) < 32 and dtypes[2].bits <= 32
    return (alike and (narrow or len(set(dtypes)) == 1)
            and len(op.result.shape) > 2 and all(isinstance(e, int) and e > 0 for e in extents))


def _in_order(*dims) -> bool:
    return all(list(d) == sorted(d) for d in dims)


def _axes(op: Op, a, numbers) -> tuple[Axis, ...] | None:
    n: ConvDimensionNumbers = a["dimension_numbers"]
    lhs, rhs = op.operands
    axes = []
    for i in numbers:
        size, taps, out = (lhs.shape[n.input_spatial_dimensions[i]],
                           rhs.shape[n.kernel_spatial_dimensions[i]],
                           op.result.shape[n.output_spatial_dimensions[i]])
        stride, spacing, step = (a[k][i] for k in ("window_strides", "rhs_dilation", "lhs_dilation"))
        low, high = a["padding"][i]
        if not (isinstance(low, int) and isinstance(high, int)) or (
                step > 1 and (stride > 1 or spacing > 1)):
            return None
        order = range(taps)[::-1] if a["window_reversal"][i] else range(taps)
        parts = []
        for start in range(min(step, out)):
            first = (low - start) % step
            mine = tuple(order[first::step])
            origin = (start + first - low) // step if mine else 0
            parts.append(Part(start, -(-(out - start) // step), origin, mine))
        axes.append(Axis(size, taps, out, stride, spacing, step, tuple(parts)))
    return tuple(axes)


def blocks(axes: tuple[Axis, ...], least: tuple[int, ...], bytes_of, limit: int) -> list[int]:
    """Into how many blocks each axis is cut, the outer ones first, so that what a block of so many
    outputs reads, `bytes_of(sizes)`, is within `limit`; a block has `least` outputs or more."""
    counts = [a.parts[0].count for a in axes]
    cuts = [1] * len(axes)
    for i, axis in enumerate(axes):
        most = max(1, min(p.count for p in axis.parts) // least[i])
        while cuts[i] < most and bytes_of(
                [math.ceil(c / k) for c, k in zip(counts, cuts, strict=True)]) > limit:
            cuts[i] += 1
    return cuts
