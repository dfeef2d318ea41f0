"""Rankers against pair-by-pair definitions: Euclidean, Mahalanobis, XQDA, query expansion, flip averaging."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import reid_ops
from reid_ops import XQDA, EuclideanRanker, MahalanobisRanker


def features(rows: int, length: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(rows, length, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(
        dtype
    )


# ------------------------------------------------------------------------------- pairwise and Euclidean


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_pairwise_distances(dtype: torch.dtype) -> None:
    query, gallery = features(5, 7, 1, dtype), features(9, 7, 2, dtype)
    left, right = query.double(), gallery.double()
    squared = ((left[:, None] - right[None]) ** 2).sum(2)
    cosine = torch.nn.functional.cosine_similarity(left[:, None], right[None], dim=2)
    tolerance = {"rtol": 1e-12, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-5}
    for metric, expected in (
        ("squared_euclidean", squared),
        ("euclidean", squared.sqrt()),
        ("cosine", 1 - cosine),
    ):
        found = reid_ops.pairwise_distance(query, gallery, metric)
        assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        torch.testing.assert_close(found.double(), expected, **tolerance)


IDENTITY = MahalanobisRanker(torch.eye(6).double())
COMPILED = {
    "pairwise_distance": lambda a: reid_ops.pairwise_distance(a, a),
    "cosine": lambda a: reid_ops.pairwise_distance(a, a, "cosine"),
    "expand_queries": lambda a: reid_ops.expand_queries(a[:2], a, k=2, alpha=3.0),
    "flip_average": lambda a: reid_ops.flip_average(lambda images: images.flatten(1), a[:, None, None]),
    "EuclideanRanker": lambda a: EuclideanRanker().distance(a, a),
    "MahalanobisRanker": lambda a: IDENTITY.distance(a, a),
}


@pytest.mark.parametrize("name", COMPILED)
def test_fullgraph(name: str) -> None:
    x = features(8, 6)
    torch._dynamo.reset()
    compiled = torch.compile(COMPILED[name], fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), COMPILED[name](x))


def test_euclidean_ranker() -> None:
    query, gallery = features(4, 6, 3), features(8, 6, 4)
    torch.testing.assert_close(
        EuclideanRanker(normalize=False).distance(query, gallery), torch.cdist(query, gallery)
    )
    unit = [torch.nn.functional.normalize(each) for each in (query, gallery)]
    normalized = EuclideanRanker().distance(query, gallery)
    torch.testing.assert_close(normalized, torch.cdist(*unit))
    order = reid_ops.pairwise_distance(query, gallery, "cosine").argsort()
    assert torch.equal(order, normalized.argsort())


def test_distances_do_not_change_their_arguments() -> None:
    query, gallery = features(3, 4, 1), features(3, 4, 2)
    before = query.clone(), gallery.clone()
    for metric in ("euclidean", "squared_euclidean", "cosine"):
        reid_ops.pairwise_distance(query, gallery, metric)
    assert torch.equal(query, before[0]) and torch.equal(gallery, before[1])


# ------------------------------------------------------------------------------------------ Mahalanobis


def test_mahalanobis_is_the_quadratic_form() -> None:
    root = features(5, 5, 1)
    matrix = root @ root.T
    query, gallery = features(4, 5, 2), features(6, 5, 3)
    difference = query[:, None] - gallery[None]
    expected = torch.einsum("qgi,ij,qgj->qg", difference, matrix, difference)
    ranker = MahalanobisRanker(matrix)
    torch.testing.assert_close(ranker.distance(query, gallery), expected)
    torch.testing.assert_close(ranker.matrix, matrix)
    identity = MahalanobisRanker(torch.eye(5)).distance(query, gallery)
    torch.testing.assert_close(identity, torch.cdist(query, gallery) ** 2)


def test_mahalanobis_of_low_rank_and_projection() -> None:
    direction = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    ranker = MahalanobisRanker(direction @ direction.T)
    assert ranker.projection.shape[1] <= 2
    found = ranker.distance(torch.tensor([[2.0, -1.0]]).double(), torch.zeros(1, 2).double())
    assert float(found) == pytest.approx(0.0, abs=1e-12)
    indefinite = torch.diag(torch.tensor([4.0, -1.0]))
    with pytest.raises(ValueError, match="positive semi-definite, got an eigenvalue of -1"):
        MahalanobisRanker(indefinite)
    torch.testing.assert_close(
        MahalanobisRanker(indefinite, project=True).matrix, torch.diag(torch.tensor([4.0, 0.0]))
    )
    zero = MahalanobisRanker(torch.zeros(2, 2))
    assert float(zero.distance(torch.ones(1, 2), torch.zeros(1, 2))) == 0.0


# ----------------------------------------------------------------------------------------------- XQDA


def views(identities: int = 12, length: int = 8, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two views of clustered features, the second shifted, with uneven numbers of images."""
    generator = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(identities, length, generator=generator, dtype=torch.float64)
    found = []
    for images, shift in ((3, 0.0), (4, 0.5)):
        labels = torch.randint(identities, (identities * images,), generator=generator)
        noise = torch.randn(len(labels), length, generator=generator, dtype=torch.float64)
        found += [centres[labels] + 0.7 * noise + shift, labels]
    return found[0], found[2], found[1], found[3]


def covariances_by_pairs(
    first: Tensor, second: Tensor, first_ids: Tensor, second_ids: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    sums: dict[bool, list[Any]] = {True: [0.0, 0], False: [0.0, 0]}
    for x, i in zip(first.numpy(), first_ids.tolist(), strict=True):
        for z, j in zip(second.numpy(), second_ids.tolist(), strict=True):
            sums[i == j][0] = sums[i == j][0] + np.outer(x - z, x - z)
            sums[i == j][1] += 1
    return sums[True][0] / sums[True][1], sums[False][0] / sums[False][1]


@pytest.mark.parametrize("length", [1, 8, 120])
def test_xqda_is_its_definition(length: int) -> None:
    given = views(length=length)
    model = XQDA().fit(*given)
    within, between = covariances_by_pairs(*given)
    within = within + 0.001 * np.eye(length)
    values, vectors = np.linalg.eig(np.linalg.inv(within) @ between)
    order = np.argsort(-values.real)
    values, vectors = values.real[order], vectors.real[:, order]
    rank = max(1, int((values > 1 + 1e-9).sum()))
    assert model.subspace is not None and model.eigenvalues is not None
    assert model.subspace.shape == (length, rank)
    np.testing.assert_allclose(model.eigenvalues.numpy(), values[:rank], rtol=1e-6)
    basis = vectors[:, :rank] / np.linalg.norm(vectors[:, :rank], axis=0)
    metric = np.linalg.inv(basis.T @ within @ basis) - np.linalg.inv(basis.T @ between @ basis)
    query, gallery = given[0][:4].numpy(), given[1][:5].numpy()
    expected = [
        [(x - z) @ basis @ metric @ basis.T @ (x - z) for z in gallery] for x in query
    ]  # one pair at a time
    found = model.distance(given[0][:4], given[1][:5]).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def test_xqda_ranks_better_than_euclid_where_it_should() -> None:
    # most of the variance is noise that identities do not explain
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(60, 6, generator=generator)
    noise = torch.diag(torch.tensor([0.1, 0.1, 0.1, 8.0, 8.0, 8.0]))

    def view(labels: Tensor) -> Tensor:
        return centres[labels] + torch.randn(len(labels), 6, generator=generator) @ noise

    labels = torch.arange(30).repeat(6)
    model = XQDA().fit(view(labels), view(labels), labels, labels)
    test = torch.arange(30, 60)
    query, gallery = view(test), view(test)
    reports = [
        reid_ops.metrics.evaluate_ranking(ranker.distance(query, gallery), test, test)
        for ranker in (model, EuclideanRanker(normalize=False))
    ]
    assert reports[0].cmc[1] > 0.9 > 0.5 > reports[1].cmc[1]


def test_xqda_options() -> None:
    given = views()
    small = XQDA(max_dim=2).fit(*given)
    assert small.subspace is not None and small.subspace.shape == (8, 2)
    projected = XQDA(project=True).fit(*given)
    assert float(projected.distance(given[0], given[1]).min()) >= -1e-9
    single = XQDA().fit(given[0].float(), given[1].float(), *given[2:])
    found = single.distance(given[0].float(), given[1].float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(
        found.double(), XQDA().fit(*given).distance(given[0], given[1]), rtol=1e-3, atol=1e-3
    )


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31))
def test_xqda_does_not_see_order_or_place(seed: int) -> None:
    first, second, first_ids, second_ids = views(seed=seed)
    expected = XQDA().fit(first, second, first_ids, second_ids).distance(first, second)
    order = torch.randperm(len(first), generator=torch.Generator().manual_seed(seed))
    shift = features(1, 8, seed)
    moved = XQDA().fit(first[order] + shift, second + shift, first_ids[order], second_ids)
    scale = float(expected.abs().max())
    torch.testing.assert_close(
        moved.distance(first + shift, second + shift), expected, rtol=1e-5, atol=1e-6 * scale
    )


# ------------------------------------------------------------------------- query expansion, flip average


@pytest.mark.parametrize("alpha", [None, 0.0, 1.0, 3.0])
@pytest.mark.parametrize("through_search", [False, True])
def test_query_expansion(alpha: float | None, through_search: bool) -> None:
    query, gallery = features(4, 6, 1), features(20, 6, 2)
    unit = [torch.nn.functional.normalize(each) for each in (query, gallery)]
    expected = []
    for row in unit[0]:
        similarity = unit[1] @ row
        total = row.clone()
        for item in similarity.argsort(descending=True)[:3]:
            weight = 1.0 if alpha is None else float(similarity[item].clamp(min=0.0)) ** alpha
            total += weight * unit[1][item]
        expected.append(total / total.norm())

    def search(block: Tensor, k: int) -> tuple[None, np.ndarray]:
        return None, (block @ unit[1].T).topk(k).indices.numpy()

    found = reid_ops.expand_queries(
        query, gallery, k=3, alpha=alpha, search=search if through_search else None
    )
    torch.testing.assert_close(found, torch.stack(expected))


def test_query_expansion_at_its_borders() -> None:
    query, gallery = features(2, 3, 1), features(4, 3, 2)
    unit = torch.nn.functional.normalize(query)
    torch.testing.assert_close(reid_ops.expand_queries(query, gallery, k=0), unit)
    torch.testing.assert_close(
        reid_ops.expand_queries(query, gallery, k=99), reid_ops.expand_queries(query, gallery, k=4)
    )
    none = reid_ops.expand_queries(query, gallery, k=2, search=lambda q, k: (None, torch.full((2, k), -1)))
    torch.testing.assert_close(none, unit)
    with pytest.raises(ValueError, match="rows of the gallery"):
        reid_ops.expand_queries(query, gallery, k=2, search=lambda q, k: (None, torch.full((2, k), 4)))


def test_flip_average() -> None:
    images = features(3, 2 * 4 * 5).view(3, 2, 4, 5)
    weights = features(40, 6, 1)

    def model(batch: Tensor) -> Tensor:
        return batch.flatten(1) @ weights

    plain = reid_ops.flip_average(model, images, normalize=False)
    torch.testing.assert_close(plain, (model(images) + model(images.flip(3))) / 2)
    found = reid_ops.flip_average(model, images)
    unit = [torch.nn.functional.normalize(model(each)) for each in (images, images.flip(3))]
    torch.testing.assert_close(found, torch.nn.functional.normalize(unit[0] + unit[1]))
    torch.testing.assert_close(found, reid_ops.flip_average(model, images.flip(3)))


# ------------------------------------------------------------------------------------------- bad input

GOOD = torch.ones(3, 4)
NAN = torch.tensor([[1.0] * 4, [1.0, float("nan"), 1.0, 1.0]])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: reid_ops.pairwise_distance(GOOD, GOOD[:, :3]), ValueError, "D = 4 of query, got 3"),
        (lambda: reid_ops.pairwise_distance(GOOD, GOOD.double()), TypeError, "dtype of query"),
        (lambda: reid_ops.pairwise_distance(GOOD, NAN), ValueError, "gallery must be finite, but row 1"),
        (lambda: reid_ops.pairwise_distance(NAN, GOOD), ValueError, "query must be finite, but row 1"),
        (lambda: reid_ops.pairwise_distance(GOOD.tolist(), GOOD), TypeError, "query must be a torch.Tensor"),
        (lambda: reid_ops.pairwise_distance(GOOD, GOOD, "l1"), ValueError, "metric must be"),
        (lambda: reid_ops.pairwise_distance(GOOD * 0, GOOD, "cosine"), ValueError, "zeros, but row 0"),
        (lambda: MahalanobisRanker(GOOD), ValueError, r"shape \(D, D\), got \(3, 4\)"),
        (lambda: MahalanobisRanker(GOOD[:, :3].half()), TypeError, "float32 or float64, got float16"),
        (lambda: MahalanobisRanker(torch.tensor([[1.0, 2.0], [0.0, 1.0]])), ValueError, "symmetric"),
        (lambda: MahalanobisRanker(torch.full((2, 2), float("nan"))), ValueError, "finite"),
        (lambda: MahalanobisRanker(torch.eye(3)).distance(GOOD, GOOD), ValueError, "D = 3, got 4"),
        (lambda: XQDA(0.0), ValueError, "regularization must be above 0"),
        (lambda: XQDA(max_dim=0), ValueError, "max_dim must be in"),
        (lambda: XQDA().distance(GOOD, GOOD), RuntimeError, "fit must be called"),
        (lambda: XQDA().fit(GOOD, GOOD, [0, 0], [0, 0, 0]), ValueError, r"first_ids must have shape \(3,\)"),
        (lambda: XQDA().fit(GOOD, GOOD, [0.0] * 3, [0] * 3), TypeError, "first_ids must be integers or"),
        (lambda: XQDA().fit(GOOD, GOOD, [0] * 3, [1] * 3), ValueError, "share an identity"),
        (lambda: XQDA().fit(GOOD, GOOD, [0] * 3, [0] * 3), ValueError, "two identities or more"),
        (lambda: XQDA().fit(GOOD, NAN, [0] * 3, [0] * 2), ValueError, "second must be finite, but row 1"),
        (lambda: reid_ops.expand_queries(GOOD, GOOD, k=-1), ValueError, "k must be in"),
        (lambda: reid_ops.expand_queries(GOOD, GOOD, alpha=-1.0), ValueError, "alpha must be"),
        (lambda: reid_ops.flip_average(lambda x: x, GOOD), ValueError, r"shape \(N, C, H, W\)"),
        (lambda: reid_ops.flip_average(lambda x: x, GOOD.view(3, 1, 2, 2)), ValueError, "model's output"),
        (lambda: reid_ops.flip_average(lambda x: x, None), TypeError, "images must be a torch.Tensor"),
    ],
)
def test_bad_arguments(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
