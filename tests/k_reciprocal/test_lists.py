"""Neighbour lists where float32 products can't tell the items apart: copies, near copies, a common offset."""

from __future__ import annotations

import functools
import io

import numpy as np
import pytest
import torch
from torch import Tensor

import reid_ops
from reid_ops import reference
from reid_ops.k_reciprocal import candidates, doubts
from tests.conftest import Backend


def sized(backend: Backend, items: int) -> int:
    """Emulation is slow: fewer items."""
    return min(items, 150) if backend.is_emulated else items


def copies_of(distinct: Tensor, items: int) -> Tensor:
    """As many rows, each one of the distinct ones, in no order."""
    return distinct[torch.randperm(items) % len(distinct)]


def assert_nearest(features: Tensor, found: Tensor) -> None:
    """The listed are the nearest, up to rounding of the distances themselves, and in ascending order."""
    exact = features.double()
    distance = torch.cdist(exact, exact, compute_mode="donot_use_mm_for_euclid_dist").square()
    nearest = distance.sort(dim=1).values[:, : found.shape[1]]
    torch.testing.assert_close(distance.gather(1, found.long()), nearest, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dimension", [33, 512, 2048])
def test_copies_come_in_order(backend: Backend, dimension: int) -> None:
    """However the products of equal rows are rounded, in whichever block: they are equally far."""
    items = sized(backend, 1500)
    distinct = torch.nn.functional.normalize(torch.randn(max(3, items // 60), dimension))
    features = copies_of(distinct, items).to(backend.device)
    found = reid_ops.rerank_neighbours(features[:20], features[20:], k1=20)
    distance = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    assert torch.equal(found.indices.long(), distance.argsort(dim=1, stable=True)[:, :21])


@pytest.mark.parametrize("spread", [1e-2, 1e-3, 1e-4])
def test_near_copies_are_told_apart(backend: Backend, spread: float) -> None:
    """Frames of a video: a hundred unit vectors within 1e-4 of each other."""
    items = sized(backend, 600)
    centres = torch.nn.functional.normalize(torch.randn(max(2, items // 100), 64))
    features = copies_of(centres, items) + spread / 8 * torch.randn(items, 64)
    features = torch.nn.functional.normalize(features).to(backend.device)
    found = reid_ops.rerank_neighbours(features[:20], features[20:], k1=20)
    assert_nearest(features, found.indices)


def test_more_near_copies_than_the_second_search_keeps(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doubts, "_MORE_SLACK", 2)
    monkeypatch.setattr(doubts, "_WITHIN_ELEMENTS", 1000)
    features = (1 + 1e-6 * torch.randn(140, 33)).to(backend.device)
    assert_nearest(features, reid_ops.rerank_neighbours(features[:9], features[9:], k1=5).indices)


def test_differences_are_taken_of_near_copies_only(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those that rounding leaves in question, not of the whole gallery."""
    monkeypatch.setattr(doubts, "_MORE_SLACK", 2)
    items, computed = sized(backend, 600), 0
    differences = doubts.differences

    def counted(features: Tensor, rows: Tensor | None, columns: Tensor) -> Tensor:
        nonlocal computed
        computed += columns.numel()
        return differences(features, rows, columns)

    monkeypatch.setattr(candidates, "differences", counted)
    monkeypatch.setattr(doubts, "differences", counted)
    centres = torch.nn.functional.normalize(torch.randn(items // 30, 33))
    features = (copies_of(centres, items) + 1e-5 * torch.randn(items, 33)).to(backend.device)
    found = reid_ops.rerank_neighbours(features[:20], features[20:], k1=5).indices
    assert_nearest(features, found)
    assert 30 * items < computed < 0.5 * items**2


def test_only_doubtful_items_are_searched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features as they are: next to nothing is done twice."""
    rows = 0
    again = doubts._search_again

    def counted(features: Tensor, norms: Tensor, chosen: Tensor, neighbours: int) -> object:
        nonlocal rows
        rows += len(chosen)
        return again(features, norms, chosen, neighbours)

    monkeypatch.setattr(doubts, "_search_again", counted)
    centres = torch.randn(300, 128)
    features = torch.nn.functional.normalize(centres[torch.arange(3000) % 300] + torch.randn(3000, 128))
    reid_ops.rerank_neighbours(features[:100], features[100:])
    assert rows < 30
    features[1000:1060] = features[0]
    reid_ops.rerank_neighbours(features[:100], features[100:])
    assert 61 <= rows < 200


@pytest.mark.parametrize("options", [{}, {"preset": "torchreid"}, {"jaccard": "set"}, {"topk": 7}])
def test_a_common_offset_costs_no_digits(backend: Backend, options: dict[str, object]) -> None:
    """Distances don't change if all features are moved, and float32 is to see it."""
    near = torch.randint(-9, 10, (120, 12)).float()
    far = near + torch.randint(900, 1100, (12,)).float()
    expected = reid_ops.k_reciprocal_rerank(*near.to(backend.device).split([20, 100]), **options)  # type: ignore[arg-type]
    actual = reid_ops.k_reciprocal_rerank(*far.to(backend.device).split([20, 100]), **options)  # type: ignore[arg-type]
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)
    exact = reference.k_reciprocal_rerank(*near.double().split([20, 100]))
    if not options:
        assert isinstance(actual, Tensor)
        torch.testing.assert_close(actual.cpu().double(), exact, rtol=0, atol=1e-5)


def test_the_index_gets_the_features_as_they_are(backend: Backend) -> None:
    """What is moved for the products' sake is not what the gallery's own search knows."""
    features = (torch.randint(-9, 10, (90, 8)) + 500.0).to(backend.device)
    query, gallery = features.split([10, 80])

    class Index:
        def search(self, given: Tensor, k: int) -> tuple[None, Tensor]:
            assert torch.equal(given, features)
            distance = torch.cdist(given, gallery, compute_mode="donot_use_mm_for_euclid_dist")
            return None, distance.argsort(dim=1, stable=True)[:, :k]

    expected = reid_ops.k_reciprocal_rerank(query, gallery)
    actual = reid_ops.k_reciprocal_rerank(query, gallery, index=Index())
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@functools.cache
def characters() -> tuple[Tensor, Tensor]:
    """Real images as features: black pixels in squares of 7 x 7 of 60 handwritten queries and 700 others."""
    from PIL import Image  # here, so that the operators' tests do without them

    from reid_models.data import read_omniglot

    split = read_omniglot().draws[0]
    features = []
    for records in (split.query[::5], split.gallery[::3]):
        images = np.stack(
            [np.array(Image.open(io.BytesIO(each.content or b"")).convert("L")) for each in records]
        )
        squares = (images < 128).reshape(len(records), 15, 7, 15, 7).sum((2, 4))
        features.append(torch.from_numpy(squares.reshape(len(records), -1)).float())
    return features[0], features[1]


def test_real_features() -> None:
    """Whole numbers: no rounding, many equal distances. Outright equal to the dense algorithm."""
    query, gallery = characters()
    actual = reid_ops.k_reciprocal_rerank(query, gallery)
    expected = reference.k_reciprocal_rerank(query.double(), gallery.double())
    assert isinstance(actual, Tensor)
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend_name", ["torch", "faiss"])
@pytest.mark.parametrize("preset", ["zhong", "spcl"])
def test_a_gallery_index_gives_the_same(backend_name: str, preset: str) -> None:
    """With features of unit scale, so that "spcl", which does not normalise, has weights."""
    query, gallery = (each / 64 for each in characters())
    index = reid_ops.GalleryIndex(225, metric="euclidean", backend=backend_name)
    index.add(gallery)
    expected = reid_ops.k_reciprocal_rerank(query, gallery, preset=preset)
    actual = reid_ops.k_reciprocal_rerank(query, gallery, preset=preset, index=index)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)
    values, rows = reid_ops.k_reciprocal_rerank(query, gallery, preset=preset, index=index, topk=10)
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(values, expected.sort(dim=1).values[:, :10], rtol=0, atol=1e-6)
    torch.testing.assert_close(expected.gather(1, rows), values, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_an_approximate_index_gives_nearly_the_same(kind: str) -> None:
    query, gallery = characters()
    index = reid_ops.GalleryIndex(225, metric="euclidean", kind=kind, recall=0.99)
    index.add(gallery)
    expected = reid_ops.k_reciprocal_rerank(query, gallery, topk=10)[1]
    actual = reid_ops.k_reciprocal_rerank(query, gallery, topk=10, index=index)[1]
    found = (expected[:, :, None] == actual[:, None, :]).any(2).float().mean()
    assert found > 0.95


def scattered_copies(items: int, share: float, centres: int, spread: float, dimension: int = 96) -> Tensor:
    """Unit vectors, of which a share are near copies of a few centres, in no order."""
    features = torch.nn.functional.normalize(torch.randn(items, dimension))
    copies = torch.randperm(items)[: int(share * items)]
    around = torch.nn.functional.normalize(torch.randn(centres, dimension))
    features[copies] = around[torch.randint(centres, (len(copies),))]
    return features.index_add(0, copies, spread / dimension**0.5 * torch.randn(len(copies), dimension))


@pytest.mark.parametrize("spread", [0.0, 1e-5, 1e-3, 1e-2])
@pytest.mark.parametrize("centres", [1, 3])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1.0])
def test_near_copies_at_any_share(backend: Backend, share: float, centres: int, spread: float) -> None:
    features = scattered_copies(sized(backend, 900), share, centres, spread).to(backend.device)
    found = reid_ops.rerank_neighbours(features[:20], features[20:], k1=6)
    assert_nearest(features, found.indices)
    distance = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    if spread == 0:
        assert torch.equal(found.indices.long(), distance.argsort(dim=1, stable=True)[:, :7])


def test_copies_of_copies(backend: Backend) -> None:
    """Groups within groups within groups, each far smaller than the one around it; and copies outright."""
    items = sized(backend, 1200)
    features = scattered_copies(items, 1.0, 2, 0.0)
    for spread in (1e-1, 1e-3, 1e-5):
        shifts = spread / 96**0.5 * torch.randn(4, 96)
        features += shifts[torch.randint(4, (items,))]
    features = features.to(backend.device)
    found = reid_ops.rerank_neighbours(features[:20], features[20:], k1=6)
    assert_nearest(features, found.indices)
    distance = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    assert torch.equal(distance.gather(1, found.indices.long()), distance.sort(dim=1).values[:, :7])


@pytest.mark.parametrize(("centres", "share"), [(1, 0.5), (1, 0.9), (12, 0.9), (12, 1.0)])
def test_near_copies_are_settled_among_themselves(
    centres: int, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by differences of all with all: what they cost does not grow with how many they are."""
    computed = 0
    differences = candidates.differences

    def counted(features: Tensor, rows: Tensor | None, columns: Tensor) -> Tensor:
        nonlocal computed
        computed += columns.numel()
        return differences(features, rows, columns)

    monkeypatch.setattr(candidates, "differences", counted)
    monkeypatch.setattr(doubts, "differences", counted)
    features = scattered_copies(2400, share, centres, 1e-4)
    assert_nearest(features, reid_ops.rerank_neighbours(features[:20], features[20:], k1=20).indices)
    # The search keeps 25 an item, a group's 29 to begin with and then 25.
    assert computed < 100 * 2400
