"""k-reciprocal re-ranking (HCN, section 3.4) and Jaccard distances, without N x N matrices."""

from .definition import RERANK_PRESETS, RerankDefinition
from .jaccard import jaccard_distance
from .neighbours import Neighbours, SearchIndex
from .rerank import k_reciprocal_rerank, k_reciprocal_rerank_from_distance, rerank_neighbours

__all__ = [
    "RERANK_PRESETS",
    "Neighbours",
    "RerankDefinition",
    "SearchIndex",
    "jaccard_distance",
    "k_reciprocal_rerank",
    "k_reciprocal_rerank_from_distance",
    "rerank_neighbours",
]
