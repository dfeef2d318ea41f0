"""Comparisons by name: the fitted ones are reid_ops' rankers, scores of pairs are the network's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import reid_ops
from reid_models.data import make_synthetic
from reid_models.networks.network import Network
from reid_models.retrieval import distances, pair_scores
from reid_models.retrieval.comparison import FITTED, METRICS, default_metric, make_comparison, prepare_pair
from reid_models.retrieval.evaluation import evaluate_dataset, evaluate_retrieval
from reid_models.retrieval.extraction import extract_features, fingerprint
from reid_models.retrieval.features import Features, Source
from reid_models.retrieval.fitted import fit_comparison
from reid_models.retrieval.protocol import Protocol
from reid_ops.metrics import evaluate_ranking

DIM = 12


def clusters(count: int, seed: int, *, identities: int = 10, cameras: int = 2, dim: int = DIM) -> Features:
    """One vector an identity, with noise that lies mostly in a quarter of the dimensions."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(identities, dim, generator=torch.Generator().manual_seed(7))
    labels = torch.arange(count) % identities
    noise = torch.randn(count, dim, generator=random)
    noise[:, : dim // 4] *= 8.0
    views = torch.randint(0, cameras, (count,), generator=random)
    return Features(centres[labels] + 0.4 * noise, labels, views, [f"{seed}/{row}" for row in range(count)])


TRAIN, QUERY, GALLERY = clusters(120, 1), clusters(20, 2), clusters(60, 3)


class Products(Network):
    """Compares pairs by a product of codes; counts the pairs that it was asked for."""

    name, feature_length = "products", 192

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__(1, (8, 8))
        self.weight = nn.Parameter(torch.tensor(weight))
        self.asked: list[tuple[int, int, bool]] = []

    def encode(self, images: Tensor) -> Tensor:
        return images.flatten(1)

    def match(self, codes_a: Tensor, codes_b: Tensor, *, power: float = 1.0) -> Tensor:
        self.asked.append((len(codes_a), len(codes_b), self.training))
        return self.weight * (codes_a @ codes_b.T) ** power


def units(*sets: Features) -> list[Tensor]:
    return [F.normalize(each.features, dim=1) for each in sets]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_plain_distances(metric: str) -> None:
    comparison = make_comparison(metric)
    found = comparison.distances(*prepare_pair(comparison, QUERY, GALLERY))
    expected = reid_ops.pairwise_distance(QUERY.features, GALLERY.features, metric)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_xqda_of_two_cameras() -> None:
    """Views are the cameras; features have length 1."""
    comparison = make_comparison("xqda", fit=TRAIN)
    train = units(TRAIN)[0]
    first = TRAIN.cameras == 0
    ranker = reid_ops.XQDA().fit(
        train[first], train[~first], TRAIN.identities[first], TRAIN.identities[~first]
    )
    found = comparison.distances(*prepare_pair(comparison, QUERY, GALLERY))
    torch.testing.assert_close(found, ranker.distance(*units(QUERY, GALLERY)))
    assert comparison.notes == ()


def test_mahalanobis_by_its_definition() -> None:
    comparison = make_comparison("mahalanobis", fit=lambda: TRAIN)
    train = units(TRAIN)[0].double()
    same = torch.nonzero(TRAIN.identities[:, None] == TRAIN.identities[None, :])
    same = same[same[:, 0] < same[:, 1]]
    differences = train[same[:, 0]] - train[same[:, 1]]
    covariance = differences.T @ differences / len(same)
    matrix = torch.linalg.inv(covariance + 0.001 * torch.eye(DIM, dtype=torch.float64))
    query, gallery = (each.double() for each in units(QUERY, GALLERY))
    apart = query[:, None] - gallery[None]
    expected = torch.einsum("qgd,de,qge->qg", apart, matrix, apart).float()
    found = comparison.distances(*prepare_pair(comparison, QUERY, GALLERY))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("metric", ["xqda", "mahalanobis"])
@pytest.mark.parametrize("cameras", [2, 5])
def test_fitted_metrics_unlearn_the_noise(metric: str, cameras: int) -> None:
    train = clusters(150, 4, cameras=cameras)
    query, gallery = clusters(40, 5, cameras=cameras), clusters(100, 6, cameras=cameras)
    plain = evaluate_retrieval(query, gallery)
    fitted = evaluate_retrieval(query, gallery, metric=make_comparison(metric, fit=train))
    assert fitted.mean_ap > plain.mean_ap + 0.1


@pytest.mark.parametrize("metric", ["xqda", "mahalanobis"])
def test_more_dimensions_than_rows(metric: str) -> None:
    """The metric acts in the space of the rows: nothing outside it counts, and a note says so."""
    train, query, gallery = (clusters(n, n, dim=64) for n in (40, 12, 30))
    comparison = make_comparison(metric, fit=train)
    assert comparison.notes == (
        f"{metric}: features of 64 dimensions were reduced to the 40 that the 40 images to fit to span",
    )
    found = comparison.distances(*prepare_pair(comparison, query, gallery))
    basis = torch.linalg.qr(units(train)[0].double().T)[0].float()
    inside = replace(train, features=units(train)[0] @ basis)
    again = fit_comparison(metric, inside)
    left, right = (part @ basis for part in units(query, gallery))
    torch.testing.assert_close(found, again.ranker.distance(left, right), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("metric", ["xqda", "mahalanobis"])
def test_reranked_by_the_matrices(metric: str) -> None:
    comparison = make_comparison(metric, fit=TRAIN)
    query, gallery = prepare_pair(comparison, QUERY, GALLERY)
    parts = [comparison.distances(*pair) for pair in ((query, gallery), (query, query), (gallery, gallery))]
    least = min(0.0, *(float(part.min()) for part in parts))
    options: dict[str, Any] = {"k1": 8, "k2": 3, "lambda_value": 0.2}
    expected = reid_ops.k_reciprocal_rerank_from_distance(
        *(part - least for part in parts), power=1, **options
    )
    torch.testing.assert_close(comparison.rerank(query, gallery, **options), expected)
    report = evaluate_retrieval(QUERY, GALLERY, metric=comparison, rerank=options)
    labels = QUERY.identities, GALLERY.identities, QUERY.cameras, GALLERY.cameras
    assert report.mean_ap == evaluate_ranking(expected, *labels).mean_ap  # type: ignore[arg-type]


def test_a_large_gallery_is_not_compared_with_itself_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "DENSE_LIMIT", 50)
    comparison = make_comparison("mahalanobis", fit=TRAIN)
    with pytest.raises(ValueError, match=r"distances among all 60 images of the gallery, .*--dense"):
        evaluate_retrieval(QUERY, GALLERY, metric=comparison, rerank={})
    assert evaluate_retrieval(QUERY, GALLERY, metric=comparison, rerank={"dense": True}).mean_ap > 0
    assert evaluate_retrieval(QUERY, GALLERY, rerank={}).mean_ap > 0  # never needs them


def test_scores_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_scores, "PAIRS", 64)
    monkeypatch.setattr(pair_scores, "CODES", 16)
    network = Products(2.0)
    # Whole numbers: products are exact, whatever the blocks.
    left, right = (
        replace(c, features=c.features.round()) for c in (clusters(20, 2, dim=192), clusters(60, 3, dim=192))
    )
    comparison = make_comparison("match", network=network, power=2.0)
    found = comparison.distances(*prepare_pair(comparison, left, right))
    torch.testing.assert_close(found, -2.0 * (left.features @ right.features.T) ** 2)
    assert max(a * b for a, b, _ in network.asked) <= 64 and not any(mode for *_, mode in network.asked)
    assert network.training
    ranked = evaluate_retrieval(left, right, metric=comparison, rerank={"k1": 6, "k2": 2})
    assert 0 < ranked.mean_ap <= 1


def test_a_network_that_compares_pairs_is_evaluated_by_its_scores() -> None:
    network, dataset = Products(), make_synthetic(identities=12, cameras=2, size=(8, 8))
    found = evaluate_dataset(network, dataset, image_size=(8, 8), workers=0)
    assert found.settings["metric"] == "match"
    query, gallery = (
        extract_features(network, part, image_size=(8, 8), workers=0)
        for part in (dataset.draws[0].query, dataset.draws[0].gallery)
    )
    distance = -(query.features @ gallery.features.T)
    expected = Protocol(dataset.same_camera_is_junk).measure_distances(query, gallery, distance)
    assert found.plain["mAP"] == pytest.approx(expected.mean_ap, rel=1e-6)
    cosine = evaluate_dataset(network, dataset, image_size=(8, 8), workers=0, metric="cosine")
    assert cosine.settings["metric"] == "cosine" and found.per_draw["plain"] == [found.plain]


def test_a_dataset_fits_to_its_training_images() -> None:
    dataset, options = (
        make_synthetic(identities=24, cameras=2, size=(8, 8)),
        {"image_size": (8, 8), "workers": 0},
    )
    network = Products()
    found = evaluate_dataset(network, dataset, metric="xqda", **options)  # type: ignore[arg-type]
    train = extract_features(network, dataset.train, **options)
    given = evaluate_dataset(network, dataset, metric="xqda", fit=train, **options)  # type: ignore[arg-type]
    assert found == given and found.settings["metric"] == "xqda"


@pytest.mark.parametrize("metric", METRICS)
def test_default_metric_is_one_of_the_names(metric: str) -> None:
    assert default_metric(Products()) == "match" and default_metric(nn.Identity()) == "cosine"
    fit = {"fit": TRAIN} if metric in FITTED else {}
    assert make_comparison(metric, network=Products(), **fit).name == metric  # type: ignore[arg-type]


def test_errors() -> None:
    with pytest.raises(ValueError, match="must be of two cameras or more, got 1"):
        make_comparison("xqda", fit=clusters(20, 1, cameras=1))
    unknown = replace(TRAIN, cameras=torch.full_like(TRAIN.cameras, -1))
    with pytest.raises(ValueError, match="must be of two cameras or more, got 0"):
        make_comparison("xqda", fit=unknown)
    alone = TRAIN.rows(list(range(10)))
    with pytest.raises(ValueError, match="must show an identity twice"):
        make_comparison("mahalanobis", fit=alone)
    with pytest.raises(ValueError, match="images of known identities to fit to, got none"):
        make_comparison("mahalanobis", fit=replace(TRAIN, identities=torch.full_like(TRAIN.identities, -1)))
    with pytest.raises(ValueError, match="features of training images must be given"):
        make_comparison("xqda")
    with pytest.raises(ValueError, match="needs a network that compares pairs, and Identity gives features"):
        make_comparison("match", network=nn.Identity())
    with pytest.raises(ValueError, match="needs the network"):
        make_comparison("match")
    with pytest.raises(ValueError, match="option of match"):
        make_comparison("match", network=Products(), powers=2)
    fitted = make_comparison("mahalanobis", fit=TRAIN)
    with pytest.raises(ValueError, match="fitted to features of length 12, got 5"):
        prepare_pair(fitted, clusters(4, 1, dim=5), clusters(4, 1, dim=5))
    with pytest.raises(ValueError, match="expand needs the cosine"):
        prepare_pair(fitted, QUERY, GALLERY, {"k": 2})


def test_codes_of_another_network() -> None:
    network, other = Products(), Products(3.0)
    source = Source(fingerprint(other), (8, 8), (0.0,) * 3, (1.0,) * 3)
    codes = replace(clusters(20, 2, dim=192), source=source)
    with pytest.raises(ValueError, match="codes must be those of the network that compares them"):
        prepare_pair(make_comparison("match", network=network), codes, codes)
    with pytest.raises(ValueError, match="codes must be of length 192, got 12"):
        prepare_pair(make_comparison("match", network=network), QUERY, GALLERY)
    prepare_pair(make_comparison("match", network=other), codes, codes)
