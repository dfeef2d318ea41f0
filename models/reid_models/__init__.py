"""Re-identification models over :mod:`reid_ops`: networks, losses and data.

Needs the extra ``models``: ``pip install "reid-ops[models]"``.
"""

from .networks import create_model, list_models, load_model, load_weights, save_model

__all__ = ["create_model", "list_models", "load_model", "load_weights", "save_model"]
