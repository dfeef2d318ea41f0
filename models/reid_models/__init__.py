"""Re-identification models over :mod:`reid_ops`: networks, losses and data.

Needs the extra ``models``: ``pip install "reid-ops[models]"``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .recipes import list_recipes, load_recipe

if TYPE_CHECKING:
    from .networks import create_model, list_models, load_model, load_weights, save_model

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
    """Networks when first asked for: they import torch and timm, which `reid --help` does without."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import networks

    return getattr(networks, name)
