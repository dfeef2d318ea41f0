"""Fast operators for object re-identification: C++/CUDA kernels behind PyTorch autograd.

Every operator is a function here, an ``nn.Module`` beside it, and a pure PyTorch reference of the
same name in :mod:`reid_ops.reference`.
"""

from . import metrics, reference
from ._extension import build_info, is_available
from ._version import __version__
from .augmentation import augment
from .k_reciprocal import (
    RERANK_PRESETS,
    Neighbours,
    RerankDefinition,
    SearchIndex,
    jaccard_distance,
    k_reciprocal_rerank,
    k_reciprocal_rerank_from_distance,
    rerank_neighbours,
)
from .part_correlation import CSNSimilarity, PartCorrelation, csn_similarity, part_correlation
from .polygon_erasing import occlude, polygon_erase, random_erase
from .polygon_erasing.transforms import RandomErasing, RandomPolygonErasing
from .rankers import XQDA, EuclideanRanker, MahalanobisRanker, expand_queries, flip_average, pairwise_distance
from .search import GalleryIndex
from .similarity_graph import HSGM, similarity_graph
from .stripe_pool import StripePool, stripe_pool

__all__ = [
    "HSGM",
    "RERANK_PRESETS",
    "XQDA",
    "CSNSimilarity",
    "EuclideanRanker",
    "GalleryIndex",
    "MahalanobisRanker",
    "Neighbours",
    "PartCorrelation",
    "RandomErasing",
    "RandomPolygonErasing",
    "RerankDefinition",
    "SearchIndex",
    "StripePool",
    "__version__",
    "augment",
    "build_info",
    "csn_similarity",
    "expand_queries",
    "flip_average",
    "is_available",
    "jaccard_distance",
    "k_reciprocal_rerank",
    "k_reciprocal_rerank_from_distance",
    "metrics",
    "occlude",
    "pairwise_distance",
    "part_correlation",
    "polygon_erase",
    "random_erase",
    "reference",
    "rerank_neighbours",
    "similarity_graph",
    "stripe_pool",
]
