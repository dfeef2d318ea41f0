"""Distances want all their digits: retrieval gives the same inside of torch.autocast, in the same dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import reid_ops
from reid_ops import metrics


def features(rows: int, seed: int) -> Tensor:
    return torch.randn(rows, 24, generator=torch.Generator().manual_seed(seed))


QUERY, GALLERY = features(12, 0), features(150, 1)
IDS, CAMERAS = torch.arange(150) % 12, torch.arange(150) % 3
SQUARE = features(24, 2).T @ features(24, 2)


def lists() -> Any:
    found = reid_ops.rerank_neighbours(QUERY, GALLERY, k1=5)
    return found.indices, found.distances, found.largest


def by_given_distances() -> Any:
    matrices = (
        reid_ops.pairwise_distance(*each) for each in ((QUERY, GALLERY), (QUERY,) * 2, (GALLERY,) * 2)
    )
    return reid_ops.k_reciprocal_rerank_from_distance(*matrices)


def by_xqda() -> Any:
    ranker = reid_ops.XQDA().fit(GALLERY[:70], GALLERY[70:], IDS[:70], IDS[70:])
    return ranker.subspace, ranker.metric, ranker.distance(QUERY, GALLERY)


def by_mahalanobis() -> Any:
    ranker = reid_ops.MahalanobisRanker(SQUARE)
    return ranker.matrix, ranker.distance(QUERY, GALLERY)


def evaluated() -> Any:
    report = metrics.evaluate_features(QUERY, GALLERY, torch.arange(12), IDS)
    return torch.tensor([report.mean_ap, *report.cmc.values()], dtype=torch.float32)


CALLS: dict[str, Callable[[], Any]] = {
    "rerank": lambda: reid_ops.k_reciprocal_rerank(QUERY, GALLERY),
    "rerank, ranked lists": lambda: reid_ops.k_reciprocal_rerank(QUERY, GALLERY, topk=7),
    "rerank, cosine": lambda: reid_ops.k_reciprocal_rerank(QUERY, GALLERY, preset="fast-reid"),
    "neighbours": lists,
    "rerank from distances": by_given_distances,
    "jaccard": lambda: reid_ops.jaccard_distance(GALLERY),
    "euclidean": lambda: reid_ops.pairwise_distance(QUERY, GALLERY),
    "cosine": lambda: reid_ops.pairwise_distance(QUERY, GALLERY, "cosine"),
    "EuclideanRanker": lambda: reid_ops.EuclideanRanker().distance(QUERY, GALLERY),
    "MahalanobisRanker": by_mahalanobis,
    "XQDA": by_xqda,
    "expand_queries": lambda: reid_ops.expand_queries(QUERY, GALLERY, alpha=3.0),
    "evaluate_features": evaluated,
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_nothing_changes(name: str, dtype: torch.dtype) -> None:
    outside = CALLS[name]()
    with torch.autocast("cpu", dtype):
        inside = CALLS[name]()
        assert (QUERY @ GALLERY.T).dtype == dtype  # it is on, and stays on for others
    for expected, found in zip(as_tuple(outside), as_tuple(inside), strict=True):
        assert found.dtype == expected.dtype and torch.equal(found, expected)


def as_tuple(result: Any) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)
