"""Reference of :func:`reid_ops.k_reciprocal_rerank`: the published dense algorithm, in the open.

Every N x N matrix exists here, so this is for tests and for reading. Ties go to the lower index: of two
items equally far away, the one with the smaller number (queries first, then gallery) is nearer.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["jaccard_distance", "k_reciprocal_rerank", "k_reciprocal_rerank_from_distance"]


def k_reciprocal_rerank(
    query: Tensor,
    gallery: Tensor,
    *,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    jaccard: str = "soft",
    power: int = 2,
    normalize: bool = True,
    include_self: bool = True,
    blend: str = "encoded",
    neighbours: Tensor | None = None,
) -> Tensor:
    """Re-ranked distances ``(Q, G)`` from features; arguments as :func:`reid_ops.k_reciprocal_rerank`.

    ``neighbours`` replaces the ranking by a given one, int64 ``(Q+G, N)``, nearest first.
    """
    features = torch.cat([query, gallery])
    squared = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist").square()
    distance = squared if power == 2 else squared.square()
    original = {"encoded": distance / row_maxima(distance, normalize), "raw": distance}
    if blend == "cosine":
        unit = torch.nn.functional.normalize(features, eps=0.0)
        original["cosine"] = 1 - unit @ unit.t()
    queries = len(query)
    jaccard_matrix = _jaccard(original["encoded"], k1, k2, jaccard, include_self, neighbours)
    return ((1 - lambda_value) * jaccard_matrix + lambda_value * original[blend])[:queries, queries:]


def k_reciprocal_rerank_from_distance(
    q_g: Tensor,
    q_q: Tensor,
    g_g: Tensor,
    *,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    jaccard: str = "soft",
    power: int = 2,
    normalize: bool = True,
    include_self: bool = True,
    blend: str = "encoded",
    neighbours: Tensor | None = None,
) -> Tensor:
    """Re-ranked distances ``(Q, G)`` from given ones; the published code works on their transpose."""
    given = torch.cat([torch.cat([q_q, q_g], 1), torch.cat([q_g.t(), g_g], 1)]).t()
    distance = given**power
    original = {"encoded": distance / row_maxima(distance, normalize), "raw": distance}
    queries = len(q_q)
    jaccard_matrix = _jaccard(original["encoded"], k1, k2, jaccard, include_self, neighbours)
    return ((1 - lambda_value) * jaccard_matrix + lambda_value * original[blend])[:queries, queries:]


def jaccard_distance(
    features: Tensor,
    *,
    k1: int = 20,
    k2: int = 6,
    jaccard: str = "soft",
    power: int = 2,
    normalize: bool = True,
    include_self: bool = True,
) -> Tensor:
    """All-pairs Jaccard distances ``(N, N)`` of k-reciprocal encodings."""
    squared = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist").square()
    distance = squared if power == 2 else squared.square()
    return _jaccard(distance / row_maxima(distance, normalize), k1, k2, jaccard, include_self, None)


def row_maxima(distance: Tensor, normalize: bool) -> Tensor:
    """What each row is divided by: its largest distance, or 1 where all are 0 or nothing is to be done."""
    largest = distance.amax(1, keepdim=True)
    return torch.where(largest > 0, largest, 1) if normalize else torch.ones_like(largest)


def _jaccard(
    distance: Tensor, k1: int, k2: int, kind: str, include_self: bool, neighbours: Tensor | None
) -> Tensor:
    """Eq. 5 over the encodings: set-based as printed, or on exp(-d) weights as in the cited method."""
    rank = torch.argsort(distance, dim=1, stable=True) if neighbours is None else neighbours
    # The searched list has k1 + 1 places, the first normally the item itself, or k1 places.
    rank = rank[:, : k1 + 1 if include_self else k1]
    half = round(k1 / 2) + 1  # Python and NumPy round halves to even
    encoding = torch.zeros_like(distance)
    for item in range(len(distance)):
        members = _expanded_set(rank, item, half)
        encoding[item, members] = torch.exp(-distance[item, members]) if kind == "soft" else 1.0
    if kind == "soft":
        total = encoding.sum(1, keepdim=True)
        encoding = encoding / torch.where(total > 0, total, 1)
        encoding = torch.stack([encoding[rank[item, :k2]].mean(0) for item in range(len(rank))])
    # m = sum of minima; for 0/1 rows that is |A ^ B|, and the union is |A| + |B| - m.
    shared = torch.stack([torch.minimum(row, encoding).sum(1) for row in encoding])
    if kind == "soft":
        union = 2 - shared  # rows sum to 1
    else:
        sizes = encoding.sum(1)
        union = sizes[:, None] + sizes - shared
    return (1 - shared / torch.where(union > 0, union, 1)).clamp(min=0)


def _reciprocal(rank: Tensor, item: int, places: int) -> Tensor:
    """R(item): those of its first ``places`` neighbours that have it among theirs (Eqs. 2 and 3)."""
    forward = rank[item, :places]
    return forward[(rank[forward, :places] == item).any(1)]


def _expanded_set(rank: Tensor, item: int, half: int) -> Tensor:
    """R*(item): plus the half-list reciprocal sets that lie in R(item) by more than two thirds."""
    reciprocal = _reciprocal(rank, item, rank.shape[1])
    members = [reciprocal]
    for candidate in reciprocal.tolist():
        added = _reciprocal(rank, candidate, half)
        overlap = int(torch.isin(added, reciprocal).sum())
        if 3 * overlap > 2 * len(added):
            members.append(added)
    return torch.unique(torch.cat(members))
