"""Retrieval by CSN's scores: all pairs, shortlists, codes on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from reid_models.data import ReidDataset, make_synthetic
from reid_models.papers.csn.network import CSN
from reid_models.retrieval.code_gallery import CodeGallery
from reid_models.retrieval.comparison import make_comparison, prepare_pair
from reid_models.retrieval.evaluation import evaluate_dataset, evaluate_draws
from reid_models.retrieval.extraction import extract_features, extract_to_file
from reid_models.retrieval.features import Features, load_features, save_features
from reid_models.retrieval.gallery import Gallery
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


@pytest.fixture
def stored(tmp_path: Path, dataset: ReidDataset, model: CSN) -> Path:
    """The gallery's codes in a file."""
    file = tmp_path / "gallery.codes.safetensors"
    extract_to_file(file, model, dataset.draws[0].gallery, dtype=torch.float32, **OPTIONS)
    return file


@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_two_stages_from_disk(
    kind: str, tmp_path: Path, stored: Path, model: CSN, pair: tuple[Features, Features]
) -> None:
    """An index of embeddings and a file of codes find what codes in memory do."""
    if kind == "ivf":
        pytest.importorskip("faiss")
    built, report = CodeGallery.build(model, stored, kind=kind, recall=1.0)
    built.save(tmp_path / "g.index")
    assert (report is None) == (kind == "flat") and built.gallery.index.dim == 256
    gallery = CodeGallery.load(tmp_path / "g.index")
    assert len(gallery) == len(pair[1]) and gallery.gallery.paths == pair[1].paths
    comparison = Shortlisted(model, 6)
    scores, rows = gallery.search(comparison, pair[0])
    expected = comparison.best(*prepare_pair(comparison, *pair))
    assert torch.equal(rows, expected[1])
    torch.testing.assert_close(scores, expected[0], rtol=1e-5, atol=1e-5)
    near = model.embed(pair[0].features) @ model.embed(pair[1].features).T
    assert {*rows[0].tolist()} == {*near[0].topk(6).indices.tolist()}


def test_two_stages_after_a_move(
    tmp_path: Path, stored: Path, model: CSN, pair: tuple[Features, Features]
) -> None:
    """Index and codes move together; alone the codes must be named, and must be those of the index."""
    index = tmp_path / "g.index"
    CodeGallery.build(model, stored)[0].save(index)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    moved = index.rename(folder / "g.index")
    with pytest.raises(FileNotFoundError, match=r"codes of .*g\.index must be a file, got .*gallery\.codes"):
        CodeGallery.load(moved)
    assert len(CodeGallery.load(moved, codes=stored)) == len(pair[1])
    codes = stored.rename(folder / stored.name)
    assert CodeGallery.load(moved).file == codes
    save_features(codes, pair[0], dtype=torch.float32)
    with pytest.raises(
        ValueError, match=r"must have the codes that .*g\.index was made from, but has others"
    ):
        CodeGallery.load(moved)


def test_codes_damaged_on_disk(tmp_path: Path, stored: Path, model: CSN) -> None:
    CodeGallery.build(model, stored)[0].save(tmp_path / "g.index")
    content = bytearray(stored.read_bytes())
    content[len(content) // 2] ^= 1
    stored.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged: its checksum is another"):
        CodeGallery.load(tmp_path / "g.index")
    CodeGallery.load(tmp_path / "g.index", verify=False)  # asked for: nothing is read but what is searched


def test_codes_of_another_network_are_refused(
    tmp_path: Path, stored: Path, model: CSN, pair: tuple[Features, Features]
) -> None:
    other = small(seed=5)
    with pytest.raises(ValueError, match="codes must be those of the network that compares them"):
        CodeGallery.build(other, stored)
    gallery, _ = CodeGallery.build(model, stored)
    with pytest.raises(ValueError, match="codes must be those of the network that compares them"):
        gallery.search(Shortlisted(other, 3), pair[0])
    with pytest.raises(ValueError, match=r"shortlist must be at most the gallery's \d+, got 1000"):
        gallery.search(Shortlisted(model, 1000), pair[0])
    with pytest.raises(
        ValueError, match="needs a network that compares pairs and embeds its codes, and Line"
    ):
        CodeGallery.build(torch.nn.Linear(2, 2), stored)
    plain, _ = Gallery.build([pair[1]])
    plain.save(tmp_path / "plain.index")
    with pytest.raises(ValueError, match="is an index of features: it has no codes"):
        CodeGallery.load(tmp_path / "plain.index")


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
