"""Every operator again in pure PyTorch: short, readable, differentiable on any device.

The kernels are tested against these functions, and a model built with ``impl="reference"`` runs
on them.
"""

from .k_reciprocal import jaccard_distance, k_reciprocal_rerank, k_reciprocal_rerank_from_distance
from .part_correlation import csn_similarity, part_correlation

__all__ = [
    "csn_similarity",
    "jaccard_distance",
    "k_reciprocal_rerank",
    "k_reciprocal_rerank_from_distance",
    "part_correlation",
]
