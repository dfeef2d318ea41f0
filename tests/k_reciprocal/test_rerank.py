"""k-reciprocal re-ranking against the dense reference and the public families' definitions.

A neighbour at the border of a list may differ between precisions where two are equally far up to
rounding, and then whole distances differ. So float32 results are compared given the same lists, and
lists apart, up to rounding; float64 and integer data are compared outright.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import reid_ops
from reid_ops import reference
from reid_ops.k_reciprocal import encoding
from tests.conftest import Backend
from tests.k_reciprocal import oracles

# queries, gallery items, dimension, k1, k2, lambda
SIZES = {
    "default": (9, 61, 16, 20, 6, 0.3),
    "small lists": (12, 50, 7, 4, 3, 0.3),
    "odd half": (8, 47, 5, 7, 2, 0.5),
    "half to even": (8, 47, 5, 9, 4, 0.5),
    "no expansion": (8, 40, 5, 10, 1, 0.3),
    "k2 = k1": (8, 40, 5, 6, 6, 0.3),
    "k1 = 1": (8, 30, 5, 1, 1, 0.3),
    "one query": (1, 40, 6, 20, 6, 0.3),
    "one gallery item": (30, 1, 6, 10, 6, 0.3),
    "one of each": (1, 1, 3, 20, 6, 0.3),
    "fewer items than k1": (3, 8, 5, 20, 6, 0.3),
    "items = k1": (4, 16, 5, 20, 6, 0.3),
    "items = k1 + 1": (4, 17, 5, 20, 6, 0.3),
    "pure Jaccard": (9, 40, 5, 20, 6, 0.0),
    "pure distance": (9, 40, 5, 20, 6, 1.0),
    "more queries than gallery": (40, 13, 5, 12, 4, 0.3),
    "one dimension": (6, 40, 1, 8, 3, 0.3),
    "lists longer than a warp": (10, 90, 5, 45, 6, 0.3),
}


def clustered(queries: int, gallery: int, dimension: int, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Features of some identities, float64: what re-ranking is for."""
    count = queries + gallery
    centres = torch.randn(max(1, count // 8), dimension, dtype=torch.float64)
    features = centres[torch.randint(0, len(centres), (count,))]
    features = (features + 0.6 * torch.randn(count, dimension, dtype=torch.float64)).to(device)
    return features[:queries], features[queries:]


def result(*arguments: Tensor, **options: Any) -> Tensor:
    distances = reid_ops.k_reciprocal_rerank(*arguments, **options)
    assert isinstance(distances, Tensor)
    return distances


@pytest.mark.sanitize
@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("jaccard", ["soft", "set"])
def test_matches_reference(backend: Backend, name: str, jaccard: str) -> None:
    queries, gallery, dimension, k1, k2, lambda_value = SIZES[name]
    q, g = clustered(queries, gallery, dimension, backend.device)
    options: dict[str, Any] = {"k1": k1, "k2": k2, "lambda_value": lambda_value, "jaccard": jaccard}
    exact = reference.k_reciprocal_rerank(q, g, **options)
    torch.testing.assert_close(result(q, g, **options), exact, rtol=0, atol=1e-12)

    found = reid_ops.rerank_neighbours(q.float(), g.float(), k1=k1)
    exact = reference.k_reciprocal_rerank(q, g, **options, neighbours=found.indices.long())
    single = result(q.float(), g.float(), **options)
    assert single.dtype == torch.float32 and single.is_contiguous()
    torch.testing.assert_close(single.double(), exact, rtol=0, atol=1e-5)
    assert torch.equal(single, result(q.float(), g.float(), neighbours=found, **options))


@pytest.mark.parametrize("power", [2, 4])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("blend", ["encoded", "raw", "cosine"])
def test_every_definition(
    backend: Backend, power: int, normalize: bool, include_self: bool, blend: str
) -> None:
    q, g = clustered(7, 45, 6, backend.device)
    options: dict[str, Any] = {
        "power": power,
        "normalize": normalize,
        "include_self": include_self,
        "blend": blend,
        "k1": 8,
    }
    exact = reference.k_reciprocal_rerank(q, g, **options)
    torch.testing.assert_close(result(q, g, **options), exact, rtol=0, atol=1e-11)
    values, indices = reid_ops.k_reciprocal_rerank(q, g, topk=10, **options)
    torch.testing.assert_close(values, exact.sort(dim=1).values[:, :10], rtol=0, atol=1e-11)
    torch.testing.assert_close(exact.gather(1, indices), values, rtol=0, atol=1e-11)


PUBLIC = {
    "zhong": oracles.zhong_features,
    "torchreid": oracles.torchreid_features,
    "spcl": oracles.spcl_features,
    "fast-reid": oracles.fast_reid_features,
}


@pytest.mark.parametrize("preset", PUBLIC)
@pytest.mark.parametrize(("k1", "k2"), [(20, 6), (7, 2), (10, 1), (3, 3)])
def test_presets_match_public_code(backend: Backend, preset: str, k1: int, k2: int) -> None:
    assert set(PUBLIC) == set(reid_ops.RERANK_PRESETS)
    q, g = clustered(11, 60, 8, backend.device)
    q, g = (torch.nn.functional.normalize(x) for x in (q, g))
    arrays = q.cpu().numpy(), g.cpu().numpy()
    for lambda_value in (0.0, 0.3):
        exact = torch.from_numpy(PUBLIC[preset](*arrays, k1, k2, lambda_value))
        options: dict[str, Any] = {"k1": k1, "k2": k2, "lambda_value": lambda_value, "preset": preset}
        torch.testing.assert_close(result(q, g, **options).cpu(), exact, rtol=0, atol=1e-12)
        torch.testing.assert_close(
            result(q.float(), g.float(), **options).cpu().double(), exact, rtol=0, atol=1e-5
        )


def test_jaccard_matches_public_code(backend: Backend) -> None:
    features = torch.cat(clustered(0, 70, 8, backend.device))
    exact = torch.from_numpy(oracles.spcl_jaccard(features.cpu().numpy(), 20, 6))
    distances = reid_ops.jaccard_distance(features, preset="spcl")
    torch.testing.assert_close(distances.cpu(), exact, rtol=0, atol=1e-12)
    for jaccard in ("soft", "set"):
        dense = reid_ops.jaccard_distance(features, k1=6, k2=3, jaccard=jaccard)
        expected = reference.jaccard_distance(features, k1=6, k2=3, jaccard=jaccard)
        torch.testing.assert_close(dense, expected, rtol=0, atol=1e-12)
        sparse = reid_ops.jaccard_distance(features, k1=6, k2=3, jaccard=jaccard, sparse=True)
        assert sparse.layout == torch.sparse_csr and 0 < sparse.values().numel() < dense.numel()
        filled = torch.ones_like(dense)
        offsets, columns = sparse.crow_indices(), sparse.col_indices()
        rows = torch.repeat_interleave(torch.arange(70, device=dense.device), offsets.diff())
        filled[rows, columns] = sparse.values()
        assert torch.equal(filled, dense)


@pytest.mark.parametrize("symmetric", [True, False])
def test_from_distance(backend: Backend, symmetric: bool) -> None:
    """The published signature, also where its matrices are not symmetric: then columns count."""
    q_g = torch.rand(9, 50, dtype=torch.float64)
    q_q, g_g = torch.rand(9, 9, dtype=torch.float64), torch.rand(50, 50, dtype=torch.float64)
    if symmetric:
        q_q, g_g = q_q + q_q.t(), g_g + g_g.t()
    q_q.fill_diagonal_(0), g_g.fill_diagonal_(0)
    given_ = [matrix.to(backend.device) for matrix in (q_g, q_q, g_g)]
    exact = torch.from_numpy(oracles.zhong(q_g.numpy(), q_q.numpy(), g_g.numpy(), 10, 4, 0.3))
    for preset in ("zhong", "torchreid"):
        actual = reid_ops.k_reciprocal_rerank_from_distance(*given_, k1=10, k2=4, preset=preset)
        assert isinstance(actual, Tensor)
        torch.testing.assert_close(actual.cpu(), exact, rtol=0, atol=1e-12)
    for options in (
        {"power": 1},
        {"power": 4, "normalize": False, "blend": "raw"},
        {"include_self": False, "jaccard": "set"},
    ):
        actual = reid_ops.k_reciprocal_rerank_from_distance(*given_, k1=10, k2=4, **options)
        expected = reference.k_reciprocal_rerank_from_distance(*given_, k1=10, k2=4, **options)
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
        values, _ = reid_ops.k_reciprocal_rerank_from_distance(*given_, k1=10, k2=4, topk=7, **options)
        torch.testing.assert_close(values, expected.sort(dim=1).values[:, :7], rtol=0, atol=1e-12)


def test_from_distance_equals_from_features(backend: Backend) -> None:
    q, g = clustered(8, 40, 6, backend.device)
    matrices = torch.cdist(q, g), torch.cdist(q, q), torch.cdist(g, g)
    for preset, options in (("zhong", {}), ("fast-reid", {"blend": "raw"}), ("spcl", {"k1": 5, "k2": 2})):
        expected = result(q, g, preset=preset, **options)
        actual = reid_ops.k_reciprocal_rerank_from_distance(*matrices, preset=preset, **options)
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)  # cdist takes products


@pytest.mark.parametrize("copies", [2, 5, 40])
def test_duplicates_tie_by_index(backend: Backend, copies: int) -> None:
    """Whole numbers: no rounding, many equal distances; lists and results are then the same everywhere."""
    distinct = torch.randint(-2, 3, (80 // copies, 3)).double()
    features = distinct[torch.randperm(80) % len(distinct)].to(backend.device)
    q, g = features[:12], features[12:]
    rank = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist").square()
    rank = rank.argsort(dim=1, stable=True)
    for dtype in (torch.float64, torch.float32):
        found = reid_ops.rerank_neighbours(q.to(dtype), g.to(dtype), k1=20)
        assert torch.equal(found.indices.long(), rank[:, :21])
        exact = reference.k_reciprocal_rerank(q, g)
        torch.testing.assert_close(result(q.to(dtype), g.to(dtype)).double(), exact, rtol=0, atol=1e-5)
        dense = result(q.to(dtype), g.to(dtype))
        values, indices = reid_ops.k_reciprocal_rerank(q.to(dtype), g.to(dtype), topk=30)
        expected = dense.sort(dim=1, stable=True)
        assert torch.equal(values, expected.values[:, :30])
        assert torch.equal(indices, expected.indices[:, :30])


def test_many_copies_tie_by_index(backend: Backend) -> None:
    """More copies of an item than a list has places, with features that round."""
    items, dimension, copies = (140, 33, 30) if backend.is_emulated else (1003, 33, 40)
    distinct = torch.randn(-(-items // copies), dimension)
    features = distinct.repeat_interleave(copies, 0)[torch.randperm(items)].to(backend.device)
    rank = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    rank = rank.argsort(dim=1, stable=True)[:, :21]
    found = reid_ops.rerank_neighbours(features[:20], features[20:])
    assert torch.equal(found.indices.long(), rank)
    expected = reference.k_reciprocal_rerank(features[:20].double(), features[20:].double())
    torch.testing.assert_close(result(features[:20], features[20:]).double(), expected, rtol=0, atol=1e-5)


def test_all_items_equal(backend: Backend) -> None:
    """Every distance 0: nothing to divide by."""
    ones = torch.ones(9, 4, device=backend.device)
    for k1 in (3, 20):
        distances = result(ones[:2], ones[2:], k1=k1, k2=2)
        expected = reference.k_reciprocal_rerank(ones[:2].double(), ones[2:].double(), k1=k1, k2=2)
        torch.testing.assert_close(distances.double(), expected, rtol=0, atol=1e-6)


def test_neighbours_are_the_nearest(backend: Backend) -> None:
    """In float32 and over many blocks: distances of the chosen equal the smallest, up to rounding."""
    q, g = clustered(30, 170 if backend.is_emulated else 5000, 24, backend.device)
    features = torch.cat([q, g])
    found = reid_ops.rerank_neighbours(q.float(), g.float(), k1=20).indices.long()
    distance = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist").square()
    nearest = distance.sort(dim=1).values[:, :21]
    torch.testing.assert_close(distance.gather(1, found), nearest, rtol=1e-6, atol=1e-12)
    assert (found[:, 0] == torch.arange(len(features), device=found.device)).all()


class ExactIndex:
    """A gallery search as a user would write one, answering in numpy; ``lost`` of ten places stay empty."""

    def __init__(self, gallery: Tensor, lost: int = 0) -> None:
        self.gallery, self.lost = gallery, lost

    def search(self, query: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
        distance = torch.cdist(query, self.gallery, compute_mode="donot_use_mm_for_euclid_dist")
        ids = distance.argsort(dim=1, stable=True)[:, :k].cpu().numpy()
        if self.lost:
            ids[:, -self.lost :] = -1
        return -np.ones(ids.shape), ids


@pytest.mark.parametrize("preset", ["zhong", "spcl"])
def test_search_by_an_index(backend: Backend, preset: str) -> None:
    q, g = clustered(9, 60, 6, backend.device)
    expected = result(q, g, preset=preset)
    torch.testing.assert_close(result(q, g, preset=preset, index=ExactIndex(g)), expected, rtol=0, atol=1e-12)
    poor = result(q, g, preset=preset, index=ExactIndex(g, lost=10))
    assert poor.isfinite().all() and not torch.equal(poor, expected)


@pytest.mark.parametrize("jaccard", ["soft", "set"])
def test_jaccard_is_a_metric_s_matrix(
    backend: Backend, jaccard: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Symmetric to the last bit and 0 on the diagonal, as scipy's squareform asks; the sparse one, too."""
    monkeypatch.setattr(encoding, "_BLOCK_BYTES", 4 * 700)
    features = torch.cat(clustered(20, 70, 6, backend.device)).float()
    features[5] = features[60]
    dense = reid_ops.jaccard_distance(features, k1=8, k2=3, jaccard=jaccard)
    assert torch.equal(dense, dense.t()) and not dense.diagonal().any()
    sparse = reid_ops.jaccard_distance(features, k1=8, k2=3, jaccard=jaccard, sparse=True)
    assert torch.equal(sparse.to_dense(), torch.where(dense < 1, dense, 0))
    assert sparse.values().numel() == int((dense < 1).sum())
    indices = sparse.col_indices().tensor_split(sparse.crow_indices()[1:-1].cpu())
    assert all(torch.equal(each, each.sort().values) for each in indices)


def test_k2_follows_a_small_k1(backend: Backend) -> None:
    q, g = clustered(6, 40, 6, backend.device)
    for k1 in (3, 20):
        expected = result(q, g, k1=k1, k2=min(6, k1))
        assert torch.equal(result(q, g, k1=k1), expected)
        matrices = (torch.cdist(*each) for each in ((q, g), (q, q), (g, g)))
        reid_ops.k_reciprocal_rerank_from_distance(*matrices, k1=k1)
        reid_ops.jaccard_distance(g, k1=k1)
