"""The families of public re-ranking code, written anew from their definitions: NumPy, float64, dense.

Each follows its family's own order of steps (which matrix is squared, what is divided by what, which
list is how long), so that agreement is no tautology. Ranks are stable sorts: ties by index.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def zhong(q_g: Array, q_q: Array, g_g: Array, k1: int, k2: int, lambda_value: float) -> Array:
    """The published function on distance matrices; fast-reid's and torchreid's older copies are the same."""
    original = np.block([[q_q, q_g], [q_g.T, g_g]]) ** 2
    original = (original / original.max(axis=0)).T
    rank = np.argsort(original, axis=1, kind="stable")
    weights = _encode(rank, original, k1, k1 + 1)
    jaccard = _jaccard(_expand(weights, rank, k2), clip=False)
    queries = len(q_q)
    return (jaccard * (1 - lambda_value) + original * lambda_value)[:queries, queries:]


def zhong_features(query: Array, gallery: Array, k1: int, k2: int, lambda_value: float) -> Array:
    """What that code is given: Euclidean distances."""
    return zhong(
        *(np.sqrt(_squared(x, y)) for x, y in ((query, gallery), (query, query), (gallery, gallery))),
        k1,
        k2,
        lambda_value,
    )


def torchreid_features(query: Array, gallery: Array, k1: int, k2: int, lambda_value: float) -> Array:
    """Squared Euclidean distances go in and are squared again."""
    return zhong(
        *(_squared(x, y) for x, y in ((query, gallery), (query, query), (gallery, gallery))),
        k1,
        k2,
        lambda_value,
    )


def spcl_jaccard(features: Array, k1: int, k2: int) -> Array:
    """Lists of k1 places, softmax of the raw -d^2, no normalisation, negatives clipped."""
    squared = _squared(features, features)
    rank = np.argsort(squared, axis=1, kind="stable")[:, :k1]
    return _jaccard(_expand(_encode(rank, squared, k1, k1), rank, k2), clip=True)


def spcl_features(query: Array, gallery: Array, k1: int, k2: int, lambda_value: float) -> Array:
    """That, from queries to gallery; lambda, which the family has not, blends the raw d^2."""
    jaccard = spcl_jaccard(np.concatenate([query, gallery]), k1, k2)[: len(query), len(query) :]
    return (1 - lambda_value) * jaccard + lambda_value * _squared(query, gallery)


def fast_reid_features(query: Array, gallery: Array, k1: int, k2: int, lambda_value: float) -> Array:
    """The evaluator with the cosine metric: that Jaccard and the raw cosine distance."""
    jaccard = spcl_jaccard(np.concatenate([query, gallery]), k1, k2)[: len(query), len(query) :]
    unit_query = query / np.linalg.norm(query, axis=1, keepdims=True)
    unit_gallery = gallery / np.linalg.norm(gallery, axis=1, keepdims=True)
    return (1 - lambda_value) * jaccard + lambda_value * (1 - unit_query @ unit_gallery.T)


def _squared(x: Array, y: Array) -> Array:
    return ((x[:, None, :] - y[None, :, :]) ** 2).sum(2)


def _reciprocal(rank: NDArray[np.int64], item: int, places: int) -> NDArray[np.int64]:
    forward = rank[item, :places]
    return forward[np.where(rank[forward, :places] == item)[0]]


def _encode(rank: NDArray[np.int64], distance: Array, k1: int, places: int) -> Array:
    half = int(np.around(k1 / 2)) + 1
    weights = np.zeros_like(distance)
    for item in range(len(distance)):
        reciprocal = _reciprocal(rank, item, places)
        expanded = reciprocal
        for candidate in reciprocal:
            added = _reciprocal(rank, candidate, half)
            if len(np.intersect1d(added, reciprocal)) > 2 / 3 * len(added):
                expanded = np.append(expanded, added)
        expanded = np.unique(expanded)
        weight = np.exp(-distance[item, expanded])
        weights[item, expanded] = weight / weight.sum()
    return weights


def _expand(weights: Array, rank: NDArray[np.int64], k2: int) -> Array:
    if k2 == 1:
        return weights
    return np.stack([weights[rank[item, :k2]].mean(axis=0) for item in range(len(weights))])


def _jaccard(weights: Array, clip: bool) -> Array:
    shared = np.stack([np.minimum(row, weights).sum(axis=1) for row in weights])
    jaccard = 1 - shared / (2 - shared)
    return np.maximum(jaccard, 0) if clip else jaccard
