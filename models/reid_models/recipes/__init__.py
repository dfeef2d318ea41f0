"""Experiments by name: what a run is made of, and what the paper measured with it."""

from .registry import Recipe, list_recipes, load_recipe
from .table import paper_table, read_results

__all__ = ["Recipe", "list_recipes", "load_recipe", "paper_table", "read_results"]
