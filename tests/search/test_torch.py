"""GalleryIndex without faiss: on CUDA, whatever precision torch is set to, and in little memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from reid_ops import GalleryIndex
from reid_ops.search.rows import check_features

METRICS = ["cosine", "euclidean"]


def features(rows: int, dim: int = 16, seed: int = 0, identities: int = 0) -> np.ndarray:
    """Normal values, around so many centres if asked for."""
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(rows, dim))
    if identities:
        centres = np.random.default_rng(99).normal(size=(identities, dim))
        values = 0.4 * values + centres[generator.integers(0, identities, rows)]
    return values.astype(np.float32)


@pytest.mark.cuda
@pytest.mark.parametrize("metric", METRICS)
def test_cuda(metric: str) -> None:
    gallery, query = features(5000, 64), features(100, 64, 1)
    results = []
    for device in ("cpu", "cuda"):
        index = GalleryIndex(64, metric=metric, device=device, backend="torch")
        index.add(gallery)
        results.append(index.search(query, 20, cameras=np.zeros(100, int)))
    np.testing.assert_array_equal(results[0][1], results[1][1])
    np.testing.assert_array_equal(results[0][0], results[1][0])


@pytest.mark.parametrize("kind", ["float32", "float64", "bfloat16", "transposed"])
def test_features_are_normalised_in_place_of_a_copy(kind: str) -> None:
    """In float64, without a float64 copy of them all; what was given stays as it was."""
    values = torch.from_numpy(features(8192, 512))
    given = values.T.contiguous().T if kind == "transposed" else values.to(getattr(torch, kind))
    before = given.clone()
    tracemalloc.start()
    found = check_features(given, "features", 512, True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert torch.equal(given, before)
    rows = given.double().numpy().astype(np.float32)
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(found, rows / lengths, rtol=1.2e-7, atol=0)
    assert found.dtype == np.float32 and peak < 1.7 * found.nbytes
    # A bad row is named by its own number, whichever part it is checked with.
    for bad, words in ((np.nan, "finite, but row 8000"), (0.0, "no direction in row 8000")):
        rows[8000] = bad
        with pytest.raises(ValueError, match=words):
            check_features(rows, "features", 512, True)


@pytest.fixture
def _precision() -> Iterator[None]:
    yield
    torch.backends.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")


@pytest.mark.usefixtures("_precision")
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("precision", ["high", "medium"])
def test_low_precision_of_products_is_not_used_and_not_changed(precision: str, metric: str) -> None:
    gallery = features(3000, 64, identities=8)
    query = gallery[:50] + 0.01 * features(50, 64, seed=1)
    index = GalleryIndex(64, metric=metric, backend="torch", device="cpu")
    index.add(gallery)
    expected = index.search(query, 20)
    torch.set_float32_matmul_precision(precision)
    for mine, theirs in zip(index.search(query, 20), expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert torch.get_float32_matmul_precision() == precision


@pytest.mark.usefixtures("_precision")
def test_precision_by_torchs_newer_settings_is_kept() -> None:
    """Where it was set so, the older ones raise when they are read."""
    own, one = torch.backends.cuda.matmul, features(1)
    index = GalleryIndex(16, backend="torch", device="cpu")
    index.add(features(30))
    for value in ("tf32", "ieee"):
        own.fp32_precision = value
        index.search(one, 1)
        assert own.fp32_precision == value
    own.fp32_precision = "none"
    torch.backends.fp32_precision = "tf32"
    index.search(one, 1)
    assert own.fp32_precision == "tf32"
    torch.backends.fp32_precision = "ieee"  # is still inherited
    assert own.fp32_precision == "ieee"
