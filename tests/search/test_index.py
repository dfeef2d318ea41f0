"""GalleryIndex against a sort of all distances; changes, filters, recall targets, bad input."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import reid_ops
from reid_ops import GalleryIndex
from reid_ops.search import exact
from reid_ops.search import index as index_module
from tests.search.test_torch import METRICS, features

faiss = pytest.importorskip("faiss")

BACKENDS = ["faiss", "torch"]
APPROXIMATE = ["ivf", "ivfpq", "hnsw"]


def oracle(
    query: np.ndarray, gallery: np.ndarray, k: int, metric: str, allowed: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """All scores in float64, sorted by (score in float32, position); ``allowed`` ``(Q, G)``."""
    left, right = query.astype(np.float64), gallery.astype(np.float64)
    if metric == "cosine":
        # what is stored, and what is searched for, is a unit vector in float32
        left, right = (
            (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32).astype(np.float64)
            for x in (left, right)
        )
        keys = -(left @ right.T)
    else:
        keys = np.linalg.norm(left[:, None] - right[None], axis=2)
    slots = np.full((len(query), k), -1)
    scores = np.full((len(query), k), np.nan)
    for q, row in enumerate(keys):
        items = range(len(row)) if allowed is None else np.flatnonzero(allowed[q])
        best = sorted(items, key=lambda item: (np.float32(row[item]), item))[:k]
        slots[q, : len(best)], scores[q, : len(best)] = best, row[best]
    return (-scores if metric == "cosine" else scores), slots


def overlap(found: np.ndarray, truth: np.ndarray) -> float:
    """Share of the true entries that were found."""
    return float((found[:, :, None] == truth[:, None, :]).any(1).mean())


def assert_found(found: tuple[Any, Any], expected: tuple[np.ndarray, np.ndarray]) -> None:
    np.testing.assert_array_equal(np.asarray(found[1]), expected[1])
    np.testing.assert_allclose(np.asarray(found[0]), expected[0], rtol=2e-6, atol=2e-6)


# -------------------------------------------------------------------------------------------- exact


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("k", [1, 7, 60, 80])
def test_flat_equals_a_sort(backend: str, metric: str, k: int) -> None:
    gallery, query = features(60), features(9, seed=1)
    index = GalleryIndex(16, metric=metric, backend=backend)
    assert index.add(gallery).tolist() == list(range(60))
    assert_found(index.search(query, k), oracle(query, gallery, min(k, 60), metric))


@pytest.mark.parametrize("metric", METRICS)
def test_blocks_shards_and_backends_give_the_same_bits(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, query = features(500, 32, identities=20), features(40, 32, 1, identities=20)
    results = []
    for backend, shards, block in (
        ("faiss", None, 8192),
        ("torch", None, 8192),
        ("torch", 3, 64),
        ("torch", 7, 8192),
    ):
        monkeypatch.setattr(exact, "_ROWS", block)
        monkeypatch.setattr(exact, "_QUERIES", max(7, block // 100))
        index = GalleryIndex(32, metric=metric, backend=backend, shards=shards)
        index.add(gallery)
        results.append(index.search(query, 25))
    for scores, ids in results[1:]:
        np.testing.assert_array_equal(ids, results[0][1])
        np.testing.assert_array_equal(scores, results[0][0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("metric", METRICS)
def test_many_equal_vectors_come_in_order_of_position(backend: str, metric: str) -> None:
    gallery = np.repeat(features(3), 70, axis=0)[np.random.default_rng(0).permutation(210)]
    query = features(5, seed=2)
    index = GalleryIndex(16, metric=metric, backend=backend)
    index.add(gallery)
    for k in (1, 20, 90):
        assert_found(index.search(query, k), oracle(query, gallery, k, metric))


@pytest.mark.parametrize("backend", BACKENDS)
def test_nearly_equal_vectors_are_told_apart(backend: str) -> None:
    # distances that a float32 product cannot order, far more of them than the spare candidates
    direction = np.zeros((1, 64), np.float32)
    direction[0, 0] = 100.0
    gallery = np.repeat(direction, 300, axis=0)
    gallery[:, 1] = np.random.default_rng(0).permutation(300) * 1e-3
    index = GalleryIndex(64, metric="euclidean", backend=backend)
    index.add(gallery)
    assert_found(index.search(direction, 5), oracle(direction, gallery, 5, "euclidean"))


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**31), st.integers(1, 50), st.integers(1, 60), st.sampled_from(METRICS),
    st.sampled_from(BACKENDS), st.booleans(),
)  # fmt: skip
def test_flat_on_anything(seed: int, items: int, k: int, metric: str, backend: str, ties: bool) -> None:
    gallery, query = features(items, 4, seed), features(3, 4, seed + 1)
    if ties:
        gallery, query = np.round(gallery) + 0.5, np.round(query) + 0.5
    index = GalleryIndex(4, metric=metric, backend=backend)
    index.add(gallery)
    assert_found(index.search(query, k), oracle(query, gallery, min(k, items), metric))


def test_numpy_in_numpy_out_torch_in_torch_out() -> None:
    gallery, query = features(30), features(4, seed=1)
    index = GalleryIndex(16)
    index.add(torch.from_numpy(gallery).double())
    arrays = index.search(query, 3)
    assert arrays[0].dtype == np.float32 and arrays[1].dtype == np.int64
    tensors = index.search(torch.from_numpy(query), 3)
    assert tensors[0].dtype == torch.float32 and tensors[1].dtype == torch.int64
    np.testing.assert_array_equal(arrays[1], tensors[1].numpy())
    index.search(torch.from_numpy(query).half(), 3)
    assert index.search(query[:0], 3)[1].shape == (0, 3)


# ------------------------------------------------------------------------------------ change and filter


@pytest.mark.filterwarnings("ignore:GalleryIndex")  # codes of 16 values don't reach 0.99
@pytest.mark.parametrize("kind", ["flat", *APPROXIMATE])
def test_add_remove_update_against_a_dictionary(kind: str) -> None:
    chance = np.random.default_rng(3)
    index = GalleryIndex(32, metric="euclidean", kind=kind)
    there: dict[int, tuple[np.ndarray, int]] = {}
    query = features(5, 32, 77)
    for step in range(25):
        action = chance.integers(0, 3) if len(there) > 60 else 0
        if action == 0:
            new = features(40, 32, 100 + step)
            names = chance.choice(100_000, 40, replace=False)
            names = np.array([name for name in names if name not in there])
            cameras = chance.integers(0, 4, len(names))
            index.add(new[: len(names)], ids=names, cameras=cameras)
            there |= {int(n): (v, int(c)) for n, v, c in zip(names, new, cameras, strict=False)}
        else:
            names = chance.choice(list(there), 25, replace=False)
            if action == 1:
                index.remove(names)
                for name in names:
                    del there[int(name)]
            else:
                new = features(25, 32, 500 + step)
                index.update(names, new)
                there |= {int(n): (v, there[int(n)][1]) for n, v in zip(names, new, strict=True)}
        assert len(index) == len(there)
        assert sorted(index.ids.tolist()) == sorted(there)
        if step % 5 == 4:
            table = np.array([there[int(name)][0] for name in index.ids])
            np.testing.assert_array_equal(index.features(index.ids), table)
            assert index.cameras.tolist() == [there[int(name)][1] for name in index.ids]
            found = index.search(query, 5)[1]
            expected = index.ids[oracle(query, table, 5, "euclidean")[1]]
            if kind == "flat":
                np.testing.assert_array_equal(found, expected)
            else:
                assert overlap(found, expected) > 0.7
                assert np.isin(found, index.ids).all()


@pytest.mark.parametrize("kind", ["flat", *APPROXIMATE])
@pytest.mark.parametrize("metric", METRICS)
def test_filters(kind: str, metric: str) -> None:
    gallery, query = features(800, 16, identities=30), features(12, 16, 1, identities=30)
    chance = np.random.default_rng(0)
    cameras, query_cameras = chance.integers(-1, 3, 800), chance.integers(-1, 3, 12)
    index = GalleryIndex(16, metric=metric, kind=kind, recall=1.0)
    index.add(gallery, cameras=cameras)
    only, exclude = chance.choice(800, 500, replace=False), chance.choice(900, 200, replace=False)
    other = (cameras[None] != query_cameras[:, None]) | (query_cameras[:, None] < 0)
    named = np.isin(np.arange(800), only) & ~np.isin(np.arange(800), exclude)
    few = np.isin(np.arange(800), only[:20])
    for options, allowed in (
        ({"cameras": query_cameras}, other),
        ({"only": only, "exclude": exclude}, np.repeat(named[None], 12, 0)),
        ({"cameras": query_cameras, "only": only, "exclude": exclude}, other & named),
        ({"cameras": query_cameras, "only": only[:20]}, other & few),
    ):
        found = index.search(query, 10, **options)
        expected = oracle(query, gallery, 10, metric, allowed)
        if kind == "flat" or allowed.sum(1).max() <= 20:
            assert_found(found, expected)
        else:
            assert overlap(found[1], expected[1]) > 0.9
            rows, columns = np.nonzero(found[1] >= 0)
            assert allowed[rows, found[1][rows, columns]].all()


def test_a_filter_that_leaves_nothing() -> None:
    index = GalleryIndex(4)
    index.add(features(3, 4), cameras=[1, 1, 1])
    scores, ids = index.search(features(2, 4, 1), 2, cameras=[1, 0])
    assert ids[0].tolist() == [-1, -1] and np.isnan(scores[0]).all()
    assert (ids[1] >= 0).all()


# -------------------------------------------------------------------------------------------- approximate


@pytest.mark.parametrize("kind", APPROXIMATE)
@pytest.mark.parametrize("metric", METRICS)
def test_recall_target_is_reached_and_reported(kind: str, metric: str) -> None:
    gallery, query = features(4000, 32, identities=150), features(200, 32, 1, identities=150)
    index = GalleryIndex(32, metric=metric, kind=kind, recall=0.95)
    index.add(gallery)
    assert index.recall_report is None
    report = index.build(queries=query, k=10)
    assert report is not None and report == index.recall_report
    assert report.reached and report.recall >= 0.95 and (report.k, report.sample) == (10, 200)
    found = index.search(query, 10)[1]
    truth = oracle(query, gallery, 10, metric)[1]
    assert overlap(found, truth) == pytest.approx(report.recall, abs=0.005)
    # a lower target is not dearer
    cheap = GalleryIndex(32, metric=metric, kind=kind, recall=0.5)
    cheap.add(gallery)
    other = cheap.build(queries=query, k=10)
    assert other is not None and other.value <= report.value


def test_a_target_out_of_reach_is_said() -> None:
    index = GalleryIndex(64, kind="ivfpq", recall=1.0)
    index.add(features(700, 64))
    with pytest.warns(RuntimeWarning, match="reaches a recall of"):
        report = index.build(k=40)
    assert report is not None and not report.reached and report.recall < 1.0


def test_scores_of_approximate_kinds_are_exact() -> None:
    gallery, query = features(1500, 16, identities=50), features(20, 16, 1, identities=50)
    for kind in APPROXIMATE:
        index = GalleryIndex(16, metric="euclidean", kind=kind)
        index.add(gallery)
        scores, ids = index.search(query, 5)
        expected = np.linalg.norm(gallery[ids].astype(np.float64) - query[:, None], axis=2)
        np.testing.assert_allclose(scores, expected, rtol=1e-6)


# ------------------------------------------------------------------------------------------------- rerank


def test_rerank_with_all_candidates_is_the_operator() -> None:
    gallery, query = features(120, 16, identities=12), features(6, 16, 1, identities=12)
    index = GalleryIndex(16)
    index.add(gallery, ids=np.arange(120) + 1000)
    distances, ids = index.rerank(query, 10, k1=8, k2=3, candidates=120)
    for row in range(6):
        left = torch.nn.functional.normalize(torch.from_numpy(query[row : row + 1]))
        right = torch.nn.functional.normalize(torch.from_numpy(gallery))
        values, order = reid_ops.k_reciprocal_rerank(left, right, k1=8, k2=3, lambda_value=0.3, topk=10)
        np.testing.assert_allclose(distances[row], values[0].numpy(), atol=1e-5)
        np.testing.assert_array_equal(ids[row], order[0].numpy() + 1000)
    alone = index.rerank(query[2:3], 10, k1=8, k2=3, candidates=60)
    together = index.rerank(query, 10, k1=8, k2=3, candidates=60)
    np.testing.assert_array_equal(alone[1][0], together[1][2])


def test_rerank_hands_over_the_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """What reaches the operator, whichever operator is there."""

    def rerank(query: Any, gallery: Any, *, k1: int, k2: int, lambda_value: float, topk: int) -> Any:
        assert query.shape == (1, 4) and (k1, k2, lambda_value) == (20, 6, 0.3)
        values, order = (1 - query @ gallery.T).sort(dim=1, stable=True)
        return values[:, :topk], order[:, :topk]

    monkeypatch.setattr(index_module, "k_reciprocal_rerank", rerank)
    gallery, query = features(300, 4), features(5, 4, 1)
    index = GalleryIndex(4)
    index.add(gallery, cameras=np.arange(300) % 2)
    distances, ids = index.rerank(query, 7)
    scores, expected = index.search(query, 7)
    np.testing.assert_array_equal(ids, expected)
    np.testing.assert_allclose(distances, 1 - scores, atol=1e-6)
    _, ids = index.rerank(query, 7, cameras=[0] * 5, candidates=7)
    assert (ids % 2 == 1).all()
    _, ids = index.rerank(query, 7, only=[3, 5])
    assert (ids[:, 2:] == -1).all() and set(ids[:, :2].ravel()) == {3, 5}
    tensors = index.rerank(torch.from_numpy(query), 7)
    assert isinstance(tensors[0], torch.Tensor)


# ---------------------------------------------------------------------------------------------- bad input


def small() -> GalleryIndex:
    index = GalleryIndex(4)
    index.add(features(3, 4), ids=[5, 6, 7])
    return index


ONE = np.ones((1, 4), np.float32)
NAN = np.array([[1, 1, 1, 1], [1, np.nan, 1, 1]], np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda i: i.add(NAN), ValueError, "features must be finite, but row 1 is not"),
        (lambda i: i.add(NAN * 0 + np.inf), ValueError, "finite, but row 0"),
        (lambda i: i.add(np.full((1, 4), 1e300)), ValueError, "finite, but row 0"),
        (lambda i: i.add(ONE * 0), ValueError, "no direction in row 0"),
        (lambda i: i.add(ONE[:, :3]), ValueError, r"shape \(N, 4\), got \(1, 3\)"),
        (lambda i: i.add(ONE[0]), ValueError, r"shape \(N, 4\), got \(4,\)"),
        (lambda i: i.add([[1.0]]), TypeError, "features must be a numpy array or a torch.Tensor, got list"),
        (lambda i: i.add(ONE.astype(int)), TypeError, "floating type, got int64"),
        (lambda i: i.add(torch.ones(1, 4).int()), TypeError, "floating type, got torch.int32"),
        (lambda i: i.add(np.ones((2, 4)), ids=[8, 8]), ValueError, "ids must not repeat, but 8 does"),
        (lambda i: i.add(np.ones((2, 4)), ids=[8, 6]), ValueError, "id 6 is in the index already"),
        (lambda i: i.add(ONE, ids=[-1]), ValueError, "ids must be at least 0, got -1"),
        (lambda i: i.add(ONE, ids=[1, 2]), ValueError, r"ids must have shape \(1,\), got \(2,\)"),
        (lambda i: i.add(ONE, ids=[1.5]), TypeError, "ids must be integers, got float64"),
        (
            lambda i: i.add(ONE, ids=np.array([2**63], np.uint64)),
            ValueError,
            "ids must be below 2\\*\\*63, got 9",
        ),
        (lambda i: i.add(ONE, cameras=[-2]), ValueError, "cameras must be at least -1"),
        (lambda i: i.remove([5, 9]), ValueError, "ids must be in the index, but 9 is not"),
        (lambda i: i.remove([5, 5]), ValueError, "ids must not repeat, but 5 does"),
        (lambda i: i.update([5, 9], np.ones((2, 4))), ValueError, "but 9 is not"),
        (lambda i: i.update([5], np.ones((2, 4))), ValueError, "features must have 1 rows"),
        (lambda i: i.update([5, 6], NAN), ValueError, "finite, but row 1"),
        (lambda i: i.search(NAN, 1), ValueError, "query must be finite, but row 1 is not"),
        (lambda i: i.search(ONE[:, :2], 1), ValueError, r"query must have shape \(N, 4\)"),
        (lambda i: i.search(ONE, 0), ValueError, "k must be in"),
        (lambda i: i.search(ONE, 1.0), TypeError, "k must be an int, got float"),
        (lambda i: i.search(ONE, 1, cameras=[1, 2]), ValueError, r"cameras must have shape \(1,\)"),
        (lambda i: i.search(ONE, 1, only=[9]), ValueError, "only must be in the index, but 9 is not"),
        (lambda i: i.features([9]), ValueError, "but 9 is not"),
        (lambda i: i.rerank(ONE, 5, candidates=2), ValueError, "candidates must be in"),
        (lambda i: i.rerank(ONE, 2, k1="a"), TypeError, "k1 must be an int, got str"),
        (lambda i: i.rerank(ONE, 2, k1=3, k2=4), ValueError, "k2 must not exceed k1"),
        (lambda i: GalleryIndex(0), ValueError, "dim must be in"),
        (lambda i: GalleryIndex(4, metric="dot"), ValueError, "metric must be one of"),
        (lambda i: GalleryIndex(4, kind="tree"), ValueError, "kind must be one of"),
        (lambda i: GalleryIndex(4, backend="gpu"), ValueError, "backend must be one of"),
        (lambda i: GalleryIndex(4, kind="ivf", backend="torch"), ValueError, 'kind must be "flat"'),
        (lambda i: GalleryIndex(4, recall=0.0), ValueError, "recall must be in"),
        (lambda i: GalleryIndex(4, shards=0), ValueError, "shards must be in"),
        (lambda i: GalleryIndex(4, device="meta"), ValueError, "device must be"),
    ],
)
def test_bad_arguments_change_nothing(call: Any, error: type[Exception], message: str) -> None:
    index = small()
    before = index.features([5, 6, 7])
    with pytest.raises(error, match=message):
        call(index)
    assert index.ids.tolist() == [5, 6, 7]
    np.testing.assert_array_equal(index.features([5, 6, 7]), before)


def test_running_numbers_end() -> None:
    index = small()
    index.add(ONE, ids=[2**63 - 2])
    assert index.add(2 * ONE).tolist() == [2**63 - 1]
    with pytest.raises(ValueError, match="ids must be given: the running numbers end at"):
        index.add(ONE)
    assert index.ids.tolist() == [5, 6, 7, 2**63 - 2, 2**63 - 1]


def test_without_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    index = GalleryIndex(4)
    index.add(features(9, 4))
    assert index.backend == "torch"
    assert_found(index.search(ONE, 3), oracle(ONE, features(9, 4), 3, "cosine"))
    for options in ({"kind": "hnsw"}, {"backend": "faiss"}):
        with pytest.raises(RuntimeError, match=r"pip install reid-ops\[search\]"):
            GalleryIndex(4, **options)
