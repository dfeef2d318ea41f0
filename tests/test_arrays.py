"""numpy arrays instead of tensors: the same numbers, in kind, and without copies or warnings."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import reid_ops
from reid_ops import _checks

FEATURES = np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32)
QUERY, GALLERY = FEATURES[:10], FEATURES[10:]
IDENTITIES = np.arange(60) % 6


def from_distance(query: Any, gallery: Any) -> Any:
    pairs = (query, gallery), (query, query), (gallery, gallery)
    return reid_ops.k_reciprocal_rerank_from_distance(*(reid_ops.pairwise_distance(*pair) for pair in pairs))


def xqda(query: Any, gallery: Any) -> Any:
    ranker = reid_ops.XQDA().fit(query, gallery, IDENTITIES[:10], IDENTITIES[10:])
    return ranker.distance(query, gallery)


FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "k_reciprocal_rerank": reid_ops.k_reciprocal_rerank,
    "top of the list": lambda q, g: reid_ops.k_reciprocal_rerank(q, g, topk=3),
    "neighbours": lambda q, g: reid_ops.k_reciprocal_rerank(
        q, g, neighbours=reid_ops.rerank_neighbours(q, g)
    ),
    "from_distance": from_distance,
    "jaccard_distance": lambda q, g: reid_ops.jaccard_distance(g),
    "pairwise_distance": reid_ops.pairwise_distance,
    "expand_queries": reid_ops.expand_queries,
    "EuclideanRanker": lambda q, g: reid_ops.EuclideanRanker().distance(q, g),
    "MahalanobisRanker": lambda q, g: reid_ops.MahalanobisRanker(np.eye(8, dtype=np.float32)).distance(q, g),
    "XQDA": xqda,
}


def locked(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("form", ["plain", "read-only", "backwards", "foreign"])
def test_arrays_as_tensors(name: str, form: str) -> None:
    forms: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "plain": lambda array: array,
        "read-only": locked,
        "backwards": lambda array: array[::-1].copy()[::-1],
        "foreign": lambda array: array.astype(array.dtype.newbyteorder()),
    }
    before = FEATURES.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = FUNCTIONS[name](forms[form](QUERY), forms[form](GALLERY))
    expected = FUNCTIONS[name](torch.from_numpy(QUERY), torch.from_numpy(GALLERY))
    assert np.array_equal(FEATURES, before)
    for ours, theirs in zip(_parts(found), _parts(expected), strict=True):
        assert isinstance(ours, np.ndarray) and isinstance(theirs, torch.Tensor)
        assert np.array_equal(ours, theirs.numpy())


def _parts(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


def test_the_query_decides_the_kind() -> None:
    tensor = torch.from_numpy(QUERY)
    assert isinstance(reid_ops.pairwise_distance(tensor, GALLERY), torch.Tensor)
    assert isinstance(reid_ops.pairwise_distance(QUERY, torch.from_numpy(GALLERY)), np.ndarray)


def test_sparse_distances_are_scipys() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    found = reid_ops.jaccard_distance(GALLERY, k1=4, sparse=True)
    assert isinstance(found, sparse.csr_array) and found.indices.dtype == np.int32
    kept = np.zeros(found.shape, bool)
    kept[found.tocoo().coords] = True  # also entries of 0
    dense = reid_ops.jaccard_distance(GALLERY, k1=4)
    assert np.array_equal(kept, dense < 1)
    assert np.array_equal(found.toarray()[kept], dense[kept])


def test_a_mapped_file_is_not_copied(tmp_path: Path) -> None:
    np.save(tmp_path / "features.npy", FEATURES)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = _checks.as_tensor(mapped)
    assert tensor.data_ptr() == mapped.ctypes.data
    del mapped  # the tensor keeps the file mapped
    assert np.array_equal(tensor.numpy(), FEATURES)


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (QUERY.tolist(), "list"),
        (QUERY.astype(object), "an array of object"),
        (QUERY.astype(int), "int64"),
        (QUERY.astype(str), "an array of <U32"),
    ],
)
@pytest.mark.parametrize("function", [reid_ops.pairwise_distance, reid_ops.k_reciprocal_rerank])
def test_what_is_no_array_of_floats(function: Callable[..., Any], value: Any, got: str) -> None:
    with pytest.raises(TypeError, match=f"query must be .*got {got}"):
        function(value, GALLERY)
