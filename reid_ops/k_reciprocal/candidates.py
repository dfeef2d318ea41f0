"""Candidates for neighbours: products by torch, the nearest so far, distances from differences."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .. import _dispatch

# How an element of a block becomes a distance: Measure of csrc/k_reciprocal/kernels.h.
NO_MEASURE, GIVEN, EUCLIDEAN, COSINE = 0, 1, 2, 3
NOT_ITSELF = -(1 << 62)


def norms_of(features: Tensor) -> Tensor:
    """Squared lengths of rows."""
    return torch.linalg.vecdot(features, features)


def offset_of(features: Tensor) -> Tensor:
    """What to subtract from all rows ``(D,)`` so that products don't cancel: their mean, roughly, or 0.

    0 where the rows lie about the origin. Eight bits of the mean are kept, so that whole numbers stay whole
    or nearly so: differences, and who is as far as whom, are not touched by rounding.
    """
    mean = features.mean(0)
    mantissa, exponent = torch.frexp(mean)
    rough = torch.ldexp(torch.round(mantissa * 256) / 256, exponent)
    return torch.where(2 * norms_of(mean[None]) > norms_of(features).mean(), rough, 0)


class State:
    """The nearest candidates of some items so far; :meth:`merge` takes the next block of distances."""

    def __init__(self, items: int, neighbours: int, like: Tensor) -> None:
        self.distances = like.new_full((items, neighbours), float("inf"))
        self.indices = like.new_full((items, neighbours), -1, dtype=torch.int32)
        self.largest = like.new_full((items,), float("-inf"))

    def search(self, features: Tensor, products: Tensor | None) -> None:
        """All items against each other in one go, where there is a kernel for it."""
        _dispatch.operators().k_reciprocal_search(
            features, products, self.distances, self.indices, self.largest
        )

    def merge(
        self,
        block: Tensor,
        first_item: int,
        first_candidate: int,
        *,
        measure: int = GIVEN,
        row_terms: Tensor | None = None,
        column_terms: Tensor | None = None,
        squarings: int = 0,
        by_column: bool = False,
        self_candidate: int = NOT_ITSELF,
    ) -> None:
        """Items are the block's rows, or its columns if ``by_column``; candidates ascend call by call."""
        items = slice(first_item, first_item + block.shape[1 if by_column else 0])
        _dispatch.operators().k_reciprocal_nearest(
            block,
            row_terms,
            column_terms,
            measure,
            squarings,
            by_column,
            first_candidate,
            self_candidate,
            self.distances[items],
            self.indices[items],
            self.largest[items],
        )


def inner_products(rows: Tensor, columns: Tensor, out: Tensor | None = None) -> Tensor:
    """All inner products of two sets of rows; on the CPU the search's own, the same for any threads."""
    if not has_kernel("products", rows):
        return torch.mm(rows, columns.t(), out=out)
    result = rows.new_empty(len(rows), len(columns)) if out is None else out
    _dispatch.operators().k_reciprocal_products(rows.contiguous(), columns.contiguous(), result)
    return result


def has_kernel(stage: str, features: Tensor) -> bool:
    """Whether a stage that not all devices have is there."""
    name = getattr(_dispatch.operators(), f"k_reciprocal_{stage}").default.name()
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(name, features.device.type.upper()))


def pieces(begin: int, end: int, border: int, length: int) -> Iterator[slice]:
    """Slices of at most ``length`` that cover a range; none lies on both sides of the border."""
    while begin < end:
        stop = min(begin + length, border if begin < border else end)
        yield slice(begin, stop)
        begin = stop


def refine(
    features: Tensor, candidates: Tensor, neighbours: int, rows: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The nearest of the candidates of all rows, or of some; distances from differences, ties by number."""
    candidates = candidates.sort(dim=1).values
    distances, order = differences(features, rows, candidates).sort(dim=1, stable=True)
    places = min(neighbours, len(features))
    return candidates.gather(1, order[:, :places]), distances[:, :places].contiguous()


def differences(features: Tensor, rows: Tensor | None, columns: Tensor) -> Tensor:
    """Squared distances of all rows, or of some in ascending order, to their columns (-1: infinity)."""
    count, width = columns.shape
    if rows is None:
        sizes = torch.full((len(features),), width, device=features.device)
    else:
        sizes = torch.zeros(len(features), dtype=torch.int64, device=features.device)
        sizes[rows] = width
    offsets = torch.nn.functional.pad(sizes.cumsum(0), (1, 0))
    distances = _dispatch.operators().k_reciprocal_pair_distances(features, offsets, columns.flatten())
    return distances.view(count, width)
