"""Exact nearest neighbours for k-reciprocal re-ranking, in blocks: no N x N matrix, memory O(N k)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .. import _dispatch

# How an element of a block becomes a distance: Measure of csrc/k_reciprocal/kernels.h.
NO_MEASURE, GIVEN, EUCLIDEAN, COSINE = 0, 1, 2, 3
NOT_ITSELF = -(1 << 62)

# Search keeps so many more than asked for, because products of float32 rows order near-ties by rounding;
# distances of those kept are then computed from differences and decide. Where the last kept is so near that
# rounding may have lost a nearer one, more are kept in a second search of these items, and if that leaves
# a doubt (near copies by the hundred), differences decide between all that may be as near as the list's end.
_SLACK, _MORE_SLACK = 4, 64
_AGAIN_ELEMENTS = 1 << 24  # of products at a time in the second search
_WITHIN_ELEMENTS = 1 << 22  # of distances at a time in the third
_CPU_BLOCK = (512, 2048)  # rows and columns: 4 MiB of float32, which stays in a shared cache
_CUDA_BLOCK = (4096, 32768)


class SearchIndex(Protocol):
    """What ``index=`` needs: the gallery's own search, such as :class:`reid_ops.GalleryIndex`."""

    def search(self, query: Any, k: int) -> tuple[Any, Any]:
        """``(scores, ids)`` of the k nearest gallery rows of each query row, each ``(rows, k)``.

        ``query`` is a float tensor ``(rows, D)``. ``ids`` are row numbers of ``gallery``, any integer
        tensor or array, -1 where nothing was found. Scores are not used: distances are computed anew.
        """


@dataclass(frozen=True)
class Neighbours:
    """The nearest neighbours of N items, queries first, then gallery; ties go to the lower number.

    Attributes:
        indices: int32 ``(N, K)``, nearest first, -1 where there is none.
        largest: ``(N,)`` largest squared distance of each item to any other; None if not asked for.
        distances: ``(N, K)`` squared distances to the neighbours; None if not known.
    """

    indices: Tensor
    largest: Tensor | None
    distances: Tensor | None = None


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
    """All inner products of two sets of rows.

    On the CPU oneDNN's float32 product is taken where torch has it: as fast as torch.mm on Intel's
    processors, where that is MKL's, and twice as fast on AMD's.
    """
    large = rows.numel() * len(columns) >= 1 << 22
    if rows.device.type == "cpu" and rows.dtype == torch.float32 and large and _has_onednn():
        product = torch.ops.aten.mkldnn_linear(rows.to_mkldnn(), columns.to_mkldnn()).to_dense()
        return product if out is None else out.copy_(product)
    return torch.mm(rows, columns.t(), out=out)


def _has_onednn() -> bool:
    return bool(torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled)


def search(
    features: Tensor, neighbours: int, *, queries: int = 0, products: Tensor | None = None
) -> Neighbours:
    """The nearest of all rows for every row, itself included at distance 0.

    On the CPU the distance of i and j is computed once for both: half the work. ``products``
    ``(queries, N - queries)`` receives the inner products of the first rows with the rest on the way.
    """
    items = len(features)
    state = State(items, min(neighbours + _SLACK, items), features)
    norms = norms_of(features)
    symmetric = features.device.type == "cpu"
    for rows, columns in _blocks(items, queries, symmetric, features.device.type):
        kept = None
        if products is not None and rows.stop <= queries <= columns.start:
            kept = products[rows, columns.start - queries : columns.stop - queries]
        block = inner_products(features[rows], features[columns], kept)
        state.merge(
            block,
            rows.start,
            columns.start,
            row_terms=norms[rows],
            column_terms=norms[columns],
            self_candidate=rows.start,
            measure=EUCLIDEAN,
        )
        # The block's upper triangle is the lower one's mirror image; columns past its rows get it as well.
        begin = max(columns.start, rows.stop)
        if symmetric and begin < columns.stop:
            state.merge(
                block[:, begin - columns.start :],
                begin,
                rows.start,
                row_terms=norms[rows],
                column_terms=norms[begin : columns.stop],
                by_column=True,
                measure=EUCLIDEAN,
            )
    indices, distances = refine(features, state.indices, neighbours)
    if state.indices.shape[1] < items:
        _settle_doubts(features, norms, state.distances[:, -1], indices, distances)
    return Neighbours(indices, state.largest, distances)


def _settle_doubts(features: Tensor, norms: Tensor, last: Tensor, indices: Tensor, distances: Tensor) -> None:
    """Replaces lists that rounding may have cut wrongly. ``last`` (N,): the farthest kept by the search."""
    items, neighbours = indices.shape
    chosen = _doubtful(features, norms, last, distances).nonzero()[:, 0]
    if len(chosen) == 0:
        return
    for rows in chosen.split(max(1, _AGAIN_ELEMENTS // items)):
        indices[rows], distances[rows], last[rows] = _search_again(features, norms, rows, neighbours)
    if neighbours + _MORE_SLACK >= items:
        return
    chosen = chosen[_doubtful(features, norms, last, distances)[chosen]]
    if len(chosen) == 0:
        return
    reach = distances[:, -1] + _margin(features, norms, distances)
    for rows in chosen.split(max(1, _WITHIN_ELEMENTS // items)):
        indices[rows], distances[rows] = _search_within(features, norms, rows, reach[rows], neighbours)


def _doubtful(features: Tensor, norms: Tensor, last: Tensor, distances: Tensor) -> Tensor:
    """Whether an item that was not kept may be nearer than the list's end, ``(N,)`` bool."""
    return distances[:, -1] + _margin(features, norms, distances) >= last


def _margin(features: Tensor, norms: Tensor, distances: Tensor) -> Tensor:
    """How much farther than it is an item within a list's end may look by its product, ``(N,)``.

    Rounding errors of a sum of D terms add up like a random walk, to sqrt(D) units of |x|^2 + |y|^2; at most
    9 units at D = 512 were seen. Who is as near as the list's end at distance r has |y| <= |x| + r.
    """
    unit = torch.finfo(features.dtype).eps * features.shape[1] ** 0.5
    return unit * (norms + (norms.sqrt() + distances[:, -1].sqrt()).square())


def _search_again(
    features: Tensor, norms: Tensor, chosen: Tensor, neighbours: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Lists and their distances of a few items, and the farthest that was kept for each."""
    items = len(features)
    state = State(len(chosen), min(neighbours + _MORE_SLACK, items), features)
    rows, row_terms = features[chosen], norms[chosen]
    for columns in _pieces(0, items, 0, _CUDA_BLOCK[1]):
        block = inner_products(rows, features[columns])
        state.merge(
            block, 0, columns.start, measure=EUCLIDEAN, row_terms=row_terms, column_terms=norms[columns]
        )
    return (*refine(features, state.indices, neighbours, chosen), state.distances[:, -1])


def _search_within(
    features: Tensor, norms: Tensor, chosen: Tensor, reach: Tensor, neighbours: int
) -> tuple[Tensor, Tensor]:
    """Lists and their distances of a few items: differences from all that look no farther than ``reach``."""
    items = len(features)
    products = inner_products(features[chosen], features)
    near = norms[chosen, None] + norms - 2 * products <= reach[:, None]
    counts = near.sum(1)
    width = int(counts.max())
    if 2 * width > items:  # hardly anything is ruled out: without lists of candidates it is quicker
        every = torch.arange(items, dtype=torch.int32, device=features.device)
        state = State(len(chosen), neighbours, features)
        state.merge(_differences(features, chosen, every.expand(len(chosen), items)), 0, 0)
        return state.indices, state.distances
    rows, columns = near.nonzero(as_tuple=True)
    first = counts.cumsum(0) - counts
    candidates = columns.new_full((len(chosen), width), -1, dtype=torch.int32)
    candidates[rows, torch.arange(len(rows), device=rows.device) - first[rows]] = columns.int()
    return refine(features, candidates, neighbours, chosen)


def _blocks(items: int, queries: int, symmetric: bool, device: str) -> Iterator[tuple[slice, slice]]:
    """Blocks of rows and columns; none crosses from queries to gallery. Symmetric: the upper triangle."""
    height, width = _CPU_BLOCK if device == "cpu" else _CUDA_BLOCK
    for rows in _pieces(0, items, queries, height):
        for columns in _pieces(rows.start if symmetric else 0, items, queries, width):
            yield rows, columns


def _pieces(begin: int, end: int, border: int, length: int) -> Iterator[slice]:
    while begin < end:
        stop = min(begin + length, border if begin < border else end)
        yield slice(begin, stop)
        begin = stop


def search_index(
    features: Tensor, neighbours: int, queries: int, index: SearchIndex, largest: bool, given: Tensor
) -> Neighbours:
    """As :func:`search`, with the gallery's share of the candidates from an index, asked for ``given``."""
    items, gallery = len(features), len(features) - queries
    found = torch.as_tensor(index.search(given, min(neighbours, gallery))[1], device=features.device)
    expected = (items, min(neighbours, gallery))
    if tuple(found.shape) != expected or found.is_floating_point():
        raise ValueError(
            f"k_reciprocal_rerank: index.search must return integer ids of shape {expected}, got "
            f"{str(found.dtype).removeprefix('torch.')} of shape {tuple(found.shape)}"
        )
    if bool(((found < -1) | (found >= gallery)).any()):
        raise ValueError(
            f"k_reciprocal_rerank: ids of index.search must be rows of gallery, in [-1, {gallery}), "
            f"got {int(found.min())} to {int(found.max())}"
        )
    norms = norms_of(features)
    among_queries = State(items, min(neighbours + _SLACK, queries), features)
    farthest = State(items, 1, features)
    for rows in _pieces(0, items, 0, 2048):
        for columns in _pieces(0, items if largest else queries, queries, 32768):
            block = features[rows] @ features[columns].t()
            terms: dict[str, Any] = {"row_terms": norms[rows], "column_terms": norms[columns]}
            if columns.stop <= queries:
                among_queries.merge(block, rows.start, columns.start, measure=EUCLIDEAN, **terms)
            if largest:
                farthest.merge(
                    block, rows.start, columns.start, measure=EUCLIDEAN, self_candidate=rows.start, **terms
                )
    candidates = torch.where(found >= 0, found + queries, -1).to(torch.int32)
    candidates = torch.cat([among_queries.indices, candidates], 1)
    indices, distances = refine(features, candidates, neighbours)
    return Neighbours(indices, farthest.largest if largest else None, distances)


def refine(
    features: Tensor, candidates: Tensor, neighbours: int, rows: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The nearest of the candidates of all rows, or of some; distances from differences, ties by number."""
    candidates = candidates.sort(dim=1).values
    distances, order = _differences(features, rows, candidates).sort(dim=1, stable=True)
    places = min(neighbours, len(features))
    return candidates.gather(1, order[:, :places]), distances[:, :places].contiguous()


def _differences(features: Tensor, rows: Tensor | None, columns: Tensor) -> Tensor:
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


def search_given(q_g: Tensor, q_q: Tensor, g_g: Tensor, neighbours: int, squarings: int) -> Neighbours:
    """The nearest by given distances, squared ``squarings`` times.

    Item i's distances are column i of [[q_q, q_g], [q_g', g_g]], as in the published code.
    """
    queries, gallery = q_g.shape
    state = State(queries + gallery, min(neighbours, queries + gallery), q_g)
    state.merge(q_q, 0, 0, squarings=squarings, by_column=True)
    state.merge(q_g, 0, queries, squarings=squarings)
    state.merge(q_g, queries, 0, squarings=squarings, by_column=True)
    state.merge(g_g, queries, queries, squarings=squarings, by_column=True)
    return Neighbours(state.indices, state.largest)


def gather_given(
    q_g: Tensor, q_q: Tensor, g_g: Tensor, squarings: int, offsets: Tensor, columns: Tensor
) -> Tensor:
    """The given distance of every sparse row to each of its columns, squared ``squarings`` times."""
    queries, gallery = q_g.shape
    items = torch.arange(queries + gallery, device=q_g.device)
    row = torch.repeat_interleave(items, offsets.diff(), output_size=len(columns))
    column = columns.to(torch.int64)
    from_query, to_query = row < queries, column < queries
    distances = q_g.new_empty(len(columns))
    for matrix, chosen in (
        (q_q.t(), from_query & to_query),
        (q_g, from_query & ~to_query),
        (q_g.t(), ~from_query & to_query),
        (g_g.t(), ~from_query & ~to_query),
    ):
        i, j = row[chosen], column[chosen]
        distances[chosen] = matrix[
            torch.where(i < queries, i, i - queries), torch.where(j < queries, j, j - queries)
        ]
    for _ in range(squarings):
        distances.square_()
    return distances
