"""A small network, and its similarity graphs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from reid_models.networks import create_model
from reid_ops import HSGM

SIZE = (64, 32)
IDENTITIES = 5
NAMES = ("baseline", "hsgnet")


def tiny(name: str = "hsgnet", **options: Any) -> Any:
    torch.manual_seed(0)
    return create_model(name, IDENTITIES, **{"backbone": "resnet18", "image_size": SIZE, **options})


def hsgm_modules(model: nn.Module) -> list[HSGM]:
    return [module for module in model.modules() if isinstance(module, HSGM)]


def randomise_graphs(model: nn.Module) -> None:
    """As if trained, so that the parts of HSGM differ."""
    for module in hsgm_modules(model):
        for parameter in module.parameters():
            nn.init.uniform_(parameter, 0.5, 1.5)
