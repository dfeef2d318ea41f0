"""Similarity graphs and the hierarchical similarity graph module (HSGNet)."""

from .graph import similarity_graph
from .hsgm import HSGM

__all__ = ["HSGM", "similarity_graph"]
