"""Identities without labels: features grouped by the neighbours that they have in common."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

import reid_ops

ALONE = -1  # the cluster of what is in none


def cluster_features(
    features: np.ndarray | Tensor,
    *,
    eps: float = 0.6,
    min_samples: int = 4,
    k1: int = 30,
    k2: int | None = None,
    preset: str = "spcl",
    normalize: bool = True,
) -> np.ndarray:
    """DBSCAN of k-reciprocal Jaccard distances: pseudo-labels as SpCL and cluster-contrast make them.

    The same as :func:`reid_ops.jaccard_distance` and ``sklearn.cluster.DBSCAN(metric="precomputed")`` on its
    sparse result; no N x N matrix exists. Defaults are those of that family of code.

    Args:
        features: (N, D), float; of one model.
        eps: how far, at most, neighbours in a cluster may be, in (0, 1).
        min_samples: neighbours, itself included, that an item at a cluster's core has; from 1.
        k1: as in ``jaccard_distance``, like the next two.
        k2: as there.
        preset: as there.
        normalize: bring features to length 1 first.

    Returns:
        int64 (N,): clusters 0, 1, ... in the order in which their first item comes; -1: in none.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.

    Example:
        >>> labels = cluster_features(load_features("train.safetensors").features)
        >>> labels.max() + 1, (labels < 0).mean()  # how many there are, how much is in none
    """
    if isinstance(eps, bool) or not isinstance(eps, (int, float)) or not 0 < eps < 1:
        raise ValueError(f"cluster_features: eps must be in (0, 1), got {eps!r}")
    if isinstance(min_samples, bool) or not isinstance(min_samples, int) or min_samples < 1:
        raise ValueError(f"cluster_features: min_samples must be an int of at least 1, got {min_samples!r}")
    found = torch.as_tensor(features).detach().float().cpu()
    if found.dim() != 2:
        raise ValueError(f"cluster_features: features must have shape (N, D), got {tuple(found.shape)}")
    if normalize:
        found = torch.nn.functional.normalize(found, dim=1)
    array: Any = found.numpy()  # so that the answer is an array, too
    distances = reid_ops.jaccard_distance(array, k1=k1, k2=k2, preset=preset, sparse=True)
    if len(found) == 0:
        return np.empty(0, np.int64)
    from sklearn.cluster import DBSCAN  # here: it takes a second to import

    labels: np.ndarray = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit_predict(distances)
    return labels.astype(np.int64)
