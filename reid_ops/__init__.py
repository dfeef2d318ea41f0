"""Fast operators for object re-identification: C++/CUDA kernels behind PyTorch autograd.

Every operator is a function here, an ``nn.Module`` beside it, and a pure PyTorch reference of the
same name in :mod:`reid_ops.reference`.
"""

from . import reference
from ._extension import build_info, is_available
from ._version import __version__
from .augmentation import augment
from .erasing_transforms import RandomErasing, RandomPolygonErasing
from .hsgm import HSGM
from .part_correlation import CSNSimilarity, PartCorrelation, csn_similarity, part_correlation
from .polygon_erasing import occlude, polygon_erase, random_erase
from .similarity_graph import similarity_graph

__all__ = [
    "HSGM",
    "CSNSimilarity",
    "PartCorrelation",
    "RandomErasing",
    "RandomPolygonErasing",
    "__version__",
    "augment",
    "build_info",
    "csn_similarity",
    "is_available",
    "occlude",
    "part_correlation",
    "polygon_erase",
    "random_erase",
    "reference",
    "similarity_graph",
]
