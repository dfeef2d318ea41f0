"""Evaluation: the numbers are those of reid_ops.metrics called by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import reid_ops
from reid_models.data import ImageRecord, ReidDataset, RetrievalSplit, make_synthetic, read_omniglot
from reid_models.retrieval.evaluation import (
    Evaluation,
    evaluate_dataset,
    evaluate_draws,
    evaluate_retrieval,
    evaluate_single_shot,
)
from reid_models.retrieval.extraction import extract_features
from reid_models.retrieval.features import Features, Source
from reid_ops.metrics import RankingReport, evaluate_ranking, single_shot_cmc

SIZE = (16, 16)


def clusters(count: int, seed: int, identities: int = 12, dim: int = 24) -> Features:
    """Noisy copies of one vector per identity, from four cameras; every ninth image is junk."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(identities, dim, generator=torch.Generator().manual_seed(99))
    labels = torch.randint(0, identities, (count,), generator=random)
    values = centres[labels] + 1.5 * torch.randn(count, dim, generator=random)
    labels[::9] = -1
    cameras = torch.randint(0, 4, (count,), generator=random)
    return Features(3 * values, labels, cameras, [f"{seed}/{row}.jpg" for row in range(count)])


QUERY, GALLERY = clusters(40, 1), clusters(300, 2)
LABELS = (QUERY.identities, GALLERY.identities, QUERY.cameras, GALLERY.cameras)


def units() -> tuple[Tensor, Tensor]:
    return F.normalize(QUERY.features, dim=1), F.normalize(GALLERY.features, dim=1)


def assert_same(found: RankingReport, expected: RankingReport) -> None:
    assert found.cmc == expected.cmc
    assert (found.evaluated, found.excluded) == (expected.evaluated, expected.excluded)
    np.testing.assert_allclose(found.per_query_ap, expected.per_query_ap, rtol=1e-12)
    np.testing.assert_allclose(found.per_query_inp, expected.per_query_inp, rtol=1e-12)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("average_precision", ["mean_precision", "trapezoid"])
@pytest.mark.parametrize("same_camera_is_junk", [True, False])
def test_plain(metric: str, average_precision: str, same_camera_is_junk: bool) -> None:
    options: dict[str, Any] = {"average_precision": average_precision, "ranks": (1, 3, 20)}
    found = evaluate_retrieval(
        QUERY, GALLERY, metric=metric, same_camera_is_junk=same_camera_is_junk, **options
    )
    distance = reid_ops.pairwise_distance(QUERY.features, GALLERY.features, metric)
    rule = "same_identity" if same_camera_is_junk else "none"
    expected = evaluate_ranking(distance, *LABELS, camera_rule=rule, **options)
    assert_same(found, expected)
    assert 0.1 < found.mean_ap < 0.99 and found.excluded >= 5  # neither trivial nor without junk queries


def test_half_precision_features() -> None:
    half = [replace(part, features=part.features.half()) for part in (QUERY, GALLERY)]
    wide = [replace(part, features=part.features.float()) for part in half]
    assert_same(evaluate_retrieval(*half), evaluate_retrieval(*wide))


@pytest.mark.parametrize(
    "rerank",
    [
        {},
        {"k1": 12, "k2": 3, "lambda_value": 0.1},
        {"preset": "fast-reid"},
        {"preset": "spcl", "lambda_value": 0.0},
    ],
)
def test_reranked(rerank: dict[str, Any]) -> None:
    distance = reid_ops.k_reciprocal_rerank(*units(), **rerank)
    expected = evaluate_ranking(distance, *LABELS)  # type: ignore[arg-type]
    found = evaluate_retrieval(QUERY, GALLERY, rerank=rerank)
    assert_same(found, expected)
    assert found.mean_ap != evaluate_retrieval(QUERY, GALLERY).mean_ap


@pytest.mark.parametrize("expand", [{"k": 5}, {"k": 5, "alpha": 3.0}])
def test_expanded_queries(expand: dict[str, Any]) -> None:
    query, gallery = units()
    distance = reid_ops.pairwise_distance(
        reid_ops.expand_queries(query, gallery, **expand), gallery, "cosine"
    )
    assert_same(evaluate_retrieval(QUERY, GALLERY, expand=expand), evaluate_ranking(distance, *LABELS))
    with pytest.raises(ValueError, match="expand needs the cosine metric"):
        evaluate_retrieval(QUERY, GALLERY, expand=expand, metric="euclidean")


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_single_shot(metric: str) -> None:
    found = evaluate_single_shot(QUERY, GALLERY, repeats=7, seed=3, metric=metric)
    distance = reid_ops.pairwise_distance(QUERY.features, GALLERY.features, metric)
    expected = single_shot_cmc(distance, *LABELS, repeats=7, seed=3, junk_id=-1)
    np.testing.assert_array_equal(found.per_draw, expected.per_draw)


@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_an_index_finds_the_neighbours_of_re_ranking(kind: str) -> None:
    """GalleryIndex as k_reciprocal_rerank's own search, on features of the built-in images."""
    split = read_omniglot().draws[0]
    options: dict[str, Any] = {"image_size": SIZE, "workers": 0}
    pair = [extract_features(Pixels(), part, **options) for part in (split.query[:60], split.gallery[::4])]
    query, gallery = (F.normalize(part.features, dim=1) for part in pair)
    index = reid_ops.GalleryIndex(query.shape[1], metric="euclidean", kind=kind, recall=1.0)
    index.add(gallery)
    expected = reid_ops.k_reciprocal_rerank(query, gallery)
    found = reid_ops.k_reciprocal_rerank(query, gallery, index=index)
    # Both find the same neighbours; their distances are computed alike, up to rounding in float32.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"metric must be one of cosine, euclidean, xqda, .*, got 'l1'"):
        evaluate_retrieval(QUERY, GALLERY, metric="l1")
    with pytest.raises(ValueError, match="one length, got 24 and 3"):
        evaluate_retrieval(QUERY, clusters(5, 3, dim=3))
    one, other = (Source(digit * 32, SIZE, (0.0,) * 3, (1.0,) * 3) for digit in "01")
    with pytest.raises(ValueError, match="must be features of one model"):
        evaluate_retrieval(replace(QUERY, source=one), replace(GALLERY, source=other))
    zeros = GALLERY.features.clone()
    zeros[7] = 0
    with pytest.raises(ValueError, match=r"must not be zeros for the cosine, but those of 2/7\.jpg are"):
        evaluate_retrieval(QUERY, replace(GALLERY, features=zeros))
    with pytest.raises(ValueError, match="no query has a positive"):
        evaluate_retrieval(replace(QUERY, identities=torch.full_like(QUERY.identities, 99)), GALLERY)


class Pixels(nn.Module):
    """Pixels as features; counts the images that it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return F.adaptive_avg_pool2d(images, 4).flatten(1)


def drawn_dataset() -> tuple[ReidDataset, list[ImageRecord]]:
    """Three draws of the same images, one gallery image of each identity, as VehicleID has them."""
    records = list(make_synthetic(identities=24, cameras=2, size=SIZE).draws[0].gallery)
    groups = [[r for r in records if r.identity == i] for i in sorted({r.identity for r in records})]
    draws = []
    for draw in range(3):
        gallery = tuple(group[draw] for group in groups)
        draws.append(RetrievalSplit(tuple(r for r in records if r not in gallery), gallery))
    train = make_synthetic(identities=4, cameras=2, size=SIZE).train[:1]
    train = (replace(train[0], identity=1000),)
    return ReidDataset("drawn", "in memory", train, tuple(draws), same_camera_is_junk=False), records


def test_a_dataset_is_the_mean_over_its_draws() -> None:
    dataset, records = drawn_dataset()
    model = Pixels()
    found = evaluate_dataset(model, dataset, image_size=SIZE, rerank={"k1": 6, "k2": 2}, single_shot=2)
    assert model.seen == len(records)
    by_hand: dict[str, list[RankingReport]] = {"plain": [], "reranked": []}
    for split in dataset.draws:
        query, gallery = (
            extract_features(Pixels(), part, image_size=SIZE) for part in (split.query, split.gallery)
        )
        labels = query.identities, gallery.identities
        left, right = F.normalize(query.features, dim=1), F.normalize(gallery.features, dim=1)
        by_hand["plain"].append(evaluate_ranking(reid_ops.pairwise_distance(left, right, "cosine"), *labels))
        reranked = reid_ops.k_reciprocal_rerank(left, right, k1=6, k2=2)
        by_hand["reranked"].append(evaluate_ranking(reranked, *labels))  # type: ignore[arg-type]
    assert found.reranked is not None
    for name, values in (("plain", found.plain), ("reranked", found.reranked)):
        reports = by_hand[name]
        assert values["mAP"] == pytest.approx(np.mean([report.mean_ap for report in reports]))
        assert values["mINP"] == pytest.approx(np.mean([report.mean_inp for report in reports]))
        for rank in (1, 5, 10):
            assert values[f"rank{rank}"] == pytest.approx(np.mean([report.cmc[rank] for report in reports]))
            assert found.cmc[name][rank - 1] == pytest.approx(values[f"rank{rank}"])
        assert found.deviation[name]["mAP"] == pytest.approx(np.std([report.mean_ap for report in reports]))
    assert found.single_shot is not None  # with one image an identity there is nothing to draw
    assert found.single_shot == {key: found.plain[key] for key in ("rank1", "rank5", "rank10")}
    assert (found.queries, found.gallery, found.draws) == (36, 12, 3)


def test_the_datasets_rule_holds() -> None:
    dataset = make_synthetic(identities=48, cameras=2, size=SIZE)
    split = dataset.draws[0]
    query, gallery = (
        extract_features(Pixels(), part, image_size=SIZE) for part in (split.query, split.gallery)
    )
    results = {}
    for rule in (True, False):
        changed = replace(dataset, same_camera_is_junk=rule)
        results[rule] = evaluate_dataset(Pixels(), changed, image_size=SIZE).plain["mAP"]
        assert results[rule] == evaluate_retrieval(query, gallery, same_camera_is_junk=rule).mean_ap
    assert results[False] > results[True]  # every query is in the gallery and finds itself


def test_as_json() -> None:
    evaluation = evaluate_draws([(QUERY, GALLERY)], rerank={"k1": 10})
    document = json.loads(evaluation.to_json())
    assert Evaluation(**document) == evaluation
    assert list(document["plain"]) == ["rank1", "rank5", "rank10", "mAP", "mINP"]
    assert document["reranked"]["mAP"] == evaluate_retrieval(QUERY, GALLERY, rerank={"k1": 10}).mean_ap
    assert document["settings"]["rerank"] == {"k1": 10} and document["single_shot"] is None
    assert list(evaluation.rankings) == ["plain", "reranked"]
