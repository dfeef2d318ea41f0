"""Lists that the rounding of products may have cut wrongly: near copies, and distances that are nearly equal.

Search keeps a few more candidates than asked for, because products of float32 rows order near-ties by
rounding; distances of those kept are then computed from differences and decide. Where the last kept is so
near that rounding may have lost a nearer one, there is a doubt. Doubts are settled in turn by

1. groups: near copies (the frames of a video) are searched among themselves, with what they have in common
   subtracted, so that rounding is that of their differences;
2. a second search of what is left, which keeps more;
3. differences between an item and all that may be as near as its list's end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .candidates import EUCLIDEAN, State, differences, inner_products, norms_of, pieces, refine

SLACK, _MORE_SLACK = 4, 64
_AGAIN_ELEMENTS = 1 << 24  # of products at a time in the second search
_WITHIN_ELEMENTS = 1 << 22  # of distances at a time in the third
_AGAIN_WIDTH = 32768
# Groups begin with more doubts than this share of the items: fewer are searched again as quickly.
_FEW = 1 / 16
# Of a group's members at least one in so many must have its doubt settled by it, ...
_MEMBERS_PER_ROW = 4
# ... and its radius must be so small a share of its first item's length, for much to be gained.
_RADIUS = 1 / 4
# Groups are given up when, beyond the first few, they settle fewer doubts each than this on average.
_FIRST_GROUPS, _ROWS_PER_GROUP = 8, 16


@dataclass(frozen=True)
class _Lists:
    """Lists ``(N, K)`` and their squared distances, replaced in place; and what their doubts are told by."""

    features: Tensor
    norms: Tensor  # (N,) squared lengths
    last: Tensor  # (N,) squared distance of the farthest item that the search has kept
    indices: Tensor
    distances: Tensor

    @property
    def margin(self) -> Tensor:
        """See :func:`_margin`."""
        return _margin(self.features, self.norms, self.distances[:, -1])

    def doubtful(self) -> Tensor:
        """Rows of which an item that was not kept may be nearer than the list's end."""
        margin = self.margin  # 0 of rows that are 0 themselves: their distances are exact
        return ((self.distances[:, -1] + margin >= self.last) & (margin > 0)).nonzero()[:, 0]


def settle_doubts(
    features: Tensor,
    norms: Tensor,
    last: Tensor,
    indices: Tensor,
    distances: Tensor,
    search: Callable[[Tensor, int], Any],
) -> None:
    """Replaces lists that may be wrong.

    Args:
        features: ``(N, D)``.
        norms: ``(N,)`` their squared lengths.
        last: ``(N,)`` the farthest kept by the search, by its products; is changed.
        indices: ``(N, K)`` lists.
        distances: ``(N, K)`` their squared distances, from differences.
        search: the search itself, ``(features, K) -> Neighbours``, without doubts: for groups.
    """
    lists = _Lists(features, norms, last, indices, distances)
    chosen = lists.doubtful()
    if len(chosen) > _FEW * len(features):
        chosen = _settle_groups(lists, chosen, search)
    if len(chosen):
        chosen = _settle_again(lists, chosen)
    if len(chosen):
        _settle_within(lists, chosen)


def _margin(features: Tensor, norms: Tensor, ends: Tensor) -> Tensor:
    """How much farther than it is an item within a list's end may look by its product, ``(N,)``.

    Rounding errors of a sum of D terms add up like a random walk, to sqrt(D) units of |x|^2 + |y|^2; at most
    9 units at D = 512 were seen. Who is as near as the list's end at distance r has |y| <= |x| + r.
    """
    unit = torch.finfo(features.dtype).eps * features.shape[1] ** 0.5
    return unit * (norms + (norms.sqrt() + ends.sqrt()).square())


def _settle_groups(lists: _Lists, chosen: Tensor, search: Callable[[Tensor, int], Any]) -> Tensor:
    """Doubts among near copies; returns the rows whose doubts are left, ascending."""
    reach = (lists.distances[:, -1] + lists.margin).sqrt()
    waiting = torch.zeros_like(reach, dtype=torch.bool)
    waiting[chosen] = True
    left = waiting & (2 * reach > _RADIUS * lists.norms.sqrt())
    waiting &= ~left
    groups = settled = 0
    while groups < _FIRST_GROUPS or settled >= _ROWS_PER_GROUP * groups:
        first = int(waiting.long().argmax())
        if not bool(waiting[first]):
            return left.nonzero()[:, 0]
        rows, members = _group_of(lists, reach, waiting, first)
        waiting[rows] = False
        groups += 1
        if len(members) > _MEMBERS_PER_ROW * len(rows):
            left[rows] = True
            continue
        left[_settle_group(lists, rows, members, lists.features[first], search)] = True
        settled += len(rows)
    return (left | waiting).nonzero()[:, 0]


def _group_of(lists: _Lists, reach: Tensor, waiting: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """Waiting rows around the first, and all items that may be as near as the list's end of one of them.

    The radius is doubled until there are not many more of the latter, or until too little would be gained.
    """
    norm = lists.norms[first]
    squared = lists.norms + norm - 2 * torch.mv(lists.features, lists.features[first])
    error = _margin(lists.features, lists.norms, norm)
    low, high = (squared - error).clamp(min=0).sqrt(), (squared + error).clamp(min=0).sqrt()
    radius, most = 2 * reach[first], _RADIUS * norm.sqrt()
    while True:
        rows = waiting & (low <= radius)
        members = low <= torch.where(rows, high + reach, 0).max()
        enough = _MEMBERS_PER_ROW * rows.sum() >= members.sum()
        if bool(enough | (2 * radius > most)):
            return rows.nonzero()[:, 0], members.nonzero()[:, 0]
        radius = 2 * radius


def _settle_group(
    lists: _Lists, rows: Tensor, members: Tensor, origin: Tensor, search: Callable[[Tensor, int], Any]
) -> Tensor:
    """Lists of ``rows`` from their neighbours among ``members``; returns the rows whose doubts are left."""
    neighbours = lists.indices.shape[1]
    moved = lists.features[members] - origin
    found = search(moved, neighbours + SLACK)
    places = torch.searchsorted(members, rows)
    candidates = members.to(torch.int32)[found.indices[places].long()]
    indices, distances = refine(lists.features, candidates, neighbours, rows)
    lists.indices[rows], lists.distances[rows] = indices, distances
    lists.last[rows] = found.distances[places, -1]
    # The difference of what was moved, and rounded, is not quite that of the features; 0 stays 0.
    ends = distances[:, -1]
    margin = _margin(moved, norms_of(moved)[places], ends)
    sure = (ends + margin < lists.last[rows]) | (ends == 0) | (len(members) <= neighbours + SLACK)
    return rows[~sure]


def _settle_again(lists: _Lists, chosen: Tensor) -> Tensor:
    """By a search that keeps more; returns the rows whose doubts are left."""
    items, neighbours = lists.indices.shape
    for rows in chosen.split(max(1, _AGAIN_ELEMENTS // items)):
        found = _search_again(lists.features, lists.norms, rows, neighbours)
        lists.indices[rows], lists.distances[rows], lists.last[rows] = found
    if neighbours + _MORE_SLACK >= items:
        return chosen[:0]
    ends = lists.distances[chosen, -1]
    return chosen[ends + lists.margin[chosen] >= lists.last[chosen]]


def _settle_within(lists: _Lists, chosen: Tensor) -> None:
    """By differences from all that look no farther than the list's end."""
    items, neighbours = lists.indices.shape
    reach = lists.distances[:, -1] + lists.margin
    for rows in chosen.split(max(1, _WITHIN_ELEMENTS // items)):
        found = _search_within(lists.features, lists.norms, rows, reach[rows], neighbours)
        lists.indices[rows], lists.distances[rows] = found


def _search_again(
    features: Tensor, norms: Tensor, chosen: Tensor, neighbours: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Lists and their distances of a few items, and the farthest that was kept for each."""
    items = len(features)
    state = State(len(chosen), min(neighbours + _MORE_SLACK, items), features)
    rows, row_terms = features[chosen], norms[chosen]
    for columns in pieces(0, items, 0, _AGAIN_WIDTH):
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
        state.merge(differences(features, chosen, every.expand(len(chosen), items)), 0, 0)
        return state.indices, state.distances
    rows, columns = near.nonzero(as_tuple=True)
    first = counts.cumsum(0) - counts
    candidates = columns.new_full((len(chosen), width), -1, dtype=torch.int32)
    candidates[rows, torch.arange(len(rows), device=rows.device) - first[rows]] = columns.int()
    return refine(features, candidates, neighbours, chosen)
