"""Fast operators for object re-identification: C++/CUDA kernels behind PyTorch autograd.

Every operator is a function here, an ``nn.Module`` beside it, and a pure PyTorch reference of the
same name in :mod:`reid_ops.reference`.
"""

from . import metrics, reference
from ._extension import build_info, is_available
from ._version import __version__
from .part_correlation import CSNSimilarity, PartCorrelation, csn_similarity, part_correlation
from .rankers import (
    XQDA,
    EuclideanRanker,
    MahalanobisRanker,
    expand_queries,
    flip_average,
    pairwise_distance,
)
from .search import GalleryIndex

__all__ = [
    "XQDA",
    "CSNSimilarity",
    "EuclideanRanker",
    "GalleryIndex",
    "MahalanobisRanker",
    "PartCorrelation",
    "__version__",
    "build_info",
    "csn_similarity",
    "expand_queries",
    "flip_average",
    "is_available",
    "metrics",
    "pairwise_distance",
    "part_correlation",
    "reference",
]
