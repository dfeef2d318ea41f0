"""Retrieval by CSN's scores: all pairs, shortlists, codes on disk, bounded memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from reid_models.data import ReidDataset, make_synthetic
from reid_models.papers.csn.network import CSN
from reid_models.retrieval.comparison import make_comparison, prepare_pair
from reid_models.retrieval.evaluation import evaluate_dataset, evaluate_draws
from reid_models.retrieval.extraction import extract_features, extract_to_file
from reid_models.retrieval.features import Features, load_features
from reid_models.retrieval.pair_scores import Shortlisted
from tests.models.papers.test_csn import SMALL, small

OPTIONS: dict[str, Any] = {"image_size": SMALL["image_size"], "workers": 0}


@pytest.fixture(scope="module")
def dataset() -> ReidDataset:
    return make_synthetic(identities=16, cameras=2, images_per_camera=2, size=SMALL["image_size"])


@pytest.fixture(scope="module")
def model() -> CSN:
    return small()


@pytest.fixture(scope="module")
def pair(dataset: ReidDataset, model: CSN) -> tuple[Features, Features]:
    split = dataset.draws[0]
    return extract_features(model, split.query, **OPTIONS), extract_features(model, split.gallery, **OPTIONS)


def scores(model: CSN, query: Features, gallery: Features, **options: Any) -> Tensor:
    return model.match(query.features, gallery.features, **options)


@pytest.mark.parametrize("score", ["similarity", "probability"])
def test_evaluation_by_all_pairs(
    score: str, dataset: ReidDataset, model: CSN, pair: tuple[Features, Features]
) -> None:
    found = evaluate_dataset(model, dataset, match={"score": score, "megabytes": 1.0}, rerank={}, **OPTIONS)
    comparison = make_comparison("match", network=model, score=score)
    torch.testing.assert_close(
        comparison.distances(*prepare_pair(comparison, *pair)), -scores(model, *pair, score=score),
        rtol=1e-4, atol=1e-4,
    )  # fmt: skip
    expected = evaluate_draws([pair], metric=comparison)
    assert found.settings["metric"] == "match" and found.shortlist_recall is None
    assert found.plain["mAP"] == pytest.approx(expected.plain["mAP"], abs=1e-3)
    assert found.reranked is not None and 0 < found.reranked["mAP"] <= 1


def test_a_shortlist_of_all_is_all_pairs(pair: tuple[Features, Features], model: CSN) -> None:
    query, gallery = pair
    comparison = Shortlisted(model, len(gallery))
    full = make_comparison("match", network=model)
    expected = full.distances(query.features, gallery.features)
    torch.testing.assert_close(
        comparison.distances(query.features, gallery.features), expected, rtol=1e-4, atol=1e-4
    )
    found = evaluate_draws([pair], metric=comparison)
    assert found.shortlist_recall == 1.0


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_shortlists(kind: str, pair: tuple[Features, Features], model: CSN) -> None:
    """The nearest by embedding, in the order of their scores; all others behind, by embedding."""
    query, gallery = pair
    comparison = make_comparison("match", network=model, shortlist=5, kind=kind)
    assert isinstance(comparison, Shortlisted)
    values, rows = comparison.best(query.features, gallery.features)
    near = comparison.embedding_distances(query.features, gallery.features)
    expected = near.topk(5, largest=False).indices
    assert torch.equal(rows.sort(dim=1).values, expected.sort(dim=1).values)
    all_scores = scores(model, query, gallery)
    torch.testing.assert_close(values, all_scores.gather(1, rows), rtol=1e-4, atol=1e-4)
    assert bool((values.diff(dim=1) <= 0).all())
    distance = comparison.distances(query.features, gallery.features)
    ranked = distance.argsort(dim=1, stable=True)
    assert torch.equal(ranked[:, :5], rows)
    behind = near.scatter(1, rows, torch.inf).argsort(dim=1, stable=True)[:, : len(gallery) - 5]
    assert torch.equal(ranked[:, 5:], behind)


def test_recall_of_shortlists(pair: tuple[Features, Features], model: CSN) -> None:
    query, gallery = pair
    found = evaluate_draws([pair], metric=Shortlisted(model, 4))
    near = Shortlisted(model, 4).embedding_distances(query.features, gallery.features)
    hits = []
    for row, (identity, camera) in enumerate(zip(query.identities, query.cameras, strict=True)):
        right = (gallery.identities == identity) & (gallery.cameras != camera)
        hits.append(bool(right[near[row].topk(4, largest=False).indices].any()))
    assert found.shortlist_recall == pytest.approx(sum(hits) / len(hits))
    assert 0 < found.shortlist_recall < 1


def test_codes_on_disk(
    tmp_path: Path, dataset: ReidDataset, model: CSN, pair: tuple[Features, Features]
) -> None:
    """As feature files, in half precision: the same ranking to rounding, and of this network only."""
    files = []
    for name, records in (("query", dataset.draws[0].query), ("gallery", dataset.draws[0].gallery)):
        files.append(tmp_path / f"{name}.safetensors")
        extract_to_file(files[-1], model, records, **OPTIONS)
    query, gallery = map(load_features, files)
    assert query.features.dtype == torch.float16
    comparison = make_comparison("match", network=model)
    found = comparison.distances(*prepare_pair(comparison, query, gallery))
    torch.testing.assert_close(found, -scores(model, *pair), rtol=0.02, atol=0.02)
    other = make_comparison("match", network=small(seed=5))
    with pytest.raises(ValueError, match="codes must be those of the network that compares them"):
        prepare_pair(other, query, gallery)


def test_memory_does_not_grow_with_the_gallery(model: CSN, monkeypatch: pytest.MonkeyPatch) -> None:
    """No block has more pairs than its memory allows; nothing of a code is copied for a pair."""
    seen: list[int] = []
    decide = CSN._decide

    def counted(self: CSN, left: Any, right: Any, pairs: Tensor) -> Tensor:
        seen.append(len(pairs))
        return decide(self, left, right, pairs)

    monkeypatch.setattr(CSN, "_decide", counted)
    codes = model.encode(torch.randn(40, 3, *SMALL["image_size"])).detach()
    height, width = model.similarity_size
    each = 4 * height * width * (2 * 1152 + 3 * 500)
    for count in (20, 40):
        seen.clear()
        model.match(codes[:10], codes[:count], megabytes=0.5)
        assert max(seen) == 500_000 // each and sum(seen) == 10 * count


def test_errors(pair: tuple[Features, Features], model: CSN) -> None:
    query, gallery = pair
    with pytest.raises(ValueError, match=r"shortlist must be at most the gallery's \d+, got 1000"):
        evaluate_draws([pair], metric=Shortlisted(model, 1000))
    for wrong in (0, -1, True, 2.0):
        with pytest.raises(ValueError, match="shortlist must be an int of at least 1"):
            make_comparison("match", network=model, shortlist=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='shortlist is for the metric "match", got cosine'):
        make_comparison("cosine", shortlist=3)
    with pytest.raises(ValueError, match="kind must be of flat"):
        make_comparison("match", network=model, shortlist=3, kind="tree")
    short = replace(query, features=query.features[:, :-1])
    with pytest.raises(ValueError, match="codes must be of length"):
        prepare_pair(
            make_comparison("match", network=model),
            short,
            replace(gallery, features=gallery.features[:, :-1]),
        )
