"""Distances of all pairs, Euclidean and by the cosine."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _checks
from .inputs import check_pair, unit

METRICS = ("euclidean", "squared_euclidean", "cosine")


@_checks.takes_arrays
@_checks.outside_autocast
def pairwise_distance(query: Tensor, gallery: Tensor, metric: str = "euclidean") -> Tensor:
    """Distances of all pairs by one matrix product.

    Args:
        query: features ``(Q, D)``, float32, float64, float16 or bfloat16; a tensor or a numpy array.
        gallery: features ``(G, D)``, dtype and device of ``query``.
        metric: ``"euclidean"``, ``"squared_euclidean"`` or ``"cosine"`` (1 less the cosine).

    Returns:
        ``(Q, G)``, from 0, float32 for half types, an array if ``query`` is one. Near 0 the Euclidean ones
        lose digits, as ``|x|^2 + |y|^2 - 2xy`` does; rank with float64 where that matters.

    Raises:
        TypeError: an argument is no tensor or array, or of an unsupported or unlike dtype.
        ValueError: shapes or devices disagree, a metric is unknown, or cosine meets a vector of zeros.

    Example:
        >>> pairwise_distance(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
        tensor([[5.]])
    """
    op = "pairwise_distance"
    query, gallery = check_pair(query, gallery, op)
    if metric not in METRICS:
        names = ", ".join(f'"{name}"' for name in METRICS)
        raise ValueError(f"{op}: metric must be one of {names}, got {metric!r}")
    query, gallery = comparable(query, metric, "query", op), comparable(gallery, metric, "gallery", op)
    return measure(query, gallery, metric)


def comparable(features: Tensor, metric: str, argument: str, op: str, first_row: int = 0) -> Tensor:
    """Rows of a pair as :func:`measure` wants them, at least float32; ``first_row`` is for errors."""
    if features.dtype in (torch.float16, torch.bfloat16):
        features = features.float()
    return unit(features, argument, op, first_row) if metric == "cosine" else features


def measure(query: Tensor, gallery: Tensor, metric: str) -> Tensor:
    """:func:`pairwise_distance` of what is :func:`comparable`, unchecked."""
    if metric == "cosine":
        return (1.0 - query @ gallery.T).clamp_(min=0.0)
    squared = torch.addmm(gallery.square().sum(1)[None, :], query, gallery.T, alpha=-2.0)
    squared += query.square().sum(1)[:, None]
    squared.clamp_(min=0.0)
    return squared.sqrt_() if metric == "euclidean" else squared


class EuclideanRanker:
    """Euclidean ranking (HCN, Table 3), on L2-normalised features unless ``normalize=False``.

    Example:
        >>> EuclideanRanker().distance(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]]))
        tensor([[1.4142]])
    """

    def __init__(self, *, normalize: bool = True) -> None:
        self.normalize = normalize

    @_checks.takes_arrays
    @_checks.outside_autocast
    def distance(self, query: Tensor, gallery: Tensor) -> Tensor:
        """Distances ``(Q, G)``; see :func:`pairwise_distance`."""
        query, gallery = check_pair(query, gallery, type(self).__name__)
        if self.normalize:
            query = unit(query, "query", type(self).__name__)
            gallery = unit(gallery, "gallery", type(self).__name__)
        return pairwise_distance(query, gallery, "euclidean")
