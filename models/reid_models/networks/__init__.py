"""What networks share: their base, trunks and heads, names, files and costs; papers have their own."""

from .backbone import create_backbone
from .baseline import Baseline
from .complexity import Complexity, measure_complexity
from .export import export_onnx
from .heads import CBRHead
from .network import Network
from .registry import create_model, list_models
from .trunk_and_head import TrunkAndHead
from .weights import load_model, load_weights, save_model

__all__ = [
    "Baseline",
    "CBRHead",
    "Complexity",
    "Network",
    "TrunkAndHead",
    "create_backbone",
    "create_model",
    "export_onnx",
    "list_models",
    "load_model",
    "load_weights",
    "measure_complexity",
    "save_model",
]
