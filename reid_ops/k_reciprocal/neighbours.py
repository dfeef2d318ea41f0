"""Exact nearest neighbours for k-reciprocal re-ranking, in blocks: no N x N matrix, memory O(N k)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .candidates import EUCLIDEAN, State, has_kernel, inner_products, norms_of, pieces, refine
from .doubts import SLACK, settle_doubts

_BLOCK = (4096, 32768)  # rows and columns of a block of products, where they come block by block


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


def search(
    features: Tensor, neighbours: int, *, queries: int = 0, products: Tensor | None = None
) -> Neighbours:
    """The nearest of all rows for every row, itself included at distance 0.

    ``products`` ``(queries, N - queries)`` receives the inner products of the first rows with the rest on
    the way.
    """
    items = len(features)
    state = State(items, min(neighbours + SLACK, items), features)
    norms = norms_of(features)
    if has_kernel("search", features):
        state.search(features, products)
    else:
        _search_by_blocks(features, norms, state, queries, products)
    indices, distances = refine(features, state.indices, neighbours)
    if state.indices.shape[1] < items:
        settle_doubts(features, norms, state.distances[:, -1], indices, distances, search)
    return Neighbours(indices, state.largest, distances)


def _search_by_blocks(
    features: Tensor, norms: Tensor, state: State, queries: int, products: Tensor | None
) -> None:
    """Blocks of products by torch, each merged into the state; none crosses from queries to gallery."""
    items = len(features)
    for rows in pieces(0, items, queries, _BLOCK[0]):
        for columns in pieces(0, items, queries, _BLOCK[1]):
            kept = None
            if products is not None and rows.stop <= queries <= columns.start:
                kept = products[rows, columns.start - queries : columns.stop - queries]
            state.merge(
                inner_products(features[rows], features[columns], kept),
                rows.start,
                columns.start,
                row_terms=norms[rows],
                column_terms=norms[columns],
                self_candidate=rows.start,
                measure=EUCLIDEAN,
            )


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
    among_queries = State(items, min(neighbours + SLACK, queries), features)
    farthest = State(items, 1, features)
    for rows in pieces(0, items, 0, 2048):
        for columns in pieces(0, items if largest else queries, queries, 32768):
            block = inner_products(features[rows], features[columns])
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
