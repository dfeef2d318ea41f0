"""HSGNet's training (section IV-B) as objects; the numbers are its recipes'."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ...losses import LossTerm
from ...recipes import load_recipe

_MODEL = load_recipe("market1501_hsgnet").config["model"]

#: The total loss, Eqs. 12 to 15: triplet (batch-hard) with alpha 0.5, cross-entropy with beta 1.0.
HSGNET_LOSSES: tuple[LossTerm, ...] = tuple(LossTerm.from_mapping(term) for term in _MODEL["losses"])
HSGNET_OPTIMIZER: Mapping[str, Any] = MappingProxyType(_MODEL["optimizer"])
HSGNET_SCHEDULE: Mapping[str, Any] = MappingProxyType(_MODEL["schedule"])
