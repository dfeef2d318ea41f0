"""Networks of the papers: :func:`create_model`, their weights on disk, and what they cost."""

from ..papers.hsgnet.network import HSGNET_VARIANTS, HSGNet
from .backbone import create_backbone
from .baseline import Baseline
from .complexity import Complexity, complexity_table, format_complexity_table, measure_complexity
from .export import export_onnx
from .network import Network
from .registry import create_model, list_models
from .weights import load_model, load_weights, save_model

__all__ = [
    "HSGNET_VARIANTS",
    "Baseline",
    "Complexity",
    "HSGNet",
    "Network",
    "complexity_table",
    "create_backbone",
    "create_model",
    "export_onnx",
    "format_complexity_table",
    "list_models",
    "load_model",
    "load_weights",
    "measure_complexity",
    "save_model",
]
