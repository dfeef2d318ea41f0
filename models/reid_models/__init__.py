"""Re-identification models over :mod:`reid_ops`: networks, losses and data.

Needs the extra ``models``: ``pip install "reid-ops[models]"``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .networks import create_model, list_models, load_model, load_weights, save_model
    from .recipes import list_recipes, load_recipe

__all__ = [
    "create_model",
    "list_models",
    "list_recipes",
    "load_model",
    "load_recipe",
    "load_weights",
    "save_model",
]


def __getattr__(name: str) -> Any:
    """Names when first asked for: what they stand on is slow to import, and `reid --help` does without."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "recipes" if name.endswith(("_recipe", "_recipes")) else "networks"
    return getattr(importlib.import_module(f".{home}", __name__), name)
