"""Several threads on one index; galleries with next to nothing in them; what an index says of itself."""

from __future__ import annotations

import pickle
import threading
import time
import warnings

import numpy as np
import pytest
import torch

from reid_ops import GalleryIndex
from reid_ops.search import exact
from tests.search.test_torch import features

pytest.importorskip("faiss")

KINDS = ["flat", "ivf", "ivfpq", "hnsw"]


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
@pytest.mark.parametrize("removed", [0, 900])
def test_first_searches_of_several_threads(kind: str, removed: int) -> None:
    """One of them trains and tunes, and puts rows in order; each answers as one alone would."""
    centres = features(100, 16)
    random = np.random.default_rng(0)
    gallery, query = (
        centres[random.integers(0, 100, count)] + 0.7 * random.standard_normal((count, 16), np.float32)
        for count in (3000, 50)
    )

    def index() -> GalleryIndex:
        made = GalleryIndex(16, kind=kind, recall=0.9)
        made.add(gallery)
        made.remove(np.arange(removed))
        return made

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = index().search(query, 10)
        shared = index()
        found: list[tuple[np.ndarray, np.ndarray] | None] = [None] * 4

        def search(place: int) -> None:
            found[place] = shared.search(query, 10)

        threads = [threading.Thread(target=search, args=(place,)) for place in range(4)]
        for thread in threads:
            thread.start()
            time.sleep(0.02)
        for thread in threads:
            thread.join()
    for each in found:
        assert each is not None
        assert np.array_equal(each[0], expected[0]) and np.array_equal(each[1], expected[1])


def test_threads_share_the_process_precision() -> None:
    """The last of them puts back what the first has lowered."""
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        with exact._full_precision:
            with exact._full_precision:
                assert matmul.fp32_precision == "ieee"
            assert matmul.fp32_precision == "ieee"
        assert matmul.fp32_precision == "bf16"
    finally:
        matmul.fp32_precision = before


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_index_answers_nothing(kind: str) -> None:
    index = GalleryIndex(8, kind=kind)
    assert index.build() is None
    for queries in (0, 2):
        for scores, ids in (index.search(features(queries, 8), 5), index.rerank(features(queries, 8), 5)):
            assert scores.shape == ids.shape == (queries, 0)
            assert (scores.dtype, ids.dtype) == (np.float32, np.int64)
    index.add(features(3, 8))
    index.remove(index.ids)
    assert index.search(features(2, 8), 5)[1].shape == (2, 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 15, 16])
def test_a_handful_of_items(kind: str, count: int) -> None:
    gallery = features(count, 8)
    index, truth = GalleryIndex(8, kind=kind), GalleryIndex(8)
    for each in (index, truth):
        each.add(gallery)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = index.search(gallery, 3)
    assert np.array_equal(found[1], truth.search(gallery, 3)[1])
    assert (index.recall_report is None) == (kind == "flat" or count < 16)


def test_no_queries() -> None:
    index = GalleryIndex(8)
    index.add(features(20, 8))
    for scores, ids in (index.search(np.empty((0, 8)), 5), index.rerank(torch.empty(0, 8), 5)):
        assert tuple(scores.shape) == tuple(ids.shape) == (0, 5)


def test_it_says_what_it_is_in_a_line() -> None:
    index = GalleryIndex(8, kind="ivf", metric="euclidean", device="cpu")
    index.add(features(20, 8))
    assert repr(index) == "<GalleryIndex(8, metric='euclidean', kind='ivf', device='cpu') of 20 items>"


def test_an_index_can_be_pickled() -> None:
    index = GalleryIndex(8)
    index.add(features(20, 8))
    copy = pickle.loads(pickle.dumps(index))
    assert np.array_equal(copy.search(features(2, 8), 3)[1], index.search(features(2, 8), 3)[1])


def test_names_are_refused_with_what_to_do() -> None:
    index = GalleryIndex(8)
    with pytest.raises(TypeError, match=r"ids must be integers, got names: number the items, .*names\[ids\]"):
        index.add(features(2, 8), ids=["bella", "max"])
    with pytest.raises(ValueError, match=r"must not repeat, but 8 does: they are .*identities\[ids\]"):
        index.add(features(3, 8), ids=[7, 8, 8])
    assert len(index) == 0
