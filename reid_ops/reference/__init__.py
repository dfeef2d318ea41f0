"""Every operator again in pure PyTorch: short, readable, differentiable on any device.

The kernels are tested against these functions, and a model built with ``impl="reference"`` runs
on them.
"""

from .augmentation import augment
from .k_reciprocal import jaccard_distance, k_reciprocal_rerank, k_reciprocal_rerank_from_distance
from .part_correlation import csn_similarity, part_correlation
from .polygon_erasing import occlude, polygon_erase, random_erase
from .similarity_graph import average_pool, divide, hsgm, similarity_graph
from .stripe_pool import stripe_pool, stripe_windows

__all__ = [
    "augment",
    "average_pool",
    "csn_similarity",
    "divide",
    "hsgm",
    "jaccard_distance",
    "k_reciprocal_rerank",
    "k_reciprocal_rerank_from_distance",
    "occlude",
    "part_correlation",
    "polygon_erase",
    "random_erase",
    "similarity_graph",
    "stripe_pool",
    "stripe_windows",
]
