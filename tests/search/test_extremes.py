"""GalleryIndex whatever is around it or in it: autocast, outliers, lengths that overflow, a huge k."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch

from reid_ops import GalleryIndex
from reid_ops.search import exact
from tests.search.test_index import APPROXIMATE, BACKENDS, ONE, oracle, small
from tests.search.test_torch import METRICS, features


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_changes_nothing(metric: str, backend: str) -> None:
    gallery, query = features(300, 16, identities=12), features(20, 16, 1, identities=12)
    index = GalleryIndex(16, metric=metric, backend=backend, device="cpu")
    index.add(gallery, cameras=np.arange(300) % 3)
    calls = (
        lambda: index.search(query, 9),
        lambda: index.search(query, 9, cameras=[1] * 20),
        lambda: index.search(query, 9, only=range(0, 300, 2)),
        lambda: index.rerank(query, 9),
    )
    outside = [call() for call in calls]
    with torch.autocast("cpu", torch.bfloat16):
        inside = [call() for call in calls]
    for expected, found in zip(outside, inside, strict=True):
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_outlier_makes_nobody_else_doubtful(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own product is rough, theirs are not: no query is searched a second time."""
    searched = []
    candidates = exact._candidates

    def counted(gallery: Any, query: np.ndarray, *rest: Any) -> Any:
        searched.append(len(query))
        return candidates(gallery, query, *rest)

    monkeypatch.setattr(exact, "_candidates", counted)
    gallery, query = features(5000, 64), features(50, 64, 1)
    gallery[1234] *= 1e4
    index = GalleryIndex(64, metric="euclidean", backend=backend, device="cpu")
    index.add(gallery)
    _, ids = index.search(query, 10)
    expected = oracle(query, gallery, 10, "euclidean")
    np.testing.assert_array_equal(ids, expected[1])
    assert searched == [50]


def test_more_wanted_than_there_are() -> None:
    """As many columns as items, whatever k is: no memory for what isn't there."""
    index = small()
    tracemalloc.start()
    scores, ids = index.search(ONE, 10**8)
    distances, names = index.rerank(ONE, 10**8)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert scores.shape == ids.shape == distances.shape == names.shape == (1, 3)
    assert sorted(ids[0]) == sorted(names[0]) == [5, 6, 7]


@pytest.mark.parametrize("kind", ["flat", *APPROXIMATE])
def test_lengths_that_overflow_are_refused(kind: str) -> None:
    """Alike by every kind, where they come in: faiss would end the process."""
    gallery = features(1000, 16)
    gallery[77] = 1e20
    index = GalleryIndex(16, metric="euclidean", kind=kind)
    with pytest.raises(ValueError, match=r"features must have lengths up to .* but row 77 has 4e\+20"):
        index.add(gallery)
    gallery[77] = 0
    index.add(gallery)
    with pytest.raises(ValueError, match="query must have lengths up to"):
        index.search(np.full((1, 16), 1e20, np.float32), 3)
    with pytest.raises(ValueError, match="features must have lengths up to"):
        index.update([77], np.full((1, 16), 1e20, np.float32))
    assert index.search(gallery[77:78], 1)[1].tolist() == [[77]]
    by_angle = GalleryIndex(16, kind=kind)  # the cosine has no length
    gallery[77] = 1e20
    by_angle.add(gallery)
    assert by_angle.search(np.ones((1, 16), np.float32), 1)[1].tolist() == [[77]]
