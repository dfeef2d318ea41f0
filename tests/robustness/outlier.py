"""Times exact Euclidean search of a gallery in which one feature is 10,000 times as long as the others.

    python -m tests.robustness.outlier

Once it made the search 130 times slower: the bound of its rounding error made every other item doubtful.
"""

from __future__ import annotations

import time

import numpy as np

from reid_ops import GalleryIndex

ITEMS, LENGTH, QUERIES, K = 100_000, 256, 100, 10


def seconds(gallery: np.ndarray, query: np.ndarray, backend: str) -> float:
    """Of the fastest of five searches."""
    index = GalleryIndex(LENGTH, metric="euclidean", backend=backend, device="cpu")
    index.add(gallery)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        index.search(query, K)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    """A line for each backend."""
    random = np.random.default_rng(0)
    gallery = random.standard_normal((ITEMS, LENGTH), np.float32)
    query = random.standard_normal((QUERIES, LENGTH), np.float32)
    with_outlier = gallery.copy()
    with_outlier[1234] *= 1e4
    for backend in ("faiss", "torch"):
        plain, outlier = (seconds(each, query, backend) for each in (gallery, with_outlier))
        print(f"{backend}: {1e3 * plain:.0f} ms without, {1e3 * outlier:.0f} ms with the outlier")


if __name__ == "__main__":
    main()
