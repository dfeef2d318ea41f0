"""Distances between features: Euclidean, cosine, Mahalanobis and XQDA; query expansion, flip averaging."""

from .averaging import expand_queries, flip_average
from .distance import EuclideanRanker, pairwise_distance
from .learned import XQDA, MahalanobisRanker

__all__ = [
    "XQDA",
    "EuclideanRanker",
    "MahalanobisRanker",
    "expand_queries",
    "flip_average",
    "pairwise_distance",
]
