"""The sparse part of k-reciprocal re-ranking: from neighbour lists to blended distances."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import _dispatch
from .candidates import NO_MEASURE, State

# Rows of Q x G worked on at a time where the whole is not asked for.
_BLOCK_BYTES = 128 << 20


@dataclass(frozen=True)
class SparseRows:
    """Row i holds entries ``offsets[i]`` to ``offsets[i + 1]``."""

    offsets: Tensor  # int64 (N + 1,)
    columns: Tensor  # int32 (E,)
    weights: Tensor  # (E,)


@dataclass(frozen=True)
class Measured:
    """A block whose elements are, or become, distances: see Block in csrc/k_reciprocal/kernels.h."""

    block: Tensor
    measure: int = NO_MEASURE
    squarings: int = 0
    row_terms: Tensor | None = None
    column_terms: Tensor | None = None
    scale: Tensor | None = None


# (offsets, columns) -> distances of every row to its columns, in the definition's power
PairDistances = Callable[[Tensor, Tensor], Tensor]


def feature_distances(features: Tensor, power: int) -> PairDistances:
    """Euclidean distances to the power of 2 or 4."""

    def distances(offsets: Tensor, columns: Tensor) -> Tensor:
        squared = _dispatch.operators().k_reciprocal_pair_distances(features, offsets, columns)
        return squared if power == 2 else squared.square()

    return distances


class Encoding:
    """V of all items, its transpose over the rows from ``first_row`` on, and distances between rows.

    Memory is O(N k): with k = k1 + 1 and h = k1/2 + 1 a row of V has at most k + k h entries and k2 times
    that after the expansion; measured on re-ID features with k1 = 20, k2 = 6: 17 and 61.
    """

    def __init__(
        self,
        neighbours: Tensor,
        half: int,
        k2: int,
        *,
        first_row: int,
        soft: bool,
        scale: Tensor,
        distances: PairDistances,
    ) -> None:
        ops = _dispatch.operators()
        length = max(1, neighbours.shape[1])
        reverse = ops.k_reciprocal_reverse_ranks(neighbours)
        sizes = ops.k_reciprocal_sets(neighbours, reverse, None, 0, length, half)
        offsets, entries = offsets_of(sizes)
        columns = ops.k_reciprocal_sets(neighbours, reverse, offsets, entries, length, half)
        if soft:
            weights = ops.k_reciprocal_encode(distances(offsets, columns), scale, offsets)
        else:
            weights = scale.new_ones(entries)  # 0/1 rows: the sum of minima is |A ^ B|
        self.rows = SparseRows(offsets, columns, weights)
        self.sums = None if soft else offsets.diff().to(scale.dtype)
        if soft and k2 > 1:
            self.rows = _expand(self.rows, neighbours, k2)
        self.first_row = first_row
        self.inverse = _invert(self.rows, first_row)

    def blend(self, measured: Measured, first_row: int, lambda_value: float) -> None:
        """Distances of the rows from ``first_row`` on to all gallery rows, over ``measured.block`` itself."""
        rows = len(measured.block)
        pure = lambda_value == 0  # 0 times an overflown distance would be NaN
        sums = self.sums
        _dispatch.operators().k_reciprocal_blend(
            measured.block,
            None if pure else measured.row_terms,
            None if pure else measured.column_terms,
            NO_MEASURE if pure else measured.measure,
            measured.squarings,
            None if pure else measured.scale,
            self.rows.offsets,
            self.rows.columns,
            self.rows.weights,
            first_row,
            self.inverse.offsets,
            self.inverse.columns,
            self.inverse.weights,
            None if sums is None else sums[first_row : first_row + rows],
            None if sums is None else sums[self.first_row :],
            lambda_value,
        )


def offsets_of(sizes: Tensor) -> tuple[Tensor, int]:
    """Where rows of these sizes begin, and the number of entries: the one number read from the device."""
    offsets = sizes.new_zeros(len(sizes) + 1)
    torch.cumsum(sizes, 0, out=offsets[1:])
    return offsets, int(offsets[-1])


def _expand(source: SparseRows, neighbours: Tensor, members: int) -> SparseRows:
    ops = _dispatch.operators()
    sizes, _ = ops.k_reciprocal_expand(neighbours, source.offsets, source.columns, None, members, None, 0)
    offsets, entries = offsets_of(sizes)
    columns, weights = ops.k_reciprocal_expand(
        neighbours, source.offsets, source.columns, source.weights, members, offsets, entries
    )
    return SparseRows(offsets, columns, weights)


def _invert(source: SparseRows, first_row: int) -> SparseRows:
    ops = _dispatch.operators()
    sizes, _ = ops.k_reciprocal_invert(source.offsets, source.columns, None, first_row, None, 0)
    offsets, entries = offsets_of(sizes)
    rows, weights = ops.k_reciprocal_invert(
        source.offsets, source.columns, source.weights, first_row, offsets, entries
    )
    return SparseRows(offsets, rows, weights)


def row_blocks(rows: int, columns: int, like: Tensor) -> Iterator[slice]:
    """Slices of rows that keep a block of ``columns`` within a fixed amount of memory."""
    height = max(1, _BLOCK_BYTES // max(1, columns * like.element_size()))
    for begin in range(0, rows, height):
        yield slice(begin, min(begin + height, rows))


def nearest_of_blocks(
    queries: int, gallery: int, topk: int, like: Tensor, compute: Callable[[slice], Tensor]
) -> tuple[Tensor, Tensor]:
    """The ``topk`` smallest of each row of a matrix that ``compute`` gives by blocks of rows."""
    state = State(queries, topk, like)
    for rows in row_blocks(queries, gallery, like):
        state.merge(compute(rows), rows.start, 0)
    return state.distances, state.indices.to(torch.int64)


@_dispatch.registers
def _register(library: str) -> None:
    """Shapes for tracing; nothing here is differentiable."""

    def nothing(*arguments: Any) -> None:
        """Kernels that write into their arguments."""

    def sets(
        neighbours: Tensor, reverse: Any, offsets: Tensor | None, entries: int, list: int, half: int
    ) -> Tensor:
        if offsets is None:
            return neighbours.new_empty(neighbours.shape[0], dtype=torch.int64)
        return neighbours.new_empty(entries)

    def expand(
        neighbours: Tensor, offsets: Tensor, columns: Any, weights: Tensor | None, members: int,
        expanded_offsets: Any, entries: int,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        if weights is None:
            sizes = neighbours.new_empty(neighbours.shape[0], dtype=torch.int64)
            return sizes, neighbours.new_empty(0, dtype=torch.float32)
        return neighbours.new_empty(entries), weights.new_empty(entries)

    def invert(
        offsets: Tensor, columns: Tensor, weights: Tensor | None, first_row: int, list_offsets: Any,
        entries: int,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        if weights is None:
            return offsets.new_empty(offsets.shape[0] - 1), offsets.new_empty(0, dtype=torch.float32)
        return columns.new_empty(entries), weights.new_empty(entries)

    shapes: dict[str, Callable[..., Any]] = {
        "nearest": nothing,
        "products": nothing,
        "search": nothing,
        "reverse_ranks": torch.empty_like,
        "sets": sets,
        "pair_distances": lambda features, offsets, columns: features.new_empty(columns.shape),
        "encode": lambda distances, scale, offsets: torch.empty_like(distances),
        "expand": expand,
        "invert": invert,
        "blend": nothing,
    }
    for name, shape in shapes.items():
        torch.library.register_fake(f"{library}::k_reciprocal_{name}", shape)
